"""What flows through the model: reports, market data events, log records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SEQUENCER = 0
ALL_MATCHERS = 255


@dataclass(slots=True)
class Report:
    """One report as a client sees it; `seq_num` 0 = unnumbered. `fields` holds snake_case names of the message."""

    partition: int
    session: int
    seq_num: int
    name: str
    fields: dict[str, Any]
    final: bool = False

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={value}" for key, value in self.fields.items())
        return f"p{self.partition} s{self.session} #{self.seq_num} {self.name}({shown}){' FINAL' if self.final else ''}"


@dataclass(slots=True)
class MarketEvent:
    """One market data event; `last` is the end-of-event flag."""

    partition: int
    instrument_id: int
    update_id: int
    name: str
    fields: dict[str, Any]
    last: bool = False


@dataclass(slots=True)
class Record:
    """What the sequencer writes for the matchers: the request with everything resolved."""

    partition: int
    session: int
    seq_num: int
    message: Any
    account_id: int = 0
    order_id: int = 0
    price: int = 0
    tier: int = 0
    stp_group_id: int = 0


@dataclass(slots=True)
class Outcome:
    """Everything one step (a command, or a burst of them) made visible."""

    reports: list[Report] = field(default_factory=list)
    replies: list[tuple[int, str, dict[str, int]]] = field(default_factory=list)
    market_events: list[MarketEvent] = field(default_factory=list)


class ModelError(AssertionError):
    """The model broke one of its own rules."""
