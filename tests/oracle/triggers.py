"""Stop, take-profit and trailing orders: what they wait for, in which order they fire, and their turn."""

from __future__ import annotations

from ringbuf.wire.messages import CancelReason, OrdStatus, Side
from tests.oracle.choices import BAND_SCALE
from tests.oracle.orders import LiveOrder, Market, goes_up
from tests.oracle.reports import MatcherReports


class Triggers(MatcherReports):
    """Waiting orders stand in `Market.waiting`; those that fired in `Market.queue` until their turn."""

    def condition_holds(self, order: LiveOrder, price: int) -> bool:
        """Return True if `price` reaches the stop price from the side the order waits for."""
        stop_px = order.terms.stop_px
        if stop_px is None:
            return False
        if goes_up(order.terms.ord_type, order.side):
            return price >= stop_px
        return price <= stop_px

    def wait(self, market: Market, order: LiveOrder) -> None:
        """Let an accepted order wait. A trailing order without a stop price is active at once."""
        market.waiting.append(order)
        if order.terms.trailing_delta and order.terms.stop_px is None:
            self.activate(market, order, market.last_px)

    def activate(self, market: Market, order: LiveOrder, price: int | None) -> None:
        """Let a trailing order follow the price from here on; without a price yet, from the first trade."""
        market.last_activation += 1
        order.is_active, order.activation, order.extreme = True, market.last_activation, price

    # -- a trade moves the last price ------------------------------------------------------------------------------

    def note_price(self, market: Market, price: int) -> None:
        """Move what the price fires to the end of the queue; activate and move trailing orders."""
        reached = self.reached(market, price)
        fired = [order for order in reached if not order.terms.trailing_delta]
        fired += self.trail(market, price)
        for order in reached:
            if order.terms.trailing_delta:
                self.activate(market, order, price)
        for order in fired:
            market.waiting.remove(order)
            market.queue.append(order)

    def reached(self, market: Market, price: int) -> list[LiveOrder]:
        """Return the orders whose stop price is reached: upwards by rising, downwards by falling stop price."""
        hit = [order for order in market.waiting if not order.is_active and self.condition_holds(order, price)]
        up = [order for order in hit if goes_up(order.terms.ord_type, order.side)]
        down = [order for order in hit if not goes_up(order.terms.ord_type, order.side)]
        # Sorting is stable: at one price they stay in order of acceptance.
        up.sort(key=lambda order: order.terms.stop_px or 0)
        down.sort(key=lambda order: -(order.terms.stop_px or 0))
        return up + down

    def trail(self, market: Market, price: int) -> list[LiveOrder]:
        """Move the extremes of active orders; return those that fire, sells first, in order of activation."""
        active = [order for order in market.waiting if order.is_active]
        active.sort(key=lambda order: order.activation)
        fired = [order for order in active if self.follows(order, price)]
        return [order for order in fired if order.side == Side.SELL] + [
            order for order in fired if order.side == Side.BUY
        ]

    def follows(self, order: LiveOrder, price: int) -> bool:
        """Take the price into the order's extreme; return True if it fires. The first price does not fire."""
        if order.extreme is None:
            order.extreme = price
            return False
        if order.side == Side.SELL:
            order.extreme = max(order.extreme, price)
            return price * BAND_SCALE <= order.extreme * (BAND_SCALE - order.terms.trailing_delta)
        order.extreme = min(order.extreme, price)
        return price * BAND_SCALE >= order.extreme * (BAND_SCALE + order.terms.trailing_delta)

    # -- the queue -------------------------------------------------------------------------------------------------

    def work_off_queue(self, market: Market) -> None:
        """Give every order that fired its turn, while the market matches."""
        while market.is_continuous and market.queue:
            order = market.queue.pop(0)
            self.peer_ends(order, reason=CancelReason.LIST_PEER_EXECUTED, status=OrdStatus.EXPIRED)
            order.is_waiting = False
            self.triggered(order)
            self.enter(market, order)
