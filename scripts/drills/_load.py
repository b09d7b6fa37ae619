"""Clients that trade through a drill and remember what they were told: the history that is judged afterwards."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gateway.clients import BullringClient, Report, ReportGap, SessionLost, load_signer
from ringbuf.wire import messages as wire
from scripts.demo import TRADERS, DemoAccount
from scripts.drills._thread import ClientThread

KEEP_ALIVE_MS = 250
KEEP_ALIVE_LIVES = 2
PRICE_TICKS = 10_000_000  # of BTC-USDT: its reference price
SPREAD_TICKS = 200
OPEN_MAX = 40
ANSWERS_S = 60.0
LOGON_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The first report about a request."""

    at: float
    kind: str
    in_order: tuple[int, int]  # partition, report number
    reject_code: int = 0


@dataclass
class SessionHistory:
    """What one session sent and was told. Times are monotonic seconds."""

    session: int
    sent: dict[int, float] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    reports: dict[tuple[int, int], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    reconnects: int = 0

    @property
    def unanswered(self) -> list[int]:
        return [number for number in self.sent if number not in self.answers]


class Load(ClientThread):
    """Some sessions at a rate, on a thread of their own. `start`, `pause`, `finish`, then look at `histories`."""

    def __init__(
        self,
        accounts: Mapping[str, DemoAccount],
        addresses: Sequence[tuple[str, int]],
        *,
        rate_per_s: float,
        seed: int,
        instrument: int = 1,
    ) -> None:
        super().__init__()
        self.histories = {name: SessionHistory(accounts[name].session) for name in TRADERS}
        self._accounts = accounts
        self._addresses = addresses
        self._pause_s = len(TRADERS) / rate_per_s
        self._seed = seed
        self._instrument = instrument
        self._trading = threading.Event()
        self._trading.set()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def pause(self) -> None:
        """Send nothing more for now."""
        self._trading.clear()

    def resume(self) -> None:
        self._trading.set()

    def finish(self, deadline_s: float = ANSWERS_S) -> bool:
        """Send nothing more, wait for every answer, disconnect; False if some did not come."""
        self._trading.clear()
        self._let_senders_see()
        deadline = time.monotonic() + deadline_s
        while any(history.unanswered for history in self.histories.values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        answered = not any(history.unanswered for history in self.histories.values())
        self._ended.set()
        self.thread.join(30)
        return answered

    def _let_senders_see(self) -> None:
        """Once the loop has taken a turn, nobody is about to send who had not seen that it is over."""
        seen = threading.Event()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(seen.set)
        seen.wait(LOGON_S)

    def abandon(self) -> None:
        """Stop without waiting for answers: nobody is left who could give them."""
        self._trading.clear()
        self._ended.set()
        self.thread.join(30)

    @property
    def answered(self) -> int:
        return sum(len(history.answers) for history in self.histories.values())

    # --- the thread -------------------------------------------------------------------------------------------------

    async def trade_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        clients = []
        for name, history in self.histories.items():
            account = self._accounts[name]
            signer = load_signer(Path(account.key_file), account.key_id)
            client = BullringClient(
                self._addresses,
                session_id=account.session,
                signer=signer,
                keep_alive_ms=KEEP_ALIVE_MS,
                keep_alive_lives=KEEP_ALIVE_LIVES,
                timeout_s=LOGON_S,
            )
            await client.start()
            clients.append((client, history))
        self.ready.set()
        jobs = [asyncio.create_task(self._read(client, history)) for client, history in clients]
        jobs += [asyncio.create_task(self._trade(at, *pair)) for at, pair in enumerate(clients)]
        while not self._ended.is_set():
            await asyncio.sleep(0.05)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        for client, history in clients:
            history.reconnects = client.reconnects
            with suppress(OSError):  # nobody may be left to say goodbye to
                await client.close()

    async def _trade(self, at: int, client: BullringClient, history: SessionHistory) -> None:
        rng = random.Random(f"{self._seed} {at}")
        open_orders: list[int] = []
        loop = asyncio.get_running_loop()
        due = loop.time()
        ids = time.time_ns() // 1000
        while True:
            due += self._pause_s * rng.uniform(0.5, 1.5)
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not self._trading.is_set():
                due = loop.time()
                continue
            ids += 1
            if len(open_orders) > OPEN_MAX or (open_orders and rng.random() < 0.3):
                number = client.cancel(instrument_id=self._instrument, orig_cl_ord_id=open_orders.pop(0), cl_ord_id=ids)
            else:
                side = rng.choice((wire.Side.BUY, wire.Side.SELL))
                sign = 1 if side == wire.Side.SELL else -1
                price = PRICE_TICKS + sign * rng.randint(-20, SPREAD_TICKS)
                number = client.new_order(
                    instrument_id=self._instrument,
                    side=side,
                    quantity=rng.randint(1, 50),
                    price=price,
                    cl_ord_id=ids,
                    stp_mode=wire.StpMode.CANCEL_TAKER,
                )
                open_orders.append(ids)
            history.sent[number] = time.monotonic()

    async def _read(self, client: BullringClient, history: SessionHistory) -> None:
        try:
            async for report in client.reports():
                if isinstance(report, ReportGap):
                    history.problems.append(f"reports {report} are missing for good")
                elif report.seq_num:
                    _note(history, report)
        except SessionLost as lost:
            history.problems.append(f"session {history.session} is lost: {lost}")


def _note(history: SessionHistory, report: Report) -> None:
    place = (report.partition, report.seq_num)
    text = repr(report.message)
    if history.reports.setdefault(place, text) != text:
        history.problems.append(f"report {place} was {history.reports[place]}, then {text}")
    number = getattr(report.message, "ref_seq_num", 0)
    if number and number not in history.answers:
        code = int(getattr(report.message, "reject_code", 0) or 0)
        history.answers[number] = Answer(time.monotonic(), type(report.message).__name__, place, code)
