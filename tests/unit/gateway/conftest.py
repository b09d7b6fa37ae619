"""A server on loopback with a fake exchange behind it."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from gateway.binary import BinaryServer, ServerConfig
from tests.kit.fake_exchange import FakeExchange, FakeSession, Loop
from tests.kit.raw_client import ed25519_key
from tests.kit.site import ACCOUNT, SESSION, MakeSite, Site


@pytest.fixture
def make_site() -> Iterator[MakeSite]:
    with ExitStack() as stack:

        def make(*, exchange: FakeExchange | None = None, seal_key: bytes | None = None, **limits: Any) -> Site:
            behind = exchange or FakeExchange()
            config = ServerConfig(source=2, partitions=behind.partitions, sessions_max=100, **limits)
            server = BinaryServer(config, seal_key=seal_key)
            behind.attach(server, 2)
            port = server.listen_tcp("127.0.0.1", 0)
            signer, known = ed25519_key("KEY", account=ACCOUNT)
            behind.keys["KEY"] = known
            behind.sessions[SESSION] = FakeSession(account=ACCOUNT)
            loop = stack.enter_context(Loop(behind, server))
            clients = stack.enter_context(ExitStack())
            return Site(behind, server, loop, port, signer, clients)

        yield make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site()
