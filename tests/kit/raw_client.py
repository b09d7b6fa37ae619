"""A blocking socket that speaks frames and nothing more: it may send what no real client would."""

import socket
import time
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.clients.python.signing import Ed25519Signer, Signer, signed_frame
from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import FrameHeader, FrameReader, decode_block, encode_frame
from ringbuf.wire.messages import (
    CredentialType,
    Establish,
    EstablishAck,
    KeyReply,
    Negotiate,
    NegotiateResponse,
    Permissions,
)

DEADLINE_S = 5.0


class RawClient:
    def __init__(self, port: int, *, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S, source_address=(source, 0))
        self._reader = FrameReader()
        self._frames: list[tuple[FrameHeader, WireMessage]] = []

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, message: WireMessage, *, seq_num: int = 0, flags: int = 0, partition: int = 0) -> None:
        self.raw(encode_frame(message, seq_num=seq_num, flags=flags, partition=partition))

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[FrameHeader, WireMessage]:
        """Return the next frame. Raises EOFError when the server has closed, TimeoutError when nothing comes."""
        while not self._frames:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            for header, block in self._reader.raw(data):
                self._frames.append((header, decode_block(header.template_id, header.block_length, block)))
        return self._frames.pop(0)

    def message(self) -> WireMessage:
        return self.receive()[1]

    def closed(self) -> bool:
        """Whether the server closes without another frame."""
        try:
            self.receive()
        except EOFError:
            return True
        except ConnectionResetError:
            return True
        return False

    def negotiate(self, signer: Signer, session_id: int, *, version: int = 1, stamp: int | None = None) -> WireMessage:
        message = Negotiate(
            session_id=session_id,
            credential_type=signer.credential_type,
            session_ver_id=version,
            timestamp=time.time_ns() if stamp is None else stamp,
            access_key_id=signer.access_key_id,
        )
        self.raw(signed_frame(message, signer, sending_time=0))
        return self.message()

    def establish(
        self,
        signer: Signer,
        session_id: int,
        *,
        version: int = 1,
        next_seq: int = 1,
        keep_alive_ms: int = 60_000,
        recover_from: int = 0,
    ) -> WireMessage:
        message = Establish(
            session_id=session_id,
            keep_alive_interval_ms=keep_alive_ms,
            session_ver_id=version,
            timestamp=time.time_ns(),
            next_seq_no=next_seq,
            recover_from_seq_no=recover_from,
            credential_type=signer.credential_type,
            access_key_id=signer.access_key_id,
        )
        self.raw(signed_frame(message, signer, sending_time=0))
        return self.message()

    def log_on(self, signer: Signer, session_id: int, *, version: int = 1, partitions: int = 1) -> EstablishAck:
        """Negotiate, establish, and take the SessionBound of every matcher."""
        answer = self.negotiate(signer, session_id, version=version)
        assert isinstance(answer, NegotiateResponse), answer
        ack = self.establish(signer, session_id, version=version)
        assert isinstance(ack, EstablishAck), ack
        for _ in range(partitions):
            self.message()
        return ack


def ed25519_key(key_id: str, *, account: int, permissions: int = 3) -> tuple[Ed25519Signer, KeyReply]:
    """Return a new key: what signs with it, and what the exchange knows of it."""
    private = Ed25519PrivateKey.generate()
    known = KeyReply(
        access_key_id=key_id,
        material=private.public_key().public_bytes_raw(),
        account_id=account,
        permissions=Permissions(permissions),
        credential_type=CredentialType.ED25519,
    )
    return Ed25519Signer(key_id, private), known
