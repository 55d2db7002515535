"""What a model asks of a card, and the plan that the card has room for."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator

from runtime.core import BLOCK_TOKENS
from runtime.execute import long_texts
from runtime.execute.budget import PARALLEL
from runtime.execute.placement import Needs, NoRoom, Plan, plan
from runtime.frames import Load
from runtime.kernels import kept
from runtime.kernels.kept import F16, Kept
from runtime.layers.feed_forward import MoE
from runtime.models.transformer import Transformer
from runtime.weights import Tensor, Weights

MAX_OUTPUTS = 128  # logits rows of one step
ROWS, MAX_ROWS = 2048, 4096  # of a step, where nobody says, and at the most: streamed experts want many
CHECKPOINTS = 4  # states of texts that are kept for later
LEAST_ROWS = 256  # a small card gets smaller steps, but not smaller than this
USUAL_ROWS = 512  # of a step where layers stay on the CPU
_LAYER = re.compile(r"blk\.(\d+)\.")


def planned(
    weights: Weights, model: Transformer, request: Load, num_ctx: int, vram: int, resident: int | None
) -> tuple[Plan, int]:
    """The best plan, and the rows of its steps. `resident`: experts of a layer that may lie in VRAM. Raises NoRoom where not even
    one layer fits."""
    refused, kind = NoRoom(""), kept.fitting(request.kv_cache_type, *head_sizes(model))
    for first, parallel, rows in sizes(request, len(model.blk)):
        blocks = parallel * -(-num_ctx // BLOCK_TOKENS) + 1
        needs = needs_of(weights, model, blocks, rows, num_ctx, first, request.num_parallel, kind)
        on_cpu = max(0, request.num_cpu_moe - sum(isinstance(blk.feed_forward, MoE) for blk in model.blk[:first]))
        try:
            chosen = plan(needs, vram, request.main_gpu or 0, most=resident, num_cpu_moe=on_cpu)
        except NoRoom as error:
            refused = refused if str(refused) else error
        else:
            before = sum(tensor.nbytes for tensor in weights if not on_card(tensor, model, first))
            return dataclasses.replace(chosen, first=first).after(before), rows
    raise refused


def sizes(request: Load, layers: int) -> Iterator[tuple[int, int, int]]:
    """Layers on the CPU, sequences that are promised a context, and rows of a step, in the order in which they are tried: first
    smaller steps, then fewer sequences where nobody asks for them, then fewer layers on the card."""
    rows = min(request.num_batch or ROWS, MAX_ROWS)
    sequences = [request.num_parallel] if request.num_parallel else list(range(PARALLEL, 0, -1))
    halves = [rows >> halved for halved in range(4) if rows >> halved >= LEAST_ROWS] or [rows]
    least = first_layer(request.num_gpu, layers)
    yield from ((least, parallel, size) for parallel, size in itertools.product(sequences, halves))
    for first in range(least + 1, layers):
        yield first, sequences[-1], min(halves[0], USUAL_ROWS)


def first_layer(num_gpu: int, layers: int) -> int:
    """The first layer on the card where so many are asked for: the output counts as the last one, as in Ollama. < 0: all."""
    return 0 if num_gpu < 0 else max(0, layers + 1 - num_gpu)


def on_card(tensor: Tensor, model: Transformer, first: int) -> bool:
    """Whether the card computes with a tensor where layers before `first` run on the CPU, which then embeds the tokens too."""
    layer = _LAYER.match(tensor.name)
    if layer is None:
        return first == 0 or tensor.name != model.token_embd.weight.name or tensor.name == model.output.weight.name
    return int(layer[1]) >= first


def head_sizes(model: Transformer) -> list[int]:
    """Of all keys and values."""
    return sorted({size for heads in model.heads for size in (heads.key_length, heads.value_length)})


def is_matrix(tensor: Tensor) -> bool:
    """Whether it is multiplied as a whole; the weights of a convolution are not."""
    return len(tensor.shape) > 1 and ".ssm_conv1d." not in tensor.name


def needs_of(
    weights: Weights,
    model: Transformer,
    blocks: int,
    rows: int,
    num_ctx: int,
    first: int = 0,
    num_parallel: int = 0,
    kind: Kept = F16,
) -> Needs:
    """What the model asks of a card with so many blocks of cache, in steps of so many rows of texts of up to `num_ctx` tokens;
    `first`: the first layer there; `kind`: of keys and values."""
    config = model.config
    experts = [(m.ffn_gate_exps.shape[2], m.ffn_gate_exps, m.ffn_up_exps, m.ffn_down_exps) for m in mixtures(model, first)]
    stacked = {tensor.name for _, *tensors in experts for tensor in tensors}
    layers = config.block_count - first
    dense = sum(tensor.nbytes for tensor in weights if on_card(tensor, model, first) and tensor.name not in stacked)
    heads = model.heads_from(first)
    block = sum(h.head_count_kv * (kind.card_bytes(h.key_length) + kind.card_bytes(h.value_length)) for h in heads)
    used, inner = config.expert_used_count, max(config.feed_forward_length, config.expert_feed_forward_length)
    keys = config.head_count * config.key_length
    step = step_bytes(rows, config.embedding_length, max(1, used) * inner, used, keys, config.n_vocab)
    step += text_bytes(model, num_ctx) + (texts(num_parallel) + CHECKPOINTS) * model.state_bytes(first)
    stacks = tuple((count, sum(tensor.nbytes for tensor in tensors) // count) for count, *tensors in experts)
    return Needs(layers, dense, stacks, block, blocks, step)


def step_bytes(rows: int, width: int, hidden: int, used: int, keys: int, n_vocab: int) -> int:
    """Of a step's activations: states, hidden values (`hidden`: of all experts that a token chooses) and answers of experts,
    queries and answers of attention (`keys`: values of all heads' queries), logits."""
    values = 16 * width + 3 * hidden + 2 * max(1, used) * width + 4 * keys
    return 4 * (rows * values + 2 * min(rows, MAX_OUTPUTS) * n_vocab)


def texts(num_parallel: int) -> int:
    """Texts that can have a state on the card at a time."""
    return max(PARALLEL, num_parallel)


def ram_bytes(weights: Weights, model: Transformer, chosen: Plan) -> int:
    """Bytes of weights that a token reads from RAM, when all experts are as likely to be chosen."""
    config = model.config
    used = config.expert_used_count / config.expert_count if config.expert_count else 1.0
    front = (tensor for tensor in weights if _LAYER.match(tensor.name) and not on_card(tensor, model, chosen.first))
    total = sum(tensor.nbytes * (used if len(tensor.shape) == 3 else 1.0) for tensor in front)
    for mixture, count in zip(mixtures(model, chosen.first), chosen.resident, strict=True):
        tensors = mixture.ffn_gate_exps, mixture.ffn_up_exps, mixture.ffn_down_exps
        total += sum(tensor.nbytes for tensor in tensors) * used * (1 - count / mixture.ffn_gate_exps.shape[2])
    return int(total)


def text_bytes(model: Transformer, num_ctx: int) -> int:
    """Bytes that a step takes for a long text."""
    return max((long_texts.text_bytes(heads, num_ctx) for heads in model.heads_from(0)), default=0)


def mixtures(model: Transformer, first: int = 0) -> list[MoE]:
    """The layers with experts from `first` on, in order."""
    return [block.feed_forward for block in model.blk[first:] if isinstance(block.feed_forward, MoE)]
