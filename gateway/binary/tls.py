"""TLS 1.3 in front of order entry: takes the encryption off and passes the bytes on to the plain listener.

A relay and not a part of the server: the core of the order path stays free of a TLS library, and a handshake cannot
hold up those who trade without one. It costs two copies and two wake-ups on the way (docs/BENCHMARKS.md).
"""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import GatewayConfigError

BUFFER_BYTES = 65536  # unsent on one side before the other is not read
HANDSHAKE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Where the relay listens, what it shows, and where the bytes go."""

    host: str
    port: int
    certificate: Path  # PEM, with the chain
    key: Path  # PEM
    target_host: str
    target_port: int
    connections_max: int = 256

    def __post_init__(self) -> None:
        """Check ranges, naming field and limit; `context` looks at the files."""
        for name in ("port", "target_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise GatewayConfigError(f"{name} = {getattr(self, name)}: must be 0 to 65535")
        if not 1 <= self.connections_max <= 65536:
            raise GatewayConfigError(f"connections_max = {self.connections_max}: must be 1 to 65536")

    def context(self) -> ssl.SSLContext:
        """Return a context that speaks TLS 1.3 alone. Raises GatewayConfigError for files that are none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise GatewayConfigError(f"certificate {self.certificate}, key {self.key}: {error.strerror}") from error
        return context


class TlsRelay:
    """One listener. `await start()`, then it serves until `await close()`."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._context = config.context()
        self._server: asyncio.Server | None = None
        self._open: set[_Side] = set()

    async def start(self) -> int:
        """Listen; return the port. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Client(self),
            self._config.host,
            self._config.port,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_S,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        for side in list(self._open):
            side.abort()
        await asyncio.sleep(0)

    def has_room(self) -> bool:
        """Whether one more client may come."""
        return len(self._open) < self._config.connections_max

    async def connect(self, client: "_Client") -> None:
        """Connect a client to the plain listener."""
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _Inner(client), self._config.target_host, self._config.target_port
            )
        except OSError:
            client.abort()

    def opened(self, side: "_Side") -> None:
        self._open.add(side)

    def closed(self, side: "_Side") -> None:
        self._open.discard(side)


class _Side(asyncio.Protocol):
    """One of the two connections: what it reads goes to its peer, and only as fast as that takes it."""

    def __init__(self) -> None:
        self.peer: _Side | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()  # what it still has to send leaves first

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Client(_Side):
    """The encrypted connection."""

    def __init__(self, relay: TlsRelay) -> None:
        super().__init__()
        self._relay = relay
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._relay.has_room():
            self.abort()
            return
        self._relay.opened(self)
        assert self.transport is not None
        self.transport.pause_reading()  # until the other side is there
        self._connecting = asyncio.get_running_loop().create_task(self._relay.connect(self))

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.closed(self)
        super().connection_lost(exc)


class _Inner(_Side):
    """The plain connection to the server."""

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self.peer = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        client = self.peer
        if client is None or client.transport is None or client.transport.is_closing():
            self.abort()
            return
        client.peer = self
        client.transport.resume_reading()
