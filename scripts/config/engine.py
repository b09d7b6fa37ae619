"""[node], [capacities], [rings], [placement], [supervisor]: the processes of the core, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from scripts.config.section import ConfigError, Section, choice, number, text

STAGES_CORES_MIN = 6


@dataclass(frozen=True, kw_only=True)
class NodeConfig(Section):
    name: str = text(r"[a-z0-9-]{1,32}", "1..32 characters a-z 0-9 -")
    node_id: int = number(0, 1023)
    data_dir: str = text(r".+", "a path")
    run_dir: str = text(r".*", "a path or empty")
    ring_prefix: str = text(r"[a-z0-9.-]{0,32}", "0..32 characters a-z 0-9 . -")
    mode: str = choice("D0", "D1", "D1a", "D2", "D2m")
    environment: str = choice("development", "production")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.environment == "production" and self.mode == "D0":
            raise ConfigError(
                'mode = "D0": environment "production" needs another, since D0 may lose answered requests'
            )


@dataclass(frozen=True, kw_only=True)
class CapacitiesConfig(Section):
    orders_per_partition: int = number(1024, 1 << 24, power_of_two=True)
    accounts: int = number(16, 1 << 24)
    balances: int = number(64, 1 << 26, power_of_two=True)
    sessions: int = number(16, 1 << 20)
    instruments: int = number(1, 65535)
    assets: int = number(2, 65536)
    keys: int = number(16, 1 << 20)
    open_orders_per_account: int = number(1, 1 << 24)


@dataclass(frozen=True, kw_only=True)
class RingsConfig(Section):
    ingress_slots: int = number(1024, 1 << 22, power_of_two=True)
    log_slots: int = number(4096, 1 << 24, power_of_two=True)
    report_slots: int = number(4096, 1 << 24, power_of_two=True)
    reply_slots: int = number(1024, 1 << 22, power_of_two=True)
    market_slots: int = number(4096, 1 << 24, power_of_two=True)


@dataclass(frozen=True, kw_only=True)
class PlacementConfig(Section):
    layout: str = choice("auto", "fused", "stages")
    partitions: int = number(1, 31)
    matcher_processes: tuple[tuple[int, ...], ...] = field()
    core_sequencer: int = number(-1, 1023)
    core_gateway: int = number(-1, 1023)
    core_journaler: int = number(-1, 1023)
    core_feed: int = number(-1, 1023)
    cores_matchers: tuple[int, ...] = field()
    wait_order_path: str = choice("auto", "spin", "yield", "park")
    wait_journaler: str = choice("spin", "yield", "park")
    wait_feed: str = choice("auto", "spin", "yield", "park")
    priority_journaler: int = number(0, 99)
    priority_order_path: int = number(0, 99)

    def __post_init__(self) -> None:
        super().__post_init__()
        hosted = sorted(partition for process in self.matcher_processes for partition in process)
        if hosted and hosted != list(range(1, self.partitions + 1)):
            raise ConfigError(
                f"matcher_processes = {[list(group) for group in self.matcher_processes]}: "
                f"must name each partition 1..{self.partitions} once"
            )


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig(Section):
    restarts_max: int = number(0, 1000)
    restart_window_s: int = number(1, 3600)
    ready_timeout_s: int = number(1, 86400)
    stuck_ms: int = number(200, 600_000)
    stop_timeout_s: int = number(1, 600)
