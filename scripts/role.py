"""The part a process has on a replicated node: follow, until the replicator's cells say lead, hold or cancel only."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine import Matcher, Sequencer
from gateway.binary.server import BinaryServer
from ringbuf import ProducerBusy
from scripts.cells import Cell, Cells
from scripts.node import Node, NodeRings

NS_PER_MS = 1_000_000


class FollowerRole:
    """Called between two runs of a process's stages, every few milliseconds."""

    def __init__(
        self,
        node: Node,
        rings: NodeRings,
        sequencer: Sequencer | None,
        matchers: Sequence[Matcher],
        servers: Sequence[BinaryServer],
    ) -> None:
        self._node_id = node.config.node.node_id
        self._rings = rings
        self._sequencer = sequencer
        self._matchers = matchers
        self._servers = servers
        self._cells = Cells.attach(node.config.run_dir)
        self._held = self._cancel_only = self._ready = False
        if sequencer is not None:
            sequencer.follow()
        for server in servers:
            server.set_ready(False)

    def __call__(self) -> None:
        cells = self._cells
        for matcher in self._matchers:
            cells[Cell.APPLIED + matcher.partition] = matcher.position
        if self._sequencer is not None:
            self._step_sequencer(self._sequencer)
        if self._servers:
            self._step_servers()

    def close(self) -> None:
        sequencer = self._sequencer
        if sequencer is not None and "state hash differs" in sequencer.error:
            self._cells[Cell.DIVERGED] = sequencer.position + 1
        self._cells.close()

    def _step_sequencer(self, sequencer: Sequencer) -> None:
        cells = self._cells
        cells[Cell.APPLIED] = sequencer.position
        cells[Cell.BEAT_MS] = time.monotonic_ns() // NS_PER_MS
        wanted = cells[Cell.LEAD_EPOCH]
        if wanted > cells[Cell.LEADING_EPOCH]:
            self._lead(sequencer, wanted)
        held = bool(cells[Cell.HOLD])
        if held != self._held:
            self._held = held
            sequencer.hold(held)
        # Between two runs of its stage: what it held back is not written, and what it had written is published.
        cells[Cell.HELD_END] = self._rings.log.published + 1 if held else 0

    def _lead(self, sequencer: Sequencer, epoch: int) -> None:
        """Once everything is committed and applied, and the replicator has let go of the log."""
        log = self._rings.log
        if not sequencer.position == log.visible == log.published:
            return
        try:
            log.lock_producer()
        except ProducerBusy:
            return
        if sequencer.position != log.published:
            log.unlock_producer()
            return
        sequencer.lead(epoch=epoch, node=self._node_id)
        self._cells[Cell.LEADING_EPOCH] = epoch

    def _step_servers(self) -> None:
        ready = self._cells[Cell.LEADING_EPOCH] > 0
        if ready != self._ready:
            self._ready = ready
            for server in self._servers:
                server.set_ready(ready)
        cancel_only = bool(self._cells[Cell.CANCEL_ONLY])
        if cancel_only != self._cancel_only:
            self._cancel_only = cancel_only
            for server in self._servers:
                server.set_cancel_only(cancel_only)
