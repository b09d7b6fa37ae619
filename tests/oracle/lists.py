"""OCO pairs in the matcher: both are accepted or none, and one ends the other."""

from __future__ import annotations

from ringbuf.wire.messages import CancelReason, OrdStatus, OrdType, RejectCode, Side
from tests.oracle.orders import LiveOrder, Market, OcoPair
from tests.oracle.records import OrderTerms
from tests.oracle.reports import MatcherReports


class MatcherLists(MatcherReports):
    """What is left of order lists once they are in the matcher. Pending legs are the sequencer's."""

    def new_pair(self, above_terms: OrderTerms, below_terms: OrderTerms) -> None:
        """Refuse both legs, the second one that is at fault with its own code, or accept both in their order."""
        market = self.markets[above_terms.instrument_id]
        above, below = LiveOrder.of(above_terms), LiveOrder.of(below_terms)
        for failed in (above, below):
            code, limit = self.leg_code(market, failed)
            if code == RejectCode.NONE:
                continue
            for leg in (above, below):
                own = (code, limit) if leg is failed else (RejectCode.INVALID_GROUP, 0)
                self.order_rejected(leg.terms, *own)
            return
        above.pair = below.pair = OcoPair(above, below)
        self.accept(market, above)
        self.accept(market, below)
        self.enter(market, above)
        self.enter(market, below)

    def leg_code(self, market: Market, leg: LiveOrder) -> tuple[int, int]:
        """Return (code, limit) of the first check a leg fails; a limit leg must be on its side of the last price."""
        code, limit = self.entry_code(market, leg)
        if code != RejectCode.NONE or leg.terms.ord_type != OrdType.LIMIT or market.last_px is None:
            return code, limit
        is_beyond = leg.price > market.last_px if leg.side == Side.SELL else leg.price < market.last_px
        return (RejectCode.NONE, 0) if is_beyond else (RejectCode.LIST_PRICE_RELATION, 0)

    # -- one ends the other ----------------------------------------------------------------------------------------

    def peers_end(self, maker: LiveOrder, taker: LiveOrder) -> None:
        """End the peers of two orders that traded, were prevented or transferred; the maker's first."""
        for order in (maker, taker):
            self.peer_ends(order, reason=CancelReason.LIST_PEER_EXECUTED, status=OrdStatus.EXPIRED)

    def peer_ends(self, order: LiveOrder, *, reason: int, status: int) -> None:
        """Dissolve the order's pair, if it is in one, and end the other leg."""
        if order.pair is None:
            return
        peer = order.pair.peer_of(order)
        order.pair = peer.pair = None
        self.end(peer, reason=reason, status=status)

    def leave_book(self, market: Market, order: LiveOrder) -> None:
        """Take an order out of the book, if it rests, or out of those that wait."""
        if order in market.waiting:
            market.waiting.remove(order)
        if order in market.queue:
            market.queue.remove(order)
        if order.is_resting:
            if order.visible:
                market.book.remove(order)
                self.event(market, "OrderDelete", order_id=order.order_id, side=order.side)
            order.is_resting, order.visible = False, 0

    def end(self, order: LiveOrder, *, reason: int, status: int, **request: int) -> None:
        """Cancel an order wherever it is, and the other leg of its pair right behind."""
        self.leave_book(self.market_of(order), order)
        self.canceled(order, reason=reason, status=status, **request)
        self.peer_ends(order, reason=CancelReason.LIST_CANCELED, status=OrdStatus.CANCELED)
