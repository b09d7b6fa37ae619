"""Names of public streams: `<symbol>@<kind>[@<speed>]` and `!<kind>@arr`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from gateway.web.market_view import INTERVALS

FAST_MS, SLOW_MS = 100, 1000
WINDOWS_MIN = {"1h": 60, "4h": 240, "1d": 1440}
NAME_LENGTH_MAX = 64


class Kind(StrEnum):
    """What a stream tells."""

    TRADE = "trade"
    AGG_TRADE = "aggTrade"
    BOOK_TICKER = "bookTicker"
    KLINE = "kline"
    MINI = "miniTicker"
    TICKER = "ticker"
    WINDOW = "window"
    AVERAGE = "avgPrice"
    PARTIAL = "partial"
    DIFF = "depth"
    BOOK = "book"
    L3 = "l3"


# A newer message of these makes the older one worthless: a slow reader gets only the newest.
RESUMABLE = frozenset({Kind.DIFF, Kind.BOOK, Kind.L3})  # from an update id on
WITH_SNAPSHOT = frozenset({Kind.BOOK, Kind.L3})  # begin with the book
LATEST_ONLY = frozenset({Kind.BOOK_TICKER, Kind.KLINE, Kind.MINI, Kind.TICKER, Kind.WINDOW, Kind.AVERAGE, Kind.PARTIAL})
_FORMS = (
    (Kind.TRADE, r"trade"),
    (Kind.AGG_TRADE, r"aggTrade"),
    (Kind.BOOK_TICKER, r"bookTicker"),
    (Kind.AVERAGE, r"avgPrice"),
    (Kind.MINI, r"miniTicker(?:@(?P<speed>1000)ms)?"),
    (Kind.TICKER, r"ticker(?:@(?P<speed>1000)ms)?"),
    (Kind.WINDOW, rf"ticker_(?P<window>{'|'.join(WINDOWS_MIN)})"),
    (Kind.KLINE, rf"kline_(?P<interval>{'|'.join(INTERVALS)})(?:@(?P<zone>[+-](?:0[0-9]|1[0-4]):[03]0))?"),
    (Kind.PARTIAL, r"depth(?P<levels>5|10|20)(?:@(?P<speed>100|1000)ms)?"),
    (Kind.DIFF, r"depth(?:@(?P<speed>100|1000)ms)?"),
    (Kind.BOOK, r"book(?:@(?P<speed>100|1000)ms)?"),
    (Kind.L3, r"l3"),
)
_ONE = [(kind, re.compile(rf"(?P<symbol>[a-z0-9]{{2,24}})@{form}")) for kind, form in _FORMS]
_ALL = [
    (Kind.MINI, re.compile(r"!miniTicker@arr(?:@(?P<speed>1000|3000)ms)?")),
    (Kind.TICKER, re.compile(r"!ticker@arr(?:@(?P<speed>1000|3000)ms)?")),
    (Kind.WINDOW, re.compile(rf"!ticker_(?P<window>{'|'.join(WINDOWS_MIN)})@arr")),
]
EXAMPLES = "btcusdt@trade, btcusdt@depth@100ms, btcusdt@kline_1m, !miniTicker@arr"


class StreamNameError(ValueError):
    """No stream is called so."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A parsed name. Two names of one thing are two streams: each is told under its own."""

    name: str
    kind: Kind
    symbol: str = ""  # upper case; "" = all pairs
    speed_ms: int = SLOW_MS
    levels: int = 0
    interval: str = ""
    zone_s: int = 0
    window: str = "1d"

    @property
    def latest_only(self) -> bool:
        return self.kind in LATEST_ONLY


def parse(name: str) -> Stream:
    """Return the stream of a name. Raises StreamNameError."""
    if len(name) <= NAME_LENGTH_MAX:
        symbol, at, rest = name.partition("@")
        lower = f"{symbol.lower()}{at}{rest}" if at and not name.startswith("!") else name
        for kind, pattern in _ALL if name.startswith("!") else _ONE:
            match = pattern.fullmatch(lower)
            if match is not None:
                return _stream(lower, kind, match.groupdict())
    raise StreamNameError(f"no stream is called {name[:NAME_LENGTH_MAX]!r}; names are like {EXAMPLES}")


def _stream(name: str, kind: Kind, parts: dict[str, str | None]) -> Stream:
    zone = parts.get("zone")
    return Stream(
        name,
        kind,
        symbol=(parts.get("symbol") or "").upper(),
        speed_ms=int(parts.get("speed") or SLOW_MS),
        levels=int(parts.get("levels") or 0),
        interval=parts.get("interval") or "",
        zone_s=0 if zone is None else zone_seconds(zone),
        window=parts.get("window") or "1d",
    )


def zone_seconds(text: str) -> int:
    """Return the seconds east of UTC of +HH:MM."""
    seconds = int(text[1:3]) * 3600 + int(text[4:6]) * 60
    return -seconds if text[0] == "-" else seconds
