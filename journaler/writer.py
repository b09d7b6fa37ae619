"""The journaler as an object: open and verify the directory, attach the rings, hand the stage to whoever runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from journaler._journal import ffi, lib
from journaler.audit import chain_end
from journaler.errors import JournalError, JournalHalted, JournalLocked
from journaler.marks import NO_SEGMENT
from journaler.reader import ring_pointer
from journaler.recover import Position, Recovery, cut, panicked, recover
from journaler.segments import PANIC_FILE, lock_directory, remove_leftovers, sync_directory
from ringbuf import Ring, Stage
from ringbuf.wait import address

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
CONSUMER = 0  # the journaler's place among the gating consumers of log and report rings
NAME = "journaler"


@dataclass(frozen=True, slots=True)
class JournalerConfig:
    """Where and how the log is kept. Nothing here changes what a record means."""

    directory: Path
    mode: Literal["D1", "D0"]  # D0 acknowledges before the disk has it: tests only
    archive: bool = True  # keep reports in files, for retransmission beyond the ring
    segment_size_bytes: int = 64 * MEBIBYTE
    segments_ahead: int = 2
    batch_slots_max: int = 8192  # 1 MiB
    lazy_us: int = 1000
    gather_us: int = 0  # how long a sync in a stream of records may wait for more of them; 0: not at all
    mark_interval_ms: int = 10
    cluster: int = 0
    node: int = 0
    schema_hash: int = 0
    audit: bool = True  # keep the SHA-256 chain beside the segments
    # Free space of the journal's filesystem (J9). From `space_enough_bytes` on the percentages are not looked at.
    space_enough_bytes: int = 16 * GIBIBYTE
    space_low_percent: int = 20
    space_cancel_only_percent: int = 10
    space_halt_percent: int = 5
    # So many syncs slower than `sync_slow_ms` within `sync_alarm_s`, or one of `sync_stalled_ms`, raise the alarm (J8).
    sync_slow_ms: int = 250
    sync_slow_count: int = 3
    sync_stalled_ms: int = 1000
    sync_alarm_s: int = 60
    archive_lag_us: int = 0  # how long a few slots of an archive may wait for more; 0: not at all
    # How many times the time of its own writes the preparation of segments leaves the disk alone.
    prepare_pause: int = 4

    def __post_init__(self) -> None:
        self._check_ranges()
        if self.segment_size_bytes % 4096:
            raise ValueError(f"segment_size_bytes = {self.segment_size_bytes}: must be a multiple of 4096")
        if self.mode not in ("D1", "D0"):
            raise ValueError(f"mode = {self.mode!r}: must be D1 or D0")

    def _check_ranges(self) -> None:
        bounds = {
            "segment_size_bytes": (64 * 1024, 65536 * MEBIBYTE),
            "segments_ahead": (1, 8),
            "batch_slots_max": (8, 65536),
            "lazy_us": (0, 1_000_000),
            "gather_us": (0, 10_000),
            "mark_interval_ms": (1, 10),  # J5
            "cluster": (0, 2**64 - 1),
            "node": (0, 2**32 - 1),
            "schema_hash": (0, 2**64 - 1),
            "space_enough_bytes": (0, 2**60),
            "space_low_percent": (0, 100),
            "space_cancel_only_percent": (0, 100),
            "space_halt_percent": (0, 100),
            "sync_slow_ms": (1, 1000),
            "sync_slow_count": (1, 16),
            "sync_stalled_ms": (1000, 600_000),
            "sync_alarm_s": (1, 3600),
            "archive_lag_us": (0, 1_000_000),
            "prepare_pause": (0, 100),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value}: must be between {low} and {high}")


class Journaler:
    """The one writer of a journal directory. `stage` is polled by a runner; `housekeep()` between runs.

    Opening verifies every segment, cuts a torn tail and takes the gating place 0 in all rings. The log ring must go on
    where the files end or hold the records after that. Raises JournalLocked, JournalRefused or JournalError.
    """

    def __init__(
        self,
        config: JournalerConfig,
        log_ring: Ring,
        report_rings: Mapping[int, Ring],
        market_rings: Mapping[int, Ring] | None = None,
    ) -> None:
        self.config = config
        self._market = dict(market_rings or {})
        self._rings = (log_ring, dict(report_rings))  # keeps their memory mapped
        self._journaler: Any = None
        self._lock: int | None = None
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = lock_directory(config.directory)
        if self._lock is None:
            raise JournalLocked(f"{config.directory} is being written by another process")
        try:
            self.recovery = self._recover()
            self._check_log(log_ring, self.recovery.position.sequence)
            self._open(log_ring, report_rings)
        except BaseException:
            self.close()
            raise

    @property
    def stage(self) -> Stage:
        """The stage for a Runner; valid until close()."""
        return Stage(address(lib.journaler_poll_function()), address(self._journaler))

    @property
    def idle_timeout_ns(self) -> int:
        """The longest a runner of this stage may sleep: nothing but time says when a lazy record must be written."""
        return max(self.config.lazy_us, 100) * 1000

    def poll(self, limit: int = 1024) -> int:
        """Run the stage once; for tests and tools. Raises JournalHalted when no segment can be prepared (J9)."""
        done = int(lib.journaler_poll(self._journaler, limit))
        if done < 0:
            raise JournalHalted(f"no space for a new segment: {os.strerror(self.stats()['halted'])}")
        return done

    @property
    def position(self) -> Position:
        """Where the next batch goes."""
        raw = ffi.new("journal_position_t *")
        lib.journaler_position(self._journaler, raw)
        names = ("sequence", "epoch", "batch", "log_hash", "crc", "segment_first", "offset")
        return Position(*(int(getattr(raw, name)) for name in names))

    @property
    def patience_ns(self) -> int:
        """How long a sleeping loop may sleep before a lazy record must be written."""
        return int(lib.journaler_patience(self._journaler))

    def stats(self) -> dict[str, Any]:
        """Counters for `bullring stat`; sync_buckets[i] counts writes with sync of 2^i to 2^(i+1) ns."""
        raw = ffi.new("journal_stats_t *")
        lib.journaler_stats(self._journaler, raw)
        result: dict[str, Any] = {
            name: int(getattr(raw, name)) for name, _ in ffi.typeof("journal_stats_t").fields if name != "sync_buckets"
        }
        result["sync_buckets"] = [int(count) for count in raw.sync_buckets]
        return result

    def housekeep(self) -> dict[str, Any]:
        """Return the counters. Segments, marks and the audit chain are the work of the journaler's own threads."""
        return self.stats()

    def close(self) -> None:
        """Write and sync what is published, store the last mark, let go of the directory. Idempotent."""
        if self._journaler is not None:
            lib.journaler_stop(self._journaler)
            lib.journaler_free(self._journaler)
            self._journaler = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recover(self) -> Recovery:
        directory = self.config.directory
        said = panicked(directory)
        if said is not None:
            raise JournalError(
                f"a write or sync failed in an earlier run ({said}). "
                f"Run `bullring journal verify --direct {directory}`, compare with the peer, "
                f"then remove {directory / PANIC_FILE}"
            )
        recovery = recover(directory)
        cut(recovery)
        # A process that was killed may have left records that were written and never synced: from now on they count.
        for path in recovery.segments[-1:]:
            _sync(path)
        remove_leftovers(directory, self.config.segments_ahead)
        return recovery

    def _check_log(self, ring: Ring, end: int) -> None:
        """The ring must not know of durable records the files lack, nor begin behind a gap."""
        view = _view(ring)
        if view.panic:
            raise JournalError(f"the log ring says that a write failed: {os.strerror(view.panic)}. Verify the journal")
        durable = max(view.commit, view.cursor) if view.gating else view.commit
        if durable > end and durable > view.base:
            raise JournalError(
                f"the log ring says that everything below {durable} is durable, "
                f"but {self.config.directory} ends at {end}"
            )
        if not view.base <= end <= view.published:
            raise JournalError(
                f"the journal ends at {end}, but the log ring holds {view.base} to {view.published}: "
                "make the ring with the end of the journal as its base"
            )
        if view.claim - view.capacity > end:
            raise JournalError(f"the log ring has overwritten sequence {end}, the first one missing in the journal")

    def _raw_config(self, directory: Any) -> Any:
        config = self.config
        raw = ffi.new("journal_config_t *")
        raw.directory = directory
        raw.segment_size = config.segment_size_bytes
        raw.lazy_ns = config.lazy_us * 1000
        raw.gather_ns = config.gather_us * 1000
        raw.mark_interval_ns = config.mark_interval_ms * NS_PER_MS
        raw.batch_slots_max = config.batch_slots_max
        raw.spares = config.segments_ahead
        raw.sync = config.mode == "D1"
        raw.node, raw.cluster, raw.schema_hash = config.node, config.cluster, config.schema_hash
        raw.mark_counter = self.recovery.mark.counter if self.recovery.mark else 0
        raw.space_enough = config.space_enough_bytes
        raw.space_low = config.space_low_percent
        raw.space_cancel_only = config.space_cancel_only_percent
        raw.space_halt = config.space_halt_percent
        raw.sync_slow_count = config.sync_slow_count
        raw.sync_slow_ns = config.sync_slow_ms * NS_PER_MS
        raw.sync_stalled_ns = config.sync_stalled_ms * NS_PER_MS
        raw.sync_alarm_ns = config.sync_alarm_s * NS_PER_S
        raw.archive_lag_ns = config.archive_lag_us * 1000
        raw.prepare_pause = config.prepare_pause
        raw.audit_first = NO_SEGMENT
        if config.audit:
            end = chain_end(config.directory)
            raw.audit_first, raw.audit_origin, raw.audit_state = end.sequence, end.origin, end.words
        return raw

    def _open(self, log_ring: Ring, report_rings: Mapping[int, Ring]) -> None:
        config = self.config
        directory = ffi.new("char[]", os.fsencode(config.directory))
        raw = self._raw_config(directory)
        position = ffi.new("journal_position_t *", self._raw_position())
        log_ring.gate(CONSUMER, NAME, at=self.recovery.position.sequence)
        journaler = lib.journaler_new(raw, position, ring_pointer(log_ring))
        if journaler == ffi.NULL:
            raise _os_error(config.directory)
        self._journaler = journaler
        if config.archive:
            for partition, ring in sorted(report_rings.items()):
                start = ring.gate(CONSUMER, NAME, at=self._archive_start("reports", partition, ring))
                if lib.journaler_add_reports(journaler, partition, ring_pointer(ring), start) != 0:
                    raise _os_error(config.directory / "reports" / str(partition))
            for partition, ring in sorted(self._market.items()):
                start = self._archive_start("market", partition, ring)
                if lib.journaler_add_market(journaler, partition, ring_pointer(ring), start) != 0:
                    raise _os_error(config.directory / "market" / str(partition))
        if lib.journaler_start(journaler) != 0:
            raise _os_error(config.directory)
        sync_directory(config.directory)

    def _raw_position(self) -> dict[str, int]:
        position = self.recovery.position
        return {name: getattr(position, name) for name in Position.__dataclass_fields__}

    @property
    def market_archived(self) -> bool:
        """Whether everything published in the market rings is in their archive (or was overwritten before)."""
        return all(
            lib.journaler_market_next(self._journaler, ring_pointer(ring)) >= ring.published
            for ring in self._market.values()
        )

    def _archive_start(self, folder: str, partition: int, ring: Ring) -> int:
        """Go on at the cursor of an earlier run, else where the file ends, as far as the ring still has the slots."""
        view = _view(ring)
        if view.gating:
            return int(view.cursor)
        path = self.config.directory / folder / str(partition)
        there = path.stat().st_size // ring.slot_size if path.exists() else 0
        return int(max(view.base, view.claim - view.capacity, min(there, view.published)))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _view(ring: Ring) -> Any:
    view = ffi.new("journal_ring_view_t *")
    lib.journal_view_ring(ring_pointer(ring), view)
    return view


def _os_error(path: Path) -> OSError:
    return OSError(ffi.errno, os.strerror(ffi.errno), str(path))
