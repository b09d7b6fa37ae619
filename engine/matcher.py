"""A matcher's shell: one partition, one thread, one or more pairs."""

from collections.abc import Sequence
from typing import Any

from engine._engine import ffi, lib
from engine.config import EngineConfig
from engine.errors import CapacityError, StageFailed
from ringbuf import Ring

SLOT_SIZE = 128


class Matcher:
    """Owns books, priorities and market states of one partition."""

    def __init__(self, config: EngineConfig, partition: int) -> None:
        """Allocate the arena. Raises CapacityError."""
        if not 1 <= partition <= config.partitions:
            raise ValueError(f"partition = {partition}: must be 1 to {config.partitions}")
        settings = ffi.new(
            "matcher_config_t *",
            {
                "partition": partition,
                "orders_max": config.orders_per_partition,
                "instruments_max": config.instruments_max,
                "accounts_max": config.accounts_max,
                "sessions_max": config.sessions_max,
                "step_budget": config.step_budget,
            },
        )
        pointer = lib.matcher_new(settings)
        if pointer == ffi.NULL:
            raise CapacityError(f"the arena of partition {partition} does not fit in memory: lower the capacities")
        self.partition = partition
        self._instruments_max = config.instruments_max
        self._pointer = ffi.gc(pointer, lib.matcher_free)
        self._rings: list[Ring] = []
        self._quarantined = -1  # the newest one known

    def attach(self, *, log: Ring, reports: Ring, market: Ring) -> None:
        """Give the rings; the matcher is the producer of `reports` and `market`, an observer of `log`."""
        lib.matcher_attach(self._pointer, log.ptr, reports.ptr, market.ptr)
        self._rings = [log, reports, market]

    @property
    def stage(self) -> Any:
        """The step function as a cffi `stage_t *`, for `ringbuf.Runner`; valid as long as this object."""
        return ffi.new("stage_t *", {"poll": ffi.addressof(lib, "matcher_poll"), "state": self._pointer})

    def feed(self, first_sequence: int, records: bytes | bytearray | memoryview) -> int:
        """Apply log records (n x 128 bytes); return how many were consumed. Fewer than n: no room for reports."""
        buffer = ffi.from_buffer("log_slot_t[]", records)
        done: int = lib.matcher_feed(self._pointer, buffer, first_sequence, len(records) // SLOT_SIZE)
        if done < 0:
            raise StageFailed(f"matcher {self.partition} failed ({done})")
        return done

    def quarantine(self, sequences: Sequence[int]) -> None:
        """Have `feed` answer these records with Quarantined instead of doing them; ascending, at most 64 in all.

        Those known already may be named again.
        """
        new = [sequence for sequence in sequences if sequence > self._quarantined]
        if new:
            lib.matcher_quarantine(self._pointer, new, len(new))
            self._quarantined = new[-1]

    @property
    def position(self) -> int:
        """Next log sequence it will take."""
        return int(lib.matcher_position(self._pointer))

    @property
    def idle(self) -> bool:
        """Whether no operation is half done."""
        return bool(lib.matcher_idle(self._pointer))

    def book_hash(self, instrument: int) -> bytes:
        """16 bytes over the resting orders of one instrument."""
        out = ffi.new("uint64_t[2]")
        lib.matcher_hash(self._pointer, instrument, out)
        return bytes(ffi.buffer(out))

    def book_hashes(self) -> dict[int, int]:
        """Return the hash of every book of this partition, by instrument."""
        instruments = (number for number in range(1, self._instruments_max + 1) if self.has_book(number))
        return {number: int.from_bytes(self.book_hash(number), "little") for number in instruments}

    def has_book(self, instrument: int) -> bool:
        """Whether the instrument is traded in this partition."""
        return self.market_state(instrument) != 0

    def market_state(self, instrument: int) -> int:
        """Return the MarketState; 0 = not an instrument of this partition."""
        return int(lib.matcher_market_state(self._pointer, instrument))

    def book_side(self, instrument: int, *, sell: bool) -> list[tuple[int, int, int]]:
        """Return (order id, price, leaves) of the resting orders, best price first, in time order within a level."""
        count = lib.matcher_order_count(self._pointer, instrument)
        rows = ffi.new("matcher_order_t[]", max(1, count))
        found = lib.matcher_orders(self._pointer, instrument, 2 if sell else 1, rows, count)
        return [(int(rows[i].order_id), int(rows[i].price), int(rows[i].leaves)) for i in range(found)]

    def check(self) -> None:
        """Verify every invariant of the books. Raises AssertionError naming the broken one."""
        broken = lib.matcher_check(self._pointer)
        if broken != ffi.NULL:
            raise AssertionError(f"matcher {self.partition}: {ffi.string(broken).decode()}")

    @property
    def settled(self) -> int:
        """Report sequence named by the last SETTLED mark it has seen."""
        return int(lib.matcher_settled(self._pointer))

    @property
    def ptr(self) -> Any:
        """The C object, for the composed engine."""
        return self._pointer
