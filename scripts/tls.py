"""The TLS relay of a gateway as a process of its own, started and watched by the gateway's process.

It ends when its standard input does, so that it never outlives the gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gateway.binary.tls import TlsConfig, TlsRelay
from gateway.errors import GatewayConfigError
from scripts.exit_codes import CommandError, ExitCode

CHECKOUT = Path(__file__).resolve().parents[1]
RESTART_PAUSE_S = 0.5


class RelayProcess:
    """Keeps one relay running until closed."""

    def __init__(self, config: TlsConfig) -> None:
        """Start it and wait until it listens. Raises CommandError when it cannot."""
        self._config = config
        self._closing = threading.Event()
        self._process, self.port = _spawn(config)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End it."""
        self._closing.set()
        _end(self._process)
        self._watcher.join()
        _end(self._process)  # the watcher may have started another one meanwhile

    def _watch(self) -> None:
        while not self._closing.is_set():
            self._process.wait()
            if self._closing.wait(RESTART_PAUSE_S):
                return
            try:
                self._process, _ = _spawn(replace(self._config, port=self.port))
            except CommandError as error:
                print(f"TLS relay: {error}", file=sys.stderr, flush=True)


def _spawn(config: TlsConfig) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, "-m", "scripts.tls", config.host, str(config.port), str(config.certificate)]
    command += [str(config.key), config.target_host, str(config.target_port), str(config.connections_max)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT)
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline() or b'{"error": "the TLS relay ended at once"}')
    if "port" in facts:
        return process, int(facts["port"])
    _end(process)
    raise CommandError(f"gateway.binary.tls_listen: {facts['error']}", ExitCode.CONFIGURATION)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.wait()


async def _serve(config: TlsConfig) -> None:
    relay = TlsRelay(config)
    port = await relay.start()
    print(json.dumps({"port": port}), flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    await relay.close()


def main(arguments: Sequence[str]) -> int:
    host, port, certificate, key, target_host, target_port, connections_max = arguments
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # not on the core of the order path alone
    try:
        config = TlsConfig(
            host=host,
            port=int(port),
            certificate=Path(certificate),
            key=Path(key),
            target_host=target_host,
            target_port=int(target_port),
            connections_max=int(connections_max),
        )
        asyncio.run(_serve(config))
    except (GatewayConfigError, OSError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return ExitCode.CONFIGURATION
    except KeyboardInterrupt:
        pass
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
