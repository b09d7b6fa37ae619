"""A recorded session in the eyes of others: tshark reads it, and each client reads what the other one got."""

import asyncio
import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clients import AdminClient, BullringClient, Order, Report
from ringbuf.wire import messages as wire
from ringbuf.wire.codec import FrameReader, decode_block
from tests.kit.engine_site import EngineSite
from tests.kit.trading import BAND, market
from tests.process.test_gateway_messages import trader
from tests.unit.ringbuf.test_dissector import CLIENT_PORT, OE_PORT, TSHARK, fields, folder, ip_packet, tshark

REPO = Path(__file__).resolve().parents[2]
needs_tshark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed (nor named by TSHARK)")
__all__ = ["folder"]


class Tap:
    """A relay to the gateway that keeps what passes: (from the client?, bytes)."""

    def __init__(self, target: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.passed: list[tuple[bool, bytes]] = []
        self._lock = threading.Lock()
        self._target = target
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        other = threading.Thread(target=self._pump, args=(server, client, False), daemon=True)
        other.start()
        self._pump(client, server, True)
        other.join()

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        try:
            while data := source.recv(65536):
                with self._lock:
                    self.passed.append((from_client, data))
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[list[tuple[bool, bytes]]]:
    """A session with every request and most reports, as it passed over the wire."""

    async def trade(admin: AdminClient, site: EngineSite, tap: Tap) -> None:
        instrument = market(admin, **BAND)
        client = trader(site, admin)
        client._addresses = [("127.0.0.1", tap.port)]
        async with client:
            await everything(client, instrument)

    with EngineSite(tmp_path) as site, AdminClient(site.admin_path) as admin:
        tap = Tap(site.port)
        asyncio.run(asyncio.wait_for(trade(admin, site, tap), 60))
        tap.close()
    yield tap.passed


async def everything(client: BullringClient, instrument: int) -> None:
    def order(side: wire.Side, quantity: int, price: int | None, **terms: object) -> Order:
        return Order(instrument_id=instrument, side=side, quantity=quantity, price=price, **terms)  # type: ignore[arg-type]

    client.place(order(wire.Side.SELL, 5, 500, cl_ord_id=1, display_quantity=2, client_text="ice"))
    client.place(order(wire.Side.BUY, 2, 500, cl_ord_id=2))
    client.quote(instrument_id=instrument, bid=(490, 5), ask=(520, 5), quote_id=7)
    legs = [
        order(wire.Side.SELL, 1, 600, post_only=True),
        order(wire.Side.SELL, 1, None, ord_type=wire.OrdType.STOP, stop_price=450),
    ]
    client.place_list(wire.ListType.OCO, legs)
    client.amend(instrument_id=instrument, orig_cl_ord_id=1, quantity=4)
    client.replace(instrument_id=instrument, orig_cl_ord_id=1, price=501)
    client.order_status(instrument_id=instrument, orig_cl_ord_id=1)
    client.cancel_replace(order(wire.Side.SELL, 3, 505, cl_ord_id=9), orig_cl_ord_id=1)
    client.cancel(instrument_id=instrument, order_id=12345)
    await client.balances()
    last = client.mass_cancel(scope=wire.MassCancelScope.ACCOUNT)
    async for item in client.reports():
        if isinstance(item, Report) and isinstance(item.message, wire.MassCancelReport):
            assert item.message.ref_seq_num == last
            return


def frames(passed: list[tuple[bool, bytes]], *, from_client: bool) -> list[tuple[int, object]]:
    reader = FrameReader()
    data = b"".join(part for side, part in passed if side is from_client)
    return [
        (header.seq_num, decode_block(header.template_id, header.block_length, block))
        for header, block in reader.raw(data)
    ]


@needs_tshark
def test_tshark_reads_every_frame_of_a_session(recorded: list[tuple[bool, bytes]], folder: Path) -> None:
    positions = {True: 1, False: 1}
    packets = []
    for from_client, data in recorded:
        for start in range(0, len(data), 1400):  # segments, with no regard for frames
            part = data[start : start + 1400]
            ports = (CLIENT_PORT, OE_PORT) if from_client else (OE_PORT, CLIENT_PORT)
            header = struct.pack(
                ">HHIIBBHHH", *ports, positions[from_client], positions[not from_client], 0x50, 0x18, 8192, 0, 0
            )
            packets.append(ip_packet(6, header + part))
            positions[from_client] += len(part)

    bad = tshark(folder, packets, "-Y", "_ws.malformed || _ws.lua.error || _ws.expert.severity == 8388608")
    rows = tshark(folder, packets, *fields("bullring_oe.template_id"))
    seen = [int(value) for row in rows for value in row.split(",") if value.strip()]
    sent = [
        message.TEMPLATE_ID  # type: ignore[attr-defined]
        for side in (True, False)
        for _, message in frames(recorded, from_client=side)
    ]

    assert bad == []
    assert sorted(seen) == sorted(sent)
    for kind in (
        wire.Quote,
        wire.OrderListRequest,
        wire.OrderAmendRequest,
        wire.OrderStatus,
        wire.QuoteAck,
        wire.ListStatus,
    ):
        assert kind.TEMPLATE_ID in seen, kind.__name__


def test_the_c_client_reads_what_the_python_client_got(recorded: list[tuple[bool, bytes]], tmp_path: Path) -> None:
    program = tmp_path / "reader"
    command = ["cc", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-I", "gateway/clients/c", "-I", "ringbuf/include"]
    command += ["tests/kit/capture_reader.c", "-o", str(program)]
    built = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    stream = tmp_path / "stream"
    stream.write_bytes(b"".join(part for side, part in recorded if not side))

    done = subprocess.run([str(program), str(stream)], capture_output=True, text=True, timeout=60, check=True)

    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    wanted = [
        (message.TEMPLATE_ID, number)  # type: ignore[attr-defined]
        for number, message in frames(recorded, from_client=False)
    ]
    session = {kind.TEMPLATE_ID for kind in (wire.NegotiateResponse, wire.EstablishAck, wire.Sequence, wire.Terminate)}
    assert rows == [row for row in wanted if row[0] not in session]
    assert len(rows) > 20
