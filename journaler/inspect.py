"""What `bullring journal verify` and `show` find and say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import IntEnum, IntFlag
from pathlib import Path
from struct import Struct
from typing import Any

from journaler.audit import AuditRecord, check_links, read_audits, verify_segment
from journaler.errors import JournalError
from journaler.identity import check_floor
from journaler.reader import SLOT_SIZE, LogReader
from journaler.recover import panicked, recover
from journaler.retention import segment_facts
from journaler.segments import audit_name
from ringbuf.wire.messages import MESSAGES

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


def verify_audit(directory: Path) -> list[AuditRecord]:
    """Hash every closed segment that has an audit record again; return the records. Raises JournalRefused."""
    records = read_audits(directory)
    check_links(directory, records.values())
    checked = []
    for segment in segment_facts(directory):
        record = records.get(segment.first)
        if record is not None:
            batches = LogReader(directory).batches(record.first, record.end)
            verify_segment(record, directory / audit_name(record.first), (slots for _, slots in batches))
            checked.append(record)
    return checked


Floor = tuple[int, int | None]  # a sequence known to have been durable, and the log hash there if that is known too


def verify(directory: Path, *, direct: bool, allow_trimmed: bool, floor: Floor | None = None) -> dict[str, Any]:
    """Return what a verification found; its `verdict` is clean, torn or refused."""
    result: dict[str, Any] = {"directory": str(directory), "direct": direct, "panic": panicked(directory)}
    try:
        recovery = recover(directory, direct=direct, allow_trimmed=allow_trimmed)
        audited = verify_audit(directory)
        if floor is not None:
            check_floor(directory, recovery, *floor)
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
        "audited_segments": len(audited),
        "audit_sha256": audited[-1].sha256 if audited else None,
        "audit_end": audited[-1].end if audited else None,
    }
    if torn is not None:
        result["torn"] = {"file": str(torn.path), "offset": torn.offset, "end": torn.end, "reason": torn.reason}
    return result
