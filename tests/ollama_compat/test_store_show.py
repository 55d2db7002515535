"""POST /api/show and the entries of /api/tags without HTTP, against answers of Ollama 0.33."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from store_files import TOKENS, describe, language_model, make, upload, write_gguf

from ollama_compat.errors import ApiError
from ollama_compat.schema import ShowRequest
from ollama_compat.store import Store
from ollama_compat.store.header import human_number
from ollama_compat.store.names import ModelName
from ollama_compat.store.show import show

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "ollama_compat/data/demo-moe-Q4_K_M.gguf"
RECORDED = json.loads((ROOT / "tests/fixtures/ollama/demo-moe.json").read_text())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
async def recorded(store: Store) -> Store:
    """With the two models that the answers were recorded from."""
    await make(store, "base", files={"demo.gguf": await upload(store, DEMO)})
    fields = {key: value for key, value in RECORDED["create_derived"].items() if key not in ("model", "from")}
    await make(store, "derived", from_="base", **fields)
    return store


async def small(store: Store, tmp_path: Path, name: str = "m", *arguments: Any, **fields: Any) -> Store:
    """With one small model."""
    digest = await upload(store, write_gguf(tmp_path / f"{name}.gguf", *arguments))
    await make(store, name, files={f"{name}.gguf": digest}, **fields)
    return store


def comparable(answer: dict[str, Any], store: Store) -> dict[str, Any]:
    """Without the time and this store's path; lines that Ollama prints in random order are sorted."""
    text = json.dumps({key: value for key, value in answer.items() if key != "modified_at"})
    answer = json.loads(text.replace(str(store.blobs.folder), "BLOBS"))
    sort = [key for key in ("modelfile", "parameters") if key in answer]
    return answer | {key: sorted(answer[key].splitlines()) for key in sort}


# ---------------------------------------------------------------- as recorded


def test_a_model_from_a_file_is_shown_as_by_ollama(recorded: Store) -> None:
    answer = describe(recorded, "base")
    expected = dict(RECORDED["show_base"])
    expected["tensors"] = [dict(zip(("name", "type", "shape"), row, strict=True)) for row in expected["tensors"]]
    assert comparable(answer, recorded) == comparable(expected, recorded)
    assert [key for key in answer if key != "modified_at"] == list(expected)
    assert list(answer["model_info"]) == list(expected["model_info"])


def test_a_model_with_every_layer_is_shown_as_by_ollama(recorded: Store) -> None:
    answer = describe(recorded, "derived")
    assert list(answer) == [
        "license", "modelfile", "parameters", "template", "system", "details", "messages", "model_info", "tensors",
        "capabilities", "modified_at",
    ]  # fmt: skip
    texts = {key: value for key, value in answer.items() if key not in ("model_info", "tensors")}
    assert comparable(texts, recorded) == comparable(RECORDED["show_derived"], recorded)


def test_models_are_listed_as_by_ollama(recorded: Store) -> None:
    entries = {model.name.short(): model.list_entry("T") for model in recorded.list()}
    for expected in RECORDED["tags"]:
        entry = entries[expected["name"]]
        assert {key: value for key, value in entry.items() if key not in ("modified_at", "digest")} == expected
        keys = ["name", "model", "modified_at", "size", "digest", "details", "capabilities"]
        assert list(entry) == keys


# ---------------------------------------------------------------- metadata


async def test_metadata_of_every_type(store: Store, tmp_path: Path) -> None:
    pairs = [
        ("general.name", "string", "hidden"),
        ("general.parameter_count", "uint64", 5),
        ("x.f32", "float32", 0.1),
        ("x.f32_whole", "float32", 1e6),
        ("x.f32_tiny", "float32", 1e-30),
        ("x.f32_long", "float32", 0.123456789),
        ("x.f64", "float64", 0.1),
        ("x.neg", "int64", -5),
        ("x.big", "uint64", 2**63 + 5),
        ("x.bool", "bool", True),
        ("x.floats", "array", [0.1, 2.0]),
        ("x.bools", "array", [True, False]),
        *TOKENS,
        ("tokenizer.chat_template", "string", "hidden"),
    ]
    await small(store, tmp_path, "m", "llama", pairs)
    info = describe(store, "m", verbose=True)["model_info"]
    assert info == {
        "general.architecture": "llama",
        "general.parameter_count": 192,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.token_type": [1, 1],
        "tokenizer.ggml.tokens": ["a", "b"],
        "x.big": 2**63 + 5,
        "x.bool": True,
        "x.bools": [True, False],
        "x.f32": 0.1,
        "x.f32_long": 0.12345679,
        "x.f32_tiny": 1e-30,
        "x.f32_whole": 1000000,
        "x.f64": 0.1,
        "x.floats": [0.1, 2],
        "x.neg": -5,
    }
    assert list(info) == sorted(info)
    assert all(type(value) is not float for value in (info["x.f32_whole"], info["x.floats"][1]))
    brief = describe(store, "m")["model_info"]
    assert brief["x.bools"] is None
    assert brief["tokenizer.ggml.tokens"] is None


async def test_an_array_of_bytes_is_base64(store: Store, tmp_path: Path) -> None:
    await small(store, tmp_path, "m", "llama", [("x.map", "array", b"\1\2\3"), *TOKENS])
    assert describe(store, "m", verbose=True)["model_info"]["x.map"] == "AQID"


async def test_a_projector_has_metadata_of_its_own(store: Store, tmp_path: Path) -> None:
    eyes = write_gguf(tmp_path / "eyes.gguf", "clip", [("general.type", "string", "mmproj"), ("clip.x", "uint32", 3)])
    await small(store, tmp_path)
    files = {"m.gguf": store.get(ModelName.parse("m")).manifest.layers[0].digest, "e.gguf": await upload(store, eyes)}
    await make(store, "both", files=files)
    answer = describe(store, "both")
    assert answer["projector_info"] == {
        "clip.x": 3,
        "general.architecture": "clip",
        "general.parameter_count": 192,
        "general.type": "mmproj",
    }
    paths = store.get(ModelName.parse("both")).projector_paths
    assert f"FROM {paths[0]}\n" in answer["modelfile"]


@pytest.mark.parametrize(
    ("file_type", "shown", "listed"),
    [(0, "unknown", "F32"), (1, "F16", "F16"), (32, "BF16", "BF16"), (38, "MXFP4_MOE", "MXFP4_MOE"), (99, "unknown", "unknown")],
)
async def test_the_name_of_a_quantisation(store: Store, tmp_path: Path, file_type: int, shown: str, listed: str) -> None:
    """Ollama's lists know F32 where the rest of it takes type 0 for none."""
    await small(store, tmp_path, "m", "llama", language_model("llama", file_type))
    assert describe(store, "m")["details"]["quantization_level"] == shown
    assert store.list()[0].list_entry("T")["details"]["quantization_level"] == listed


async def test_lists_stop_at_the_tokenizer(store: Store, tmp_path: Path) -> None:
    await small(store, tmp_path, "m", "llama", [*TOKENS, ("llama.context_length", "uint32", 5)])
    assert "context_length" not in store.list()[0].list_entry("T")["details"]
    await small(store, tmp_path, "n", "llama", [("llama.context_length", "uint32", 5), *TOKENS])
    assert store.get(ModelName.parse("n")).list_entry("T")["details"]["context_length"] == 5


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1K"), (292800, "293K"), (999_999, "1000K"), (1_000_000, "1M"), (21131264, "21.13M"),
        (20_600_000, "20.60M"), (7_000_000_000, "7B"), (30_532_122_624, "30.5B"), (116_829_156_672, "116.8B"),
    ],
)  # fmt: skip
def test_parameters_are_counted_for_people(number: int, text: str) -> None:
    assert human_number(number) == text


# ---------------------------------------------------------------- the Modelfile


async def test_texts_are_quoted_where_they_have_to_be(store: Store, tmp_path: Path) -> None:
    await small(store, tmp_path)
    messages = [{"role": "user", "content": "a: b"}, {"role": "assistant", "content": 'x "y"\nz'}]
    await make(store, "q", from_="m", system=" s ", template='{{ .Prompt }}\n"', messages=messages, license="two\nlines")
    await make(
        store,
        "q",
        from_="q",
        adapters={"a": await upload(store, write_gguf(tmp_path / "l", pairs=[("general.type", "string", "adapter")]))},
    )
    model = store.get(ModelName.parse("q"))
    assert describe(store, "q")["modelfile"] == (
        '# Modelfile generated by "ollama show"\n# To build a new Modelfile based on this, replace FROM with:\n'
        "# FROM q:latest\n\n"
        f"FROM {model.model_path}\nADAPTER {model.adapter_paths[0]}\n"
        'TEMPLATE """{{ .Prompt }}\n""""\nSYSTEM " s "\nLICENSE "two\nlines"\nMESSAGE user a: b\n'
        'MESSAGE assistant """x "y"\nz"""\n'
    )


async def test_the_request_may_change_what_is_shown(store: Store, tmp_path: Path) -> None:
    await small(store, tmp_path, system="own", parameters={"seed": 1})
    answer = describe(store, "m", system="other", options={"num_ctx": 64}, template="ignored")
    assert answer["system"] == "other"
    assert "SYSTEM other\nPARAMETER num_ctx 64\nPARAMETER seed 1\n" in answer["modelfile"]
    assert answer["parameters"] == "seed                           1"
    assert answer["template"] == "{{ .Prompt }}"


async def test_copilot_gets_the_name_that_it_asked_for(store: Store, tmp_path: Path) -> None:
    await small(store, tmp_path)
    answer = show(store, ShowRequest(name=" M:latest"), "GitHubCopilotChat/0.30")
    assert answer["model_info"]["general.basename"] == " M:latest"


# ---------------------------------------------------------------- names


async def test_the_older_field_and_any_case_will_do(store: Store, tmp_path: Path) -> None:
    await small(store, tmp_path)
    assert "# FROM m:latest\n" in show(store, ShowRequest(name="M"))["modelfile"]
    assert "# FROM m:latest\n" in show(store, ShowRequest(model="m:local", name="nope"))["modelfile"]


@pytest.mark.parametrize(
    ("model", "status", "message"),
    [
        ("", 400, "model is required"),
        (" ", 400, "model is required"),
        ("a b", 400, "invalid model name"),
        ("x:local:cloud", 400, 'use either :local or :cloud, not both: "x:local:cloud"'),
        ("nope", 404, "model 'nope:latest' not found"),
        ("USER/other", 404, "model 'User/other:latest' not found"),
        ("x:cloud", 403, "ollama cloud is disabled: remote model details are unavailable"),
        ("stub", 403, "ollama cloud is disabled: remote model details are unavailable"),
    ],
)
async def test_what_cannot_be_shown(store: Store, model: str, status: int, message: str) -> None:
    await make(store, "User/stub", from_="x", remote_host="h")
    store.copy(ModelName.parse("user/stub"), ModelName.parse("stub"))
    with pytest.raises(ApiError) as error:
        describe(store, model)
    assert (error.value.status, error.value.message) == (status, message)


async def test_a_damaged_file_is_an_error_and_no_crash(store: Store, tmp_path: Path) -> None:
    await small(store, tmp_path)
    path = store.get(ModelName.parse("m")).model_path
    assert path is not None
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ApiError) as error:
        describe(store, "m")
    assert error.value.status == 500
    path.unlink()
    with pytest.raises(ApiError, match="a blob of m:latest is missing"):
        describe(store, "m")
