"""Call auctions: the price, the uncrossing, and what is told of it beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ringbuf.wire.messages import Liquidity, MarketState, Side, SideOrBoth
from tests.oracle.accounts import charged_fee
from tests.oracle.book import Book
from tests.oracle.orders import LiveOrder, Market
from tests.oracle.records import NO_SESSION
from tests.oracle.reports import MatcherReports


@dataclass(frozen=True, slots=True)
class Clearing:
    """A price and what would trade there."""

    price: int
    volume: int
    surplus: int

    @property
    def surplus_side(self) -> int:
        if self.surplus == 0:
            return SideOrBoth.BOTH
        return SideOrBoth.BUY if self.surplus > 0 else SideOrBoth.SELL


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring prices, both ends included, at which demand and supply are the same."""

    low: int
    high: int
    demand: int
    supply: int

    @property
    def volume(self) -> int:
        return min(self.demand, self.supply)

    @property
    def surplus(self) -> int:
        return self.demand - self.supply


def stretches(book: Book) -> list[Stretch]:
    """Return all prices from the best ask to the best bid of a crossed book: only there something can trade."""
    low, high = book.asks[0].price, book.bids[0].price
    # Demand changes just above a bid, supply at an ask: each of these prices begins a stretch.
    begins = {low} | {bid.price + 1 for bid in book.bids} | {ask.price for ask in book.asks}
    edges = [price for price in sorted(begins) if low <= price <= high] + [high + 1]
    return [
        Stretch(
            low=begin,
            high=end - 1,
            demand=sum(bid.leaves for bid in book.bids if bid.price >= begin),
            supply=sum(ask.leaves for ask in book.asks if ask.price <= begin),
        )
        for begin, end in pairwise(edges)
    ]


def clearing(book: Book, reference: int | None) -> Clearing | None:
    """Return where the book would uncross: greatest volume, least surplus, pressure, reference. None: not crossed."""
    if not book.is_crossed():
        return None
    left = stretches(book)
    most = max(stretch.volume for stretch in left)
    left = [stretch for stretch in left if stretch.volume == most]
    least = min(abs(stretch.surplus) for stretch in left)
    left = [stretch for stretch in left if abs(stretch.surplus) == least]
    price = chosen_price(left, reference)
    demand = sum(bid.leaves for bid in book.bids if bid.price >= price)
    supply = sum(ask.leaves for ask in book.asks if ask.price <= price)
    return Clearing(price, min(demand, supply), demand - supply)


def chosen_price(left: list[Stretch], reference: int | None) -> int:
    """Return the price among those left: the highest under buying pressure, the lowest under selling pressure."""
    lowest, highest = left[0].low, left[-1].high
    if all(stretch.surplus > 0 for stretch in left):
        return highest
    if all(stretch.surplus < 0 for stretch in left):
        return lowest
    if reference is None:
        return (lowest + highest) // 2
    return min(max(reference, lowest), highest)


class Auctions(MatcherReports):
    """The uncrossing at the end of a call phase, and the indicative price before it."""

    def auction_reference(self, market: Market) -> int | None:
        if market.last_px is not None:
            return market.last_px
        return market.limits.reference_px if market.limits is not None else None

    def uncross(self, market: Market) -> None:
        """Trade the crossed book at one price; again, where prevention has left it crossed."""
        while (found := clearing(market.book, self.auction_reference(market))) is not None:
            last_trade_id = market.last_trade_id
            while self.trades_at(market, found.price):
                self.meet(market, market.book.bids[0], market.book.asks[0], found.price)
            if market.last_trade_id != last_trade_id:
                market.volatility_px = found.price
                self.note_price(market, found.price)

    def trades_at(self, market: Market, price: int) -> bool:
        book = market.book
        return bool(book.bids and book.asks) and book.bids[0].price >= price >= book.asks[0].price

    def meet(self, market: Market, bid: LiveOrder, ask: LiveOrder, price: int) -> None:
        """Let the two front orders trade; the younger one counts as the taker."""
        maker, taker = self.by_age(bid, ask)
        if self.is_self_trade(taker, maker):
            market.auction_px = price
            self.prevent(market, taker, maker)
            market.auction_px = None
        else:
            self.auction_trade(market, bid, ask, price)

    def by_age(self, bid: LiveOrder, ask: LiveOrder) -> tuple[LiveOrder, LiveOrder]:
        """Return (older, younger): the order with the larger id is the younger one."""
        return (bid, ask) if bid.order_id < ask.order_id else (ask, bid)

    def auction_trade(self, market: Market, bid: LiveOrder, ask: LiveOrder, price: int) -> None:
        """Trade the smaller visible quantity; the bid is reported first and both pay the taker's rate."""
        quantity = min(bid.visible, ask.visible)
        definition = market.definition
        market.last_trade_id += 1
        terms = {"trade_id": market.last_trade_id, "last_px": price, "last_qty": quantity}
        received = {
            Side.BUY: (quantity * definition.base_per_lot, definition.base_asset_id),
            Side.SELL: (market.quote_units(price, quantity), definition.quote_asset_id),
        }
        for order in (bid, ask):
            self.take_slice(market, order, quantity)
            self.print_trade(market, order, price, quantity, implied=order is bid)
        for order in (bid, ask):
            units, asset_id = received[Side(order.side)]
            fee = charged_fee(units, asset_id, self.rates_of(order)[1])
            self.fill(market, order, terms, Liquidity.AUCTION, fee, joined=order is bid)
        self.peers_end(*self.by_age(bid, ask))
        market.last_px = price
        self.next_slice(market, bid)
        self.next_slice(market, ask)

    # -- the indicative price --------------------------------------------------------------------------------------

    def publish_indicative(self, market: Market) -> None:
        """Tell where the book would uncross now."""
        market.indicative_book, market.indicative_ns = market.book.contents(), self.now_ns
        found = clearing(market.book, self.auction_reference(market))
        shown = {
            "indicative_px": None if found is None else found.price,
            "indicative_qty": 0 if found is None else found.volume,
            "surplus_qty": 0 if found is None else abs(found.surplus),
            "surplus_side": SideOrBoth.BOTH if found is None else found.surplus_side,
        }
        self.report(
            NO_SESSION,
            "AuctionInfo",
            numbered=False,
            instrument_id=market.instrument_id,
            state=MarketState.AUCTION,
            **shown,
        )
        self.event(market, "AuctionIndicative", **shown)


