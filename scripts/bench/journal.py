"""`bullring bench journal`: what group commit costs beside the disk's own price for the same bytes.

Each round commits one batch through the journaler and, in turn, writes and syncs a block of the same size in a file of
the same kind beside it: both see the same disk at the same time. One JSON line for each batch size, then one for
reading.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from journaler import Journaler, JournalerConfig, LogReader
from journaler.recover import recover
from ringbuf import Mode, Ring

SLOT_SIZE = 128
BATCH_HEADER_SIZE = 64
BATCHES = (1, 8, 64, 512, 4096)
RING_SLOTS = 8192
RAW_BYTES = 64 << 20
CHUNK = bytes(1 << 20)


def percentile(sorted_ns: list[int], share: float) -> float:
    return round(sorted_ns[min(int(len(sorted_ns) * share), len(sorted_ns) - 1)] / 1000, 1)


def summary(times_ns: list[int]) -> dict[str, float]:
    ordered = sorted(times_ns)
    return {
        "p50": percentile(ordered, 0.5),
        "p99": percentile(ordered, 0.99),
        "max": percentile(ordered, 1.0),
        "mean": round(sum(ordered) / len(ordered) / 1000, 1),
    }


class RawFile:
    """A zero-filled file like a segment, written block after block with a sync each."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._offset = 0
        for _ in range(RAW_BYTES // len(CHUNK)):
            os.write(self._fd, CHUNK)
        os.fsync(self._fd)

    def commit(self, block: bytes) -> int:
        """Return the nanoseconds of one write and sync."""
        if self._offset + len(block) > RAW_BYTES:
            self._offset = 0
        began = time.perf_counter_ns()
        os.pwrite(self._fd, block, self._offset)
        os.fdatasync(self._fd)
        took = time.perf_counter_ns() - began
        self._offset += len(block)
        return took

    def close(self) -> None:
        os.close(self._fd)


def commit_one(journaler: Journaler, ring: Ring, records: list[bytes]) -> int:
    """Return the nanoseconds from the publication of a batch to its commit, Python's own copying left out."""
    ring.publish(*records)
    began = time.perf_counter_ns()
    while ring.commit < ring.published:
        journaler.poll()
    return time.perf_counter_ns() - began


def measure(journaler: Journaler, ring: Ring, raw: RawFile, count: int, rounds: int) -> dict[str, object]:
    record = bytes(range(SLOT_SIZE))[:14] + bytes(2) + bytes(range(16, SLOT_SIZE))
    records = [record] * count
    block = os.urandom(BATCH_HEADER_SIZE + count * SLOT_SIZE)
    commits, raws = [], []
    for _ in range(rounds):
        commits.append(commit_one(journaler, ring, records))
        raws.append(raw.commit(block))
    ours, disk = summary(commits), summary(raws)
    return {
        "bench": "journal",
        "slots": count,
        "bytes": len(block),
        "rounds": rounds,
        "commit_us": ours,
        "raw_fdatasync_us": disk,
        "p50_over_raw": round(ours["p50"] / disk["p50"], 3),
        "commits_per_s": round(1e6 / ours["mean"]),
        "records_per_s": round(count * 1e6 / ours["mean"]),
    }


def measure_reading(directory: Path) -> dict[str, object]:
    began = time.perf_counter()
    recovery = recover(directory)
    verified = time.perf_counter() - began
    began = time.perf_counter()
    records = sum(len(slots) for _, slots in LogReader(directory)) // SLOT_SIZE
    read = time.perf_counter() - began
    return {
        "bench": "journal-read",
        "records": records,
        "batches": recovery.position.batch,
        "segments": len(recovery.segments),
        "verify_records_per_s": round(records / verified),
        "read_records_per_s": round(records / read),
    }


def run(arguments: list[str]) -> int:
    """Run the bench; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bullring bench journal", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="commits for each batch size")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; a temporary folder by default")
    parser.add_argument("--segment-mib", type=int, default=64)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bullring-bench-", dir=options.directory) as name:
        folder = Path(name)
        config = JournalerConfig(folder / "journal", "D1", segment_size_bytes=options.segment_mib << 20, lazy_us=0)
        ring = Ring.private(slot_size=SLOT_SIZE, slot_count=RING_SLOTS, mode=Mode.DURABLE, gating={0: "journaler"})
        raw = RawFile(folder / "raw")
        with ring, Journaler(config, ring, {}) as journaler:
            while journaler.stats()["prepared"] < config.segments_ahead:
                time.sleep(0.01)
            for count in BATCHES:
                print(json.dumps(measure(journaler, ring, raw, count, options.rounds)), flush=True)
        raw.close()
        print(json.dumps(measure_reading(folder / "journal")), flush=True)
    return 0
