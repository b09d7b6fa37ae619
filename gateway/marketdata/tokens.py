"""Entitlement tokens of the market feed: a SoupBinTCP user name and password, checked offline (layout: token.h)."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntFlag

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
USER_SIZE, PASSWORD_SIZE, DAY_SIZE = 6, 10, 3
PROOF_SIZE = PASSWORD_SIZE - DAY_SIZE
SUBSCRIBER_MAX = (1 << 25) - 1
EPOCH = date(1970, 1, 1)
LAST_DAY = EPOCH + timedelta(days=(1 << 15) - 1)
_PURPOSE = b"bullring feed token"


class Entitlement(IntFlag):
    """What a token opens."""

    FULL = 1  # channels of whole books by order
    DERIVED = 2  # channels of levels, best prices, prints
    DEFINITIONS = 4  # the reference channel
    SNAPSHOTS = 8
    ALL = 15


@dataclass(frozen=True)
class Token:
    """What a client logs in with."""

    user: str
    password: str


@dataclass(frozen=True)
class Grant:
    """What a good token says."""

    subscriber: int
    entitlements: Entitlement
    last_day: date


def mint(key: bytes, *, subscriber: int, entitlements: Entitlement, last_day: date) -> Token:
    """Return a subscriber's token, good to the end of `last_day` (UTC). Raises ValueError naming field and limit."""
    if not 0 <= subscriber <= SUBSCRIBER_MAX:
        raise ValueError(f"subscriber = {subscriber}: must be 0 to {SUBSCRIBER_MAX}")
    if not 0 < entitlements <= Entitlement.ALL:
        raise ValueError(f"entitlements = {int(entitlements)}: must be 1 to {int(Entitlement.ALL)}")
    if not EPOCH <= last_day <= LAST_DAY:
        raise ValueError(f"last_day = {last_day}: must be {EPOCH} to {LAST_DAY}")
    user = _text(int(entitlements) << 25 | subscriber, USER_SIZE)
    day = _text((last_day - EPOCH).days, DAY_SIZE)
    return Token(user, day + _proof(key, user, day))


def check(key: bytes, token: Token, now: datetime | None = None) -> Grant | None:
    """Return what a token grants now, None if it is not ours or too old."""
    user, password = token.user.upper(), token.password.upper()
    if len(user) != USER_SIZE or len(password) != PASSWORD_SIZE or set(user + password) - set(ALPHABET):
        return None
    day = password[:DAY_SIZE]
    if not hmac.compare_digest(_proof(key, user, day), password[DAY_SIZE:]):
        return None
    last_day = EPOCH + timedelta(days=_number(day))
    if (now or datetime.now(UTC)).astimezone(UTC).date() > last_day:
        return None
    number = _number(user)
    return Grant(number & SUBSCRIBER_MAX, Entitlement(number >> 25 & int(Entitlement.ALL)), last_day)


def _proof(key: bytes, user: str, day: str) -> str:
    digest = hmac.digest(key, _PURPOSE + user.encode() + day.encode(), hashlib.sha256)
    return _text(int.from_bytes(digest[:5], "big") >> 5, PROOF_SIZE)


def _text(number: int, size: int) -> str:
    return "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(size)))


def _number(text: str) -> int:
    number = 0
    for character in text:
        number = number << 5 | ALPHABET.index(character)
    return number
