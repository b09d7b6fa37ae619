"""Logon authentication: what is signed, with what, and how fast one may guess.

The signature covers the frame's bytes from offset 6 (behind the length and encoding) up to the signature field. Ed25519
keys lie in the log as public keys. Of an HMAC key only a salt does: its secret follows from salt and seal key, a file
that is never part of the log, so that a copy of the log signs nothing.
"""

import hashlib
import hmac
from collections import deque
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ringbuf.wire.codec import FRAME_HEADER_SIZE
from ringbuf.wire.messages import CredentialType, Template

SIGNED_FROM = 6
SIGNATURE_SIZE = 64
HMAC_SIZE = 32
ACCESS_KEY_SIZE = 32
_SIGNATURE_OFFSET = {Template.NEGOTIATE: FRAME_HEADER_SIZE + 80, Template.ESTABLISH: FRAME_HEADER_SIZE + 78}
_TIMESTAMP_OFFSET = FRAME_HEADER_SIZE + 16
_ACCESS_KEY_OFFSET = {Template.NEGOTIATE: FRAME_HEADER_SIZE + 24, Template.ESTABLISH: FRAME_HEADER_SIZE + 46}
_HMAC_CONTEXT = b"bullring-hmac"


class BadSignature(Exception):
    """The signature of a logon is not that of its key."""


def hmac_secret(seal_key: bytes, access_key_id: str, salt: bytes) -> bytes:
    """Return the 32-byte secret of an HMAC key. `salt` is the 32-byte material in the log."""
    key_id = access_key_id.encode("utf-8", "surrogateescape").ljust(ACCESS_KEY_SIZE, b"\0")
    if len(key_id) != ACCESS_KEY_SIZE:
        raise ValueError(f"access key id {access_key_id!r}: must have at most {ACCESS_KEY_SIZE} bytes")
    return hmac.digest(seal_key, _HMAC_CONTEXT + key_id + salt, hashlib.sha256)


def signed_part(template: int, frame: bytes) -> bytes:
    """Return the bytes of a Negotiate or Establish frame that its signature covers."""
    return frame[SIGNED_FROM : _SIGNATURE_OFFSET[Template(template)]]


def logon_timestamp(frame: bytes) -> int:
    """Return the nonce of a Negotiate or Establish frame."""
    return int.from_bytes(frame[_TIMESTAMP_OFFSET : _TIMESTAMP_OFFSET + 8], "little")


def logon_key_id(template: int, frame: bytes) -> bytes:
    """Return the 32 zero-filled bytes of the access key id a logon frame names."""
    offset = _ACCESS_KEY_OFFSET[Template(template)]
    return frame[offset : offset + ACCESS_KEY_SIZE]


def verify(
    *, template: int, frame: bytes, credential: int, access_key_id: str, material: bytes, seal_key: bytes | None
) -> None:
    """Check a logon frame against its key. Raises BadSignature, also for a kind of key we cannot check."""
    offset = _SIGNATURE_OFFSET[Template(template)]
    signature = frame[offset : offset + SIGNATURE_SIZE]
    message = frame[SIGNED_FROM:offset]
    if credential == CredentialType.ED25519:
        try:
            Ed25519PublicKey.from_public_bytes(material).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise BadSignature("Ed25519") from error
        return
    if credential == CredentialType.HMAC_SHA256 and seal_key is not None:
        expected = hmac.digest(hmac_secret(seal_key, access_key_id, material), message, hashlib.sha256)
        if hmac.compare_digest(signature, expected.ljust(SIGNATURE_SIZE, b"\0")):
            return
    raise BadSignature(f"credential type {credential}")


class AttemptLimiter:
    """Refuses a guesser after too many bad logons, so that guessing costs time (5 in 60 s, then 60 s of nothing)."""

    def __init__(
        self, clock: Callable[[], float], *, attempts_max: int = 5, window_s: float = 60.0, guessers_max: int = 4096
    ) -> None:
        self._clock = clock
        self._attempts_max = attempts_max
        self._window_s = window_s
        self._guessers_max = guessers_max
        self._failures: dict[bytes, deque[float]] = {}

    def blocked(self, guesser: bytes) -> bool:
        failures = self._failures.get(guesser)
        if failures is None:
            return False
        self._expire(failures)
        if not failures:
            del self._failures[guesser]
        return len(failures) >= self._attempts_max

    def failed(self, guesser: bytes) -> None:
        """Note a bad attempt. Guessed keys fill the table too: when it is full the oldest entry makes room."""
        failures = self._failures.setdefault(guesser, deque(maxlen=self._attempts_max))
        failures.append(self._clock())
        if len(self._failures) > self._guessers_max:
            del self._failures[next(iter(self._failures))]

    def _expire(self, failures: deque[float]) -> None:
        oldest = self._clock() - self._window_s
        while failures and failures[0] <= oldest:
            failures.popleft()
