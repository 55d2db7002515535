"""Places in plain text (see runtime.places): text until a tag, and text that matches an expression."""

from __future__ import annotations

from runtime.expressions import Expression


class ExpressionMap:
    """For texts that match a regular expression. A place is its state."""

    start = Expression.start
    marks = b""
    exact = True

    def __init__(self, expression: Expression) -> None:
        self._expression = expression

    def lasting(self, at: int) -> bool:
        """All places are."""
        return True

    def loose(self, at: int) -> bool:
        """What may come depends on the place."""
        return False

    def is_loose(self, text: bytes) -> bool:
        """What may come depends on the place."""
        return False

    def walk(self, at: int, text: bytes) -> int | None:
        """Where a text leads; None: off the map, as letters beyond ASCII are."""
        state = self._expression.after_all(at, text)
        return None if state is None or self._expression.is_dead(state) else state


class TextMap:
    """For any text that `tag` ends, or a special token, which the map does not see. A place is what stands of it at the end."""

    start = b""
    marks = b""
    exact = False

    def __init__(self, tag: bytes) -> None:
        self._tag = tag

    def lasting(self, at: bytes) -> bool:
        """All places are."""
        return True

    def loose(self, at: bytes) -> bool:
        """Whether no part of the tag stands there, nor of a letter."""
        return not at

    def is_loose(self, text: bytes) -> bool:
        """Whether the tag does not begin in the text."""
        if self._tag and self._tag[:1] in text:
            return False
        try:
            return len(text.decode()) > 0
        except UnicodeDecodeError:
            return False

    def walk(self, at: bytes, text: bytes) -> bytes | None:
        """Where a text leads; None: to the tag."""
        whole = at + text
        if self._tag and self._tag in whole:
            return None
        begun = next((size for size in range(min(len(self._tag), len(whole)), 0, -1) if whole.endswith(self._tag[:size])), 0)
        return max(self._tag[:begun], _unfinished(whole), key=len)


def _unfinished(text: bytes) -> bytes:
    """The bytes of a character at the end of a text that is not whole."""
    return text[len(text.decode(errors="ignore").encode()) :]
