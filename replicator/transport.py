"""The link between the two nodes: ZeroMQ over TCP, CURVE both ways. The only file that imports zmq.

Each node binds a ROUTER and connects a DEALER to the other's; frames go out on the DEALER and come in on the ROUTER, so
nothing depends on a ROUTER's routing, which drops silently (Z1). Delivery is not relied on at all: what must arrive is
numbered, acknowledged and sent again. A full or broken link drops; nothing here ever waits.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import zmq
from zmq.auth.thread import ThreadAuthenticator

from replicator.errors import ReplicatorError
from replicator.protocol import FRAME_BYTES_MAX

FRAMES_MAX = 4096  # queued in each direction; the window by bytes is far below
KEY_LENGTH = 40  # Z85
SECRET_FILE = "replication.secret"
PUBLIC_FILE = "replication.public"
RECONNECT_MS, RECONNECT_MAX_MS = 20, 200
LINGER_MS = 100
PING_MS, PING_TIMEOUT_MS = 100, 400


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A node's identity on the link."""

    public: str
    secret: str

    @classmethod
    def make(cls) -> Self:
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a secret file. Raises ReplicatorError, saying what is wrong with it."""
        try:
            if path.stat().st_mode & 0o077:
                raise ReplicatorError(f"{path} may be read by others: its mode must be 0600")
            facts = json.loads(path.read_text())
            pair = cls(str(facts["public"]), str(facts["secret"]))
        except FileNotFoundError as error:
            raise ReplicatorError(f"there is no key pair {path}: make one with `bullring cluster keys`") from error
        except (OSError, ValueError, KeyError) as error:
            raise ReplicatorError(f"cannot read the key pair {path}: {error}") from error
        check_key(pair.public, f"{path}: public")
        check_key(pair.secret, f"{path}: secret")
        return pair

    def save(self, folder: Path) -> None:
        """Write the secret (mode 0600) and the public part, which the other node needs. Never overwrites a secret."""
        text = json.dumps({"public": self.public, "secret": self.secret})
        with os.fdopen(os.open(folder / SECRET_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
        (folder / PUBLIC_FILE).write_text(self.public + "\n")


def check_key(key: str, name: str) -> None:
    """Raise ReplicatorError unless `key` can be a CURVE key."""
    if len(key) != KEY_LENGTH:
        raise ReplicatorError(f"{name} = {key!r}: a CURVE key has {KEY_LENGTH} characters (Z85)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """`listen` and `peer` are HOST:PORT."""

    listen: str
    peer: str
    keys: KeyPair
    peer_public: str

    def __post_init__(self) -> None:
        for name in ("listen", "peer"):
            host, _, port = getattr(self, name).rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ReplicatorError(f"{name} = {getattr(self, name)!r}: must be HOST:PORT, port 1..65535")
        check_key(self.peer_public, "peer_public")


class Link:
    """Frames out, frames in. One thread."""

    def __init__(self, config: LinkConfig) -> None:
        """Bind and begin to connect. Raises ReplicatorError if the address cannot be had."""
        self._context = zmq.Context(io_threads=1)
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(credentials_provider=_OnlyThePeer(config.peer_public))
        self._in: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._out: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self.sent = self.received = self.dropped = 0
        for socket in (self._in, self._out):
            _prepare(socket, config.keys)
        self._in.curve_server = True
        self._in.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # A peer that comes back has the same identity: its new connection takes the place of the dead one.
        self._in.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._out.setsockopt(zmq.IDENTITY, config.keys.public.encode())
        self._out.curve_serverkey = config.peer_public.encode()
        try:
            self._in.bind(f"tcp://{config.listen}")
        except zmq.ZMQError as error:
            self.close()
            raise ReplicatorError(f"cannot listen on {config.listen} for the other node: {error}") from error
        self._out.connect(f"tcp://{config.peer}")

    @property
    def socket(self) -> Any:
        """What a zmq poller waits on for frames."""
        return self._in

    def send(self, frame: bytes) -> None:
        """Queue a frame, or drop it if the link is down or full."""
        try:
            self._out.send(frame, zmq.NOBLOCK)
            self.sent += 1
        except zmq.Again:
            self.dropped += 1

    def receive(self) -> bytes | None:
        """Return the next frame, None if there is none now."""
        try:
            parts = self._in.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        self.received += 1
        return parts[-1]

    def close(self) -> None:
        """End; what was sent last has a moment to leave."""
        self._in.close()
        self._out.close(linger=LINGER_MS)
        self._authenticator.stop()
        self._context.term()


class Waiter:
    """Waits for the link and for descriptors together."""

    def __init__(self, link: Link, *descriptors: int) -> None:
        self._poller = zmq.Poller()
        self._poller.register(link.socket, zmq.POLLIN)
        for descriptor in descriptors:
            self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, timeout_ms: int) -> set[int]:
        """Return the descriptors that are ready, at the latest after `timeout_ms`; the link's is not among them."""
        return {source for source, _ in self._poller.poll(timeout_ms) if isinstance(source, int)}


class _OnlyThePeer:
    """Says which public keys may connect: one."""

    def __init__(self, public: str) -> None:
        self._public = public.encode()

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public


def _prepare(socket: zmq.Socket[bytes], keys: KeyPair) -> None:
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()
    options = {
        zmq.LINGER: 0,  # but see close()
        zmq.IMMEDIATE: 1,
        zmq.SNDHWM: FRAMES_MAX,
        zmq.RCVHWM: FRAMES_MAX,
        zmq.MAXMSGSIZE: FRAME_BYTES_MAX,
        zmq.RECONNECT_IVL: RECONNECT_MS,
        zmq.RECONNECT_IVL_MAX: RECONNECT_MAX_MS,
        zmq.CONNECT_TIMEOUT: 500,
        zmq.HANDSHAKE_IVL: 1000,
        zmq.HEARTBEAT_IVL: PING_MS,
        zmq.HEARTBEAT_TIMEOUT: PING_TIMEOUT_MS,
    }
    for option, value in options.items():
        socket.setsockopt(option, value)
