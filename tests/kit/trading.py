"""What a test needs of an exchange before it can trade: a pair, funded accounts, keys that may log on."""

import secrets
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.auth import hmac_secret
from gateway.clients import AdminClient, Ed25519Signer
from ringbuf.wire.messages import CredentialType

MONEY = 1 << 50  # of each asset
BASE, QUOTE = 1, 2
# Prices of 250 to 750 are taken.
BAND = {"reference_px": 500, "band_up_bps": 5000, "band_down_bps": 5000}


def market(admin: AdminClient, *, partition: int = 0, **limits: int) -> int:
    """Make the first two assets and BTC-USD: a lot is 10,000 units of BTC, a tick of it 1 of USD. Return the pair."""
    assert (admin.asset_add("BTC", exponent=-8), admin.asset_add("USD", exponent=-2)) == (BASE, QUOTE)
    pair = admin.instrument_add(
        "BTC-USD",
        base_asset_id=BASE,
        quote_asset_id=QUOTE,
        price_exponent=0,
        qty_exponent=-4,
        quote_per_tick_lot=1,
        base_per_lot=10_000,
        partition=partition,
    )
    admin.instrument_limits(pair, **limits)
    return pair


def funded_account(admin: AdminClient) -> int:
    """Make an account that has MONEY of both assets."""
    account = admin.account_create()
    for asset in (BASE, QUOTE):
        admin.balance_adjust(account_id=account, asset_id=asset, amount=MONEY)
    return account


def ed25519_key(admin: AdminClient, account: int, key_id: str, **terms: Any) -> Ed25519Signer:
    """Register a new key; return what signs with it."""
    private = Ed25519PrivateKey.generate()
    admin.key_create(key_id, account_id=account, material=private.public_key().public_bytes_raw(), **terms)
    return Ed25519Signer(key_id, private)


def hmac_key(admin: AdminClient, account: int, key_id: str, seal_key: bytes) -> bytes:
    """Register a new key; return its secret."""
    salt = secrets.token_bytes(32)
    admin.key_create(key_id, account_id=account, material=salt, credential_type=CredentialType.HMAC_SHA256)
    return hmac_secret(seal_key, key_id, salt)
