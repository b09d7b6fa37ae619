"""Self-trade prevention: what happens instead when an order meets one of its own owner."""

from __future__ import annotations

from ringbuf.wire.messages import CancelReason, Liquidity, OrdStatus, Side, StpMode
from tests.oracle.accounts import Fee
from tests.oracle.orders import LiveOrder, Market
from tests.oracle.reports import MatcherReports


class Prevention(MatcherReports):
    """The six modes. In an auction both orders rest: the younger one is the taker."""

    def prevent(self, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
        """Apply the taker's mode to the pair; the maker's report comes first. OCO peers end as with a trade."""
        mode = taker.terms.stp_mode
        if self.is_transfer(taker, maker):
            self.transfer(market, taker, maker)
            return
        market.last_prevented_id += 1
        if mode in (StpMode.DECREMENT, StpMode.TRANSFER):
            self.decrement(market, taker, maker)
            return
        losers = {
            StpMode.CANCEL_TAKER: (taker,),
            StpMode.CANCEL_MAKER: (maker,),
            StpMode.CANCEL_BOTH: (maker, taker),
        }[StpMode(mode)]
        for order in losers:
            lost = self.rest_of(market, order, maker.price)
            self.leave_book(market, order)
            self.prevented_at(market, order, maker if order is taker else taker, lost, taker, maker)
        for order in losers:
            self.peer_ends(order, reason=CancelReason.LIST_PEER_EXECUTED, status=OrdStatus.EXPIRED)

    def rest_of(self, market: Market, order: LiveOrder, price: int) -> int:
        """Return all that is left of an order, hidden quantity included."""
        return order.leaves if order.amount is None else market.lots_for(order.amount, price)

    def meeting_quantity(self, market: Market, taker: LiveOrder, maker: LiveOrder) -> int:
        """Return the smaller open quantity: a resting order's visible slice, an incoming one's whole rest."""
        open_quantity = taker.visible if taker.is_resting else self.rest_of(market, taker, maker.price)
        return min(maker.visible, open_quantity)

    def decrement(self, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
        quantity = self.meeting_quantity(market, taker, maker)
        for order in (maker, taker):
            self.hide(market, order, quantity)
            self.prevented_at(market, order, maker if order is taker else taker, quantity, taker, maker)
        self.peers_end(maker, taker)
        self.next_slice(market, maker)
        self.next_slice(market, taker)

    def prevented_at(
        self,
        market: Market,
        order: LiveOrder,
        counter: LiveOrder,
        quantity: int,
        taker: LiveOrder,
        maker: LiveOrder,
    ) -> None:
        """Take a prevented quantity off an order and report it."""
        if order.amount is None:
            order.total -= quantity
        else:
            order.amount -= market.quote_units(maker.price, quantity)
        is_over = order is taker and taker.terms.stp_mode in (StpMode.CANCEL_TAKER, StpMode.CANCEL_BOTH)
        leaves = 0 if is_over else self.rest_of(market, order, maker.price)
        liquidity = Liquidity.MAKER if order is maker else Liquidity.TAKER
        self.prevented(order, counter, quantity, leaves, mode=taker.terms.stp_mode, liquidity=liquidity)

    # -- transfers -------------------------------------------------------------------------------------------------

    def is_transfer(self, taker: LiveOrder, maker: LiveOrder) -> bool:
        """Return True if quantity changes hands: both modes are Transfer and the accounts differ."""
        both = taker.terms.stp_mode == maker.terms.stp_mode == StpMode.TRANSFER
        return both and taker.terms.account_id != maker.terms.account_id

    def transfer(self, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
        """Move the smaller open quantity at the maker's price or the auction's, without fees. It is no trade."""
        quantity = self.meeting_quantity(market, taker, maker)
        price = maker.price if market.auction_px is None else market.auction_px
        terms = {"trade_id": 0, "last_px": price, "last_qty": quantity}
        definition = market.definition
        for order in (maker, taker):
            asset_id = definition.base_asset_id if order.side == Side.BUY else definition.quote_asset_id
            self.hide(market, order, quantity)
            self.fill(market, order, terms, Liquidity.TRANSFER, Fee(0, asset_id), joined=order is maker)
        self.peers_end(maker, taker)
        self.next_slice(market, maker)
        self.next_slice(market, taker)

    # -- the visible part ------------------------------------------------------------------------------------------

    def hide(self, market: Market, order: LiveOrder, quantity: int) -> None:
        """Take a quantity off what a resting order shows; an incoming one shows nothing yet."""
        if not order.is_resting:
            return
        order.visible -= quantity
        if order.visible == 0:
            market.book.remove(order)
            self.event(market, "OrderDelete", order_id=order.order_id, side=order.side)
        else:
            self.event(market, "OrderReduce", order_id=order.order_id, new_qty=order.visible, side=order.side)
