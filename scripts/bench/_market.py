"""A journal with a real market in it, made fast: sequencer, matchers and journaler in this process, no network.

What the flow is: makers rest one order each time, takers cross with one of the same size, so that two orders make one
trade; prices walk; pairs and accounts are drawn evenly.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import EngineConfig, Matcher, Sequencer
from journaler import Journaler, JournalerConfig
from ringbuf import Ring, Runner
from ringbuf.wire import messages as wire

SLOT_SIZE, MARKET_SLOT_SIZE = 128, 64
RING_SLOTS = 1 << 16
CHUNK = 4096
RUN_NS = 20_000_000
SOURCE, SESSION = 1, 1
FUNDS = 1 << 58
TAKER_RATE, MAKER_RATE = 500, -100
QUOTE = 1  # asset of all prices; the pairs' bases follow
DEADLINE_S = 600.0

_ORDER = np.dtype(
    {
        "names": [name for name, _, _ in wire.NewOrderSingle.COLUMNS],
        "formats": [kind for _, kind, _ in wire.NewOrderSingle.COLUMNS],
        "offsets": [offset for _, _, offset in wire.NewOrderSingle.COLUMNS],
        "itemsize": wire.NewOrderSingle.BLOCK_LENGTH,
    }
)
_BLOCK = f"V{wire.NewOrderSingle.BLOCK_LENGTH}"
_SLOT = np.dtype(
    {
        "names": ["session", "template", "seq_num", "ingress_ns", "block"],
        "formats": ["<u4", "<u2", "<u8", "<u8", _BLOCK],
        "offsets": [0, 6, 16, 24, 32],
        "itemsize": SLOT_SIZE,
    }
)


@dataclass(frozen=True)
class Market:
    """How big, and of what."""

    trades: int
    accounts: int = 1000
    pairs: int = 8
    partitions: int = 2
    seed: int = 1


class MarketMaker:
    """Writes the journal of a market into a folder."""

    def __init__(self, market: Market, directory: Path) -> None:
        self.market = market
        engine = EngineConfig(
            partitions=market.partitions,
            accounts_max=market.accounts + 16,
            balances_max=1 << (market.accounts * (market.pairs + 1) * 2).bit_length(),
            orders_per_partition=1 << 17,
        )
        self.log = _ring({0: "journaler"})
        self.ingress = _ring({0: "sequencer"})
        self.reply = _ring({})
        self.reports = {
            partition: _ring({0: "journaler"} | ({1: "sequencer"} if partition else {}))
            for partition in range(market.partitions + 1)
        }
        self.sequencer = Sequencer(engine)
        self.sequencer.attach(
            log=self.log,
            report0=self.reports[0],
            reply=self.reply,
            reports={partition: ring for partition, ring in self.reports.items() if partition},
            ingress={SOURCE: self.ingress},
        )
        self.journaler = Journaler(JournalerConfig(directory, "D0"), self.log, self.reports)
        self.matchers, self.market_rings = [], []
        for partition in range(1, market.partitions + 1):
            matcher = Matcher(engine, partition)
            events = Ring.private(slot_size=MARKET_SLOT_SIZE, slot_count=RING_SLOTS)
            matcher.attach(log=self.log, reports=self.reports[partition], market=events)
            self.matchers.append(matcher)
            self.market_rings.append(events)
        stages = [self.sequencer.stage, *(matcher.stage for matcher in self.matchers), self.journaler.stage]
        self._runner = Runner(stages)
        self._seq_num = 0
        self.sequencer.lead(epoch=1, node=1)

    def run(self) -> None:
        """Write everything and close the journal."""
        self._send(b"".join(self._setup()))
        orders = _orders(self.market)
        for first in range(0, len(orders), CHUNK):
            self._send(self._slots(orders[first : first + CHUNK]))
        self._settle()
        self.journaler.close()

    def _setup(self) -> Iterator[bytes]:
        market = self.market
        messages: list[Any] = [wire.AssetAdd(exponent=-8, symbol="USDT")]
        messages += [wire.AssetAdd(exponent=-8, symbol=f"C{pair}") for pair in range(market.pairs)]
        messages += [
            wire.InstrumentAdd(
                tick_size=1,
                lot_size=1,
                quote_per_tick_lot=10,
                base_per_lot=1000,
                base_asset_id=QUOTE + 1 + pair,
                quote_asset_id=QUOTE,
                symbol=f"C{pair}-USDT",
            )
            for pair in range(market.pairs)
        ]
        messages.append(wire.FeeTierSet(maker_rate=MAKER_RATE, taker_rate=TAKER_RATE))
        messages += [wire.AccountCreate() for _ in range(market.accounts)]
        share = FUNDS // market.accounts
        messages += [
            wire.BalanceAdjust(amount=share, account_id=account, asset_id=asset, kind=wire.BalanceKind.DEPOSIT)
            for account in range(1, market.accounts + 1)
            for asset in range(1, market.pairs + 2)
        ]
        for message in messages:
            yield self._slot(message)

    def _slot(self, message: Any) -> bytes:
        self._seq_num += 1
        slot = bytearray(SLOT_SIZE)
        slot[0:4] = SESSION.to_bytes(4, "little")
        slot[6:8] = int(message.TEMPLATE_ID).to_bytes(2, "little")
        slot[16:24] = self._seq_num.to_bytes(8, "little")
        slot[32 : 32 + message.BLOCK_LENGTH] = message.pack()
        return bytes(slot)

    def _slots(self, orders: np.ndarray[Any, Any]) -> bytes:
        slots = np.zeros(len(orders), _SLOT)
        slots["session"] = SESSION
        slots["template"] = wire.NewOrderSingle.TEMPLATE_ID
        slots["seq_num"] = np.arange(self._seq_num + 1, self._seq_num + 1 + len(orders), dtype=np.uint64)
        slots["block"] = orders.view(_BLOCK)
        self._seq_num += len(orders)
        return slots.tobytes()

    def _send(self, slots: bytes) -> None:
        deadline = time.monotonic() + DEADLINE_S
        for first in range(0, len(slots), CHUNK * SLOT_SIZE):
            piece = slots[first : first + CHUNK * SLOT_SIZE]
            records = [piece[at : at + SLOT_SIZE] for at in range(0, len(piece), SLOT_SIZE)]
            while self.ingress.room() < len(records):
                self._turn(deadline)
            self.ingress.publish(*records)

    def _turn(self, deadline: float) -> None:
        if self._runner.run(RUN_NS).status < 0:
            raise RuntimeError(f"a stage failed: {self.sequencer.error}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the market was not made within {DEADLINE_S} s")

    def _settle(self) -> None:
        """Until every order is matched, every report settled, and a hash of it all is in the log."""
        deadline = time.monotonic() + DEADLINE_S
        end = time.monotonic() + 1.5
        while time.monotonic() < end or not self._written():
            self._turn(deadline)

    def _written(self) -> bool:
        settled = all(ring.consumer(1).cursor == ring.published for number, ring in self.reports.items() if number)
        archived = all(ring.consumer(0).cursor == ring.published for ring in self.reports.values())
        return settled and archived and self.journaler.position.sequence == self.log.published


def _ring(gating: dict[int, str]) -> Ring:
    return Ring.private(slot_size=SLOT_SIZE, slot_count=RING_SLOTS, gating=gating)


def _orders(market: Market) -> np.ndarray[Any, Any]:
    """Return maker, taker, maker, taker, ...: each pair of orders makes one trade."""
    random = np.random.default_rng(market.seed)
    trades = market.trades
    walk = 4_000_000 + np.cumsum(random.integers(-3, 4, trades))
    pair = random.integers(1, market.pairs + 1, trades)
    maker = random.integers(1, market.accounts + 1, trades)
    taker = (maker + random.integers(1, market.accounts, trades) - 1) % market.accounts + 1
    maker_sells = random.integers(0, 2, trades)
    orders = np.zeros(2 * trades, _ORDER)
    absent = np.iinfo(np.int64).min
    orders["display_qty"] = absent
    orders["stop_px"] = absent
    orders["expire_time"] = np.iinfo(np.uint32).max
    orders["ord_type"] = wire.OrdType.LIMIT
    orders["cl_ord_id"] = np.arange(1, 2 * trades + 1)
    for first, account, sells, slip in ((0, maker, maker_sells, 0), (1, taker, 1 - maker_sells, 5)):
        side = orders[first::2]
        side["account_id"] = account
        side["instrument_id"] = pair
        side["side"] = np.where(sells == 1, wire.Side.SELL, wire.Side.BUY)
        # A taker would pay a little more than it has to: the difference goes back.
        side["price"] = walk + np.where(sells == 1, -slip, slip)
        side["time_in_force"] = wire.TimeInForce.IOC if first else wire.TimeInForce.GTC
    quantity = random.integers(1, 200, trades)
    orders["order_qty"] = np.repeat(quantity, 2)
    return orders
