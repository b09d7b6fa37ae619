"""A small client of the web gateway for tests: signs with any kind of key, shows status, body and headers."""

import base64
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

TIMEOUT_S = 30.0


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> int:
        return int(self.body["code"])


class WebClient:
    """`key` is the JSON line of `bullring key create`; without one only public calls can be made."""

    def __init__(self, base: str, key: dict[str, Any] | None = None) -> None:
        self.base = base
        self.key = key or {}

    def sign(self, text: str) -> str:
        kind = self.key["kind"]
        if kind == "hmac-sha256":
            return hmac.new(self.key["api_secret"].encode(), text.encode(), hashlib.sha256).hexdigest()
        private = serialization.load_pem_private_key(self.key["api_secret"].encode(), password=None)
        if isinstance(private, Ed25519PrivateKey):
            return base64.b64encode(private.sign(text.encode())).decode()
        assert isinstance(private, RSAPrivateKey)
        return base64.b64encode(private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()

    def signed(self, params: dict[str, Any]) -> str:
        """Return the query of a signed call."""
        query = urllib.parse.urlencode({"timestamp": int(time.time() * 1000), **params})
        return f"{query}&signature={urllib.parse.quote(self.sign(query), safe='')}"

    def socket_params(self, **params: Any) -> dict[str, Any]:
        """Return parameters of a signed WebSocket API request."""
        full = {"apiKey": self.key["api_key"], "timestamp": int(time.time() * 1000), **params}
        text = "&".join(f"{name}={full[name]}" for name in sorted(full))
        return full | {"signature": self.sign(text)}

    def call(self, method: str, path: str, *, body: bool = False, **params: Any) -> Answer:
        """A signed call when there is a key, else a plain one."""
        query = self.signed(params) if self.key else urllib.parse.urlencode(params)
        return self.raw(method, path, "" if body else query, query.encode() if body else None)

    def raw(
        self, method: str, path: str, query: str = "", data: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        url = f"{self.base}{path}" + (f"?{query}" if query else "")
        own = {"X-MBX-APIKEY": self.key["api_key"]} if self.key else {}
        request = urllib.request.Request(url, data=data, method=method, headers={**own, **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return Answer(answer.status, json.loads(answer.read() or b"null"), dict(answer.headers))
        except urllib.error.HTTPError as error:
            return Answer(error.code, json.loads(error.read() or b"null"), dict(error.headers))
