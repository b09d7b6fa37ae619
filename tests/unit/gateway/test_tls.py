"""The TLS relay in front of a server: TLS 1.3 and nothing less, bytes unchanged, bounded."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.binary.tls import TlsConfig, TlsRelay
from gateway.clients import BullringClient, Report
from gateway.errors import GatewayConfigError
from ringbuf.wire.messages import OrderAccepted, Side
from tests.kit.certificate import make_certificate
from tests.kit.site import SESSION, Site
from tests.kit.waiting import eventually


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


def config_of(folder: Path, target: int, **values: Any) -> TlsConfig:
    certificate, key = make_certificate(folder)
    return TlsConfig(
        host="127.0.0.1",
        port=0,
        certificate=certificate,
        key=key,
        target_host="127.0.0.1",
        target_port=target,
        **values,
    )


@contextmanager
def relay(config: TlsConfig) -> Iterator[int]:
    """Run a relay on a thread of its own; yield its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = TlsRelay(config)
    try:
        yield asyncio.run_coroutine_threadsafe(made.start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(made.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_a_client_trades_through_tls_and_its_session_survives_a_cut(site: Site, tmp_path: Path) -> None:
    async def work(port: int, certificate: Path) -> None:
        client = BullringClient(
            [("127.0.0.1", port)], session_id=SESSION, signer=site.signer, tls=trusting(certificate)
        )
        async with client:
            for number in range(300):
                client.new_order(instrument_id=1, side=Side.BUY, quantity=1, price=10, cl_ord_id=number + 1)
                if number == 100:
                    assert client._link is not None
                    assert client._link._transport is not None
                    client._link._transport.abort()
            accepted = 0
            async for item in client.reports():
                assert isinstance(item, Report)
                accepted += isinstance(item.message, OrderAccepted)
                if accepted == 300:
                    return

    config = config_of(tmp_path, site.port)
    with relay(config) as port:
        asyncio.run(asyncio.wait_for(work(port, config.certificate), 30))
    eventually(lambda: site.server.counters()["open"] == 0)


def test_tls_1_2_and_plain_bytes_are_refused(site: Site, tmp_path: Path) -> None:
    config = config_of(tmp_path, site.port)
    context = trusting(config.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with relay(config) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="127.0.0.1")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"\xb0\0\0\0\x50\xeb" + b"\0" * 64)
            received = b""
            try:
                while data := plain.recv(4096):
                    received += data
            except ConnectionResetError:
                pass
    assert len(received) < 64  # at most a TLS alert: nothing of ours
    assert site.server.counters()["accepted"] == 0


def test_more_clients_than_there_is_room_for_are_closed(site: Site, tmp_path: Path) -> None:
    config = config_of(tmp_path, site.port, connections_max=1)
    context = trusting(config.certificate)
    with relay(config) as port:
        first = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="127.0.0.1")
        eventually(lambda: site.server.counters()["open"] == 1)
        second = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="127.0.0.1")
        with suppress(ConnectionError):
            assert second.recv(1) == b""
        first.close()
        second.close()


def test_a_server_that_is_away_ends_the_connection(tmp_path: Path) -> None:
    config = config_of(tmp_path, 1)
    context = trusting(config.certificate)
    with relay(config) as port:
        client = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="127.0.0.1")
        with suppress(ConnectionError):
            assert client.recv(1) == b""
        client.close()


def test_files_that_are_no_certificate_are_named(tmp_path: Path) -> None:
    config = config_of(tmp_path, 1)
    config.key.write_text("no key")
    with pytest.raises(GatewayConfigError, match="certificate"):
        config.context()
    with pytest.raises(GatewayConfigError, match="target_port = 65536"):
        config_of(tmp_path, 65536)
