"""The configuration: TOML in, frozen dataclasses out, read once.

`scripts/bullring.toml` holds every key with its default; a file of the operator's names what differs. A key, its type
and its range stand here once, in the dataclasses; the text beside it stands in bullring.toml (a test compares them).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from scripts.exit_codes import CommandError, ExitCode

DEFAULTS_PATH = Path(__file__).with_name("bullring.toml")
CHECKOUT = Path(__file__).resolve().parent.parent
UNIX_SOCKET_PATH_MAX = 107
ADMIN_SOCKET = "admin.sock"
LEDGER_SOCKET = "ledger.sock"
HISTORY_SOCKET = "history.sock"
REPLICATOR_SOCKET = "replicator.sock"
STAGES_CORES_MIN = 6
PORT_MAX = 65535
FEED_PORT_OFFSET = 100  # replay; + 1 re-requests, + 2 snapshots
FEED_LISTENERS = ("listen_replay", "listen_rerequest", "listen_snapshot")
ADDRESS = r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+):[0-9]{1,5}"
SNAPSHOT_RECORDS_MIN = 10_000


class ConfigError(CommandError):
    """The configuration cannot be used: which key, which value, which limit."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.CONFIGURATION)


def _number(low: int, high: int, *, power_of_two: bool = False) -> Any:
    return field(metadata={"low": low, "high": high, "power_of_two": power_of_two})


def _choice(*values: str) -> Any:
    return field(metadata={"choices": values})


def _text(pattern: str, limit: str) -> Any:
    return field(metadata={"pattern": pattern, "limit": limit})


class Section:
    """A table of the file. Subclasses are frozen dataclasses; their field metadata says what is allowed."""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            _check(entry.metadata, getattr(self, entry.name), entry.name)


def _check(rule: Mapping[str, Any], value: Any, key: str) -> None:
    if "low" in rule:
        if not rule["low"] <= value <= rule["high"]:
            raise ConfigError(f"{key} = {value}: must be {rule['low']}..{rule['high']}")
        if rule["power_of_two"] and value & (value - 1):
            raise ConfigError(f"{key} = {value}: must be a power of two, for instance {1 << value.bit_length()}")
    if "choices" in rule and value not in rule["choices"]:
        raise ConfigError(f"{key} = {value!r}: must be one of {', '.join(rule['choices'])}")
    if "pattern" in rule and re.fullmatch(rule["pattern"], value) is None:
        raise ConfigError(f"{key} = {value!r}: must be {rule['limit']}")


@dataclass(frozen=True, kw_only=True)
class NodeConfig(Section):
    name: str = _text(r"[a-z0-9-]{1,32}", "1..32 characters a-z 0-9 -")
    node_id: int = _number(0, 1023)
    data_dir: str = _text(r".+", "a path")
    run_dir: str = _text(r".*", "a path or empty")
    ring_prefix: str = _text(r"[a-z0-9.-]{0,32}", "0..32 characters a-z 0-9 . -")
    mode: str = _choice("D0", "D1", "D1a", "D2", "D2m")
    environment: str = _choice("development", "production")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.environment == "production" and self.mode == "D0":
            raise ConfigError(
                'mode = "D0": environment "production" needs another, since D0 may lose answered requests'
            )


@dataclass(frozen=True, kw_only=True)
class CapacitiesConfig(Section):
    orders_per_partition: int = _number(1024, 1 << 24, power_of_two=True)
    accounts: int = _number(16, 1 << 24)
    balances: int = _number(64, 1 << 26, power_of_two=True)
    sessions: int = _number(16, 1 << 20)
    instruments: int = _number(1, 65535)
    assets: int = _number(2, 65536)
    keys: int = _number(16, 1 << 20)
    open_orders_per_account: int = _number(1, 1 << 24)


@dataclass(frozen=True, kw_only=True)
class RingsConfig(Section):
    ingress_slots: int = _number(1024, 1 << 22, power_of_two=True)
    log_slots: int = _number(4096, 1 << 24, power_of_two=True)
    report_slots: int = _number(4096, 1 << 24, power_of_two=True)
    reply_slots: int = _number(1024, 1 << 22, power_of_two=True)
    market_slots: int = _number(4096, 1 << 24, power_of_two=True)


@dataclass(frozen=True, kw_only=True)
class JournalConfig(Section):
    segment_size_bytes: int = _number(1 << 20, 1 << 32)
    segments_ahead: int = _number(1, 8)
    prepare_pause: int = _number(0, 100)
    batch_slots_max: int = _number(8, 65536)
    lazy_us: int = _number(0, 1_000_000)
    mark_interval_ms: int = _number(1, 10)
    archive: bool = field()
    audit: bool = field()
    space_enough_bytes: int = _number(0, 1 << 60)
    space_low_percent: int = _number(0, 100)
    space_cancel_only_percent: int = _number(0, 100)
    space_halt_percent: int = _number(0, 100)
    sync_slow_ms: int = _number(1, 1000)
    sync_slow_count: int = _number(1, 16)
    sync_stalled_ms: int = _number(1000, 600_000)
    sync_alarm_s: int = _number(1, 3600)


@dataclass(frozen=True, kw_only=True)
class PlacementConfig(Section):
    layout: str = _choice("auto", "fused", "stages")
    partitions: int = _number(1, 31)
    matcher_processes: tuple[tuple[int, ...], ...] = field()
    core_sequencer: int = _number(-1, 1023)
    core_gateway: int = _number(-1, 1023)
    core_journaler: int = _number(-1, 1023)
    core_feed: int = _number(-1, 1023)
    cores_matchers: tuple[int, ...] = field()
    wait_order_path: str = _choice("auto", "spin", "yield", "park")
    wait_journaler: str = _choice("spin", "yield", "park")
    wait_feed: str = _choice("auto", "spin", "yield", "park")
    priority_journaler: int = _number(0, 99)

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
    restarts_max: int = _number(0, 1000)
    restart_window_s: int = _number(1, 3600)
    ready_timeout_s: int = _number(1, 86400)
    stuck_ms: int = _number(200, 600_000)
    stop_timeout_s: int = _number(1, 600)


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of "HOST:PORT"."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _check_port(text: str, key: str, *, low: int = 0) -> None:
    if text and not low <= split_address(text)[1] <= PORT_MAX:
        raise ConfigError(f"{key} = {text!r}: the port must be {low}..{PORT_MAX}")


@dataclass(frozen=True, kw_only=True)
class SnapshotsConfig(Section):
    every_records: int = _number(0, 1 << 32)
    every_s: int = _number(0, 604_800)
    keep: int = _number(3, 1000)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("every_records", SNAPSHOT_RECORDS_MIN), ("every_s", 10)):
            value = getattr(self, name)
            if 0 < value < low:
                raise ConfigError(f"{name} = {value}: must be 0 or at least {low}")


@dataclass(frozen=True, kw_only=True)
class BinaryGatewayConfig(Section):
    listen: str = _text(ADDRESS, '"HOST:PORT"')
    connections_max: int = _number(1, 65536)
    logon_timeout_ms: int = _number(100, 60000)
    throttle_count: int = _number(0, 100_000_000)
    account_throttle_count: int = _number(0, 100_000_000)
    throttle_interval_ms: int = _number(200, 60_000)
    busy_poll_us: int = _number(0, 1000)
    tls_listen: str = _text(rf"|{ADDRESS}", '"HOST:PORT" or empty')
    tls_certificate: str = _text(r".*", "a path or empty")
    tls_key: str = _text(r".*", "a path or empty")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_port(self.listen, "listen")
        _check_port(self.tls_listen, "tls_listen", low=1)
        if self.tls_listen and not (self.tls_certificate and self.tls_key):
            raise ConfigError("tls_listen needs tls_certificate and tls_key")

    @property
    def host(self) -> str:
        return split_address(self.listen)[0]

    @property
    def port(self) -> int:
        return split_address(self.listen)[1]


@dataclass(frozen=True, kw_only=True)
class AdminGatewayConfig(Section):
    socket: str = _text(r".*", "a path or empty")


@dataclass(frozen=True, kw_only=True)
class WebGatewayConfig(Section):
    listen: str = _text(ADDRESS, '"HOST:PORT"')
    workers: int = _number(0, 64)
    tls_certificate: str = _text(r".*", "a path or empty")
    tls_key: str = _text(r".*", "a path or empty")
    weight_per_minute: int = _number(0, 1_000_000_000)
    requests_per_5_minutes: int = _number(0, 1_000_000_000)
    orders_per_10_seconds: int = _number(0, 1_000_000_000)
    orders_per_day: int = _number(0, 1_000_000_000)
    ban_first_s: int = _number(0, 259_200)
    listen_keys: bool = field()
    body_bytes_max: int = _number(1024, 16_777_216)
    connections_max: int = _number(1, 1_000_000)
    operator_token_file: str = _text(r".*", "a path or empty")
    stream_attempts: int = _number(0, 1_000_000_000)
    stream_messages_per_s: int = _number(0, 1_000_000)
    streams_max: int = _number(1, 65536)
    stream_queue_bytes: int = _number(65536, 1 << 30)
    derived_slots: int = _number(16384, 1 << 26, power_of_two=True)
    events_max: int = _number(1000, 1_000_000_000)
    ended_orders_days: int = _number(1, 3650)
    trades_days: int = _number(1, 3650)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_port(self.listen, "listen")
        if (self.tls_certificate == "") != (self.tls_key == ""):
            raise ConfigError(f"tls_key = {self.tls_key!r}: give tls_certificate and tls_key, or none of them")

    @property
    def host(self) -> str:
        return split_address(self.listen)[0]

    @property
    def port(self) -> int:
        return split_address(self.listen)[1]


@dataclass(frozen=True, kw_only=True)
class FeedSection(Section):
    enabled: bool = field()
    listen_replay: str = _text(f"({ADDRESS})?", '"HOST:PORT" or empty')
    listen_rerequest: str = _text(f"({ADDRESS})?", '"HOST:PORT" or empty')
    listen_snapshot: str = _text(f"({ADDRESS})?", '"HOST:PORT" or empty')
    listen_web: str = _text(f"({ADDRESS})?", '"HOST:PORT" or empty')
    line_a: tuple[str, ...] = field()
    line_b: tuple[str, ...] = field()
    interface_a: str = _text(r"\S*", "an address or empty")
    interface_b: str = _text(r"\S*", "an address or empty")
    multicast_ttl: int = _number(0, 255)
    tokens: bool = field()
    packet_bytes_max: int = _number(256, 65507)
    pack_delay_us: int = _number(0, 1_000_000)
    heartbeat_ms: int = _number(10, 60_000)
    definitions_ms: int = _number(1, 60_000)
    derived_slots: int = _number(16384, 1 << 26, power_of_two=True)
    connections_max: int = _number(1, 65536)
    connections_per_user: int = _number(1, 65536)
    output_bytes: int = _number(4096, 1 << 26)
    rerequests_per_s: int = _number(1, 1_000_000)
    snapshot_age_ms: int = _number(0, 600_000)
    snapshot_bytes_max: int = _number(1 << 16, 1 << 40)
    end_session_on_stop: bool = field()
    park_us: int = _number(50, 100_000)
    nice: int = _number(0, 19)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in (*FEED_LISTENERS, "listen_web"):
            _check_port(getattr(self, key), key)
        for key in ("line_a", "line_b"):
            for text in getattr(self, key):
                if re.fullmatch(f"(full|derived|definitions|all)@{ADDRESS}", text) is None:
                    raise ConfigError(
                        f'{key} = {text!r}: must be "KIND@HOST:PORT", KIND full, derived, definitions or all'
                    )
                _check_port(text, key, low=1)


@dataclass(frozen=True, kw_only=True)
class GatewayConfig(Section):
    binary: BinaryGatewayConfig
    admin: AdminGatewayConfig
    web: WebGatewayConfig
    feed: FeedSection


@dataclass(frozen=True, kw_only=True)
class ClickhouseConfig(Section):
    host: str = _text(r"[^/\s]+", "a host name or address")
    port: int = _number(1, PORT_MAX)
    database: str = _text(r"[A-Za-z_][A-Za-z0-9_]{0,62}", "a name of letters, digits and _")
    user: str = _text(r".+", "a name")
    password_file: str = _text(r".*", "a path or empty")
    secure: bool = field()
    timeout_s: int = _number(1, 3600)
    replication_path: str = _text(r"(/[^/\s]+)*", "a path that begins with /, or empty")
    replica: str = _text(r"[^\s/]+", "a name or a macro such as {replica}")
    quorum: int = _number(1, 31)


@dataclass(frozen=True, kw_only=True)
class LedgerConfig(Section):
    enabled: bool = field()
    store: str = _choice("chdb", "clickhouse")
    directory: str = _text(r".*", "a path or empty")
    socket: str = _text(r".*", "a path or empty")
    block_rows: int = _number(1000, 10_000_000)
    flush_ms: int = _number(10, 60_000)
    retry_ms: int = _number(10, 600_000)
    stall_s: int = _number(0, 86_400)
    memory_bytes: int = _number(1 << 28, 1 << 40)
    disk_reserve_bytes: int = _number(0, 1 << 50)
    nice: int = _number(0, 19)
    insurance_account: int = _number(0, 2**32 - 1)
    image_records: int = _number(1000, 10**12)
    reconcile_s: int = _number(0, 86_400)
    reconcile_rows_max: int = _number(0, 1 << 40)
    on_difference: str = _choice("alarm", "cancel-only")
    clickhouse: ClickhouseConfig


_ENDPOINT = r"(\[[0-9a-fA-F:]+\]|[^:\[\], ]+):[0-9]{1,5}"


@dataclass(frozen=True, kw_only=True)
class ReplicationConfig(Section):
    peer: str = _text(rf"({_ENDPOINT})?", '"HOST:PORT" or empty')
    peer_node: int = _number(0, 1023)
    listen: str = _text(_ENDPOINT, '"HOST:PORT"')
    peer_key: str = _text(r"(\S{40})?", "a public key of 40 characters or empty")
    cluster: int = _number(1, 2**63 - 1)
    on_standby_loss: str = _choice("solo", "cancel_only", "halt")
    heartbeat_ms: int = _number(5, 10_000)
    standby_lost_ms: int = _number(20, 60_000)
    standby_stalled_ms: int = _number(40, 60_000)
    primary_lost_ms: int = _number(40, 120_000)
    core_stuck_ms: int = _number(50, 600_000)
    clock_jump_ms: int = _number(1, 3_600_000)
    handover_ms: int = _number(10, 10_000)
    failover_gap_s: int = _number(0, 86_400)
    failovers_per_hour: int = _number(0, 1000)
    window_bytes: int = _number(64 * 1024, 1 << 30)
    frame_bytes: int = _number(1024, 32 * 1024)
    catch_up_bytes_per_s: int = _number(64 * 1024, 1 << 40)
    wait: str = _choice("spin", "park")


@dataclass(frozen=True, kw_only=True)
class ArbiterConfig(Section):
    endpoints: str = _text(rf"{_ENDPOINT}(, *{_ENDPOINT})*", '"HOST:PORT" or several with commas')
    prefix: str = _text(r"(/[A-Za-z0-9._-]+)+", "a path like /bullring")
    timeout_ms: int = _number(10, 10_000)
    ca: str = _text(r".*", "a path or empty")
    certificate: str = _text(r".*", "a path or empty")
    key: str = _text(r".*", "a path or empty")


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """The whole configuration. Paths are absolute, derived names filled in."""

    node: NodeConfig
    capacities: CapacitiesConfig
    rings: RingsConfig
    journal: JournalConfig
    placement: PlacementConfig
    supervisor: SupervisorConfig
    snapshots: SnapshotsConfig
    gateway: GatewayConfig
    ledger: LedgerConfig
    replication: ReplicationConfig
    arbiter: ArbiterConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ledger.enabled and not self.journal.archive:
            raise ConfigError(
                "journal.archive = false: the ledger reads reports from the archive; switch it off too "
                "(ledger.enabled = false), or keep the archive"
            )
        if self.gateway.web.workers and not self.journal.archive:
            raise ConfigError(
                "journal.archive = false: the web gateway reads old reports there; set gateway.web.workers = 0"
            )
        mode, peer = self.node.mode, self.replication.peer
        if self.replicated != (mode in ("D1a", "D2", "D2m")):
            wanted = '"D2", "D2m" or "D1a"' if self.replicated else '"D1" or "D0"'
            raise ConfigError(f"node.mode = {mode!r}: must be {wanted} with replication.peer = {peer!r}")
        if self.replicated and self.node.node_id == self.replication.peer_node:
            raise ConfigError(f"replication.peer_node = {self.replication.peer_node}: must differ from node.node_id")

    @property
    def replicated(self) -> bool:
        """Whether this node is one of two."""
        return self.replication.peer != ""

    @property
    def data_dir(self) -> Path:
        return Path(self.node.data_dir)

    @property
    def run_dir(self) -> Path:
        return Path(self.node.run_dir)

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "journal"

    @property
    def admin_socket(self) -> Path:
        return Path(self.gateway.admin.socket)

    @property
    def ledger_dir(self) -> Path:
        """The embedded store of the books; can be made again from the journal."""
        return Path(self.ledger.directory)

    @property
    def ledger_socket(self) -> Path:
        return Path(self.ledger.socket)

    @property
    def keys_dir(self) -> Path:
        """Private keys that the command line made: never read by the exchange."""
        return self.data_dir / "keys"

    @property
    def seal_key_path(self) -> Path:
        """The key HMAC secrets are derived with; kept outside the log."""
        return self.data_dir / "seal.key"

    @property
    def web_dir(self) -> Path:
        """The web gateway's own: history store, sessions and keys of its workers."""
        return self.data_dir / "web"

    @property
    def feed_key_path(self) -> Path:
        """The key that tokens of the market feed are made with."""
        return self.data_dir / "feed.key"

    def definitions_path(self, process: str) -> Path:
        """What a process of the feed remembers of the reference channel."""
        return self.data_dir / f"{process}.definitions"

    @property
    def has_feed(self) -> bool:
        """Is there a market feed? It needs the archive."""
        return self.gateway.feed.enabled and self.journal.archive

    @property
    def has_feed_web(self) -> bool:
        """Is it served over WebSocket, too?"""
        return self.has_feed and self.gateway.feed.listen_web != ""

    @property
    def counters_dir(self) -> Path:
        return self.run_dir / "counters"

    def as_tables(self) -> dict[str, Any]:
        """Return the configuration as the tables of a TOML or JSON file that `from_tables` takes back."""
        tables: dict[str, Any] = dataclasses.asdict(self)
        return tables


def load(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read the defaults, the operator's file over them, and `overrides` ("node.mode": "D0") over both.

    Raises ConfigError naming key, value and limit.
    """
    tables = _read(DEFAULTS_PATH)
    _resolve_paths(tables, default_base())
    if path is not None:
        own = _read(path)
        _reject_unknown(own, Config, "")
        _resolve_paths(own, path.resolve().parent)
        _merge(tables, own)
    for dotted, value in (overrides or {}).items():
        nested: dict[str, Any] = {}
        target = nested
        *parents, key = dotted.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[key] = value
        _reject_unknown(nested, Config, "")
        _resolve_paths(nested, Path.cwd())
        _merge(tables, nested)
    return from_tables(_derive(tables))


def from_tables(tables: Mapping[str, Any]) -> Config:
    """Build a Config from complete tables; the inverse of Config.as_tables. Raises ConfigError."""
    config = _build(Config, tables, "")
    assert isinstance(config, Config)
    return config


def default_base() -> Path:
    """Return what relative paths of the defaults are relative to: the checkout, else the current folder."""
    return CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path.cwd()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise CommandError(f"cannot read the configuration {path}: {error.strerror}", ExitCode.NO_INPUT) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _merge(base: dict[str, Any], own: Mapping[str, Any]) -> None:
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _reject_unknown(table: Mapping[str, Any], kind: type, prefix: str) -> None:
    known = get_type_hints(kind)
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if key not in known:
            raise ConfigError(f"unknown key {dotted}{_nearest(dotted)}")
        if _is_section(known[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"{dotted} = {value!r}: must be a table [{dotted}]")
            _reject_unknown(value, known[key], f"{dotted}.")


def _nearest(dotted: str) -> str:
    keys = known_keys()
    found = difflib.get_close_matches(dotted, keys, n=1, cutoff=0.5)
    if not found:
        leaf = dotted.rpartition(".")[2]
        leaves = {key.rpartition(".")[2]: key for key in keys}
        found = [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.5)]
    return f"; did you mean {found[0]}?" if found else "; bullring.toml lists every key"


def known_keys(kind: type = Config, prefix: str = "") -> list[str]:
    """Return every dotted key there is."""
    keys: list[str] = []
    for name, hint in get_type_hints(kind).items():
        if _is_section(hint):
            keys += known_keys(hint, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Section)


def _build(kind: type, table: Mapping[str, Any], prefix: str) -> Section:
    values: dict[str, Any] = {}
    _reject_unknown(table, kind, prefix)
    for name, hint in get_type_hints(kind).items():
        dotted = f"{prefix}{name}"
        if name not in table:
            raise ConfigError(f"missing key {dotted}")
        values[name] = (
            _build(hint, table[name], f"{dotted}.") if _is_section(hint) else _typed(hint, table[name], dotted)
        )
    try:
        section = kind(**values)
    except ConfigError as error:
        # The section knows its field only by its own name.
        message = str(error)
        raise ConfigError(message if "." in message.split(" ", 1)[0] else prefix + message) from None
    assert isinstance(section, Section)
    return section


def _typed(hint: Any, value: Any, key: str) -> Any:
    if hint == tuple[int, ...] and _is_list(value, int):
        return tuple(value)
    if hint == tuple[str, ...]:
        if _is_list(value, str):
            return tuple(value)
        raise ConfigError(f"{key} = {value!r}: must be a list of texts")
    if hint == tuple[tuple[int, ...], ...] and isinstance(value, list | tuple):
        if all(_is_list(group, int) for group in value):
            return tuple(tuple(group) for group in value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    names = {int: "a whole number", str: "a text", bool: "true or false"}
    raise ConfigError(f"{key} = {value!r}: must be {names.get(hint, 'a list of whole numbers')}")


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(type(entry) is kind for entry in value)


def _resolve_paths(tables: dict[str, Any], base: Path) -> None:
    paths = (
        ("node", "data_dir"),
        ("node", "run_dir"),
        ("ledger", "directory"),
        ("ledger", "socket"),
        ("arbiter", "ca"),
        ("arbiter", "certificate"),
        ("arbiter", "key"),
    )
    for section, key in paths:
        value = tables.get(section, {}).get(key)
        if isinstance(value, str) and value:
            tables[section][key] = str(_absolute(value, base))
    server = tables.get("ledger", {}).get("clickhouse", {})
    if isinstance(server, dict) and isinstance(server.get("password_file"), str) and server["password_file"]:
        server["password_file"] = str(_absolute(server["password_file"], base))
    admin = tables.get("gateway", {}).get("admin", {})
    if isinstance(admin, dict) and isinstance(admin.get("socket"), str) and admin["socket"]:
        admin["socket"] = str(_absolute(admin["socket"], base))
    _resolve_tls(tables, base)


def _resolve_tls(tables: dict[str, Any], base: Path) -> None:
    for gateway in ("binary", "web"):
        table = tables.get("gateway", {}).get(gateway, {})
        for key in ("tls_certificate", "tls_key"):
            if isinstance(table, dict) and isinstance(table.get(key), str) and table[key]:
                table[key] = str(_absolute(table[key], base))


def _absolute(value: str, base: Path) -> Path:
    return Path(os.path.abspath(base / Path(value).expanduser()))  # noqa: PTH100  resolve() would follow links


def _derive(tables: dict[str, Any]) -> dict[str, Any]:
    """Fill in what "" asks for."""
    node, admin, ledger = tables["node"], tables["gateway"]["admin"], tables["ledger"]
    if node["mode"] == "":
        node["mode"] = "D1" if tables["replication"]["peer"] == "" else "D2"
    if not isinstance(node["data_dir"], str):
        return tables
    digest = hashlib.sha256(os.path.realpath(node["data_dir"]).encode()).hexdigest()[:8]
    if node["ring_prefix"] == "":
        node["ring_prefix"] = f"bullring.{digest}"
    if node["run_dir"] == "":
        run_dir = Path(node["data_dir"]) / "run"
        longest = max(ADMIN_SOCKET, LEDGER_SOCKET, HISTORY_SOCKET, REPLICATOR_SOCKET, key=len)
        if len(os.fsencode(run_dir / longest)) > UNIX_SOCKET_PATH_MAX:
            run_dir = Path(f"/tmp/bullring-{os.getuid()}-{digest}")
        node["run_dir"] = str(run_dir)
    if admin["socket"] == "":
        admin["socket"] = str(Path(node["run_dir"]) / ADMIN_SOCKET)
    _derive_feed(tables["gateway"])
    if ledger["socket"] == "":
        ledger["socket"] = str(Path(node["run_dir"]) / LEDGER_SOCKET)
    if ledger["directory"] == "":
        ledger["directory"] = str(Path(node["data_dir"]) / "ledger")
    inner = str(Path(node["run_dir"]) / REPLICATOR_SOCKET)
    sockets = (("node.run_dir", inner), ("gateway.admin.socket", admin["socket"]), ("ledger.socket", ledger["socket"]))
    for key, path in sockets:
        if len(os.fsencode(path)) > UNIX_SOCKET_PATH_MAX:
            raise ConfigError(f"{key} = {path!r}: a Unix socket's path may have {UNIX_SOCKET_PATH_MAX} bytes")
    return tables


def _derive_feed(gateway: dict[str, Any]) -> None:
    """The feed's ports follow the port of order entry, so that two nodes on a host differ in one key."""
    listen, feed = gateway["binary"]["listen"], gateway["feed"]
    if not isinstance(listen, str) or re.fullmatch(ADDRESS, listen) is None:
        return
    host, _, port = listen.rpartition(":")
    for place, key in enumerate(FEED_LISTENERS):
        if feed[key] == "":
            feed[key] = f"{host}:{int(port) + FEED_PORT_OFFSET + place if int(port) else 0}"
