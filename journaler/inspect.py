"""`bullring journal verify DIR` and `bullring journal show DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import IntEnum, IntFlag
from pathlib import Path
from struct import Struct
from typing import Any

from journaler.errors import JournalError
from journaler.reader import SLOT_SIZE, LogReader
from journaler.recover import panicked, recover
from ringbuf.wire.messages import MESSAGES

EXIT_OK = 0
EXIT_REFUSED = 1
BLOCK_OFFSET = 32
FLAGS = ((1, "more"), (2, "lazy"), (4, "reject"))
TIER_SHIFT = 8
_HEAD = Struct("<IHHIBBHQQ")
_FOOT = Struct("<QQ")


def _plain(value: Any) -> Any:
    """JSON has no bytes; enums go out by name."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntFlag):
        return [member.name for member in value]
    if isinstance(value, IntEnum):
        return value.name
    return value


def decode_slot(sequence: int, slot: bytes | memoryview) -> dict[str, Any]:
    """Return a log slot as plain values; a template this version does not know keeps its block in hex."""
    session, source, template, src_seq, version, partition, flags, seq_num, ingress_ns = _HEAD.unpack_from(slot)
    ts_ns, aux = _FOOT.unpack_from(slot, 112)
    message = MESSAGES.get(template)
    record: dict[str, Any] = {
        "sequence": sequence,
        "ts_ns": ts_ns,
        "template": message.__name__ if message else template,
        "session": session,
        "source": source,
        "src_seq": src_seq,
        "version": version,
        "partition": partition,
        "flags": [name for bit, name in FLAGS if flags & bit],
        "tier": flags >> TIER_SHIFT,
        "seq_num": seq_num,
        "ingress_ns": ingress_ns,
        "aux": aux,
    }
    if message is None or message.BLOCK_LENGTH > 80:
        record["block"] = bytes(slot[BLOCK_OFFSET:112]).hex()
    else:
        block = message.unpack(slot, BLOCK_OFFSET)
        names = [field.name for field in dataclasses.fields(block)]
        record["fields"] = {name: _plain(getattr(block, name)) for name in names}
    return record


def one_line(record: dict[str, Any]) -> str:
    """Return a record for people: what it is first, then who sent it, then its fields."""
    seconds, nanoseconds = divmod(record["ts_ns"], 1_000_000_000)
    stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds < 2**33 else str(seconds)
    words = [f"{record['sequence']:>12}", f"{stamp}.{nanoseconds:09d}", str(record["template"])]
    words.append(f"partition={record['partition']}")
    for name in ("session", "seq_num", "source", "tier", "aux"):
        if record[name]:
            words.append(f"{name}={record[name]}")
    if record["flags"]:
        words.append("flags=" + ",".join(record["flags"]))
    fields = record.get("fields")
    if fields is None:
        words.append(f"block={record['block']}")
    else:
        words.append(" ".join(f"{name}={value}" for name, value in fields.items() if value is not None))
    return "  ".join(words)


def records(directory: Path, start: int, limit: int | None) -> Iterator[dict[str, Any]]:
    """Yield the decoded records of [start, limit)."""
    for first, slots in LogReader(directory).batches(start):
        view = memoryview(slots)
        for index in range(len(slots) // SLOT_SIZE):
            if limit is not None and first + index >= limit:
                return
            yield decode_slot(first + index, view[index * SLOT_SIZE : (index + 1) * SLOT_SIZE])


def verify(directory: Path, *, direct: bool, allow_trimmed: bool) -> dict[str, Any]:
    """Return what a verification found; its `verdict` is clean, torn or refused."""
    result: dict[str, Any] = {"directory": str(directory), "direct": direct, "panic": panicked(directory)}
    try:
        recovery = recover(directory, direct=direct, allow_trimmed=allow_trimmed)
    except (JournalError, OSError) as error:
        result |= {"verdict": "refused", "reason": str(error)}
        return result
    position, mark, torn = recovery.position, recovery.mark, recovery.torn
    result |= {
        "verdict": recovery.verdict,
        "first_sequence": recovery.first_sequence,
        "end": position.sequence,
        "epoch": position.epoch,
        "batches": position.batch,
        "log_hash": f"{position.log_hash:016x}",
        "segments": len(recovery.segments),
        "marked": mark.sequence if mark else None,
    }
    if torn is not None:
        result["torn"] = {"file": str(torn.path), "offset": torn.offset, "end": torn.end, "reason": torn.reason}
    return result


def _say(result: dict[str, Any]) -> str:
    if result["verdict"] == "refused":
        text = f"REFUSED: {result['reason']}"
    else:
        text = (
            f"{result['verdict']}: records {result['first_sequence']} to {result['end'] - 1} "
            f"in {result['batches']} batches, {result['segments']} segments, epoch {result['epoch']}, "
            f"log hash {result['log_hash']}, durable mark at {result['marked']}"
        )
    torn = result.get("torn")
    if torn:
        text += f"\n{torn['reason']} at byte {torn['offset']} of {torn['file']}: a torn batch, cut at the next start"
    if result["panic"]:
        text += f"\na write or sync failed earlier: {result['panic']}"
    return text


def _run_verify(options: argparse.Namespace) -> int:
    result = verify(options.directory, direct=options.direct, allow_trimmed=options.trimmed)
    print(json.dumps(result) if options.json else _say(result))
    return EXIT_REFUSED if result["verdict"] == "refused" else EXIT_OK


def _run_show(options: argparse.Namespace) -> int:
    reader = LogReader(options.directory)
    start = options.start if options.start is not None else reader.first_sequence
    try:
        for record in records(options.directory, start, options.limit):
            print(json.dumps(record) if options.json else one_line(record))
    except JournalError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except BrokenPipeError:
        sys.stderr.close()  # somebody read enough: `show DIR | head`
    return EXIT_OK


def run(arguments: list[str]) -> int:
    """Run `bullring journal ARGUMENTS`; returns the exit code: 0 good, 1 refused, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="bullring journal", description="Look at a journal; changes nothing.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="check every batch, and that what was synced is there")
    check.add_argument("directory", type=Path, metavar="DIR")
    check.add_argument("--direct", action="store_true", help="read the disk itself, past the page cache")
    check.add_argument("--trimmed", action="store_true", help="the oldest segments have been archived away")
    check.add_argument("--json", action="store_true")
    check.set_defaults(action=_run_verify)
    show = commands.add_parser("show", help="print records")
    show.add_argument("directory", type=Path, metavar="DIR")
    show.add_argument("--from", dest="start", type=int, metavar="SEQ", help="first sequence")
    show.add_argument("--to", dest="limit", type=int, metavar="SEQ", help="sequence after the last one")
    show.add_argument("--json", action="store_true")
    show.set_defaults(action=_run_show)
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    if not options.directory.is_dir():
        print(f"{options.directory} is not a directory", file=sys.stderr)
        return 2
    return int(options.action(options))
