"""Every order-entry message and every linked group from a client through the gateway to the engine and back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.clients import AdminClient, BullringClient, Ed25519Signer, LogonRefused, Order, Report
from gateway.clients.python import example
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage
from tests.kit.engine_site import EngineSite
from tests.kit.trading import BAND, MONEY, ed25519_key, funded_account, market

DEADLINE_S = 20.0
BUY, SELL = wire.Side.BUY, wire.Side.SELL
Work = Callable[["Desk"], Awaitable[None]]


class Desk:
    """A client, the instrument, and the reports of a request by its number."""

    def __init__(self, client: BullringClient, instrument: int, admin: AdminClient) -> None:
        self.client = client
        self.instrument = instrument
        self.admin = admin
        self.messages: list[WireMessage] = []

    def order(self, side: wire.Side, quantity: int, price: int | None = None, **terms: Any) -> Order:
        return Order(instrument_id=self.instrument, side=side, quantity=quantity, price=price, **terms)

    async def until(self, kind: type[WireMessage], **values: object) -> Any:
        """Read reports until one of this kind has these values; it may have come before."""

        def fits(message: WireMessage) -> bool:
            return isinstance(message, kind) and all(getattr(message, name) == value for name, value in values.items())

        for message in self.messages:
            if fits(message):
                return message
        reports = self.client.reports()
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    item = await anext(reports)
                    assert isinstance(item, Report), item
                    self.messages.append(item.message)
                    if fits(item.message):
                        return item.message
        except TimeoutError:
            raise AssertionError(f"no {kind.__name__} with {values}; there came {self.messages}") from None

    async def accepted(self, order: Order) -> wire.OrderAccepted:
        """Place and return the acceptance."""
        number = self.client.place(order)
        found = await self.until(wire.OrderAccepted, ref_seq_num=number)
        assert isinstance(found, wire.OrderAccepted)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EngineSite]:
    with EngineSite(tmp_path, partitions=2) as running:
        yield running


def trader(
    site: EngineSite,
    admin: AdminClient,
    *,
    kind: wire.SessionKind = wire.SessionKind.ORDER_ENTRY,
    account: int = 0,
    name: str = "KEY",
    permissions: wire.Permissions = wire.Permissions.READ | wire.Permissions.TRADE | wire.Permissions.DROP_COPY,
    session: int = 0,
) -> BullringClient:
    """Return a client of a new key; of a new account and a new session where none is named."""
    account = account or funded_account(admin)
    signer = ed25519_key(admin, account, f"{account}-{name}", permissions=permissions)
    session = session or admin.session_create(account_id=account, kind=kind)
    return BullringClient([("127.0.0.1", site.port)], session_id=session, signer=signer)


def on_desk(site: EngineSite, work: Work) -> None:
    async def trade() -> None:
        with AdminClient(site.admin_path) as admin:
            instrument = market(admin, **BAND)
            async with trader(site, admin) as client:
                await work(Desk(client, instrument, admin))

    asyncio.run(asyncio.wait_for(trade(), 2 * DEADLINE_S))


def test_every_type_and_time_in_force_is_taken(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        await desk.accepted(desk.order(SELL, 1, 500))
        await desk.accepted(desk.order(BUY, 1, 500))  # a trade: there is a last price now
        kinds = wire.OrdType
        terms = [
            desk.order(BUY, 2, 400, time_in_force=wire.TimeInForce.GTD, expire_time=4_000_000_000),
            desk.order(BUY, 2, 400, time_in_force=wire.TimeInForce.DAY),
            desk.order(BUY, 2, 400, post_only=True, reduce_only=True),
            desk.order(BUY, 9, 400, display_quantity=3, first_display_quantity=2, client_text="ice-1", cl_ord_id=77),
            desk.order(BUY, 2, ord_type=kinds.STOP, stop_price=600),
            desk.order(BUY, 2, 610, ord_type=kinds.STOP_LIMIT, stop_price=600),
            desk.order(BUY, 2, ord_type=kinds.TAKE_PROFIT, stop_price=450),
            desk.order(BUY, 2, 460, ord_type=kinds.TAKE_PROFIT_LIMIT, stop_price=450),
            desk.order(SELL, 2, ord_type=kinds.STOP, trailing_delta=500),
            desk.order(BUY, 1000, ord_type=kinds.MARKET, quote_amount=True, time_in_force=wire.TimeInForce.IOC),
            desk.order(BUY, 3, 400, min_quantity=3, time_in_force=wire.TimeInForce.IOC),
        ]
        answers = [await desk.accepted(order) for order in terms]
        waiting = [wire.OrdStatus.UNTRIGGERED if order.ord_type in range(3, 7) else 0 for order in terms]
        assert [int(answer.ord_status) for answer in answers] == [int(status) for status in waiting]
        unfilled = await desk.until(wire.OrderCanceled, cancel_reason=wire.CancelReason.MIN_QTY_NOT_FILLABLE)
        assert unfilled.order_id == answers[-1].order_id

    on_desk(site, work)


def test_a_trade_triggers_a_stop_and_an_iceberg_shows_slices(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        stop = await desk.accepted(desk.order(BUY, 1, 510, ord_type=wire.OrdType.STOP_LIMIT, stop_price=505))
        iceberg = await desk.accepted(desk.order(SELL, 5, 505, display_quantity=2))
        await desk.accepted(desk.order(BUY, 3, 505))
        triggered = await desk.until(wire.OrderTriggered)
        bought = await desk.until(wire.OrderExecuted, order_id=stop.order_id)
        status = await desk.until(
            wire.OrderStatus,
            ref_seq_num=desk.client.order_status(instrument_id=desk.instrument, order_id=iceberg.order_id),
        )
        assert triggered.order_id == stop.order_id
        assert bought.last_px == 505
        assert (status.cum_qty, status.leaves_qty, status.order_qty) == (4, 1, 5)

    on_desk(site, work)


def test_amend_cancel_replace_and_status(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        client, pair = desk.client, desk.instrument
        first = await desk.accepted(desk.order(BUY, 10, 400, cl_ord_id=5))
        amended = await desk.until(
            wire.OrderReplaced, ref_seq_num=client.amend(instrument_id=pair, orig_cl_ord_id=5, quantity=8)
        )
        assert (amended.order_qty, amended.priority_retained) == (8, 1)
        cancel, new = client.cancel_replace(desk.order(BUY, 4, 410, cl_ord_id=6), order_id=first.order_id)
        canceled = await desk.until(wire.OrderCanceled, ref_seq_num=cancel)
        replacement = await desk.until(wire.OrderAccepted, ref_seq_num=new)
        assert canceled.order_id == first.order_id
        assert replacement.cl_ord_id == 6
        restricted = client.cancel(instrument_id=pair, orig_cl_ord_id=6, flags=wire.CancelFlags.ONLY_PARTIALLY_FILLED)
        refused = await desk.until(wire.CancelReplaceReject, ref_seq_num=restricted)
        unknown = await desk.until(wire.OrderStatus, ref_seq_num=client.order_status(instrument_id=pair, order_id=9999))
        assert refused.reject_code == wire.RejectCode.CANCEL_RESTRICTED
        assert unknown.reject_code == wire.RejectCode.UNKNOWN_ORDER

    on_desk(site, work)


def test_order_lists_are_one_command(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        client = desk.client
        above = desk.order(SELL, 2, 600, post_only=True, client_text="take", cl_ord_id=1)
        below = desk.order(SELL, 2, ord_type=wire.OrdType.STOP, stop_price=400)
        numbers = client.place_list(wire.ListType.OCO, [above, below], list_cl_ord_id=42)
        started = await desk.until(wire.ListStatus, ref_seq_num=numbers[0])
        assert len(numbers) == 4  # OrderListRequest, OrderDetails, two orders
        assert (started.list_cl_ord_id, started.status_type) == (42, wire.ListStatusType.EXEC_STARTED)
        first = await desk.until(wire.OrderAccepted, ref_seq_num=numbers[2])
        await desk.until(wire.OrderAccepted, ref_seq_num=numbers[3], ord_status=wire.OrdStatus.UNTRIGGERED)
        client.cancel(instrument_id=desk.instrument, order_id=first.order_id)
        await desk.until(wire.OrderCanceled, cancel_reason=wire.CancelReason.LIST_CANCELED)
        await desk.until(wire.ListStatus, status_type=wire.ListStatusType.ALL_DONE, list_id=started.list_id)

        working = desk.order(BUY, 1, 450)
        otoco = client.place_list(wire.ListType.OTOCO, [working, above, below])
        for number in (otoco[1], otoco[3], otoco[4]):  # the third is OrderDetails, answered by its order
            await desk.until(wire.OrderAccepted, ref_seq_num=number)
        wrong = client.place_list(wire.ListType.OCO, [below, below])
        rejected = await desk.until(wire.ListStatus, ref_seq_num=wrong[0])
        assert rejected.order_status == wire.ListOrderStatus.REJECT

    on_desk(site, work)


def test_quotes_are_placed_kept_and_pulled(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        quote = desk.client.quote
        both = await desk.until(
            wire.QuoteAck, ref_seq_num=quote(instrument_id=desk.instrument, bid=(490, 5), ask=(510, 5), quote_id=3)
        )
        kept = await desk.until(
            wire.QuoteAck, ref_seq_num=quote(instrument_id=desk.instrument, bid=(490, 4), ask=None, quote_id=4)
        )
        crossed = await desk.until(
            wire.QuoteAck, ref_seq_num=quote(instrument_id=desk.instrument, bid=(500, 4), ask=(500, 4))
        )
        assert (both.quote_id, both.bid_status, both.ask_status) == (3, wire.OrdStatus.NEW, wire.OrdStatus.NEW)
        assert kept.bid_order_id == both.bid_order_id
        assert kept.ask_status == wire.OrdStatus.CANCELED
        assert crossed.bid_reject_code == wire.RejectCode.INVALID_QUOTE

    on_desk(site, work)


def test_mass_cancel_locks_the_account_until_unlocked(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        client = desk.client
        await desk.accepted(desk.order(BUY, 1, 400))
        account = wire.MassCancelScope.ACCOUNT
        lock = client.mass_cancel(scope=account, flags=wire.MassCancelFlags.LOCK_ENTRY)
        reports = [await desk.until(wire.MassCancelReport, ref_seq_num=lock, total_affected=count) for count in (0, 1)]
        assert len(reports) == 2  # one from each matcher
        refused = await desk.until(wire.OrderRejected, ref_seq_num=client.place(desk.order(BUY, 1, 400)))
        assert refused.reject_code == wire.RejectCode.ACCOUNT_LOCKED
        client.mass_cancel(scope=account, flags=wire.MassCancelFlags.UNLOCK_ENTRY)
        await desk.accepted(desk.order(BUY, 1, 400))
        firm = client.mass_cancel(scope=wire.MassCancelScope.FIRM)
        denied = await desk.until(wire.MassCancelReport, ref_seq_num=firm)
        assert denied.reject_code == wire.RejectCode.PERMISSION_DENIED

    on_desk(site, work)


def test_linked_frames_that_do_not_belong_together_are_refused_one_by_one(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        frames = desk.order(BUY, 1, 400).frames() + desk.order(BUY, 1, 401).frames()
        numbers = desk.client.send_group(frames)
        codes = [(await desk.until(wire.OrderRejected, ref_seq_num=number)).reject_code for number in numbers]
        assert codes == [wire.RejectCode.INVALID_GROUP] * 2
        alone = desk.client.send(wire.OrderDetails(client_text="x"))
        orphan = await desk.until(wire.BusinessReject, ref_seq_num=alone)
        assert orphan.reject_code == wire.RejectCode.INVALID_GROUP
        await desk.accepted(desk.order(BUY, 1, 400))

    on_desk(site, work)


def test_groups_survive_a_lost_connection(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        link = desk.client._link
        assert link is not None
        assert link._transport is not None
        link._transport.abort()
        legs = [
            desk.order(SELL, 1, 600, post_only=True),
            desk.order(SELL, 1, ord_type=wire.OrdType.STOP, stop_price=400),
        ]
        for _ in range(5):
            numbers = desk.client.place_list(wire.ListType.OCO, legs)
        await desk.until(wire.OrderAccepted, ref_seq_num=numbers[-1])
        while desk.admin.accounts()[0].open_orders != 10:
            await asyncio.sleep(0.01)

    on_desk(site, work)


def test_auction_states_and_schedule_reach_the_trader(site: EngineSite) -> None:
    async def work(desk: Desk) -> None:
        desk.admin.instrument_state(desk.instrument, wire.MarketState.AUCTION)
        buy = await desk.accepted(desk.order(BUY, 3, 505))
        await desk.accepted(desk.order(SELL, 2, 495))
        desk.admin.instrument_state(desk.instrument, wire.MarketState.CONTINUOUS)
        fill = await desk.until(wire.OrderExecuted, order_id=buy.order_id)
        assert (fill.liquidity, fill.last_qty) == (wire.Liquidity.AUCTION, 2)

    on_desk(site, work)


def test_a_drop_copy_sees_all_reports_of_its_account_and_asks_nothing(site: EngineSite) -> None:
    async def copied(copy: BullringClient, count: int) -> list[Report]:
        found: list[Report] = []
        async with asyncio.timeout(DEADLINE_S):
            async for item in copy.reports():
                assert isinstance(item, Report), item
                if item.seq_num:
                    found.append(item)
                if len(found) == count:
                    break
        return found

    async def trade() -> None:
        with AdminClient(site.admin_path) as admin:
            instrument = market(admin, **BAND)
            account = funded_account(admin)
            first, other = (trader(site, admin, account=account, name=name) for name in ("FIRST", "OTHER"))
            stranger = trader(site, admin)
            early = trader(site, admin, account=account, name="EARLY", kind=wire.SessionKind.DROP_COPY)
            async with first, other, stranger, early:
                first.new_order(instrument_id=instrument, side=SELL, quantity=2, price=500)
                first.new_order(instrument_id=instrument, side=SELL, quantity=MONEY, price=500)  # refused: partition 0
                other.new_order(instrument_id=instrument, side=SELL, quantity=2, price=501)
                stranger.new_order(instrument_id=instrument, side=BUY, quantity=3, price=501)
                live = await copied(early, 5)
                kinds = sorted(type(report.message).__name__ for report in live)
                assert kinds == ["OrderAccepted"] * 2 + ["OrderExecuted"] * 2 + ["OrderRejected"]
                assert {report.message.account_id for report in live} == {account}  # type: ignore[attr-defined]

                refused = early.new_order(instrument_id=instrument, side=BUY, quantity=1, price=1)
                async for item in early.reports():
                    if isinstance(item, Report) and isinstance(item.message, wire.BusinessReject):
                        assert (item.message.ref_seq_num, item.seq_num) == (refused, 0)
                        assert item.message.reject_code == wire.RejectCode.PERMISSION_DENIED
                        break

                # Who comes later asks for what was before: the same reports under the same numbers.
                late = trader(site, admin, account=account, name="LATE", kind=wire.SessionKind.DROP_COPY)
                async with late:
                    again = await copied(late, 5)
                    by_number = {(report.partition, report.seq_num): report.message for report in live}
                    assert {(report.partition, report.seq_num): report.message for report in again} == by_number
                    assert all(report.retransmitted for report in again)
                    await early.close()  # of two that read, the first one leaves
                    other.mass_cancel(scope=wire.MassCancelScope.ACCOUNT)
                    canceled = await copied(late, 3)
                    assert sum(isinstance(report.message, wire.OrderCanceled) for report in canceled) == 1

    asyncio.run(asyncio.wait_for(trade(), 3 * DEADLINE_S))


def test_a_drop_copy_needs_a_key_that_may(site: EngineSite) -> None:
    async def log_on() -> None:
        with AdminClient(site.admin_path) as admin:
            market(admin, **BAND)
            client = trader(
                site, admin, kind=wire.SessionKind.DROP_COPY, permissions=wire.Permissions.READ | wire.Permissions.TRADE
            )
            with pytest.raises(LogonRefused, match="CREDENTIALS"):
                await client.start()
            await client.close()

    asyncio.run(asyncio.wait_for(log_on(), DEADLINE_S))


def test_a_key_that_only_reads_does_not_take_over_a_session_that_trades(site: EngineSite) -> None:
    async def log_on() -> None:
        with AdminClient(site.admin_path) as admin:
            instrument = market(admin, **BAND)
            async with trader(site, admin) as client:
                session = client.session_id
                account = admin.sessions(session)[0].account_id
                reader = trader(
                    site, admin, account=account, name="READ", permissions=wire.Permissions.READ, session=session
                )
                with pytest.raises(LogonRefused, match="CREDENTIALS"):
                    await reader.start()
                await reader.close()
                desk = Desk(client, instrument, admin)
                await desk.accepted(desk.order(BUY, 1, 500))
                async with trader(site, admin, account=account, name="OWN", permissions=wire.Permissions.READ) as own:
                    assert await own.balances()

    asyncio.run(asyncio.wait_for(log_on(), DEADLINE_S))


def test_the_example_quotes_and_is_traded_with(
    site: EngineSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def trade() -> int:
        with AdminClient(site.admin_path) as admin:
            instrument = market(admin, **BAND)
            maker, taker = trader(site, admin, name="MAKER"), trader(site, admin, name="TAKER")
            secret = maker._signer
            assert isinstance(secret, Ed25519Signer)
            key_file = tmp_path / f"{secret.access_key_id}.pem"
            key_file.write_bytes(
                secret._private_key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
            words = [f"127.0.0.1:{site.port}", str(maker.session_id), str(key_file), "BTC-USD", "50", "3", "4"]
            quoting = asyncio.create_task(example.main(*words))
            async with taker:
                while len(await taker.open_orders()) == 0 and not quoting.done():
                    taker.new_order(
                        instrument_id=instrument, side=BUY, quantity=1, price=550, time_in_force=wire.TimeInForce.IOC
                    )
                    await asyncio.sleep(0.1)
                return await quoting

    fills = asyncio.run(asyncio.wait_for(trade(), 3 * DEADLINE_S))

    assert fills > 0
    assert "SELL 1 lots at 550" in capsys.readouterr().out
