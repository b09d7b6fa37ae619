"""Two-sided quotes in the matcher."""

from __future__ import annotations

from ringbuf.wire.messages import CancelReason, OrdStatus, Quote, RejectCode, RestateReason, Side
from tests.oracle.changes import Changes
from tests.oracle.orders import LiveOrder, Market, QuoteSet
from tests.oracle.records import OrderTerms, QuoteSides, Record


class Quotes(Changes):
    """A quote replaces what is left of its predecessor, side by side."""

    def quote(self, record: Record, message: Quote, sides: QuoteSides) -> None:
        """Keep or cancel the old sides, answer, then place the new ones; the bid first each time."""
        market = self.markets[message.instrument_id]
        key = (record.account_id, message.quote_set_id)
        quotes = market.quotes.setdefault(key, QuoteSet(message.quote_set_id))
        wanted = {Side.BUY: sides.bid, Side.SELL: sides.ask}
        kept = {side for side in wanted if self.is_kept(quotes.live.get(side), wanted[side])}
        covers = {}
        for side, terms in wanted.items():
            covers[side] = self.clear_side(market, record, quotes, side, terms, keep=side in kept)
        placed = {side: terms for side, terms in wanted.items() if terms is not None and side not in kept}
        codes = {side: self.side_code(market, terms, covers[side]) for side, terms in placed.items()}
        self.acknowledge(record, message, quotes, wanted, codes)
        for side, terms in placed.items():
            if codes[side] == RejectCode.NONE:
                self.place_side(market, quotes, terms)

    def is_kept(self, live: LiveOrder | None, terms: OrderTerms | None) -> bool:
        """Return True if the side's order may stay: the same price and no more quantity than is open."""
        return live is not None and terms is not None and live.price == terms.price and terms.quantity <= live.leaves

    def clear_side(
        self, market: Market, record: Record, quotes: QuoteSet, side: int, terms: OrderTerms | None, *, keep: bool
    ) -> int:
        """Reduce the kept order of a side in its place, or cancel it; return the cover it leaves."""
        live = quotes.live.get(side)
        if live is None:
            return 0
        if keep and terms is not None:
            if terms.quantity < live.leaves:
                self.reduce_to(market, live, live.cum + terms.quantity)
                self.replaced(live, live.cl_ord_id, record=record, keeps=True, reason=RestateReason.QUOTE)
                # No mark may fall between the first report of a quote and its QuoteAck.
                self.reports[-1].joined = True
            return 0
        cover = self.cover_of(live)
        self.end(live, reason=CancelReason.QUOTE_REPLACED, status=OrdStatus.CANCELED, joined=True)
        return cover

    def side_code(self, market: Market, terms: OrderTerms, old_cover: int) -> int:
        """Return why a side cannot be placed: cover, then market state, then post-only."""
        if old_cover + terms.extra < terms.need:
            return RejectCode.INSUFFICIENT_BALANCE
        return self.entry_code(market, LiveOrder.of(terms))[0]

    def place_side(self, market: Market, quotes: QuoteSet, terms: OrderTerms) -> None:
        """Let a side in like a limit order; the QuoteAck has accepted it."""
        order = LiveOrder.of(terms)
        order.quote = quotes
        quotes.live[order.side] = order
        self.orders[order.order_id] = order
        self.enter(market, order)
        self.work_off_queue(market)

    def acknowledge(
        self,
        record: Record,
        message: Quote,
        quotes: QuoteSet,
        wanted: dict[Side, OrderTerms | None],
        codes: dict[Side, int],
    ) -> None:
        fields = {}
        for side, name in ((Side.BUY, "bid"), (Side.SELL, "ask")):
            live, terms = quotes.live.get(side), wanted[side]
            new_id = None if terms is None else terms.order_id
            code = codes.get(side, RejectCode.NONE)
            if code != RejectCode.NONE:
                order_id, status, unused = None, OrdStatus.REJECTED, new_id
            elif terms is None:
                order_id, status, unused = None, OrdStatus.CANCELED, None
            elif live is not None:
                order_id, status, unused = live.order_id, self.live_status(live), new_id
            else:
                order_id, status, unused = new_id, OrdStatus.NEW, None
            fields[f"{name}_order_id"] = order_id
            fields[f"{name}_status"] = status
            fields[f"{name}_reject_code"] = code
            fields[f"{name}_unused_id"] = unused
        self.report(
            record.session,
            "QuoteAck",
            quote_id=message.quote_id,
            ref_seq_num=record.seq_num,
            instrument_id=message.instrument_id,
            account_id=record.account_id,
            quote_set_id=message.quote_set_id,
            **fields,
        )
