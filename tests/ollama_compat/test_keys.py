from __future__ import annotations

from pathlib import Path

import pytest

from ollama_compat import keys
from ollama_compat.settings import Settings


def test_from_a_list_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\nthree\n\n  four  \n")
    environ = {"MOELLAMA_API_KEYS": "one, two,", "MOELLAMA_API_KEY_FILE": str(file)}
    assert Settings.from_env(environ).api_keys == ("one", "two", "three", "four")
    assert Settings.from_env({}).api_keys == ()


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_a_file_without_keys_does_not_leave_the_server_open(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    with pytest.raises(keys.KeyFileError, match="MOELLAMA_API_KEY_FILE"):
        Settings.from_env({"MOELLAMA_API_KEY_FILE": str(file)})


@pytest.mark.parametrize("given", ["on", "onee", "One", "", "öne", "\udcff"])
def test_only_the_key_itself_fits(given: str) -> None:
    assert not keys.allowed("/api/tags", {"Authorization": f"Bearer {given}"}, ["one", "two"])
