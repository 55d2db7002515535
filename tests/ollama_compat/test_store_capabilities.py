"""What models can do, as Ollama 0.33 said of the same files."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_files import TOKENS, language_model, make, upload, write_gguf

from ollama_compat.store import Store
from ollama_compat.store.model import StoredModel
from ollama_compat.store.names import ModelName

JINJA = {
    0: "{{ messages }}{{ tools }}",
    1: "x<think>y</think>",
    2: "content.split('</think>')",
    3: "content.split('</think>') reasoning_content",
    4: "tool_call tool_response role'] == 'tool'",
    5: "tools tool_calls ipython <think></think>",
}


async def model(store: Store, tmp_path: Path, pairs: object = None, architecture: str = "llama", **fields: object) -> StoredModel:
    digest = await upload(store, write_gguf(tmp_path / "m.gguf", architecture, pairs))  # type: ignore[arg-type]
    await make(store, "base", files={"m.gguf": digest})
    await make(store, "m", from_="base", **fields)
    return store.get(ModelName.parse("m"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, ["tools", "completion"]),
        (1, ["thinking", "completion"]),
        (2, ["thinking", "completion"]),
        (3, ["completion"]),
        (4, ["tools", "completion"]),
        (5, ["tools", "thinking", "completion"]),
    ],
)
async def test_a_jinja_template(store: Store, tmp_path: Path, number: int, expected: list[str]) -> None:
    found = await model(store, tmp_path, language_model("llama", 1, ("tokenizer.chat_template", "string", JINJA[number])))
    assert found.capabilities() == expected
    assert found.list_entry("T")["capabilities"] == ["completion"]
    assert (found.prompt_source, found.shown_template) == ("jinja", JINJA[number])


@pytest.mark.parametrize(
    ("jinja", "template", "source", "expected", "listed"),
    [
        (5, "{{ .System }} {{ .Prompt }}", "jinja", ["tools", "thinking", "completion"], ["completion"]),
        (4, "{{ .Messages }}{{ .Tools }}{{ .ToolCalls }} tool_response", "go", ["completion", "tools"], ["completion", "tools"]),
        (0, "{{ range .Messages }}{{ .Content }}{{ end }}{{ .Tools }}", "go", ["completion", "tools"], ["completion", "tools"]),
        (
            None,
            "{{ range .Messages }}{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ .Content }}{{ end }}{{ .Suffix }}",
            "go",
            ["completion", "insert", "thinking"],
            ["completion", "insert", "thinking"],
        ),
    ],
)
async def test_the_better_of_two_templates(
    store: Store, tmp_path: Path, jinja: int | None, template: str, source: str, expected: list[str], listed: list[str]
) -> None:
    more = () if jinja is None else (("tokenizer.chat_template", "string", JINJA[jinja]),)
    found = await model(store, tmp_path, language_model("llama", 1, *more), template=template)
    assert (found.prompt_source, found.capabilities(), found.list_entry("T")["capabilities"]) == (source, expected, listed)


@pytest.mark.parametrize(("setting", "source"), [(True, "go"), (False, "jinja")])
async def test_a_setting_decides_between_templates(tmp_path: Path, setting: bool, source: str) -> None:
    for number, template in ((5, "{{ .Prompt }}"), (0, "{{ .Messages }}{{ .Tools }}")):
        store = Store(tmp_path / f"models{number}", go_template=setting)
        pairs = language_model("llama", 1, ("tokenizer.chat_template", "string", JINJA[number]))
        found = await model(store, tmp_path, pairs, template=template)
        assert found.prompt_source == source


async def test_embedding_vision_and_audio_come_from_the_file(store: Store, tmp_path: Path) -> None:
    keys = [
        ("llama.block_count", "uint32", 1),  # without it the file would pass for a projector
        ("llama.pooling_type", "uint32", 1),
        ("llama.vision.block_count", "uint32", 3),
        ("llama.audio.block_count", "uint32", 3),
    ]
    found = await model(store, tmp_path, [*keys, *TOKENS])
    assert found.capabilities() == ["embedding", "vision", "audio"]
    assert found.list_entry("T")["capabilities"] == ["vision", "audio", "embedding"]


async def test_lists_do_not_look_behind_the_tokenizer(store: Store, tmp_path: Path) -> None:
    found = await model(store, tmp_path, language_model("llama", 1, ("llama.pooling_type", "uint32", 1)))
    assert found.capabilities() == ["embedding"]
    assert found.list_entry("T")["capabilities"] == ["completion"]


@pytest.mark.parametrize(
    ("renderer", "parser", "expected"),
    [
        ("qwen3-coder", "qwen3-vl-thinking", ["completion", "tools", "thinking"]),
        ("", "olmo3-think", ["completion", "thinking"]),
        ("", "qwen3", ["completion", "tools"]),
        ("", "passthrough", ["completion"]),
        ("", "nope", ["completion"]),
    ],
)
async def test_a_built_in_parser_speaks_for_the_model(
    store: Store, tmp_path: Path, renderer: str, parser: str, expected: list[str]
) -> None:
    pairs = language_model("llama", 1, ("tokenizer.chat_template", "string", JINJA[5]))
    found = await model(store, tmp_path, pairs, renderer=renderer, parser=parser)
    assert (found.prompt_source, found.capabilities()) == ("builtin", expected)


async def test_gpt_oss_always_thinks(store: Store, tmp_path: Path) -> None:
    found = await model(store, tmp_path, language_model("gptoss"), "gptoss", template="<|start|>{{ .Prompt }}<|end|>")
    assert (found.prompt_source, found.capabilities()) == ("harmony", ["completion", "thinking"])


async def test_capabilities_stated_by_hand_come_first(store: Store, tmp_path: Path) -> None:
    found = await model(store, tmp_path, info={"capabilities": ["tools", 3]})
    assert found.capabilities() == ["tools", "", "completion"]
    assert found.list_entry("T")["capabilities"] == ["completion", "tools"]
    assert found.capabilities() is not found.capabilities()


async def test_a_template_that_does_not_parse_counts_for_nothing(store: Store, tmp_path: Path) -> None:
    found = await model(store, tmp_path, template="{{ .Tools }}")
    layer = next(layer for layer in found.manifest.layers if layer.media_type.endswith("template"))
    store.blob_path(layer.digest).write_text("{{ if }}")
    assert Store(store.root).get(found.name).capabilities() == ["completion"]
