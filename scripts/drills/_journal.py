"""A real journaler process on a disk that a drill commands; the drill itself is the sequencer before it.

The process is the node's own (scripts.processes), with shared-memory rings, attached to a log ring that the drill
publishes to. What is acknowledged is what `commit` has passed. disk_shim.so stands before the C library and keeps what
the strictest disk would hold after a power loss.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from struct import Struct
from typing import Any, Self

from journaler.recover import recover
from ringbuf import RingFull
from ringbuf.wire import messages as wire
from scripts.config import CHECKOUT, Config, load
from scripts.drills import Context
from scripts.native import shim
from scripts.node import Node, NodeRings, engine_config
from scripts.placement import Kind, place

SLOT_SIZE = 128
CONTROL_FIELDS = ("syncs", "fail_at", "error", "lie", "delay_ns", "delay_count", "delaying", "failed_at_ns", "after")
GROUP_MAX = 8
FLAG_MORE = 1
READY_S = 60
_HEAD = Struct("<IHHIBBHQQ")
_U64 = Struct("<Q")


class Disk:
    """The shim's side of a folder: what to do to its syncs, and what would survive a power loss."""

    def __init__(self, folder: Path, watched: Path) -> None:
        self.watched = watched
        self._control = folder / "control"
        self._shadow = folder / "shadow"
        (self._shadow / "inodes").mkdir(parents=True)
        self._control.write_bytes(bytes(mmap.PAGESIZE))
        with self._control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def __getitem__(self, name: str) -> int:
        return int(_U64.unpack_from(self._map, CONTROL_FIELDS.index(name) * 8)[0])

    def __setitem__(self, name: str, value: int) -> None:
        _U64.pack_into(self._map, CONTROL_FIELDS.index(name) * 8, value)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(shim("disk_shim")),
            "BULLRING_DISK_FOLDER": str(self.watched),
            "BULLRING_DISK_CONTROL": str(self._control),
            "BULLRING_DISK_SHADOW": str(self._shadow),
        }

    def after_power_loss(self, folder: Path) -> Path:
        """Write what was synced, under the names that were synced, into `folder`."""
        folder.mkdir()
        names = self._shadow / "names"
        for line in names.read_text().splitlines() if names.exists() else ():
            inode, _, name = line.partition(" ")
            content = self._shadow / "inodes" / inode
            if content.exists():
                shutil.copyfile(content, folder / name)
            else:
                (folder / name).touch()  # the name was synced, the content never
        return folder

    def close(self) -> None:
        self._map.close()


class JournalSite:
    """The journaler of a node below `folder`, its rings, and the records the drill publishes."""

    def __init__(
        self, folder: Path, rng: random.Random, overrides: Mapping[str, Any] | None = None, *, data: Path | None = None
    ) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self._rng = rng
        keys = {"node.data_dir": str(self.data), "node.run_dir": str(folder / "run"), "rings.log_slots": 4096}
        keys |= {"rings.report_slots": 4096, "journal.segment_size_bytes": 1 << 20, "journal.prepare_pause": 0}
        self.config: Config = load(None, keys | dict(overrides or {}))
        self.journal = self.config.journal_dir
        self._stack = ExitStack()
        self.process: subprocess.Popen[bytes] | None = None
        self.disk = Disk(folder, self.journal)
        self._stack.callback(self.disk.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._stack.close()

    def start(self) -> dict[str, Any]:
        """Start the process on fresh rings that go on where the files end; return what it says: ready, or an error."""
        config = self.config
        for path in (config.data_dir, config.run_dir, config.counters_dir, self.journal):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        end = recover(self.journal).position.sequence
        placement = place(config, sorted(os.sched_getaffinity(0)))
        plans = tuple(plan for plan in placement.processes if plan.kind is Kind.JOURNALER)
        node = Node(config=config, plans=plans, log_end=end, epoch=1, engine=engine_config(config))
        node.save()
        self.node = node
        self._rings_stack = ExitStack()
        self.rings = NodeRings.create(node)
        self._rings_stack.callback(self.rings.close)
        read_fd, write_fd = os.pipe()
        command = [sys.executable, "-m", "scripts.processes", str(config.run_dir), plans[0].name, str(write_fd)]
        with (self.folder / "journaler.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(write_fd,), cwd=CHECKOUT,
                env=os.environ | self.disk.environment(),
            )  # fmt: skip
        os.close(write_fd)
        with os.fdopen(read_fd, "rb") as pipe:
            line = pipe.readline()
        return json.loads(line) if line else {"error": self.said()}

    @property
    def log(self) -> Any:
        return self.rings.log

    def publish(self, count: int) -> int:
        """Publish about `count` records in linked groups, as far as there is room; return how many."""
        done = 0
        while done < count:
            group = self._rng.randrange(1, GROUP_MAX + 1) if self.log.published else 1
            first = self.log.published
            slots = [self._slot(first + index, more=index + 1 < group) for index in range(group)]
            try:
                self.log.publish(*slots)
            except RingFull:
                break
            done += group
        return done

    def run_until(self, condition: Any, context: Context, *, deadline_s: float = 60.0) -> bool:
        """Publish until `condition` holds or the process has died; False if neither came."""

        def step() -> bool:
            self.publish(self._rng.randrange(1, 60))
            return bool(condition()) or not self.alive

        return context.wait(step, deadline_s=deadline_s, pause_s=0.0005)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def exit_code(self, context: Context, deadline_s: float = 30.0) -> int | None:
        """Wait for the process to end by itself; None if it does not."""
        assert self.process is not None
        context.wait(lambda: not self.alive, deadline_s=deadline_s)
        return self.process.returncode

    def end(self) -> None:
        """Kill the process if it lives and remove the rings."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
            self._rings_stack.close()

    def stop(self) -> int:
        """Ask the process to end in order; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(READY_S)
        self.end()
        return code

    def lose_power(self, context: Context) -> tuple[int, Path]:
        """Return what is acknowledged at one moment, and a folder with what the disk holds if power is lost then.

        A living process is stopped meanwhile, all its threads, and goes on afterwards.
        """
        folder = self.folder / f"power-loss-{time.monotonic_ns()}"
        if not self.alive:
            return self.log.commit, self.disk.after_power_loss(folder)
        assert self.process is not None
        pid = self.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            context.wait(lambda: all_stopped(pid))
            return self.log.commit, self.disk.after_power_loss(folder)
        finally:
            os.kill(pid, signal.SIGCONT)

    def said(self) -> str:
        path = self.folder / "journaler.log"
        return path.read_text(errors="replace").strip()[-400:] if path.exists() else ""

    def _slot(self, sequence: int, *, more: bool) -> bytes:
        flags = FLAG_MORE if more else 0
        template, block = wire.Template.TICK, b""
        if sequence == 0:
            template, block = wire.Template.GENESIS, self._genesis()
        head = _HEAD.pack(1, 2, template, sequence & 0xFFFFFFFF, 0, 1, flags, sequence, time.time_ns())
        return (head + block).ljust(112, b"\0") + _U64.pack(time.time_ns()) + _U64.pack(sequence)

    def _genesis(self) -> bytes:
        engine = self.node.engine
        return wire.Genesis(
            cluster_id=engine.cluster_id, hash_seed=engine.hash_seed, partition_count=engine.partitions,
            orders_per_partition=engine.orders_per_partition, accounts_max=engine.accounts_max,
            balances_max=engine.balances_max, sessions_max=engine.sessions_max, instruments_max=engine.instruments_max,
            keys_max=engine.keys_max, assets_max=engine.assets_max,
            open_orders_per_account_max=engine.open_orders_per_account_max,
        ).pack()  # fmt: skip


def all_stopped(pid: int) -> bool:
    """Whether no thread of a process runs: each is stopped, or the process has died."""
    states = []
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.append(path.read_text().rpartition(")")[2].split()[0])
        except OSError:
            continue  # a thread that ended
    return all(state in ("T", "t", "Z", "X") for state in states)
