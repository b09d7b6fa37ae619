"""The demo market: makers quoting around a random walk, takers crossing the spread. A plain client of the exchange.

Started by `bullring demo` as `python -m scripts.demo_market RUN_DIR PARENT_PID`.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.clients import BullringClient, Report, load_signer
from ringbuf.wire import messages as wire
from scripts.demo import PAIRS, TRADERS, DemoAccount, load_accounts
from scripts.node import Node

LEVELS = 6  # quotes a side, maker and pair
MAKER_PAUSE_S = 0.02
MAKER_ACTIONS = 5
TAKER_PAUSE_S = 0.05
SPREAD = 0.0004  # half of it, relative to the price
LEVEL_STEP = 0.0003
VOLATILITY = 0.0002  # of one step of the walk
PULL_HOME = 0.001  # part of the distance to the start price a step takes back: the walk stays inside the bands
NOTIONAL_MIN, NOTIONAL_MAX = 200.0, 4000.0  # of one order, in USDT
CANCEL_SHARE = 0.15
TURN_SHARE = 0.2  # of a taker's orders begin a run in the other direction
USDT_PRICE = {"BTC": 100_000.0, "USDT": 1.0}
CANCEL_WAIT_S = 5.0
PARENT_LOOK_S = 1.0


@dataclass
class Walk:
    """The price everybody believes in, for one pair."""

    instrument_id: int
    partition: int
    home: float  # ticks
    lots_per_usdt: float
    price: float = 0.0

    def step(self, rng: random.Random) -> None:
        self.price *= math.exp(rng.gauss(0.0, VOLATILITY))
        self.price += (self.home - self.price) * PULL_HOME

    def lots(self, rng: random.Random) -> int:
        usdt = math.exp(rng.uniform(math.log(NOTIONAL_MIN), math.log(NOTIONAL_MAX)))
        return max(1, round(usdt * self.lots_per_usdt))


class Trader:
    """One session with its open orders, as its reports tell them."""

    def __init__(self, client: BullringClient, walks: Sequence[Walk], seed: int) -> None:
        self.client = client
        self.walks = walks
        self.rng = random.Random(seed)
        self.live: dict[int, int] = {}  # client order id -> instrument
        self.canceled_partitions: set[int] = set()
        self._next_id = time.time_ns() // 1000

    def next_id(self) -> int:
        self._next_id += 1
        return self._next_id

    async def follow(self) -> None:
        """Take in reports. Ends with SessionLost when the session is over."""
        async for report in self.client.reports():
            if isinstance(report, Report):
                self._take(report)

    def _take(self, report: Report) -> None:
        match report.message:
            case wire.OrderExecuted() as fill if fill.leaves_qty == 0:
                self.live.pop(fill.cl_ord_id, None)
            case wire.OrderCanceled() as canceled:
                self.live.pop(canceled.orig_cl_ord_id or canceled.cl_ord_id, None)
                self.live.pop(canceled.cl_ord_id, None)
            case wire.OrderRejected() as rejected:
                self.live.pop(rejected.cl_ord_id, None)
            case wire.CancelReplaceReject() as refused if refused.reject_code == wire.RejectCode.UNKNOWN_ORDER:
                self.live.pop(refused.orig_cl_ord_id, None)
            case wire.MassCancelReport():
                self.canceled_partitions.add(report.partition)
            case _:
                pass

    async def clear(self) -> None:
        """Cancel what an earlier run left in the books."""
        self.client.mass_cancel(scope=wire.MassCancelScope.ACCOUNT)
        end = time.monotonic() + CANCEL_WAIT_S
        while not {walk.partition for walk in self.walks} <= self.canceled_partitions and time.monotonic() < end:
            await asyncio.sleep(MAKER_PAUSE_S)


class Maker(Trader):
    """Keeps a ladder of post-only quotes on both sides of every pair."""

    def __init__(self, client: BullringClient, walks: Sequence[Walk], seed: int) -> None:
        super().__init__(client, walks, seed)
        self._slots: dict[tuple[int, wire.Side, int], int] = {}

    async def trade(self) -> None:
        while True:
            for _ in range(MAKER_ACTIONS):
                walk = self.rng.choice(self.walks)
                side = self.rng.choice((wire.Side.BUY, wire.Side.SELL))
                self._quote(walk, side, self.rng.randrange(LEVELS))
            await asyncio.sleep(MAKER_PAUSE_S * self.rng.uniform(0.5, 1.5))

    def _quote(self, walk: Walk, side: wire.Side, level: int) -> None:
        sign = 1 if side == wire.Side.SELL else -1
        distance = SPREAD + level * LEVEL_STEP + self.rng.uniform(0.0, LEVEL_STEP)
        price = max(1, round(walk.price * (1 + sign * distance)))
        place = (walk.instrument_id, side, level)
        cl_ord_id = self._slots.get(place, 0)
        if cl_ord_id not in self.live:
            cl_ord_id = self._slots[place] = self.next_id()
            self.live[cl_ord_id] = walk.instrument_id
            self.client.new_order(
                instrument_id=walk.instrument_id,
                side=side,
                quantity=walk.lots(self.rng),
                price=price,
                cl_ord_id=cl_ord_id,
                post_only=True,
                stp_mode=wire.StpMode.CANCEL_TAKER,
            )
        elif self.rng.random() < CANCEL_SHARE:
            self.client.cancel(instrument_id=walk.instrument_id, orig_cl_ord_id=cl_ord_id)
        else:
            self.client.replace(instrument_id=walk.instrument_id, orig_cl_ord_id=cl_ord_id, price=price)


class Taker(Trader):
    """Crosses the spread now and then, in runs of one direction."""

    async def trade(self) -> None:
        side = wire.Side.BUY
        while True:
            walk = self.rng.choice(self.walks)
            if self.rng.random() < TURN_SHARE:
                side = wire.Side.SELL if side == wire.Side.BUY else wire.Side.BUY
            sign = 1 if side == wire.Side.BUY else -1
            self.client.new_order(
                instrument_id=walk.instrument_id,
                side=side,
                quantity=walk.lots(self.rng),
                price=max(1, round(walk.price * (1 + sign * (SPREAD + LEVELS * LEVEL_STEP)))),
                cl_ord_id=self.next_id(),
                time_in_force=wire.TimeInForce.IOC,
            )
            await asyncio.sleep(TAKER_PAUSE_S * self.rng.uniform(0.2, 1.8))


async def move(walks: Sequence[Walk], rng: random.Random, parent: int) -> None:
    """Move the prices; end when the demo that started us has gone."""
    looked = time.monotonic()
    while True:
        for walk in walks:
            walk.step(rng)
        await asyncio.sleep(MAKER_PAUSE_S)
        if time.monotonic() > looked + PARENT_LOOK_S:
            looked = time.monotonic()
            if os.getppid() != parent:
                return


async def run_market(node: Node, accounts: Sequence[DemoAccount], parent: int) -> None:
    host = node.config.gateway.binary.host
    clients = [
        BullringClient(
            [(host, node.binary_port)], session_id=account.session, signer=load_signer(Path(account.key_file))
        )
        for account in accounts
    ]
    for client in clients:
        await client.start()
    walks = await find_walks(clients[0])
    rng = random.Random()
    traders = [
        (Maker if account.name.startswith("maker") else Taker)(client, walks, rng.randrange(1 << 32))
        for account, client in zip(accounts, clients, strict=True)
    ]
    tasks = [asyncio.create_task(trader.follow()) for trader in traders]
    await asyncio.gather(*(trader.clear() for trader in traders))
    tasks += [asyncio.create_task(trader.trade()) for trader in traders if isinstance(trader, Maker | Taker)]
    tasks.append(asyncio.create_task(move(walks, rng, parent)))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    done, pending = await asyncio.wait([asyncio.create_task(stop.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    await asyncio.gather(*(client.close() for client in clients))
    for task in done:
        task.result()


async def find_walks(client: BullringClient) -> list[Walk]:
    """Return a walk for every pair of the demo, in the units of the exchange."""
    by_symbol = {pair.symbol: pair for pair in PAIRS}
    walks = []
    for reply in await client.instruments():
        pair = by_symbol.get(reply.symbol)
        if pair is None or pair.reference is None:
            continue
        home = float(pair.reference) / float(pair.tick)
        usdt_per_lot = float(pair.reference) * USDT_PRICE[pair.quote] * float(pair.lot)
        walks.append(Walk(reply.instrument_id, reply.assigned_partition, home, 1.0 / usdt_per_lot, home))
    return walks


def main(arguments: Sequence[str]) -> int:
    node = Node.load(Path(arguments[0]))
    known = load_accounts(node.config)
    asyncio.run(run_market(node, [known[name] for name in TRADERS], int(arguments[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
