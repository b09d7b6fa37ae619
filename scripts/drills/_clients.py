"""Clients that trade through a drill and write down what they see: the history that is judged afterwards."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from gateway.clients import BullringClient, Report, ReportGap, SessionLost, load_signer
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage
from scripts.demo import TRADERS, DemoAccount
from scripts.drills._thread import ClientThread
from scripts.history.records import HistoryWriter

KEEP_ALIVE_MS = 500
LOGON_S = 60.0
OPEN_MAX = 30
CANCEL_SHARE, REPLACE_SHARE = 0.3, 0.1
DEAF_S = 0.05
CROSS_TICKS, SPREAD_TICKS = 20, 200


@dataclass(frozen=True)
class Market:
    """A pair that clients trade: around which price, how much."""

    instrument: int
    partition: int
    price_ticks: int
    quantity_max: int


MARKETS = (
    Market(1, 1, 10_000_000, 50),
    Market(2, 2, 400_000, 50),
    Market(3, 2, 20_000, 200),
    Market(4, 1, 4_000, 20),
)


@dataclass
class SessionState:
    """What one session has under way. Times are monotonic seconds."""

    name: str
    session: int
    writer: HistoryWriter
    unanswered: dict[int, float] = field(default_factory=dict)
    last_answer_to: float = 0.0  # when the newest request that is answered was sent
    answered: int = 0
    partitions: dict[int, float] = field(
        default_factory=dict
    )  # matcher -> when the newest request it answered was sent
    refused: int = 0
    shed: int = 0  # refused because of load
    cancels: dict[int, float] = field(default_factory=dict)  # not answered yet
    cancel_waits: list[float] = field(default_factory=list)
    refused_cancels: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Clients(ClientThread):
    """Some sessions at a rate, on a thread of their own: `start`, `finish`, then look at `history` and `sessions`."""

    def __init__(
        self,
        accounts: Mapping[str, DemoAccount],
        address: tuple[str, int],
        history: Path,
        *,
        rate_per_s: float,
        seed: int,
        markets: Sequence[Market] = MARKETS,
    ) -> None:
        super().__init__()
        self.history = history
        self._file: TextIO = history.open("w")
        self.sessions = {
            name: SessionState(name, accounts[name].session, HistoryWriter(self._file, accounts[name].session))
            for name in TRADERS
        }
        self.rate_per_s = rate_per_s
        self.paused = False
        self._injected: queue.SimpleQueue[WireMessage] = queue.SimpleQueue()
        self._deaf: set[str] = set()
        self._accounts, self._address, self._seed, self._markets = accounts, address, seed, markets
        self._ending = threading.Event()

    def inject(self, message: WireMessage) -> None:
        """Have one of the sessions send this, too."""
        self._injected.put(message)

    @contextmanager
    def not_reading(self, count: int) -> Iterator[None]:
        """Meanwhile, that many sessions read nothing that they are sent."""
        self._deaf = set(list(self.sessions)[:count])
        try:
            yield
        finally:
            self._deaf = set()

    @property
    def unanswered(self) -> int:
        return sum(len(session.unanswered) for session in self.sessions.values())

    @property
    def answered(self) -> int:
        return sum(session.answered for session in self.sessions.values())

    def all_answered_since(self, moment: float) -> bool:
        """Whether every session was answered a request that it sent after that moment."""
        return all(session.last_answer_to > moment for session in self.sessions.values())

    def traded_since(self, moment: float) -> bool:
        """Whether every matcher has answered a request that was sent after that moment."""
        return self.answered_by({market.partition for market in self._markets}, moment)

    def answered_by(self, partitions: set[int], moment: float) -> bool:
        """Whether those matchers have answered requests that were sent after that moment."""
        newest: dict[int, float] = {}
        for session in self.sessions.values():
            for partition, at in list(session.partitions.items()):
                newest[partition] = max(at, newest.get(partition, 0.0))
        return partitions <= {partition for partition, at in newest.items() if at > moment}

    def finish(self, deadline_s: float = 60.0) -> bool:
        """Send nothing more, wait for all answers, ask for balances, log off; False if some answers did not come."""
        self.paused = True
        deadline = time.monotonic() + deadline_s
        while self.unanswered and time.monotonic() < deadline:
            time.sleep(0.01)
        complete = not self.unanswered
        self._ending.set()
        self.thread.join(60)
        self._file.close()
        if self.error is not None:
            raise RuntimeError(f"the clients failed: {self.error!r}")
        return complete

    # --- the thread -------------------------------------------------------------------------------------------------

    async def trade_all(self) -> None:
        pairs = []
        for name, state in self.sessions.items():
            account = self._accounts[name]
            client = BullringClient(
                [self._address],
                session_id=account.session,
                signer=load_signer(Path(account.key_file), account.key_id),
                keep_alive_ms=KEEP_ALIVE_MS,
                timeout_s=LOGON_S,
            )
            await client.start()
            pairs.append((client, state))
        jobs = [asyncio.create_task(self._read(client, state)) for client, state in pairs]
        jobs += [asyncio.create_task(self._trade(client, state)) for client, state in pairs]
        self.ready.set()
        while not self._ending.is_set():
            await asyncio.sleep(0.02)
        await self._last_words(pairs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        for client, _ in pairs:
            with suppress(OSError):  # nobody may be left to say goodbye to
                await client.close()

    async def _last_words(self, pairs: Sequence[tuple[BullringClient, SessionState]]) -> None:
        """Balances at rest: everybody has been answered everything, and fills have had their time to arrive."""
        if self.unanswered:
            return
        await asyncio.sleep(0.5)
        for client, state in pairs:
            with suppress(OSError, TimeoutError):
                for reply in await client.balances():
                    state.writer.balance(reply)
                state.writer.complete()

    async def _trade(self, client: BullringClient, state: SessionState) -> None:
        rng = random.Random(f"{self._seed} {state.name}")
        loop = asyncio.get_running_loop()
        open_orders: list[tuple[int, int]] = []
        ids, due = time.time_ns() // 1000, loop.time()
        while True:
            due += len(self.sessions) / self.rate_per_s * rng.uniform(0.5, 1.5)
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due, loop.time() - 1.0)  # no burst after a pause
            if self.paused:
                continue
            ids += 1
            self._send(client, state, self._request(rng, open_orders, ids))
            with suppress(queue.Empty):
                self._send(client, state, self._injected.get_nowait())

    @staticmethod
    def _send(client: BullringClient, state: SessionState, message: WireMessage) -> None:
        moment = time.monotonic()
        number = client.send(message)
        state.writer.sending(message, number)
        state.unanswered[number] = moment
        if isinstance(message, wire.OrderCancelRequest):
            state.cancels[number] = moment

    def _request(self, rng: random.Random, open_orders: list[tuple[int, int]], ids: int) -> WireMessage:
        chance = rng.random()
        if open_orders and (len(open_orders) > OPEN_MAX or chance < CANCEL_SHARE):
            instrument, cl_ord_id = open_orders.pop(0)
            return wire.OrderCancelRequest(cl_ord_id=ids, orig_cl_ord_id=cl_ord_id, instrument_id=instrument)
        market = rng.choice(self._markets)
        if open_orders and chance < CANCEL_SHARE + REPLACE_SHARE:
            instrument, cl_ord_id = open_orders.pop(rng.randrange(len(open_orders)))
            open_orders.append((instrument, ids))
            market = next(each for each in self._markets if each.instrument == instrument)
            return wire.OrderReplaceRequest(
                cl_ord_id=ids,
                orig_cl_ord_id=cl_ord_id,
                instrument_id=instrument,
                order_qty=rng.randint(1, market.quantity_max),
            )
        side = rng.choice((wire.Side.BUY, wire.Side.SELL))
        sign = 1 if side == wire.Side.SELL else -1
        open_orders.append((market.instrument, ids))
        return wire.NewOrderSingle(
            instrument_id=market.instrument,
            side=side,
            order_qty=rng.randint(1, market.quantity_max),
            price=market.price_ticks + sign * rng.randint(-CROSS_TICKS, SPREAD_TICKS),
            ord_type=wire.OrdType.LIMIT,
            cl_ord_id=ids,
            stp_mode=wire.StpMode.CANCEL_TAKER,
            time_in_force=wire.TimeInForce.GTC,
        )

    async def _read(self, client: BullringClient, state: SessionState) -> None:
        try:
            async for report in client.reports():
                while state.name in self._deaf:
                    await asyncio.sleep(DEAF_S)
                if isinstance(report, ReportGap):
                    state.problems.append(f"{state.name}: reports {report} are missing for good")
                elif report.seq_num:
                    state.writer.told(report.partition, report.seq_num, report.message)
                    self._note(state, report)
        except SessionLost as lost:
            state.problems.append(f"{state.name}: the session is lost: {lost}")

    @staticmethod
    def _note(state: SessionState, report: Report) -> None:
        number = int(getattr(report.message, "ref_seq_num", 0) or 0)
        moment = state.unanswered.pop(number, None)
        if moment is None:
            return
        state.answered += 1
        state.last_answer_to = max(state.last_answer_to, moment)
        if report.partition:
            state.partitions[report.partition] = max(moment, state.partitions.get(report.partition, 0.0))
        code = int(getattr(report.message, "reject_code", 0) or 0)
        state.refused += code != 0
        canceled = state.cancels.pop(number, None)
        if canceled is not None:
            state.cancel_waits.append(time.monotonic() - canceled)
            if code:
                state.refused_cancels.append(code)
        else:
            state.shed += code == wire.RejectCode.SYSTEM_BUSY
