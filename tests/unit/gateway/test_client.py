"""The asyncio client against the server: what it promises survives lost connections."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.clients import BullringClient, LogonRefused, Report, ReportGap, SessionLost
from gateway.clients.python.client import QueryRefused
from ringbuf.wire.messages import (
    KeyQuery,
    NegotiateRejectCode,
    OrderAccepted,
    OrderExecuted,
    Side,
    TerminateCode,
)
from tests.kit.fake_exchange import FakeExchange
from tests.kit.site import ACCOUNT, SESSION, MakeSite, Site


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def client_of(site: Site, **options: Any) -> BullringClient:
    return BullringClient([("127.0.0.1", site.port)], session_id=SESSION, signer=site.signer, **options)


async def numbered(client: BullringClient, count: int) -> list[Report]:
    """Return the next `count` numbered reports."""
    found: list[Report] = []
    async for item in client.reports():
        assert isinstance(item, Report), item
        if item.seq_num:
            found.append(item)
        if len(found) == count:
            break
    return found


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def test_orders_are_accepted_in_order(site: Site) -> None:
    async def work() -> None:
        async with client_of(site) as client:
            for _ in range(50):
                client.new_order(instrument_id=1, side=Side.BUY, quantity=1, price=10)
            reports = await numbered(client, 50)
            assert [report.seq_num for report in reports] == list(range(1, 51))
            assert [report.message.ref_seq_num for report in reports] == list(range(1, 51))  # type: ignore[attr-defined]

    run(work())


def test_queries_return_replies(site: Site) -> None:
    async def work() -> None:
        async with client_of(site) as client:
            (first, second) = await asyncio.gather(client.balances(), client.balances())
            assert first[0].available == second[0].available == 77
            assert first[0].account_id == ACCOUNT
            with pytest.raises(QueryRefused):
                await client.query(KeyQuery(request_id=99, access_key_id="KEY"))

    run(work())


def test_refused_logon_raises(site: Site) -> None:
    async def work() -> None:
        client = BullringClient([("127.0.0.1", site.port)], session_id=1, signer=site.signer)
        with pytest.raises(LogonRefused) as refused:
            await client.start()
        assert refused.value.code == NegotiateRejectCode.CREDENTIALS
        await client.close()

    run(work())


def test_nobody_listening_is_a_connection_error(site: Site) -> None:
    async def work() -> None:
        client = BullringClient([("127.0.0.1", 1)], session_id=SESSION, signer=site.signer)
        with pytest.raises(ConnectionError):
            await client.start()
        await client.close()

    run(work())


def test_second_address_is_tried_when_the_first_is_dead(site: Site) -> None:
    async def work() -> None:
        addresses = [("127.0.0.1", 1), ("127.0.0.1", site.port)]
        client = BullringClient(addresses, session_id=SESSION, signer=site.signer)
        await client.start()
        assert client.established
        await client.close()

    run(work())


def test_client_resumes_by_itself_and_nothing_is_lost_or_doubled(site: Site) -> None:
    """The link is cut again and again while orders are sent; each arrives once, each report is seen once."""
    orders = 120

    async def work() -> None:
        async with client_of(site) as client:
            for number in range(1, orders + 1):
                client.new_order(instrument_id=1, side=Side.BUY, quantity=1, price=10, cl_ord_id=number)
                if number % 20 == 0:
                    assert client._link is not None and client._link._transport is not None
                    client._link._transport.abort()
                await asyncio.sleep(0.002)
            reports = await numbered(client, orders)
            assert client.reconnects >= 3
            assert [report.seq_num for report in reports] == list(range(1, orders + 1))
            assert [report.message.cl_ord_id for report in reports] == list(range(1, orders + 1))  # type: ignore[attr-defined]

    run(work())
    assert [slot.seq_num for slot in _admitted(site)] == list(range(1, orders + 1))


def _admitted(site: Site) -> list[Any]:
    seen: dict[int, Any] = {}
    for slot in site.exchange.requests():
        seen.setdefault(slot.seq_num, slot)
    return [seen[number] for number in sorted(seen)]


def test_requests_of_a_dead_link_are_sent_after_the_reconnect(site: Site) -> None:
    async def work() -> None:
        async with client_of(site) as client:
            assert client._link is not None and client._link._transport is not None
            client._link._transport.abort()
            await until(lambda: not client.established)
            client.new_order(instrument_id=1, side=Side.SELL, quantity=2, price=10)
            (report,) = await numbered(client, 1)
            assert isinstance(report.message, OrderAccepted)
            assert client.reconnects == 1

    run(work())


def test_reports_missed_while_away_come_in_order_on_every_partition(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(partitions=2, report_slots=8192))

    def publish(first: int) -> None:
        for number in range(first, first + 1500):
            site.exchange.report(1 + number % 2, SESSION, OrderExecuted(trade_id=number))

    async def work() -> None:
        async with client_of(site) as client:
            site.loop.call(lambda: publish(0))
            await until(lambda: client.established)
            assert client._link is not None and client._link._transport is not None
            client._link._transport.abort()
            await until(lambda: not client.established)
            site.loop.call(lambda: publish(1500))
            reports = await numbered(client, 3000)
            for partition in (1, 2):
                trades = [r.message.trade_id for r in reports if r.partition == partition]  # type: ignore[attr-defined]
                assert trades == sorted(set(trades))
                assert len(trades) == 1500

    run(work())


def test_reports_that_are_gone_are_named_and_the_flow_goes_on(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(report_slots=64))

    async def work() -> None:
        async with client_of(site) as client:
            assert client._link is not None and client._link._transport is not None
            client._link._transport.abort()
            await until(lambda: not client.established)
            site.loop.call(lambda: [site.exchange.report(1, SESSION, OrderExecuted()) for _ in range(100)])
            items = []
            async for item in client.reports():
                if isinstance(item, ReportGap):
                    items.append(item)
                    break
            client.new_order(instrument_id=1, side=Side.BUY, quantity=1, price=1)
            (report,) = await numbered(client, 1)
            assert items == [ReportGap(partition=1, from_seq_num=1, count=100)]
            assert report.seq_num == 101

    run(work())


def test_superseded_client_does_not_fight_for_the_session(site: Site) -> None:
    async def work() -> None:
        old = client_of(site)
        await old.start()
        new = client_of(site)
        await new.connect()
        new.session_ver_id = old.session_ver_id
        await new.establish()
        with pytest.raises(SessionLost) as lost:
            async for _ in old.reports():
                pass
        assert lost.value.code == TerminateCode.SUPERSEDED
        await asyncio.sleep(0.2)
        assert new.established
        assert not old.established
        await old.close()
        await new.close()

    run(work())


def test_idle_session_is_kept_alive_by_both_sides(site: Site) -> None:
    async def work() -> None:
        async with client_of(site, keep_alive_ms=250) as client:
            await asyncio.sleep(1.2)
            assert client.established
            assert client.reconnects == 0

    run(work())
    assert site.server.counters()["keep_alive_lapsed"] == 0


def test_server_that_falls_silent_is_left(site: Site) -> None:
    async def work() -> None:
        async with client_of(site, keep_alive_ms=250) as client:
            stopped = asyncio.Event()
            loop = asyncio.get_running_loop()

            def hang() -> None:
                loop.call_soon_threadsafe(stopped.set)
                time.sleep(1.5)

            hanging = asyncio.to_thread(site.loop.call, hang)
            task = asyncio.create_task(hanging)
            await stopped.wait()
            await until(lambda: not client.established)
            await task
            await until(lambda: client.reconnects == 1)
            assert client.established

    run(work())
