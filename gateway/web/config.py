"""What a worker of the web gateway needs to know; checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PORT_MAX = 65535
BODY_BYTES_MIN = 1024
QUEUE_BYTES_MIN = 65536


class WebConfigError(ValueError):
    """A value is out of range: which field, and the limit."""


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Limits of use; 0 = that one is off. Weight and requests count per address, orders per account."""

    weight_per_minute: int
    requests_per_5_minutes: int
    orders_per_10_seconds: int
    orders_per_day: int
    ban_first_s: int  # after requests that go on over the limit; doubled each time

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise WebConfigError(f"{name} = {getattr(self, name)}: must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class WebConfig:
    """One worker. Several share address and port (SO_REUSEPORT); `number` counts them from 0."""

    host: str
    port: int
    number: int
    workers: int
    tls_certificate: Path | None
    tls_key: Path | None
    store_path: Path
    history_socket: Path
    shared_path: Path  # limits the workers share
    keys_path: Path  # public RSA keys: the log holds only their digests
    limits: LimitsConfig
    listen_keys: bool  # the withdrawn listenKey way to private events, kept for older clients
    body_bytes_max: int
    connections_max: int  # WebSocket connections of one worker
    stream_attempts: int  # connections to streams of one address in 5 minutes; 0 = no limit
    stream_messages_per_s: int  # from a client of streams; 0 = no limit
    streams_max: int  # of one connection
    operator_token: str = field(repr=False)  # opens the operator's page to other machines; "" = this machine only
    stream_queue_bytes: int  # kept for one connection that does not keep up
    open_orders_max: int  # of an account, unless the operator set another
    hash_seed: int  # keys the hashes of text order ids
    seal_key: bytes

    def __post_init__(self) -> None:
        if not 0 < self.port <= PORT_MAX:
            raise WebConfigError(f"port = {self.port}: must be 1..{PORT_MAX}")
        if not 0 <= self.number < self.workers:
            raise WebConfigError(f"number = {self.number}: must be below workers = {self.workers}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise WebConfigError("tls_certificate and tls_key: give both or none")
        if self.body_bytes_max < BODY_BYTES_MIN:
            raise WebConfigError(f"body_bytes_max = {self.body_bytes_max}: must be at least {BODY_BYTES_MIN}")
        least = {
            "connections_max": 1, "stream_attempts": 0, "stream_messages_per_s": 0, "streams_max": 1,
            "stream_queue_bytes": QUEUE_BYTES_MIN,
        }  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                raise WebConfigError(f"{name} = {getattr(self, name)}: must be at least {low}")
