"""A history file: one JSON object a line, in the order in which its writer saw things happen.

    {"kind": "sent", "session": 5, "number": 1, "at": ns, "template": 100, "block": hex}
    {"kind": "report", "session": 5, "partition": 1, "number": 7, "at": ns, "template": 200, "block": hex}
    {"kind": "balance", "account": 3, "asset": 1, "available": 5, "held": 0}     as it was at the end, nothing under way
    {"kind": "market", "partition": 1, "sequence": 9, "slot": hex}
    {"kind": "complete", "session": 5}                                          it waited for all its reports

`at` is a clock that all writers share and that never goes back: CLOCK_MONOTONIC of one host, in nanoseconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage


@dataclass(frozen=True, slots=True)
class Sent:
    session: int
    number: int
    at: int
    template: int
    block: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """A numbered report as a client received it."""

    session: int
    partition: int
    number: int
    at: int
    template: int
    block: bytes

    @property
    def key(self) -> tuple[int, int, int]:
        return self.session, self.partition, self.number

    @property
    def answers(self) -> int:
        """The number of the request it answers, 0 = none of this session's."""
        return int(getattr(self.message, "ref_seq_num", 0) or 0)

    @property
    def message(self) -> WireMessage:
        return wire.MESSAGES[self.template].unpack(self.block)


@dataclass(frozen=True, slots=True)
class Balance:
    account: int
    asset: int
    available: int
    held: int


@dataclass(frozen=True, slots=True)
class MarketSlot:
    partition: int
    sequence: int
    slot: bytes


@dataclass
class History:
    """What all clients together saw."""

    sent: list[Sent] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    market: list[MarketSlot] = field(default_factory=list)
    complete: set[int] = field(default_factory=set)

    @property
    def sessions(self) -> set[int]:
        return {each.session for each in self.sent} | {each.session for each in self.told}

    @classmethod
    def load(cls, paths: Iterable[Path]) -> History:
        """Read history files. Raises ValueError naming file and line."""
        history = cls()
        for path in paths:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                try:
                    history.add(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{path}, line {number}: no line of a history: {error!r}") from error
        return history

    def add(self, facts: dict[str, Any]) -> None:
        """Take in one line. Raises KeyError, ValueError or TypeError."""
        kind = facts.pop("kind")
        for name in ("block", "slot"):
            if name in facts:
                facts[name] = bytes.fromhex(facts[name])
        match kind:
            case "sent":
                self.sent.append(Sent(**facts))
            case "report":
                self.told.append(Told(**facts))
            case "balance":
                self.balances.append(Balance(**facts))
            case "market":
                self.market.append(MarketSlot(**facts))
            case "complete":
                self.complete.add(facts["session"])
            case _:
                raise ValueError(f"kind {kind!r}")


class HistoryWriter:
    """Writes down what one client sees, as it sees it."""

    def __init__(self, file: TextIO, session: int) -> None:
        self._file = file
        self._session = session

    def sending(self, message: WireMessage, number: int) -> None:
        """Call before the request can have left."""
        self._write(
            kind="sent", session=self._session, number=number, at=time.monotonic_ns(), template=message.TEMPLATE_ID,
            block=message.pack().hex(),
        )  # fmt: skip

    def told(self, partition: int, number: int, message: WireMessage) -> None:
        """Call after a numbered report has come."""
        self._write(
            kind="report", session=self._session, partition=partition, number=number, at=time.monotonic_ns(),
            template=message.TEMPLATE_ID, block=message.pack().hex(),
        )  # fmt: skip

    def balance(self, reply: wire.BalanceReply) -> None:
        self._write(
            kind="balance", account=reply.account_id, asset=reply.asset_id, available=reply.available, held=reply.held
        )

    def complete(self) -> None:
        self._write(kind="complete", session=self._session)

    def _write(self, **facts: Any) -> None:
        self._file.write(json.dumps(facts) + "\n")
