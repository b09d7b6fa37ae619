"""Assets, instruments and accounts as the log defines them: what turns units and numbers into decimals and names."""

from __future__ import annotations

from typing import Any

import numpy as np

from ringbuf.wire import messages as wire
from ringbuf.wire.messages import Template
from settlement.derivation import SLOT_SIZE, Columns

FLAG_REJECT = 1 << 2  # slots.h
BLOCK_OFFSET = 32
_DEFINING = (Template.ASSET_ADD, Template.INSTRUMENT_ADD, Template.ACCOUNT_CREATE, Template.ACCOUNT_LIMITS)
_RECORD = np.dtype(
    {
        "names": ["template", "flags", "ts_ns"],
        "formats": ["<u2", "<u2", "<u8"],
        "offsets": [6, 14, 112],
        "itemsize": SLOT_SIZE,
    }
)
_TYPES: dict[str, dict[str, Any]] = {
    "assets": {"asset": np.uint32, "exponent": np.int8, "symbol": "S12", "sequence": np.uint64},
    "instruments": {
        "instrument": np.uint32,
        "base_asset": np.uint32,
        "quote_asset": np.uint32,
        "base_per_lot": np.int64,
        "quote_per_tick_lot": np.int64,
        "tick_size": np.int64,
        "lot_size": np.int64,
        "price_exponent": np.int8,
        "qty_exponent": np.int8,
        "partition": np.uint8,
        "symbol": "S24",
        "sequence": np.uint64,
    },
    "accounts": {
        "account": np.uint32,
        "firm": np.uint32,
        "stp_group": np.uint32,
        "tier": np.uint8,
        "sequence": np.uint64,
    },
}


def record_fields(records: bytes | memoryview) -> np.ndarray[Any, Any]:
    """Return template, flags and time of each record, without a copy."""
    return np.frombuffer(records, dtype=_RECORD)


class Definitions:
    """Collects what records define until `take`."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _TYPES}
        self._accounts: dict[int, tuple[int, int]] = {}  # account -> firm, stp group

    def feed(self, first: int, records: bytes | memoryview) -> None:
        fields = record_fields(records)
        defining = np.isin(fields["template"], _DEFINING) & (fields["flags"] & FLAG_REJECT == 0)
        for index in np.flatnonzero(defining).tolist():
            message = wire.MESSAGES[int(fields["template"][index])].unpack(records, index * SLOT_SIZE + BLOCK_OFFSET)
            self._define(first + index, message)

    def owners(self) -> np.ndarray[Any, Any]:
        """Return account, firm and stp group of every account so far, a row each: what later records build on."""
        rows = [(account, *owner) for account, owner in self._accounts.items()]
        return np.array(rows, np.uint32).reshape(-1, 3)

    def restore(self, owners: np.ndarray[Any, Any]) -> None:
        """Take up again what `owners` returned."""
        self._accounts = {account: (firm, group) for account, firm, group in owners.tolist()}

    def take(self) -> dict[str, Columns]:
        """Return the rows since the last call as columns, by table."""
        taken = {}
        for table, rows in self._rows.items():
            if rows:
                columns = zip(*rows, strict=True)
                types = _TYPES[table].items()
                taken[table] = {
                    name: np.array(values, kind) for (name, kind), values in zip(types, columns, strict=True)
                }
                rows.clear()
        return taken

    def _define(self, sequence: int, message: Any) -> None:
        match message:
            case wire.AssetAdd():
                row: tuple[Any, ...] = (message.asset_id, message.exponent, message.symbol.encode(), sequence)
                self._rows["assets"].append(row)
            case wire.InstrumentAdd():
                row = (
                    message.instrument_id,
                    message.base_asset_id,
                    message.quote_asset_id,
                    message.base_per_lot,
                    message.quote_per_tick_lot,
                    message.tick_size,
                    message.lot_size,
                    message.price_exponent,
                    message.qty_exponent,
                    message.assigned_partition,
                    message.symbol.encode(),
                    sequence,
                )
                self._rows["instruments"].append(row)
            case wire.AccountCreate():
                self._accounts[message.account_id] = (message.firm_id, message.stp_group_id)
                self._account(message.account_id, message.fee_tier, sequence)
            case wire.AccountLimits():
                self._account(message.account_id, message.fee_tier, sequence)

    def _account(self, account: int, tier: int, sequence: int) -> None:
        firm, stp_group = self._accounts.get(account, (0, 0))
        self._rows["accounts"].append((account, firm, stp_group, tier, sequence))
