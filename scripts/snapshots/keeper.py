"""Snapshots while the exchange runs: when one is due, a process of its own takes it (S3)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection

from scripts.config import CHECKOUT, SNAPSHOT_RECORDS_MIN, Config
from scripts.node import NodeRings
from scripts.snapshots.store import SnapshotStore

# After one that failed: the reason is in logs/snapshot.log, and seldom gone a moment later.
RETRY_S = 30.0


class SnapshotKeeper:
    """Starts `bullring snapshot take` when so many records or so much time have passed since the newest one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._store = SnapshotStore(config.data_dir)
        self._process: subprocess.Popen[bytes] | None = None
        self._newest = 0
        self._since = time.monotonic()
        self._not_before = 0.0

    def start(self) -> None:
        """Look at what there is; count time from now."""
        self._look()
        self._since = time.monotonic()

    def step(self, rings: NodeRings | None, cores: Collection[int], say: Callable[[str], None]) -> None:
        """Start a snapshot that is due, on one of `cores`, or say what came of the one that was being taken."""
        if self._process is not None:
            if self._process.poll() is not None:
                self._finished(say)
            return
        now = time.monotonic()
        if rings is None or now < self._not_before or not self._due(rings.log.visible, now):
            return
        log_path = self._config.data_dir / "logs" / "snapshot.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=CHECKOUT,
            )
        # Before it has a second thread: Python has not even begun.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(self._process.pid, cores)

    def stop(self) -> None:
        """End the one that is being taken; the next one removes what it leaves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _due(self, visible: int, now: float) -> bool:
        settings, records = self._config.snapshots, visible - self._newest
        if settings.every_records and records >= settings.every_records:
            return True
        return bool(settings.every_s) and now - self._since >= settings.every_s and records >= SNAPSHOT_RECORDS_MIN

    def _command(self) -> list[str]:
        config = self._config
        overrides = {
            "node.data_dir": config.node.data_dir,
            "node.run_dir": config.node.run_dir,
            "node.ring_prefix": config.node.ring_prefix,
            "journal.archive": str(config.journal.archive).lower(),
            "snapshots.keep": str(config.snapshots.keep),
        }
        options = [word for key, value in overrides.items() for word in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "scripts.cli", "snapshot", "take", *options]

    def _finished(self, say: Callable[[str], None]) -> None:
        assert self._process is not None
        code, self._process = self._process.returncode, None
        before = self._newest
        self._look()
        self._since = time.monotonic()
        if self._newest > before:
            say(f"took a snapshot at {self._newest}")
        else:
            self._not_before = self._since + RETRY_S
            say(f"no snapshot was taken (exit code {code}): see {self._config.data_dir / 'logs' / 'snapshot.log'}")

    def _look(self) -> None:
        folders = self._store.folders()
        self._newest = int(folders[0].name) if folders else 0
