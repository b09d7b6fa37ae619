"""The course of an order through the continuous market: entry, trades, what becomes of the rest."""

from __future__ import annotations

from ringbuf.wire.messages import (
    CancelReason,
    Liquidity,
    MarketState,
    OrdStatus,
    OrdType,
    RejectCode,
    StpMode,
    TimeInForce,
)
from tests.oracle.accounts import Fee, trade_fees
from tests.oracle.book import crosses, opposite
from tests.oracle.choices import MARKET_UNFILLED_IS_NO_LIQUIDITY
from tests.oracle.lists import MatcherLists
from tests.oracle.orders import IMMEDIATE, WAITING_TYPES, LiveOrder, Market
from tests.oracle.prevention import Prevention
from tests.oracle.records import OrderTerms
from tests.oracle.triggers import Triggers
from tests.oracle.volatility import Volatility, is_outside_band

STATE_CODES = {
    MarketState.PRE_OPEN: RejectCode.NONE,
    MarketState.AUCTION: RejectCode.NONE,
    MarketState.CONTINUOUS: RejectCode.NONE,
    MarketState.CANCEL_ONLY: RejectCode.CANCEL_ONLY,
    MarketState.HALTED: RejectCode.MARKET_HALTED,
    MarketState.CLOSED: RejectCode.MARKET_CLOSED,
}
NOT_REFUSED = (RejectCode.NONE, 0)


class Matching(Prevention, Triggers, Volatility, MatcherLists):
    """New orders and their courses."""

    # -- entry -----------------------------------------------------------------------------------------------------

    def new_order(self, terms: OrderTerms) -> None:
        """Refuse an order, or accept it and let it go its course, and whatever it triggers."""
        market = self.markets[terms.instrument_id]
        order = LiveOrder.of(terms)
        code, limit = self.entry_code(market, order)
        if code != RejectCode.NONE:
            self.order_rejected(terms, code, limit)
            return
        self.accept(market, order)
        self.enter(market, order)
        self.work_off_queue(market)

    def entry_code(self, market: Market, order: LiveOrder) -> tuple[int, int]:
        """Return (code, limit) of the first of the matcher's checks that fails: state, trigger, post-only."""
        code = self.state_code(market, order)
        if code != RejectCode.NONE:
            return code, 0
        if order.terms.ord_type in WAITING_TYPES:
            if market.last_px is not None and self.condition_holds(order, market.last_px):
                return RejectCode.WOULD_TRIGGER_IMMEDIATELY, market.last_px
            return NOT_REFUSED
        return self.post_only_code(market, order, order.price)

    def state_code(self, market: Market, order: LiveOrder, *, is_new: bool = True) -> int:
        """Return the code with which the market state refuses a new order, or a replace of one."""
        code = STATE_CODES[MarketState(market.state)]
        if code != RejectCode.NONE or not market.is_collecting:
            return code
        is_market = order.terms.ord_type == OrdType.MARKET
        if is_market:
            by_quantity = order.amount is None and order.terms.time_in_force != TimeInForce.FOK
            is_taken = market.state == MarketState.AUCTION and by_quantity
        else:
            is_taken = order.terms.time_in_force not in IMMEDIATE
        if is_new and order.terms.min_qty:
            is_taken = False
        return RejectCode.NONE if is_taken else RejectCode.AUCTION_ONLY

    def post_only_code(self, market: Market, order: LiveOrder, price: int) -> tuple[int, int]:
        """Return (code, limit): a post-only order that would trade names the touch it would have met."""
        if order.post_only and market.is_continuous and self.would_cross(market, order.side, price):
            return RejectCode.WOULD_TAKE_LIQUIDITY, market.book.side(opposite(order.side))[0].price
        return NOT_REFUSED

    def would_cross(self, market: Market, side: int, price: int) -> bool:
        best = market.book.best(opposite(side))
        return best is not None and crosses(side, price, best.price)

    def accept(self, market: Market, order: LiveOrder) -> None:
        """Report an order as accepted: New, or Untriggered if it waits."""
        order.is_waiting = order.terms.ord_type in WAITING_TYPES
        self.order_accepted(order)
        if order.is_waiting:
            self.wait(market, order)

    def enter(self, market: Market, order: LiveOrder) -> None:
        """Let an order that waits for nothing into the market: trade, then rest or end."""
        if order.is_waiting:
            return
        if market.is_continuous:
            if not self.is_enough(market, order):
                return
            self.course(market, order)
        if order.order_id in self.orders:
            self.settle_down(market, order)

    # -- what could trade ------------------------------------------------------------------------------------------

    def is_enough(self, market: Market, order: LiveOrder) -> bool:
        """End a fill-or-kill order, or one with a minimum quantity, that cannot trade enough at once."""
        if order.terms.time_in_force == TimeInForce.FOK and not self.is_fillable(market, order, order.leaves):
            self.canceled(order, reason=CancelReason.FOK_NOT_FILLABLE, status=OrdStatus.EXPIRED)
            return False
        if order.terms.min_qty and not self.is_fillable(market, order, order.terms.min_qty):
            self.canceled(order, reason=CancelReason.MIN_QTY_NOT_FILLABLE, status=OrdStatus.EXPIRED)
            return False
        return True

    def is_fillable(self, market: Market, order: LiveOrder, quantity: int) -> bool:
        """Return True if this quantity could trade at once: whole orders count, to the limit and the band."""
        found = 0
        volatility_px = market.volatility_px
        for maker in market.book.within(order.side, order.price):
            if maker.stp_key == order.stp_key and order.terms.stp_mode != StpMode.NONE:
                if order.terms.stp_mode == StpMode.CANCEL_MAKER:
                    continue
                break
            if is_outside_band(market, volatility_px, maker.price):
                break
            if volatility_px is None:
                # The first trade will be what the next ones are measured by.
                volatility_px = maker.price
            found += maker.leaves
        return found >= quantity

    # -- the course ------------------------------------------------------------------------------------------------

    def course(self, market: Market, taker: LiveOrder) -> None:
        """Trade the taker down to its limit; stop where it ends, or where the market halts."""
        while taker.order_id in self.orders and market.is_continuous:
            maker = market.book.best(opposite(taker.side))
            if maker is None or not crosses(taker.side, taker.price, maker.price):
                return
            if self.open_quantity(market, taker, maker.price) == 0:
                self.amount_allows_no_lot(taker)
            elif self.is_self_trade(taker, maker):
                self.prevent(market, taker, maker)
            elif is_outside_band(market, market.volatility_px, maker.price):
                self.halt(market)
            else:
                self.trade(market, taker, maker)

    def open_quantity(self, market: Market, taker: LiveOrder, price: int) -> int:
        """Return the taker's whole rest; of an order by quote amount what the amount left allows at this price."""
        return taker.leaves if taker.amount is None else market.lots_for(taker.amount, price)

    def amount_allows_no_lot(self, taker: LiveOrder) -> None:
        """End an order by quote amount whose amount allows no lot at the best price."""
        if taker.cum:
            self.canceled(taker, reason=CancelReason.AMOUNT_SPENT, status=OrdStatus.FILLED)
        else:
            self.canceled(taker, reason=CancelReason.NO_LIQUIDITY, status=OrdStatus.EXPIRED)

    def is_self_trade(self, taker: LiveOrder, maker: LiveOrder) -> bool:
        return taker.terms.stp_mode != StpMode.NONE and taker.stp_key == maker.stp_key

    def trade_price(self, taker: LiveOrder, maker: LiveOrder) -> int:
        return maker.price

    def trade(self, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
        """Trade as much as the maker shows; then peers, triggers and the maker's next slice, in this order."""
        price = self.trade_price(taker, maker)
        quantity = min(self.open_quantity(market, taker, price), maker.visible)
        definition = market.definition
        maker_fee, taker_fee = trade_fees(
            taker_side=taker.side,
            base_units=quantity * definition.base_per_lot,
            quote_units=market.quote_units(price, quantity),
            assets=(definition.base_asset_id, definition.quote_asset_id),
            maker_rate=self.rates_of(maker)[0],
            taker_rate=self.rates_of(taker)[1],
        )
        market.last_trade_id += 1
        terms = {"trade_id": market.last_trade_id, "last_px": price, "last_qty": quantity}
        self.take_slice(market, maker, quantity)
        self.print_trade(market, maker, price, quantity)
        self.fill(market, maker, terms, Liquidity.MAKER, maker_fee, joined=True)
        self.fill(market, taker, terms, Liquidity.TAKER, taker_fee)
        self.peers_end(maker, taker)
        self.note_trade(market, price)
        self.next_slice(market, maker)

    def print_trade(
        self, market: Market, order: LiveOrder, price: int, quantity: int, *, implied: bool = False
    ) -> None:
        self.event(
            market,
            "OrderExecute",
            order_id=order.order_id,
            trade_id=market.last_trade_id,
            last_px=price,
            last_qty=quantity,
            side=order.side,
            implied=implied,
        )

    def fill(
        self,
        market: Market,
        order: LiveOrder,
        terms: dict[str, int],
        liquidity: int,
        fee: Fee,
        *,
        joined: bool = False,
    ) -> None:
        """Count a fill and report it."""
        order.cum += terms["last_qty"]
        if order.amount is not None:
            order.amount -= market.quote_units(terms["last_px"], terms["last_qty"])
        leaves = self.open_quantity(market, order, terms["last_px"])
        self.executed(order, terms, liquidity, fee, leaves, joined=joined)

    def note_trade(self, market: Market, price: int) -> None:
        """The last price moves, and with it whatever waits for it."""
        market.last_px = price
        if market.volatility_px is None:
            market.volatility_px = price
        self.note_price(market, price)

    def rates_of(self, order: LiveOrder) -> tuple[int, int]:
        """Return (maker, taker) rates in millionths: of the instrument, else of all instruments, else 0."""
        of_all = self.rates.get((order.terms.tier, 0), (0, 0))
        return self.rates.get((order.terms.tier, order.terms.instrument_id), of_all)

    # -- what becomes of the rest ----------------------------------------------------------------------------------

    def settle_down(self, market: Market, order: LiveOrder) -> None:
        """Rest what is left, or end it."""
        if order.may_rest or market.is_collecting:
            self.rest(market, order)
            return
        self.canceled(order, reason=self.rest_reason(market, order), status=OrdStatus.EXPIRED)

    def rest_reason(self, market: Market, order: LiveOrder) -> int:
        """Return why what is left of an order that cannot rest ends."""
        if not market.is_continuous:
            return CancelReason.INSTRUMENT_HALT
        if order.is_market_type and order.cum == 0 and MARKET_UNFILLED_IS_NO_LIQUIDITY:
            return CancelReason.NO_LIQUIDITY
        return CancelReason.IOC_REMAINDER

    def rest(self, market: Market, order: LiveOrder) -> None:
        """Let the order join the back of its level, an iceberg with its first or a fresh slice."""
        self.show(order)
        order.is_resting = True
        market.book.add(order)
        self.event(market, "OrderAdd", order_id=order.order_id, price=order.price, qty=order.visible, side=order.side)

    def show(self, order: LiveOrder) -> None:
        """Set the visible quantity of an order that joins its level."""
        size = order.display
        if size is not None and order.first_display is not None:
            size = order.first_display
        order.first_display = None
        order.visible = order.leaves if size is None else min(size, order.leaves)

    def take_slice(self, market: Market, order: LiveOrder, quantity: int) -> None:
        """Take a traded quantity off what an order shows; with nothing visible left it leaves the level."""
        order.visible -= quantity
        if order.visible == 0:
            market.book.remove(order)

    def next_slice(self, market: Market, order: LiveOrder) -> None:
        """Let the next slice of an iceberg that has shown all join the back of the level."""
        if order.is_resting and order.visible == 0:
            self.rest(market, order)
