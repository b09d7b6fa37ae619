"""`bullring dissector`: install the Wireshark dissector of our protocols, or say where it would go."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scripts.arguments import command_parser, emit_one
from scripts.exit_codes import CommandError, ExitCode

SOURCE = Path(__file__).resolve().parents[1] / "docs" / "bullring.lua"
LABEL = "Personal Lua Plugins:"
USUAL_FOLDER = Path("~/.local/lib/wireshark/plugins")


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("dissector", "Install docs/bullring.lua where Wireshark and tshark look for it.")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="default: the personal plugin folder tshark names")
    options = parser.parse_args(arguments)
    folder = (options.folder or plugin_folder()).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SOURCE, folder / SOURCE.name)
    except OSError as error:
        raise CommandError(f"cannot write {folder}: {error.strerror}", ExitCode.CANNOT_CREATE) from error
    note = "run as another user: Wireshark loads no plugins for root" if os.geteuid() == 0 else ""
    emit_one({"installed": str(folder / SOURCE.name), **({"note": note} if note else {})}, as_json=options.json)
    return ExitCode.OK


def plugin_folder() -> Path:
    """Return the folder that tshark names, or the usual one where there is no tshark."""
    tshark = shutil.which("tshark")
    if tshark is None:
        return USUAL_FOLDER
    told = subprocess.run([tshark, "-G", "folders"], capture_output=True, text=True, check=False).stdout
    for line in told.splitlines():
        if line.startswith(LABEL):
            return Path(line.removeprefix(LABEL).strip())
    return USUAL_FOLDER
