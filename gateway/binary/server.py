"""The order-entry server's shell: configuration, lifetime, and the one thing C does not do: looking at signatures."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from gateway._gateway import ffi, lib
from gateway.auth import AttemptLimiter, BadSignature, logon_key_id, logon_timestamp, verify
from gateway.errors import GatewayConfigError, ListenError
from ringbuf import Ring, Stage
from ringbuf.wire.messages import EstablishRejectCode, NegotiateRejectCode, Template

ADDRESS_ATTEMPTS_MAX = 20  # bad logons of one address in 60 s: several clients may share it
_CODES_OF_NEGOTIATE = {
    "credentials": NegotiateRejectCode.CREDENTIALS,
    "timestamp": NegotiateRejectCode.INVALID_TIMESTAMP,
    "attempts": NegotiateRejectCode.TOO_MANY_ATTEMPTS,
}
_CODES_OF_ESTABLISH = {
    "credentials": EstablishRejectCode.CREDENTIALS,
    "timestamp": EstablishRejectCode.INVALID_TIMESTAMP,
    "attempts": EstablishRejectCode.SESSION_BLOCKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Limits of one order-entry server. Memory: connections_max x (input_bytes + output_bytes), taken at start."""

    source: int  # number of its ingress ring: 1 = admin gateway, 2.. = others
    partitions: int  # matchers, 1..63
    sessions_max: int  # largest session id
    connections_max: int = 256
    input_bytes: int = 16384  # a connection may have unread; multiple of 64, at least 4096
    output_bytes: int = 262144  # a connection may have unsent before it counts as too slow; multiple of 64
    keep_alive_min_ms: int = 250
    keep_alive_max_ms: int = 60_000
    logon_deadline_ms: int = 5_000
    timestamp_window_ms: int = 5_000
    throttle_count: int = 0  # requests of a session per interval, twice as many cancels; 0 = no limit
    account_throttle_count: int = 0  # likewise of all sessions of an account together
    throttle_interval_ms: int = 1_000
    busy_poll_us: int = 0  # SO_BUSY_POLL of each socket; 0 = not set
    open_orders_max: int = 1 << 16  # told to clients
    retransmit_max: int = 10_000  # reports of one RetransmitRequest
    retransmit_jobs: int = 16
    archive: Path | None = None  # directory of the journaler's report files; None = only what is still in the rings

    def __post_init__(self) -> None:
        """Check the ranges that the C core would refuse, naming field and limit."""
        if not 1 <= self.source <= 65535:
            raise GatewayConfigError(f"source = {self.source}: must be 1 to 65535")
        if not 0 <= self.partitions < lib.SERVER_PARTITIONS_MAX:
            raise GatewayConfigError(f"partitions = {self.partitions}: must be below {lib.SERVER_PARTITIONS_MAX}")
        if not 1 <= self.connections_max <= 65536:
            raise GatewayConfigError(f"connections_max = {self.connections_max}: must be 1 to 65536")
        for name in ("input_bytes", "output_bytes"):
            if getattr(self, name) % 64 or getattr(self, name) < 4096:
                raise GatewayConfigError(f"{name} = {getattr(self, name)}: must be a multiple of 64, at least 4096")
        for name in ("throttle_count", "account_throttle_count"):
            if not 0 <= 2 * getattr(self, name) <= self.throttle_interval_ms * 1_000_000:
                raise GatewayConfigError(f"{name} = {getattr(self, name)}: must be 0 to 500000 a millisecond")
        if self.keep_alive_min_ms > self.keep_alive_max_ms:
            raise GatewayConfigError(f"keep_alive_min_ms = {self.keep_alive_min_ms}: is above keep_alive_max_ms")


class BinaryServer:
    """One order-entry server: a TCP server with logons, or, with `admin`, the operator's Unix socket without.

    `stage` runs on one thread; `service()` may be called on another one. Neither may be entered twice at a time.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        admin: bool = False,
        seal_key: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allocate the server. Without `seal_key` no HMAC key can log on."""
        archive = ffi.new("char[]", os.fsencode(config.archive)) if config.archive is not None else ffi.NULL
        settings = ffi.new(
            "server_config_t *",
            {
                "source": config.source,
                "admin": admin,
                "report_rings": config.partitions + 1,
                "connections_max": config.connections_max,
                "sessions_max": config.sessions_max,
                "input_size": config.input_bytes,
                "output_size": config.output_bytes,
                "keep_alive_min_ms": config.keep_alive_min_ms,
                "keep_alive_max_ms": config.keep_alive_max_ms,
                "logon_deadline_ms": config.logon_deadline_ms,
                "timestamp_window_ms": config.timestamp_window_ms,
                "throttle_count": config.throttle_count,
                "account_throttle_count": config.account_throttle_count,
                "throttle_interval_ms": config.throttle_interval_ms,
                "busy_poll_us": config.busy_poll_us,
                "open_orders_max": config.open_orders_max,
                "retransmit_max": config.retransmit_max,
                "retransmit_jobs": config.retransmit_jobs,
                "archive": archive,
            },
        )
        pointer = lib.server_new(settings)
        if pointer == ffi.NULL:
            raise GatewayConfigError(f"a server of {config} cannot be made: memory or a limit is short")
        self.config = config
        self.admin = admin
        self._seal_key = seal_key
        # Of a key from one address: somebody else's bad signatures must not lock its owner out.
        self._limiter = AttemptLimiter(clock)
        self._addresses = AttemptLimiter(clock, attempts_max=ADDRESS_ATTEMPTS_MAX)
        self._pointer = ffi.gc(pointer, lib.server_free)
        self._event = ffi.new("server_event_t *")
        self._answer = ffi.new("server_answer_t *")
        self._unanswered = False
        self._rings: list[Ring] = []

    def attach(self, *, ingress: Ring, log: Ring | None, reports: Sequence[Ring], reply: Ring) -> None:
        """Give the rings: `reports` by partition from 0. The server produces `ingress` and observes the rest.

        What was published before is delivered to nobody.
        """
        if len(reports) != self.config.partitions + 1:
            raise GatewayConfigError(f"{len(reports)} report rings: must be {self.config.partitions + 1}")
        handles = ffi.new("ring_t *[]", [_handle(ring) for ring in reports])
        log_handle = ffi.NULL if log is None else _handle(log)
        lib.server_attach(self._pointer, _handle(ingress), log_handle, handles, _handle(reply))
        self._rings = [ingress, *reports, reply, *([] if log is None else [log])]

    def listen_tcp(self, host: str, port: int) -> int:
        """Listen on a numeric address; port 0 chooses. Return the port."""
        status = lib.server_listen_tcp(self._pointer, host.encode(), port)
        if status < 0:
            raise ListenError(-status, os.strerror(-status), f"{host}:{port}")
        return int(lib.server_port(self._pointer))

    def listen_unix(self, path: Path) -> None:
        """Listen on a socket file of mode 0600, replacing a stale one."""
        status = lib.server_listen_unix(self._pointer, os.fsencode(path))
        if status < 0:
            raise ListenError(-status, os.strerror(-status), str(path))

    @property
    def stage(self) -> Stage:
        """The step function, for `ringbuf.Runner`."""
        return Stage(ffi.addressof(lib, "server_poll"), self._pointer)

    def poll(self, limit: int = 1024) -> int:
        """Do one bounded step (tests; live processes use `stage`)."""
        return int(lib.server_poll(self._pointer, limit))

    @property
    def fd(self) -> int:
        """A descriptor that is readable while a socket has something for `poll`: a Runner sleeps on it."""
        return int(lib.server_epoll_fd(self._pointer))

    def service(self) -> int:
        """Check the signatures of waiting logons; return how many were answered. Call it every few milliseconds."""
        done = 0
        while self._answer_pending() and lib.server_next_event(self._pointer, self._event):
            refusal = self._judge()
            self._answer.connection_id = self._event.connection_id
            self._answer.accepted = refusal is None
            self._answer.code = 0 if refusal is None else int(refusal)
            self._unanswered = True
            done += 1
        self._answer_pending()
        return done

    def set_ready(self, ready: bool) -> None:
        """Whether this node leads: if not, logons are refused as NotReady and the operator's commands end."""
        lib.server_set_ready(self._pointer, ready)

    def set_cancel_only(self, on: bool) -> None:
        """Refuse requests that could rest, as SystemBusy."""
        lib.server_set_cancel_only(self._pointer, on)

    def shutdown(self) -> None:
        """End all connections with Terminate(ServerShutdown); poll a few times more to have it sent."""
        lib.server_shutdown(self._pointer)

    def counters(self) -> Mapping[str, int]:
        """Return all counters by name."""
        counters = lib.server_counters(self._pointer)
        return {name: int(getattr(counters, name)) for name, _ in ffi.typeof("server_counters_t").fields}

    def _answer_pending(self) -> bool:
        if self._unanswered:
            self._unanswered = not lib.server_answer(self._pointer, self._answer)
        return not self._unanswered

    def _judge(self) -> int | None:
        """Return the reject code of the logon in `_event`, None to accept it."""
        event = self._event
        codes = _CODES_OF_NEGOTIATE if event.template_id == Template.NEGOTIATE else _CODES_OF_ESTABLISH
        frame = bytes(ffi.buffer(event.frame, event.frame_length))
        key_id = logon_key_id(event.template_id, frame)
        peer = bytes(event.peer)
        if self._limiter.blocked(key_id + peer) or self._addresses.blocked(peer):
            return codes["attempts"]
        if not event.key_found:
            self._failed(key_id, peer)
            return codes["credentials"]
        try:
            verify(
                template=event.template_id,
                frame=frame,
                credential=event.credential_type,
                access_key_id=key_id.rstrip(b"\0").decode("utf-8", "surrogateescape"),
                material=bytes(ffi.buffer(event.material)),
                seal_key=self._seal_key,
            )
        except BadSignature:
            self._failed(key_id, peer)
            return codes["credentials"]
        # The sequencer decides; this only spares it replays of old logons.
        return codes["timestamp"] if logon_timestamp(frame) <= event.last_timestamp else None

    def _failed(self, key_id: bytes, peer: bytes) -> None:
        self._limiter.failed(key_id + peer)
        if not _is_loopback(peer):  # everybody behind a relay of this host has that one
            self._addresses.failed(peer)


def _is_loopback(peer: bytes) -> bool:
    address = ip_address(peer)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _handle(ring: Ring) -> Any:
    return ffi.cast("ring_t *", ring.ptr)
