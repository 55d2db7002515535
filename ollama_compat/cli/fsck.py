"""fsck: looks through the store of this machine for damage. No server is needed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_compat.cli import human
from ollama_compat.cli.command import Call
from ollama_compat.cli.errors import CommandError
from ollama_compat.cli.json_output import print_json
from ollama_compat.keys import KeyFileError

if TYPE_CHECKING:
    from ollama_compat.store.fsck import Check, Finding


def fsck(call: Call) -> None:
    """`fsck [--quick] [--json]`: one line for each finding, or an object with all; status 1 when anything is damaged."""
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
    found = _listed(check, settings.models) if call.flags.on("json") else _told(check, settings.models)
    damages = sum(finding.is_damage for finding in found)
    if damages:
        raise CommandError(f"{damages} {'damage' if damages == 1 else 'damages'} found; pull or create those models again")


def _told(check: Check, folder: Path) -> list[Finding]:
    found = []
    for finding in check.run():
        found.append(finding)
        print(f"{'damaged' if finding.is_damage else 'unused'}: {finding.where}: {finding.what}", flush=True)
    report = check.report
    print(f"checked {report.models} models and {report.blobs} blobs, {human.size(report.size)}, in {folder}")
    return found


def _listed(check: Check, folder: Path) -> list[Finding]:
    found = list(check.run())
    findings = [{"where": finding.where, "what": finding.what, "damage": finding.is_damage} for finding in found]
    print_json({"store": str(folder), **dataclasses.asdict(check.report), "findings": findings})
    return found
