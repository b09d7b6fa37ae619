"""[gateway.binary], [gateway.admin], [gateway.web], [gateway.feed]: who may come in, and by which door."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from scripts.config.section import ADDRESS, ConfigError, Section, check_port, number, split_address, text

FEED_LISTENERS = ("listen_replay", "listen_rerequest", "listen_snapshot")


@dataclass(frozen=True, kw_only=True)
class Listener(Section):
    """A section whose server listens on one address."""

    listen: str = text(ADDRESS, '"HOST:PORT"')

    def __post_init__(self) -> None:
        super().__post_init__()
        check_port(self.listen, "listen")

    @property
    def host(self) -> str:
        return split_address(self.listen)[0]

    @property
    def port(self) -> int:
        return split_address(self.listen)[1]


@dataclass(frozen=True, kw_only=True)
class BinaryGatewayConfig(Listener):
    connections_max: int = number(1, 65536)
    logon_timeout_ms: int = number(100, 60000)
    throttle_count: int = number(0, 100_000_000)
    account_throttle_count: int = number(0, 100_000_000)
    throttle_interval_ms: int = number(200, 60_000)
    busy_poll_us: int = number(0, 1000)
    tls_listen: str = text(rf"|{ADDRESS}", '"HOST:PORT" or empty')
    tls_certificate: str = text(r".*", "a path or empty")
    tls_key: str = text(r".*", "a path or empty")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_port(self.tls_listen, "tls_listen", low=1)
        if self.tls_listen and not (self.tls_certificate and self.tls_key):
            raise ConfigError("tls_listen needs tls_certificate and tls_key")


@dataclass(frozen=True, kw_only=True)
class AdminGatewayConfig(Section):
    socket: str = text(r".*", "a path or empty")


@dataclass(frozen=True, kw_only=True)
class WebGatewayConfig(Listener):
    workers: int = number(0, 64)
    tls_certificate: str = text(r".*", "a path or empty")
    tls_key: str = text(r".*", "a path or empty")
    weight_per_minute: int = number(0, 1_000_000_000)
    requests_per_5_minutes: int = number(0, 1_000_000_000)
    orders_per_10_seconds: int = number(0, 1_000_000_000)
    orders_per_day: int = number(0, 1_000_000_000)
    ban_first_s: int = number(0, 259_200)
    listen_keys: bool = field()
    body_bytes_max: int = number(1024, 16_777_216)
    connections_max: int = number(1, 1_000_000)
    operator_token_file: str = text(r".*", "a path or empty")
    stream_attempts: int = number(0, 1_000_000_000)
    stream_messages_per_s: int = number(0, 1_000_000)
    streams_max: int = number(1, 65536)
    stream_queue_bytes: int = number(65536, 1 << 30)
    derived_slots: int = number(16384, 1 << 26, power_of_two=True)
    events_max: int = number(1000, 1_000_000_000)
    ended_orders_days: int = number(1, 3650)
    trades_days: int = number(1, 3650)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tls_certificate == "") != (self.tls_key == ""):
            raise ConfigError(f"tls_key = {self.tls_key!r}: give tls_certificate and tls_key, or none of them")


@dataclass(frozen=True, kw_only=True)
class FeedSection(Section):
    enabled: bool = field()
    listen_replay: str = text(f"({ADDRESS})?", '"HOST:PORT" or empty')
    listen_rerequest: str = text(f"({ADDRESS})?", '"HOST:PORT" or empty')
    listen_snapshot: str = text(f"({ADDRESS})?", '"HOST:PORT" or empty')
    listen_web: str = text(f"({ADDRESS})?", '"HOST:PORT" or empty')
    line_a: tuple[str, ...] = field()
    line_b: tuple[str, ...] = field()
    interface_a: str = text(r"\S*", "an address or empty")
    interface_b: str = text(r"\S*", "an address or empty")
    multicast_ttl: int = number(0, 255)
    tokens: bool = field()
    packet_bytes_max: int = number(256, 65507)
    pack_delay_us: int = number(0, 1_000_000)
    heartbeat_ms: int = number(10, 60_000)
    definitions_ms: int = number(1, 60_000)
    derived_slots: int = number(16384, 1 << 26, power_of_two=True)
    connections_max: int = number(1, 65536)
    connections_per_user: int = number(1, 65536)
    output_bytes: int = number(4096, 1 << 26)
    rerequests_per_s: int = number(1, 1_000_000)
    snapshot_age_ms: int = number(0, 600_000)
    snapshot_bytes_max: int = number(1 << 16, 1 << 40)
    end_session_on_stop: bool = field()
    park_us: int = number(50, 100_000)
    nice: int = number(0, 19)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in (*FEED_LISTENERS, "listen_web"):
            check_port(getattr(self, key), key)
        for key in ("line_a", "line_b"):
            for line in getattr(self, key):
                if re.fullmatch(f"(full|derived|definitions|all)@{ADDRESS}", line) is None:
                    raise ConfigError(
                        f'{key} = {line!r}: must be "KIND@HOST:PORT", KIND full, derived, definitions or all'
                    )
                check_port(line, key, low=1)


@dataclass(frozen=True, kw_only=True)
class GatewayConfig(Section):
    binary: BinaryGatewayConfig
    admin: AdminGatewayConfig
    web: WebGatewayConfig
    feed: FeedSection
