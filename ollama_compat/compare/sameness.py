"""Do two servers say the same? Prompts as rendered, greedy text, tool calls, and vectors."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ollama_compat.compare import asking
from ollama_compat.compare.asking import AskError
from ollama_compat.compare.figures import cosine
from ollama_compat.compare.sides import Side

NEAR = 0.25  # nats between the two best tokens: what rounding can turn round
TOKENS = 64
PART = 4  # of a short context, that an answer may fill: at its end servers forget each in its own way
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
TEXTS = (
    "why is the sky blue?",
    "A fox carried a lantern through the winter forest.",
    "Größe 東京 🦊",
    "def add(a, b):\n    return a + b\n",
    "The river was wide, the bridge was narrow, and nobody hurried. " * 12,
)


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
class Greedy:
    """An answer without chance, and its tokens with their log probabilities, where the server tells them."""

    text: str
    tokens: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """What a side said to everything that is compared; `failed` has the errors, by what was asked for."""

    prompts: list[str]
    texts: list[Greedy]
    tool_calls: list[Any]
    vectors: list[list[float]]
    failed: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Sameness:
    """None, or empty: not compared, because the model or a server cannot."""

    prompts: list[bool]  # rendered alike, one a conversation
    texts: list[Text]
    tool_calls: bool | None
    cosines: list[float]
    notes: list[str]


def ask(side: Side, capabilities: Sequence[str], num_ctx: int) -> Said:
    """All that a model of such capabilities can be asked for on this side, which has it in memory alone meanwhile."""
    asked = {"temperature": 0, "seed": 1, "num_predict": min(TOKENS, num_ctx // PART), "num_ctx": num_ctx}
    failed: dict[str, str] = {}

    def tried(what: str, work: Callable[[], list[Any]]) -> list[Any]:
        """What comes of it; an error ends no comparison of all else."""
        try:
            return work()
        except AskError as error:
            failed[what] = str(error)
            return []

    if "embedding" in capabilities:
        return Said([], [], [], tried("embeddings", lambda: _vectors(side)), failed)
    texts = tried("greedy texts", lambda: [_greedy(side, each, asked) for each in CONVERSATIONS])
    if side.dialect != "ollama":
        return Said([], texts, [], [], failed)
    prompts = tried("prompts as rendered", lambda: [_rendered(side, each) for each in CONVERSATIONS])
    calls = tried("tool calls", lambda: [_tool_calls(side, asked)]) if "tools" in capabilities else []
    return Said(prompts, texts, calls, [], failed)


def compare(mine: Said, theirs: Said, *, same_api: bool) -> Sameness:
    """All that both have said. `same_api`: both are servers of Ollama's API."""
    notes = [f"{what} could not be compared: {error}" for what, error in {**theirs.failed, **mine.failed}.items()]
    if not same_api:
        notes.append("prompts as rendered and tool calls are compared only between servers of Ollama's API")
    calls = [one == other for one, other in zip(mine.tool_calls, theirs.tool_calls, strict=False)]
    return Sameness(
        prompts=[one == other for one, other in zip(mine.prompts, theirs.prompts, strict=False)],
        texts=[parted(one, other) for one, other in zip(mine.texts, theirs.texts, strict=False)],
        tool_calls=calls[0] if calls else None,
        cosines=[cosine(one, other) for one, other in zip(mine.vectors, theirs.vectors, strict=False) if len(one) == len(other)],
        notes=notes,
    )


def _rendered(side: Side, messages: Sequence[Mapping[str, str]]) -> str:
    body = {"model": side.model, "messages": messages, "stream": False, "_debug_render_only": True}
    told = asking.call(side, "/api/chat", body).get("_debug_info")
    if not isinstance(told, dict) or "rendered_template" not in told:
        raise AskError(f"{side.name} does not tell how it renders prompts")
    return str(told["rendered_template"])


def _greedy(side: Side, messages: Sequence[Mapping[str, str]], asked: Mapping[str, Any]) -> Greedy:
    body = {"model": side.model, "messages": messages, "stream": False}
    with contextlib.suppress(AskError):
        return _answer(side, body | {"logprobs": True, "top_logprobs": 20}, asked)
    return _answer(side, body, asked)  # some servers refuse who asks for log probabilities


def _answer(side: Side, body: Mapping[str, Any], asked: Mapping[str, Any]) -> Greedy:
    if side.dialect == "ollama":
        answer = asking.call(side, "/api/chat", {**body, "options": {**asked, **side.options}})
        return Greedy(asking.whole_text(answer.get("message")), answer.get("logprobs") or [])
    told = {"max_tokens": asked["num_predict"], "temperature": asked["temperature"], "seed": asked["seed"]}
    choice = (asking.call(side, "/v1/chat/completions", {**body, **told}).get("choices") or [{}])[0]
    return Greedy(asking.whole_text(choice.get("message")), (choice.get("logprobs") or {}).get("content") or [])


def parted(mine: Greedy, theirs: Greedy) -> Text:
    """Where two answers part: by the tokens that both report, or word by word where one reports none."""
    if not mine.tokens or not theirs.tokens:
        words, others = mine.text.split(), theirs.text.split()
        return Text(min(len(words), len(others)), _alike(words, others), mine.text, theirs.text)
    one, other = _shown(mine), _shown(theirs)
    names, other_names = _names(one), _names(other)
    letter = _alike("".join(names), "".join(other_names))
    at, other_at = _token_at(names, letter), _token_at(other_names, letter)
    gaps: tuple[float | None, float | None] = (None, None)
    if at < len(names) and other_at < len(other_names):  # none has ended there
        tokens = names[at], other_names[other_at]
        gaps = _gap(one[at], *tokens), _gap(other[other_at], *tokens)
    return Text(min(len(names), len(other_names)), min(at, other_at), mine.text, theirs.text, gaps)


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of the first are the same."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _names(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(entry.get("token")) for entry in tokens]


def _token_at(names: Sequence[str], letter: int) -> int:
    """Which token holds a letter of the text; servers report pieces of a letter singly or together."""
    end = 0
    for number, name in enumerate(names):
        end += len(name)
        if end > letter:
            return number
    return len(names)


def _shown(said: Greedy) -> list[Mapping[str, Any]]:
    """Tokens that are part of the text: Ollama reports none of the tags, and of the white space, that it cut out."""
    return [entry for entry in said.tokens if (name := str(entry.get("token"))).strip() and name in said.text]


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


def _vectors(side: Side) -> list[list[float]]:
    return asking.call(side, "/api/embed", {"model": side.model, "input": list(TEXTS)}).get("embeddings") or []
