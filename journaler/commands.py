"""`bullring journal`: verify, show and export, which change nothing; repair, trim, consumer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from journaler.archiving import DirectoryArchive
from journaler.cursors import read_cursors, remove_cursor
from journaler.errors import JournalError, JournalLocked
from journaler.export import log_rows, report_rows, write_csv, write_parquet
from journaler.inspect import one_line, records, verify
from journaler.reader import LogReader
from journaler.repair import Repair, cut_end, from_peer
from journaler.retention import SnapshotIndex, retain
from journaler.segments import list_segments

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_BUSY = 75
CONFIRM = "nothing was changed; the same with --yes does it"

Options = argparse.Namespace
Snapshots = Callable[[Path], SnapshotIndex]


def run(arguments: list[str], *, snapshots: Snapshots) -> int:
    """Run `bullring journal ARGUMENTS`; returns the exit code: 0 good, 1 refused, 2 wrong arguments, 75 in use.

    `snapshots` returns the index of the snapshots that belong to a journal's folder.
    """
    try:
        options = _parser(snapshots).parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    if not options.directory.is_dir():
        print(f"{options.directory} is not a directory", file=sys.stderr)
        return EXIT_USAGE
    fault = _fault(options)
    if fault:
        print(fault, file=sys.stderr)
        return EXIT_USAGE
    try:
        return int(options.action(options))
    except JournalLocked as error:
        return _refused(options, error, EXIT_BUSY)
    except (JournalError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()  # somebody read enough: `show DIR | head`
            return EXIT_OK
        if isinstance(error, OSError) and error.filename is not None:
            return _refused(options, f"{error.filename}: {error.strerror}", EXIT_REFUSED)
        return _refused(options, error, EXIT_REFUSED)


def _fault(options: Options) -> str:
    """Return what is wrong with the arguments of a command that reads a journal; empty: nothing."""
    if options.action in (_repair, _consumer):
        return ""  # a journal that has lost all its files can be repaired
    if not list_segments(options.directory):
        inner = options.directory / "journal"
        there = f"; did you mean {inner}?" if inner.is_dir() and list_segments(inner) else ""
        return f"{options.directory} holds no journal: there is no segment-*.log{there}"
    start, limit = getattr(options, "start", None), getattr(options, "limit", None)
    if start is not None and start < 0:
        return f"--from {start}: must be 0 or more"
    if limit is not None and limit <= (start or 0):
        return f"--to {limit}: must be above --from, which is {start or 0}"
    return ""


def _refused(options: Options, error: Exception | str, code: int) -> int:
    if options.json:
        print(json.dumps({"verdict": "refused", "reason": str(error)}))
    print(f"REFUSED: {error}", file=sys.stderr)
    return code


def _parser(snapshots: Snapshots) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bullring journal", description="Look at a journal, repair it, trim it.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, action: Callable[[Options], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("directory", type=Path, metavar="DIR")
        added.add_argument("--json", action="store_true")
        added.set_defaults(action=action)
        return added

    check = command("verify", _verify, "check every batch, the audit chain, and that what was synced is there")
    check.add_argument("--direct", action="store_true", help="read the disk itself, past the page cache")
    check.add_argument("--trimmed", action="store_true", help="accept a beginning that is gone, not by `trim`")
    check.add_argument(
        "--at-least",
        type=_floor,
        metavar="SEQ[:HASH]",
        help="what a peer, a snapshot or a coordinator knows to have been durable: sequence, and log hash there",
    )
    show = command("show", _show, "print records")
    _add_range(show, "record")
    export = command("export", _export, "write records with every field by name, for auditors")
    _add_range(export, "record or report")
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="FILE.csv or FILE.parquet; without it CSV to stdout"
    )
    export.add_argument(
        "--reports", type=int, metavar="PARTITION", help="the archived reports of a partition instead of the log"
    )
    repair = command("repair", _repair, "mend a refused journal; says what it would do, and does it with --yes")
    how = repair.add_mutually_exclusive_group(required=True)
    how.add_argument("--from", dest="peer", type=Path, metavar="PEER", help="take segments from this journal folder")
    how.add_argument(
        "--cut", action="store_true", help="cut a torn end where durable.mark is lost: you have compared with the peer"
    )
    repair.add_argument("--yes", action="store_true", help="do it")
    trim = command("trim", _trim, "delete segments that nothing needs any more; says which, and does it with --yes")
    trim.add_argument("--archive", type=Path, metavar="FOLDER", help="copy them there first and verify the copies")
    trim.add_argument("--yes", action="store_true", help="do it")
    trim.set_defaults(snapshots=snapshots)
    consumer = command("consumer", _consumer, "list who still needs the files, or forget one that is gone for good")
    consumer.add_argument("--remove", metavar="NAME")
    return parser


def _floor(text: str) -> tuple[int, int | None]:
    sequence, _, identity = text.partition(":")
    return int(sequence), int(identity, 16) if identity else None


def _add_range(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--from", dest="start", type=int, metavar="SEQ", help=f"first {what}")
    parser.add_argument("--to", dest="limit", type=int, metavar="SEQ", help=f"the {what} after the last one")


def _verify(options: Options) -> int:
    result = verify(options.directory, direct=options.direct, allow_trimmed=options.trimmed, floor=options.at_least)
    print(json.dumps(result) if options.json else _verdict_text(result))
    return EXIT_REFUSED if result["verdict"] == "refused" else EXIT_OK


def _verdict_text(result: dict[str, Any]) -> str:
    if result["verdict"] == "refused":
        text = f"REFUSED: {result['reason']}"
    else:
        text = (
            f"{result['verdict']}: records {result['first_sequence']} to {result['end'] - 1} "
            f"in {result['batches']} batches, {result['segments']} segments, epoch {result['epoch']}, "
            f"log hash {result['log_hash']}, durable mark at {result['marked']}"
        )
        if result["audited_segments"]:
            text += f"\naudit chain: {result['audited_segments']} closed segments, "
            text += f"SHA-256 of the records below {result['audit_end']} is {result['audit_sha256']}"
    torn = result.get("torn")
    if torn:
        text += f"\n{torn['reason']} at byte {torn['offset']} of {torn['file']}: a torn batch, cut at the next start"
    if result["panic"]:
        text += f"\na write or sync failed earlier: {result['panic']}"
    return text


def _show(options: Options) -> int:
    start = options.start if options.start is not None else LogReader(options.directory).first_sequence
    for record in records(options.directory, start, options.limit):
        print(json.dumps(record) if options.json else one_line(record))
    return EXIT_OK


def _export(options: Options) -> int:
    if options.output is not None and options.output.suffix not in (".csv", ".parquet"):
        print(f"--output {options.output}: must end with .csv or .parquet", file=sys.stderr)
        return EXIT_USAGE
    archive = options.directory / "reports"
    if options.reports is not None and not (archive / str(options.reports)).is_file():
        there = ", ".join(sorted(path.name for path in archive.glob("[0-9]*"))) or "none"
        print(f"--reports {options.reports}: no reports of that partition; there are: {there}", file=sys.stderr)
        return EXIT_USAGE
    if options.output is not None and not options.output.absolute().parent.is_dir():
        print(f"--output {options.output}: {options.output.parent} is not a directory", file=sys.stderr)
        return EXIT_USAGE
    if options.reports is None:
        columns, rows = log_rows(options.directory, options.start, options.limit)
    else:
        columns, rows = report_rows(options.directory, options.reports, options.start, options.limit)
    if options.output is None:
        write_csv(sys.stdout, columns, rows)
        return EXIT_OK
    if options.output.suffix == ".parquet":
        count = write_parquet(options.output, columns, rows)
    else:
        draft = options.output.with_name(f"{options.output.name}.tmp")
        with draft.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            count = write_csv(file, columns, rows)
        draft.rename(options.output)
    result = {"output": str(options.output), "rows": count, "columns": len(columns)}
    print(json.dumps(result) if options.json else f"{count} rows of {len(columns)} columns in {options.output}")
    return EXIT_OK


def _repair(options: Options) -> int:
    if options.peer is not None and not options.peer.is_dir():
        print(f"--from {options.peer}: is not a directory", file=sys.stderr)
        return EXIT_USAGE
    if options.peer is not None:
        done = from_peer(options.directory, options.peer, dry_run=not options.yes)
    else:
        done = cut_end(options.directory, dry_run=not options.yes)
    print(json.dumps(_repair_facts(done, options)) if options.json else _repair_text(done, options))
    return EXIT_OK


def _repair_facts(done: Repair, options: Options) -> dict[str, Any]:
    torn = done.recovery.torn
    return {
        "done": options.yes,
        "end": done.recovery.position.sequence,
        "taken": list(done.taken),
        "whole": done.whole,
        "cut": {"file": torn.path.name, "offset": torn.offset, "bytes": torn.end - torn.offset} if torn else None,
        "kept_in": str(done.kept_in) if done.kept_in else None,
    }


def _repair_text(done: Repair, options: Options) -> str:
    facts = _repair_facts(done, options)
    lines = []
    if facts["taken"]:
        how = "the peer's whole journal, which has other batches" if facts["whole"] else "single segments"
        lines.append(f"from {options.peer}, {how}: {', '.join(facts['taken'])}")
    if facts["cut"]:
        lines.append("a torn end of {bytes} bytes at byte {offset} of {file} is cut".format(**facts["cut"]))
    lines.append(f"the journal then ends at sequence {facts['end']}")
    lines.append(f"done; what was replaced is in {facts['kept_in']}. Next: verify --direct" if options.yes else CONFIRM)
    return "\n".join(lines)


def _trim(options: Options) -> int:
    if options.archive is not None and not options.archive.is_dir():
        print(f"--archive {options.archive}: is not a directory", file=sys.stderr)
        return EXIT_USAGE
    archive = DirectoryArchive(options.archive) if options.archive is not None else None
    plan = retain(options.directory, options.snapshots(options.directory), archive=archive, dry_run=not options.yes)
    names = [segment.path.name for segment in plan.delete]
    kept = plan.keep[0].path.name if plan.keep else None
    if options.json:
        print(json.dumps({"done": options.yes, "deleted": names, "first_kept": kept, "reason": plan.reason}))
        return EXIT_OK
    for name in names:
        print(f"{'deleted' if options.yes else 'would delete'} {name}")
    print(f"{kept or 'nothing'} stays: {plan.reason}")
    if names and not options.yes:
        print(CONFIRM)
    return EXIT_OK


def _consumer(options: Options) -> int:
    if options.remove is not None and not remove_cursor(options.directory, options.remove):
        print(f"no consumer {options.remove!r}", file=sys.stderr)
        return EXIT_REFUSED
    cursors = read_cursors(options.directory)
    if options.json:
        print(json.dumps(cursors))
        return EXIT_OK
    for name, sequence in cursors.items():
        print(f"{name:<33}{sequence:>20}")
    return EXIT_OK
