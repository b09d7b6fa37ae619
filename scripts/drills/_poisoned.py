"""A node whose matchers die on the order of one client id: what `bullring drill poison` starts.

    python -m scripts.drills._poisoned node COMMAND...            the supervisor, with processes of this module
    python -m scripts.drills._poisoned RUN_DIR NAME READY_FD ...  one of them

The client id stands in the environment. The exchange's own matchers know nothing of poison: these look at their records
in Python first, live and while coming back, and kill their process before the one that is poisoned.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from cffi import FFI

from engine import EngineConfig, Matcher
from ringbuf import Lapped, Ring, Stage, StageStatus
from ringbuf.wire import messages as wire
from scripts import cli, processes, rejoin, supervisor

VARIABLE = "BULLRING_POISON_CLIENT_ID"
SLOT_SIZE, TEMPLATE_OFFSET, BLOCK_OFFSET = 128, 6, 32
READ_MAX = 256
ffi = FFI()


class PoisonedMatcher(Matcher):
    """Does what its base does, up to the poisoned record."""

    def __init__(self, config: EngineConfig, partition: int) -> None:
        super().__init__(config, partition)
        self._log: Ring | None = None
        self._taken_out: set[int] = set()
        self._poll = ffi.callback("int64_t(void *, int64_t)", self._step)

    def attach(self, *, log: Ring, reports: Ring, market: Ring) -> None:
        super().attach(log=log, reports=reports, market=market)
        self._log = log

    def quarantine(self, sequences: Sequence[int]) -> None:
        super().quarantine(sequences)
        self._taken_out |= set(sequences)

    @property
    def stage(self) -> Any:
        return Stage(self._poll, ffi.NULL)

    def feed(self, first_sequence: int, records: bytes | bytearray | memoryview) -> int:
        at = self._poison(first_sequence, records)
        if at is None:
            return super().feed(first_sequence, records)
        done = super().feed(first_sequence, records[: at * SLOT_SIZE])
        if done == at and self.idle:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def _step(self, _: object, limit: int) -> int:
        assert self._log is not None
        count = min(self._log.visible - self.position, limit, READ_MAX)
        try:
            records = self._log.read(self.position, count) if count > 0 else b""
        except Lapped:
            return StageStatus.LAPPED
        return self.feed(self.position, records) if records or not self.idle else 0

    def _poison(self, first: int, records: bytes | bytearray | memoryview) -> int | None:
        client_id = int(os.environ[VARIABLE])
        for at in range(len(records) // SLOT_SIZE):
            slot = bytes(records[at * SLOT_SIZE : (at + 1) * SLOT_SIZE])
            template = int.from_bytes(slot[TEMPLATE_OFFSET : TEMPLATE_OFFSET + 2], "little")
            if template != wire.Template.NEW_ORDER_SINGLE or first + at in self._taken_out:
                continue
            mine = slot[13] == self.partition
            if mine and wire.NewOrderSingle.unpack(slot, BLOCK_OFFSET).cl_ord_id == client_id:
                return at
        return None


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "node":
        supervisor.Supervisor.process_module = "scripts.drills._poisoned"
        return cli.main(arguments[1:])
    for module in (processes, rejoin):
        module.Matcher = PoisonedMatcher  # type: ignore[attr-defined]
    return processes.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
