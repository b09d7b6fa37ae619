"""A core on private rings with a journal behind it, and a steady flow of orders: logs of millions of records."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine import ComposedEngine, EngineConfig
from journaler import Journaler, JournalerConfig
from ringbuf.wire import messages as wire

SLOT_SIZE, BLOCK_OFFSET = 128, 32
BATCH = 512
MONEY = 1 << 50
START_NS = 1_700_000_000_000_000_000
BATCH_NS = 5_000_000  # a hundred thousand requests a second, by the log's clock
PAIRS = 2


def slot_type(message: Any) -> np.dtype[Any]:
    """Return an ingress slot of one template as a numpy record."""
    names, formats, offsets = ["session", "template", "number"], ["<u4", "<u2", "<u8"], [0, 6, 16]
    for name, kind, offset in message.COLUMNS:
        names.append(name)
        formats.append(kind)
        offsets.append(BLOCK_OFFSET + offset)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": SLOT_SIZE})


ORDER, CANCEL = slot_type(wire.NewOrderSingle), slot_type(wire.OrderCancelRequest)


class BulkMarket:
    """Two pairs on two matchers, `accounts` funded accounts with a session for the first of them."""

    def __init__(self, config: EngineConfig, journal: Path, *, accounts: int) -> None:
        self.engine = ComposedEngine(config)
        self.journaler = Journaler(
            JournalerConfig(
                directory=journal, mode="D0", archive=False, audit=False, lazy_us=0, prepare_pause=0,
                cluster=config.cluster_id, schema_hash=wire.SCHEMA_HASH,
            ),
            self.engine.log, {},
        )  # fmt: skip
        self.now_ns = START_NS
        self._number = self._client_id = 0
        self.engine.start()
        self._prepare(accounts)

    def _prepare(self, accounts: int) -> None:
        for symbol in ("BASE", "QUOTE"):
            self._admin(wire.AssetAdd(exponent=0, symbol=symbol))
        for number in range(1, PAIRS + 1):
            self._admin(
                wire.InstrumentAdd(
                    tick_size=1, lot_size=1, quote_per_tick_lot=1, base_per_lot=1, base_asset_id=1, quote_asset_id=2,
                    symbol=f"PAIR-{number}", assigned_partition=number,
                )
            )  # fmt: skip
        for account in range(1, accounts + 1):
            self._admin(wire.AccountCreate())
            for asset in (1, 2):
                self._admin(
                    wire.BalanceAdjust(
                        amount=MONEY if account == 1 else 1000, account_id=account, asset_id=asset,
                        kind=wire.BalanceKind.DEPOSIT,
                    )
                )  # fmt: skip
            if account % 100 == 0:
                self.drain()
        self.session = self.engine.submit(1, wire.SessionCreate(account_id=1))[0].message.result_id
        self.engine.bind(self.session)
        self.drain()

    def _admin(self, message: Any) -> None:
        self.engine.submit(1, message)

    def drain(self) -> None:
        """Have the journal take what is in the log ring."""
        while self.journaler.position.sequence < self.engine.log.published:
            self.journaler.poll()

    def trade(self, batch: int = BATCH) -> None:
        """One batch: of four requests two rest, one trades with the second of them, one cancels the first."""
        first = self._client_id + 1
        ids = np.arange(first, first + batch, dtype=np.uint64)
        slots = np.zeros(batch, dtype=ORDER)
        kind = np.arange(batch) % 4
        slots["template"] = wire.Template.NEW_ORDER_SINGLE
        slots["cl_ord_id"] = ids
        slots["side"] = np.where(kind == 1, int(wire.Side.SELL), int(wire.Side.BUY))
        slots["price"] = np.select([kind == 0, kind == 1], [1000 - ids % 50, 1010 + ids % 5], 1020).astype(np.int64)
        self._submit(self._complete(slots, ids), batch, kind == 3, ids)

    def rest(self, batch: int = BATCH) -> None:
        """One batch of bids that stay."""
        ids = np.arange(self._client_id + 1, self._client_id + 1 + batch, dtype=np.uint64)
        slots = np.zeros(batch, dtype=ORDER)
        slots["template"] = wire.Template.NEW_ORDER_SINGLE
        slots["cl_ord_id"] = ids
        slots["side"] = int(wire.Side.BUY)
        slots["price"] = (500 + ids % 400).astype(np.int64)
        self._submit(self._complete(slots, ids), batch, np.zeros(batch, dtype=bool), ids)

    @staticmethod
    def _complete(slots: np.ndarray[Any, Any], ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        blank = wire.NewOrderSingle(ord_type=wire.OrdType.LIMIT, time_in_force=wire.TimeInForce.GTC, order_qty=1)
        template = np.frombuffer(bytes(BLOCK_OFFSET) + blank.pack().ljust(SLOT_SIZE - BLOCK_OFFSET, b"\0"), dtype=ORDER)
        for name, _, _ in wire.NewOrderSingle.COLUMNS:
            if name not in ("cl_ord_id", "side", "price", "instrument_id"):
                slots[name] = template[name][0]
        slots["instrument_id"] = 1 + (ids // 4) % PAIRS
        return slots

    def _submit(
        self, slots: np.ndarray[Any, Any], batch: int, cancels: np.ndarray[Any, Any], ids: np.ndarray[Any, Any]
    ) -> None:
        raw = slots.view(np.uint8).reshape(batch, SLOT_SIZE)
        if cancels.any():
            blank = wire.OrderCancelRequest().pack().ljust(SLOT_SIZE - BLOCK_OFFSET, b"\0")
            rows = np.zeros(int(cancels.sum()), dtype=CANCEL)
            rows.view(np.uint8).reshape(-1, SLOT_SIZE)[:, BLOCK_OFFSET:] = np.frombuffer(blank, dtype=np.uint8)
            rows["template"] = wire.Template.ORDER_CANCEL_REQUEST
            rows["cl_ord_id"] = ids[cancels]
            rows["orig_cl_ord_id"] = ids[cancels] - 3
            rows["instrument_id"] = 1 + ((ids[cancels] - 3) // 4) % PAIRS
            raw[cancels] = rows.view(np.uint8).reshape(-1, SLOT_SIZE)
        slots["session"] = self.session
        slots["number"] = np.arange(self._number + 1, self._number + 1 + batch, dtype=np.uint64)
        self._number += batch
        self._client_id += batch
        self.now_ns += BATCH_NS
        self.engine.set_time(self.now_ns)
        self.engine.feed_ingress(slots.tobytes())
        self.drain()

    def run_to(self, records: int, step: Callable[[], None], say: Callable[[str], None]) -> None:
        """Repeat a step until the log has so many records."""
        told = time.monotonic()
        while self.engine.log.published < records:
            step()
            if time.monotonic() - told > 5.0:
                told = time.monotonic()
                say(f"making the log: {self.engine.log.published} of {records} records")

    def close(self) -> None:
        self.journaler.close()
        self.engine.close()
