"""What flows through the model: reports, market data events, log records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SEQUENCER = 0
ALL_MATCHERS = 255
NO_SESSION = 0


@dataclass(slots=True)
class Report:
    """One report as a client sees it; `seq_num` 0 = unnumbered. `fields` holds snake_case names of the message.

    `joined`: no mark may fall between this report and the next one.
    """

    partition: int
    session: int
    seq_num: int
    name: str
    fields: dict[str, Any]
    final: bool = False
    joined: bool = False

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
class OrderTerms:
    """An order as the sequencer wrote it into the log: everything resolved."""

    order_id: int
    instrument_id: int
    account_id: int
    firm_id: int
    session: int
    seq_num: int
    cl_ord_id: int
    client_tag: int
    side: int
    ord_type: int
    time_in_force: int
    # The limit, or the protection price of market types; absent prices of pulled quotes do not come this far.
    price: int
    quantity: int
    stop_px: int | None = None
    trailing_delta: int = 0
    # None: an ordinary order.
    display_qty: int | None = None
    first_display_qty: int | None = None
    min_qty: int = 0
    # Units of the quote asset, of a market order by quote amount; `quantity` is then what its cover is for.
    amount: int | None = None
    expire_s: int | None = None
    exec_inst: int = 0
    stp_group_id: int = 0
    stp_mode: int = 0
    tier: int = 0
    # What it must hold, and what of it was taken from the account where a predecessor covers the rest.
    need: int = 0
    extra: int = 0


@dataclass(slots=True)
class CancelReplace:
    """A cancel and the order that takes its place. `terms` None: only the cancel was admitted."""

    cancel: Any
    terms: OrderTerms
    is_same_asset: bool


@dataclass(slots=True)
class QuoteSides:
    """A quote as admitted; None: that side is pulled."""

    bid: OrderTerms | None
    ask: OrderTerms | None


@dataclass(slots=True)
class Record:
    """One input of the matchers: a log record, or a whole group."""

    partition: int
    stamp_ns: int
    session: int
    seq_num: int
    message: Any
    account_id: int = 0
    order_id: int = 0
    firm_id: int = 0
    body: Any = None


@dataclass(slots=True)
class LogEntry:
    """What the log of a target tells of one record: a tick (`now_ns` set) or a command, with its stamp."""

    stamp_ns: int
    session: int = 0
    seq_num: int = 0
    now_ns: int | None = None


@dataclass(slots=True)
class Outcome:
    """Everything one step (a command, or a burst of them) made visible."""

    reports: list[Report] = field(default_factory=list)
    replies: list[tuple[int, str, dict[str, int]]] = field(default_factory=list)
    market_events: list[MarketEvent] = field(default_factory=list)
    log: list[LogEntry] = field(default_factory=list)


class ModelError(AssertionError):
    """The model broke one of its own rules."""
