"""What the comparison asks of an exchange, and two that answer: the C engine, and the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Protocol
from unittest.mock import patch

from ringbuf.wire.market_messages import EventFlags
from ringbuf.wire.messages import BalanceQuery, Tick
from tests.oracle.exchange import Numbered
from tests.oracle.records import LogEntry, MarketEvent, Outcome, Report
from tests.oracle.tables import ADMIN_SESSION
from tests.oracle.world import World

# Flag of a report slot: the order of this report is done.
REPORT_FLAG_FINAL = 1 << 2
# Flag of an ingress slot: linked with the next one.
SLOT_FLAG_MORE = 1 << 0
# Where slots have what.
SLOT_BYTES, BLOCK_OFFSET = 128, 32
# Answers to binding, and marks: not part of what the model tells.
IGNORED_REPORTS = {"SessionBound", "SessionNegotiated", "BookHash", "AccountPosition"}
# What describe_line calls a value -> what the engine's order table calls it.
ENGINE_COLUMNS = {
    "order_id": "order_id",
    "cl_ord_id": "client_id",
    "price": "limit_ticks",
    "order_qty": "total_lots",
    "cum_qty": "filled_lots",
    "hold": "hold_units",
    "instrument_id": "instrument",
    "account_id": "account",
    "session_id": "session",
    "side": "side",
}
Levels = list[tuple[int, int, int]]
OpenOrder = dict[str, Any]


class Target(Protocol):
    """An exchange to compare with the model."""

    def bind(self, session_id: int) -> None: ...

    def advance(self, ns: int) -> None:
        """Move the clock."""

    def run(self, commands: list[Numbered], *, tick: bool = False) -> Outcome:
        """Take commands that are in flight together, then settle all; `tick` asks for a tick at the end."""

    def balance(self, account_id: int, asset_id: int) -> tuple[int, int]: ...

    def book(self, instrument_id: int) -> tuple[Levels, Levels]: ...

    def open_orders(self, account_id: int) -> list[OpenOrder]: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fault:
    """A change to the model's code: (owner, attribute, replacement) each."""

    name: str
    patches: tuple[tuple[Any, str, Any], ...] = field(repr=False)
    why: str = ""


class ModelTarget:
    """The model behind the target's interface, with or without a fault planted in it."""

    def __init__(self, world: World, fault: Fault | None = None) -> None:
        self.exchange = world.exchange()
        self.fault = fault

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Put the fault in only while this target works: the model it is compared with stays sound."""
        with ExitStack() as stack:
            for owner, attribute, replacement in self.fault.patches if self.fault is not None else ():
                stack.enter_context(patch.object(owner, attribute, replacement))
            yield

    def bind(self, session_id: int) -> None:
        self.exchange.bind(session_id)

    def advance(self, ns: int) -> None:
        self.exchange.now_ns += ns

    def run(self, commands: list[Numbered], *, tick: bool = False) -> Outcome:
        now_ns = self.exchange.now_ns
        with self.planted():
            return self.exchange.burst(commands, [LogEntry(now_ns, now_ns=now_ns)] if tick else [])

    def balance(self, account_id: int, asset_id: int) -> tuple[int, int]:
        return self.exchange.balance(account_id, asset_id)

    def book(self, instrument_id: int) -> tuple[Levels, Levels]:
        return self.exchange.book(instrument_id)

    def open_orders(self, account_id: int) -> list[OpenOrder]:
        return [describe_line(line) for line in self.exchange.open_orders(account_id)]

    def check(self) -> None:
        with self.planted():
            self.exchange.check()

    def close(self) -> None:
        """Nothing to give back."""


def _uint(slot: bytes, offset: int, size: int) -> int:
    return int.from_bytes(slot[offset : offset + size], "little")


def describe_line(line: Any) -> OpenOrder:
    """Return what OrderReply says of an open order of the model. Legs of a pair have no hold of their own."""
    described = {
        "order_id": line.order_id,
        "cl_ord_id": line.cl_ord_id,
        "price": line.price,
        "order_qty": line.total,
        "cum_qty": line.cum,
        "hold": line.hold,
        "instrument_id": line.instrument.instrument_id,
        "account_id": line.account_id,
        "session_id": line.session,
        "side": line.side,
    }
    if line.pair is not None or line.amount is not None:
        del described["hold"]
    if line.is_pending_leg and line.is_market_type:  # its protection price is that of the moment it starts
        del described["price"]
    return described


class EngineTarget:
    """The C engine composed in this process."""

    def __init__(self, world: World, time_ns: int = 1_700_000_000_000_000_000) -> None:
        # Late and untyped: the model's own tests run where the extension is not built.
        package: Any = import_module("engine")
        config = package.EngineConfig(partitions=world.partitions, orders_per_partition=world.orders_max)
        self.encode = import_module("engine.engine").encode_command
        self.engine: Any = package.ComposedEngine(config)
        self.time_ns = time_ns
        self.engine.set_time(time_ns)
        self.engine.start()
        self.engine.market_events()
        self.log()

    def bind(self, session_id: int) -> None:
        self.engine.bind(session_id)

    def advance(self, ns: int) -> None:
        self.time_ns += ns
        self.engine.set_time(self.time_ns)

    def run(self, commands: list[Numbered], *, tick: bool = False) -> Outcome:
        """Put all commands into the ingress ring before the engine runs. Whether it ticks is its own decision."""
        if not commands:
            # A query is not logged, but lets the engine run: first it writes the marks that are due, then it ticks.
            outputs = []
            for _ in range(2):
                outputs += self.engine.submit(ADMIN_SESSION, BalanceQuery(account_id=1), seq_num=0)
            self.engine.replies()
            return self.outcome(outputs)
        slots = [
            self.encode(
                message,
                session=session,
                seq_num=number,
                flags=0 if index == len(frames) - 1 else SLOT_FLAG_MORE,
                # Stamps are a few ns later than the clock: so far from a whole microsecond they decide nothing.
                ingress_ns=self.time_ns - age_us * 1_000 + 500,
            )
            for session, frames, age_us in commands
            for index, (number, message) in enumerate(frames)
        ]
        return self.outcome(self.engine.submit_slots(b"".join(slots)))

    def outcome(self, outputs: list[Any]) -> Outcome:
        """Return everything that became visible since the last command."""
        reports = [self.report(output) for output in outputs]
        return Outcome(
            reports=[report for report in reports if report.name not in IGNORED_REPORTS],
            replies=[self.reply(reply) for reply in self.engine.replies()],
            market_events=[
                self.market_event(event.partition, event.update_id, event.message)
                for event in self.engine.market_events()
            ],
            log=self.log(),
        )

    def log(self) -> list[LogEntry]:
        """Return ticks and commands of the log since the last call, with their stamps."""
        entries = []
        for _, data in self.engine.log_records():
            for offset in range(0, len(data), SLOT_BYTES):
                slot = data[offset : offset + SLOT_BYTES]
                template, stamp_ns = _uint(slot, 6, 2), _uint(slot, 112, 8)
                if template == Tick.TEMPLATE_ID:
                    entries.append(LogEntry(stamp_ns, now_ns=_uint(slot, BLOCK_OFFSET, 8)))
                elif _uint(slot, 16, 8):
                    entries.append(LogEntry(stamp_ns, session=_uint(slot, 0, 4), seq_num=_uint(slot, 16, 8)))
        return entries

    def report(self, output: Any) -> Report:
        message = output.message
        exec_id = getattr(message, "exec_id", None)
        if exec_id is not None and exec_id != output.partition << 56 | output.report_seq:
            raise AssertionError(f"execId {exec_id:#x} of partition {output.partition} report {output.report_seq}")
        values = {item.name: getattr(message, item.name) for item in fields(message)}
        is_final = bool(output.flags & REPORT_FLAG_FINAL)
        return Report(output.partition, output.session, output.seq_num, type(message).__name__, values, is_final)

    def reply(self, reply: Any) -> tuple[int, str, dict[str, int]]:
        message = getattr(reply, "message", reply)
        values = {item.name: getattr(message, item.name) for item in fields(message)}
        return getattr(reply, "session", 0), type(message).__name__, values

    def market_event(self, partition: int, update_id: int, message: Any) -> MarketEvent:
        values = {item.name: getattr(message, item.name) for item in fields(message)}
        is_last = bool(message.event_flags & EventFlags.END_OF_EVENT)
        values["implied"] = bool(message.event_flags & EventFlags.IMPLIED)
        return MarketEvent(partition, message.instrument_id, update_id, type(message).__name__, values, is_last)

    def balance(self, account_id: int, asset_id: int) -> tuple[int, int]:
        available, held = self.engine.balance(account_id, asset_id)
        return int(available), int(held)

    def book(self, instrument_id: int) -> tuple[Levels, Levels]:
        bids, asks = self.engine.book(instrument_id)
        return [(a, b, c) for a, b, c in bids], [(a, b, c) for a, b, c in asks]

    def open_orders(self, account_id: int) -> list[OpenOrder]:
        rows = self.engine.open_orders(account_id)
        return [{name: row[column] for name, column in ENGINE_COLUMNS.items()} for row in rows]

    def check(self) -> None:
        self.engine.check()

    def close(self) -> None:
        """Give back the rings' memory: private rings live until they are closed."""
        self.engine.close()
