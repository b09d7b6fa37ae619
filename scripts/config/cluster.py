"""[replication], [arbiter]: two nodes, and who leads."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.config.section import Section, choice, number, text

_ENDPOINT = r"(\[[0-9a-fA-F:]+\]|[^:\[\], ]+):[0-9]{1,5}"


@dataclass(frozen=True, kw_only=True)
class ReplicationConfig(Section):
    peer: str = text(rf"({_ENDPOINT})?", '"HOST:PORT" or empty')
    peer_node: int = number(0, 1023)
    listen: str = text(_ENDPOINT, '"HOST:PORT"')
    peer_key: str = text(r"(\S{40})?", "a public key of 40 characters or empty")
    cluster: int = number(1, 2**63 - 1)
    on_standby_loss: str = choice("solo", "cancel_only", "halt")
    heartbeat_ms: int = number(5, 10_000)
    standby_lost_ms: int = number(20, 60_000)
    standby_stalled_ms: int = number(40, 60_000)
    primary_lost_ms: int = number(40, 120_000)
    core_stuck_ms: int = number(50, 600_000)
    clock_jump_ms: int = number(1, 3_600_000)
    handover_ms: int = number(10, 10_000)
    failover_gap_s: int = number(0, 86_400)
    failovers_per_hour: int = number(0, 1000)
    window_bytes: int = number(64 * 1024, 1 << 30)
    frame_bytes: int = number(1024, 32 * 1024)
    catch_up_bytes_per_s: int = number(64 * 1024, 1 << 40)
    wait: str = choice("spin", "park")


@dataclass(frozen=True, kw_only=True)
class ArbiterConfig(Section):
    endpoints: str = text(rf"{_ENDPOINT}(, *{_ENDPOINT})*", '"HOST:PORT" or several with commas')
    prefix: str = text(r"(/[A-Za-z0-9._-]+)+", "a path like /bullring")
    timeout_ms: int = number(10, 10_000)
    ca: str = text(r".*", "a path or empty")
    certificate: str = text(r".*", "a path or empty")
    key: str = text(r".*", "a path or empty")
