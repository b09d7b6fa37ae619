"""How a client signs its logon: bytes 6 up to the signature field, by Ed25519 or HMAC-SHA256."""

import hashlib
import hmac
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ringbuf.wire.codec import FRAME_HEADER_SIZE, encode_frame
from ringbuf.wire.messages import CredentialType, Establish, Negotiate

SIGNED_FROM = 6
SIGNATURE_SIZE = 64
_SIGNATURE_OFFSET = {
    Negotiate.TEMPLATE_ID: FRAME_HEADER_SIZE + 80,
    Establish.TEMPLATE_ID: FRAME_HEADER_SIZE + 78,
}


class Signer(Protocol):
    """A key: its id, its kind, and what signs with it."""

    @property
    def access_key_id(self) -> str: ...

    @property
    def credential_type(self) -> CredentialType: ...

    def sign(self, message: bytes) -> bytes:
        """Return at most 64 bytes."""
        ...


class Ed25519Signer:
    """Signs with a private key that the exchange has never seen."""

    credential_type = CredentialType.ED25519

    def __init__(self, access_key_id: str, private_key: Ed25519PrivateKey) -> None:
        self.access_key_id = access_key_id
        self._private_key = private_key

    def sign(self, message: bytes) -> bytes:
        return self._private_key.sign(message)


class HmacSigner:
    """Signs with the 32-byte secret the exchange derived for this key."""

    credential_type = CredentialType.HMAC_SHA256

    def __init__(self, access_key_id: str, secret: bytes) -> None:
        self.access_key_id = access_key_id
        self._secret = secret

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self._secret, message, hashlib.sha256)


def load_signer(path: Path, access_key_id: str | None = None) -> Signer:
    """Read a key file: PEM = an Ed25519 private key, else the hex digits of an HMAC secret.

    The key id is the file's name without its ending unless given. Raises OSError, ValueError.
    """
    data = path.read_bytes()
    key_id = path.stem if access_key_id is None else access_key_id
    if not data.startswith(b"-----BEGIN"):
        return HmacSigner(key_id, bytes.fromhex(data.decode("ascii").strip()))
    key = serialization.load_pem_private_key(data, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: must hold an Ed25519 private key")
    return Ed25519Signer(key_id, key)


def signed_frame(message: Negotiate | Establish, signer: Signer, *, sending_time: int) -> bytes:
    """Return the frame with its signature in place."""
    frame = bytearray(encode_frame(message, sending_time=sending_time))
    offset = _SIGNATURE_OFFSET[message.TEMPLATE_ID]
    signature = signer.sign(bytes(frame[SIGNED_FROM:offset]))
    frame[offset : offset + SIGNATURE_SIZE] = signature.ljust(SIGNATURE_SIZE, b"\0")
    return bytes(frame)
