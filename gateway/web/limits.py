"""Limits of use, shared by the workers: a table in a mapped file, one 64-byte line per address or account.

A line: u64 key, then u32 minute, weight, five-minute window, requests, refusals of this minute, banned until, ban
level, ten-second window, orders, day, orders of the day. Windows are aligned to the clock: a line whose window is
another one counts from 0. A line is changed under a lock of the file; when the table is full the oldest of eight
lines makes room.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from gateway.web.config import LimitsConfig

LINES = 16384
LINE = Struct("<Q11I12x")
PROBES = 8
MINUTE_S, FIVE_MINUTES_S, TEN_S, DAY_S = 60, 300, 10, 86400
REFUSALS_BEFORE_BAN = 20
BAN_LAST_S = 259_200
KEY, MINUTE, WEIGHT, FIVE, REQUESTS, REFUSALS, BANNED, LEVEL, TEN, ORDERS_TEN, DAY, ORDERS_DAY = range(12)


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

    def _line(self, name: str) -> _LockedLine:
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") or 1
        return _LockedLine(self._fd, self._map, key)

    def _store(self, line: list[int], offset: int) -> None:
        LINE.pack_into(self._map, offset, *line)


def _turn(line: list[int], which: int, window: int, counts: tuple[int, ...]) -> None:
    if line[which] != window:
        line[which] = window
        for count in counts:
            line[count] = 0


class _LockedLine:
    """The line of a key, found or made, while nobody else changes the table."""

    def __init__(self, fd: int, mapped: mmap.mmap, key: int) -> None:
        self._fd = fd
        self._map = mapped
        self._key = key

    def __enter__(self) -> tuple[list[int], int]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        oldest, oldest_use = 0, 2**64
        for probe in range(PROBES):
            offset = (self._key + probe) % LINES * LINE.size
            line = list(LINE.unpack_from(self._map, offset))
            if line[KEY] == self._key:
                return line, offset
            used = 0 if line[KEY] == 0 else max(line[MINUTE] * MINUTE_S, line[TEN] * TEN_S, line[BANNED])
            if used < oldest_use:
                oldest, oldest_use = offset, used
        return [self._key, *[0] * 11], oldest

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
