"""signin and signout: what the server says about an account at ollama.com."""

from __future__ import annotations

from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import SignInNeeded

BROWSER = "If your browser did not open, navigate to:\n    {url}\n\n"


def sign_in(call: Call) -> None:
    """`signin`: who is signed in, or where to do it."""
    try:
        user = call.client.whoami()
    except SignInNeeded as error:
        print("You need to be signed in to Ollama to run Cloud models.\n")
        _print_url(error)
        return
    if user.get("name"):
        print(f"You are already signed in as user '{user['name']}'\n")


def sign_out(call: Call) -> None:
    """`signout`."""
    try:
        call.client.sign_out()
    except SignInNeeded:
        print("You are not signed in to ollama.com\n")
        return
    print("You have signed out of ollama.com\n")


def explain(error: SignInNeeded, purpose: str = "to Ollama to run Cloud models") -> None:
    """Say that an account is needed and where to get one."""
    print(f"You need to be signed in {purpose}.\n")
    _print_url(error)


def _print_url(error: SignInNeeded) -> None:
    if error.signin_url:
        print(BROWSER.format(url=error.signin_url), end="")
