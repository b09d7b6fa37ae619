"""Market states: what a change of state causes, schedules, and what a tick does."""

from __future__ import annotations

from ringbuf.wire.messages import CancelReason, InstrumentState, MarketState, OrdStatus, OrdType, RejectCode
from tests.oracle.auction import Auctions
from tests.oracle.choices import DAY_SECONDS, INDICATIVE_INTERVAL_NS, SECOND_NS
from tests.oracle.orders import Market
from tests.oracle.records import NO_SESSION, Record


class MarketStates(Auctions):
    """Changes of state by the operator, the schedule and the volatility band."""

    def change_state(self, record: Record, message: InstrumentState) -> None:
        """Do what the operator asks for; it ends the way back from a volatility halt."""
        market = self.markets.get(message.instrument_id)
        if market is not None:
            market.halt = None
            self.set_state(market, message.state, session=record.session, request_id=message.request_id)

    def set_state(
        self, market: Market, state: int, *, session: int = NO_SESSION, request_id: int = 0
    ) -> None:
        """Report the change, then do what follows from it. A change to the same state is only reported."""
        previous, market.state = market.state, state
        self.report(
            session,
            "InstrumentStateReport",
            numbered=False,
            request_id=request_id,
            instrument_id=market.instrument_id,
            state=state,
            previous=previous,
            reject_code=RejectCode.NONE,
        )
        if state == previous:
            return
        self.event(market, "InstrumentStatus", status=state)
        if state == MarketState.CONTINUOUS:
            self.uncross(market)
        if previous == MarketState.AUCTION:
            self.end_auction_orders(market)
        if state == MarketState.AUCTION:
            self.publish_indicative(market)
        self.work_off_queue(market)

    def end_auction_orders(self, market: Market) -> None:
        """End the market orders that rested for the auction, in order of acceptance."""
        resting = [order for order in market.book.bids + market.book.asks if order.terms.ord_type == OrdType.MARKET]
        for order in sorted(resting, key=lambda order: order.order_id):
            self.end(order, reason=CancelReason.AUCTION_END, status=OrdStatus.EXPIRED)

    # -- ticks -----------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """Do what time does, market by market."""
        before_ns, self.tick_ns, self.now_ns = self.tick_ns, now_ns, now_ns
        for instrument_id in sorted(self.markets):
            market = self.markets[instrument_id]
            for state in self.scheduled(market, before_ns):
                market.halt = None
                self.set_state(market, state)
            self.volatility_step(market)
            self.expire(market)
            self.tick_indicative(market)
            self.volatility_reference(market, before_ns)

    def scheduled(self, market: Market, before_ns: int | None) -> list[int]:
        """Return the states the schedule asks for between the tick before and now, in order of time, then entry."""
        if before_ns is None:
            return []
        passed = []
        for entry, row in market.schedule.items():
            second = self.now_ns // SECOND_NS // DAY_SECONDS * DAY_SECONDS + row.second_of_day
            while second * SECOND_NS > before_ns:
                if second * SECOND_NS <= self.now_ns:
                    passed.append((second, entry, row.state))
                second -= DAY_SECONDS
        return [state for _, _, state in sorted(passed)]

    def expire(self, market: Market) -> None:
        """End the orders whose time is up: by time, then in order of acceptance."""
        over = [
            order
            for order in self.orders.values()
            if self.market_of(order) is market
            and order.terms.expire_s is not None
            and order.terms.expire_s * SECOND_NS <= self.now_ns
        ]
        # Orders are kept in order of acceptance, and sorting is stable.
        for order in sorted(over, key=lambda order: order.terms.expire_s or 0):
            if order.order_id in self.orders:
                self.end(order, reason=CancelReason.EXPIRED, status=OrdStatus.EXPIRED)

    def tick_indicative(self, market: Market) -> None:
        """Publish the auction's price again if the book has changed, at most every 100 ms."""
        if (
            market.state == MarketState.AUCTION
            and market.book.contents() != market.indicative_book
            and self.now_ns - market.indicative_ns >= INDICATIVE_INTERVAL_NS
        ):
            self.publish_indicative(market)
