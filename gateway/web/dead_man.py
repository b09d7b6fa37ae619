"""The dead man's switch: unless it is renewed in time, the account's orders are canceled.

Timers lie in a file all workers share, so they outlive a worker and a restart. Whoever finds one due takes it for a
while (a lease), cancels, and removes it; if it dies in between, another takes it when the lease is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

from gateway.web.api import SYMBOL_OPTIONAL, Call, Endpoint, Kind, Param, Security
from gateway.web.cancels import mass_cancel
from gateway.web.errors import ApiError
from gateway.web.reference import Key
from ringbuf.wire import messages as wire

POLL_S = 0.1
LEASE_MS = 5000
COUNTDOWN_MS_MAX = 86_400_000
ALL_PAIRS = 0


class DeadManTimers:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS timers (account INTEGER, instrument INTEGER, due_ms INTEGER,"
            " PRIMARY KEY (account, instrument)) WITHOUT ROWID"
        )

    def close(self) -> None:
        self._db.close()

    def set(self, account: int, instrument: int, countdown_ms: int) -> None:
        """Start or renew a timer; 0 stops it. Instrument 0 = all pairs."""
        if countdown_ms == 0:
            self._db.execute("DELETE FROM timers WHERE account = ? AND instrument = ?", (account, instrument))
            return
        due = _now_ms() + countdown_ms
        self._db.execute("INSERT OR REPLACE INTO timers VALUES (?, ?, ?)", (account, instrument, due))

    def take_due(self) -> list[tuple[int, int, int]]:
        """Return (account, instrument, lease) of timers whose time is over; they are this worker's for a while."""
        now = _now_ms()
        if self._db.execute("SELECT 1 FROM timers WHERE due_ms <= ? LIMIT 1", (now,)).fetchone() is None:
            return []
        lease = now + LEASE_MS
        rows = self._db.execute(
            "UPDATE timers SET due_ms = ? WHERE due_ms <= ? RETURNING account, instrument", (lease, now)
        ).fetchall()
        return [(account, instrument, lease) for account, instrument in rows]

    def done(self, account: int, instrument: int, lease: int) -> None:
        """Remove a timer that was taken, unless it has been renewed meanwhile."""
        self._db.execute(
            "DELETE FROM timers WHERE account = ? AND instrument = ? AND due_ms = ?", (account, instrument, lease)
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def watch_timers(gateway: Any, timers: DeadManTimers) -> None:
    """Cancel what is due, for ever."""
    while True:
        await asyncio.sleep(POLL_S)
        for account, instrument_id, lease in timers.take_due():
            instrument = gateway.reference.instruments.get(instrument_id)
            key = Key("", account, int(wire.Permissions.TRADE), int(wire.CredentialType.ED25519), "")
            with contextlib.suppress(ApiError):  # the lease ends, and somebody tries again
                await mass_cancel(Call(gateway, {}, key=key), instrument)
                timers.done(account, instrument_id, lease)


async def countdown(call: Call) -> dict[str, Any]:
    instrument = call.instrument() if "symbol" in call.values else None
    milliseconds = call.need("countdownTime")
    call.gateway.timers.set(call.account, ALL_PAIRS if instrument is None else instrument.id, milliseconds)
    return {"symbol": "" if instrument is None else instrument.symbol, "countdownTime": str(milliseconds)}


async def cancel_everything(call: Call) -> list[dict[str, Any]]:
    return await mass_cancel(call, None)


ENDPOINTS = (
    Endpoint(
        "POST", "/api/v3/countdownCancelAll", "Cancel all orders unless renewed in time", countdown,
        (
            SYMBOL_OPTIONAL,
            Param("countdownTime", Kind.INTEGER, required=True, low=0, high=COUNTDOWN_MS_MAX, doc="ms; 0 stops it"),
        ),
        socket="countdownCancelAll", security=Security.TRADE, weight=10,
    ),
    Endpoint(
        "DELETE", "/api/v3/allOpenOrders", "Cancel all open orders of the account", cancel_everything,
        socket="openOrders.cancelAllSymbols", security=Security.TRADE, free_on_success=True, never_limited=True,
        answer="array",
    ),
)  # fmt: skip
