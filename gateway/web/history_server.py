"""The history process: follows log and report rings, writes the store, tells workers how far it is.

Workers connect to a Unix socket. After each commit they get one line of JSON: {"log": n, "reports": {"1": n, ...},
"event": id, "reference": version}. They send lines too: {"account", "number", "text"}, a text that a request will carry
only as a number; sent before the request, so it is read before its report; and {"hurry"}: a client waits for a commit.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.web.history import SLOT_SIZE, HistoryBuilder
from gateway.web.store import HistoryStore
from journaler.reader import LogFollower, ReportArchive
from ringbuf import Doorbell, Lapped, Ring

REPORTS_MAX = 1024  # of one partition in one commit
LINE_MAX = 4096
BACKLOG = 64
IN_SEQ_OFFSET = 24
PRUNE_EVERY_S = 10.0
BURST_PAUSE_S = 0.003  # least time between two commits while nobody waits for one
UNREADY_S = 0.001
MEANWHILE_S = 0.02  # how long texts may stay unread while nothing else happens


@dataclass(frozen=True, kw_only=True)
class HistoryConfig:
    """`log_end`: first sequence that was not in the journal when this node started."""

    store_path: Path
    journal_dir: Path
    socket_path: Path
    cluster: int
    log_end: int
    events_max: int
    ended_orders_days: int
    trades_days: int

    def __post_init__(self) -> None:
        for name in ("events_max", "ended_orders_days", "trades_days"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")


class ReportSource:
    """One partition's reports: from the ring, or from the archive once the ring has moved on."""

    def __init__(self, partition: int, ring: Ring, archive: ReportArchive, position: int) -> None:
        self._partition = partition
        self._ring = ring
        self._archive = archive
        self.position = position

    @property
    def behind(self) -> int:
        """How many reports are there to be read; none while a restarted owner makes old ones again."""
        return max(0, self._ring.published - self.position)

    def read(self, before: int) -> list[memoryview]:
        """Return the next slots whose cause is below log sequence `before`, at most REPORTS_MAX."""
        count = min(self._ring.published - self.position, REPORTS_MAX)
        if count <= 0:
            return []
        try:
            data = self._ring.read(self.position, count)
        except (Lapped, IndexError):
            data = self._archived(count)
        view = memoryview(data)
        slots = [view[at : at + SLOT_SIZE] for at in range(0, len(data), SLOT_SIZE)]
        fitting = 0
        while fitting < len(slots) and in_seq(slots[fitting]) < before:
            fitting += 1
        self.position += fitting
        return slots[:fitting]

    def _archived(self, count: int) -> bytes:
        """Return what the archive has, up to a slot that a power loss took and that has not been made again yet."""
        data = self._archive.read(self._partition, self.position, count)
        for at in range(0, len(data), SLOT_SIZE):
            if not any(data[at : at + SLOT_SIZE]):
                return data[:at]
        return data


def in_seq(slot: memoryview) -> int:
    return int.from_bytes(slot[IN_SEQ_OFFSET : IN_SEQ_OFFSET + 8], "little")


class HistoryServer:
    """Call `step()` again and again."""

    def __init__(self, config: HistoryConfig, *, log: Ring, reports: Mapping[int, Ring], doorbell: Doorbell) -> None:
        self._config = config
        self._store = HistoryStore.open(config.store_path, cluster=config.cluster, log_end=config.log_end)
        meta = self._store.meta()
        self._log_ring = log
        self._log = LogFollower(log, config.journal_dir, start=int(meta.get("log", 0)))
        self._archive = ReportArchive(config.journal_dir)
        known = meta.get("reports", {})
        self._sources = {
            partition: ReportSource(partition, ring, self._archive, int(known.get(str(partition), 0)))
            for partition, ring in reports.items()
        }
        self.builder = HistoryBuilder(self._store)
        self._doorbell = doorbell
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        config.socket_path.unlink(missing_ok=True)
        self._listener.bind(str(config.socket_path))
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(doorbell.fileno(), selectors.EVENT_READ)
        self._clients: dict[socket.socket, bytearray] = {}
        self._behind: set[socket.socket] = set()  # did not take the last line: gets the next one
        self._prune_due = 0.0
        self._committed_at = 0.0
        self._hurry = False
        self.commits = 0
        self.reports = 0

    @property
    def lag(self) -> int:
        """How many reports are published and not in history yet."""
        return sum(source.behind for source in self._sources.values())

    def step(self, timeout_s: float) -> None:
        """Take what there is; sleep at most `timeout_s` when there is nothing."""
        if self._moved():
            self._gather()
            # What is there may have to wait: for the record that caused it, or for the archive.
            self._sockets(0.0 if self._take() else UNREADY_S)
            return
        self._doorbell.arm()
        if self._moved():
            self._doorbell.disarm()
            return
        self._prune()
        self._sockets(MEANWHILE_S if self._behind else timeout_s)
        self._doorbell.disarm()

    def close(self) -> None:
        for client in list(self._clients):
            self._drop(client)
        self._listener.close()
        self._selector.close()
        self._log.close()
        self._archive.close()
        self._store.close()

    def caught_up(self) -> bool:
        return self.lag == 0

    def _moved(self) -> bool:
        """Whether there is anything to take, or somebody still to be told of what was."""
        if self._behind:
            self._tell()
        return self._log_ring.visible > self._log.sequence or self.lag > 0

    def _gather(self) -> None:
        """In a burst let more come before the next commit, unless somebody waits for it. A lone order never waits."""
        due = self._committed_at + BURST_PAUSE_S
        while not self._hurry and (left := due - time.monotonic()) > 0:
            self._sockets(left)

    # --- rings to store ---------------------------------------------------------------------------------------------

    def _take(self) -> bool:
        self._hurry = False
        batch = self._log.read()
        before = self._log.sequence
        slots: list[memoryview] = []
        for source in self._sources.values():
            slots += source.read(before)
        if batch is None and not slots:
            return False
        if slots:
            self._sockets(0.0)  # texts that these reports need were sent before
        if batch is not None:
            self.builder.feed_log(batch[1])
        slots.sort(key=in_seq)
        self.builder.feed_reports(slots)
        self.builder.flush({"log": before, "reports": {str(p): s.position for p, s in self._sources.items()}})
        self.commits += 1
        self._committed_at = time.monotonic()
        self.reports += len(slots)
        self._tell()
        return True

    def _prune(self) -> None:
        now = time.monotonic()
        if now < self._prune_due:
            return
        self._prune_due = now + PRUNE_EVERY_S
        day_ns = 86_400_000_000_000
        self._store.begin()
        self._store.prune(
            events_max=self._config.events_max,
            ended_before_ns=time.time_ns() - self._config.ended_orders_days * day_ns,
            trades_before_ns=time.time_ns() - self._config.trades_days * day_ns,
            instruments=list(self.builder.reference.instruments),
        )
        self._store.commit()

    # --- workers ----------------------------------------------------------------------------------------------------

    def _state(self) -> bytes:
        state = {
            "log": self._log.sequence,
            "reports": {str(partition): source.position for partition, source in self._sources.items()},
            "event": self.builder.last_event,
            "reference": self.builder.reference_version,
        }
        return orjson.dumps(state) + b"\n"

    def _tell(self) -> None:
        line = self._state()
        for client in list(self._clients):
            self._send(client, line)

    def _send(self, client: socket.socket, line: bytes) -> None:
        try:
            sent = client.send(line)
        except BlockingIOError:
            self._behind.add(client)
            return
        except OSError:
            self._drop(client)
            return
        self._behind.discard(client)
        if sent < len(line):  # the rest of a line cannot wait; the worker connects again
            self._drop(client)

    def _sockets(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.fileobj, socket.socket):
                self._receive(key.fileobj)
            else:
                self._doorbell.drain()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            self._clients[client] = bytearray()
            self._selector.register(client, selectors.EVENT_READ)
            self._send(client, self._state())

    def _receive(self, client: socket.socket) -> None:
        try:
            data = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        pending = self._clients[client]
        pending += data
        if not data or len(pending) > LINE_MAX * 16:
            self._drop(client)
            return
        *lines, rest = pending.split(b"\n")
        self._clients[client] = bytearray(rest)
        for line in lines:
            note: dict[str, Any] = orjson.loads(line)
            if "hurry" in note:
                self._hurry = True
                continue
            self.builder.note_text(note["account"], note["number"], note["text"])

    def _drop(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        self._behind.discard(client)
        del self._clients[client]
        client.close()
