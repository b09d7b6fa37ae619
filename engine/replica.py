"""A replica of the whole core that follows a log on private memory: snapshots, replay, audits, recovery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine._engine import ffi, lib
from engine.config import EngineConfig
from engine.engine import composed_hash
from engine.errors import ReplayError
from engine.matcher import Matcher
from engine.sequencer import Sequencer
from ringbuf import Ring

SLOT_SIZE = 128
MARKET_SLOT_SIZE = 64
REPORT_SLOTS = 1 << 14
# Nobody waits for market data, so what one round of reports can bring with it must fit.
MARKET_SLOTS = 1 << 17
REPLICA = 2  # our place among the gating consumers of report rings, beside journaler and sequencer

Outputs = Callable[[int, int, bytes], None]  # partition, first sequence, slots


@dataclass(frozen=True)
class Watch:
    """Whose balances are watched, and who is told the sequence of each record that changed them."""

    account: int
    changed: Callable[[int], None]


@dataclass(frozen=True)
class Places:
    """Where the rings of a log's outputs go on at some record: next sequences, by partition."""

    settled: Mapping[int, int] = field(default_factory=dict)  # 0: the sequencer's own
    market: Mapping[int, int] = field(default_factory=dict)


class Replica:
    """Sequencer and matchers on private rings. Load images into `sequencer` and `matchers` before `open`."""

    def __init__(self, config: EngineConfig) -> None:
        """Allocate everything. Raises CapacityError."""
        self.config = config
        self.sequencer = Sequencer(config)
        self.matchers = [Matcher(config, partition) for partition in range(1, config.partitions + 1)]
        self.reports: list[Ring] = []
        self.market: dict[int, Ring] = {}
        self._pointers = ffi.new("matcher_t *[]", [matcher.ptr for matcher in self.matchers])
        self._hash = ffi.new("uint64_t[2]")
        self._changed = ffi.new("bool *")
        self._seen_reports: list[int] = []
        self._seen_market: dict[int, int] = {}
        self._stack: list[Ring] = []

    def open(self, places: Places, unsettled: Mapping[int, bytes], *, output_hash: int = 0) -> None:
        """Make the rings; publish reports that were made but not settled where the images were taken."""
        slots = [REPORT_SLOTS]
        slots += [1 << (len(reports) // SLOT_SIZE * 2).bit_length() for reports in unsettled.values()]
        log = Ring.private(slot_size=SLOT_SIZE, slot_count=1 << 10, base=self.sequencer.position)
        reply = Ring.private(slot_size=SLOT_SIZE, slot_count=1 << 10)
        self.reports = [
            Ring.private(
                slot_size=SLOT_SIZE,
                slot_count=max(slots),
                base=places.settled.get(partition, 0),
                gating={REPLICA: "replica"},
            )
            for partition in range(self.config.partitions + 1)
        ]
        self.market = {
            partition: Ring.private(
                slot_size=MARKET_SLOT_SIZE, slot_count=MARKET_SLOTS, base=places.market.get(partition, 0)
            )
            for partition in range(1, self.config.partitions + 1)
        }
        self._stack = [log, reply, *self.reports, *self.market.values()]
        for partition, reports in unsettled.items():
            if reports:
                self.reports[partition].publish(
                    *[reports[at : at + SLOT_SIZE] for at in range(0, len(reports), SLOT_SIZE)]
                )
        self._attach(log, reply)
        # Reports that an earlier replica has made already are in its hash.
        self._seen_reports = [ring.published for ring in self.reports]
        self._seen_market = {partition: ring.published for partition, ring in self.market.items()}
        for partition, ring in enumerate(self.reports):
            ring.advance(REPLICA, self._seen_reports[partition])
        self._hash[0], self._hash[1] = output_hash % (1 << 64), output_hash >> 64

    def _attach(self, log: Ring, reply: Ring) -> None:
        self.sequencer.attach(
            log=log,
            report0=self.reports[0],
            reply=reply,
            reports={matcher.partition: self.reports[matcher.partition] for matcher in self.matchers},
            ingress={},
        )
        for matcher in self.matchers:
            matcher.attach(log=log, reports=self.reports[matcher.partition], market=self.market[matcher.partition])

    def close(self) -> None:
        """Give the rings' memory back; only what was read before is still true."""
        for ring in self._stack:
            ring.close()
        self._stack = []

    # --- following --------------------------------------------------------------------------------------------------

    def feed(
        self,
        first_sequence: int,
        records: bytes | memoryview,
        *,
        outputs: Outputs | None = None,
        market: Outputs | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Apply records (n x 128 bytes, whole groups) to all owners until none has anything left to do.

        `outputs` is given every report of it, `market` every market-data slot; `watch` is told of every record that
        changed its account's balances, after the reports that the record names. Raises ReplayError when the log does
        not fit or state differs from a hash mark.
        """
        if first_sequence != self.position:
            raise ReplayError(f"record {self.position} is missing: the next one is {first_sequence}")
        buffer = ffi.from_buffer("log_slot_t[]", records)
        count, done = len(records) // SLOT_SIZE, 0
        while True:
            step, changed = self._step(buffer + done, first_sequence + done, count - done, watch)
            done += step
            drained = self._drain(outputs, market)
            if watch is not None and changed:
                watch.changed(self.position - 1)
            if done == count and all(matcher.idle for matcher in self.matchers):
                return
            if step == 0 and drained == 0:
                raise ReplayError(f"replay stands still at record {first_sequence + done}")

    def _step(self, slots: object, first: int, count: int, watch: Watch | None) -> tuple[int, bool]:
        if watch is None:
            step = lib.composed_feed(self.sequencer.ptr, self._pointers, len(self.matchers), slots, first, count)
        else:
            step = lib.composed_feed_watched(
                self.sequencer.ptr, self._pointers, len(self.matchers), slots, first, count, watch.account,
                self._changed,
            )  # fmt: skip
        if step < 0:
            raise ReplayError(self.sequencer.error or "a matcher refused a record")
        return int(step), bool(self._changed[0])

    def _drain(self, outputs: Outputs | None, market: Outputs | None) -> int:
        drained = 0
        for partition, ring in enumerate(self.reports):
            first, end = self._seen_reports[partition], ring.published
            if first == end:
                continue
            drained += self._add(ring, first, end)
            if outputs is not None:
                outputs(partition, first, ring.read(first, end - first))
            self._seen_reports[partition] = end
            ring.advance(REPLICA, end)
        for partition, ring in self.market.items():
            first, end = self._seen_market[partition], ring.published
            if first < end:
                drained += self._add(ring, first, end)
                if market is not None:
                    market(partition, first, ring.read(first, end - first))
                self._seen_market[partition] = end
        return drained

    def _add(self, ring: Ring, first: int, end: int) -> int:
        added = int(lib.image_hash_outputs(ring.ptr, first, end, self._hash))
        if added < end - first:
            raise ReplayError(f"{end - first} outputs at once are more than the replica's rings hold")
        return added

    # --- what can be asked ------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Next log sequence."""
        return self.sequencer.position

    @property
    def places(self) -> Places:
        """Where outputs go on from here; reports above `settled` are in `unsettled`."""
        settled = {partition: self.sequencer.settled(partition) for partition in range(self.config.partitions + 1)}
        return Places(settled, {partition: ring.published for partition, ring in self.market.items()})

    @property
    def report_ends(self) -> dict[int, int]:
        """The next report sequence of each partition."""
        return {partition: ring.published for partition, ring in enumerate(self.reports)}

    def unsettled(self) -> dict[int, bytes]:
        """Return the reports above each partition's last SETTLED mark."""
        found = {}
        for matcher in self.matchers:
            ring, settled = self.reports[matcher.partition], self.sequencer.settled(matcher.partition)
            count = ring.published - settled
            found[matcher.partition] = ring.read(settled, count) if count else b""
        return found

    @property
    def output_hash(self) -> bytes:
        """16 bytes over every report and market-data slot since the log began, or since `open` was told otherwise."""
        return bytes(ffi.buffer(self._hash))

    def state_hash(self) -> bytes:
        """16 bytes over sequencer and all books."""
        return composed_hash(self.sequencer, self.matchers)

    def check(self) -> str:
        """Recount sequencer and books from scratch; return what disagrees, empty if nothing does."""
        if not self.sequencer.check():
            return "sequencer: totals, holds, hash or conservation disagree"
        for matcher in self.matchers:
            try:
                matcher.check()
            except AssertionError as error:
                return str(error)
        return ""
