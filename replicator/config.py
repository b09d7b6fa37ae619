"""Settings of failover and replication; scripts/ fills them in from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SLOT_SIZE = 128
MEBIBYTE = 1 << 20

Mode = Literal["D2", "D2m", "D1a"]
OnStandbyLoss = Literal["solo", "cancel_only", "halt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverConfig:
    """Who this node is, and the timers of RELIABILITY section 6. No safety property depends on any of the times."""

    cluster: int
    node: int
    peer: int
    mode: Mode  # D2: the standby's disk gates commit; D2m: its memory; D1a: nothing of it, promotion by hand
    on_standby_loss: OnStandbyLoss = "solo"
    heartbeat_ms: int = 50
    standby_lost_ms: int = 300
    standby_stalled_ms: int = 1000  # alive, but acknowledges nothing of what it was sent
    primary_lost_ms: int = 600
    arbiter_retry_ms: int = 100
    floor_ms: int = 1000
    core_stuck_ms: int = 1000  # a sequencer without a turn, a journaler without a sync, for so long is given up
    handover_ms: int = 250  # how long a switchover may hold the intake
    failover_gap_s: int = 30
    failovers_per_hour: int = 3
    join_lag_slots: int = 4096  # how far behind a standby may be when commit begins to wait for it

    def __post_init__(self) -> None:
        bounds = {
            "cluster": (1, 2**64 - 1),
            "node": (0, 1023),
            "peer": (0, 1023),
            "heartbeat_ms": (5, 10_000),
            "standby_lost_ms": (20, 60_000),
            "standby_stalled_ms": (40, 60_000),
            "primary_lost_ms": (40, 120_000),
            "core_stuck_ms": (50, 600_000),
            "arbiter_retry_ms": (10, 10_000),
            "floor_ms": (100, 60_000),
            "handover_ms": (10, 10_000),
            "failover_gap_s": (0, 86_400),
            "failovers_per_hour": (0, 1000),
            "join_lag_slots": (1, 1 << 24),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value}: must be {low} to {high}")
        if self.node == self.peer:
            raise ValueError(f"peer = {self.peer}: must be another node than node = {self.node}")
        if self.mode not in ("D2", "D2m", "D1a"):
            raise ValueError(f"mode = {self.mode!r}: must be D2, D2m or D1a")
        if self.on_standby_loss not in ("solo", "cancel_only", "halt"):
            raise ValueError(f"on_standby_loss = {self.on_standby_loss!r}: must be solo, cancel_only or halt")
        if self.standby_lost_ms < 2 * self.heartbeat_ms:
            raise ValueError(f"standby_lost_ms = {self.standby_lost_ms}: must be two heartbeats or more")
        if self.primary_lost_ms <= self.standby_lost_ms:
            # A broken link then keeps the healthy primary: its own transaction comes first.
            raise ValueError(f"primary_lost_ms = {self.primary_lost_ms}: must be more than standby_lost_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How the log travels."""

    window_bytes: int = 8 * MEBIBYTE  # sent and not acknowledged (Z4)
    frame_bytes: int = 64 * 1024  # of records in one frame
    catch_up_bytes_per_s: int = 512 * MEBIBYTE  # of what comes from files, so that live traffic keeps half of the link

    def __post_init__(self) -> None:
        bounds = {
            "window_bytes": (64 * 1024, 1024 * MEBIBYTE),
            "frame_bytes": (1024, 2 * MEBIBYTE),
            "catch_up_bytes_per_s": (64 * 1024, 1 << 40),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value}: must be {low} to {high}")
        if self.frame_bytes > self.window_bytes // 2:
            raise ValueError(f"frame_bytes = {self.frame_bytes}: must be at most half of window_bytes")
