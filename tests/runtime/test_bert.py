"""Embedding models: every one against llama.cpp's recorded vectors and against its plain twin; batches against single texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import naive
import numpy as np
import pytest
import tiny_gguf

from runtime.core import ModelError
from runtime.embedder import Embedder, EmbedJob
from runtime.execute import cpu
from runtime.execute.encoder import CpuEncoder, load
from runtime.frames import Embed, Embeddings, Failed
from runtime.gguf_file import open_gguf
from runtime.tokenizer import Tokenizer

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
Open = Callable[..., CpuEncoder]
Pooled = Callable[[np.ndarray], np.ndarray]
POOLING: dict[str, Pooled] = {
    "bert": lambda states: states.mean(0),
    "bert-cls": lambda states: states[0],
    "nomic-bert": lambda states: states.mean(0),
    "qwen3-embedding": lambda states: states[-1],
}


@pytest.fixture
def encoders(tmp_path: Path) -> Iterator[Open]:
    """Opens tiny models by name and weight type; all are closed when the test ends."""
    opened: list[CpuEncoder] = []

    def open_one(architecture: str, kind: str = "F32", *, threads: int = 2, ctx: int = 1024, batch: int = 512) -> CpuEncoder:
        path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, kind))
        quiet = lambda phase, done, total: None  # noqa: E731
        opened.append(load(path, num_ctx=ctx, num_batch=batch, num_thread=threads, progress=quiet))
        return opened[-1]

    yield open_one
    for encoder in opened:
        encoder.close()


def texts(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [rng.integers(5, 300, length).tolist() for length in lengths]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("architecture", tiny_gguf.ENCODERS)
@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_vectors_match_llama_cpp(architecture: str, kind: str, encoders: Open) -> None:
    golden = np.load(GOLDEN / f"tiny-{architecture}-{kind}.npz")
    inputs = [part.tolist() for part in np.split(golden["tokens"], np.cumsum(golden["lengths"])[:-1])]
    vectors = encoders(architecture, kind).encode(inputs)
    for vector, expected in zip(vectors, golden["vectors"], strict=True):
        assert naive.nmse(vector, expected) <= (1e-6 if kind == "F32" else 4e-6)  # llama.cpp takes GELU from a table of f16


@pytest.mark.parametrize("architecture", tiny_gguf.ENCODERS)
@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0"])
def test_vectors_match_twin_at_every_length(architecture: str, kind: str, encoders: Open, tmp_path: Path) -> None:
    encoder, twin = encoders(architecture, kind), naive.Model(tmp_path / "m.gguf")
    inputs = texts(1, 2, 7, 8, 9, 63, 100, 17)
    bound = 5e-6 if kind != "F32" else 1e-6
    for tokens, vector in zip(inputs, encoder.encode(inputs), strict=True):
        expected = POOLING[architecture](twin.states(tokens))
        assert naive.nmse(vector, expected) <= bound
        assert cosine(vector, expected) >= 0.99999


@pytest.mark.parametrize("architecture", ["bert", "qwen3-embedding"])
def test_longest_text(architecture: str, encoders: Open, tmp_path: Path) -> None:
    encoder = encoders(architecture, ctx=700)
    (tokens,) = texts(encoder.longest)
    expected = POOLING[architecture](naive.Model(tmp_path / "m.gguf").states(tokens))
    assert naive.nmse(encoder.encode([tokens])[0], expected) <= 1e-6


def test_limits_follow_context_batch_and_pooling(encoders: Open) -> None:
    assert encoders("bert", ctx=4096).longest == 256  # as trained
    assert encoders("bert", ctx=100).longest == 100
    assert encoders("bert", batch=64).longest == 64
    assert encoders("qwen3-embedding", ctx=300, batch=64).longest == 300  # the last token alone counts


@pytest.mark.parametrize("architecture", tiny_gguf.ENCODERS)
def test_text_is_bit_equal_alone_and_in_a_batch(architecture: str, encoders: Open) -> None:
    encoder = encoders(architecture, "Q8_0")
    inputs = texts(5, 30, 8, 1, 44)
    together = encoder.encode(inputs).copy()
    for tokens, vector in zip(inputs, together, strict=True):
        np.testing.assert_array_equal(encoder.encode([tokens])[0], vector)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_bit(threads: int, encoders: Open) -> None:
    inputs = texts(20, 33)
    np.testing.assert_array_equal(
        encoders("bert", "F16", threads=threads).encode(inputs), encoders("bert", "F16", threads=2).encode(inputs)
    )


def test_unpacked_matrices_give_their_packed_memory_back(encoders: Open) -> None:
    packed, plain = encoders("bert", "Q8_0"), encoders("bert", "F16")
    assert packed.size <= 1.1 * plain.size


def _file(tmp_path: Path, metadata: dict[str, object] | None = None, **changes: object) -> Path:
    shape = tiny_gguf.ENCODERS["bert"]
    metadata = shape.metadata if metadata is None else metadata
    return tiny_gguf.write(tmp_path / "m.gguf", dataclasses.replace(shape, metadata=metadata, **changes))  # type: ignore[arg-type]


def _load(path: Path) -> CpuEncoder:
    return load(path, num_ctx=128, num_batch=128, num_thread=1, progress=lambda phase, done, total: None)


@pytest.mark.parametrize("kind", [0, 5, 9])
def test_other_poolings_are_named(kind: int, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"key 'bert.pooling_type' is {kind}, which is not supported"):
        _load(_file(tmp_path, {"pooling_type": kind}))


@pytest.mark.parametrize("name", ["position_embd.weight", "token_embd_norm.bias", "blk.1.layer_output_norm.weight"])
def test_missing_tensor_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = tiny_gguf.tensors
    monkeypatch.setattr(tiny_gguf, "tensors", lambda shape: {n: s for n, s in everything(shape).items() if n != name})
    with pytest.raises(ModelError, match=f"missing tensor '{name}'"):
        _load(_file(tmp_path))


def test_an_encoder_makes_no_text(tmp_path: Path) -> None:
    path = _file(tmp_path, {})
    options = {"num_ctx": 64, "num_parallel": 1, "num_batch": 64, "num_thread": 1}
    with pytest.raises(ModelError, match="'bert' makes no text"):
        cpu.load(path, **options, kv_cache_type="f16", progress=lambda phase, done, total: None)


# ---------------------------------------------------------------- models that rank


@pytest.mark.parametrize("architecture", tiny_gguf.RANKERS)
def test_ranks_match_llama_cpp(architecture: str, encoders: Open) -> None:
    golden = np.load(GOLDEN / f"tiny-{architecture}-F32.npz")
    inputs = [part.tolist() for part in np.split(golden["tokens"], np.cumsum(golden["lengths"])[:-1])]
    scores = encoders(architecture).encode(inputs)
    assert scores.shape == (len(inputs), 1)
    assert scores[:, 0] == pytest.approx(golden["scores"], rel=2e-3, abs=1e-3)  # llama.cpp takes GELU from a table of f16
    assert np.ptp(golden["scores"]) > 0.01


def test_a_model_that_ranks_needs_a_head(tmp_path: Path) -> None:
    shape = dataclasses.replace(tiny_gguf.RANKERS["bert-rank"], labels=0)
    with pytest.raises(ModelError, match="no classifier head"):
        load(tiny_gguf.write(tmp_path / "m.gguf", shape), num_ctx=64, num_batch=64, num_thread=1, progress=lambda *_: None)


def test_pairs(encoders: Open, tmp_path: Path) -> None:
    """[CLS] query [SEP] document: a document that is too long loses its end."""
    executor = encoders("bert-rank", ctx=20)
    with open_gguf(str(tmp_path / "m.gguf")) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata)
    embedder = Embedder(executor, tokenizer, 20)
    job = embedder.prepare(Embed(1, ["is blue", "the " * 50], query="the sky"))
    assert isinstance(job, EmbedJob)
    plain = [tokenizer.encode(text, add_special=False) for text in ("the sky", "is blue")]
    assert job.texts[0] == [2, *plain[0], 3, *plain[1]]
    assert len(job.texts[1]) == 20
    assert embedder.submit(job) == []
    (reply,) = embedder.step()
    assert isinstance(reply, Embeddings)
    assert [len(vector) for vector in reply.embeddings] == [1, 1]
    for request in (Embed(2, ["x"]), Embed(3, ["x"], query="the " * 50)):
        assert isinstance(embedder.prepare(request), Failed)


def test_a_ranking_template(encoders: Open, tmp_path: Path) -> None:
    executor = encoders("qwen3-rank")
    with open_gguf(str(tmp_path / "m.gguf")) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata)
    embedder = Embedder(executor, tokenizer, 64, "ab{query}<|end|>b{document}a")
    job = embedder.prepare(Embed(1, ["w<|end|>"], query="!"))
    assert isinstance(job, EmbedJob)
    assert tokenizer.decode(job.texts[0]) == "ab!<|end|>bw<|end|>a"
    assert job.texts[0].count(tokenizer.eos_id) == 1  # the template's own
