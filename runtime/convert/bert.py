"""Encoders: `bert` (BERT, and sentence embedders made of it) and `nomic-bert`."""

from __future__ import annotations

import dataclasses

from runtime.convert import metadata
from runtime.convert.config import Config
from runtime.convert.errors import ConvertError
from runtime.convert.model import Model, Recipe, plain, unchanged
from runtime.convert.names import Names, grouped
from runtime.convert.pooling import MEAN, pooling

_ROOTS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
    "emb_ln": "token_embd_norm",
}
_BERT = Names(
    roots=_ROOTS,
    layers={
        "attention.self.query": "attn_q",
        "attention.self.key": "attn_k",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
        "output.LayerNorm": "layer_output_norm",
    },
    prefixes=("bert.encoder.", "bert.", "encoder."),
    skipped=("embeddings.position_ids", "pooler.", "cls.predictions", "cls.seq_relationship", "classifier."),
)
_NOMIC = dataclasses.replace(
    _BERT,
    layers={
        "attn.Wqkv": "attn_qkv",
        "attn.out_proj": "attn_output",
        "norm1": "attn_output_norm",
        "mlp.fc11": "ffn_up",
        "mlp.fc12": "ffn_gate",
        "mlp.fc2": "ffn_down",
        "norm2": "layer_output_norm",
    },
)
_DEFAULTS = {"layer_norm_eps": 1e-12}


def convert(model: Model) -> Recipe:
    """BERT; ConvertError for a checkpoint that does not fit its config."""
    return _recipe(model, "bert", _BERT, model.config.with_defaults(_DEFAULTS))


def convert_nomic(model: Model) -> Recipe:
    """Nomic's, whose heads turn and whose feed-forward layers are gated; ConvertError for its variant with experts."""
    config = model.config.with_defaults(_DEFAULTS)
    if config.get("moe_every_n_layers"):
        raise ConvertError('unsupported architecture "nomic-bert-moe"')
    recipe = _recipe(model, "nomic-bert", _NOMIC, config)
    more: metadata.Values = {"context_length": _trained(config)}
    if config.get("rotary_emb_base", "rope_theta") is not None:
        more["rope.freq_base"] = config.number("rotary_emb_base", "rope_theta")
    return dataclasses.replace(recipe, metadata=recipe.metadata | more)


def _recipe(model: Model, architecture: str, names: Names, config: Config) -> Recipe:
    values = metadata.shared(config) | {"attention.causal": False}
    values |= pooling(model.source) or {"pooling_type": MEAN}  # what sentence-transformers takes where nothing is said
    values["tokenizer.ggml.token_type_count"] = config.count("type_vocab_size") if config.get("type_vocab_size") else 1
    tensors = {name: stored for key, stored in model.tensors.items() if (name := _modern(key))}
    return Recipe(architecture, values, list(plain(model, grouped(names, tensors), unchanged)))


def _modern(name: str) -> str:
    """TensorFlow's names of a norm's numbers, which the oldest checkpoints keep."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _trained(config: Config) -> int:
    """Tokens that the model was trained with: the config states what its code could take."""
    positions = config.count("n_positions", "max_position_embeddings")
    trained = config.count("max_trained_positions") if config.get("max_trained_positions") else 2048
    return min(positions, trained)
