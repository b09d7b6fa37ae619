"""`bullring host`: does this host suit an exchange? It looks and reports; `--apply` sets the kernel settings, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.arguments import command_parser, config_of, emit, progress
from scripts.exit_codes import CommandError, ExitCode
from scripts.host.checks import Finding, Host, look

SETTINGS = Path(__file__).with_name("90-bullring.conf")


def settings() -> dict[str, str]:
    """Return the kernel settings that are wanted, by name."""
    lines = (line.partition("=") for line in SETTINGS.read_text().splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in lines if equals}


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("host", "Check this host: clock, memory, cores, limits, disk, kernel settings.")
    parser.add_argument("--apply", action="store_true", help="set the kernel settings, until the next boot")
    options = parser.parse_args(arguments)
    config = config_of(options)
    host = Host(Path("/"))
    if options.apply:
        _apply(host)
    findings = look(host, config, settings())
    emit([_row(finding) for finding in findings], as_json=options.json)
    bad = sum(finding.verdict == "no" for finding in findings)
    if not options.json:
        progress(f"{bad} of {len(findings)} are not as they should be" if bad else "all as it should be")
    return ExitCode.NEGATIVE if bad else ExitCode.OK


def _row(finding: Finding) -> dict[str, str]:
    return {"check": finding.name, "ok": finding.verdict, "found": finding.found, "wanted": finding.wanted}


def _apply(host: Host) -> None:
    for name, value in settings().items():
        path = host.setting_path(name)
        if not path.exists() or path.read_text().strip() == value:
            continue
        try:
            path.write_text(value)
        except OSError as error:
            raise CommandError(f"cannot set {name} = {value}: {error.strerror}", ExitCode.NO_PERMISSION) from error
        progress(f"{name} = {value}")
