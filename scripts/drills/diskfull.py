"""The journal's filesystem fills up: a small one in memory, a real journaler on it, then a whole node.

The log ring must say low, cancel-only, halt, in this order and at the configured percents; when no segment can be
prepared the journaler ends with 74, in order, without a panic, and everything acknowledged is there; with room again
it goes on. A node on a full disk stops by itself, in order, and says why.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journaler.marks import MARK_FILE
from journaler.recover import recover
from journaler.segments import PANIC_FILE, list_segments
from ringbuf import StorageLevel
from scripts.config import CHECKOUT
from scripts.drills import Context, Drill, DrillSkipped, Outcome
from scripts.drills._journal import JournalSite
from scripts.exit_codes import ExitCode

DISK_MIB = 48
MIB = 1 << 20
# Free space, in percent, at which each level is looked for: between its own limit and the next one's.
STEPS = ((40, StorageLevel.OK), (15, StorageLevel.LOW), (7, StorageLevel.CANCEL_ONLY))
READY_S = 90
KEYS = {"journal.space_enough_bytes": 0, "journal.segments_ahead": 2}
BLIND = {f"journal.space_{name}_percent": 0 for name in ("low", "cancel_only", "halt")}


def run(context: Context) -> Outcome:
    outcome = Outcome({"runs": 0, "acked_before": 0, "acked_lost": 0})
    for number in context.rounds():
        folder = context.folder / str(number)
        folder.mkdir()
        with small_disk(folder / "disk") as disk:
            _fill_under_a_journaler(context, folder, disk, outcome)
        if not outcome.passed:
            return outcome
        with small_disk(folder / "disk") as disk:
            _fill_under_a_node(context, folder, disk, outcome)
        outcome.add(runs=1)
    return outcome


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Mount a filesystem of DISK_MIB in memory. Raises DrillSkipped where that is not allowed."""
    path.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "bullring-drill", str(path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        raise DrillSkipped(f"this account may not mount a filesystem here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class Ballast:
    """A file that leaves as much free as one wants."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._path = disk / "ballast"

    def leave(self, percent: float) -> None:
        self.remove()
        room = os.statvfs(self._disk)
        size = int(room.f_bavail * room.f_frsize - room.f_blocks * room.f_frsize * percent / 100)
        with self._path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _fill_under_a_journaler(context: Context, folder: Path, disk: Path, outcome: Outcome) -> None:
    keys = KEYS | (BLIND if context.planted == "blind" else {})
    ballast = Ballast(disk)
    with JournalSite(folder, context.rng, keys, data=disk / "data") as site:
        said = site.start()
        if not said.get("ready"):
            outcome.problem(f"did not start: {said}")
            return
        site.run_until(lambda: site.log.commit > 100, context)
        _prepared(context, site)
        for percent, level in STEPS:
            ballast.leave(percent)
            seen = context.wait(lambda: site.log.storage.level is level, deadline_s=20)  # noqa: B023
            found = site.log.storage.level.name
            outcome.check(seen, f"{percent} % free: the level is {found}, not {level.name}")
            if not seen:
                return
        ballast.leave(0)
        _until_it_ends(context, site, outcome)
        if context.planted is None:
            _with_room_again(context, site, outcome, ballast)


def _prepared(context: Context, site: JournalSite) -> None:
    context.wait(lambda: len(list(site.journal.glob("spare-*.zero"))) == KEYS["journal.segments_ahead"])


def _until_it_ends(context: Context, site: JournalSite, outcome: Outcome) -> None:
    """Publish on: the prepared segments are used up, then it is over."""
    site.run_until(lambda: False, context)
    outcome.facts.setdefault("t_detect", context.now)
    code, level = site.exit_code(context), site.log.storage.level
    outcome.check(code == ExitCode.IO_ERROR, f"exit code {code}, not {int(ExitCode.IO_ERROR)}: {site.said()}")
    outcome.check(level is StorageLevel.HALT, f"the level is {level.name}, not HALT")
    outcome.check(site.log.panic == 0 and not (site.journal / PANIC_FILE).exists(), "a full disk is no panic")
    acked = site.log.commit
    if context.planted == "short":
        _lose_the_end(site.journal)
    kept = recover(site.journal, require_mark=False).position.sequence
    outcome.add(acked_before=acked, acked_lost=max(0, acked - kept))
    outcome.check(kept >= acked, f"{acked} were acknowledged, the files hold {kept}")
    outcome.check(not list(site.journal.glob("*.tmp")), "a half-made file was left")


def _lose_the_end(journal: Path) -> None:
    """The planted fault: the last batch is not all there, and nothing says that it was synced."""
    position = recover(journal).position
    with list_segments(journal)[-1].path.open("r+b") as file:
        file.seek(position.offset - 100)
        file.write(bytes(100))
    (journal / MARK_FILE).unlink()


def _with_room_again(context: Context, site: JournalSite, outcome: Outcome, ballast: Ballast) -> None:
    acked = site.log.commit
    site.end()
    ballast.remove()
    said = site.start()
    if not said.get("ready"):
        outcome.problem(f"did not start with room again: {said}")
        return
    outcome.check(site.log.base >= acked, f"went on at {site.log.base}, below {acked} acknowledged")
    target = site.log.published + 100
    site.run_until(lambda: site.log.commit > target, context)
    outcome.check(site.log.commit > target and site.alive, f"did not go on with room again: {site.said()}")


def _fill_under_a_node(context: Context, folder: Path, disk: Path, outcome: Outcome) -> None:
    keys = KEYS | {"journal.segment_size_bytes": MIB} | (BLIND if context.planted == "blind" else {})
    settings = [text for key, value in keys.items() for text in ("--set", f"{key}={value}")]
    settings += ["--set", "gateway.binary.listen=127.0.0.1:0", "--set", f"node.run_dir={folder / 'node-run'}"]
    command = [sys.executable, "-m", "scripts.cli", "run", "--json", "--data", str(disk / "node"), *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT) as node:
        try:
            assert node.stdout is not None
            ready = next((line for line in node.stdout if '"ready"' in line), "")
            outcome.check(bool(ready), "the node did not become ready")
            context.wait(lambda: len(list((disk / "node").glob("journal/spare-*.zero"))) == 2)
            Ballast(disk).leave(3)
            stopped = context.wait(lambda: node.poll() is not None, deadline_s=20)
            outcome.check(stopped, "the node runs on with 3 % of its disk free")
        finally:
            if node.poll() is None:
                node.send_signal(signal.SIGINT)
        _, said = node.communicate(timeout=READY_S)
    outcome.check(node.returncode == ExitCode.IO_ERROR, f"the node ended with {node.returncode}: {said[-300:]}")
    outcome.check("is full" in said, f"the node did not say why it stopped: {said[-300:]}")
    verdict = recover(disk / "node" / "journal").verdict
    outcome.check(verdict == "clean", f"the node's journal is {verdict} after an orderly stop")


DRILL = Drill(
    summary="a small filesystem fills up under a journaler, then under a node: shed, halt in order, go on",
    run=run,
    faults={
        "blind": "free space is not looked at",
        "short": "a record that was acknowledged is not in the files",
    },
)
