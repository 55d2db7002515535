"""Plants faults in kernels, one at a time, and sees whether the tests notice.

    python tests/mutate.py [WORD ...]

Each fault changes one expression in a copy of the tree and runs the tests that are about it; words choose faults by their
file or text. Exit status 1 when a fault survives. It compiles kernels for each fault, which takes some minutes in all.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAVES, MODELS, KEPT = "tests/runtime/leaf_cases.py", "tests/runtime/test_models.py", "tests/runtime/kept_cases.py"
WHOLE, DELTA = "tests/runtime/test_kept.py", "tests/runtime/test_delta.py"
PRODUCTS, BASICS = "tests/runtime/test_matmul.py", "tests/runtime/test_basics.py"
STORE = "tests/runtime/test_store.py"
POOL, SEGMENTS, TILES = "tests/runtime/test_pool.py", "tests/runtime/test_segments.py", "tests/runtime/test_tiles.py"


@dataclasses.dataclass(frozen=True)
class Fault:
    file: str  # below runtime/
    before: str
    after: str
    select: str  # for pytest's -k
    tests: str = LEAVES
    tier: str = ""  # the best one that there is


FAULTS = (
    Fault("quants/q4_k.py", "(-4 * half,), 15) for i", "(-4 * half,), 7) for i", "Q4_K and strip"),
    Fault("quants/q4_k.py", "16 + 32 * pair, e.bytes(32)", "16 + 16 * pair, e.bytes(32)", "Q4_K and not strip"),
    Fault("quants/scale_min.py", "Q8K.PAIRS + 4 * k", "Q8K.PAIRS + 2 * k", "Q4_K and strip"),
    Fault("quants/scale_min.py", "[8 + group for group in range(8)", "[group for group in range(8)", "Q4_K and not strip"),
    Fault("quants/super_block.py", "e.shift_bytes(first, (-2,), 0x30)", "e.shift_bytes(first, (-4,), 0x30)", "Q5_K and strip"),
    Fault("quants/super_block.py", "[0, 2, 0, 2]", "[0, 2, 0, 0]", "Q4_K and not strip"),
    Fault("quants/super_block.py", "Q8K.SUMS + 2 * first", "Q8K.SUMS + first", "Q6_K and strip", tier="avx2"),
    Fault("kernels/strips.py", "in ((0, 1), (2, 3))", "in ((0, 1), (0, 1))", "Q3_K and strip", tier="avx2"),
    Fault("quants/super_block.py", "x, sums + 4 * pair", "x, sums + 4 * (pair // 2)", "Q6_K and strip"),
    Fault("quants/q5_k.py", "(4 - group,), 16)", "(3 - group,), 16)", "Q5_K and strip"),
    Fault("quants/q5_k.py", "(4 - 2 * pair, 3 - 2 * pair)", "(4 - 2 * pair, 4 - 2 * pair)", "Q5_K and not strip"),
    Fault("quants/q6_k.py", "for k in range(4)], 5)", "for k in range(4)], 4)", "Q6_K and strip"),
    Fault("quants/q6_k.py", "e.band(four, 0xC0)), (-2,), 0xFF)", "e.band(four, 0x40)), (-2,), 0xFF)", "Q6_K and strip"),
    Fault("quants/q6_k.py", "[6, 4, 2, 0] * 4)", "[6, 4, 4, 0] * 4)", "Q6_K and strip"),
    Fault("quants/q6_k.py", "(2 * k - 4,), 3 << 2 * k)", "(2 * k - 2,), 3 << 2 * k)", "Q6_K and strip"),
    Fault("quants/q6_k.py", "e.mul(e.sext(packed, e.I16), 32)", "e.mul(e.sext(packed, e.I16), 31)", "Q6_K and not strip"),
    Fault("quants/q2_k.py", "e.shift_bytes(four, (-4,), 15)", "e.shift_bytes(four, (-2,), 15)", "Q2_K and strip"),
    Fault("quants/q3_k.py", "2)  # OFFSET", "3)  # OFFSET", "Q3_K and strip"),
    Fault("quants/q3_k.py", "third = 2 - group // 2", "third = 2 - group // 4", "Q3_K and strip"),
    Fault("quants/iq4_xs.py", "e.mul(offset, e.signed_offset)", "e.mul(offset, 127)", "IQ4_XS and strip"),
    Fault("quants/iq4_xs.py", "(half,) * 4", "(0,) * 4", "IQ4_XS and strip"),
    Fault("kernels/vbmi.py", "self.shr(words, 4)", "self.shr(words, 3)", "IQ4_XS and strip"),
    Fault("quants/strips.py", "self.e.keep_order()", "pass", "between_the_loads"),
    Fault("quants/small.py", "8 - offset.bit_length()", "7 - offset.bit_length()", "Q4_0 and strip"),
    Fault("quants/q8_0.py", "w.bytes(2 + 4 * i)", "w.bytes(2 + 4 * (i ^ 1))", "Q8_0 and strip"),
    Fault("quants/mxfp4.py", "value + self.OFFSET", "value + self.OFFSET - 1", "MXFP4 and strip"),
    Fault("quants/mxfp4.py", "e.constant(exponent.type, 1)), 21)", "e.constant(exponent.type, 1)), 20)", "MXFP4 and dequantize"),
    Fault("quants/nibbles.py", "for shift in (0, 4) for i", "for shift in (4, 0) for i", "Q4_1 and strip"),
    Fault("quants/nibbles.py", "1 << 4 * (i % 2) + place", "1 << 4 * (i // 4) + place", "Q5_1 and strip"),
    Fault("quants/small_min.py", "e.sub(e.mul(e.float(total), d)", "e.add(e.mul(e.float(total), d)", "Q4_1 and strip"),
    Fault("quants/floating.py", "e.add(third, fourth)", "third", "F16 and dot_is"),
    Fault("quants/ternary.py", "16), self.OFFSET * unit)", "16), 2 * unit)", "TQ2_0 and strip"),
    Fault("quants/tq1_0.py", "limit in (85, 170)", "limit in (85, 171)", "TQ1_0 and strip"),
    Fault("quants/tq1_0.py", "(128 + source, 16, 5)", "(96 + source, 16, 5)", "TQ1_0 and strip"),
    Fault("kernels/emitter.py", "128 * (n.bit_count() % 2)", "64 * (n.bit_count() % 2)", "IQ3_XXS and dot_is", tier="avx2"),
    Fault("kernels/emitter.py", "low << size))", "low))", "IQ2_XXS and dot_is", tier="avx512"),
    Fault("kernels/emitter.py", "1 << i % 8 for i in r", "1 << (i + 1) % 8 for i in r", "IQ2_XS and dot_is", tier="avx512"),
    Fault("kernels/emitter.py", "high, rows - 1 >> 8", "high, rows - 1 >> 9", "IQ3_S and dot_is", tier="avx2"),
    Fault("kernels/basics.py", "self.constant(kind, 0x7FFF)", "self.constant(kind, 0x8000)", "quantize_is"),
    Fault("kernels/vbmi.py", "bit in range(7)), 0x7F]", "bit in range(7)), 0x3F]", "IQ2_XXS and dot_is", tier="avx512vbmi"),
    Fault("kernels/vbmi.py", "[bit - count if mask", "[bit - 2 * count if mask", "Q3_K and strip", tier="avx512vbmi"),
    Fault("kernels/vbmi.py", "high, (bit + 1) % 8", "high, (bit + 2) % 8", "IQ2_XS and dot_is", tier="avx512vbmi"),
    Fault("kernels/vbmi.py", "[bits * value for value", "[bits * (value ^ 1) for value", "IQ2_S and dot_is", tier="avx512vbmi"),
    Fault("kernels/vbmi.py", "total, self.cast(left", "total, self.cast(right", "BF16 and strip", tier="avx512bf16"),
    Fault("kernels/amx.py", "self.shr(factor, 3)", "self.shr(factor, 2)", "Q4_K", tests=TILES),
    Fault("kernels/amx.py", "self.band(odd, 0xFF00)", "self.band(odd, 0x7F00)", "Q6_K", tests=TILES),
    Fault("kernels/tile_leaves.py", "signed=upper == 8", "signed=False", "Q6_K", tests=TILES),
    Fault("kernels/tile_leaves.py", "LINE * quarter), _LINE", "LINE * (quarter & 1)), _LINE", "Q4_K", tests=TILES),
    Fault("kernels/tile_leaves.py", "(begins, nothing, so_far)", "(begins, nothing, nothing)", "Q5_K", tests=TILES),
    Fault("kernels/x86.py", "range(first), *range(count + f", "range(first), *range(f", "IQ2_XS and dot_is", tier="avx2"),
    Fault("quants/codebook.py", "e.at(x, k * Q8K.block_bytes)", "e.at(x, 0)", "IQ2_S and dot_is", tier="avx512vbmi"),
    Fault("quants/codebook.py", "[parts * (i // 2) for", "[parts * (i // 4) for", "IQ2_XXS and dot_is"),
    Fault("quants/codebook.py", "e.shr(words, 27), 1)", "e.shr(words, 27), 3)", "IQ3_XXS and dot_is"),
    Fault("kernels/x86.py", "(first + r * slot + lane) // 2", "(first + slot + lane) // 2", "IQ2_XXS and dot_is"),
    Fault("quants/signed_block.py", "4 * block * self", "2 * block * self", "IQ2_XS and dequantize_row_is", tier="avx512vbmi"),
    Fault("quants/iq1_s.py", "e.sext(plus, e.I8), 2)", "e.sext(plus, e.I8), 3)", "IQ1_S and dot_is"),
    Fault("quants/floating.py", "e.load_splat(x, 4 * k,", "e.load_splat(x, 4 * (k | 1),", "F16 and strip"),
    Fault("quants/floating.py", "k % PARTS in turn", "k in turn", "F16 and strip", tier="avx2"),
    Fault("quants/tq2_0.py", "3 << 2 * odd", "1 << 2 * odd", "TQ2_0 and strip", tier="avx2"),
    Fault("quants/ternary.py", "self.OFFSET * unit", "self.OFFSET", "TQ2_0 and strip", tier="avx2"),
    Fault("quants/floating.py", "e.add(total, e.add(*part))", "e.add(total, part[0])", "F32 and strip"),
    Fault("quants/bf16.py", "e.band(both, 0xFFFF0000)", "both", "BF16 and strip", tier="avx2"),
    Fault("kernels/strip_leaves.py", "done = e.builder.mul(groups", "done = e.builder.add(groups", "F16 and strip"),
    Fault("kernels/strip_leaves.py", "(number, e.index(k)), e.index(4 *", "(number, number), e.index(4 *", "F16 and strip"),
    Fault("quants/iq1_m.py", "1 << 24 | 1 << 12", "1 << 24 | 1 << 13", "IQ1_M and dot_is"),
    Fault("kernels/basics.py", "shift in (0, 16, 32, 48)]", "shift in (0, 16, 48, 32)]", "IQ2_S and dot_is", tier="avx512"),
    Fault("kernels/leaves.py", "e.index(k // group))", "e.index(k % group))", "F16 and dot_is"),
    Fault("kernels/emitter.py", "self.sub(self.xor(values, mask), mask)", "values", "IQ2_XS and dot_is", tier="portable"),
    Fault("quants/activations.py", "e.mul(e.sum(quants), -1)", "e.mul(e.sum(quants), 1)", "quantize_is"),
    Fault("quants/activations.py", "e.add(*totals), out", "totals[0], out", "quantize_is"),
    Fault("quants/activations.py", "e.sum(e.add(low, high)), -128)", "e.sum(e.add(low, high)), -127)", "quantize_is"),
    Fault("quants/activations.py", "ROUND = 1.5 * 2.0**23", "ROUND = 1.5 * 2.0**23 + 1.0", "quantize_is"),
    Fault("kernels/strips.py", "32767 // (2 * 127", "65535 // (2 * 127", "limits", tier="avx2"),
    Fault("kernels/strips.py", "self.sar(wide, 24)", "self.sar(wide, 23)", "Q6_K and strip", tier="avx512"),
    Fault("kernels/strips.py", "(first, NONE, second, NONE)", "(second, NONE, first, NONE)", "Q2_K and strip"),
    Fault("kernels/strip_leaves.py", "strips = e.builder.udiv(rows, e.index(e.lanes))", "strips = e.index(1)", "Q4_0 and strip"),
    Fault("kernels/strip_leaves.py", "width * number)", "number)", "Q4_0 and strip"),
    Fault("kernels/strip_leaves.py", "e.builder.mul(row, e.index(size))", "row", "Q4_0 and strip"),
    Fault("quants/unpacked.py", "self.offset.bit_length() - 1", "self.offset.bit_length()", "unpacked"),
    Fault("quants/unpacked.py", "2 * self.offset - 1, w", "self.offset // 2, w", "unpacked", tier="avx2"),
    Fault("quants/unpacked.py", "first % 64 // 16", "first % 64 // 32", "unpacked"),
    Fault("quants/opened.py", "next(self._places), register.type", "4, register.type", "opened"),
    Fault("quants/opened.py", "self.e.lanes * next", "4 * next", "opened"),
    Fault("quants/q6_k.py", "opens = 25", "opens = 24", "opened"),
    Fault("kernels/strip_leaves.py", "e.builder.mul(s, to_bytes)", "e.index(0)", "opened"),
    Fault("kernels/matmul.py", "min(w[14], unpacked - at)", "w[14]", "unpacked", tests=PRODUCTS),
    Fault("kernels/matmul.py", "range(width, end)", "range(0)", "unpacked", tests=PRODUCTS),
    Fault("quants/super_block.py", "first, first + together", "first, first + 1", "IQ3_S and unpacked"),
    Fault("quants/laned.py", "[first - 1 for first", "[first for first", "IQ3_S and unpacked", tier="avx512vbmi"),
    Fault("quants/laned.py", "offset + 4 * (j // 2)", "offset + 4 * (j % 2)", "IQ2_S and unpacked", tier="avx512vbmi"),
    Fault("quants/codebook.py", "for half in (0, 0, 1, 1)", "for half in (0, 1, 0, 1)", "XXS and unpacked", tier="avx512vbmi"),
    Fault("quants/codebook.py", "-level if flag", "level if flag", "IQ2_XS and unpacked", tier="avx512vbmi"),
    Fault("quants/iq1_s.py", "16 - group % 2 * 16", "16 * (group % 2)", "IQ1_S and unpacked", tier="avx512vbmi"),
    Fault("quants/iq1_m.py", "mask_of(e.band(high, 8))", "mask_of(e.band(high, 4))", "IQ1_M and unpacked", tier="avx512vbmi"),
    Fault("quants/iq2_xs.py", "(0, 2, 64, 66)", "(0, 2, 66, 64)", "IQ2_XS and unpacked", tier="avx512vbmi"),
    Fault("quants/iq2_s.py", "8 * (four % 4)", "8 * (four % 2)", "IQ2_S and unpacked", tier="avx512vbmi"),
    Fault("quants/iq3_s.py", "4 * (four % 8)", "4 * (four % 4)", "IQ3_S and unpacked", tier="avx512vbmi"),
    Fault("quants/iq3_xxs.py", "count), 0.5)", "count), 0.25)", "IQ3_XXS and dequantize"),
    Fault("kernels/vbmi.py", "[bit + value - bits for", "[bit + value for", "IQ2_XXS and unpacked", tier="avx512vbmi"),
    Fault("kernels/vbmi.py", "parts - 2)", "parts - 4)", "IQ2_S and unpacked", tier="avx512vbmi"),
    Fault("kernels/vbmi.py", "16 * (entry % 2)", "8 * (entry % 2)", "IQ3_XXS and unpacked", tier="avx512vbmi"),
    Fault("kernels/basics.py", "i // 2 + i % 2 * 2 * half", "i // 2 + i % 2 * half", "unpacked"),
    Fault("kernels/basics.py", "for place in (0, 2)]", "for place in (0, 1)]", "IQ3_XXS and dot_is"),
    Fault("kernels/x86.py", "if i % 8 < 7 else 1", "if i % 8 < 7 else 0", "IQ2_XS and dot_is", tier="avx2"),
    Fault("kernels/matmul.py", "kept + 4 * at if kept", "kept if kept", "unpacked", tests=PRODUCTS),
    Fault("kernels/matmul.py", "1], outputs[width - 1]", "1], outputs[0]", "any_number", tests=PRODUCTS),
    Fault("kernels/mix_leaves.py", "(k % vectors), total", "(k % 2), total", "whole", tests=KEPT),
    Fault("kernels/mix_leaves.py", "outs[first : first + some]", "outs[:some]", "whole", tests=KEPT, tier="avx2"),
    Fault("kernels/mix_leaves.py", "PAIR * lanes * v, e", "PAIR * lanes, e", "whole", tests=KEPT),
    Fault("kernels/mix_leaves.py", "some[k % vectors]", "some[0]", "whole", tests=KEPT, tier="avx2"),
    Fault("kernels/mix_leaves.py", "builder.add(rows, e.index(1)), e", "builder.add(rows, e.index(0)), e", "whole", tests=KEPT),
    Fault("kernels/mix_leaves.py", "e.mul(e.sum(most), LARGEST", "e.mul(e.lane(most, 0), LARGEST", "whole_weights", tests=KEPT),
    Fault("kernels/mix_leaves.py", "e.where_above(score, none, scaled)", "scaled", "whole", tests=KEPT),
    Fault("kernels/mix_leaves.py", "e.fma(e.sum(total), e", "e.fma(e.sum(most), e", "no_number", tests=KEPT),
    Fault("kernels/x86.py", "self._dpwssd(total, left, right)", "self._dpwssd(total, left, left)", "whole", tests=KEPT),
    Fault("kernels/mix_leaves.py", "_fill(e, x, end, padded, NONE)", "_fill(e, x, end, end, NONE)", "weights", tests=KEPT),
    Fault("kernels/mix_leaves.py", "4.18903318e-2", "4.08903318e-2", "weights", tests=KEPT),
    Fault("kernels/mix_leaves.py", "(first, e.index(BLOCK_TOKENS - 1))", "(first, e.index(0))", "whole_weights", tests=KEPT),
    Fault("kernels/mix_leaves.py", "group_rows * BLOCK_TOKENS + place", "group_rows * BLOCK_TOKENS", "keys", tests=KEPT),
    Fault("kernels/mix_leaves.py", ".mul(r, groups), e.index(2)", ".mul(r, groups), e.index(1)", "values", tests=KEPT),
    Fault("kernels/mix_leaves.py", "e.shr(wide, 4) if part", "e.shr(wide, 3) if part", "values and q4_0", tests=KEPT),
    Fault("kernels/segments.py", "positions[rows] < t", "positions[rows] <= t", "alone", tests=SEGMENTS),
    Fault("kernels/segments.py", "(columns - 1) // group] + 1 - t", "(columns - 1) // group] - t", "alone", tests=SEGMENTS),
    Fault("kernels/segments.py", "((done + c) * record + HEAD)", "(c * record + HEAD)", "alone", tests=SEGMENTS),
    Fault("kernels/segments.py", "new *= more[2]", "pass", "softmax", tests=SEGMENTS),
    Fault("kernels/segments.py", "scale *= queries[c]", "scale *= queries[0]", "softmax", tests=SEGMENTS),
    Fault("kernels/segments.py", "together + 4 * (t - start)", "together", "softmax", tests=SEGMENTS),
    Fault("kernels/store.py", "p * BLOCK_TOKENS + slot]", "p + slot * BLOCK_TOKENS]", "keys", tests=STORE),
    Fault("kernels/store.py", "(slot // 2) * size", "slot // 2 * BLOCK_TOKENS", "values", tests=STORE),
    Fault("kernels/store.py", "size) / np.float32(LARGEST))", "size) / np.float32(LENGTH))", "", tests=STORE),
    Fault("kernels/store.py", "i(0x477FF000) else", "i(0x47800000) else", "", tests=STORE),
    Fault("kernels/store.py", "steps) * np.float32(2.0**-24)", "steps) * np.float32(2.0**-23)", "nothing", tests=STORE),
    Fault("kernels/store.py", "first | second <<", "second | first <<", "twin", tests=WHOLE),
    Fault("kernels/store.py", "1.0 / np.sqrt(span)", "1.0 / span", "twin", tests=WHOLE),
    Fault("kernels/x86.py", "(weights), flipped)", "(weights), signed)", "Q8_0 and dot_is", tier="avx2"),
    Fault("kernels/matmul.py", "w[3] + (row // share) * w[4]", "w[3] + row * w[4]", "Q8_0-qwen3moe", tests=MODELS),
    Fault("kernels/activations.py", "silu(g[i]) * u[i]", "silu(g[i]) + u[i]", "Q8_0-qwen3moe", tests=MODELS),
    Fault("kernels/activations.py", "(y + np.float32(1))", "y", "F32 and gpt-oss", tests=MODELS),
    Fault("kernels/router.py", "if a[6] != 0 or", "if a[6] == 0 or", "F32-qwen3moe", tests=MODELS),
    Fault("kernels/router.py", "order[offsets[ids[p]]] = p", "order[offsets[ids[p]]] = j", "F32-qwen3moe", tests=MODELS),
    Fault("kernels/desk.py", "not compare_swap(desk, working, BUSY) and not", "compare_swap(desk, working, BUSY) and", "", POOL),
    Fault("kernels/attention.py", "(first + done + s) * SEGMENT", "(first + s) * SEGMENT", "qwen3moe", SEGMENTS),
    Fault("kernels/segments.py", "min(max(position + 1 - start, 0)", "min(max(position - start, 0)", "F32-llama", tests=MODELS),
    Fault("kernels/segments.py", "+ 1 - window - start", "- window - start", "F32 and gemma2", tests=MODELS),
    Fault("kernels/segments.py", "total[1] * old + more[1] * new", "total[1] + more[1] * new", "", tests=MODELS),
    Fault("kernels/rows.py", "out[i] = x[i] * scale * weight[i]", "out[i] = x[i] * scale", "F32-llama", tests=MODELS),
    Fault("kernels/delta.py", "(kept + row - first - back)", "(kept + row - first - back - 1)", "any_pieces", tests=DELTA),
    Fault("kernels/delta.py", "x if x > 20 else", "x if x > 0 else", "any_pieces", tests=DELTA),
    Fault("kernels/delta.py", "if positions[row] == 0", "if positions[row] == 1", "any_pieces", tests=DELTA),
    Fault("kernels/delta_leaves.py", "e.fma(both, change, ", "e.add(change, ", "any_pieces", tests=DELTA),
    Fault("kernels/delta_leaves.py", "change, e.mul(keep, old))", "change, old)", "any_pieces", tests=DELTA),
    Fault("kernels/interleave.py", "lanes * a[3], token % lanes", "lanes * a[3], 0", "", tests=MODELS),
    Fault("quants/strips.py", "if self._long and ((lines", "if False and ((lines", "asked_for_all_along", BASICS),
    Fault("quants/strips.py", "or not self._all_lines", "or self._lines is None", "where_nothing_is_asked_for", BASICS),
    Fault("kernels/interleave.py", "token < a[12]", "token <= a[12]", "last_strip", MODELS),
    Fault("execute/recorder.py", "(0, stride, 4 * first))", "(0, stride, 0))", "rows_after_the_last_strip", MODELS),
    Fault("execute/recorder.py", "bias[first : first + part.rows]", "bias[: part.rows]", "biases_of_rows_after", MODELS),
)  # fmt: skip


def caught(fault: Fault) -> bool:
    """Whether the tests fail with the fault in place."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for part in ("runtime", "ollama_compat", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        file = tree / "runtime" / fault.file
        source = file.read_text()
        assert fault.before in source, f"{fault.file} has no {fault.before!r} any more"
        file.write_text(source.replace(fault.before, fault.after, 1))
        environment = os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'tests'}", "XDG_CACHE_HOME": f"{folder}/cache"}
        environment |= {"MOELLAMA_ISA": fault.tier or best_tier()}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", fault.tests, "-k", fault.select]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if "this CPU does not execute it" in done.stdout + done.stderr:
            return True  # the probe has got wrong numbers from the tier, and it is not taken
        assert done.returncode in (0, 1) or done.returncode < 0, done.stdout + done.stderr  # no usage error, no empty selection
        return done.returncode != 0


def best_tier() -> str:
    """The tier that this machine would take by itself."""
    command = [sys.executable, "-c", "from runtime.kernels import jit; print(jit.TIER.name)"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def main(words: list[str]) -> int:
    chosen = [fault for fault in FAULTS if not words or any(word in f"{fault.file} {fault.before}" for word in words)]
    survivors = 0
    for fault in chosen:
        noticed = caught(fault)
        survivors += not noticed
        print(f"{'caught  ' if noticed else 'SURVIVED'} {fault.file}: {fault.before}  ->  {fault.after}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} faults caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
