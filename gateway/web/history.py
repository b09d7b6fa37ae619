"""Private history made from log and reports: orders, fills, lists, trades, events. Pure: slots in, rows out.

Order of work: every record a report may refer to is in the log before it, so the caller feeds the log first and then
the reports whose cause is in what was fed. Reports of different partitions are fed in order of their causes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from operator import attrgetter
from struct import Struct
from typing import Any

import orjson

from gateway.web.orders import ADMITTED, LIST_NONE, OrderState, apply_report, client_text, new_order
from gateway.web.private_events import (
    EXECUTION_MASK,
    PARTITION_KEY,
    SEQUENCE_KEY,
    EventView,
    ListState,
)
from gateway.web.reference import Account, Asset, FeeRates, Instrument, Key, Limits, Reference, to_row
from gateway.web.store import Event, Fill, HistoryStore, Trade
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage

SLOT_SIZE = 128
BLOCK_OFFSET = 32
LOG_SLOT = Struct("<IHHIBBHQQ")  # session source template src_seq version partition flags seq_num ingress
LOG_TAIL = Struct("<QQ")  # ts, aux
LOG_TAIL_OFFSET = 112
REPORT_SLOT = Struct("<IHBBIHHIIQ")  # session template version partition account_seq flags spare seq distance in_seq
FLAG_MORE, FLAG_REJECT = 1, 4
TEXTS_MAX = 100_000
_LOG_KINDS: dict[int, type[WireMessage]] = {
    kind.TEMPLATE_ID: kind
    for kind in (
        wire.NewOrderSingle, wire.OrderDetails, wire.OrderListRequest, wire.AssetAdd, wire.InstrumentAdd,
        wire.InstrumentLimits, wire.InstrumentRules, wire.AccountCreate, wire.AccountLimits, wire.KeyCreate,
        wire.KeyRevoke, wire.FeeTierSet, wire.BalanceAdjust,
    )
}  # fmt: skip
_REPORT_KINDS: dict[int, type[WireMessage]] = {
    kind.TEMPLATE_ID: kind
    for kind in (
        wire.OrderAccepted, wire.OrderRejected, wire.OrderExecuted, wire.OrderCanceled, wire.OrderReplaced,
        wire.OrderTriggered, wire.OrderPrevented, wire.ListStatus, wire.InstrumentStateReport, wire.QuoteAck,
    )
}  # fmt: skip
_LIMIT_FIELDS = set(asdict(Limits()))
OrderKey = tuple[int, int]


class HistoryBuilder:
    """Feed it, then `flush()` what came of it into the store; only then is it in history."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self.reference = Reference.of_rows(store.reference_rows())
        self._view = EventView(self.reference)
        self._live: dict[OrderKey, OrderState] = {(o.instrument, o.order_id): o for o in store.open_orders()}
        self._counters = store.counters()
        self._texts = store.texts()
        known = ((each, store.last_trade(each)) for each in self.reference.instruments)
        self._last_trades = {instrument: trade for instrument, trade in known if trade is not None}
        self._next_event = store.last_event() + 1
        self._lists: dict[int, ListState] = {}
        self._details: wire.OrderDetails | None = None
        self._list: ListState | None = None
        self._dirty_orders: dict[OrderKey, OrderState] = {}
        self._dropped: set[OrderKey] = set()
        self._dirty_lists: dict[int, ListState] = {}
        self._dirty_counters: set[tuple[int, int]] = set()
        self._events: list[Event] = []
        self._fills: list[Fill] = []
        self._trades: list[Trade] = []
        self._prevented: list[tuple[int, ...]] = []
        self._amendments: list[tuple[Any, ...]] = []
        self._new_texts: list[tuple[int, int, str]] = []
        self._reference_rows: list[tuple[str, str, dict[str, Any]]] = []
        self._dropped_keys: list[str] = []
        self.reference_version = 0

    @property
    def last_event(self) -> int:
        return self._next_event - 1

    # --- texts a worker has put in place of a number ----------------------------------------------------------------

    def note_text(self, account: int, number: int, text: str) -> None:
        """A cancel, amend or list of this account will carry `number`; clients shall see `text`."""
        self._texts[(account, number)] = text
        self._new_texts.append((account, number - (1 << 64) if number >= 1 << 63 else number, text))
        if len(self._texts) > TEXTS_MAX:
            del self._texts[next(iter(self._texts))]

    # --- the log ----------------------------------------------------------------------------------------------------

    def feed_log(self, records: bytes) -> None:
        """Take whole groups of log slots."""
        for offset in range(0, len(records), SLOT_SIZE):
            _, source, template, _, _, _, flags, _, _ = LOG_SLOT.unpack_from(records, offset)
            kind = _LOG_KINDS.get(template)
            if kind is not None and not flags & FLAG_REJECT:
                ts_ns, aux = LOG_TAIL.unpack_from(records, offset + LOG_TAIL_OFFSET)
                self._record(kind.unpack(records, offset + BLOCK_OFFSET), source, ts_ns, aux)
            if not flags & FLAG_MORE:
                self._details = self._list = None

    def _record(self, message: WireMessage, source: int, ts_ns: int, aux: int) -> None:
        match message:
            case wire.OrderDetails():
                self._details = message
            case wire.NewOrderSingle():
                self._admitted(message, ts_ns, aux)
                self._details = None
            case wire.OrderListRequest() if source != 0:  # source 0: legs whose time has come, of a list we know
                self._begin_list(message, ts_ns, aux)
            case wire.BalanceAdjust():
                body = self._view.balance_update(self.reference.assets[message.asset_id], message.amount, ts_ns)
                self._event(message.account_id, 0, ts_ns, body)
            case wire.KeyRevoke():
                self.reference.keys.pop(message.access_key_id, None)
                self._dropped_keys.append(message.access_key_id)
                self.reference_version += 1
            case _:
                self._refer(message, ts_ns)

    def _admitted(self, message: wire.NewOrderSingle, ts_ns: int, order_id: int) -> None:
        key = (message.instrument_id, order_id)
        if key in self._live:  # a pending leg becomes an order
            return
        partition = self.reference.instruments[message.instrument_id].partition
        order = new_order(
            message, order_id=order_id, account=message.account_id, partition=partition, ts_ns=ts_ns,
            list_id=-1 if self._list is None else self._list.list_id, details=self._details,
        )  # fmt: skip
        if self._list is not None:
            self._list.legs.append(order_id)
        # Written although no report has confirmed it: whoever starts again from here must know it.
        self._live[key] = self._dirty_orders[key] = order

    def _begin_list(self, message: wire.OrderListRequest, ts_ns: int, list_id: int) -> None:
        number = message.list_cl_ord_id
        self._list = ListState(
            list_id=list_id,
            account=message.account_id,
            instrument=message.instrument_id,
            list_type=int(message.list_type),
            client_id=client_text(self._texts.get((message.account_id, number), ""), number),
            cl_ord_id=number,
            status_type=int(wire.ListStatusType.RESPONSE),
            order_status=int(wire.ListOrderStatus.EXECUTING),
            created_ns=ts_ns,
            updated_ns=ts_ns,
            legs=[],
        )
        self._lists[list_id] = self._dirty_lists[list_id] = self._list

    # --- reference data ---------------------------------------------------------------------------------------------

    def _refer(self, message: WireMessage, ts_ns: int) -> None:
        thing: Asset | Instrument | Account | Key | FeeRates
        match message:
            case wire.AssetAdd():
                thing = Asset(message.asset_id, message.symbol, message.exponent)
            case wire.InstrumentAdd():
                thing = _instrument(message)
            case wire.InstrumentLimits() | wire.InstrumentRules():
                thing = self.reference.instruments[message.instrument_id]
                for name in _LIMIT_FIELDS & set(message.__match_args__):
                    value = getattr(message, name)
                    setattr(thing.limits, name, None if value is None else int(value))
            case wire.AccountCreate():
                thing = Account(message.account_id, message.fee_tier, message.stp_group_id, created_ns=ts_ns)
            case wire.AccountLimits():
                thing = self.reference.accounts[message.account_id]
                thing.fee_tier = message.fee_tier
                thing.open_orders_max = message.open_orders_max
                thing.orders_per_10s, thing.orders_per_day = message.orders_per10_seconds, message.orders_per_day
            case wire.KeyCreate():
                thing = Key(
                    message.access_key_id, message.account_id, int(message.permissions),
                    int(message.credential_type), message.material.hex(),
                )  # fmt: skip
            case wire.FeeTierSet():
                thing = FeeRates(message.tier, message.instrument_id, message.maker_rate, message.taker_rate)
            case _:
                return
        self._put_reference(thing)

    def _put_reference(self, thing: Asset | Instrument | Account | Key | FeeRates) -> None:
        self.reference.put(thing)
        self._reference_rows.append(to_row(thing))
        self.reference_version += 1

    # --- reports ----------------------------------------------------------------------------------------------------

    def feed_reports(self, slots: Iterable[bytes | memoryview]) -> None:
        """Take report slots, each of 128 bytes, in order of their causes."""
        for slot in slots:
            _, template, _, partition, *_ = REPORT_SLOT.unpack_from(slot)
            kind = _REPORT_KINDS.get(template)
            if kind is None:
                continue
            report = kind.unpack(slot, BLOCK_OFFSET)
            if isinstance(report, wire.ListStatus):
                self._list_report(report, partition)
            elif isinstance(report, wire.InstrumentStateReport):
                if report.reject_code == wire.RejectCode.NONE:
                    instrument = self.reference.instruments[report.instrument_id]
                    instrument.state = int(report.state)
                    self._put_reference(instrument)
            elif not isinstance(report, wire.QuoteAck):
                self._order_report(report, partition)

    def _order_report(self, report: Any, partition: int) -> None:
        order = self._order_of(report)
        if order is None:
            return
        # Whoever placed it has the refusal as its answer; told a second time, clients count it twice (decision 0081).
        unheard = isinstance(report, wire.OrderRejected) and order.status == ADMITTED and order.list_id == LIST_NONE
        instrument = self.reference.instruments[order.instrument]
        client_id, orig_client_id = self._ids(report, order)
        old_qty = order.qty
        apply_report(order, report, instrument.quote_per_tick_lot)
        key = (order.instrument, order.order_id)
        if isinstance(report, wire.OrderExecuted):
            self._fill(report, order, instrument)
        elif isinstance(report, wire.OrderPrevented):
            self._prevented.append(
                (order.instrument, report.prevented_match_id, order.account,
                 order.order_id, report.counter_order_id, order.price or 0, report.prevented_qty,
                 int(report.stp_mode), report.transact_time)
            )  # fmt: skip
        elif isinstance(report, wire.OrderReplaced):
            self._replaced(report, order, client_id, orig_client_id, old_qty)
        if not unheard:
            body = self._view.execution_report(report, order, client_id=client_id, orig_client_id=orig_client_id)
            self._event(order.account, partition, report.transact_time, body)
        if not order.open:
            self._live.pop(key, None)
        if isinstance(report, wire.OrderRejected):  # it never was
            self._dirty_orders.pop(key, None)
            self._dropped.add(key)
        else:
            self._dirty_orders[key] = order

    def _order_of(self, report: Any) -> OrderState | None:
        """Return the order a report is about; of one that the sequencer has refused there is none."""
        key = (report.instrument_id, report.order_id)
        return self._live.get(key) or self._dirty_orders.get(key) or self._store.order(*key)

    def _ids(self, report: Any, order: OrderState) -> tuple[str, str]:
        """Return (c, C): of the request that caused the report, and the order's own where that is another."""
        if isinstance(report, wire.OrderCanceled) and report.cancel_reason == wire.CancelReason.CLIENT:
            number = report.cl_ord_id
            text = self._texts.get((order.account, number), "")
            return client_text(text, number) or order.client_id, order.client_id
        if isinstance(report, wire.OrderReplaced) and report.cl_ord_id not in (0, order.cl_ord_id):
            text = self._texts.get((order.account, report.cl_ord_id), "")
            return client_text(text, report.cl_ord_id), order.client_id
        return order.client_id, ""

    def _replaced(
        self, report: wire.OrderReplaced, order: OrderState, client_id: str, orig_client_id: str, old_qty: int
    ) -> None:
        if orig_client_id:
            order.client_id, order.cl_ord_id = client_id, report.cl_ord_id
        if report.restate_reason == wire.RestateReason.CLIENT:
            execution = report.exec_id & EXECUTION_MASK
            self._amendments.append(
                (order.instrument, order.order_id, execution, order.account, orig_client_id or client_id, client_id,
                 old_qty, order.qty, report.transact_time)
            )  # fmt: skip

    def _fill(self, report: wire.OrderExecuted, order: OrderState, instrument: Instrument) -> None:
        if report.liquidity == wire.Liquidity.TRANSFER:
            return
        quote = report.last_px * report.last_qty * instrument.quote_per_tick_lot
        maker = report.liquidity == wire.Liquidity.MAKER
        self._fills.append(
            Fill(
                order.account, order.instrument, report.trade_id, order.order_id, order.list_id, report.last_px,
                report.last_qty, quote, report.fee, report.fee_asset_id, int(report.side), int(maker),
                report.transact_time,
            )
        )  # fmt: skip
        auction = report.liquidity == wire.Liquidity.AUCTION
        if maker or (auction and report.side == wire.Side.SELL):
            return  # the trade is told once, by its taker
        last = self._last_trades.get(instrument.id)
        same = last is not None and last.taker_order == order.order_id and last.price == report.last_px
        agg_id = 1 if last is None else last.agg_id + (0 if same else 1)
        trade = Trade(
            instrument.id, report.trade_id, agg_id, report.last_px, report.last_qty, quote, report.transact_time,
            int(report.side == wire.Side.SELL), order.order_id,
        )  # fmt: skip
        self._last_trades[instrument.id] = trade
        self._trades.append(trade)

    def _list_report(self, report: wire.ListStatus, partition: int) -> None:
        entry = self._lists.get(report.list_id) or self._store.order_list(report.list_id)
        if entry is None:
            return  # refused: there never was a list
        entry.status_type, entry.order_status = int(report.status_type), int(report.order_status)
        entry.updated_ns = report.transact_time
        ids = {}
        for order_id in entry.legs:
            key = (entry.instrument, order_id)
            order = self._live.get(key) or self._dirty_orders.get(key) or self._store.order(*key)
            if order is not None:
                ids[order_id] = order.client_id
        self._event(entry.account, partition, report.transact_time, self._view.list_status(entry, report, ids))
        self._dirty_lists[entry.list_id] = entry
        if entry.status_type == wire.ListStatusType.ALL_DONE:
            self._lists.pop(entry.list_id, None)

    def _event(self, account: int, partition: int, ts_ns: int, body: dict[str, Any]) -> None:
        counter = (account, partition)
        seq = self._counters[counter] = self._counters.get(counter, 0) + 1
        self._dirty_counters.add(counter)
        body[PARTITION_KEY], body[SEQUENCE_KEY] = partition, seq
        self._events.append(Event(self._next_event, account, partition, seq, ts_ns, orjson.dumps(body).decode()))
        self._next_event += 1

    # --- out --------------------------------------------------------------------------------------------------------

    def flush(self, positions: dict[str, Any]) -> None:
        """Write everything that was fed, with the positions it was read up to, as one commit."""
        store = self._store
        store.begin()
        store.put_reference(self._reference_rows)
        for name in self._dropped_keys:
            store.drop_reference(Key.__name__, name)
        store.put_orders(self._dirty_orders.values())
        store.drop_orders(self._dropped)
        store.put_lists(self._dirty_lists.values())
        store.put_rows("fills", list(map(_FILL, self._fills)))
        store.put_rows("trades", list(map(_TRADE, self._trades)))
        store.put_rows("prevented", self._prevented)
        store.put_rows("amendments", self._amendments)
        store.put_rows("events", list(map(_EVENT, self._events)))
        store.put_rows("counters", [(*counter, self._counters[counter]) for counter in self._dirty_counters])
        store.put_rows("texts", self._new_texts)
        store.put_meta(positions)
        store.commit()
        for batch in (
            self._reference_rows, self._dropped_keys, self._dirty_orders, self._dropped, self._dirty_lists,
            self._fills, self._trades, self._prevented, self._amendments, self._events, self._dirty_counters,
            self._new_texts,
        ):  # fmt: skip
            batch.clear()


_FILL: Callable[[Fill], tuple[Any, ...]] = attrgetter(*Fill.__slots__)
_TRADE: Callable[[Trade], tuple[Any, ...]] = attrgetter(*Trade.__slots__)
_EVENT: Callable[[Event], tuple[Any, ...]] = attrgetter(*Event.__slots__)


def _instrument(message: wire.InstrumentAdd) -> Instrument:
    return Instrument(
        id=message.instrument_id,
        native=message.symbol,
        base_asset=message.base_asset_id,
        quote_asset=message.quote_asset_id,
        partition=message.assigned_partition,
        tick_size=message.tick_size,
        price_exponent=message.price_exponent,
        lot_size=message.lot_size,
        qty_exponent=message.qty_exponent,
        quote_per_tick_lot=message.quote_per_tick_lot,
        base_per_lot=message.base_per_lot,
    )
