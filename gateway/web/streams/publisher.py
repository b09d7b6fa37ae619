"""Turns live market data into messages of streams. What nobody listens to is not formatted.

Trades, aggregates and order events go out as they come; best prices with each poll; depth every 100 ms or second;
candles and statistics every second. Everything of one pair is as of one moment of the matcher.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from gateway.marketdata.columns import NO_PRICE
from gateway.web.errors import ApiError
from gateway.web.gateway import Gateway
from gateway.web.market_view import Bar
from gateway.web.reference import Instrument
from gateway.web.streams import payloads
from gateway.web.streams.aggregates import Aggregates
from gateway.web.streams.bars import bars_of, copied
from gateway.web.streams.depth import DepthStream
from gateway.web.streams.fanout import Audience, FanOut, Make
from gateway.web.streams.live import BESTS, LEVELS, POLL_LIMIT, TRADES, Batch, LiveMarket
from gateway.web.streams.names import FAST_MS, WINDOWS_MIN, Kind, Stream
from gateway.web.streams.orders import OrderStream, OrderStreams
from gateway.web.streams.tape import Key, Tape
from gateway.web.streams.trades import trade_frames, trade_rows

FAST_S, SLOW_S = FAST_MS / 1000, 1.0
POLL_S, IDLE_POLL_S = 0.001, 0.005
AVERAGE_MINUTES = 5
CLOSING_NS = 100_000_000  # after a candle's end, for trades that are still on their way
ALL = ""
DEPTH_KINDS = (Kind.DIFF, Kind.BOOK)
STATISTICS = (Kind.MINI, Kind.TICKER, Kind.WINDOW, Kind.AVERAGE)


Begin = Callable[[DepthStream | OrderStream], None]


class Market:
    """One pair: who listens, and what is kept for them."""

    def __init__(self, instrument_id: int) -> None:
        self.id = instrument_id
        self.audiences: dict[Kind, list[Audience]] = defaultdict(list)
        self.depths: dict[str, DepthStream] = {}
        self.tape: Tape | None = None
        self.aggregates: Aggregates | None = None
        self.best = ((0, 0), (0, 0))
        self.partial_ids: dict[str, int] = {}


class MarketPublisher:
    """All streams of a worker. `run()` must be running."""

    def __init__(self, gateway: Gateway, live: LiveMarket, fan: FanOut) -> None:
        self.gateway, self.live, self.fan = gateway, live, fan
        self._audiences: dict[Stream, Audience] = {}
        self._waiting: set[Stream] = set()  # have listeners; their pair is not known, or not ready, yet
        self._markets: dict[int, Market] = {}
        self._greetings: list[tuple[Stream, Begin]] = []
        self._orders = OrderStreams(live)
        self._fast_due = self._slow_due = 0.0
        self._stopping = False
        self._loading: set[asyncio.Task[None]] = set()

    # --- who listens --------------------------------------------------------------------------------------------------

    def audience(self, stream: Stream) -> Audience:
        """Return the listeners of a stream, to add one to them."""
        found = self._audiences.get(stream)
        if found is None:
            found = self._audiences[stream] = Audience(self.fan, stream)
            self._waiting.add(stream)
        return found

    def left(self, stream: Stream) -> None:
        """Somebody has left a stream."""
        audience = self._audiences.get(stream)
        if audience is None or len(audience) or any(each == stream for each, _ in self._greetings):
            return
        instrument = self.gateway.reference.by_symbol.get(stream.symbol)
        if stream.kind is Kind.L3 and instrument is not None:
            orders = self._orders.get(instrument)
            if orders is not None and orders.joining:
                return
            self._orders.remove(instrument)
        del self._audiences[stream]
        self._waiting.discard(stream)
        for market in self._markets.values():
            if audience in market.audiences[stream.kind]:
                market.audiences[stream.kind].remove(audience)
                market.depths.pop(stream.name, None)
                market.partial_ids.pop(stream.name, None)

    def greet(self, stream: Stream, begin: Begin) -> None:
        """Call `begin` at the next moment the book is whole and everything up to it has been told."""
        self._greetings.append((stream, begin))

    # --- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        while not self._stopping:
            more = self.step(time.monotonic())
            await asyncio.sleep(0 if more else POLL_S if self._audiences else IDLE_POLL_S)

    async def stop(self) -> None:
        self._stopping = True
        for task in self._loading:
            task.cancel()
        await asyncio.gather(*self._loading, return_exceptions=True)

    def step(self, now: float) -> bool:
        """Do what is due; return whether to go on at once: somebody listens and something came, or it was too much."""
        work, batches, lost = self.live.poll()
        if lost:
            self._lost(lost)
        if self._audiences:
            if batches:
                self._take(batches)
            self._orders.tell(self._now())
            if self.live.ready:
                self._begin()
            self._on_time(now)
        self.fan.poll()
        return work >= POLL_LIMIT or (bool(self._audiences) and (work > 0 or bool(batches)))

    def _on_time(self, now: float) -> None:
        if self._greetings:
            self._greet()
        if now >= self._fast_due:
            self._fast_due = now + FAST_S
            self._tell_depth(FAST_MS)
        if now >= self._slow_due:
            self._slow_due = now + SLOW_S
            self._tell_depth(int(SLOW_S * 1000))
            self._tell_candles()
            self._tell_statistics()

    def _instrument(self, market: Market) -> Instrument:
        return self.gateway.reference.instruments[market.id]

    def _begin(self) -> None:
        for stream in list(self._waiting):
            if stream.symbol == ALL:
                self._waiting.discard(stream)
                for each in self.gateway.reference.instruments.values():
                    self._tape(self._market(each.id))
                continue
            instrument = self.gateway.reference.by_symbol.get(stream.symbol)
            if instrument is None or not self.live.between_events(instrument.partition):
                continue
            self._waiting.discard(stream)
            self._join(stream, self._market(instrument.id), instrument)

    def _market(self, instrument_id: int) -> Market:
        return self._markets.setdefault(instrument_id, Market(instrument_id))

    def _join(self, stream: Stream, market: Market, instrument: Instrument) -> None:
        audience = self._audiences[stream]
        market.audiences[stream.kind].append(audience)
        if stream.kind in DEPTH_KINDS:
            market.depths[stream.name] = DepthStream(audience, self.live, instrument)
        elif stream.kind is Kind.L3:
            self._orders.add(audience, instrument)
        elif stream.kind is Kind.KLINE:
            key, tape = (stream.interval, stream.zone_s), self._tape(market)
            if tape.add_series(key):
                self._load(self._load_tape(tape, key))
        elif stream.kind in STATISTICS:
            self._tape(market)
        elif stream.kind is Kind.AGG_TRADE and market.aggregates is None:
            market.aggregates = Aggregates()
            self._load(self._load_aggregates(market))
        elif stream.kind is Kind.BOOK_TICKER:
            self._first_best(market, instrument, audience)

    def _first_best(self, market: Market, instrument: Instrument, audience: Audience) -> None:
        sides = self.live.sides(instrument, 1)
        if sides is not None:
            update_id, bids, asks = sides
            market.best = (bids or [(0, 0)])[0], (asks or [(0, 0)])[0]
            audience.tell(_same(payloads.book_ticker(instrument, update_id, *market.best)))

    def _greet(self) -> None:
        waiting, self._greetings = self._greetings, []
        greeted: set[Stream] = set()
        for stream, begin in waiting:
            told = self._told(stream)
            if told is not None and self.live.between_events(told.partition):
                if isinstance(told, DepthStream):
                    told.tell(self._now())
                begin(told)
                greeted.add(stream)
            elif stream in self._audiences:
                self._greetings.append((stream, begin))
        for stream in greeted:
            self.left(stream)  # if nobody awaited it any more

    def _told(self, stream: Stream) -> DepthStream | OrderStream | None:
        """Return what tells of a stream, once it does."""
        instrument = self.gateway.reference.by_symbol.get(stream.symbol)
        if instrument is None:
            return None
        if stream.kind is Kind.L3:
            return self._orders.get(instrument)
        market = self._markets.get(instrument.id)
        return None if market is None else market.depths.get(stream.name)

    # --- statistics from the store ------------------------------------------------------------------------------------

    def _tape(self, market: Market) -> Tape:
        if market.tape is None:
            market.tape = Tape(self._instrument(market), self.gateway.config.store_path)
            self._load(self._load_tape(market.tape, None))
        return market.tape

    def _load(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)

    async def _load_tape(self, tape: Tape, key: Key | None) -> None:
        await self._caught_up()
        await tape.load(key)

    async def _load_aggregates(self, market: Market) -> None:
        await self._caught_up()
        assert market.aggregates is not None
        market.aggregates.load(self.gateway.store, market.id)

    async def _caught_up(self) -> None:
        """All that the feed has told so far is in the store: reports are published before market data."""
        while True:
            try:
                await self.gateway.caught_up()
                return
            except ApiError:
                await asyncio.sleep(SLOW_S)

    # --- as it comes --------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return time.time_ns()

    def _lost(self, partitions: set[int]) -> None:
        """We were too slow, and a part is gone: whoever cannot do without it begins anew; statistics are read again."""
        for market in list(self._markets.values()):
            if self._instrument(market).partition not in partitions:
                continue
            for kind in (Kind.TRADE, Kind.AGG_TRADE, Kind.DIFF, Kind.BOOK):
                for audience in market.audiences[kind]:
                    audience.fail(f"{audience.stream.name} lost messages; connect again")
            market.tape = market.aggregates = None
            for kind in (Kind.KLINE, *STATISTICS):
                self._waiting.update(each.stream for each in market.audiences.pop(kind, []))
            self._waiting.update(stream for stream in self._audiences if stream.symbol == ALL)

    def _take(self, batches: Iterable[tuple[int, Batch]]) -> None:
        for _, batch in batches:
            self._take_trades(batch)
            self._take_bests(batch)
            self._take_levels(batch)

    def _of_markets(self, rows: Any) -> Iterable[tuple[Market, Any]]:
        """Yield the markets that are among the rows, and which rows are theirs."""
        ids = rows["instrument_id"]
        for market in self._markets.values():
            mask = ids == market.id
            if mask.any():
                yield market, mask

    def _take_trades(self, batch: Batch) -> None:
        rows, events = batch.rows(TRADES)
        if not len(rows):
            return
        for market, mask in list(self._of_markets(rows)):
            own, instrument, now_ns = rows[mask], self._instrument(market), self._now()
            if market.tape is not None:
                market.tape.take(own, bars_of(own, instrument.quote_per_tick_lot))
                self._tell_ended(market, instrument)
            if market.audiences[Kind.TRADE]:
                for audience in market.audiences[Kind.TRADE]:
                    audience.tell_frames(len(own), partial(trade_frames, instrument, own, now_ns))
            if market.audiences[Kind.AGG_TRADE] and market.aggregates is not None:
                ended = market.aggregates.take(trade_rows(own), events[mask].tolist())
                if ended:
                    made = [partial(payloads.aggregate, instrument, row, now_ns) for row in ended]
                    for audience in market.audiences[Kind.AGG_TRADE]:
                        audience.tell(*made)

    def _take_bests(self, batch: Batch) -> None:
        rows, _ = batch.rows(BESTS)
        if not len(rows):
            return
        for market, mask in self._of_markets(rows):
            newest, instrument = rows[mask][-1], self._instrument(market)
            bid = _side(int(newest["bid_px"]), int(newest["bid_qty"]))
            ask = _side(int(newest["ask_px"]), int(newest["ask_qty"]))
            market.best = bid, ask
            if market.audiences[Kind.BOOK_TICKER]:
                made = _same(payloads.book_ticker(instrument, int(newest["update_id"]), bid, ask))
                for audience in market.audiences[Kind.BOOK_TICKER]:
                    audience.tell(made)

    def _take_levels(self, batch: Batch) -> None:
        rows, _ = batch.rows(LEVELS)
        if not len(rows):
            return
        for market, mask in self._of_markets(rows):
            for depth in market.depths.values():
                depth.take(rows[mask])

    # --- on time ------------------------------------------------------------------------------------------------------

    def _tell_depth(self, speed_ms: int) -> None:
        now_ns = self._now()
        for market in self._markets.values():
            instrument = self._instrument(market)
            if not self.live.between_events(instrument.partition):
                continue
            for depth in market.depths.values():
                if depth.stream.speed_ms == speed_ms:
                    depth.tell(now_ns)
            for audience in market.audiences[Kind.PARTIAL]:
                if audience.stream.speed_ms == speed_ms:
                    self._tell_partial(market, instrument, audience)

    def _tell_partial(self, market: Market, instrument: Instrument, audience: Audience) -> None:
        sides = self.live.sides(instrument, audience.stream.levels)
        if sides is None or market.partial_ids.get(audience.stream.name) == sides[0]:
            return
        market.partial_ids[audience.stream.name] = sides[0]
        audience.tell(_same(payloads.partial_depth(instrument, *sides)))

    def _tell_ended(self, market: Market, instrument: Instrument) -> None:
        """Tell of candles that have ended: once each, and to the slow as well."""
        assert market.tape is not None
        for (interval, zone_s), candles in market.tape.ended().items():
            self._tell_bars(market, instrument, interval, zone_s, candles, closed=True)

    def _tell_candles(self) -> None:
        now_ns = self._now()
        for market in self._markets.values():
            if market.tape is None or not market.audiences[Kind.KLINE]:
                continue
            instrument = self._instrument(market)
            market.tape.until(now_ns - CLOSING_NS)
            self._tell_ended(market, instrument)
            for (interval, zone_s), candle in market.tape.changed().items():
                self._tell_bars(market, instrument, interval, zone_s, [copied(candle)], closed=False)

    def _tell_bars(
        self, market: Market, instrument: Instrument, interval: str, zone_s: int, bars: list[Bar], *, closed: bool
    ) -> None:
        reference, now_ns = self.gateway.reference, self._now()
        made = [_kline(instrument, reference, interval, bar, now_ns, closed=closed) for bar in bars]
        for audience in market.audiences[Kind.KLINE]:
            if (audience.stream.interval, audience.stream.zone_s) == (interval, zone_s):
                audience.tell(*made, keep=closed)

    def _tell_statistics(self) -> None:
        changed: list[Market] = []
        for market in self._markets.values():
            if market.tape is None or not market.tape.statistics_changed():
                continue
            changed.append(market)
            for kind in STATISTICS:
                for audience in market.audiences[kind]:
                    audience.tell(self._statistics(market, audience.stream))
        for stream, audience in self._audiences.items():
            if stream.symbol == ALL and changed:
                audience.tell(_array([self._statistics(market, stream) for market in changed]))

    def _statistics(self, market: Market, stream: Stream) -> Make:
        assert market.tape is not None
        instrument, reference, now_ns = self._instrument(market), self.gateway.reference, self._now()
        if stream.kind is Kind.AVERAGE:
            bar, _ = market.tape.window(AVERAGE_MINUTES, now_ns)
            return lambda unit: payloads.average(instrument, reference, AVERAGE_MINUTES, bar, now_ns, unit)
        bar, before = market.tape.window(WINDOWS_MIN[stream.window], now_ns)
        if stream.kind is Kind.MINI:
            return lambda unit: payloads.mini(instrument, reference, bar, now_ns, unit)
        if stream.kind is Kind.WINDOW:
            return lambda unit: payloads.window(instrument, reference, stream.window, bar, now_ns, unit)
        best = market.best
        return lambda unit: payloads.day(instrument, reference, bar, before, best, now_ns, unit)


def _same(body: payloads.Body) -> Make:
    """Return what says the same in every unit of time."""
    return lambda _: body


def _array(made: list[Make]) -> Make:
    return lambda unit_ns: [make(unit_ns) for make in made]


def _kline(instrument: Instrument, reference: Any, interval: str, bar: Bar, now_ns: int, *, closed: bool) -> Make:
    return lambda unit: payloads.kline(instrument, reference, interval, bar, unit, now_ns, closed=closed)


def _side(price: int, quantity: int) -> tuple[int, int]:
    return (0, 0) if price == NO_PRICE else (price, quantity)
