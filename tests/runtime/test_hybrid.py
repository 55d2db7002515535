"""The GPU's kernels and the hybrid executor against plain NumPy; needs an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import hanging_worker
import naive
import numpy as np
import pytest
import tiny_gguf
from stepping import Text, blocks_for, open_model
from tiny_gguf import Type

from ollama_compat.errors import ApiError
from ollama_compat.runner import Runner
from runtime.core import Batch, CannotGrow, CardTaken
from runtime.frames import Generate, Load, Sampling
from runtime.quants import BY_NAME
from runtime.sampling.candidates import highest

torch = pytest.importorskip("torch", reason="needs the extra cuda")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from runtime.cuda.module import U64, Module  # noqa: E402
from runtime.execute import cards, hybrid  # noqa: E402
from runtime.execute.cuda_core import CHUNK, CHUNK_BYTES  # noqa: E402
from runtime.execute.cuda_structs import Groups, Matrix, Packing, Rows  # noqa: E402
from runtime.execute.cuda_values import FORMATS  # noqa: E402
from runtime.execute.mailbox import HandoffError  # noqa: E402
from runtime.execute.shortlist import LIST, LIST_GROUPS, LIST_ROOM, Shortlist  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
KINDS = [name for name, kind in BY_NAME.items() if kind.cuda]
Open = Callable[..., "hybrid.HybridExecutor"]
GREEDY = Sampling(temperature=0)
ROUNDED_BF16 = 1e-4  # of a CPU that rounds its inputs to bfloat16 too, as its instruction for it wants them


def silent(phase: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Module:
    return Module(KINDS, torch.device("cuda", 0), tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens models on the card; all are closed when the test ends. `resident`: experts of a layer in VRAM, None for all."""
    executors = []

    def open_one(
        path: Path,
        *,
        resident: int | None = None,
        over_pcie: float = 0.0,
        rows: int = 256,
        num_gpu: int = -1,
        ctx: int = 1024,
        pinned: int = -1,
        mapped: bool = False,
        kind: str = "f16",
    ) -> hybrid.HybridExecutor:
        options = {"num_gpu": num_gpu, "pinned": pinned, "kv_cache_type": kind}
        request = Load(str(path), num_ctx=ctx, num_parallel=4, num_batch=rows, num_thread=2, **options)
        executor = hybrid.load(request, silent, mapped=mapped, over_pcie=over_pcie, resident=resident)
        assert executor is not None
        executors.append(executor)
        return executor

    yield open_one
    for executor in executors:
        executor.close()


def blocks(kind: str, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of random blocks: its bytes (rows, bytes), its values (rows, width)."""
    quant, rng = BY_NAME[kind], np.random.default_rng(1)
    values = rng.standard_normal((rows, width)).astype(np.float32)
    raw = tiny_gguf.encode(values, Type[kind], rng).view(np.uint8).reshape(rows, -1)
    return raw, quant.dequantize(raw.reshape(-1, quant.block_bytes)).reshape(rows, width).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_dequantised_values(kind: str, module: Module) -> None:
    raw, values = blocks(kind, 5, 512)
    out = torch.zeros(values.size, dtype=torch.float16, device="cuda")
    w = torch.from_numpy(raw.copy()).cuda()
    module.launch("dequantize", (-(-values.size // 2048),), 256, w, BY_NAME[kind].type_id, out, U64(values.size))
    np.testing.assert_allclose(out.cpu().numpy().astype(np.float32), values.ravel(), rtol=1e-3, atol=1e-6)


def packed(x: torch.Tensor, module: Module) -> tuple[Rows, list[torch.Tensor]]:
    """Rows in all formats; the tensors are to be kept."""
    n, width = x.shape
    parts = [torch.full((n * -(-width // CHUNK) * CHUNK_BYTES,), 77, dtype=torch.uint8, device="cuda") for _ in FORMATS]
    pointers = (ctypes.c_void_p * len(FORMATS))(*(part.data_ptr() for part in parts))
    count = torch.tensor([n], dtype=torch.int32, device="cuda")
    module.launch("pack_rows", (-(-width // CHUNK // 8), n), 256, x, Packing(pointers), width, count, 1)
    return Rows(x.data_ptr(), pointers, width), parts


@pytest.mark.parametrize("n", [1, 2, 4, 8, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows(kind: str, n: int, module: Module) -> None:
    """Not even a rounding differs from the twin's: what is left is that of sums."""
    raw, values = blocks(kind, 37, 2304)
    x = np.random.default_rng(3).standard_normal((n, 2304)).astype(np.float32)
    x[0, 256:512] = 0
    w, dx = torch.from_numpy(raw.copy()).cuda(), torch.from_numpy(x).cuda()
    rows, _parts = packed(dx, module)
    out, count = torch.zeros((n, 37), device="cuda"), torch.tensor([n], dtype=torch.int32, device="cuda")
    matrix = Matrix(w.data_ptr(), None, out.data_ptr(), raw.shape[1], 37, BY_NAME[kind].type_id)
    expected = naive.rounded(x, naive.ACTIVATION_BLOCK.get(kind, 0)).astype(np.float64) @ values.T
    columns = min(n, 8)
    for shift in (0, 1, 3):
        out.zero_()
        grid = (19 << shift) // 8 + 1, -(-n // columns)
        module.launch(f"matvec_{columns}", grid, 256, (Matrix * 4)(matrix), 1, rows, shift, count)
        assert naive.nmse(out.cpu().numpy(), expected) <= 1e-9


def test_a_width_that_is_no_multiple_of_a_chunk(module: Module) -> None:
    raw, values = blocks("MXFP4", 37, 704)
    x = np.random.default_rng(3).standard_normal((2, 704)).astype(np.float32)
    w, dx = torch.from_numpy(raw.copy()).cuda(), torch.from_numpy(x).cuda()
    rows, _parts = packed(dx, module)
    out, count = torch.zeros((2, 37), device="cuda"), torch.tensor([2], dtype=torch.int32, device="cuda")
    matrix = Matrix(w.data_ptr(), None, out.data_ptr(), raw.shape[1], 37, BY_NAME["MXFP4"].type_id)
    module.launch("matvec_2", (2,), 256, (Matrix * 4)(matrix), 1, rows, 0, count)
    assert naive.nmse(out.cpu().numpy(), naive.rounded(x, 32) @ values.T) <= 1e-9


def test_numbers_that_are_none_stay_none(module: Module) -> None:
    raw, _ = blocks("Q4_K", 37, 768)
    x = torch.ones((1, 768), device="cuda")
    x[0, 300] = torch.nan
    w, (rows, _parts) = torch.from_numpy(raw.copy()).cuda(), packed(x, module)
    out, count = torch.zeros((1, 37), device="cuda"), torch.tensor([1], dtype=torch.int32, device="cuda")
    matrix = Matrix(w.data_ptr(), None, out.data_ptr(), raw.shape[1], 37, BY_NAME["Q4_K"].type_id)
    module.launch("matvec_1", (2,), 256, (Matrix * 4)(matrix), 1, rows, 0, count)
    assert out.isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows(kind: str, module: Module) -> None:
    raw, values = blocks(kind, 150, 768)
    x = np.random.default_rng(3).standard_normal((100, 768)).astype(np.float32) * 1e4
    w, dx = torch.from_numpy(raw.copy()).cuda(), torch.from_numpy(x).cuda()
    out, count = torch.zeros((100, 150), device="cuda"), torch.tensor([100], dtype=torch.int32, device="cuda")
    halves, scales = torch.empty((100, 768), dtype=torch.float16, device="cuda"), torch.empty(100, device="cuda")
    module.launch("pack", (100,), 256, dx, halves, scales, 768, count, 1)
    matrix = Matrix(w.data_ptr(), None, out.data_ptr(), raw.shape[1], 150, BY_NAME[kind].type_id)
    module.launch("matmul", (2, 2), 256, matrix, None, Groups(share=1), halves, scales, 768, count)
    assert naive.nmse(out.cpu().numpy(), x @ values.T) <= 1e-6


@pytest.mark.parametrize("kind", [kind for kind in KINDS if BY_NAME[kind].cuda_ints])
@pytest.mark.parametrize("width", [768, 2304])
def test_many_rows_in_int8(kind: str, width: int, module: Module) -> None:
    """As few rows: not even a rounding differs from the twin's."""
    raw, values = blocks(kind, 150, width)
    x = np.random.default_rng(3).standard_normal((100, width)).astype(np.float32)
    w, (rows, _parts) = torch.from_numpy(raw.copy()).cuda(), packed(torch.from_numpy(x).cuda(), module)
    out, count = torch.zeros((100, 150), device="cuda"), torch.tensor([100], dtype=torch.int32, device="cuda")
    matrix = Matrix(w.data_ptr(), None, out.data_ptr(), raw.shape[1], 150, BY_NAME[kind].type_id)
    module.launch("matmul_ints", (2, 2), 256, matrix, None, Groups(share=1), rows, count)
    expected = naive.rounded(x, naive.ACTIVATION_BLOCK.get(kind, 0)).astype(np.float64) @ values.T
    assert naive.nmse(out.cpu().numpy(), expected) <= 1e-9


@pytest.mark.parametrize("architecture", ["llama", "mixtral", "qwen2", "qwen3", "qwen3moe"])
def test_logits_match_twin(architecture: str, tmp_path: Path, opened: Open) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, "F32"))
    tokens = np.random.default_rng(2).integers(0, 300, 70).tolist()
    text = Text(opened(path), blocks_for(128)[::-1])
    logits = np.concatenate([text.feed(tokens[:40]), *(text.feed([token]) for token in tokens[40:])])
    assert naive.nmse(logits, naive.Model(path).logits(tokens)) <= 1e-5


@pytest.mark.parametrize("architecture", tiny_gguf.RECENT)
@pytest.mark.parametrize("resident", [None, 1])
def test_logits_match_llama_cpp(architecture: str, resident: int | None, tmp_path: Path, opened: Open) -> None:
    """Long runs of a text, few rows of one, and single ones; experts on both sides, and some over PCIe."""
    golden = np.load(GOLDEN / f"tiny-{architecture}-F32.npz")
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, "F32"))
    tokens = golden["tokens"].tolist()
    text = Text(opened(path, resident=resident, over_pcie=0.5), blocks_for(64))
    parts = [tokens[:20], tokens[20:35], tokens[35:40], *([token] for token in tokens[40:])]
    assert naive.nmse(np.concatenate([text.feed(part) for part in parts]), golden["logits"]) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_single_tokens_are_those_of_the_twin(kind: str, tmp_path: Path, opened: Open) -> None:
    """It multiplies the same integers, wherever the experts lie. All experts are chosen: no tie of a router decides.

    A sum at a rounding's edge may fall to the other side and shows from then on, so the first token has to be nearer."""
    shape = dataclasses.replace(tiny_gguf.variant("qwen3moe", kind), experts=4, used=4)
    path = tiny_gguf.write(tmp_path / "m.gguf", shape)
    tokens = np.random.default_rng(5).integers(0, 300, 30).tolist()
    expected = naive.Model(path, packed=True).logits(tokens)
    for resident, over_pcie in ((None, 0.0), (0, 0.0), (2, 0.0), (0, 0.5)):
        text = Text(opened(path, resident=resident, over_pcie=over_pcie), blocks_for(64))
        logits = np.concatenate([text.feed([token]) for token in tokens])
        assert naive.nmse(logits[0], expected[0]) <= (ROUNDED_BF16 if kind == "BF16" else 1e-6), (resident, over_pcie)
        assert naive.nmse(logits, expected) <= 5e-4, (resident, over_pcie)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_those_of_the_twin(kind: str, tmp_path: Path, opened: Open) -> None:
    """Tensor cores multiply the same integers too, and f16 in the place of floats; as above, a sum may fall to another side of a
    rounding, in a prompt early."""
    path = tiny_gguf.write(tmp_path / "m.gguf", dataclasses.replace(tiny_gguf.variant("qwen3moe", kind), experts=4, used=4))
    tokens = np.random.default_rng(5).integers(0, 300, 50).tolist()
    expected = naive.Model(path, packed=True).logits(tokens)
    for resident in (None, 0, 2):
        logits = Text(opened(path, resident=resident), blocks_for(64)).feed(tokens)
        assert naive.nmse(logits[0], expected[0]) <= (ROUNDED_BF16 if kind == "BF16" else 1e-5), resident
        assert naive.nmse(logits, expected) <= 2e-3, resident


@pytest.mark.parametrize("resident", [None, 0, 3])
def test_streamed_prompt(resident: int | None, demo_model: Path, opened: Open) -> None:
    tokens = np.random.default_rng(2).integers(0, 4000, 200).tolist()
    executor = opened(demo_model, resident=resident)
    text, again = Text(executor, blocks_for(256)), Text(executor, blocks_for(256, 5))
    streamed = np.concatenate([text.feed(tokens[:120]), text.feed(tokens[120:])])
    handed = np.concatenate([again.feed(tokens[i : i + 25]) for i in range(0, 200, 25)])
    assert naive.nmse(streamed, handed) <= 1e-2
    assert naive.nmse(streamed, naive.Model(demo_model).logits(tokens)) <= 1e-2


@pytest.mark.parametrize("resident", [None, 0])
def test_rows_of_several_texts(resident: int | None, demo_model: Path, opened: Open) -> None:
    executor = opened(demo_model, resident=resident)
    rng = np.random.default_rng(3)
    texts = [Text(executor, blocks_for(64, 1 + i)) for i in range(5)]
    for i, text in enumerate(texts):
        text.feed(rng.integers(0, 4000, 3 + 7 * i).tolist())
    alone = [text.feed([7])[0] for text in texts]
    positions = np.array([text.length - 1 for text in texts], np.int32)
    rows = np.arange(5, dtype=np.int32)
    tables = np.concatenate([text.table for text in texts])
    together = executor.forward(Batch(np.full(5, 7, np.int32), positions, rows, tables, rows))
    assert naive.nmse(together, np.array(alone)) <= 1e-5
    some = np.array([0, 3], np.int32)  # the others have ended: their lines are still there
    together = executor.forward(Batch(np.full(2, 7, np.int32), positions[some], some, tables, np.array([1], np.int32)))
    assert naive.nmse(together, np.array(alone)[3:4]) <= 1e-5


def test_few_rows_of_one_text(demo_model: Path, opened: Open) -> None:
    """They share a graph with single rows."""
    executor, tokens = opened(demo_model), np.random.default_rng(6).integers(0, 4000, 40).tolist()
    text, again = Text(executor, blocks_for(64)), Text(executor, blocks_for(64, 3))
    few = np.concatenate([text.feed(tokens[at : at + 5]) for at in range(0, 40, 5)])
    assert naive.nmse(few, np.concatenate([again.feed([token]) for token in tokens])) <= 1e-5


@pytest.mark.parametrize("resident", [None, 2])
def test_kernels_that_start_early_find_what_they_need(
    resident: int | None, demo_model: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit what they compute one after the other, at every token of a text."""
    tokens = np.random.default_rng(6).integers(0, 4000, 200).tolist()
    executor, logits = opened(demo_model, resident=resident), []
    for early in (executor._module.starts_early, False):
        monkeypatch.setattr(Module, "starts_early", early)
        executor._graphs.clear()
        text = Text(executor, blocks_for(256))
        logits.append(np.concatenate([text.feed([token]) for token in tokens]))
    if resident is None:
        np.testing.assert_array_equal(logits[0], logits[1])
    else:  # experts move, and are computed on the other side from then on
        assert naive.nmse(*logits) <= 1e-2


def test_a_cpu_that_does_not_answer_ends_the_step(demo_model: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = opened(demo_model, resident=0)
    text = Text(executor, blocks_for(64))
    text.feed([7])
    monkeypatch.setattr(executor._program, "run", lambda rows: None)
    with pytest.raises(HandoffError, match="lost each other"):
        text.feed([7])


async def test_a_hand_off_thread_that_hangs_ends_its_requests_with_a_typed_error(demo_model: Path) -> None:
    runner = await Runner.spawn((sys.executable, hanging_worker.__file__))
    try:
        await runner.load(Load(str(demo_model), num_ctx=512))
        with pytest.raises(ApiError, match="a step hangs: the GPU and the CPU lost each other"):
            async for _ in runner.generate(lambda number: Generate(number, "Once", num_predict=100)):
                pass
    finally:
        await runner.close()


def test_hot_experts_move_into_vram(tmp_path: Path, opened: Open) -> None:
    """A text long enough that experts move, streamed prompts in between; the logits stay those of experts in RAM."""
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3moe", "F32"))
    executor, fixed = opened(path, resident=2), opened(path, resident=0)
    text, again = Text(executor, blocks_for(448)), Text(fixed, blocks_for(448))
    tokens = np.random.default_rng(4).integers(0, 300, 60).tolist() * 7
    for i in range(0, len(tokens), 105):
        for token in tokens[i : i + 60]:
            assert naive.nmse(text.feed([token]), again.feed([token])) <= 1e-5
        assert naive.nmse(text.feed(tokens[i + 60 : i + 105]), again.feed(tokens[i + 60 : i + 105])) <= 1e-5
    assert executor._cache.moves > 0
    assert 0 < executor.expert_hits < executor.expert_lookups
    assert fixed.expert_lookups == 0


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
@pytest.mark.parametrize("architecture", ["qwen3moe", "gpt-oss", "gemma3"])
@pytest.mark.parametrize("num_gpu", [-1, 2])
def test_quantised_keys_and_values(architecture: str, kind: str, num_gpu: int, tmp_path: Path, opened: Open) -> None:
    """As the CPU has them, in blocks that are copied and added. A value between two levels may fall to the other one."""
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, "F32"))
    tokens = np.random.default_rng(2).integers(0, 300, 300).tolist()
    with closing(open_model(path, kind=kind)) as cpu:
        text = Text(cpu, blocks_for(320))
        expected = np.concatenate([text.feed(tokens[first : first + 100]) for first in range(0, 300, 100)])
    executor = opened(path, ctx=256, kind=kind, num_gpu=num_gpu)
    assert executor.size_vram < opened(path, ctx=256, num_gpu=num_gpu).size_vram
    text = Text(executor, [3, 1, 2, 4])
    logits = [text.feed(tokens[:100]), *(text.feed([token]) for token in tokens[100:110]), text.feed(tokens[110:190])]
    executor.copy_blocks([(3, 6), (2, 7)])
    blocks = executor.n_blocks
    executor.grow(1024, 0)
    text.table = np.array([[6, 1, 7, 4, blocks]], np.int32)
    logits += [text.feed(tokens[190:240]), *(text.feed([token]) for token in tokens[240:])]
    apart = [naive.nmse(*row) for row in zip(np.concatenate(logits), expected, strict=True)]
    assert np.median(apart) <= (1e-4 if kind == "q8_0" else 1e-2)


@pytest.mark.parametrize("architecture", ["llama", "qwen3moe"])
@pytest.mark.parametrize("num_gpu", [1, 2, 3])
def test_layers_on_the_cpu(architecture: str, num_gpu: int, tmp_path: Path, opened: Open) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, "F32"))
    executor = opened(path, num_gpu=num_gpu)
    tokens = np.random.default_rng(2).integers(0, 300, 70).tolist()
    text = Text(executor, blocks_for(128)[::-1])
    logits = np.concatenate([text.feed(tokens[:40]), *(text.feed([token]) for token in tokens[40:])])
    assert naive.nmse(logits, naive.Model(path).logits(tokens)) <= 1e-5
    assert executor.placement.startswith("the first") is (num_gpu < 3)


@pytest.mark.parametrize("architecture", ["qwen3next", "qwen35"])
@pytest.mark.parametrize("num_gpu", [1, 3, 5])
def test_layers_with_states_on_the_cpu(architecture: str, num_gpu: int, tmp_path: Path, opened: Open) -> None:
    """Of five, of which the fourth attends; a text goes on from a state that was kept on both sides."""
    golden = np.load(GOLDEN / f"tiny-{architecture}-F32.npz")
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant(architecture, "F32"))
    executor, tokens = opened(path, num_gpu=num_gpu), golden["tokens"].tolist()
    assert executor.placement.startswith("the first")
    text = Text(executor, blocks_for(64))
    logits = [text.feed(tokens[:20]), *(text.feed([token]) for token in tokens[20:24])]
    line = executor.lines
    executor.copy_states([(0, line)])
    text.feed(tokens[:3])
    executor.copy_states([(line, 0)])
    text.length = 24
    logits += [text.feed(tokens[24:40]), *(text.feed([token]) for token in tokens[40:])]
    assert naive.nmse(np.concatenate(logits), golden["logits"]) <= 1e-5


@pytest.mark.parametrize("num_gpu", [-1, 2])
def test_a_context_grows_where_it_is(num_gpu: int, tmp_path: Path, opened: Open) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", tiny_gguf.variant("qwen3moe", "F32"))
    executor = opened(path, num_gpu=num_gpu, ctx=256)
    tokens = np.random.default_rng(2).integers(0, 300, 420).tolist()
    blocks = executor.n_blocks
    text = Text(executor, [3, 1])
    logits = [text.feed(tokens[:100]), *(text.feed([token]) for token in tokens[100:104])]
    graphs = dict(executor._graphs)
    assert executor.grow(1024, 0) == executor.n_blocks == blocks + 12
    text.table = np.array([[3, 1, 7, *range(blocks, blocks + 12)]], np.int32)
    logits += [text.feed(tokens[104:200]), text.feed(tokens[200:300]), *(text.feed([token]) for token in tokens[300:])]
    assert naive.nmse(np.concatenate(logits), naive.Model(path).logits(tokens)) <= 1e-5
    assert executor._graphs == graphs


def test_a_context_that_the_card_has_no_room_for_is_refused(tmp_path: Path, opened: Open) -> None:
    shape = dataclasses.replace(tiny_gguf.variant("qwen3moe", "F32"), context=1 << 16)  # more than what is taken at once
    executor = opened(tiny_gguf.write(tmp_path / "m.gguf", shape), ctx=256)
    executor._spare = 0
    blocks = executor.n_blocks
    with pytest.raises(CannotGrow, match="more are needed on the card"):
        executor.grow(1 << 16, 0)
    assert executor.n_blocks == blocks


@pytest.mark.parametrize("options", [{"pinned": 0}, {"mapped": True}, {"mapped": True, "num_gpu": 2}])
def test_the_same_plan_without_pinned_memory(options: dict[str, int], demo_model: Path, opened: Open) -> None:
    tokens = np.random.default_rng(2).integers(0, 4000, 140).tolist()
    logits = []
    for more in ({}, options):
        executor = opened(demo_model, resident=3, **more)
        text = Text(executor, blocks_for(256))
        logits.append(np.concatenate([text.feed(tokens[:120]), *(text.feed([token]) for token in tokens[120:])]))
        assert executor.pinned is (not more)
        assert ("not pinned" in executor.placement) is bool(more)
    assert naive.nmse(logits[1], logits[0]) <= 1e-2


def test_everything_is_given_back(demo_model: Path) -> None:
    def open_and_close() -> int:
        executor = hybrid.load(Load(str(demo_model), num_ctx=2048, num_parallel=4, num_thread=2), silent, resident=2)
        assert executor is not None
        executor.grow(4096, 0)
        Text(executor, blocks_for(64)).feed([1, 2, 3])
        executor.close()
        torch.cuda.synchronize()
        return int(torch.cuda.mem_get_info()[0])

    first = open_and_close()  # with what CUDA and its libraries keep
    assert abs(open_and_close() - first) <= 32 << 20


@pytest.mark.parametrize("options", [{}, {"num_gpu": 4}])
def test_two_models_share_a_card(options: dict[str, int], demo_model: Path, opened: Open) -> None:
    tokens = np.random.default_rng(2).integers(0, 4000, 160).tolist()
    first = opened(demo_model, resident=8, **options)
    text = Text(first, blocks_for(256))
    logits = [text.feed(tokens[:100]), *(text.feed([token]) for token in tokens[100:110])]
    before, held = first.size_vram, first._cache.partial_bytes
    assert [first.shares(main_gpu) for main_gpu in (0, 1)] == [True, False]
    assert first.give_back(0, 2) == before
    assert first.give_back(1 << 50, 2) == first.size_vram == before - (held - first._cache.partial_bytes)
    assert first._cache.partial_bytes == held // 2
    second = Text(opened(demo_model, resident=8, **options), blocks_for(256))
    logits += [text.feed([token]) for token in tokens[110:120]] + [text.feed(tokens[120:])]
    others = np.concatenate([second.feed(tokens[:100]), second.feed(tokens[100:])])
    assert naive.nmse(np.concatenate(logits), others) <= 1e-2


def test_a_card_that_others_hold_is_told(demo_model: Path) -> None:
    request = Load(str(demo_model), num_ctx=512, num_parallel=1, num_batch=256, vram=400 << 20, shared=True)
    with pytest.raises(CardTaken, match=r"other models|more are needed"):
        hybrid.load(request, silent)


def test_a_card_that_is_not_there(demo_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert hybrid.load(Load(str(demo_model), main_gpu=torch.cuda.device_count()), silent) is None
    assert "there is no such card" in caplog.text


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
@pytest.mark.parametrize("num_cpu_moe", [0, 99])
async def test_a_runner_keeps_to_one_card(num_cpu_moe: int, demo_model: Path) -> None:
    """The one that is asked for, else the one with the most room; nothing is taken of the other. Both say the same."""
    texts = []
    for main_gpu, used in ((0, 0), (1, 1), (None, 1)):
        filled = torch.empty(6 << 30, dtype=torch.uint8, device="cuda:0")
        before = [card.free for card in cards.known()]
        runner = await Runner.spawn()
        try:
            fields = {"num_ctx": 512, "num_gpu": 99, "num_cpu_moe": num_cpu_moe}
            loaded = await runner.load(Load(str(demo_model), main_gpu=main_gpu, **fields))
            assert f"on GPU {used}" in loaded.placement
            answer = runner.generate(lambda number: Generate(number, "Once upon", num_predict=24, sampling=GREEDY))
            texts.append("".join([getattr(frame, "text", "") async for frame in answer]))
            taken = [then - card.free for then, card in zip(before, cards.known(), strict=True)]
        finally:
            await runner.close()
            del filled
            torch.cuda.empty_cache()
        assert taken[used] > 100 << 20 > taken[1 - used]
    assert texts[0]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("vocab", [65, 1000, 1025, 151936])
def test_shortlists(vocab: int, module: Module) -> None:
    """Against the CPU's choice: with ties, with one number that is none, with impossible tokens."""
    rng = np.random.default_rng(vocab)
    logits = rng.standard_normal((4, vocab)).astype(np.float32)
    logits[1] = np.round(logits[1] * 20) / 20
    logits[2, 7] = np.nan
    logits[3, vocab // 2 :] = -np.inf
    best, count = Shortlist(4, pinned=True), torch.tensor([4], dtype=torch.int32, device="cuda")
    x, maxima = torch.from_numpy(logits).cuda(), torch.zeros((4, LIST_GROUPS), dtype=torch.int32, device="cuda")
    module.launch("group_maxima", (LIST_GROUPS // 8, 4), 256, x, maxima, vocab, count)
    module.launch("shortlist", (4,), LIST_GROUPS, x, maxima, vocab, best.ids, best.logits, best.counts, count)
    torch.cuda.synchronize()
    for row in (0, 1, 3):
        found = best.row(row)
        if found is None:
            assert (logits[row] >= np.sort(logits[row])[-LIST]).sum() > LIST_ROOM
            continue
        ids, values = highest(logits[row], LIST)
        assert found[0].tolist() == ids.tolist()
        assert found[1].tolist() == values.tolist()
    ids_and_values = best.row(2)
    assert ids_and_values is not None
    assert ids_and_values[0][0] == 7


def test_the_likeliest_are_those_of_all_logits(demo_model: Path, opened: Open) -> None:
    executor = opened(demo_model)
    rows = np.arange(12, dtype=np.int32)
    table = np.array([blocks_for(64)], np.int32)
    prompt = Batch(rows + 5, rows, np.zeros(12, np.int32), table, rows[-2:])
    single = Batch(rows[:1], rows[:1] + 12, rows[:1], table, rows[:1])
    for batch in (prompt, single, single):
        whole = executor.forward(batch).copy()
        for (ids, values), row in zip(executor.likeliest(batch), whole, strict=True):
            expected = highest(row, executor.shortlist)
            assert ids.tolist() == expected[0].tolist()
            assert values.tolist() == expected[1].tolist()
