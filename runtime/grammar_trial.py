"""Grammars that llguidance may never get done with, tried in a process that can be stopped.

Whether expressions that exclude others (`~`, `&`) have any match at all may take more time and memory than there is, and
llguidance's limits are not looked at on the way. A thread that is in there cannot be stopped, and its memory grows until the
system ends the runner.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import llguidance

from runtime import child
from runtime.pipes import die_with_parent
from runtime.preparation import LONGEST_SECONDS, is_given_up

MEMORY = 1 << 30  # bytes that a trial may take
_LOOK_SECONDS = 0.1  # between two looks whether anybody waits


def is_needed(text: str) -> bool:
    """Whether a grammar in Lark may exclude anything."""
    return "~" in text or "&" in text


def problem(source: str, seconds: float = LONGEST_SECONDS, memory: int = MEMORY) -> str | None:
    """Why llguidance does not get done with a grammar, within so much time and so many bytes; None if it does. What else may be
    wrong with the grammar is not looked at. Ends early when nobody waits any more."""
    command, nothing = child.command("runtime.grammar_trial", str(memory)), subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=child.environment(), stdout=nothing, stderr=nothing) as process:
        try:
            return _outcome(process, source.encode(), seconds)
        finally:
            process.kill()


def _outcome(process: subprocess.Popen[bytes], source: bytes, seconds: float) -> str | None:
    end, rest = time.monotonic() + seconds, source or None
    while time.monotonic() < end:
        if is_given_up():
            return "nobody waits for the grammar"
        try:
            process.communicate(rest, timeout=_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            rest = None  # it goes on with what it has
            continue
        return None if process.returncode == 0 else "the grammar does not compile: it takes too much memory"
    return f"the grammar takes longer than {seconds:.0f} s to compile"


def main(memory: int) -> None:
    """`python -m runtime.grammar_trial BYTES`: compile the grammar on stdin for a vocabulary of single bytes, which asks the
    same of its expressions as any other."""
    die_with_parent()
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    llguidance.LLMatcher(llguidance.LLTokenizer("byte"), sys.stdin.buffer.read().decode(), log_level=0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
