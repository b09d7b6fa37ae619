"""The sequencer's shell: lifetime, arguments, errors. What decides is in C (`sequencer.c` and its neighbours)."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from engine._engine import ffi, lib
from engine.config import EngineConfig
from engine.errors import CapacityError, ReplayError, StageFailed
from ringbuf import Ring

SLOT_SIZE = 128


class SequencerCounter(IntEnum):
    """Counters of `Sequencer.counter`."""

    COMMANDS = 0
    REJECTED = 1
    DUPLICATES = 2
    GAPS = 3
    NOT_BOUND = 4
    QUERIES = 5
    REPORTS = 6
    MARKS = 7
    LOG_FULL = 8


class Sequencer:
    """Owns accounts, order identity, sessions; sole writer of the log.

    Give it its rings with `attach`, past records with `feed`, then `lead`; `stage` is its step function.
    """

    def __init__(self, config: EngineConfig) -> None:
        """Allocate all tables. Raises CapacityError."""
        error = ffi.new("const char **")
        settings = ffi.new(
            "sequencer_config_t *",
            {
                "cluster_id": config.cluster_id,
                "hash_seed": config.hash_seed,
                "partitions": config.partitions,
                "orders_per_partition": config.orders_per_partition,
                "accounts_max": config.accounts_max,
                "balances_max": config.balances_max,
                "sessions_max": config.sessions_max,
                "instruments_max": config.instruments_max,
                "keys_max": config.keys_max,
                "assets_max": config.assets_max,
                "open_orders_per_account_max": config.open_orders_per_account_max,
            },
        )
        pointer = lib.sequencer_new(settings, error)
        if pointer == ffi.NULL:
            raise CapacityError(ffi.string(error[0]).decode())
        self.config = config
        self._pointer = ffi.gc(pointer, lib.sequencer_free)
        self._rings: list[Ring] = []

    def attach(
        self, *, log: Ring, report0: Ring, reply: Ring, reports: Mapping[int, Ring], ingress: Mapping[int, Ring]
    ) -> None:
        """Give the rings: `reports` by partition (1..), `ingress` by source (1..).

        Become the gating consumer of every ingress ring and of every report ring, at the position settled so far.
        """
        lib.sequencer_attach(self._pointer, log.ptr, report0.ptr, reply.ptr)
        for partition, ring in reports.items():
            lib.sequencer_attach_reports(self._pointer, partition, ring.ptr)
        for source, ring in ingress.items():
            lib.sequencer_attach_ingress(self._pointer, source, ring.ptr)
        self._rings = [log, report0, reply, *reports.values(), *ingress.values()]

    def lead(self, *, epoch: int, node: int) -> None:
        """Write the records that open an epoch; from now on `stage` takes commands."""
        lib.sequencer_lead(self._pointer, epoch, node)

    def resume(self) -> None:
        """Go on where a leader died: same epoch, same rings, all of the log applied, no record of its own."""
        lib.sequencer_resume(self._pointer)

    def follow(self) -> None:
        """Apply the log of another node as it comes through the ring: `stage` does. Ends with `lead`."""
        lib.sequencer_follow(self._pointer)

    def hold(self, held: bool) -> None:
        """Write no record until told otherwise; what is there is still settled and released."""
        lib.sequencer_hold(self._pointer, held)

    @property
    def stage(self) -> Any:
        """The step function as a cffi `stage_t *`, for `ringbuf.Runner`; valid as long as this object."""
        return ffi.new("stage_t *", {"poll": ffi.addressof(lib, "sequencer_poll"), "state": self._pointer})

    def feed(self, first_sequence: int, records: bytes | bytearray | memoryview) -> int:
        """Apply log records (n x 128 bytes); return how many were applied.

        Fewer than n: a SETTLED mark waits for reports that its matcher has not produced yet. Raises ReplayError.
        """
        buffer = ffi.from_buffer("log_slot_t[]", records)
        done: int = lib.sequencer_feed(self._pointer, buffer, first_sequence, len(records) // SLOT_SIZE)
        if done < 0:
            raise ReplayError(self.error or "sequencer failed")
        return done

    def poll(self, limit: int = 1024) -> int:
        """Do one bounded step (tests; live processes use `stage`)."""
        done: int = lib.sequencer_poll(self._pointer, limit)
        if done < 0:
            raise StageFailed(self.error or "sequencer failed")
        return done

    def set_time(self, now_ns: int) -> None:
        """Take time from the caller; 0 = the clock again."""
        lib.sequencer_set_time(self._pointer, now_ns)

    @property
    def position(self) -> int:
        """Next log sequence."""
        return int(lib.sequencer_position(self._pointer))

    @property
    def epoch(self) -> int:
        """Epoch of the newest EPOCH_START applied; 0 = none."""
        return int(lib.sequencer_epoch(self._pointer))

    @property
    def last_ts(self) -> int:
        """Time stamp of the newest record applied, ns since 1970; 0 = none."""
        return int(lib.sequencer_last_ts(self._pointer))

    def settled(self, partition: int) -> int:
        """Report sequence below which reports of `partition` are in the balances and marked; 0: own reports made."""
        return int(lib.sequencer_settled(self._pointer, partition))

    @property
    def error(self) -> str:
        """Why the last call failed."""
        text = lib.sequencer_error(self._pointer)
        return "" if text == ffi.NULL else str(ffi.string(text).decode())

    def balance(self, account: int, asset: int) -> tuple[int, int]:
        """Return (available, held) in units of the asset."""
        amounts = ffi.new("int64_t[2]")
        lib.sequencer_balance(self._pointer, account, asset, amounts, amounts + 1)
        return int(amounts[0]), int(amounts[1])

    def balance_changes(self, account: int) -> int:
        """Return how often a balance of the account has changed."""
        return int(lib.sequencer_balance_changes(self._pointer, account))

    def assets(self) -> dict[int, tuple[str, int]]:
        """Return (symbol, exponent) of every asset."""
        symbol, exponent = ffi.new("char[13]"), ffi.new("int *")
        found = {}
        for asset in range(1, self.config.assets_max + 1):
            if lib.sequencer_asset(self._pointer, asset, symbol, exponent):
                found[asset] = (ffi.string(symbol).decode(), int(exponent[0]))
        return found

    def open_orders(self, account: int, limit: int = 1 << 20) -> list[dict[str, int]]:
        """Return the order table's lines of `account` (0 = all), in table order."""
        count = min(limit, self.config.orders_per_partition * self.config.partitions)
        rows = ffi.new("open_order_t[]", count)
        found = lib.sequencer_open_orders(self._pointer, account, rows, count)
        names = [name for name, _ in ffi.typeof("open_order_t").fields]
        return [{name: int(getattr(rows[i], name)) for name in names} for i in range(found)]

    def counter(self, which: SequencerCounter) -> int:
        """Return one counter."""
        return int(lib.sequencer_counter(self._pointer, which))

    def check(self) -> bool:
        """Recount totals, holds, hash and conservation from the tables."""
        return bool(lib.sequencer_check(self._pointer))

    def state_hash(self) -> bytes:
        """16 bytes over balances, order table, registry, sessions and positions."""
        out = ffi.new("uint64_t[2]")
        lib.sequencer_hash(self._pointer, out)
        return bytes(ffi.buffer(out))

    @property
    def ptr(self) -> Any:
        """The C object, for the composed engine."""
        return self._pointer
