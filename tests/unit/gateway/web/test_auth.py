"""What a signature covers, which forms are taken, and the time window."""

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from gateway.auth import hmac_secret
from gateway.web.auth import Verifier, check_time, payload, rsa_digest, socket_payload, socket_payload_encoded
from gateway.web.errors import ApiError
from gateway.web.reference import Key
from ringbuf.wire import messages as wire

SEAL = bytes(range(32))
SALT = bytes(range(32, 64))
NOW_US = 1_800_000_000_000_000


def hmac_key() -> tuple[Key, str]:
    secret = hmac_secret(SEAL, "KEY", SALT).hex()
    return Key("KEY", 1, 3, int(wire.CredentialType.HMAC_SHA256), SALT.hex()), secret


def hmac_of(secret: str, message: bytes) -> str:
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


@pytest.fixture
def verifier(tmp_path: Path) -> Verifier:
    return Verifier(SEAL, tmp_path)


def refused(verifier: Verifier, key: Key, signature: str, message: bytes) -> int:
    with pytest.raises(ApiError) as error:
        verifier.verify(key, signature, (message,))
    return error.value.code


def test_payload_is_query_then_body_without_the_signature() -> None:
    assert payload(b"a=1&signature=ff&b=2", b"c=3") == b"a=1&b=2c=3"
    assert payload(b"", b"a=1&signature=ff") == b"a=1"
    assert payload(b"xsignature=1", b"") == b"xsignature=1"


def test_hmac_is_taken_in_either_case_and_a_flipped_bit_is_not(verifier: Verifier) -> None:
    key, secret = hmac_key()
    good = hmac_of(secret, b"a=1")

    verifier.verify(key, good, (b"a=1",))
    verifier.verify(key, good.upper(), (b"a=1",))
    assert refused(verifier, key, good, b"a=2") == -1022
    assert refused(verifier, key, good[:-1] + ("0" if good[-1] != "0" else "1"), b"a=1") == -1022
    assert refused(verifier, key, "ünïcode", b"a=1") == -1022


def test_either_reading_of_percent_encoding_is_taken(verifier: Verifier) -> None:
    key, secret = hmac_key()

    verifier.verify(key, hmac_of(secret, b"s=[1]"), (b"s=%5B1%5D", b"s=[1]"))


def test_ed25519_and_rsa_are_base64_and_case_counts(verifier: Verifier, tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    key = Key("ED", 1, 3, int(wire.CredentialType.ED25519), private.public_key().public_bytes_raw().hex())
    good = base64.b64encode(private.sign(b"a=1")).decode()
    verifier.verify(key, good, (b"a=1",))
    assert refused(verifier, key, good.swapcase(), b"a=1") == -1022

    rsa = generate_private_key(public_exponent=65537, key_size=2048)
    pem = rsa.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "RSA.pem").write_bytes(pem)
    digest = rsa_digest(rsa.public_key()).hex()
    rsa_key = Key("RSA", 1, 3, int(wire.CredentialType.RSA), digest)
    signature = base64.b64encode(rsa.sign(b"a=1", padding.PKCS1v15(), hashes.SHA256())).decode()
    verifier.verify(rsa_key, signature, (b"a=1",))
    assert refused(verifier, rsa_key, signature, b"a=2") == -1022


def test_rsa_file_that_is_not_what_the_log_names_is_no_key(verifier: Verifier, tmp_path: Path) -> None:
    """The planted fault: somebody has put another public key into the folder."""
    rsa = generate_private_key(public_exponent=65537, key_size=2048)
    pem = rsa.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "RSA.pem").write_bytes(pem)
    key = Key("RSA", 1, 3, int(wire.CredentialType.RSA), "00" * 32)
    signature = base64.b64encode(rsa.sign(b"a=1", padding.PKCS1v15(), hashes.SHA256())).decode()

    assert refused(verifier, key, signature, b"a=1") == -1022


def test_socket_payload_is_sorted_and_booleans_are_lower_case() -> None:
    params = {"symbol": "BTCUSDT", "apiKey": "k", "signature": "x", "flag": True, "timestamp": 5}

    assert socket_payload(params) == b"apiKey=k&flag=true&symbol=BTCUSDT&timestamp=5"
    assert socket_payload_encoded({"s": "[1]"}) == b"s=%5B1%5D"


@pytest.mark.parametrize(
    ("sent_us", "window", "ok"),
    [
        (NOW_US, None, True),
        (NOW_US - 5_000_000, None, True),
        (NOW_US - 5_000_001, None, False),
        (NOW_US + 999_999, None, True),
        (NOW_US + 1_000_000, None, False),
        (NOW_US - 60_000_000, "60000", True),
        (NOW_US - 1500, "1.5", True),
        (NOW_US - 1501, "1.5", False),
    ],
)
def test_time_window_is_exact_in_microseconds(sent_us: int, window: str | None, ok: bool) -> None:
    if ok:
        assert check_time(str(sent_us), window, NOW_US) >= NOW_US
        return
    with pytest.raises(ApiError) as error:
        check_time(str(sent_us), window, NOW_US)
    assert error.value.code == -1021


def test_milliseconds_and_microseconds_are_told_apart() -> None:
    assert check_time(str(NOW_US // 1000), None, NOW_US) == check_time(str(NOW_US), None, NOW_US)


@pytest.mark.parametrize(
    ("timestamp", "window", "code"),
    [(None, None, -1102), ("", None, -1102), ("soon", None, -1100), ("1", "60001", -1131), ("1", "-5", -1100)],
)
def test_malformed_times_are_refused(timestamp: str | None, window: str | None, code: int) -> None:
    with pytest.raises(ApiError) as error:
        check_time(timestamp, window, NOW_US)
    assert error.value.code == code
