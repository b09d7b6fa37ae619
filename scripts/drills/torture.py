"""A journal damaged in every way: recovery keeps it whole, cuts what nobody was told of, or refuses; it is never wrong.

Journals of random batches, written by the journaler itself, are cut at every byte, have every bit of every byte
flipped, every subset of the last batch's sectors lost, batches and segments swapped, repeated, replaced by those of
another run; each with the durable mark and without. What must come out follows from where the batches lie alone.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from journaler import Journaler, JournalerConfig
from journaler.errors import JournalRefused
from journaler.format import BATCH_MAGIC, BatchHeader
from journaler.marks import MARK_FILE
from journaler.recover import recover
from journaler.segments import list_segments
from ringbuf import Mode, Ring
from scripts.drills import Context, Drill, Option, Outcome

SLOT_SIZE = 128
SECTOR = 512
SEGMENT_SIZE = 64 * 1024
HEADER = 512
SECTORS_MAX = 8
REFUSED = "refused"

Verdict = tuple[str, int]
Judge = Callable[[Path], Verdict]


def run(context: Context) -> Outcome:
    outcome = Outcome(
        {"runs": 0, "cuts": 0, "flips": 0, "sectors": 0, "misplaced": 0, "looked_torn": 0, "acked_lost": 0}
    )
    judge = JUDGES[context.planted]
    for number in context.rounds():
        folder = context.folder / str(number)
        sizes = [context.rng.randrange(1, 4) for _ in range(context.options["batches"])]
        file = Damaged(folder / "one", sizes, judge, salt=0)
        _cuts(file, outcome)
        _flips(file, outcome, context.options["stride"])
        _misplaced_batches(file, Damaged(folder / "other", sizes, judge, salt=1), outcome)
        _sectors(Damaged(folder / "sectors", [1, 3, context.rng.randrange(12, 28)], judge, salt=0), outcome)
        _misplaced_segments(folder, judge, outcome)
        outcome.add(runs=1)
        context.say(f"torture: round {number}: {outcome.facts}")
    return outcome


# --- the judges: the real one, and such as would be wrong -------------------------------------------------------------


def _judge(directory: Path) -> Verdict:
    try:
        recovery = recover(directory, require_mark=False)
    except JournalRefused as refused:
        return REFUSED, refused.sequence
    return recovery.verdict, recovery.position.sequence


def _without_mark(directory: Path, judge: Judge) -> Verdict:
    hidden = directory / "hidden"
    (directory / MARK_FILE).rename(hidden)
    try:
        return judge(directory)
    finally:
        hidden.rename(directory / MARK_FILE)


def _ignores_the_mark(directory: Path) -> Verdict:
    return _without_mark(directory, _judge) if (directory / MARK_FILE).exists() else _judge(directory)


def _cuts_in_the_middle(directory: Path) -> Verdict:
    verdict, kept = _judge(directory)
    return ("torn", kept) if verdict == REFUSED else (verdict, kept)


def _refuses_torn_ends(directory: Path) -> Verdict:
    verdict, kept = _judge(directory)
    return (REFUSED, kept) if verdict == "torn" else (verdict, kept)


JUDGES: dict[str | None, Judge] = {
    None: _judge,
    "no-mark": _ignores_the_mark,
    "cuts-damage": _cuts_in_the_middle,
    "refuses-torn": _refuses_torn_ends,
}


# --- the material -----------------------------------------------------------------------------------------------------


def write_journal(directory: Path, sizes: Sequence[int], *, salt: int) -> list[int]:
    """Write a batch of each size; return their ends. `salt` makes the records of another run."""
    config = JournalerConfig(directory, "D1", segment_size_bytes=SEGMENT_SIZE, segments_ahead=1, lazy_us=0)
    ends = []
    ring = Ring.private(slot_size=SLOT_SIZE, slot_count=4096, mode=Mode.DURABLE, gating={0: "journaler"})
    with ring, Journaler(config, ring, {}) as journaler:
        for size in sizes:
            for _ in range(size):
                ring.publish(_record(ring.published, salt))
            while ring.commit < ring.published:
                journaler.poll()
            ends.append(ring.published)
    return ends


def _record(sequence: int, salt: int) -> bytes:
    """A plain record without flags; every byte that may be is other than zero."""
    filler = bytes((sequence * 7 + salt * 31 + at) % 255 + 1 for at in range(96))
    return bytes(16) + sequence.to_bytes(8, "little") + bytes(8) + filler


class Damaged:
    """A journal of one segment, overwritten again and again and judged."""

    def __init__(self, directory: Path, sizes: Sequence[int], judge: Judge, *, salt: int) -> None:
        self.directory = directory
        self.ends = write_journal(directory, sizes, salt=salt)
        self.path = list_segments(directory)[0].path
        self.good = self.path.read_bytes()
        self.offsets = list(_batch_ends(self.good))
        self._judge = judge

    @property
    def used(self) -> int:
        return self.offsets[-1]

    def judge(self, data: bytes, *, mark: bool) -> Verdict:
        with self.path.open("r+b", buffering=0) as file:
            file.write(data)
            try:
                return self._judge(self.directory) if mark else _without_mark(self.directory, self._judge)
            finally:
                file.seek(0)
                file.write(self.good[: len(data)])

    def batches(self) -> list[bytes]:
        return [self.good[low:high] for low, high in itertools.pairwise([HEADER, *self.offsets])]


def _batch_ends(data: bytes) -> Iterator[int]:
    offset = HEADER
    while (header := BatchHeader.unpack(data, offset)).magic == BATCH_MAGIC:
        offset += 64 + header.length
        yield offset


# --- the damage -------------------------------------------------------------------------------------------------------


def _cuts(file: Damaged, outcome: Outcome) -> None:
    """Power lost after `length` bytes had arrived: exactly the whole batches stay."""
    for length in range(file.used):
        data = file.good[:length].ljust(file.used, b"\0")
        whole = max((end for end, at in zip(file.ends, file.offsets, strict=True) if at <= length), default=0)
        verdict, kept = file.judge(data, mark=False)
        # Bytes that were zero anyway may make a cut invisible: then the batch is whole.
        invisible = (
            kept > whole
            and data[: file.offsets[file.ends.index(kept)]] == file.good[: file.offsets[file.ends.index(kept)]]
        )
        outcome.check(
            verdict != REFUSED and (kept == whole or invisible), f"cut at {length}: {verdict} at {kept}, not {whole}"
        )
        verdict, kept = file.judge(data, mark=True)
        if verdict != REFUSED and kept < file.ends[-1]:
            outcome.add(acked_lost=file.ends[-1] - kept)
            outcome.problem(f"cut at {length} below the mark: {verdict} at {kept}")
    outcome.add(cuts=file.used)


def _flips(file: Damaged, outcome: Outcome, stride: int) -> None:
    """A bit of acknowledged data is another: refused with the mark; without, unless it is in the last batch."""
    for bit in range(0, file.used * 8, stride):
        at = bit >> 3
        data = file.good[:at] + bytes([file.good[at] ^ 1 << (bit & 7)]) + file.good[at + 1 : file.used]
        verdict, kept = file.judge(data, mark=True)
        if verdict != REFUSED:
            outcome.add(acked_lost=file.ends[-1] - kept)
            outcome.problem(f"bit {bit} flipped: {verdict} at {kept}")
        verdict, kept = file.judge(data, mark=False)
        outcome.check(kept < file.ends[-1], f"bit {bit} flipped, no mark: {verdict}, all kept")
        in_last_batch = at >= file.offsets[-2]
        outcome.check(in_last_batch or verdict == REFUSED, f"bit {bit} flipped, no mark: {verdict} at {kept}")
        outcome.add(flips=1, looked_torn=verdict == "torn")


def _sectors(file: Damaged, outcome: Outcome) -> None:
    """The last batch was in flight: any part of its sectors may have arrived, and nobody was told of it."""
    start, end = file.offsets[-2], file.used
    sectors = range(start // SECTOR, (end - 1) // SECTOR + 1)[:SECTORS_MAX]
    for arrived in itertools.product((True, False), repeat=len(sectors)):
        data = bytearray(file.good[:end])
        for sector, there in zip(sectors, arrived, strict=True):
            if not there:
                low, high = max(start, sector * SECTOR), min(end, (sector + 1) * SECTOR)
                data[low:high] = bytes(high - low)
        want = file.ends[-1] if bytes(data) == file.good[:end] else file.ends[-2]
        verdict, kept = file.judge(bytes(data), mark=False)
        outcome.check(verdict != REFUSED and kept == want, f"sectors {arrived}: {verdict} at {kept}, not {want}")
        outcome.add(sectors=1)


def _misplaced_batches(file: Damaged, other: Damaged, outcome: Outcome) -> None:
    """Batches swapped, repeated, left out, or stale ones of another run in their place."""
    good, stale = file.batches(), other.batches()
    count = len(good)
    arrangements: list[tuple[str, list[bytes]]] = []
    for first, second in itertools.combinations(range(count), 2):
        order = list(good)
        order[first], order[second] = order[second], order[first]
        arrangements.append((f"batches {first} and {second} swapped", order))
    for index in range(count):
        arrangements.append((f"batch {index} stale", [*good[:index], stale[index], *good[index + 1 :]]))
        arrangements.append((f"batch {index} left out", [*good[:index], *good[index + 1 :]]))
        if index + 1 < count:
            arrangements.append((f"batch {index} repeated", [*good[: index + 1], *good[index:]]))
    for what, batches in arrangements:
        data = (file.good[:HEADER] + b"".join(batches)).ljust(file.used, b"\0")
        verdict, kept = file.judge(data, mark=True)
        outcome.check(verdict == REFUSED, f"{what}: {verdict} at {kept}")
        outcome.add(misplaced=1)


def _misplaced_segments(folder: Path, judge: Judge, outcome: Outcome) -> None:
    """Segments swapped, copied over one another, missing, or of another run."""
    sizes = [300, 300, 300, 300]
    write_journal(folder / "segments", sizes, salt=0)
    write_journal(folder / "stale", sizes, salt=1)
    names = [segment.path.name for segment in list_segments(folder / "segments")]
    if judge(folder / "segments") != ("clean", sum(sizes)):
        outcome.problem("a journal without damage is not clean")

    def verdict(what: str, change: Callable[[Path], object]) -> None:
        work = shutil.copytree(folder / "segments", folder / "work")
        change(work)
        found, kept = judge(work)
        outcome.check(found == REFUSED, f"{what}: {found} at {kept}")
        outcome.add(misplaced=1)
        shutil.rmtree(work)

    source = folder / "segments"
    for first, second in itertools.permutations(names, 2):
        verdict(f"{first} copied over {second}", lambda work: shutil.copyfile(source / first, work / second))  # noqa: B023
    for first, second in itertools.combinations(names, 2):
        verdict(f"{first} and {second} swapped", lambda work: _swap(source, work, first, second))  # noqa: B023
    for name in names:
        verdict(f"{name} of another run", lambda work: shutil.copyfile(folder / "stale" / name, work / name))  # noqa: B023
        verdict(f"{name} missing", lambda work: (work / name).unlink())  # noqa: B023


def _swap(source: Path, work: Path, first: str, second: str) -> None:
    shutil.copyfile(source / first, work / second)
    shutil.copyfile(source / second, work / first)


DRILL = Drill(
    summary="journals cut at every byte, every bit flipped, sectors lost, batches and segments misplaced",
    run=run,
    options=(
        Option("batches", 4, "batches of the journal whose every bit is flipped"),
        Option("stride", 1, "flip only every N-th bit"),
    ),
    faults={
        "no-mark": "the durable mark is not looked at",
        "cuts-damage": "damage is cut like a torn end",
        "refuses-torn": "a torn end is refused like damage",
    },
)
