"""The name of a byte-level vocabulary's pre-tokenizer: the one that cuts a difficult text in the same places.

llama.cpp knows tokenizers by a hash of the tokens of a text, Ollama by a hash of the patterns. Both miss a tokenizer that was
changed in a way that does not matter; what matters is where words end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers

from runtime.convert.errors import ConvertError
from runtime.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer

_LOG = logging.getLogger(__name__)

DEFAULT = "default"

Cuts = list[tuple[int, int]]

# of several names for the same patterns, the usual one
_USUAL = ("llama-bpe", "qwen2", "gpt-2", "gpt-4o", "qwen35", "tekken", "deepseek-v3", "falcon", "starcoder")

PROBE = (
    "Hello World, it's we'LL they'Re I'M don'T x's 'SO \u017fet's\n\n\n  \t three   spaces\n \n\r\n tabs\t\t\tend \n"
    "3 33 333 3333 33333 333333 3333333 33333333 1,234.56 v2.0.1a 7x8 \u00b2\u00bd\u2167\u0663\u0664\u0665\u0666 abc123def4567\n"
    "camelCase HTTPServer McDonald XMLHttpRequest iOS \u00c9t\u00c9 \u01c5abc \u02b0m\n"
    "foo(bar)[0] = {x: 'y'}; // note /* c */ #tag @me $5 50% a&b <tag/> \"quoted\" --> ... ?! \u2026\u2014\u2026\n\n/path/to\n"
    "\u00fcber na\u00efve e\u0301clair \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35"
    " \u043f\u0440\u0438\u0432\u0435\u0442 \u0393\u03b5\u03b9\u03ac \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd\n"
    "\u4f60\u597d\u4e16\u754c\uff0c\u4eca\u5929123\u5e74\u3002\u3053\u3093\u306b\u3061\u306f\u30ab\u30bf\u30ab\u30ca\u30fc"
    "\ud55c\uad6d\uc5b4 \u3105\u3106 word\u4e2d\u6587word \u300a\u4e66\u300b\uff01\uff1f\n"
    "\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f \u2705 \U0001f999\U0001f999 "
    "a\u00a0b\u2003c\u3000d_e_f ^~`| \u00ab\u00bb\u00a7 \u20ac\u00a3 \u2211\u221a +-*=<>\n"
    "IMGIMGAABBZ <sentinel:12> !Abc .net #Include =word _x  \n\n   last line   "
)
"""What known pre-tokenizers treat differently: contractions, digits, cases, marks, scripts, signs, spaces, ends of lines."""


def detect(tokenizer: Mapping[str, Any]) -> str:
    """The name for a tokenizer.json's pre-tokenizer; `default` for a stranger, as in Ollama. ConvertError for a broken one."""
    described = tokenizer.get("pre_tokenizer")
    if not described:
        return DEFAULT
    wanted = cuts(_theirs(described))
    ignores = bool(tokenizer.get("model", {}).get("ignore_merges"))
    same = [name for name in _names() if cuts(_ours(PRE_TOKENIZERS[name])) == wanted]
    for name in same:
        if PRE_TOKENIZERS[name].ignore_merges == ignores:
            return name
    if same:
        return same[0]
    _LOG.warning("the pre-tokenizer is none that has a name; texts may be cut in other places than the model expects")
    return DEFAULT


def _names() -> Iterable[str]:
    byte_level = (name for name, row in PRE_TOKENIZERS.items() if not row.spaces_as_blocks and name != DEFAULT)
    return dict.fromkeys([*_USUAL, *byte_level])


def cuts(steps: pre_tokenizers.PreTokenizer) -> Cuts:
    """Where the probe is cut."""
    return [place for _, place in steps.pre_tokenize_str(PROBE)]


def _ours(row: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in row.patterns]
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(False, use_regex=False)])


def _theirs(described: Any) -> pre_tokenizers.PreTokenizer:
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": described,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    try:
        steps: pre_tokenizers.PreTokenizer = Tokenizer.from_str(json.dumps(whole)).pre_tokenizer
        return steps
    except Exception as error:  # the library raises plain Exception for what is wrong in a description
        raise ConvertError(f"parse tokenizer.json: {error}") from None
