"""Idempotent repeats: the first request with a key is carried out, every repeat returns its answer marked duplicate.

A claim is a row all workers see. The key is in the log, too, linked to its order: so a claim whose worker died, or
never got an answer, is settled from history: the order exists and is the answer, or its deadline has passed and it
never will.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from gateway.web.api import Call
from gateway.web.errors import ApiError, outcome_unknown
from gateway.web.orders import OrderState, OrderView
from gateway.web.store import StoreReader
from ringbuf.wire import messages as wire

KEPT_S = 2 * 86_400
POLL_S = 0.005
WAIT_S = 10.0
PRUNE_EVERY = 1000
MARK = {"duplicate": True}


class Duplicates:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # the log has the keys; a lost claim is settled from there
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS claims (account INTEGER, key INTEGER, made_s REAL, deadline_us INTEGER,"
            " answer TEXT, PRIMARY KEY (account, key)) WITHOUT ROWID"
        )
        self._claims = 0

    def close(self) -> None:
        self._db.close()

    async def once(self, call: Call, name: str, act: Callable[[int], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Return what `act` answers, or answered before. Raises ApiError as `act` does; a refusal may be repeated."""
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1 or 1
        if not self._claim(call, number):
            known = await self._of_first(call, number)
            if known is not None:
                return known | MARK
        try:
            body = await act(number)
        except ApiError as error:
            if error.code != outcome_unknown().code:
                self._release(call.account, number)
            raise
        self._db.execute(
            "UPDATE claims SET answer = ? WHERE account = ? AND key = ?",
            (orjson.dumps(body).decode(), call.account, number),
        )
        return body

    def _claim(self, call: Call, number: int) -> bool:
        self._claims += 1
        if self._claims % PRUNE_EVERY == 0:
            self._db.execute("DELETE FROM claims WHERE made_s < ?", (time.time() - KEPT_S,))
        made = self._db.execute(
            "INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?, NULL)",
            (call.account, number, time.time(), call.deadline_us),
        )
        return made.rowcount == 1

    def _release(self, account: int, number: int) -> None:
        self._db.execute("DELETE FROM claims WHERE account = ? AND key = ?", (account, number))

    async def _of_first(self, call: Call, number: int) -> dict[str, Any] | None:
        """Return the first request's answer; None: it was not carried out, and the claim is ours now."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            row = self._db.execute(
                "SELECT answer, deadline_us FROM claims WHERE account = ? AND key = ?", (call.account, number)
            ).fetchone()
            if row is None:
                if self._claim(call, number):
                    return None
                continue
            if row[0] is not None:
                body: dict[str, Any] = orjson.loads(row[0])
                return body
            if call.gateway.now_us() > row[1]:  # whatever was sent can no longer be taken: history has the outcome
                await call.gateway.caught_up()
                order = self._order(call, number)
                if order is not None:
                    return order_again(call, order)
                self._release(call.account, number)
                continue
            await asyncio.sleep(POLL_S)
        raise outcome_unknown()

    @staticmethod
    def _order(call: Call, number: int) -> OrderState | None:
        found = call.gateway.store.orders("account = ? AND idempotency_key = ?", (call.account, number))
        return found[0] if found else None


def order_again(call: Call, order: OrderState) -> dict[str, Any]:
    """Return the answer to a placed order made again from history."""
    body = call.gateway.view(call).result(order)
    body["fills"] = fills_of(call.gateway.store, call.gateway.view(call), order)
    return body


def fills_of(store: StoreReader, view: OrderView, order: OrderState) -> list[dict[str, Any]]:
    rows = store.rows(
        "SELECT trade_id, price, qty, fee, fee_asset FROM fills WHERE account = ? AND instrument = ? AND order_id = ?"
        " ORDER BY trade_id",
        (order.account, order.instrument, order.order_id),
    )
    return [
        view.fill(
            wire.OrderExecuted(
                trade_id=trade_id, last_px=price, last_qty=qty, fee=fee, fee_asset_id=fee_asset,
                instrument_id=order.instrument,
            )
        )
        for trade_id, price, qty, fee, fee_asset in rows
    ]  # fmt: skip
