"""The tokens of a prompt: where BOS goes, and what is left of one that is too long."""

from __future__ import annotations

import dataclasses

from runtime.core import ContextLengthError
from runtime.frames import Generate
from runtime.tokenizer import Tokenizer


class PromptError(Exception):
    """The prompt holds something that the model does not know."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """What a request asks to be continued."""

    tokens: list[int]  # to evaluate
    context: list[int]  # to hand back to the client: nothing cut, and no BOS that was put there
    dropped: int = 0  # tokens that did not fit


def make_prompt(request: Generate, tokenizer: Tokenizer, num_ctx: int) -> Prompt:
    """Raises PromptError, or ContextLengthError if the prompt is too long and must not be cut."""
    if not all(0 <= token < tokenizer.n_vocab for token in request.tokens):
        raise PromptError("the context holds tokens that this model does not have")
    text = tokenizer.encode(request.prompt, request.parse_special, add_special=True)
    context = request.tokens + text[tokenizer.add_bos :]
    tokens = context
    if tokenizer.add_bos and context[:1] != [tokenizer.bos_id]:  # a template may have put it there itself
        tokens = [*text[:1], *context]
    whole, num_ctx = len(tokens), min(request.num_ctx or num_ctx, num_ctx)
    if whole >= num_ctx:
        if not (request.truncate and request.shift):
            raise ContextLengthError(whole, num_ctx)
        # Ollama counts BOS to what is kept only where the file names it, and a cut it makes is its own, not llama-server's
        keep = len(tokens) if request.num_keep < 0 else request.num_keep + tokenizer.states_bos
        tokens = _cut(tokens, keep, num_ctx)
    return Prompt(tokens, context, whole - len(tokens))


def kept(num_keep: int, n_prompt: int, tokenizer: Tokenizer) -> int:
    """Tokens at the front that stay when a full context slides. Negative `num_keep`: the whole prompt."""
    return (n_prompt if num_keep < 0 else num_keep) + tokenizer.add_bos


def _cut(tokens: list[int], keep: int, num_ctx: int) -> list[int]:
    """As Ollama cuts: the front, and of the end what leaves half of the rest of the context free."""
    keep = min(keep, num_ctx - 1)
    limit = num_ctx - max((num_ctx - keep) // 2, 1)
    return tokens[:keep] + tokens[len(tokens) - (limit - keep) :]


def shifted(tokens: list[int], keep: int, num_ctx: int) -> list[int]:
    """What is left of a full context, as llama-server slides it: the front, and the later half of the rest.

    The last token is not in the cache yet and does not count.
    """
    keep = max(0, min(keep, num_ctx - 4))
    left = len(tokens) - 1 - keep
    discard = max(0, min(left // 2, left - 1))
    return tokens[:keep] + tokens[keep + discard :]
