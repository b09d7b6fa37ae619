"""[journal], [snapshots], [ledger]: what is kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from scripts.config.section import PORT_MAX, ConfigError, Section, choice, number, text

SNAPSHOT_RECORDS_MIN = 10_000


@dataclass(frozen=True, kw_only=True)
class JournalConfig(Section):
    segment_size_bytes: int = number(1 << 20, 1 << 32)
    segments_ahead: int = number(1, 8)
    prepare_pause: int = number(0, 100)
    batch_slots_max: int = number(8, 65536)
    lazy_us: int = number(0, 1_000_000)
    gather_us: int = number(0, 10_000)
    mark_interval_ms: int = number(1, 10)
    archive: bool = field()
    audit: bool = field()
    space_enough_bytes: int = number(0, 1 << 60)
    space_low_percent: int = number(0, 100)
    space_cancel_only_percent: int = number(0, 100)
    space_halt_percent: int = number(0, 100)
    sync_slow_ms: int = number(1, 1000)
    sync_slow_count: int = number(1, 16)
    sync_stalled_ms: int = number(1000, 600_000)
    sync_alarm_s: int = number(1, 3600)


@dataclass(frozen=True, kw_only=True)
class SnapshotsConfig(Section):
    every_records: int = number(0, 1 << 32)
    every_s: int = number(0, 604_800)
    keep: int = number(3, 1000)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("every_records", SNAPSHOT_RECORDS_MIN), ("every_s", 10)):
            value = getattr(self, name)
            if 0 < value < low:
                raise ConfigError(f"{name} = {value}: must be 0 or at least {low}")


@dataclass(frozen=True, kw_only=True)
class ClickhouseConfig(Section):
    host: str = text(r"[^/\s]+", "a host name or address")
    port: int = number(1, PORT_MAX)
    database: str = text(r"[A-Za-z_][A-Za-z0-9_]{0,62}", "a name of letters, digits and _")
    user: str = text(r".+", "a name")
    password_file: str = text(r".*", "a path or empty")
    secure: bool = field()
    timeout_s: int = number(1, 3600)
    replication_path: str = text(r"(/[^/\s]+)*", "a path that begins with /, or empty")
    replica: str = text(r"[^\s/]+", "a name or a macro such as {replica}")
    quorum: int = number(1, 31)


@dataclass(frozen=True, kw_only=True)
class LedgerConfig(Section):
    enabled: bool = field()
    store: str = choice("chdb", "clickhouse")
    directory: str = text(r".*", "a path or empty")
    socket: str = text(r".*", "a path or empty")
    block_rows: int = number(1000, 10_000_000)
    flush_ms: int = number(10, 60_000)
    retry_ms: int = number(10, 600_000)
    stall_s: int = number(0, 86_400)
    memory_bytes: int = number(1 << 28, 1 << 40)
    disk_reserve_bytes: int = number(0, 1 << 50)
    nice: int = number(0, 19)
    insurance_account: int = number(0, 2**32 - 1)
    image_records: int = number(1000, 10**12)
    reconcile_s: int = number(0, 86_400)
    reconcile_rows_max: int = number(0, 1 << 40)
    on_difference: str = choice("alarm", "cancel-only")
    clickhouse: ClickhouseConfig
