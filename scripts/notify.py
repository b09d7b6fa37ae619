"""Tells a service manager how a process is (sd_notify(3)); does nothing where there is none."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

US_PER_S = 1_000_000
PATIENCE_S = 0.5


class ServiceManager:
    """Of this process, if the environment says that there is one."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._watchdog_us = int(os.environ.get("WATCHDOG_USEC", "0") or 0)
        self._due = 0.0

    def ready(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """Call it from the loop that must not stand still."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + PATIENCE_S
            self._tell("WATCHDOG=1")

    def busy(self, seconds: float) -> None:
        """For so long nothing will be heard of this process; `busy(0)` ends that."""
        if self._watchdog_us:
            longest_us = max(self._watchdog_us, int(seconds * US_PER_S))
            self._tell(f"WATCHDOG_USEC={longest_us}\nWATCHDOG=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        # A manager that does not listen must not end the exchange.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
            link.settimeout(PATIENCE_S)
            link.sendto(text.encode(), name)
