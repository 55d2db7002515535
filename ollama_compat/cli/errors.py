"""What ends a command: the text after `Error: ` on stderr, and status 1."""

from __future__ import annotations

SOMETHING = "something went wrong, please see the ollama server logs for details"


class CommandError(Exception):
    """A command that failed; the message is what the user reads."""


class StatusError(CommandError):
    """The server answered with an error `status`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message or SOMETHING)
        self.status = status


class SignInNeeded(StatusError):
    """The server wants an account (status 401); `signin_url` is where to get one."""

    def __init__(self, message: str, signin_url: str) -> None:
        super().__init__(401, message)
        self.signin_url = signin_url


class Unreachable(CommandError):
    """No answer came: `refused` when nobody listens there."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
