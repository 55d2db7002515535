"""POST /api/create without HTTP: progress, layers and errors, against answers of Ollama 0.33."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from store_files import assert_sound, describe, language_model, make, split_model, upload, write_gguf

from ollama_compat.errors import ApiError
from ollama_compat.schema import CreateRequest
from ollama_compat.store import Store, manifests
from ollama_compat.store.names import ModelName
from ollama_compat.store.remote import remote_url

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
RECORDED = json.loads((ROOT / "tests/fixtures/ollama/demo-moe.json").read_text())
MISSING = f"sha256:{'0' * 64}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
async def plain(store: Store, tmp_path: Path) -> str:
    """The digest of a small language model, from which `plain` was made."""
    digest = await upload(store, write_gguf(tmp_path / "plain.gguf"))
    await make(store, "plain", files={"plain.gguf": digest})
    return digest


def layers(store: Store, model: str) -> list[tuple[str, str]]:
    """Kinds of the layers, and where they were taken from."""
    manifest = store.get(ModelName.parse(model)).manifest
    return [(layer.media_type.removeprefix(manifests.IMAGE), layer.source) for layer in manifest.layers]


async def refused(store: Store, **fields: Any) -> tuple[int, str]:
    """Status and message of the error."""
    with pytest.raises(ApiError) as error:
        await make(store, fields.pop("model", "new"), **fields)
    assert store.resolve(ModelName.parse("new")) is None
    return error.value.status, error.value.message


# ---------------------------------------------------------------- as recorded


async def test_a_model_from_a_file_and_one_from_it_are_ollamas_byte_for_byte(store: Store) -> None:
    digest = await upload(store, DEMO)
    assert await make(store, "base", files={"demo.gguf": digest}) == [
        "parsing GGUF",
        "verifying conversion",
        f"using existing layer {digest}",
        "writing manifest",
        "success",
    ]
    body = RECORDED["create_derived"]
    fields = {key: value for key, value in body.items() if key not in ("model", "from")}
    assert await make(store, "derived", from_="base", **fields) == RECORDED["progress_derived"]
    assert_sound(store)


# ---------------------------------------------------------------- from a model


async def test_a_template_system_and_messages_replace_the_old_ones(store: Store, plain: str) -> None:
    first = [{"role": "user", "content": "q"}]
    await make(store, "a", from_="plain", template="{{ .System }}", system="one", messages=first)
    await make(store, "b", from_="a", system="two", messages=[{"role": "user", "content": "r"}])
    model = store.get(ModelName.parse("b"))
    assert (model.template, model.system, model.messages) == ("{{ .System }}", "two", [{"role": "user", "content": "r"}])
    assert layers(store, "b") == [("model", "a:latest"), ("template", "a:latest"), ("system", ""), ("messages", "")]


async def test_empty_texts_and_lists_change_nothing(store: Store, plain: str) -> None:
    await make(store, "a", from_="plain", system="one", messages=[{"role": "user", "content": "q"}], license="L")
    await make(store, "a", from_="a", system="", template="", messages=[], license="", parameters={})
    model = store.get(ModelName.parse("a"))
    assert (model.system, len(model.messages), model.licenses) == ("one", 1, ["L"])


async def test_parameters_are_merged(store: Store, plain: str) -> None:
    await make(store, "a", from_="plain", parameters={"stop": "x", "num_ctx": 4096.0, "seed": 42})
    progress = await make(store, "a", from_="a", parameters={"stop": ["y"], "temperature": 1})
    model = store.get(ModelName.parse("a"))
    assert model.params == {"num_ctx": 4096, "seed": 42, "stop": ["y"], "temperature": 1}
    assert store.blobs.read(model.manifest.layers[-1].digest) == b'{"num_ctx":4096,"seed":42,"stop":["y"],"temperature":1}\n'
    assert progress[1].startswith("creating new layer ")
    assert (await make(store, "b", from_="a"))[1].startswith("using existing layer ")


async def test_licenses_add_up(store: Store, plain: str) -> None:
    await make(store, "a", from_="plain", license=["A", None, "B"])
    await make(store, "a", from_="a", license="C")
    assert store.get(ModelName.parse("a")).licenses == ["A", "", "B", "C"]


async def test_what_the_base_says_of_itself_is_inherited(store: Store, plain: str) -> None:
    info = {"capabilities": ["vision"]}
    await make(store, "a", from_="plain", renderer="r", parser="qwen3", requires="0.1.0", info=info)
    await make(store, "b", from_="a", parser="olmo3")
    config = store.get(ModelName.parse("b")).config
    assert (config.renderer, config.parser, config.requires, config.capabilities) == ("r", "olmo3", "0.1.0", ["vision"])


async def test_a_template_goes_before_an_inherited_renderer(store: Store, plain: str) -> None:
    await make(store, "a", from_="plain", renderer="cogito", parser="cogito", template="{{ .Prompt }}")
    await make(store, "b", from_="a", template="{{ .System }}{{ .Prompt }}")
    await make(store, "c", from_="b")
    await make(store, "d", from_="a", system="Be kind.")
    found = {name: store.get(ModelName.parse(name)) for name in "abcd"}
    assert {name: model.config.renderer for name, model in found.items()} == {"a": "cogito", "b": "", "c": "", "d": "cogito"}
    assert {name: model.config.parser for name, model in found.items()} == dict.fromkeys("abcd", "cogito")
    assert found["c"].template == "{{ .System }}{{ .Prompt }}"


async def test_info_is_taken_as_it_comes(store: Store, plain: str) -> None:
    info = {"model_family": "fam", "context_length": 5, "embedding_length": 6.0, "parameter_size": "1B", "base_name": "bn"}
    await make(store, "a", from_="plain", info=info | {"quantization_level": "XX"})
    assert store.blobs.read(store.get(ModelName.parse("a")).manifest.config.digest) == (
        b'{"model_format":"gguf","model_family":"fam","model_families":["fam","llama"],"model_type":"1B","file_type":"XX",'
        b'"context_length":5,"embedding_length":6,"base_name":"bn","architecture":"amd64","os":"linux"}\n'
    )


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"model_family": 1}, 'info field "model_family" must be a string'),
        ({"base_name": None}, 'info field "base_name" must be a string'),
        ({"context_length": "x"}, 'info field "context_length" must be a number'),
        ({"context_length": True}, 'info field "context_length" must be a number'),
        ({"context_length": 1.5}, 'info field "context_length" must be a non-negative integer'),
        ({"embedding_length": -1}, 'info field "embedding_length" must be a non-negative integer'),
        ({"embedding_length": 1e30}, 'info field "embedding_length" must be a non-negative integer'),
    ],
)
async def test_info_of_the_wrong_type(store: Store, plain: str, info: dict[str, Any], message: str) -> None:
    assert await refused(store, from_="plain", info=info) == (400, message)


async def test_a_stub_of_a_model_elsewhere(store: Store) -> None:
    info = {"model_family": "llama", "context_length": 4096}
    assert await make(store, "stub", from_="some:model", remote_host="10.9.8.7", info=info) == ["writing manifest", "success"]
    (entry,) = (model.list_entry("T") for model in store.list())
    assert entry == {
        "name": "stub:latest",
        "model": "stub:latest",
        "remote_model": "some:model",
        "remote_host": "http://10.9.8.7:11434",
        "modified_at": "T",
        "size": entry["size"],
        "digest": store.list()[0].digest,
        "details": {
            "parent_model": "",
            "format": "",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "",
            "quantization_level": "",
            "context_length": 4096,
        },
    }


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("example.com/a/../b", "http://example.com:11434/b"),
        ("https://[::1]:99/", "https://[::1]:99"),
        ("/foo/../bar", "http://localhost:11434/bar"),
        ("ollama.com", "https://ollama.com:443"),
        ("HOST", "http://HOST:11434"),
        ("http://", "http://localhost:11434"),
        ("h:99999", "http://h:99999"),
    ],
)
def test_the_address_of_another_server(text: str, url: str) -> None:
    assert remote_url(text) == url


@pytest.mark.parametrize("text", ["http://[::1", "h:abc", "a:b:c"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ApiError, match="bad remote"):
        remote_url(text)


# ---------------------------------------------------------------- from files


async def test_a_file_needs_no_ending(store: Store, plain: str) -> None:
    await make(store, "a", files={"weights": plain})
    assert layers(store, "a") == [("model", "")]


async def test_files_are_what_their_metadata_says(store: Store, tmp_path: Path, plain: str) -> None:
    lora = write_gguf(tmp_path / "lora.gguf", pairs=[("general.type", "string", "adapter")])
    eyes = write_gguf(tmp_path / "eyes.gguf", "clip", [("clip.has_vision_encoder", "bool", True)])
    files = {"m.gguf": plain, "e.gguf": await upload(store, eyes)}
    await make(store, "a", files=files, adapters={"l.gguf": await upload(store, lora)})
    assert layers(store, "a") == [("projector", "e.gguf"), ("model", ""), ("adapter", "l.gguf")]
    model = store.get(ModelName.parse("a"))
    assert [len(model.projector_paths), len(model.adapter_paths)] == [1, 1]
    assert model.capabilities() == ["completion", "vision"]


async def test_a_file_with_parts_of_other_models_keeps_its_name(store: Store, tmp_path: Path) -> None:
    """Ollama does not rewrite such files."""
    shapes = {"token_embd.weight": (2, 64), "v.x": (64,)}
    digest = await upload(store, write_gguf(tmp_path / "m.gguf", "gemma4", language_model("gemma4"), shapes))
    progress = await make(store, "g", files={"m.gguf": digest})
    stops = store.get(ModelName.parse("g")).manifest.layers[1].digest
    created = [f"using existing layer {digest}", f"creating new layer {stops}"]
    assert progress == ["parsing GGUF", *created, "writing manifest", "success"]
    assert layers(store, "g") == [("model", "m.gguf"), ("params", "")]
    model = store.get(ModelName.parse("g"))
    assert (model.config.renderer, model.config.parser, model.params) == ("gemma4", "gemma4", {"stop": ["<turn|>"]})


async def test_a_draft_is_stored_beside_its_model(store: Store, plain: str) -> None:
    await make(store, "a", from_="plain", draft_files={"d.gguf": plain})
    assert layers(store, "a") == [("model", "plain:latest"), ("draft", "d.gguf")]
    assert store.get(ModelName.parse("a")).config.draft == {"model_format": "gguf", "architecture": "llama"}


@pytest.mark.parametrize(
    ("name", "stop"), [("zephyr", ["<|system|>", "</s>", "<|user|>", "<|assistant|>"]), ("gemma3-instruct", ["<end_of_turn>"])]
)
async def test_a_known_jinja_template_gets_its_go_template(store: Store, tmp_path: Path, name: str, stop: list[str]) -> None:
    index = json.loads((ROOT / "ollama_compat/data/templates/index.json").read_text())
    jinja = next(entry["template"] for entry in index if entry["name"] == name) + " changed a little"
    pairs = language_model("llama", 1, ("tokenizer.chat_template", "string", jinja))
    digest = await upload(store, write_gguf(tmp_path / "m.gguf", pairs=pairs))
    progress = await make(store, "a", files={"m.gguf": digest})
    model = store.get(ModelName.parse("a"))
    assert progress[:4] == [
        "parsing GGUF",
        "verifying conversion",
        f"using existing layer {digest}",
        f"using autodetected template {name}",
    ]
    assert progress[4] == f"using existing layer {model.manifest.layers[2].digest}"
    assert layers(store, "a") == [("model", ""), ("template", ""), ("params", "")]
    assert model.template == (ROOT / f"ollama_compat/data/templates/{name}.gotmpl").read_text()
    assert sorted(model.params["stop"]) == sorted(stop)
    assert list(model.params) == ["stop"]
    # a template of one's own takes its place, parameters add to its own
    await make(store, "b", files={"m.gguf": digest}, template="{{ .Prompt }}", parameters={"seed": 1})
    assert store.get(ModelName.parse("b")).template == "{{ .Prompt }}"
    assert store.get(ModelName.parse("b")).params.keys() == {"stop", "seed"}
    assert_sound(store)


async def test_a_split_model_becomes_one_file(store: Store, tmp_path: Path) -> None:
    files = {path.name: await upload(store, path) for path in split_model(tmp_path)}
    assert len(files) == 3
    progress = await make(store, "sp", files=files)
    assert progress[:4] == ["parsing GGUF"] * 3 + ["verifying conversion"]
    model = store.get(ModelName.parse("sp"))
    assert len(model.manifest.layers) == 1
    joined = gguf.GGUFReader(model.model_path)
    for i, tensor in enumerate(joined.tensors):
        assert (tensor.name, tensor.data.shape, np.unique(tensor.data).tolist()) == (f"blk.{i}.x.weight", (3, 5), [i])
    assert not [key for key in joined.fields if "split" in key]
    assert describe(store, "sp", verbose=True)["model_info"]["general.tags"] == [True, False]
    assert_sound(store)


async def test_a_split_model_has_to_be_whole(store: Store, tmp_path: Path) -> None:
    first, second, third = [(path.name, await upload(store, path)) for path in split_model(tmp_path)]
    assert await refused(store, files=dict((first, third))) == (
        500,
        'split GGUF "sp-00001-of-00003.gguf" has 2 shards, expected 3',
    )
    assert await refused(store, files={"a.gguf": first[1]}) == (
        500,
        'split GGUF "a.gguf" must use llama.cpp split filename pattern',
    )
    assert await refused(store, files={"sp-00002-of-00003.gguf": first[1]}) == (
        500,
        'split GGUF "sp-00002-of-00003.gguf" filename index 1 does not match metadata index 0',
    )
    assert await refused(store, files={"sp-00001-of-00004.gguf": first[1]}) == (
        500,
        'split GGUF "sp-00001-of-00004.gguf" filename count 4 does not match metadata count 3',
    )
    files = {f"a/{first[0]}": first[1], f"b/{first[0]}": first[1], third[0]: third[1]}
    assert (await refused(store, files=files))[0] == 500
    assert second[0] == "sp-00002-of-00003.gguf"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, 400, "neither 'from' or 'files' was specified"),
        ({"files": {}}, 400, "unknown type"),
        ({"files": {"/m.gguf": MISSING}}, 400, "file path must be relative"),
        ({"files": {"../m.gguf": MISSING}}, 400, "file path must be relative"),
        ({"files": {"a//b": MISSING}}, 400, "file path must be relative"),
        ({"files": {"": MISSING}}, 400, "file path must be relative"),
        ({"files": {"m.gguf": ""}}, 400, "invalid digest format"),
        ({"files": {"m.gguf": "sha256:zz"}}, 500, "invalid digest format"),
        ({"files": {"m.bin": "sha256:zz"}}, 400, "unknown type"),
        ({"files": {"m.safetensors": MISSING}}, 500, "open config.json: no such file or directory"),
        ({"from_": "a b"}, 400, "invalid model name"),
        ({"from_": "x:local:cloud"}, 400, "invalid model name"),
        ({"from_": "nope"}, 500, None),
        ({"from_": "plain", "adapters": {"a.gguf": ""}}, 400, "invalid digest format"),
        ({"from_": "plain", "adapters": {"a.gguf": MISSING, "b.gguf": MISSING}}, 400, "only one adapter is currently supported"),
        ({"from_": "plain", "draft_quantize": "q8_0"}, 400, "--draft-quantize requires a DRAFT model"),
        ({"from_": "x", "remote_host": "h", "draft_files": {"d": MISSING}}, 400, "DRAFT cannot be used with remote models"),
        ({"from_": "plain", "template": "{{ if }}"}, 400, "template error: template: :1: missing value for if"),
        ({"from_": "plain", "license": 5}, 500, "json: cannot unmarshal number into Go value of type []string"),
        ({"from_": "plain", "license": ["a", {}]}, 500, "json: cannot unmarshal object into Go value of type string"),
        (
            {"from_": "plain", "quantize": "q9_9"},
            500,
            "unsupported quantization type Q9_9 - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0",
        ),
        (
            {"from_": "plain", "quantize": "q5_0"},
            500,
            "unsupported quantization type Q5_0 - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0",
        ),
        ({"model": "", "from_": "plain"}, 400, "invalid model name"),
        ({"model": "a b", "from_": "plain"}, 400, "invalid model name"),
    ],
)
async def test_errors_in_ollamas_words(
    store: Store, plain: str, fields: dict[str, Any], status: int, message: str | None
) -> None:
    got = await refused(store, **fields)
    assert got[0] == status
    assert message is None or got[1] == message


async def test_files_that_are_no_models(store: Store, plain: str, tmp_path: Path) -> None:
    cases = {
        "text": (b"hello, not a model\n", 400, "supplied file was not in GGUF format"),
        "cut": (b"GGUF\3\0\0\0", 500, "EOF"),
        "old": (b"GGUF\1\0\0\0" + bytes(64), 500, None),
    }
    for name, (data, status, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        digest = await upload(store, tmp_path / name)
        got = await refused(store, files={f"{name}.gguf": digest})
        assert got[0] == status
        assert message is None or got[1] == message
        # as an adapter the same file is the client's fault
        assert (await refused(store, from_="plain", adapters={f"{name}.gguf": digest}))[0] == 400
    assert (await refused(store, files={"m.gguf": MISSING}))[1].endswith(": no such file or directory")


async def test_no_quantisation_where_the_type_is_right(store: Store, plain: str) -> None:
    await make(store, "a", from_="plain", quantize="f16")
    assert store.get(ModelName.parse("a")).config.file_type == "F16"


async def test_a_quantised_model_is_not_quantised_again(store: Store, tmp_path: Path) -> None:
    digest = await upload(store, write_gguf(tmp_path / "q.gguf", pairs=language_model("llama", 15)))
    message = "quantization is only supported for F16, BF16 and F32 models"
    assert await refused(store, files={"q.gguf": digest}, quantize="q8_0") == (500, message)


async def test_a_damaged_base_is_told_and_kept(store: Store, plain: str) -> None:
    store.blob_path(plain).write_bytes(b"GGUF\3\0\0\0")
    damaged = f"the file of {plain} is damaged; pull or create its model again"
    assert await refused(store, from_="plain") == (500, damaged)
    store.blob_path(plain).unlink()
    status, message = await refused(store, from_="plain")
    assert status == 500
    assert message.endswith("no such file or directory")
    assert store.resolve(ModelName.parse("plain"))


def test_a_request_is_checked_before_anything_is_done() -> None:
    from ollama_compat.store.create import check

    with pytest.raises(ApiError, match="invalid model name"):
        check(CreateRequest(name="a b", files={"m.gguf": MISSING}))
    assert check(CreateRequest(name="a")) == ModelName.parse("a")
