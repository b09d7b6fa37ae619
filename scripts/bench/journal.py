"""`bullring bench journal`: what group commit costs beside the disk's own price for the same bytes.

For each batch size, in interleaved rounds: the journaler's stage commits one batch after the other; in turns with it,
in the same process, plain pwrite + fdatasync of as many bytes in a written file; then fio (ioengine psync, one job)
does the same with its own file, where fio is installed. Then batch sizes and latency under an open-loop load, and
reading. One JSON line each. No Python runs while a commit is measured. Segments are prepared before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from journaler import LogReader
from journaler.recover import recover
from scripts.native import binary

SLOT_SIZE = 128
BATCH_HEADER_SIZE = 64
BATCHES = (1, 8, 64, 512, 4096)
RATES = (10_000, 100_000, 500_000, 1_000_000)
# Four segments are prepared before the clock starts; a round fits into fewer: preparing is not what is measured.
SEGMENTS_USED = 2.5
TARGET = 0.9


@contextmanager
def folder_below(directory: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bullring-bench-", dir=directory) as name:
        yield Path(name)


def native(directory: Path | None, mode: str, *numbers: int) -> dict[str, Any]:
    """Run journal_bench in a folder of its own; return its line."""
    with folder_below(directory) as folder:
        command = [str(binary("journal_bench")), mode, str(folder), *map(str, numbers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result: dict[str, Any] = json.loads(done.stdout)
        return result


class Fio:
    """fio on an already written file: `rate` is writes with sync a second of that many bytes each."""

    def __init__(self, folder: Path, mib: int) -> None:
        self.path = shutil.which("fio")
        self._file = folder / "fio"
        self._bytes = mib << 20
        if self.path is not None:
            with self._file.open("wb") as file:
                for _ in range(mib):
                    file.write(bytes(1 << 20))

    def rate(self, size: int, seconds: float) -> dict[str, float]:
        assert self.path is not None
        where = [f"--filename={self._file}", f"--size={self._bytes // size * size}", "--overwrite=1"]
        how = ["--ioengine=psync", "--rw=write", f"--bs={size}", "--fdatasync=1", "--time_based=1"]
        how += [f"--runtime={int(seconds * 1000)}ms", "--output-format=json"]
        command = [self.path, "--name=journal", *where, *how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
        return {"per_s": job["write"]["iops"]}


def measure(options: argparse.Namespace, fio: Fio, slots: int) -> dict[str, Any]:
    """Return medians over the rounds; fio's turn lies between two of ours."""
    size = BATCH_HEADER_SIZE + slots * SLOT_SIZE
    commits = min(options.commits, int(SEGMENTS_USED * (options.segment_mib << 20)) // size)
    ours, theirs = [], []
    for _ in range(options.rounds):
        line = native(options.directory, "closed", options.segment_mib, slots, commits)
        ours.append(line)
        if fio.path is not None:
            seconds = max(0.3, commits / line["raw_us"]["per_s"])
            theirs.append(fio.rate(size, seconds)["per_s"])
    result: dict[str, Any] = {
        "bench": "journal",
        "slots": slots,
        "bytes": size,
        "rounds": options.rounds,
        "commits": commits,
    }
    for name in ("commit_us", "raw_us"):
        result[name] = {key: round(statistics.median(line[name][key] for line in ours), 1) for key in ours[0][name]}
    result["rate_over_raw"] = round(
        statistics.median(line["commit_us"]["per_s"] / line["raw_us"]["per_s"] for line in ours), 3
    )
    result["fio_per_s"] = round(statistics.median(theirs)) if theirs else None
    pairs = zip(ours, theirs, strict=False)
    ratios = [line["commit_us"]["per_s"] / rate for line, rate in pairs]
    result["rate_over_fio"] = round(statistics.median(ratios), 3) if ratios else None
    result["rate_over_fio_best"] = round(max(ratios), 3) if ratios else None
    result["target"] = TARGET
    result["mark_behind_ms_max"] = max(line["mark_behind_ms_max"] for line in ours)
    return result


def measure_reading(options: argparse.Namespace) -> dict[str, Any]:
    with folder_below(options.directory) as folder:
        mib, commits = options.segment_mib, min(8192, options.commits * 2)
        command = [str(binary("journal_bench")), "closed", str(folder), str(mib), "64", str(commits)]
        subprocess.run(command, capture_output=True, check=True)
        began = time.perf_counter()
        recovery = recover(folder)
        verified = time.perf_counter() - began
        began = time.perf_counter()
        records = sum(len(slots) for _, slots in LogReader(folder)) // SLOT_SIZE
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
    parser.add_argument("--rounds", type=int, default=5, help="for each batch size, interleaved with fio")
    parser.add_argument("--commits", type=int, default=4000, help="of a round; fewer for large batches")
    parser.add_argument("--load-ms", type=int, default=3000, help="length of each open-loop load")
    parser.add_argument("--segment-mib", type=int, default=64, help="size of a segment, and of the files beside it")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; a temporary folder by default")
    options = parser.parse_args(arguments)
    with folder_below(options.directory) as folder:
        fio = Fio(folder, options.segment_mib)
        if fio.path is None:
            print(json.dumps({"bench": "journal", "note": "fio is not installed: rate_over_fio is null"}), flush=True)
        for slots in BATCHES:
            print(json.dumps(measure(options, fio, slots)), flush=True)
    for rate in RATES:
        line = native(options.directory, "load", options.segment_mib, rate, options.load_ms)
        print(json.dumps({"bench": "journal-load", **line}), flush=True)
    print(json.dumps(measure_reading(options)), flush=True)
    return 0
