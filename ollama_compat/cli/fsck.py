"""fsck: looks through the store of this machine for damage. No server is needed."""

from __future__ import annotations

import os

from ollama_compat.cli import human
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.keys import KeyFileError


def fsck(call: Call) -> None:
    """`fsck [--quick]`: one line for each finding; status 1 when anything is damaged."""
    from ollama_compat.settings import Settings
    from ollama_compat.store import Store  # takes long to import, and no other command needs it
    from ollama_compat.store.fsck import Check

    try:
        settings = Settings.from_env(os.environ)
    except KeyFileError as error:
        raise CommandError(str(error)) from error
    if not settings.models.is_dir():
        raise CommandError(f"there is no store in {settings.models}")
    check = Check(Store(settings.models), quick=call.flags.on("quick"))
    damages = 0
    for finding in check.run():
        damages += finding.is_damage
        print(f"{'damaged' if finding.is_damage else 'unused'}: {finding.where}: {finding.what}", flush=True)
    report = check.report
    print(f"checked {report.models} models and {report.blobs} blobs, {human.size(report.size)}, in {settings.models}")
    if damages:
        raise CommandError(f"{damages} {'damage' if damages == 1 else 'damages'} found; pull or create those models again")
