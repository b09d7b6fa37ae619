"""`bullring feed watch SYMBOL`: the live ladder and tape in the terminal, from the binary feed."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from gateway.clients import Level, MarketFeed, OrderBook
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_messages import EventFlags, InstrumentDefinition, OrderExecute
from ringbuf.wire.messages import MarketState, Side
from scripts.arguments import duration_s
from scripts.config import Config
from scripts.exit_codes import ExitCode
from scripts.feed.desk import add_login, answered, desk

FRAME_S = 0.1
TAPE_LENGTH = 200
HEADER_LINES, FOOTER_LINES = 3, 1
BAR_WIDTH = 16
GREEN, RED, BOLD, DIM, RESET = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
ENTER, LEAVE, HOME, ERASE_LINE, ERASE_BELOW = (
    "\x1b[?1049h\x1b[?25l",
    "\x1b[?25h\x1b[?1049l",
    "\x1b[H",
    "\x1b[K",
    "\x1b[J",
)
NS_PER_S = 10**9


@dataclass(frozen=True)
class Print:
    """A trade of the tape."""

    time_ns: int
    price: int
    quantity: int
    bought: bool


@dataclass
class View:
    """What is shown: one instrument in decimals."""

    definition: InstrumentDefinition
    book: OrderBook
    tape: deque[Print] = field(default_factory=lambda: deque(maxlen=TAPE_LENGTH))
    events: int = 0
    number: int = 0

    def take(self, number: int, message: WireMessage) -> None:
        """Note an event of the channel."""
        self.events += 1
        self.number = number
        if isinstance(message, OrderExecute) and message.instrument_id == self.definition.instrument_id:
            if int(message.event_flags) & EventFlags.IMPLIED:
                return  # the other half of an auction's print
            bought = message.side == Side.SELL  # the resting order's side
            self.tape.appendleft(Print(message.transact_time, message.last_px, message.last_qty, bought))

    def price(self, ticks: int) -> str:
        step = Decimal(self.definition.tick_size).scaleb(self.definition.price_exponent)
        return f"{ticks * step:f}"

    def quantity(self, lots: int) -> str:
        step = Decimal(self.definition.lot_size).scaleb(self.definition.qty_exponent)
        return f"{lots * step:f}"

    def levels(self, side: Side, count: int) -> list[Level]:
        return [level for level, _ in zip(self.book.levels(side), range(count), strict=False)]

    def facts(self) -> dict[str, object]:
        """Return the view as JSON."""
        return {
            "symbol": self.definition.symbol,
            "number": self.number,
            "status": status_text(self.book),
            "bids": [[self.price(each.price), self.quantity(each.quantity)] for each in self.levels(Side.BUY, 10)],
            "asks": [[self.price(each.price), self.quantity(each.quantity)] for each in self.levels(Side.SELL, 10)],
            "trades": len(self.tape),
            "digests": self.book.digests,
        }


def status_text(book: OrderBook) -> str:
    state = MarketState.CONTINUOUS if book.status is None else book.status
    return state.name.lower() if isinstance(state, MarketState) else str(state)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("symbol", help="for instance BTC-USDT")
    parser.add_argument("--depth", type=int, default=0, metavar="N", help="levels a side (default: what fits)")
    parser.add_argument("--seconds", type=duration_s, metavar="N", help="end by itself after this time")
    parser.add_argument("--plain", action="store_true", help="no colours, one frame after the other")
    add_login(parser)


async def watch(options: argparse.Namespace, config: Config) -> int:
    """Show until Ctrl-C. Raises CommandError."""
    place = desk(options, config)
    definition = await place.instrument(options.symbol)
    fancy = sys.stdout.isatty() and not options.plain and not options.json
    feed = MarketFeed(definition.partition, place.servers, user=place.user, password=place.password)
    async with feed:
        book = feed.books.setdefault(definition.instrument_id, OrderBook(definition.instrument_id))
        view = View(definition, book)
        screen = asyncio.create_task(_draw(view, feed, options, fancy=fancy))
        reading = asyncio.ensure_future(answered(_read(feed, view), place.servers))
        if fancy:
            print(ENTER, end="")
        try:
            await asyncio.wait({screen, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (screen, reading):
                task.cancel()
            if fancy:
                print(LEAVE, end="", flush=True)
        if reading.done() and not reading.cancelled():
            reading.result()
    return ExitCode.OK


async def _read(feed: MarketFeed, view: View) -> None:
    async for number, message in feed.events():
        view.take(number, message)


async def _draw(view: View, feed: MarketFeed, options: argparse.Namespace, *, fancy: bool) -> None:
    end = None if options.seconds is None else time.monotonic() + options.seconds
    seen, since, rate = 0, time.monotonic(), 0.0
    while end is None or time.monotonic() < end:
        await asyncio.sleep(FRAME_S if fancy else 1.0)
        now = time.monotonic()
        if now - since >= 1.0:
            rate, seen, since = (view.events - seen) / (now - since), view.events, now
        if not feed.ready or view.book.event_open:
            continue
        if options.json:
            print(json.dumps(view.facts()), flush=True)
            continue
        size = shutil.get_terminal_size((100, 40))
        rows = options.depth or max(3, (size.lines - HEADER_LINES - FOOTER_LINES - 1) // 2)
        lines = frame(view, feed, rows=rows, rate=rate, colours=fancy)
        if fancy:
            shown = [line + ERASE_LINE for line in lines[: size.lines - 1]]
            print(HOME + "\n".join(shown) + ERASE_BELOW, end="", flush=True)
        else:
            print("\n".join([*lines, ""]), flush=True)


def frame(view: View, feed: MarketFeed, *, rows: int, rate: float, colours: bool) -> list[str]:
    """Return the screen: asks from far to near, spread, bids from near to far, the tape beside them."""
    bids, asks = view.levels(Side.BUY, rows), view.levels(Side.SELL, rows)
    largest = max([level.quantity for level in (*bids, *asks)], default=1)
    ladder = [""] * (rows - len(asks))
    ladder += [_level(view, level, largest, RED if colours else "") for level in reversed(asks)]
    spread = view.price(asks[0].price - bids[0].price) if bids and asks else "-"
    ladder.append(f"{'spread':>14} {spread:>14}")
    ladder += [_level(view, level, largest, GREEN if colours else "") for level in bids]
    tape = [_print(view, each, colours) for each in list(view.tape)[: len(ladder)]]
    tape += [""] * (len(ladder) - len(tape))
    source = "packets" if feed.live else "replay"
    bold, dim, reset = (BOLD, DIM, RESET) if colours else ("", "", "")
    head = f"{bold}{view.definition.symbol}{reset}  {status_text(view.book)}  channel {feed.channel} at {view.number}"
    facts = f"{dim}{rate:,.0f} events/s, {source}, {view.book.digests} digests agree, {feed.mismatches} restarts{reset}"
    titles = f"{'quantity':>14} {'price':>14} {'orders':>6} {'':{BAR_WIDTH}}  time          price        quantity"
    body = [
        f"{_pad(left, 14 + 1 + 14 + 1 + 6 + 1 + BAR_WIDTH)}  {right}" for left, right in zip(ladder, tape, strict=True)
    ]
    return [head, facts, titles, *body]


def _level(view: View, level: Level, largest: int, colour: str) -> str:
    bar = "#" * max(1, BAR_WIDTH * level.quantity // largest)
    reset = RESET if colour else ""
    return f"{view.quantity(level.quantity):>14} {colour}{view.price(level.price):>14}{reset} {level.orders:>6} {bar}"


def _print(view: View, each: Print, colours: bool) -> str:
    when = datetime.fromtimestamp(each.time_ns / NS_PER_S, UTC).strftime("%H:%M:%S.%f")[:-3]
    colour, reset = ((GREEN if each.bought else RED), RESET) if colours else ("", "")
    return f"{when}  {colour}{view.price(each.price):>12}{reset} {view.quantity(each.quantity):>12}"


def _pad(text: str, width: int) -> str:
    """Pad to a width on the screen: colours take no room."""
    visible = text
    for code in (GREEN, RED, RESET):
        visible = visible.replace(code, "")
    return text + " " * (width - len(visible))
