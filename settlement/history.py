"""Histories for a gateway, asked of the ledger's process: `myTrades`, `allOrders`, klines and more, of any time.

One `History` an event loop; its calls may overlap. Ids, prices and amounts are whole numbers as in the log (ticks,
lots, units); `instruments` and `assets` say what they are worth. Answers are as old as what is not stored yet, normally
about `ledger.flush_ms`; `status` tells.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from settlement.reader import (
    NS_MAX,
    AccountOrder,
    AccountTrade,
    Asset,
    BalanceRow,
    Candle,
    Instrument,
    PublicTrade,
)
from settlement.service import ServiceError

TIMEOUT_S = 20.0
LINE_BYTES_MAX = 1 << 24
CONNECTIONS_MAX = 4
SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
WEEK_OFFSET_NS = 4 * DAY_NS  # the first Monday: day 0 is a Thursday
MONTH = "1M"
INTERVALS_NS = {
    "1s": SECOND_NS,
    **{f"{n}m": n * 60 * SECOND_NS for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": n * 3600 * SECOND_NS for n in (1, 2, 4, 6, 8, 12)},
    "1d": DAY_NS,
    "3d": 3 * DAY_NS,
    "1w": 7 * DAY_NS,
}
DAYS_A_MONTH_MAX = 31

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HistoryError(Exception):
    """No answer: `kind` is "request" (the question is wrong), "unavailable" (ask later) or "refused"."""

    def __init__(self, sentence: str, kind: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class History:
    """All calls raise HistoryError."""

    def __init__(self, path: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        """`path`: the ledger's socket. Nothing is opened before the first call."""
        self._path = path
        self._timeout_s = timeout_s
        self._free: list[_Connection] = []
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)

    async def close(self) -> None:
        while self._free:
            _, writer = self._free.pop()
            writer.close()

    # --- what there is ------------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Return how far the books are, and how they compare: see docs/LEDGER.md, "Status"."""
        return (await self._call("status"))[0]

    async def overview(self) -> dict[str, Any]:
        """Return the books at a glance: status, trial balance, reconciliations, days closed, in transit."""
        return (await self._call("overview"))[0]

    async def assets(self) -> list[Asset]:
        return [Asset(**row) for row in await self._call("assets")]

    async def instruments(self) -> list[Instrument]:
        return [Instrument(**row) for row in await self._call("instruments")]

    async def balances(self, account: int, *, before_ns: int = NS_MAX) -> list[BalanceRow]:
        """Return what an account had before a moment."""
        return [BalanceRow(**row) for row in await self._call("balances", account=account, before_ns=before_ns)]

    # --- histories ----------------------------------------------------------------------------------------------------

    async def my_trades(
        self,
        account: int,
        *,
        instrument: int | None = None,
        order_id: int | None = None,
        from_trade_id: int | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int = 500,
    ) -> list[AccountTrade]:
        """Return fills in order: from an id or a start on the oldest `limit`, without either the newest."""
        given = _period(start_ns, end_ns) | {"newest": from_trade_id is None and start_ns is None}
        rows = await self._call(
            "account_trades",
            account=account,
            instrument=instrument,
            order_id=order_id,
            from_trade_id=from_trade_id,
            limit=limit,
            **given,
        )
        return [AccountTrade(**row) for row in rows]

    async def all_orders(
        self,
        account: int,
        *,
        instrument: int | None = None,
        from_order_id: int | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int = 500,
    ) -> list[AccountOrder]:
        """Return orders, open or ended, in order of their ids: from an id or start on, without either the newest."""
        given = _period(start_ns, end_ns) | {"newest": from_order_id is None and start_ns is None}
        rows = await self._call(
            "account_orders", account=account, instrument=instrument, from_order_id=from_order_id, limit=limit, **given
        )
        return [AccountOrder(**row) for row in rows]

    async def order(
        self, account: int, instrument: int, *, order_id: int | None = None, client_text: str | None = None
    ) -> AccountOrder | None:
        """Return one order by its id or the client's text; of several with that text the newest."""
        rows = await self._call(
            "account_orders",
            account=account,
            instrument=instrument,
            order_id=order_id,
            client_text=client_text,
            limit=1,
            newest=True,
            refused=True,
        )
        return AccountOrder(**rows[0]) if rows else None

    async def trades(
        self,
        instrument: int,
        *,
        from_trade_id: int | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int = 500,
    ) -> list[PublicTrade]:
        """Return trades of a pair in order: from an id or a start on, without either the newest."""
        rows = await self._call(
            "trades", instrument=instrument, from_trade_id=from_trade_id, limit=limit, **_period(start_ns, end_ns)
        )
        return [PublicTrade(**row) for row in rows]

    async def klines(
        self,
        instrument: int,
        interval: str,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        limit: int = 500,
        zone_ns: int = 0,
    ) -> list[Candle]:
        """Return candles in order, from a start on or without one the newest; intervals without trades have none.

        Weeks begin on Monday, months on the 1st, days at midnight of a zone that is `zone_ns` ahead of UTC.
        """
        if interval == MONTH:
            return await self._months(instrument, start_ns, end_ns, limit, zone_ns)
        if interval not in INTERVALS_NS:
            known = ", ".join((*INTERVALS_NS, MONTH))
            raise HistoryError(f"interval = {interval!r}: must be one of {known}", "request")
        length = INTERVALS_NS[interval]
        offset = ((WEEK_OFFSET_NS if interval == "1w" else 0) - zone_ns) % length
        return await self._candles(instrument, length, offset, start_ns, end_ns, limit)

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _candles(
        self, instrument: int, interval_ns: int, offset_ns: int, start_ns: int | None, end_ns: int | None, limit: int
    ) -> list[Candle]:
        if start_ns is not None:
            # A candle belongs to the answer if it opens at or behind the start.
            start_ns = start_ns + (offset_ns - start_ns) % interval_ns
        rows = await self._call(
            "candles",
            instrument=instrument,
            interval_ns=interval_ns,
            offset_ns=offset_ns,
            limit=limit,
            newest=start_ns is None,
            **_period(start_ns, end_ns),
        )
        return [Candle(**row) for row in rows]

    async def _months(
        self, instrument: int, start_ns: int | None, end_ns: int | None, limit: int, zone_ns: int
    ) -> list[Candle]:
        """Months are not of one length: they are put together from days."""
        if start_ns is not None:
            start_ns = _month_from(start_ns + zone_ns) - zone_ns
        days = await self._candles(
            instrument, DAY_NS, -zone_ns % DAY_NS, start_ns, end_ns, (limit + 1) * DAYS_A_MONTH_MAX
        )
        months: dict[int, Candle] = {}
        for day in days:
            begin = _month_of(day.open_ns + zone_ns) - zone_ns
            months[begin] = _merged(months[begin], day) if begin in months else replace(day, open_ns=begin)
        found = list(months.values())
        return found[:limit] if start_ns is not None else found[-limit:]

    async def _call(self, name: str, **arguments: Any) -> list[dict[str, Any]]:
        arguments = {key: value for key, value in arguments.items() if value is not None}
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._ask(name, arguments)
            except TimeoutError:
                raise HistoryError(f"the ledger does not answer within {self._timeout_s:g} s", "unavailable") from None
            except OSError as error:
                raise HistoryError(f"the ledger does not answer: {error.strerror or error}", "unavailable") from error
            except ServiceError as error:
                raise HistoryError(str(error), error.kind) from error

    async def _ask(self, name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        connection = self._free.pop() if self._free else await self._connect()
        try:
            try:
                rows = await _answer(connection, name, arguments)
            except ConnectionError:
                # The ledger was started again since; once more with a new connection.
                connection[1].close()
                connection = await self._connect()
                rows = await _answer(connection, name, arguments)
        except ServiceError:
            self._free.append(connection)  # an answer, and its end
            raise
        except BaseException:
            connection[1].close()
            raise
        self._free.append(connection)
        return rows

    async def _connect(self) -> _Connection:
        return await asyncio.open_unix_connection(str(self._path), limit=LINE_BYTES_MAX)


async def _answer(connection: _Connection, name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    reader, writer = connection
    writer.write(json.dumps({"call": name, "args": arguments}).encode() + b"\n")
    await writer.drain()
    rows: list[dict[str, Any]] = []
    while True:
        line = await reader.readline()
        if not line:
            raise ConnectionResetError("the ledger closed the connection")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServiceError(answer["error"], answer["kind"])
        if "rows" not in answer:
            return rows
        rows += answer["rows"]


def _period(start_ns: int | None, end_ns: int | None) -> dict[str, Any]:
    found = {}
    if start_ns is not None:
        found["start_ns"] = start_ns
    if end_ns is not None:
        found["end_ns"] = end_ns
    return found


def _merged(first: Candle, second: Candle) -> Candle:
    return Candle(
        open_ns=first.open_ns,
        open=first.open,
        high=max(first.high, second.high),
        low=min(first.low, second.low),
        close=second.close,
        quantity=first.quantity + second.quantity,
        amount=first.amount + second.amount,
        trades=first.trades + second.trades,
        taker_buy_quantity=first.taker_buy_quantity + second.taker_buy_quantity,
        taker_buy_amount=first.taker_buy_amount + second.taker_buy_amount,
    )


def _month_of(ns: int) -> int:
    """Return the beginning of the month."""
    first = datetime.fromtimestamp(ns // SECOND_NS, UTC).replace(day=1, hour=0, minute=0, second=0)
    return int(first.timestamp()) * SECOND_NS


def _month_from(ns: int) -> int:
    """Return the beginning of the first month that begins at or behind a moment."""
    begin = _month_of(ns)
    return begin if begin == ns else _month_of(begin + 32 * DAY_NS)
