"""Limits of use, shared by the workers: a table in a mapped file, one 64-byte line per address or account.

A line: u64 key, then u32 minute, weight, five-minute window, requests, refusals of this minute, banned until, ban
level, ten-second window, orders, day, orders of the day, five-minute window of streams, connections to them. Windows
are aligned to the clock: a line whose window is another one counts from 0. A line is changed under a lock of the file;
when the table is full the oldest of eight lines makes room.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from gateway.web.config import LimitsConfig

LINES = 16384
LINE = Struct("<Q13I4x")
PROBES = 8
KEYS_CACHED = 4096
MINUTE_S, FIVE_MINUTES_S, TEN_S, DAY_S = 60, 300, 10, 86400
REFUSALS_BEFORE_BAN = 20
BAN_LAST_S = 259_200
FIELDS = 14
KEY, MINUTE, WEIGHT, FIVE, REQUESTS, REFUSALS, BANNED, LEVEL, TEN, ORDERS_TEN, DAY, ORDERS_DAY, CONNECTS, CONNECTED = (
    range(FIELDS)
)


@dataclass(frozen=True, slots=True)
class Use:
    """What one address has used. retry_after_s > 0: refused, and with `banned` for longer than the window."""

    weight: int
    retry_after_s: int = 0
    banned: bool = False


@dataclass(frozen=True, slots=True)
class Orders:
    """Unfilled orders of an account in both windows. retry_after_s > 0: one more would be too many."""

    ten_seconds: int
    day: int
    retry_after_s: int = 0
    limit: int = 0
    window: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """What has been used, of weight by the key and of orders by the account."""

    weight: int
    ten_seconds: int
    day: int


class SharedLimits:
    def __init__(self, path: Path, config: LimitsConfig, wall_s: Callable[[], float]) -> None:
        self._config = config
        self._wall_s = wall_s
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, LINES * LINE.size)
        self._map = mmap.mmap(self._fd, LINES * LINE.size)

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)

    def admit(self, address: str, weight: int, *, always: bool = False) -> Use:
        """Count a request and its weight. A refused one costs nothing; `always`: it is counted and never refused."""
        config, now = self._config, int(self._wall_s())
        if not config.weight_per_minute and not config.requests_per_5_minutes:
            return Use(0)
        with self._line(f"a{address}") as (line, offset):
            _turn(line, MINUTE, now // MINUTE_S, (WEIGHT, REFUSALS))
            _turn(line, FIVE, now // FIVE_MINUTES_S, (REQUESTS,))
            if line[BANNED] > now and not always:
                return Use(line[WEIGHT], line[BANNED] - now, banned=True)
            over = (config.weight_per_minute and line[WEIGHT] + weight > config.weight_per_minute) or (
                config.requests_per_5_minutes and line[REQUESTS] >= config.requests_per_5_minutes
            )
            if over and not always:
                return self._refuse(line, offset, now)
            line[WEIGHT] = min(line[WEIGHT] + weight, 2**32 - 1)
            line[REQUESTS] += 1
            self._store(line, offset)
            return Use(line[WEIGHT])

    def _refuse(self, line: list[int], offset: int, now: int) -> Use:
        line[REFUSALS] += 1
        banned = bool(self._config.ban_first_s) and line[REFUSALS] > REFUSALS_BEFORE_BAN
        if banned:
            line[BANNED] = now + min(self._config.ban_first_s << min(line[LEVEL], 20), BAN_LAST_S)
            line[LEVEL] += 1
            line[REFUSALS] = 0
        self._store(line, offset)
        wait = line[BANNED] - now if banned else MINUTE_S - now % MINUTE_S
        return Use(line[WEIGHT], wait, banned)

    def give_back(self, address: str, weight: int) -> int:
        """Take back the weight of a request that turned out to be free; return what is used."""
        if not self._config.weight_per_minute:
            return 0
        with self._line(f"a{address}") as (line, offset):
            line[WEIGHT] = max(0, line[WEIGHT] - weight)
            self._store(line, offset)
            return line[WEIGHT]

    def place(self, address: str, key: str, account: int) -> Placed | None:
        """Count an order that is about to be sent as a signed request of weight 0. None: something is used up.

        In one step what admit() and give_back() of an address, admit() of a key and orders() count; None counts
        nothing. A refused order costs weight all the same: charge().
        """
        config, now = self._config, int(self._wall_s())
        weight_max, requests_max = config.weight_per_minute, config.requests_per_5_minutes
        ten_max, day_max = config.orders_per_10_seconds, config.orders_per_day
        if not (weight_max or requests_max or ten_max or day_max):
            return Placed(0, 0, 0)
        payers = ((f"a{address}", f"a{key}") if weight_max else (f"a{address}",)) if weight_max or requests_max else ()
        lines = []
        used = ten = day = 0
        with self._locked():
            for payer in payers:
                line, offset = self._find(_key_of(payer))
                _turn(line, MINUTE, now // MINUTE_S, (WEIGHT, REFUSALS))
                _turn(line, FIVE, now // FIVE_MINUTES_S, (REQUESTS,))
                used = line[WEIGHT] if weight_max else 0
                if line[BANNED] > now or (weight_max and used + 1 > weight_max):
                    return None
                if requests_max and line[REQUESTS] >= requests_max:
                    return None
                line[REQUESTS] += 1
                lines.append((line, offset))
            if ten_max or day_max:
                line, offset = self._find(_key_of(f"o{account}"))
                _turn(line, TEN, now // TEN_S, (ORDERS_TEN,))
                _turn(line, DAY, now // DAY_S, (ORDERS_DAY,))
                ten, day = line[ORDERS_TEN] + 1, line[ORDERS_DAY] + 1
                if (ten_max and ten > ten_max) or (day_max and day > day_max):
                    return None
                line[ORDERS_TEN], line[ORDERS_DAY] = ten, day
                lines.append((line, offset))
            if len({offset for _, offset in lines}) < len(lines):
                return None  # two newcomers at one free place; one at a time they find two
            for line, offset in lines:
                self._store(line, offset)
        return Placed(used, ten, day)

    def charge(self, payer: str, weight: int) -> int:
        """Count weight of a request that has been counted; return what is used."""
        if not self._config.weight_per_minute:
            return 0
        with self._line(f"a{payer}") as (line, offset):
            line[WEIGHT] = min(line[WEIGHT] + weight, 2**32 - 1)
            self._store(line, offset)
            return line[WEIGHT]

    def connect(self, address: str, limit: int) -> int:
        """Count a connection to streams, refused ones as well; return 0, or the seconds until one is allowed again."""
        now = int(self._wall_s())
        with self._line(f"a{address}") as (line, offset):
            _turn(line, CONNECTS, now // FIVE_MINUTES_S, (CONNECTED,))
            line[CONNECTED] = min(line[CONNECTED] + 1, 2**32 - 1)
            self._store(line, offset)
            return FIVE_MINUTES_S - now % FIVE_MINUTES_S if line[CONNECTED] > limit else 0

    def orders(self, account: int, count: int) -> Orders:
        """Count orders that are about to be sent; none of them if they would be too many. 0 only looks."""
        config, now = self._config, int(self._wall_s())
        if not config.orders_per_10_seconds and not config.orders_per_day:
            return Orders(0, 0)
        with self._line(f"o{account}") as (line, offset):
            _turn(line, TEN, now // TEN_S, (ORDERS_TEN,))
            _turn(line, DAY, now // DAY_S, (ORDERS_DAY,))
            ten, day = line[ORDERS_TEN], line[ORDERS_DAY]
            if count and config.orders_per_10_seconds and ten + count > config.orders_per_10_seconds:
                return Orders(ten, day, TEN_S - now % TEN_S, config.orders_per_10_seconds, "10 SECOND")
            if count and config.orders_per_day and day + count > config.orders_per_day:
                return Orders(ten, day, DAY_S - now % DAY_S, config.orders_per_day, "1 DAY")
            line[ORDERS_TEN], line[ORDERS_DAY] = ten + count, day + count
            self._store(line, offset)
            return Orders(line[ORDERS_TEN], line[ORDERS_DAY])

    def order_gone(self, account: int, count: int = 1) -> None:
        """Give orders back: refused ones, and each one at its first fill."""
        if not self._config.orders_per_10_seconds and not self._config.orders_per_day:
            return
        now = int(self._wall_s())
        with self._line(f"o{account}") as (line, offset):
            _turn(line, TEN, now // TEN_S, (ORDERS_TEN,))
            _turn(line, DAY, now // DAY_S, (ORDERS_DAY,))
            line[ORDERS_TEN] = max(0, line[ORDERS_TEN] - count)
            line[ORDERS_DAY] = max(0, line[ORDERS_DAY] - count)
            self._store(line, offset)

    @contextmanager
    def _line(self, name: str) -> Iterator[tuple[list[int], int]]:
        with self._locked():
            yield self._find(_key_of(name))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else changes the table meanwhile."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _find(self, key: int) -> tuple[list[int], int]:
        """Return the line of a key, found or made, and its place."""
        oldest, oldest_use = 0, 2**64
        for probe in range(PROBES):
            offset = (key + probe) % LINES * LINE.size
            line = list(LINE.unpack_from(self._map, offset))
            if line[KEY] == key:
                return line, offset
            newest = line[MINUTE] * MINUTE_S, line[TEN] * TEN_S, line[BANNED], line[CONNECTS] * FIVE_MINUTES_S
            used = 0 if line[KEY] == 0 else max(newest)
            if used < oldest_use:
                oldest, oldest_use = offset, used
        return [key, *[0] * (FIELDS - 1)], oldest

    def _store(self, line: list[int], offset: int) -> None:
        LINE.pack_into(self._map, offset, *line)


@functools.lru_cache(KEYS_CACHED)
def _key_of(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") or 1


def _turn(line: list[int], which: int, window: int, counts: tuple[int, ...]) -> None:
    if line[which] != window:
        line[which] = window
        for count in counts:
            line[count] = 0
