"""The border between the server and a runner process: a few frame types, length-prefixed orjson on the child's pipes.

A frame on the wire is a little-endian u32 (the number of bytes that follow) and one JSON object whose `frame` key names
the dataclass; the other keys are its fields. Nothing is ever pickled. Both worlds import this file, and nothing else here
imports from either of them.
"""

from __future__ import annotations

import dataclasses
import struct
import typing
from collections.abc import Callable
from typing import Any

import orjson

MAX_FRAME = 256 << 20  # bytes; images travel as base64 inside a frame
CALM = 0.1  # cores that other programs may have on a machine that counts as calm where a job measures
BREAK = "\ufdd0"
"""A Unicode non-character that the server puts inside text that merely looks like a special token.

The tokenizer cuts the prompt there and drops it, so `<|im_end|>` typed by a user stays text.
"""

SEQUENCE_BREAKERS = ("\n", ":", '"', "*")
"""Texts over which DRY sees no repetition, unless the request names others."""

_LENGTH = struct.Struct("<I")


class FrameError(Exception):
    """The other side sent bytes that are no frame."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; names and meanings are those of Ollama's options, and beyond them llama-server's."""

    temperature: float = 0.8
    top_k: int = 40  # <= 0: off
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64  # 0: off, -1: the whole context
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = -1  # -1: random
    logit_bias: list[tuple[int, float]] = dataclasses.field(default_factory=list)  # token, what is added to its logit
    dry_multiplier: float = 0.0  # 0: off
    dry_base: float = 1.75
    dry_allowed_length: int = 2  # tokens that may repeat unpunished
    dry_penalty_last_n: int = 64  # <= 0: off
    dry_sequence_breakers: list[str] = dataclasses.field(default_factory=lambda: list(SEQUENCE_BREAKERS))
    top_n_sigma: float = -1.0  # <= 0: off
    xtc_probability: float = 0.0  # 0: off
    xtc_threshold: float = 0.1  # > 0.5: off
    dynatemp_range: float = 0.0  # the temperature moves so far up and down; 0: it stays
    dynatemp_exponent: float = 1.0
    mirostat: int = 0  # 0: off, 1 or 2: the version
    mirostat_tau: float = 5.0  # bits of surprise to aim at
    mirostat_eta: float = 0.1  # how fast to correct


# ---------------------------------------------------------------- server -> runner


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """First frame of every runner. Answered by LoadProgress frames, then Loaded or Failed(id=None)."""

    path: str
    adapters: list[str] = dataclasses.field(default_factory=list)
    num_ctx: int = 4096  # tokens a sequence may hold; the runner caps it to the training context. 0: by memory
    num_parallel: int = 1  # sequences that are promised num_ctx each. 0: by memory
    num_batch: int = 512  # tokens a step may hold. 0: by num_ctx
    memory: int = 0  # bytes that are free; 0: unknown
    num_thread: int = 0  # 0: physical cores of the affinity mask
    num_gpu: int = -1
    main_gpu: int | None = None
    num_cpu_moe: int = 0  # layers, from the first, whose experts stay in RAM
    gpu_overhead: int = 0  # bytes of a card that are left alone
    vram: int = 0  # bytes of a card that may be taken; 0: what is free
    shared: bool = False  # other models of this server are on the card, which can be asked to leave: Failed("out_of_memory")
    pinned: int = -1  # bytes of RAM that may be pinned for a card; < 0: what the system allows
    pcie: bool = True  # the card may read experts from RAM beside the CPU, where that is faster
    use_mmap: bool | None = None
    kv_cache_type: str = "f16"  # one of runtime.kernels.kept.KINDS
    embedding: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class CallForm:
    """How an answer calls tools: `{"name": ..., "arguments": {...}}`, each call between `begin` and `end`."""

    tools: list[dict[str, Any]]  # {"name", "parameters": JSON schema or null, "strict": whether a schema has to be enforced}
    begin: str = ""
    end: str = ""
    forced: bool = True  # the answer is nothing but calls; False: text with calls in it, which needs `begin`
    several: bool = False  # there may be more than one


@dataclasses.dataclass(frozen=True, slots=True)
class Generate:
    """One request for text. The prompt is `tokens` (a saved context) followed by the tokens of `prompt`."""

    id: int
    prompt: str = ""
    tokens: list[int] = dataclasses.field(default_factory=list)
    parse_special: bool = True  # special tokens in `prompt` are tokens (a rendered template), except where BREAK cuts them
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    num_ctx: int = 0  # tokens that the prompt has to fit, where there are more; 0: all that there are
    num_predict: int = -1  # < 0: until the model ends
    num_keep: int = 4
    stop: list[str] = dataclasses.field(default_factory=list)
    shift: bool = True  # a full context slides; False: the text ends with reason "length"
    truncate: bool = False  # cut a prompt longer than the context, as Ollama does; False: Failed("context_length")
    repeat_limit: int = 0  # tokens in a row that may say what the one before said; one more ends it as "repeated". 0: any number
    logprobs: int = -1  # -1: none, 0: the chosen token's, k: and those of the k best
    preserved: list[str] = dataclasses.field(default_factory=list)  # special tokens that stay visible in the text
    images: list[str] = dataclasses.field(default_factory=list)
    grammar: str = ""  # "json" (any object, with any white space), a JSON schema, or a GBNF or Lark grammar
    calls: CallForm | None = None  # in place of `grammar`
    grammar_start: str = ""  # text after which the grammar applies; "": from the first token
    grammar_opening: str = ""  # the answer may begin with this text, and only then the grammar waits for `grammar_start`


@dataclasses.dataclass(frozen=True, slots=True)
class Cancel:
    """Stop request `id`; its blocks are free after the current step. Answered by Done(reason="cancelled")."""

    id: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tokenize:
    id: int
    text: str
    parse_special: bool = True
    add_special: bool = True  # put the vocabulary's BOS/EOS where its metadata says so


@dataclasses.dataclass(frozen=True, slots=True)
class Detokenize:
    id: int
    tokens: list[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Embed:
    id: int
    inputs: list[str]
    truncate: bool = True  # cut what is too long; False: Failed("context_length")
    normalize: bool = True  # to vectors of length 1
    num_ctx: int = 0  # tokens an input may have; 0: what the runner was loaded with
    query: str | None = None  # rank the inputs by how well they answer it: one number each, as it comes
    dimensions: int = 0  # > 0: keep the first so many numbers of each vector, again at length 1


@dataclasses.dataclass(frozen=True, slots=True)
class GetStats:
    id: int


@dataclasses.dataclass(frozen=True, slots=True)
class Grow:
    """Hold longer contexts. Answered by Grown, or Failed("unsupported") where the cache was made once and for all."""

    id: int
    num_ctx: int
    memory: int = 0  # bytes that are free; 0: unknown


@dataclasses.dataclass(frozen=True, slots=True)
class GiveBack:
    """Let the card have so many bytes free for another model, if that will come to it. Answered by GivenBack."""

    id: int
    nbytes: int
    models: int  # on the card, with the one that is to come
    main_gpu: int | None = None  # which its Load will ask for


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """The only frame of a job (`python -m runtime.job`). Answered by LoadProgress frames, then Finished or Failed(id=None)."""

    job: str  # one of runtime.job.JOBS
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


# ---------------------------------------------------------------- runner -> server


@dataclasses.dataclass(frozen=True, slots=True)
class LoadProgress:
    phase: str  # "compiling kernels", "reading weights", "quantizing"
    completed: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    architecture: str
    num_ctx: int  # what a sequence can really hold
    n_ctx_train: int
    n_vocab: int
    bos_token: str
    eos_token: str
    add_bos: bool
    control_tokens: list[str]  # texts of the vocabulary's control tokens; user text must not activate them
    size: int  # bytes resident: weights, cache, buffers
    size_vram: int
    placement: str  # the plan in words
    load_ns: int
    pinned: bool | None = None  # whether the weights in RAM that a card reads are pinned; None: there are none
    gpu: int | None = None  # the card, as `main_gpu` counts; None: on none


@dataclasses.dataclass(frozen=True, slots=True)
class Logprob:
    token: str
    logprob: float
    bytes: list[int]
    top: list[Logprob] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """The prompt of request `id` was too long, and so many tokens were taken out of its middle. Comes before all Tokens."""

    id: int
    n_prompt: int  # tokens before
    n_ctx: int
    dropped: int


@dataclasses.dataclass(frozen=True, slots=True)
class Grown:
    id: int
    num_ctx: int  # what a sequence can really hold
    size: int  # as in Loaded
    size_vram: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class GivenBack:
    id: int
    size_vram: int  # that the model has now
    shared: bool  # whether the other one comes to its card


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """New text of request `id`: whole UTF-8 characters, nothing that may yet become a stop string."""

    id: int
    text: str
    tokens: list[int]
    logprobs: list[Logprob] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    id: int
    reason: str  # "stop", "length", "repeated", "cancelled"
    prompt_tokens: int
    cached_tokens: int  # of these, found in the cache
    prompt_ns: int
    eval_tokens: int
    eval_ns: int
    context: list[int]  # prompt and answer, for /api/generate
    stop: str = ""  # the stop string that ended it


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """Request `id` (None: the load) ended in an error. `kind` is one of the names in FAILURES."""

    id: int | None
    kind: str
    message: str
    n_prompt: int = 0  # context_length: tokens asked for
    n_ctx: int = 0  # context_length: tokens there are


SCHEMA_FAILED = "Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n"
"""How the message of a `bad_request` begins whose schema no grammar can be made of: in llama-server's words."""

FAILURES = ("context_length", "bad_request", "unsupported", "bad_model", "out_of_memory", "internal")


@dataclasses.dataclass(frozen=True, slots=True)
class Tokens:
    id: int
    tokens: list[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    id: int
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Embeddings:
    id: int
    embeddings: list[list[float]]  # float32 values, each as its shortest decimal
    prompt_tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    id: int
    running: int
    waiting: int
    blocks_total: int
    blocks_free: int  # neither in use nor holding a reusable prefix
    blocks_cached: int  # free to take, but holding a prefix that a request may reuse
    steps: int
    size: int
    size_vram: int
    expert_lookups: int = 0  # by rows; prompts that brought all experts to the card do not count
    expert_hits: int = 0  # of these, found in VRAM


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """A job is done."""

    result: dict[str, Any]


Request = Load | Generate | Cancel | Tokenize | Detokenize | Embed | GetStats | Grow | GiveBack | Work
Reply = LoadProgress | Loaded | Cut | Grown | GivenBack | Token | Done | Failed | Tokens | Text | Embeddings | Stats | Finished
Frame = Request | Reply

_FRAMES: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in typing.get_args(Request) + typing.get_args(Reply)}


def encode(frame: Frame) -> bytes:
    """The frame with its length prefix, ready for a pipe."""
    body = orjson.dumps({"frame": type(frame).__name__} | {f.name: getattr(frame, f.name) for f in dataclasses.fields(frame)})
    if len(body) > MAX_FRAME:
        raise FrameError(f"frame of {len(body)} bytes is longer than {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Frame:
    """The frame in `body` (without its length prefix); FrameError when it is none."""
    try:
        fields = orjson.loads(body)
        kind = fields.pop("frame")
        if kind == "Generate":
            fields["sampling"] = Sampling(**fields["sampling"])
            fields["calls"] = None if fields["calls"] is None else CallForm(**fields["calls"])
        elif kind == "Token":
            fields["logprobs"] = [_logprob(entry) for entry in fields["logprobs"]]
        frame: Frame = _FRAMES[kind](**fields)
        return frame
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise FrameError(f"not a frame: {error}") from error


def body_length(prefix: bytes) -> int:
    """Length of the body that follows a 4-byte prefix; FrameError when it is beyond MAX_FRAME."""
    (length,) = _LENGTH.unpack(prefix)
    if length > MAX_FRAME:
        raise FrameError(f"frame of {length} bytes is longer than {MAX_FRAME}")
    return int(length)


PREFIX_BYTES = _LENGTH.size


def _logprob(entry: dict[str, Any]) -> Logprob:
    return Logprob(entry["token"], entry["logprob"], entry["bytes"], [_logprob(top) for top in entry["top"]])
