"""Published models too large for the machines here, by their tensors: what a load would do with one.

    python benchmarks/shapes.py [--vram 24] [--context 4096]

Shapes are those of the published configuration; types are those of the usual Q4_K_M file, which keeps more bits of some layers.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re

import gguf
from gguf import GGMLQuantizationType as Type

from runtime.core import BLOCK_TOKENS
from runtime.execute.needs import LEAST_ROWS, MAX_OUTPUTS, ROWS
from runtime.execute.placement import Needs, NoRoom, Plan, plan

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class DeepSeek:
    """DeepSeek-V3's kind of model: latent attention, dense layers first, then experts with a shared one."""

    layers: int = 61
    dense: int = 3  # layers, from the first, without experts
    width: int = 7168
    heads: int = 128
    query: int = 1536  # latent values of a query
    latent: int = 512  # of keys and values together
    rope: int = 64  # values of a key that turn
    head: int = 128  # values of a key that do not, and of a value
    inner: int = 18432  # of a dense layer
    experts: int = 256
    used: int = 8
    expert: int = 2048  # its inner width, and the shared one's
    vocabulary: int = 129280

    def tensors(self) -> dict[str, tuple[tuple[int, ...], Type]]:
        """Names, shapes (rows first) and types."""
        found = {
            "token_embd.weight": ((self.vocabulary, self.width), Type.Q4_K),
            "output_norm.weight": ((self.width,), Type.F32),
            "output.weight": ((self.vocabulary, self.width), Type.Q6_K),
        }
        for layer in range(self.layers):
            block = self._attention() | (self._dense(layer) if layer < self.dense else self._experts(layer))
            found |= {f"blk.{layer}.{name}": entry for name, entry in block.items()}
        return found

    def _attention(self) -> dict[str, tuple[tuple[int, ...], Type]]:
        d, key = self.width, self.head + self.rope
        return {
            "attn_norm.weight": ((d,), Type.F32),
            "attn_q_a.weight": ((self.query, d), Type.Q4_K),
            "attn_q_a_norm.weight": ((self.query,), Type.F32),
            "attn_q_b.weight": ((self.heads * key, self.query), Type.Q4_K),
            "attn_kv_a_mqa.weight": ((self.latent + self.rope, d), Type.Q4_K),
            "attn_kv_a_norm.weight": ((self.latent,), Type.F32),
            "attn_k_b.weight": ((self.heads, self.latent, self.head), Type.Q5_0),  # rows too short for a K type
            "attn_v_b.weight": ((self.heads, self.head, self.latent), Type.Q4_K),
            "attn_output.weight": ((d, self.heads * self.head), Type.Q4_K),
            "ffn_norm.weight": ((d,), Type.F32),
        }

    def _dense(self, layer: int) -> dict[str, tuple[tuple[int, ...], Type]]:
        d, inner = self.width, self.inner
        wide = {f"ffn_{name}.weight": ((inner, d), Type.Q4_K) for name in ("gate", "up")}
        return wide | {"ffn_down.weight": ((d, inner), self._down(layer))}

    def _experts(self, layer: int) -> dict[str, tuple[tuple[int, ...], Type]]:
        d, e, inner, down = self.width, self.experts, self.expert, self._down(layer)
        found = {"ffn_gate_inp.weight": ((e, d), Type.F32), "exp_probs_b.bias": ((e,), Type.F32)}
        for name in ("gate", "up"):
            found |= {f"ffn_{name}_exps.weight": ((e, inner, d), Type.Q4_K), f"ffn_{name}_shexp.weight": ((inner, d), Type.Q4_K)}
        return found | {"ffn_down_exps.weight": ((e, d, inner), down), "ffn_down_shexp.weight": ((d, inner), down)}

    def _down(self, layer: int) -> Type:
        first = self.layers // 8
        return Type.Q6_K if layer < first or layer >= 7 * self.layers // 8 or (layer - first) % 3 == 2 else Type.Q4_K

    def sizes(self) -> dict[str, int]:
        """Bytes of the tensors."""
        return {name: nbytes(*entry) for name, entry in self.tensors().items()}

    @property
    def cache_bytes(self) -> int:
        """Of a token on all layers, in f16: the latent vector, once for keys and values."""
        return 2 * self.layers * (self.latent + self.rope)

    def needs(self, context: int, rows: int) -> Needs:
        """What it asks of a card, for one text, in steps of so many rows."""
        sizes = self.sizes()
        stacks = [re.compile(rf"blk\.{layer}\.ffn_\w+_exps\.") for layer in range(self.dense, self.layers)]
        experts = [sum(size for name, size in sizes.items() if stack.match(name)) for stack in stacks]
        values = 16 * self.width + self.used * (3 * self.expert + 2 * self.width) + 4 * self.heads * (self.latent + self.rope)
        step = 4 * (rows * values + 2 * min(rows, MAX_OUTPUTS) * self.vocabulary)
        blocks = -(-context // BLOCK_TOKENS) + 1
        each = tuple((self.experts, size // self.experts) for size in experts)
        return Needs(self.layers, sum(sizes.values()) - sum(experts), each, BLOCK_TOKENS * self.cache_bytes, blocks, step)


DEEPSEEK_V3 = DeepSeek()


def nbytes(shape: tuple[int, ...], kind: Type) -> int:
    """Of a tensor."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(shape) // values * size


def planned(model: DeepSeek, vram: int, context: int = 4096) -> tuple[Plan, int]:
    """The plan for a card and the rows of its steps, as runtime.execute.needs makes it for a model whose layers are all there."""
    refused = NoRoom("")
    for rows in (ROWS >> halved for halved in range(4) if ROWS >> halved >= LEAST_ROWS):
        try:
            return plan(model.needs(context, rows), vram), rows
        except NoRoom as error:
            refused = error
    raise refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vram", type=float, nargs="+", default=[24], help="GiB")
    parser.add_argument("--context", type=int, default=4096)
    given = parser.parse_args()
    for vram in given.vram:
        chosen, rows = planned(DEEPSEEK_V3, int(vram * GIB), given.context)
        stages = f"staging buffers for {chosen.stages} of {len(chosen.resident)} layers"
        print(f"DeepSeek-V3 on a card of {vram:g} GiB: {chosen.words}; {stages}, steps of {rows} rows")


if __name__ == "__main__":
    main()
