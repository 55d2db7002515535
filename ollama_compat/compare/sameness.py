"""Do two servers say the same? Prompts as rendered, greedy text, tool calls, and vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollama_compat.compare import asking
from ollama_compat.compare.asking import AskError
from ollama_compat.compare.figures import cosine
from ollama_compat.compare.sides import Side

NEAR = 0.25  # nats between the two best tokens: what rounding can turn round
TOKENS = 64
CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Tell me a short story about a fox and a lantern."}],
    [{"role": "system", "content": "You answer in one sentence."}, {"role": "user", "content": "What is the sea?"}],
    [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello, Ada."},
        {"role": "user", "content": "What is my name?"},
    ],
)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city"}},
            "required": ["city"],
        },
    },
}
TOOL_QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
TEXTS = ("why is the sky blue?", "A fox carried a lantern through the winter forest.")


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """Two greedy answers. `gaps`: of each side, nats between the two tokens where they part; None where it told neither."""

    tokens: int  # of the shorter one
    same: int  # tokens before the first difference
    mine: str
    theirs: str
    gaps: tuple[float | None, float | None] = (None, None)

    @property
    def equal(self) -> bool:
        """Whether there is no difference."""
        return self.mine == self.theirs

    @property
    def told(self) -> bool:
        """Whether a side tells how far apart the two tokens are."""
        return any(gap is not None for gap in self.gaps)

    @property
    def near_tie(self) -> bool:
        """Whether the first difference is one that rounding explains, by both sides' own log probabilities."""
        told = [gap for gap in self.gaps if gap is not None]
        return not self.equal and len(told) == 2 and all(gap <= NEAR for gap in told)


@dataclasses.dataclass(frozen=True, slots=True)
class Sameness:
    """None, or empty: not compared, because the model or the server cannot."""

    prompts: list[bool]  # rendered alike, one a conversation
    texts: list[Text]
    tool_calls: bool | None
    cosines: list[float]
    notes: list[str]


def compare(mine: Side, theirs: Side, capabilities: Sequence[str], num_ctx: int) -> Sameness:
    """All that both can do."""
    asked = {"temperature": 0, "seed": 1, "num_predict": TOKENS, "num_ctx": num_ctx}
    notes: list[str] = []

    def tried(what: str, work: Callable[[], list[Any]]) -> list[Any]:
        """What comes of it; a note where a server answers with an error, which ends no comparison of all else."""
        try:
            return work()
        except AskError as error:
            notes.append(f"{what} could not be compared: {error}")
            return []

    if "embedding" in capabilities:
        return Sameness([], [], None, tried("embeddings", lambda: _vectors(mine, theirs)), notes)
    texts = tried("greedy texts", lambda: [_texts(mine, theirs, each, asked) for each in CONVERSATIONS])
    if theirs.dialect != "ollama":
        notes.append("prompts as rendered and tool calls are compared only between servers of Ollama's API")
        return Sameness([], texts, None, [], notes)
    prompts = tried("prompts as rendered", lambda: [_alike(mine, theirs, each) for each in CONVERSATIONS])
    calls = []
    if "tools" in capabilities:
        calls = tried("tool calls", lambda: [_tool_calls(mine, asked) == _tool_calls(theirs, asked)])
    return Sameness(prompts, texts, calls[0] if calls else None, [], notes)


def _alike(mine: Side, theirs: Side, messages: Sequence[Mapping[str, str]]) -> bool:
    return _rendered(mine, messages) == _rendered(theirs, messages)


def _rendered(side: Side, messages: Sequence[Mapping[str, str]]) -> str:
    body = {"model": side.model, "messages": messages, "stream": False, "_debug_render_only": True}
    told = asking.call(side, "/api/chat", body).get("_debug_info")
    if not isinstance(told, dict) or "rendered_template" not in told:
        raise AskError(f"{side.name} does not tell how it renders prompts")
    return str(told["rendered_template"])


def _texts(mine: Side, theirs: Side, messages: Sequence[Mapping[str, str]], asked: Mapping[str, Any]) -> Text:
    """Greedy answers, by the tokens and log probabilities of both, or word by word where one tells none."""
    (one, my_tokens), (other, their_tokens) = (_greedy(side, messages, asked) for side in (mine, theirs))
    if my_tokens and their_tokens:
        return parted(one, my_tokens, other, their_tokens)
    words, others = one.split(), other.split()
    same = next((i for i, (a, b) in enumerate(zip(words, others, strict=False)) if a != b), min(len(words), len(others)))
    return Text(min(len(words), len(others)), same, one, other)


def _greedy(side: Side, messages: Sequence[Mapping[str, str]], asked: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]]]:
    """An answer and its tokens."""
    body = {"model": side.model, "messages": messages, "stream": False, "logprobs": True, "top_logprobs": 20}
    if side.dialect == "ollama":
        answer = asking.call(side, "/api/chat", body | {"options": {**asked, **side.options}})
        return _text(answer.get("message"), "thinking"), answer.get("logprobs") or []
    told = {"max_tokens": asked["num_predict"], "temperature": asked["temperature"], "seed": asked["seed"]}
    choice = (asking.call(side, "/v1/chat/completions", body | told).get("choices") or [{}])[0]
    return _text(choice.get("message"), "reasoning_content"), (choice.get("logprobs") or {}).get("content") or []


def _text(message: Mapping[str, Any] | None, thinking: str) -> str:
    """All of a message."""
    message = message or {}
    return str(message.get(thinking) or "") + str(message.get("content") or "")


def parted(mine: str, my_tokens: Sequence[Mapping[str, Any]], theirs: str, their_tokens: Sequence[Mapping[str, Any]]) -> Text:
    """Where two answers part, by the tokens that both report."""
    my_tokens, their_tokens = _shown(mine, my_tokens), _shown(theirs, their_tokens)
    pairs = list(zip(my_tokens, their_tokens, strict=False))
    same = next((i for i, (a, b) in enumerate(pairs) if a.get("token") != b.get("token")), len(pairs))
    gaps: tuple[float | None, float | None] = (None, None)
    if same < len(pairs):
        tokens = pairs[same][0].get("token"), pairs[same][1].get("token")
        gaps = _gap(pairs[same][0], *tokens), _gap(pairs[same][1], *tokens)
    return Text(min(len(my_tokens), len(their_tokens)), same, mine, theirs, gaps)


def _shown(text: str, tokens: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Tokens that are part of a text: Ollama reports none of the tags, and of the white space, that it cut out."""
    return [entry for entry in tokens if str(entry.get("token")).strip() and str(entry.get("token")) in text]


def _gap(entry: Mapping[str, Any], first: object, second: object) -> float | None:
    """Nats between two tokens in one side's list of the likeliest; None when it does not hold both."""
    listed = {top.get("token"): top.get("logprob") for top in entry.get("top_logprobs") or ()}
    one, other = listed.get(first), listed.get(second)
    return abs(one - other) if isinstance(one, int | float) and isinstance(other, int | float) else None


def _tool_calls(side: Side, asked: Mapping[str, Any]) -> list[Any]:
    body = {"model": side.model, "messages": TOOL_QUESTION, "tools": [TOOL], "stream": False}
    answer = asking.call(side, "/api/chat", body | {"options": {**asked, **side.options}})
    calls = (answer.get("message") or {}).get("tool_calls") or []
    return [(entry["function"]["name"], entry["function"]["arguments"]) for entry in calls]


def _vectors(mine: Side, theirs: Side) -> list[float]:
    found = [asking.call(side, "/api/embed", {"model": side.model, "input": list(TEXTS)}) for side in (mine, theirs)]
    vectors = [answer.get("embeddings") or [] for answer in found]
    return [cosine(one, other) for one, other in zip(*vectors, strict=True)]
