"""What an account held at some time, and which records and reports made it so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import numpy as np

from engine import Replica, Watch
from journaler import LogReader
from journaler.inspect import decode_slot
from ringbuf.wire import messages as wire
from scripts.amounts import from_units
from scripts.exit_codes import CommandError, ExitCode

SLOT_SIZE = 128
BLOCK_OFFSET = 32
NS = 1_000_000_000
STAMP = np.dtype({"names": ["ts"], "formats": ["<u8"], "offsets": [112], "itemsize": SLOT_SIZE})
SHOWN_OF_RECORD = (
    "cl_ord_id", "order_id", "instrument_id", "side", "price", "order_qty", "amount", "kind", "account_id", "asset_id",
)  # fmt: skip
SHOWN_OF_REPORT = (
    "order_id", "trade_id", "instrument_id", "side", "last_px", "last_qty", "fee", "fee_asset_id", "canceled_qty",
    "reason", "ord_status",
)  # fmt: skip


def parse_time(text: str, newest_ns: int) -> int:
    """Return a time as ns since 1970 (UTC): an ISO date and time, or a time of the day of the log's newest record.

    Digits beyond the microsecond are kept. Raises CommandError.
    """
    whole, _, digits = text.rstrip("Z").partition(".")
    try:
        nanoseconds = int(digits.ljust(9, "0")) if digits else 0
        if len(digits) > 9:
            raise ValueError
        if "-" in whole:
            moment = datetime.fromisoformat(whole)
            moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        else:
            day = datetime.fromtimestamp(newest_ns // NS, UTC).date()
            moment = datetime.combine(day, time.fromisoformat(whole), tzinfo=UTC)
    except ValueError:
        raise CommandError(
            f"--at {text}: must be like 12:03:04.5 or 2026-11-25T12:03:04.5 (UTC)", ExitCode.BAD_INPUT
        ) from None
    return int(moment.timestamp()) * NS + nanoseconds


def time_text(ns: int) -> str:
    seconds, rest = divmod(ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d}"


@dataclass(frozen=True)
class Change:
    """One change of one balance, in units, and what caused it."""

    sequence: int
    ts_ns: int
    asset: int
    available: int
    held: int
    available_delta: int
    held_delta: int
    why: str


@dataclass
class AccountAudit:
    """Follows one account. `changes` keeps the newest `limit`."""

    account: int
    replica: Replica
    limit: int
    changes: list[Change] = field(default_factory=list)
    count: int = 0
    ts_ns: int = 0

    def __post_init__(self) -> None:
        self._balances = self.balances()
        self._reports: dict[int, bytearray] = {}
        self._settled = dict(self.replica.places.settled)
        for partition, slots in self.replica.unsettled().items():
            self._reports[partition] = bytearray(slots)
        self._records: Mapping[int, bytes] = {}

    def balances(self) -> dict[int, tuple[int, int]]:
        """Return (available, held) by asset, in units."""
        sequencer = self.replica.sequencer
        return {asset: sequencer.balance(self.account, asset) for asset in sequencer.assets()}

    def follow(self, journal: Path, to: int | None, until_ns: int | None, show: Any) -> None:
        """Follow the log to a record or a time, whichever is first."""
        watch = Watch(self.account, self._changed)
        for first, records in LogReader(journal).batches(self.replica.position, to):
            count = _upto(records, until_ns)
            if count:
                part = records[: count * SLOT_SIZE]
                self._records = _Records(first, part)
                self.replica.feed(first, part, outputs=self._keep, watch=watch)
                self.ts_ns = int(np.frombuffer(part, dtype=STAMP)["ts"][-1])
            show(first + count)
            if count * SLOT_SIZE < len(records):
                return

    def _keep(self, partition: int, first: int, slots: bytes) -> None:
        if partition:
            self._reports.setdefault(partition, bytearray()).extend(slots)
            self._drop_settled(partition)

    def _drop_settled(self, partition: int) -> None:
        """Reports of marks that changed nothing here are not needed; a few laps of them are kept until one does."""
        settled = self.replica.sequencer.settled(partition)
        kept = self._reports[partition]
        surplus = settled - self._settled.get(partition, 0)
        if surplus > 1 << 14 and surplus * SLOT_SIZE <= len(kept):
            del kept[: surplus * SLOT_SIZE]
            self._settled[partition] = settled

    def _changed(self, sequence: int) -> None:
        slot = self._records[sequence]
        why = self._settlement(slot) or _record_text(sequence, slot)
        ts_ns = int.from_bytes(slot[112:120], "little")
        now = self.balances()
        for asset, (available, held) in now.items():
            before = self._balances.get(asset, (0, 0))
            if (available, held) == before:
                continue
            self.count += 1
            self.changes.append(
                Change(sequence, ts_ns, asset, available, held, available - before[0], held - before[1], why)
            )
        self._balances = now
        del self.changes[: -self.limit or len(self.changes)]

    def _settlement(self, slot: bytes) -> str:
        """What the account's reports say that a SETTLED mark applies; empty for other records."""
        if int.from_bytes(slot[6:8], "little") != wire.Template.SETTLED or slot[0:4] != bytes(4):
            return ""
        mark = wire.Settled.unpack(slot, BLOCK_OFFSET)
        partition, first = mark.settled_partition, self._settled.get(mark.settled_partition, 0)
        size = (mark.report_seq - first) * SLOT_SIZE
        slots = bytes(self._reports.get(partition, b"")[:size])
        del self._reports.setdefault(partition, bytearray())[:size]
        self._settled[partition] = mark.report_seq
        texts = [text for text in _report_texts(slots) if text[0] == self.account]
        return "; ".join(text for _, text in texts[-8:]) or f"reports of partition {partition} below {mark.report_seq}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the changes for people and programs: amounts in decimal."""
        assets = self.replica.sequencer.assets()
        for change in self.changes:
            symbol, exponent = assets[change.asset]
            yield {
                "time": time_text(change.ts_ns),
                "sequence": change.sequence,
                "asset": symbol,
                "available": from_units(change.available, exponent),
                "held": from_units(change.held, exponent),
                "available_change": _signed(change.available_delta, exponent),
                "held_change": _signed(change.held_delta, exponent),
                "why": change.why,
            }

    def holdings(self) -> dict[str, Any]:
        """Return what the account has, by symbol, and the open orders that hold some of it."""
        assets = self.replica.sequencer.assets()
        return {
            "balances": {
                assets[asset][0]: {
                    "available": from_units(available, assets[asset][1]),
                    "held": from_units(held, assets[asset][1]),
                }
                for asset, (available, held) in self.balances().items()
                if available or held
            },
            "open_orders": self.replica.sequencer.open_orders(self.account) if self.account else [],
        }


class _Records(dict[int, bytes]):
    """The slots of one batch by sequence."""

    def __init__(self, first: int, slots: bytes) -> None:
        super().__init__()
        self._first, self._slots = first, slots

    def __missing__(self, sequence: int) -> bytes:
        at = (sequence - self._first) * SLOT_SIZE
        return self._slots[at : at + SLOT_SIZE]


def _upto(records: bytes, until_ns: int | None) -> int:
    """How many of the records are not later than the time; stamps grow."""
    if until_ns is None:
        return len(records) // SLOT_SIZE
    return int(np.searchsorted(np.frombuffer(records, dtype=STAMP)["ts"], np.uint64(until_ns), side="right"))


def _signed(units: int, exponent: int) -> str:
    return ("+" if units > 0 else "") + from_units(units, exponent)


def _record_text(sequence: int, slot: bytes) -> str:
    record = decode_slot(sequence, slot)
    parts = [str(record["template"])]
    shown = record.get("fields", {})
    parts += [f"{name}={shown[name]}" for name in SHOWN_OF_RECORD if shown.get(name) is not None]
    return " ".join(parts)


def _report_texts(slots: bytes) -> Iterable[tuple[int, str]]:
    """Yield (account, text) of every report that names an account."""
    for at in range(0, len(slots), SLOT_SIZE):
        template = int.from_bytes(slots[at + 4 : at + 6], "little")
        message = wire.MESSAGES[template].unpack(slots, at + BLOCK_OFFSET)
        account = getattr(message, "account_id", None)
        if account is None:
            continue
        names = {each.name for each in fields(message)}
        parts = [type(message).__name__]
        for name in SHOWN_OF_REPORT:
            if name in names:
                value = getattr(message, name)
                parts.append(f"{name}={getattr(value, 'name', value)}")
        yield account, " ".join(parts)
