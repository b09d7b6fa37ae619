"""A whole exchange as real processes for process tests: started like a user would, in a folder of the test's own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
STOP_S = 30.0


def bullring(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "scripts.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


def _web(workers: int) -> list[str]:
    return ["--set", f"gateway.web.workers={workers}", "--set", "gateway.web.listen=127.0.0.1:0"]


class Exchange:
    """`bullring demo --json` on a data folder; `ready` is its ready line. `web`: workers of the web gateway."""

    def __init__(self, data: Path, *arguments: str, web: int = 0) -> None:
        self.data = data
        self.errors = data.parent / f"{data.name}.stderr"
        command = [sys.executable, "-m", "scripts.cli", "demo", "--json", "--data", str(data)]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, "--listen", "127.0.0.1:0", *_web(web), *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.ready = self._wait_ready()

    def _wait_ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), True)
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            line = self.process.stdout.readline()
            if not line:
                break
            facts: dict[str, Any] = json.loads(line)
            if facts.get("event") == "ready":
                return facts
        self.process.kill()
        raise AssertionError(f"the exchange did not start: {self.errors.read_text()}")

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode

    def command(self, *arguments: str) -> Any:
        """Run a bullring command on this exchange with --json; return its answer."""
        done = bullring(*arguments, "--data", str(self.data), "--json")
        assert done.returncode == 0, f"{arguments}: {done.stdout} {done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.ready["binary_gateway"].rpartition(":")
        return host, int(port)

    def pid(self, name: str) -> int:
        return int(self._row(name)["pid"])

    def is_back(self, name: str, pid: int) -> bool:
        """Whether another process than that one takes part under the name."""
        row = self._row(name)
        return row["pid"] != pid and bool(row["ready"])

    def _row(self, name: str) -> dict[str, Any]:
        rows = json.loads((self.data / "run" / "processes.json").read_text())
        return next(row for row in rows if row["name"] == name)
