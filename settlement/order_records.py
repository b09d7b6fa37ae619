"""Order records for a regulator, out of the journal: one JSON object an event of an order, times in UTC microseconds.

The fields are those of Delegated Regulation (EU) 2025/416 as far as the events hold them; docs/LEDGER.md lists them,
and those that only the venue's own files have. The books are derived from the same records beside it: a report that
is missing, doubled or wrong stops the derivation, and what is left is counted in the statement of completeness.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ringbuf.wire import messages as wire
from ringbuf.wire.messages import Template
from settlement.decimals import decimal_text
from settlement.definitions import BLOCK_OFFSET, FLAG_REJECT, Definitions
from settlement.derivation import SLOT_SIZE, Derivation
from settlement.order_terms import (
    CANCELED_BY,
    ENDED,
    FIELDS_NOT_HELD,
    RESTATED_BY,
    Event,
    Order,
    order_of_leg,
    order_of_request,
    value_name,
)
from settlement.reader import NS_MAX
from settlement.source import Source

NS, US = 1_000_000_000, 1_000
_LOG = np.dtype(
    {
        "names": ["session", "template", "flags", "ts_ns", "aux"],
        "formats": ["<u4", "<u2", "<u2", "<u8", "<u8"],
        "offsets": [0, 6, 14, 112, 120],
        "itemsize": SLOT_SIZE,
    }
)
_WANTED = (Template.NEW_ORDER_SINGLE, Template.ORDER_DETAILS, Template.QUOTE_LEG, Template.SETTLED)
_REPORT_TEMPLATE_OFFSET = 4
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Window:
    """What is asked for: events in [start_ns, end_ns), of one pair or all (""). No end: to the log's."""

    start_ns: int = 0
    end_ns: int | None = None
    pair: str = ""

    def __post_init__(self) -> None:
        if self.end_ns is not None and self.start_ns > self.end_ns:
            raise ValueError(f"start_ns = {self.start_ns}: must not be after end_ns = {self.end_ns}")


@dataclass(frozen=True, slots=True)
class _Pair:
    symbol: str
    base: str
    quote: str
    quote_exponent: int
    tick: tuple[int, int]  # mantissa, exponent
    lot: tuple[int, int]
    partition: int


class OrderRecords:
    """Goes through a log from its first record; call `records` once, then `statement`."""

    def __init__(self, source: Source, window: Window, *, end: int | None, insurance_account: int, venue: str) -> None:
        """`end`: the first record not to be read, None = all there is. `venue`: the market identifier code."""
        self._source = source
        self._window = window
        self._end = end
        self._end_ns = NS_MAX if window.end_ns is None else window.end_ns
        self._venue = venue
        self._derivation = Derivation(insurance_account=insurance_account)
        self._definitions = Definitions()
        self._assets: dict[int, tuple[str, int]] = {}
        self._pairs: dict[int, _Pair] = {}
        self._firms: dict[int, int] = {}
        self._orders: dict[tuple[int, int], Order] = {}
        self._phases: dict[int, str] = {}
        self._details: wire.OrderDetails | None = None
        self._sequence = self._index = 0
        self._first_ts_ns = self._last_ts_ns = 0
        self._counts: dict[str, int] = {}
        self._orders_seen: set[tuple[int, str]] = set()
        self._fills = self._transfers = 0
        self._records_in_window = self._unknown_pairs = 0

    def records(self, progress: Callable[[int], None]) -> Iterator[Record]:
        """Yield the records of the window in order of the log. Raises DerivationHalted, SourceNotReady, LookupError."""
        derivation = self._derivation
        while self._end is None or derivation.position < self._end:
            batch = self._source.read()
            if batch is None:
                break
            first, slots = batch
            if self._end is not None:
                slots = slots[: (self._end - first) * SLOT_SIZE]
            wanted = derivation.wanted(slots)
            reports = self._source.reports(wanted)
            settled = {partition: start for partition, (start, _) in wanted.items()}
            derivation.feed(first, slots, reports)
            derivation.drop()
            self._define(first, slots)
            for event in self._batch(first, slots, reports, settled):
                if self._inside(event):
                    yield self._record(event)
            progress(derivation.position)
        if self._window.pair and self._window.pair not in {pair.symbol for pair in self._pairs.values()}:
            raise LookupError(f"unknown pair {self._window.pair!r}")

    def statement(self) -> Record:
        """Return what the export is complete for, and how that is known."""
        counts, window = self._derivation.counts(), self._window
        last = self._last_ts_ns
        reached = window.end_ns is None or last >= window.end_ns
        sound = counts.marks_differing == 0 and self._fills == 2 * counts.trades + self._transfers
        return {
            "windowStart": time_text(window.start_ns),
            "windowEnd": time_text(last if window.end_ns is None else window.end_ns),
            "pair": window.pair or "all",
            "logBegins": time_text(self._first_ts_ns),
            "logEnds": time_text(last),
            "completeUntil": time_text(last if window.end_ns is None else min(last, window.end_ns)),
            "wholeWindow": reached,
            "firstRecord": 0,
            "lastRecord": self._derivation.position - 1,
            "logRecordsInWindow": self._records_in_window,
            "orderRecords": sum(self._counts.values()),
            "orders": len(self._orders_seen),
            "events": dict(sorted(self._counts.items())),
            "refusedForUnknownPairs": self._unknown_pairs,
            "reportsRead": counts.reports,
            "fillsRead": self._fills,
            "tradesBooked": counts.trades,
            "hashMarksCompared": counts.marks_compared,
            "hashMarksDiffering": counts.marks_differing,
            "complete": sound,
            "fieldsNotHeld": list(FIELDS_NOT_HELD),
        }

    # --- inside -----------------------------------------------------------------------------------------------------

    def _define(self, first: int, slots: bytes) -> None:
        self._definitions.feed(first, slots)
        taken = self._definitions.take()
        rows = taken.get("assets")
        if rows is not None:
            for number, exponent, symbol in zip(rows["asset"], rows["exponent"], rows["symbol"], strict=True):
                self._assets[int(number)] = (symbol.decode(), int(exponent))
        rows = taken.get("instruments")
        if rows is not None:
            columns = {name: column.tolist() for name, column in rows.items()}
            for values in zip(*columns.values(), strict=True):
                self._add_pair(dict(zip(columns, values, strict=True)))
        rows = taken.get("accounts")
        if rows is not None:
            self._firms.update(zip(rows["account"].tolist(), rows["firm"].tolist(), strict=True))

    def _add_pair(self, row: dict[str, Any]) -> None:
        (base, _), (quote, exponent) = self._assets[row["base_asset"]], self._assets[row["quote_asset"]]
        self._pairs[row["instrument"]] = _Pair(
            symbol=row["symbol"].decode(),
            base=base,
            quote=quote,
            quote_exponent=exponent,
            tick=(row["tick_size"], row["price_exponent"]),
            lot=(row["lot_size"], row["qty_exponent"]),
            partition=row["partition"],
        )

    def _batch(self, first: int, slots: bytes, reports: Any, settled: dict[int, int]) -> Iterator[Event]:
        fields = np.frombuffer(slots, dtype=_LOG)
        times = fields["ts_ns"]
        if len(times):
            self._first_ts_ns = self._first_ts_ns or int(times[0])
            self._last_ts_ns = int(times[-1])
            inside = (times >= self._window.start_ns) & (times < self._end_ns)
            self._records_in_window += int(np.count_nonzero(inside))
        for place in np.flatnonzero(np.isin(fields["template"], _WANTED)).tolist():
            self._sequence, self._index = first + place, 0
            head = fields[place]
            template, refused = int(head["template"]), bool(head["flags"] & FLAG_REJECT)
            message: Any = wire.MESSAGES[template].unpack(slots, place * SLOT_SIZE + BLOCK_OFFSET)
            if template == Template.ORDER_DETAILS:
                self._details = message
            elif template == Template.SETTLED:
                if int(head["session"]) == 0:
                    yield from self._mark(message, reports, settled)
            else:
                yield from self._request(message, head, refused=refused)

    def _request(self, message: Any, head: Any, *, refused: bool) -> Iterator[Event]:
        if isinstance(message, wire.QuoteLeg):
            placed = message.action == wire.QuoteAction.PLACE
            refused = refused or message.reject_code != wire.RejectCode.NONE
            order = order_of_leg(message)
        else:
            placed = True
            order = order_of_request(message, self._details)
        self._details = None
        pair = self._pairs.get(order.instrument)
        if pair is None:
            self._unknown_pairs += 1  # refused: there is nothing to say in which units it was
            return
        now, code = int(head["ts_ns"]), int(head["aux"])
        order = replace(order, session=int(head["session"]), created_ns=now, priority_ns=now)
        if refused:
            reason = value_name(wire.RejectCode, message.reject_code if isinstance(message, wire.QuoteLeg) else code)
            yield Event("REMO", now, replace(order, order_id=f"R{self._sequence}"), reason=reason)
        elif placed:
            self._orders[pair.partition, code] = replace(order, order_id=str(code))

    def _mark(self, mark: wire.Settled, reports: Any, settled: dict[int, int]) -> Iterator[Event]:
        partition = mark.settled_partition
        start, end = settled.get(partition, mark.report_seq), mark.report_seq
        if end <= start:
            return
        first, data = reports[partition]
        settled[partition] = end
        for number in range(start, end):
            at = (number - first) * SLOT_SIZE
            template = int.from_bytes(data[at + _REPORT_TEMPLATE_OFFSET : at + _REPORT_TEMPLATE_OFFSET + 2], "little")
            if template in _REPORTS:
                report: Any = wire.MESSAGES[template].unpack(data, at + BLOCK_OFFSET)
                self._index = number - start
                yield from self._report(partition, report)

    def _report(self, partition: int, report: Any) -> Iterator[Event]:
        if isinstance(report, wire.InstrumentStateReport):
            self._phases[report.instrument_id] = wire.MarketState(report.state).name
            return
        if isinstance(report, wire.QuoteAck):
            yield from self._quoted(partition, report)
            return
        key = (partition, report.order_id)
        order = self._orders.get(key)
        if order is None:
            return  # the answer to a change of an order that had ended
        event = _event_of(report, order)
        if event.name in ("FILL", "PARF"):
            self._fills += 1
            self._transfers += report.liquidity == wire.Liquidity.TRANSFER
        self._orders[key] = event.order
        if event.name in ENDED:
            del self._orders[key]
        yield event

    def _quoted(self, partition: int, report: wire.QuoteAck) -> Iterator[Event]:
        for order_id in (report.bid_order_id, report.ask_order_id):
            order = self._orders.get((partition, order_id or 0))
            if order is not None and order.status == wire.OrdStatus.PENDING_NEW:
                order = replace(order, status=wire.OrdStatus.NEW, priority_ns=report.transact_time)
                self._orders[partition, order_id or 0] = order
                yield Event("NEWO", report.transact_time, order)
        for unused in (report.bid_unused_id, report.ask_unused_id):
            self._orders.pop((partition, unused or 0), None)

    def _inside(self, event: Event) -> bool:
        window = self._window
        if window.pair not in ("", self._pairs[event.order.instrument].symbol):
            return False
        return window.start_ns <= event.time_ns < self._end_ns

    def _record(self, event: Event) -> Record:
        order = event.order
        pair = self._pairs[order.instrument]
        self._counts[event.name] = self._counts.get(event.name, 0) + 1
        self._orders_seen.add((order.instrument, order.order_id))
        price: Callable[[int | None], str | None] = lambda ticks: _scaled(ticks, pair.tick)  # noqa: E731
        lots: Callable[[int | None], str | None] = lambda count: _scaled(count, pair.lot)  # noqa: E731
        found = {
            "sequenceNumber": f"{self._sequence}.{self._index}",
            "dateAndTime": time_text(event.time_ns),
            "event": event.name,
            "reason": event.reason,
            "segmentMic": self._venue,
            "orderBookCode": pair.symbol,
            "cryptoAsset": pair.base,
            "priceCurrency": pair.quote,
            "orderId": order.order_id,
            "clientId": str(order.account),
            "memberId": str(self._firms.get(order.account, 0)),
            "session": order.session,
            "clientOrderId": order.client_text or str(order.client_id),
            "dateOfReceipt": time_text(order.received_ns or order.created_ns),
            "priorityTimeStamp": time_text(order.priority_ns),
            "tradingPhase": self._phases.get(order.instrument, "CONTINUOUS"),
            "transactionPrice": price(event.price),
            "tradedQuantity": lots(event.quantity),
            "transactionId": event.trade_id,
            "passiveOrAggressive": event.passive,
        }
        return found | order.fields(price, lots, lambda units: _scaled(units, (1, pair.quote_exponent)))


_REPORTS = {
    Template.ORDER_ACCEPTED, Template.ORDER_REJECTED, Template.ORDER_EXECUTED, Template.ORDER_CANCELED,
    Template.ORDER_REPLACED, Template.ORDER_TRIGGERED, Template.ORDER_PREVENTED, Template.QUOTE_ACK,
    Template.INSTRUMENT_STATE_REPORT,
}  # fmt: skip
_PASSIVE: dict[int, str] = {wire.Liquidity.MAKER: "PASV", wire.Liquidity.TAKER: "AGRE"}


def _event_of(report: Any, order: Order) -> Event:
    """Return what a report says, with the order as it is then."""
    now = report.transact_time
    match report:
        case wire.OrderAccepted():
            kept = replace(
                order,
                received_ns=report.ingress_time,
                priority_ns=now,
                status=report.ord_status,
                time_in_force=report.time_in_force,
            )
            return Event("NEWO", now, kept)
        case wire.OrderRejected():
            return Event("REMO", now, order, reason=value_name(wire.RejectCode, report.reject_code))
        case wire.OrderExecuted():
            kept = replace(order, remaining=report.leaves_qty, filled=report.cum_qty, status=report.ord_status)
            name = "FILL" if report.ord_status == wire.OrdStatus.FILLED else "PARF"
            return Event(
                name,
                now,
                kept,
                None,
                report.last_px,
                report.last_qty,
                str(report.trade_id),
                _PASSIVE.get(report.liquidity),
            )
        case wire.OrderCanceled():
            name = CANCELED_BY.get(report.cancel_reason, "CAMO")
            kept = replace(order, remaining=0, status=report.ord_status)
            return Event(name, now, kept, value_name(wire.CancelReason, report.cancel_reason))
        case wire.OrderReplaced():
            kept = replace(
                order,
                price=order.price if report.price is None else report.price,
                quantity=report.order_qty,
                remaining=report.leaves_qty,
                status=report.ord_status,
                priority_ns=order.priority_ns if report.priority_retained else now,
            )
            name = RESTATED_BY[report.restate_reason]
            return Event(name, now, kept, value_name(wire.RestateReason, report.restate_reason))
        case wire.OrderTriggered():
            return Event("TRIG", now, replace(order, status=wire.OrdStatus.NEW, priority_ns=now))
        case _:
            kept = replace(order, remaining=report.leaves_qty, status=report.ord_status)
            return Event("REMA", now, kept, "SELF_TRADE")


def _scaled(value: int | None, step: tuple[int, int]) -> str | None:
    """Return value x mantissa x 10^exponent as plain decimal text."""
    return None if value is None else decimal_text(value * step[0], step[1])


def time_text(ns: int) -> str:
    """Return a moment as UTC with microseconds: YYYY-MM-DDThh:mm:ss.ddddddZ."""
    seconds, rest = divmod(ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // US:06d}Z"


def write_order_records(path: Path, records: OrderRecords, progress: Callable[[int], None]) -> Record:
    """Write {"orderRecords": [...], "completeness": {...}} to a new file; return the statement with the file's SHA-256.

    The file appears under its name only when it is whole. Raises FileExistsError, OSError, SettlementError.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    draft = path.with_name(f"{path.name}.part")
    digest = hashlib.sha256()
    try:
        with draft.open("wb") as file:

            def put(text: str) -> None:
                data = text.encode()
                digest.update(data)
                file.write(data)

            put('{"orderRecords": [')
            separator = "\n"
            for record in records.records(progress):
                put(separator + json.dumps(record))
                separator = ",\n"
            statement = records.statement()
            put('\n],\n"completeness": ' + json.dumps(statement) + "}\n")
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return statement | {"path": str(path), "sha256": digest.hexdigest()}
