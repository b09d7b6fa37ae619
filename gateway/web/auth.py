"""Who sent a request: HMAC-SHA256, Ed25519 or RSA signatures over the bytes as received, and the time window.

An HMAC key signs with its secret's text, the 64 hex digits `bullring key create` prints (the binary protocol uses the
32 bytes they stand for). Of an RSA key the log holds the SHA-256 of the public key; the key itself lies in a file named
after the access key, and a file whose digest is another is no key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.auth import hmac_secret
from gateway.web.errors import TIME_AHEAD, TIME_OUTSIDE, UNAUTHORIZED, ApiError, missing
from gateway.web.reference import Key
from ringbuf.wire import messages as wire

RECV_WINDOW_MS = 5000
RECV_WINDOW_MS_MAX = 60000
AHEAD_MS_MAX = 1000
MICROSECONDS_FROM = 10**14  # a time above this is in us, below in ms
RSA_BITS_MIN, RSA_BITS_MAX = 2048, 4096
KEYS_MAX = 10_000
_RECV_WINDOW = re.compile(r"^[0-9]{1,5}(\.[0-9]{1,3})?$")
_TIMESTAMP = re.compile(r"^[0-9]{1,19}$")
_SIGNATURE = b"signature="
BLOCK_BYTES = 64  # of SHA-256
_Halves = tuple["hashlib._Hash", "hashlib._Hash"]


@dataclass(frozen=True, slots=True)
class Signed:
    """A request whose signature is good. `deadline_us`: it may not be applied after that, us since the epoch."""

    key: Key
    deadline_us: int


def invalid_key() -> ApiError:
    return ApiError(-2014, "API-key format invalid.", status=UNAUTHORIZED)


def not_permitted() -> ApiError:
    return ApiError(-2015, "Invalid API-key, IP, or permissions for action.", status=UNAUTHORIZED)


def bad_signature() -> ApiError:
    return ApiError(-1022, "Signature for this request is not valid.")


def payload(query: bytes, body: bytes) -> bytes:
    """Return what a REST signature covers: query and body as received, each without its `signature`."""
    return _unsigned(query) + _unsigned(body)


def _unsigned(raw: bytes) -> bytes:
    if _SIGNATURE not in raw:
        return raw
    return b"&".join(part for part in raw.split(b"&") if not part.startswith(_SIGNATURE))


def socket_payload(params: Mapping[str, Any]) -> bytes:
    """Return what a WebSocket API signature covers: sorted `k=v` joined by `&`, without `signature`."""
    pairs = sorted((name, value) for name, value in params.items() if name != "signature")
    return "&".join(f"{name}={_text(value)}" for name, value in pairs).encode()


def socket_payload_encoded(params: Mapping[str, Any]) -> bytes:
    """Return the same percent-encoded, as some libraries sign it."""
    pairs = sorted((name, _text(value)) for name, value in params.items() if name != "signature")
    return urllib.parse.urlencode(pairs).encode()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Verifier:
    """Checks signatures; keeps what it has derived from a key's material."""

    def __init__(self, seal_key: bytes, keys_path: Path) -> None:
        self._seal_key = seal_key
        self._keys_path = keys_path
        self._secrets: dict[tuple[str, str], _Halves] = {}
        self._public: dict[tuple[str, str], Ed25519PublicKey | RSAPublicKey | None] = {}

    def verify(self, key: Key, signature: str, payloads: tuple[bytes, ...]) -> None:
        """Raise ApiError -1022 unless the signature is the key's over one of the payloads."""
        for each in payloads:
            if self._matches(key, signature, each):
                return
        raise bad_signature()

    def _matches(self, key: Key, signature: str, message: bytes) -> bool:
        if key.credential == wire.CredentialType.HMAC_SHA256:
            inner, outer = (each.copy() for each in self._secret(key))
            inner.update(message)
            outer.update(inner.digest())
            return hmac.compare_digest(outer.hexdigest().encode(), signature.lower().encode())
        public = self._public_key(key)
        if public is None:
            return False
        try:
            raw = base64.b64decode(signature.replace(" ", "+"), validate=True)
            if isinstance(public, RSAPublicKey):
                public.verify(raw, message, padding.PKCS1v15(), hashes.SHA256())
            else:
                public.verify(raw, message)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    def _secret(self, key: Key) -> _Halves:
        place = (key.id, key.material)
        if place not in self._secrets:
            _make_room(self._secrets)
            secret = hmac_secret(self._seal_key, key.id, bytes.fromhex(key.material)).hex().encode()
            self._secrets[place] = _halves(secret)
        return self._secrets[place]

    def _public_key(self, key: Key) -> Ed25519PublicKey | RSAPublicKey | None:
        place = (key.id, key.material)
        if place not in self._public:
            _make_room(self._public)
            material = bytes.fromhex(key.material)
            if key.credential == wire.CredentialType.RSA:
                self._public[place] = load_rsa(self._keys_path / f"{key.id}.pem", material)
            else:
                self._public[place] = Ed25519PublicKey.from_public_bytes(material)
        return self._public[place]


def _halves(secret: bytes) -> _Halves:
    """Return both hashes of HMAC (RFC 2104) with the key already in them: a signature costs what its message costs."""
    assert len(secret) <= BLOCK_BYTES  # longer keys would have to be hashed first
    padded = secret.ljust(BLOCK_BYTES, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ mask for byte in padded)) for mask in (0x36, 0x5C))
    return inner, outer


def _make_room(cache: dict[Any, Any]) -> None:
    if len(cache) >= KEYS_MAX:
        cache.clear()


def load_rsa(path: Path, digest: bytes) -> RSAPublicKey | None:
    """Return the public key in the file if its digest is that of the log."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        return None
    return key if isinstance(key, RSAPublicKey) and rsa_digest(key) == digest else None


def rsa_digest(key: RSAPublicKey) -> bytes:
    """Return what the log keeps of an RSA public key: SHA-256 of its DER form."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


# --- time -----------------------------------------------------------------------------------------------------------


def to_us(value: int) -> int:
    """Return a time parameter, in ms or us, in us."""
    return value if value >= MICROSECONDS_FROM else value * 1000


def check_time(timestamp: str | None, recv_window: str | None, now_us: int) -> int:
    """Return the deadline in us. Raises ApiError when the request is outside of its window."""
    if not timestamp:
        raise missing("timestamp")
    if not _TIMESTAMP.match(timestamp):
        raise ApiError(-1100, "Illegal characters found in parameter 'timestamp'; legal range is '^[0-9]{1,19}$'.")
    window_ms = RECV_WINDOW_MS if not recv_window else _window_ms(recv_window)
    sent_us = to_us(int(timestamp))
    details = {"serverTime": now_us // 1000, "skewMs": (sent_us - now_us) // 1000}
    if sent_us >= now_us + AHEAD_MS_MAX * 1000:
        raise ApiError(-1021, TIME_AHEAD, details=details)
    deadline_us = sent_us + int(window_ms * 1000)
    if now_us > deadline_us:
        raise ApiError(-1021, TIME_OUTSIDE, details=details)
    return deadline_us


def _window_ms(text: str) -> float:
    if not _RECV_WINDOW.match(text):
        legal = r"^[0-9]{1,5}(\.[0-9]{1,3})?$"
        raise ApiError(-1100, f"Illegal characters found in parameter 'recvWindow'; legal range is '{legal}'.")
    if float(text) > RECV_WINDOW_MS_MAX:
        raise ApiError(-1131, f"recvWindow must be less than or equal to {RECV_WINDOW_MS_MAX}.")
    return float(text)
