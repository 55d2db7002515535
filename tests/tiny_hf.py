"""Small random checkpoints as Hugging Face's libraries write them: safetensors, config.json, the files of a tokenizer."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

QWEN2_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
VOCAB = 320
WORDS = ["the", "sky", "is", "blue"]

Json = dict[str, Any]
Tensors = dict[str, np.ndarray]


LETTERS = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]][:256]
BYTE_TOKENS = ["<|begin|>", "<s>", "</s>", *LETTERS, *(f"w{i}" for i in range(VOCAB - 264)), "th", "the", "\u0120th", "\u0120the"]


def _token(number: int, text: str, special: bool = True) -> Json:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": text, "special": special, **flags}


def byte_level(pattern: str = QWEN2_PATTERN, **model: Any) -> Json:
    """A tokenizer.json as of Qwen 2 or Llama 3."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocab = {text: number for number, text in enumerate(BYTE_TOKENS)}
    return {
        "version": "1.0",
        "added_tokens": [_token(0, "<|begin|>"), _token(1, "<s>"), _token(2, "</s>"), _token(VOCAB - 1, "<tool>", False)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "decoder": level,
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": ["t h", "th e", "\u0120 th", "\u0120th e"],
            "ignore_merges": False,
            **model,
        },
    }


PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{i:02X}>" for i in range(256)),
    "\u2581",
    "t",
    "h",
    "e",
    "s",
    "k",
    "y",
    "i",
    "b",
    "l",
    "u",
]
MERGED = ["th", "the", "\u2581the", "sk", "sky", "\u2581sky", "is", "\u2581is", "bl", "blu", "blue", "\u2581blue"]
_PAIRS = ["t h", "th e", "\u2581 the", "s k", "sk y", "\u2581 sky", "i s", "\u2581 is", "b l", "bl u", "blu e", "\u2581 blue"]


def blocks() -> Json:
    """A tokenizer.json as of Llama 2: a SentencePiece model written as merges."""
    vocab = {text: number for number, text in enumerate(PIECES + MERGED)}
    sequence = [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    model = {"type": "BPE", "vocab": vocab, "merges": [pair.split(" ") for pair in _PAIRS], "unk_token": "<unk>"}
    return {
        "version": "1.0",
        "added_tokens": [_token(0, "<unk>"), _token(1, "<s>"), _token(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": sequence},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {**model, "byte_fallback": True, "fuse_unk": True},
    }


def sentence_piece() -> bytes:
    """A tokenizer.model of the same pieces."""
    out = b""
    for number, text in enumerate(PIECES + MERGED):
        kind = 2 if number == 0 else 3 if number < 3 else 6 if number < 259 else 1
        score = 0.0 if number < 259 else float(259 - number - 20 * (number < len(PIECES)))
        piece = b"\x0a" + bytes([len(text.encode())]) + text.encode() + b"\x15" + struct.pack("<f", score)
        piece += bytes([0x18, kind]) if kind != 1 else b""
        out += b"\x0a" + bytes([len(piece)]) + piece
    trainer, normalizer = (
        b"\x18\x02\x98\x02\x01",
        b"\x0a\x08identity\x18\x01",
    )  # model_type BPE, byte_fallback; name, add_dummy_prefix
    return out + b"\x12" + bytes([len(trainer)]) + trainer + b"\x1a" + bytes([len(normalizer)]) + normalizer


def word_piece() -> Json:
    """A tokenizer.json as of BERT."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *WORDS, "##ing"]
    tokens += [f"w{i}" for i in range(VOCAB - len(tokens))]
    cls, sep = ({"SpecialToken": {"id": text, "type_id": 0}} for text in ("[CLS]", "[SEP]"))
    a, b = ({"Sequence": {"id": text, "type_id": number}} for number, text in enumerate("AB"))
    return {
        "version": "1.0",
        "added_tokens": [_token(i, text) for i, text in enumerate(tokens[:5])],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, a, sep],
            "pair": [cls, a, sep, b, sep],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (("[CLS]", 2), ("[SEP]", 3))},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {text: number for number, text in enumerate(tokens)},
        },
    }


TEMPLATE = "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}</s>{% endfor %}"
_BERT_TOKENS = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "sep", "pad", "cls", "mask")}
_FAST: Json = {"tokenizer_class": "PreTrainedTokenizerFast"}
_SPM_SETTINGS: Json = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
}
TOKENIZERS: dict[str, dict[str, Json | list[Any] | str]] = {
    "byte_level": {
        "tokenizer.json": byte_level(),
        "tokenizer_config.json": {
            "bos_token": None,
            "eos_token": "</s>",
            "pad_token": "<|begin|>",
            "chat_template": TEMPLATE,
            **_FAST,
        },
        "generation_config.json": {"eos_token_id": [2, 0]},
    },
    "sentence_piece": {"tokenizer_config.json": {**_SPM_SETTINGS, "chat_template": TEMPLATE}},
    "blocks": {"tokenizer.json": blocks(), "tokenizer_config.json": _SPM_SETTINGS | _FAST, "chat_template.jinja": TEMPLATE},
    "word_piece": {"tokenizer.json": word_piece(), "tokenizer_config.json": {**_BERT_TOKENS, "tokenizer_class": "BertTokenizer"}},
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A kind of model: its config, the shapes of its tensors (norms end in `norm` something), and its tokenizer's files."""

    config: Json
    shapes: dict[str, tuple[int, ...]]
    tokenizer: str = "byte_level"  # or "sentence_piece", "blocks", "word_piece"
    files: dict[str, Json | list[Any] | str] = dataclasses.field(default_factory=dict)
    dtype: str = "F32"


_SIZES: Json = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": VOCAB,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def _decoder(
    architecture: str, model_type: str, *, tokenizer: str = "byte_level", norms: bool = False, biases: bool = False, **config: Any
) -> Checkpoint:
    values = {**_SIZES, "architectures": [architecture], "model_type": model_type, **config}
    d, heads, kv, head = (values[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, d), "model.norm.weight": (d,)}
    if not values["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCAB, d)
    for layer in range(values["num_hidden_layers"]):
        block: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (d,),
            "post_attention_layernorm.weight": (d,),
            "self_attn.q_proj.weight": (heads * head, d),
            "self_attn.k_proj.weight": (kv * head, d),
            "self_attn.v_proj.weight": (kv * head, d),
            "self_attn.o_proj.weight": (d, heads * head),
        }
        if biases:
            block |= {f"self_attn.{part}_proj.bias": block[f"self_attn.{part}_proj.weight"][:1] for part in "qkv"}
        if norms:
            block |= {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in (block | _feed_forward(values)).items()}
    return Checkpoint(values, shapes, tokenizer)


def _feed_forward(config: Json) -> dict[str, tuple[int, ...]]:
    d, f = config["hidden_size"], config.get("moe_intermediate_size", config["intermediate_size"])
    if "num_local_experts" in config:
        block: dict[str, tuple[int, ...]] = {"block_sparse_moe.gate.weight": (config["num_local_experts"], d)}
        for e in range(config["num_local_experts"]):
            shapes = {"w1": (f, d), "w2": (d, f), "w3": (f, d)}
            block |= {f"block_sparse_moe.experts.{e}.{part}.weight": shape for part, shape in shapes.items()}
        return block
    shapes = {"gate_proj": (f, d), "up_proj": (f, d), "down_proj": (d, f)}
    if "num_experts" not in config:
        return {f"mlp.{part}.weight": shape for part, shape in shapes.items()}
    experts = range(config["num_experts"])
    block = {f"mlp.experts.{e}.{part}.weight": shape for e in experts for part, shape in shapes.items()}
    return block | {"mlp.gate.weight": (config["num_experts"], d)}


_LLAMA3_ROPE: Json = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_GEMMA = _decoder(
    "Gemma3ForCausalLM",
    "gemma3_text",
    tokenizer="sentence_piece",
    norms=True,
    hidden_activation="gelu_pytorch_tanh",
    query_pre_attn_scalar=32,
    sliding_window=16,
    rope_theta=1e6,
    rope_local_base_freq=10000.0,
    tie_word_embeddings=True,
)
_GEMMA_NORMS = {
    f"model.layers.{layer}.{side}_feedforward_layernorm.weight": (128,) for layer in range(2) for side in ("pre", "post")
}


def _gpt_oss() -> Checkpoint:
    base = _decoder("GptOssForCausalLM", "gpt_oss", biases=True, sliding_window=16, num_experts_per_tok=2, head_dim=32)
    d, f, experts = 128, 192, 4
    shapes = {name: shape for name, shape in base.shapes.items() if ".mlp." not in name}
    for layer in range(2):
        block = {
            "self_attn.o_proj.bias": (d,),
            "self_attn.sinks": (4,),
            "mlp.router.weight": (experts, d),
            "mlp.router.bias": (experts,),
            "mlp.experts.gate_up_proj_blocks": (experts, 2 * f, d // 32, 16),
            "mlp.experts.gate_up_proj_scales": (experts, 2 * f, d // 32),
            "mlp.experts.gate_up_proj_bias": (experts, 2 * f),
            "mlp.experts.down_proj_blocks": (experts, d, f // 32, 16),
            "mlp.experts.down_proj_scales": (experts, d, f // 32),
            "mlp.experts.down_proj_bias": (experts, d),
        }
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    scaling = {"rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 32}
    more = {"num_local_experts": experts, "quantization_config": {"quant_method": "mxfp4"}, "rope_scaling": scaling}
    return dataclasses.replace(base, config={**base.config, **more}, shapes=shapes, dtype="BF16")


_POOLING: dict[str, Json | list[Any] | str] = {
    "modules.json": [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "1_Pooling/config.json": {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
}


def _bert() -> Checkpoint:
    d, f = 128, 192
    names = {"attention.self.query": (d, d), "attention.self.key": (d, d), "attention.self.value": (d, d)}
    names |= {"attention.output.dense": (d, d), "intermediate.dense": (f, d), "output.dense": (d, f)}
    names |= {"attention.output.LayerNorm": (d,), "output.LayerNorm": (d,)}
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{n}.weight": (c, d)
        for n, c in (("word_embeddings", VOCAB), ("position_embeddings", 256), ("token_type_embeddings", 2))
    }
    shapes |= {"embeddings.LayerNorm.weight": (d,), "embeddings.LayerNorm.bias": (d,), "pooler.dense.weight": (d, d)}
    for layer in range(2):
        for name, shape in names.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": d,
        "intermediate_size": f,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "vocab_size": VOCAB,
        "hidden_act": "gelu",
        "pad_token_id": 0,
    }
    return Checkpoint(config, shapes, "word_piece", _POOLING)


def _nomic() -> Checkpoint:
    d, f = 128, 192
    names = {"attn.Wqkv": (3 * d, d), "attn.out_proj": (d, d), "mlp.fc11": (f, d), "mlp.fc12": (f, d), "mlp.fc2": (d, f)}
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (VOCAB, d)}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, d), "emb_ln.weight": (d,), "emb_ln.bias": (d,)}
    for layer in range(2):
        shapes |= {f"encoder.layers.{layer}.{name}.weight": shape for name, shape in names.items()}
        shapes |= {f"encoder.layers.{layer}.norm{i}.{part}": (d,) for i in (1, 2) for part in ("weight", "bias")}
    config = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "n_embd": d,
        "n_inner": f,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 8192,
        "max_trained_positions": 2048,
        "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "type_vocab_size": 2,
        "vocab_size": VOCAB,
        "activation_function": "swiglu",
        "causal": False,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "prenorm": False,
    }
    return Checkpoint(config, shapes, "word_piece", _POOLING)


_QWEN3 = _decoder("Qwen3ForCausalLM", "qwen3", norms=True, tie_word_embeddings=True)
CHECKPOINTS: dict[str, Checkpoint] = {
    "llama": _decoder("LlamaForCausalLM", "llama", tokenizer="sentence_piece"),
    "llama3": dataclasses.replace(
        _decoder("LlamaForCausalLM", "llama", rope_scaling=_LLAMA3_ROPE),
        files={"tokenizer.json": byte_level(LLAMA3_PATTERN, ignore_merges=True)},
        dtype="BF16",
    ),
    "mistral": _decoder("MistralForCausalLM", "mistral", tokenizer="blocks", sliding_window=None),
    "mixtral": _decoder("MixtralForCausalLM", "mixtral", tokenizer="sentence_piece", num_local_experts=4, num_experts_per_tok=2),
    "qwen2": _decoder("Qwen2ForCausalLM", "qwen2", biases=True),
    "qwen3": _QWEN3,
    "qwen3moe": _decoder(
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        norms=True,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    ),
    "qwen3-embedding": dataclasses.replace(
        _QWEN3, files=_POOLING | {"1_Pooling/config.json": {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}}
    ),
    "gemma3": dataclasses.replace(_GEMMA, shapes=_GEMMA.shapes | _GEMMA_NORMS),
    "gpt-oss": _gpt_oss(),
    "bert": _bert(),
    "nomic-bert": _nomic(),
}


def write(folder: Path, checkpoint: Checkpoint, *, parts: int = 1, seed: int = 0) -> dict[str, Path]:
    """Writes the files, the weights in `parts` with an index; gives their names and paths."""
    folder.mkdir(parents=True, exist_ok=True)
    values = tensors(checkpoint, seed)
    files: dict[str, Json | list[Any] | str] = {"config.json": checkpoint.config} | TOKENIZERS[checkpoint.tokenizer]
    files |= checkpoint.files
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    if checkpoint.tokenizer == "sentence_piece":
        (folder / "tokenizer.model").write_bytes(sentence_piece())
    _write_weights(folder, values, checkpoint.dtype, parts)
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def tensors(checkpoint: Checkpoint, seed: int = 0) -> Tensors:
    """Random numbers with the spread of a trained model's, each exact in F16 and BF16."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in sorted(checkpoint.shapes.items()):
        if name.endswith("_blocks"):
            found[name] = rng.integers(0, 256, shape, np.uint8)
        elif name.endswith("_scales"):
            found[name] = rng.integers(119, 122, shape, np.uint8)
        else:
            is_norm = "norm" in name.lower() or "emb_ln" in name
            mean = 1.0 if is_norm and not name.endswith(".bias") and checkpoint.config["model_type"] != "gemma3_text" else 0.0
            values = rng.normal(mean, 0.1 if len(shape) == 1 else 1.5 / np.sqrt(shape[-1]), shape).astype(np.float32)
            found[name] = (values.view(np.uint32) & 0xFFFF0000).view(np.float32).clip(-8, 8)
            found[name][np.abs(found[name]) < 1e-3] = 0
    return found


def bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of numbers whose lower halves are zero."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def safetensors(values: Tensors, dtype: str = "F32", metadata: Json | None = None) -> bytes:
    """The bytes of a file."""
    header: Json = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, array in values.items():
        kind = {"uint8": "U8", "int8": "F8_E4M3"}.get(array.dtype.name, dtype)
        raw = bf16(array) if kind == "BF16" else array.astype({"F32": np.float32, "F16": np.float16}.get(kind, array.dtype))
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + raw.nbytes]}
        data += raw.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _write_weights(folder: Path, values: Tensors, dtype: str, parts: int) -> None:
    if parts == 1:
        (folder / "model.safetensors").write_bytes(safetensors(values, dtype, {"format": "pt"}))
        return
    index = {}
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        chosen = {key: values[key] for key in list(values)[part::parts]}
        (folder / name).write_bytes(safetensors(chosen, dtype))
        index |= dict.fromkeys(chosen, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
