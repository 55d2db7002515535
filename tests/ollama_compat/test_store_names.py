"""Names of models, against Ollama's rules."""

from __future__ import annotations

import pytest

from ollama_compat.errors import ApiError
from ollama_compat.store.names import InvalidName, ModelName, ModelRef, Source

LONG = "a" * 80


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("m", "registry.ollama.ai/library/m:latest", "m:latest"),
        ("m:t", "registry.ollama.ai/library/m:t", "m:t"),
        ("ns/m", "registry.ollama.ai/ns/m:latest", "ns/m:latest"),
        ("library/m:7b", "registry.ollama.ai/library/m:7b", "m:7b"),
        ("LIBRARY/m", "registry.ollama.ai/LIBRARY/m:latest", "m:latest"),
        ("host/ns/m:t", "host/ns/m:t", "host/ns/m:t"),
        ("host/library/m", "host/library/m:latest", "host/library/m:latest"),
        ("host:5000/ns/m", "host:5000/ns/m:latest", "host:5000/ns/m:latest"),
        ("Registry.Ollama.AI/library/M:T", "Registry.Ollama.AI/library/M:T", "M:T"),
        ("https://host/ns/m", "host/ns/m:latest", "host/ns/m:latest"),
        ("hf.co/user/Repo-1.5_x-GGUF:Q4_K_M", "hf.co/user/Repo-1.5_x-GGUF:Q4_K_M", "hf.co/user/Repo-1.5_x-GGUF:Q4_K_M"),
        ("_m", "registry.ollama.ai/library/_m:latest", "_m:latest"),
        ("0.5b-model..x", "registry.ollama.ai/library/0.5b-model..x:latest", "0.5b-model..x:latest"),
        (LONG, f"registry.ollama.ai/library/{LONG}:latest", f"{LONG}:latest"),
        (f"{'h' * 350}/{LONG}/{LONG}:{LONG}", f"{'h' * 350}/{LONG}/{LONG}:{LONG}", f"{'h' * 350}/{LONG}/{LONG}:{LONG}"),
    ],
)
def test_a_name_is_read_and_shown(text: str, full: str, short: str) -> None:
    name = ModelName.parse(text)
    assert name.full() == full
    assert name.short() == short
    assert ModelName.parse(full) == name


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "m:", ":t", "/m", "m/", "ns//m", "//m", "a/b/c/d/e", "host//m", "/ns/m",
        "-m", ".m", "m:.t", "m:-t", "n.s/m", "-ns/m", "a b", "m\n", "m\0", "modèle", "m:t:u", "m@sha256:abc",
        f"{LONG}a", f"m:{LONG}a", f"{LONG}a/m", f"{'h' * 351}/ns/m",
        "..", "../m", "../../etc/passwd", "ns/..", "host/../m", "..:t", "m:..", "./m", "http://m", "https://ns/m",
        "a\\b", "m:t/u", "host/n:s/m", "~/m", "%2e%2e/m",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as error:
        ModelName.parse(text)
    assert (error.value.status, error.value.message) == (400, "invalid model name")


def test_names_that_differ_in_case_mean_the_same_model() -> None:
    assert ModelName.parse("Ns/Model:Tag").same(ModelName.parse("nS/mODEL:tAG"))
    assert not ModelName.parse("ns/model:a").same(ModelName.parse("ns/model:b"))


def test_the_scheme_does_not_tell_names_apart() -> None:
    plain = ModelName.parse("http://host/ns/m")
    assert plain.scheme == "http"
    assert plain == ModelName.parse("host/ns/m")


@pytest.mark.parametrize(
    ("text", "base", "source", "stored"),
    [
        (" m ", "m", Source.ANY, "m:latest"),
        ("m:local", "m", Source.LOCAL, "m:latest"),
        ("m:t:LOCAL", "m:t", Source.LOCAL, "m:t"),
        ("m:cloud", "m", Source.CLOUD, "m:cloud"),
        ("m:20b-cloud", "m:20b", Source.CLOUD, "m:20b-cloud"),
        ("m:20b:Cloud", "m:20b", Source.CLOUD, "m:20b-cloud"),
        ("host:5000/ns/cloud", "host:5000/ns/cloud", Source.ANY, "host:5000/ns/cloud:latest"),
        ("my-cloud", "my-cloud", Source.ANY, "my-cloud:latest"),
    ],
)
def test_a_suffix_says_where_a_model_runs(text: str, base: str, source: Source, stored: str) -> None:
    ref = ModelRef.parse(text)
    assert (ref.base, ref.source, ref.stored_name.short()) == (base, source, stored)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model is required"),
        ("  ", "model is required"),
        ("x:local:cloud", 'use either :local or :cloud, not both: "x:local:cloud"'),
        ("x:b-cloud:local", 'use either :local or :cloud, not both: "x:b-cloud:local"'),
        ("a b", "invalid model name"),
        (":cloud", "invalid model name"),
    ],
)
def test_a_bad_reference_is_told_in_ollamas_words(text: str, message: str) -> None:
    with pytest.raises(ApiError) as error:
        ModelRef.parse(text)
    assert (error.value.status, error.value.message) == (400, message)
