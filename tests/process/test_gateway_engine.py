"""Gateways, sequencer and matchers together: what a client and an operator see over real sockets."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clients import AdminClient, AdminError, BullringClient, Ed25519Signer, Report
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import (
    CancelReason,
    OrderAccepted,
    OrderCanceled,
    OrderExecuted,
    OrderRejected,
    OrderReplaced,
    RejectCode,
    Side,
    TimeInForce,
)
from scripts.native import binary
from tests.kit.engine_site import EngineSite
from tests.kit.trading import MONEY, ed25519_key, funded_account, hmac_key, market

SEAL = b"k" * 32


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EngineSite]:
    with EngineSite(tmp_path, partitions=2, seal_key=SEAL) as running:
        yield running


def trader(admin: AdminClient, key_id: str) -> tuple[int, Ed25519Signer]:
    """Make a funded account with a key and a session; return session id and signer."""
    account = funded_account(admin)
    return admin.session_create(account_id=account), ed25519_key(admin, account, key_id)


def client_of(site: EngineSite, session: int, signer: Ed25519Signer) -> BullringClient:
    return BullringClient([("127.0.0.1", site.port)], session_id=session, signer=signer)


async def take(client: BullringClient, count: int) -> list[WireMessage]:
    """Return the next `count` numbered reports' messages."""
    found: list[WireMessage] = []
    async for item in client.reports():
        assert isinstance(item, Report), item
        if item.seq_num:
            found.append(item.message)
        if len(found) == count:
            break
    return found


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_two_clients_trade_with_each_other(site: EngineSite) -> None:
    async def work(maker: BullringClient, taker: BullringClient, instrument: int) -> None:
        async with maker, taker:
            maker.new_order(instrument_id=instrument, side=Side.SELL, quantity=10, price=500, cl_ord_id=1)
            (accepted,) = await take(maker, 1)
            taker.new_order(instrument_id=instrument, side=Side.BUY, quantity=4, price=510, cl_ord_id=2)
            bought = await take(taker, 2)
            (sold,) = await take(maker, 1)
            maker.replace(instrument_id=instrument, order_id=accepted.order_id, price=505)  # type: ignore[attr-defined]
            (moved,) = await take(maker, 1)
            maker.cancel(instrument_id=instrument, order_id=accepted.order_id)  # type: ignore[attr-defined]
            (canceled,) = await take(maker, 1)
            balances = {row.asset_id: row.available + row.held for row in await taker.balances()}

            assert [type(message) for message in bought] == [OrderAccepted, OrderExecuted]
            assert isinstance(sold, OrderExecuted)
            assert (sold.last_px, sold.last_qty, sold.leaves_qty, sold.cl_ord_id) == (500, 4, 6, 1)
            assert isinstance(moved, OrderReplaced)
            assert isinstance(canceled, OrderCanceled)
            assert (canceled.cancel_reason, canceled.canceled_qty) == (CancelReason.CLIENT, 6)
            assert balances == {1: MONEY + 4 * 10_000, 2: MONEY - 4 * 500}

    with AdminClient(site.admin_path) as admin:
        instrument = market(admin)
        clients = [client_of(site, *trader(admin, name)) for name in ("MAKER", "TAKER")]
        run(work(*clients, instrument))


def test_refusals_are_numbered_reports_with_their_limit(site: EngineSite) -> None:
    async def work(client: BullringClient, instrument: int) -> None:
        async with client:
            client.new_order(instrument_id=instrument, side=Side.BUY, quantity=MONEY, price=500)
            client.new_order(instrument_id=instrument + 1, side=Side.BUY, quantity=1, price=500)
            client.new_order(instrument_id=instrument, side=Side.BUY, quantity=1, time_in_force=TimeInForce.DAY)
            refused = await take(client, 3)
            codes = [message.reject_code for message in refused if isinstance(message, OrderRejected)]
            assert codes[1:] == [RejectCode.UNKNOWN_INSTRUMENT, RejectCode.INVALID_TIME_IN_FORCE]
            assert codes[0] in (RejectCode.INSUFFICIENT_BALANCE, RejectCode.MAX_NOTIONAL)

    with AdminClient(site.admin_path) as admin:
        instrument = market(admin)
        run(work(client_of(site, *trader(admin, "ONE")), instrument))


def test_numbers_and_open_orders_survive_a_lost_connection(site: EngineSite) -> None:
    async def work(client: BullringClient, instrument: int) -> None:
        async with client:
            for number in range(1, 201):
                client.new_order(instrument_id=instrument, side=Side.BUY, quantity=1, price=100, cl_ord_id=number)
                if number % 50 == 25:
                    assert client._link is not None and client._link._transport is not None
                    client._link._transport.abort()
                await asyncio.sleep(0.001)
            accepted = await take(client, 200)
            assert [message.cl_ord_id for message in accepted] == list(range(1, 201))  # type: ignore[attr-defined]
            assert client.reconnects >= 3

    with AdminClient(site.admin_path) as admin:
        instrument = market(admin)
        session, signer = trader(admin, "ONE")
        run(work(client_of(site, session, signer), instrument))
        assert admin.accounts()[0].open_orders == 200


def test_session_of_another_account_is_refused(site: EngineSite) -> None:
    async def work(client: BullringClient) -> None:
        with pytest.raises(Exception, match="CREDENTIALS"):
            await client.start()
        await client.close()

    with AdminClient(site.admin_path) as admin:
        market(admin)
        session, _ = trader(admin, "ONE")
        _, stranger = trader(admin, "TWO")
        run(work(client_of(site, session, stranger)))


def test_operator_sees_refusals_with_code(site: EngineSite) -> None:
    with AdminClient(site.admin_path) as admin:
        admin.asset_add("BTC", exponent=-8)
        with pytest.raises(AdminError) as refused:
            admin.asset_add("BTC", exponent=-8)

    assert refused.value.code == RejectCode.ALREADY_EXISTS


def test_load_generator_gets_an_answer_to_every_request(site: EngineSite, tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    lines = []
    with AdminClient(site.admin_path) as admin:
        instrument = market(admin)
        for index in range(2):
            account, key_id = funded_account(admin), f"LOAD{index}"
            secret = hmac_key(admin, account, key_id, SEAL)
            lines.append(f"{admin.session_create(account_id=account)} {key_id} {secret.hex()}\n")
    sessions.write_text("".join(lines))

    command = [str(binary("loadgen")), "--address", f"127.0.0.1:{site.port}", "--sessions", str(sessions)]
    command += ["--instrument", str(instrument), "--window", "16", "--seconds", "1", "--warmup", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["unanswered"] == 0
    assert result["gaps"] == 0
    assert result["orders"] > 100
    assert result["fills"] > 0
    assert site.server.counters()["slow_consumers"] == 0
