"""One gateway on loopback with a fake exchange behind it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from gateway.binary import BinaryServer
from gateway.clients import Ed25519Signer
from tests.kit.fake_exchange import FakeExchange, Loop
from tests.kit.raw_client import RawClient, ed25519_key

SESSION, ACCOUNT = 5, 7


@dataclass
class Site:
    """One running server, its exchange, and a key that may log on to SESSION."""

    exchange: FakeExchange
    server: BinaryServer
    loop: Loop
    port: int
    signer: Ed25519Signer
    stack: ExitStack

    def client(self, *, source: str = "127.0.0.1") -> RawClient:
        return self.stack.enter_context(RawClient(self.port, source=source))

    def logged_on(self, version: int = 1) -> RawClient:
        client = self.client()
        client.log_on(self.signer, SESSION, version=version, partitions=self.exchange.partitions)
        return client

    def key(self, key_id: str, *, account: int = ACCOUNT, permissions: int = 3) -> Ed25519Signer:
        signer, known = ed25519_key(key_id, account=account, permissions=permissions)
        self.exchange.keys[key_id] = known
        return signer


MakeSite = Callable[..., Site]
