from __future__ import annotations

import math
from pathlib import Path

import pytest

from ollama_compat.settings import Address, Settings, address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Address("http", "127.0.0.1", 11434)),
        ("1.2.3.4", Address("http", "1.2.3.4", 11434)),
        (":1234", Address("http", "", 1234)),
        ("1.2.3.4:1234", Address("http", "1.2.3.4", 1234)),
        ("http://1.2.3.4", Address("http", "1.2.3.4", 80)),
        ("https://1.2.3.4", Address("https", "1.2.3.4", 443)),
        ("https://1.2.3.4:1234", Address("https", "1.2.3.4", 1234)),
        ("example.com", Address("http", "example.com", 11434)),
        ("http://example.com:80/base/path", Address("http", "example.com", 80, "base/path")),
        ("ollama.com", Address("https", "ollama.com", 443)),
        ("[::1]", Address("http", "::1", 11434)),
        ("[::]:1337", Address("http", "::", 1337)),
        ("::1", Address("http", "::1", 11434)),
        ("1.2.3.4:65536", Address("http", "1.2.3.4", 11434)),
        ("1.2.3.4:-1", Address("http", "1.2.3.4", 11434)),
        ("http://1.2.3.4:x", Address("http", "1.2.3.4", 80)),
        ("0.0.0.0:0", Address("http", "0.0.0.0", 0)),
    ],
)
def test_host(text: str, expected: Address) -> None:
    assert address(text, []) == expected


def test_url_of_an_address() -> None:
    assert Address("https", "::1", 1, "p").url == "https://[::1]:1/p"


def test_values_are_trimmed_of_spaces_and_quotes() -> None:
    settings = Settings.from_env({"OLLAMA_HOST": " \"'1.2.3.4:5'\" ", "OLLAMA_MODELS": "'/m'"})
    assert settings.address == Address("http", "1.2.3.4", 5)
    assert settings.models == Path("/m")


def test_the_store_is_in_the_home_directory(tmp_path: Path) -> None:
    assert Settings.from_env({"HOME": str(tmp_path)}).models == tmp_path / ".ollama" / "models"


@pytest.mark.parametrize(
    ("text", "keep_alive", "load_timeout"),
    [
        ("", 300, 300),
        ("1s", 1, 1),
        ("1m30s", 90, 90),
        ("60", 60, 60),
        ("-1", math.inf, math.inf),
        ("-1s", math.inf, math.inf),
        ("0", 0, math.inf),
        ("0s", 0, math.inf),
        ("nonsense", 300, 300),
        ("1.5h", 5400, 5400),
    ],
)
def test_durations(text: str, keep_alive: float, load_timeout: float) -> None:
    settings = Settings.from_env({"OLLAMA_KEEP_ALIVE": text, "OLLAMA_LOAD_TIMEOUT": text})
    assert (settings.keep_alive, settings.load_timeout) == (keep_alive, load_timeout)


@pytest.mark.parametrize(
    ("text", "value"), [("", 512), ("1", 1), ("0", 0), ("-1", 512), ("x", 512), ("1.5", 512), ("9" * 5000, 512)]
)
def test_counts(text: str, value: int) -> None:
    assert Settings.from_env({"OLLAMA_MAX_QUEUE": text}).max_queue == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("", False), ("1", True), ("true", True), ("0", False), ("false", False), ("F", False), ("yes", True), ("no", True)],
)
def test_flags_are_true_unless_they_say_false(text: str, value: bool) -> None:
    assert Settings.from_env({"OLLAMA_NOPRUNE": text}).no_prune is value


@pytest.mark.parametrize(("text", "value"), [("", None), ("1", True), ("0", False), ("false", False), ("x", True)])
def test_go_template_has_a_third_state(text: str, value: bool | None) -> None:
    assert Settings.from_env({"OLLAMA_GO_TEMPLATE": text}).go_template is value


@pytest.mark.parametrize(("text", "value"), [("", 0), ("0", 0), ("1", 1), ("true", 1), ("2", 2), ("x", 0)])
def test_debug(text: str, value: int) -> None:
    assert Settings.from_env({"OLLAMA_DEBUG": text}).debug == value


def test_origins_add_to_the_local_ones() -> None:
    origins = Settings.from_env({"OLLAMA_ORIGINS": "https://a.example, chrome-extension://*"}).origins
    assert origins[:2] == ("https://a.example", "chrome-extension://*")
    assert {"http://localhost", "https://127.0.0.1:*", "app://*"} < set(origins)


@pytest.mark.parametrize(
    ("env", "config", "source"),
    [
        ("", "{}", "none"),
        ("1", "{}", "env"),
        ("", '{"disable_ollama_cloud":true}', "config"),
        ("1", '{"disable_ollama_cloud":true}', "both"),
        ("", "not json", "none"),
        ("", "[]", "none"),
    ],
)
def test_who_turned_the_cloud_off(tmp_path: Path, env: str, config: str, source: str) -> None:
    (tmp_path / ".ollama").mkdir()
    (tmp_path / ".ollama" / "server.json").write_text(config)
    assert Settings.from_env({"HOME": str(tmp_path), "OLLAMA_NO_CLOUD": env}).cloud_source == source


@pytest.mark.parametrize(
    ("text", "kept"),
    [("", "f16"), ("f16", "f16"), (" 'Q8_0' ", "q8_0"), ("q4_0", "q4_0"), ("bf16", "f16"), ("Q5_1", "q8_0"), ("q8", "f16")],
)
def test_type_of_keys_and_values(text: str, kept: str) -> None:
    assert Settings.from_env({"OLLAMA_KV_CACHE_TYPE": text}).kv_cache_type == kept


def test_what_is_not_taken_as_it_stands_is_told() -> None:
    told = {"OLLAMA_KV_CACHE_TYPE": "q5_x", "OLLAMA_HOST": ":99999", "OLLAMA_MAX_QUEUE": "-1", "OLLAMA_NUM_PARALLEL": "2"}
    assert Settings.from_env(told).warnings == (
        "invalid port, using default: 99999, default 11434",
        "invalid environment variable, using default: OLLAMA_MAX_QUEUE=-1, default 512",
        "no such type of keys and values: OLLAMA_KV_CACHE_TYPE=q5_x; they are kept in f16",
    )
    assert Settings.from_env({"OLLAMA_KV_CACHE_TYPE": "Q8_0"}).warnings == ()
