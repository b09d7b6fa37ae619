"""Send a recording through the binary gateway and collect what comes back.

Who sends: orders that traded as aggressor belong to one account, all others to another, so that fills move money
between two owners; orders of which the venue prevented a self-match belong to an account of their own for each such
group, whose takers use the mode cancel-maker, and the venue's own cancels of them are left out. The resting account
uses two sessions in turns of BLOCK commands, every other account one. A set that begins with a call auction is sent
to a market in Auction, and its `uncross` is the change to Continuous. Between
two commands of different connections stands a barrier (everything sent so far is answered), because nothing else
orders two TCP streams; within a connection up to WINDOW commands are unanswered. So the exchange sequences them in
file order.

The book is not asked for: it is rebuilt from the market-data ring, which this process maps read-only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.clients import BullringClient, Ed25519Signer, Order, Report, ReportGap
from gateway.marketdata.book_builder import SLOT_SIZE, BookBuilder, BookError
from ringbuf import Lapped, Ring
from ringbuf.wire import messages as wire
from scripts.admin.account import create_account, credit
from scripts.admin.asset import add_asset
from scripts.admin.instrument import PRICE_TICKS_MAX, Pair, add_pair, set_state
from scripts.admin.key import create_ed25519_key
from scripts.admin.link import AdminLink
from scripts.admin.session import create_session
from scripts.exit_codes import CommandError, ExitCode
from scripts.flow.comparison import Comparison, Execution
from scripts.flow.recording import RESTING, TAKING, BookState, Command, Recording, funds_needed
from scripts.node import MARKET_SLOT_SIZE, Node

BASE, QUOTE = "RFLOT", "RFMONEY"
UNIT_EXPONENT = -8
RESTING_SESSIONS = 2
BLOCK = 1000
WINDOW = 512
YIELD_EVERY = 32
ANSWER_WAIT_S = 20.0
BOOK_WAIT_S = 2.0
SETTLE_S = 0.002
READ_SLOTS = 4096
CLEAN_UP_LOOK_S = 0.05
NO_CHANGE = wire.RejectCode.REPLACE_NO_CHANGE
ANSWERS = (
    wire.OrderAccepted, wire.OrderReplaced, wire.OrderRejected, wire.CancelReplaceReject, wire.OrderStatus
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """What was created for one run."""

    instrument: int
    partition: int
    owners: dict[int, int]  # recorded order id -> owner
    accounts: dict[int, int]  # by owner
    funds: dict[int, tuple[int, int]]
    sessions: tuple[tuple[int, Ed25519Signer], ...]  # the resting account's, then one for each further owner
    assets: tuple[wire.AssetReply, wire.AssetReply]


def prepare(link: AdminLink, node: Node, recording: Recording) -> Stage:
    """Create a fresh instrument without fees, funded accounts, sessions and keys that are never stored."""
    known = link.assets()
    for symbol in (BASE, QUOTE):
        if symbol not in known:
            add_asset(link, symbol, UNIT_EXPONENT)
    base, quote = link.asset(BASE), link.asset(QUOTE)
    symbol = f"RF-{time.time_ns():X}"
    pair = Pair(symbol, BASE, QUOTE, tick="1", lot="0.00000001", min_price="0")
    instrument = add_pair(link, pair, node.engine.partitions)
    if recording.has_market_orders:
        _give_band(link, instrument, recording)
    if recording.auction is not None:
        set_state(link, instrument, wire.MarketState.AUCTION)
    owners = recording.owners()
    funds = funds_needed(recording, owners, WINDOW)
    accounts = {owner: create_account(link) for owner in sorted(set(owners.values()) | {RESTING, TAKING})}
    for owner, (base_units, quote_units) in funds.items():
        for asset, units in ((base, base_units), (quote, quote_units)):
            if units:
                credit(link, account=accounts[owner], asset=asset, units=units)
    sessions = []
    for account in (*[accounts[RESTING]] * (RESTING_SESSIONS - 1), *accounts.values()):
        private = Ed25519PrivateKey.generate()
        permissions = wire.Permissions.READ | wire.Permissions.TRADE
        public = private.public_key().public_bytes_raw()
        key_id, _ = create_ed25519_key(link, node.config, account, permissions, public)
        sessions.append((create_session(link, account), Ed25519Signer(key_id, private)))
    partition = link.instrument(symbol).assigned_partition
    return Stage(instrument, partition, owners, accounts, funds, tuple(sessions), (base, quote))


def _give_band(link: AdminLink, instrument: int, recording: Recording) -> None:
    """Market buys need a reference and an upper band; no recorded price is outside of it."""
    limits = wire.InstrumentLimits(
        min_qty=1,
        max_qty=PRICE_TICKS_MAX,
        min_px=0,
        max_px=PRICE_TICKS_MAX,
        reference_px=recording.reference_price,
        instrument_id=instrument,
        band_up_bps=recording.band_bps,
    )
    link.command(limits, f"limits of instrument {instrument}")


class BookWatch:
    """The book of one instrument, kept up from the market-data ring."""

    def __init__(self, node: Node, partition: int, instrument: int, start: int) -> None:
        self._ring = open_market(node, partition)
        self._cursor = start
        self.book = BookBuilder(instrument)

    def pump(self) -> None:
        """Apply what is there. Raises CommandError when lapped, BookError when the feed contradicts itself."""
        while (count := min(self._ring.published - self._cursor, READ_SLOTS)) > 0:
            try:
                slots = self._ring.read(self._cursor, count)
            except Lapped as error:
                raise CommandError(
                    "this process was too slow for the market-data ring: raise rings.market_slots", ExitCode.UNAVAILABLE
                ) from error
            assert len(slots) == count * SLOT_SIZE
            self.book.apply(slots)
            self._cursor += count

    def state(self, icebergs: Mapping[int, int]) -> BookState:
        """Return the book; `icebergs` has the whole open quantity of orders of which the feed shows a slice."""
        bid, ask = self.book.top()
        hidden = {wire.Side.BUY: 0, wire.Side.SELL: 0}
        for order_id, leaves in icebergs.items():
            shown = self.book.orders.get(order_id)
            if shown is not None:
                hidden[wire.Side(shown.side)] += leaves - shown.quantity
        return BookState(
            bid.price or 0, bid.quantity, ask.price or 0, ask.quantity, bid.order_count, ask.order_count,
            bid.total_quantity + hidden[wire.Side.BUY], ask.total_quantity + hidden[wire.Side.SELL],
        )  # fmt: skip

    def close(self) -> None:
        self._ring.close()


def open_market(node: Node, partition: int) -> Ring:
    name = f"{node.config.node.ring_prefix}.market.{partition}"
    return Ring.attach(name, slot_size=MARKET_SLOT_SIZE, schema_hash=wire.SCHEMA_HASH, writable=False)


class Replay:
    """One run: sends the commands, follows the reports, feeds a Comparison."""

    def __init__(
        self,
        stage: Stage,
        recording: Recording,
        comparison: Comparison,
        clients: Sequence[BullringClient],
        book: BookWatch,
        uncross: Callable[[], None],
    ) -> None:
        self._uncross = uncross
        self._stage = stage
        self._recording = recording
        self._comparison = comparison
        self._clients = clients
        self._book = book
        self._preventing = {taker for taker, _ in recording.self_matches}
        self._icebergs: dict[int, int] = {}  # order id -> whole open quantity
        self._unanswered = 0
        self._moved = asyncio.Event()
        self._client_ids: dict[int, int] = {}  # recorded order id -> client order id
        self._orders: dict[int, int] = {}  # and back
        self._traded_at: dict[int, int] = {}  # client order id -> recorded time of its newest command
        self._statuses: dict[int, int] = {}  # request id of an OrderStatusRequest -> filled quantity
        self._to_prevent: list[Command] = []  # cancels by the venue's self-match prevention whose taker comes next
        self._refused: set[int] = set()  # client order ids of refused post-only orders
        self._given_up: set[int] = set()  # trades whose other side did not come
        self._cancels_refused: list[wire.CancelReplaceReject] = []

    async def run(self) -> None:
        """Send everything and wait for all answers. Raises CommandError when the exchange stops answering."""
        followers = [asyncio.create_task(self._follow(client)) for client in self._clients]
        try:
            sending = asyncio.create_task(self._send_all())
            done, _ = await asyncio.wait([sending, *followers], return_when=asyncio.FIRST_COMPLETED)
            if sending not in done:
                sending.cancel()
            for task in done:
                task.result()
        finally:
            for task in followers:
                task.cancel()
            await asyncio.gather(*followers, return_exceptions=True)

    async def _send_all(self) -> None:
        current = None
        for command in self._recording.commands:
            if command.kind == "uncross":
                await self._open_market()
            elif command.tag == "smp":
                self._to_prevent.append(command)
            else:
                client = self._client_of(command)
                if client is not current:
                    await self._answered(0)
                current = client
                filled = await self._filled_of(client, command) if command.kind == "amend" else 0
                self._send(client, command, filled)
                if self._to_prevent:
                    await self._cancel_unreached()
                    current = None
            if command.index in self._recording.checkpoints:
                await self._answered(0)
                await self._check(command.index)
            elif self._unanswered >= WINDOW:
                await self._answered(WINDOW // 2)
            elif command.index % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        await self._answered(0)
        await self._quiet()
        self._judge_refused_cancels()

    async def _open_market(self) -> None:
        await self._answered(0)
        await asyncio.to_thread(self._uncross)
        auction = self._recording.auction
        expected = 0 if auction is None else 2 * auction.quantity
        end = time.monotonic() + BOOK_WAIT_S
        while sum(self._comparison.auction_fills.values()) < expected and time.monotonic() < end:
            await asyncio.sleep(SETTLE_S)
        await self._quiet()

    async def _filled_of(self, client: BullringClient, command: Command) -> int:
        """A replace names the total, a recording the open quantity: ask what is filled, behind all that was sent."""
        request = command.index + 1
        order = self._client_ids[command.order]
        client.order_status(instrument_id=self._stage.instrument, orig_cl_ord_id=order, request_id=request)
        self._unanswered += 1
        await self._wait_until(lambda: request in self._statuses)
        return self._statuses.pop(request)

    async def _cancel_unreached(self) -> None:
        """A taker that was to meet its owner's orders has come: those it did not reach are canceled as recorded."""
        await self._answered(0)
        await self._quiet()
        for command in self._to_prevent:
            if command.order not in self._comparison.self_matches_prevented:
                self._comparison.self_matches_sent.add(command.order)
                self._send(self._client_of(command), command, 0)
        self._to_prevent.clear()

    def _client_of(self, command: Command) -> BullringClient:
        owner = self._stage.owners[command.order]
        if owner == RESTING:
            return self._clients[command.index // BLOCK % RESTING_SESSIONS]
        return self._clients[RESTING_SESSIONS - 1 + owner]

    def _send(self, client: BullringClient, command: Command, filled: int) -> None:
        self._unanswered += 1
        instrument = self._stage.instrument
        if command.kind == "new":
            client.place(self._order(command))
            return
        client_id = self._client_ids[command.order]
        if command.kind == "cancel" or command.quantity <= 0:
            client.cancel(instrument_id=instrument, orig_cl_ord_id=client_id)
        else:
            self._traded_at[client_id] = command.ts_ns
            total = command.quantity + filled
            client.replace(instrument_id=instrument, orig_cl_ord_id=client_id, price=command.price, quantity=total)

    def _order(self, command: Command) -> Order:
        client_id = command.index + 1
        self._client_ids[command.order] = client_id
        self._orders[client_id] = command.order
        self._traded_at[client_id] = command.ts_ns
        prevents = command.order in self._preventing
        return Order(
            instrument_id=self._stage.instrument,
            side=wire.Side.BUY if command.side == "B" else wire.Side.SELL,
            quantity=command.quantity,
            price=None if command.tif == "MKT" else command.price,
            time_in_force=wire.TimeInForce.IOC if command.tif == "IOC" else wire.TimeInForce.GTC,
            post_only=command.tif == "PO",
            display_quantity=command.display or None,
            first_display_quantity=command.shown if command.display else None,
            stp_mode=wire.StpMode.CANCEL_MAKER if prevents else wire.StpMode.NONE,
            cl_ord_id=client_id,
        )

    # --- what comes back --------------------------------------------------------------------------------------------

    async def _follow(self, client: BullringClient) -> None:
        async for report in client.reports():
            if isinstance(report, ReportGap):
                raise CommandError(f"reports are missing for good: {report}", ExitCode.UNAVAILABLE)
            self._take(report)

    def _take(self, report: Report) -> None:
        message = report.message
        if isinstance(message, wire.OrderExecuted):
            self._execution(message)
        elif isinstance(message, ANSWERS) or _is_answered_cancel(message):
            self._unanswered -= 1
            self._moved.set()  # whoever waits runs when all of this message is done
        self._note_iceberg(message)
        if isinstance(message, wire.OrderPrevented) and message.ord_status == wire.OrdStatus.EXPIRED_IN_MATCH:
            self._comparison.self_matches_prevented.add(self._orders[message.cl_ord_id])
        if isinstance(message, wire.OrderStatus):
            self._statuses[message.request_id] = message.cum_qty
        if isinstance(message, wire.OrderRejected):
            self._rejected(message)
        elif isinstance(message, wire.CancelReplaceReject):
            self._cancel_refused(message)

    def _note_iceberg(self, message: object) -> None:
        if isinstance(message, wire.OrderAccepted):
            command = self._recording.commands[message.cl_ord_id - 1]
            if command.display:
                self._icebergs[message.order_id] = message.order_qty
        elif isinstance(message, wire.OrderExecuted | wire.OrderReplaced) and message.order_id in self._icebergs:
            self._icebergs[message.order_id] = message.leaves_qty

    def _execution(self, message: wire.OrderExecuted) -> None:
        self._comparison.execution(
            Execution(
                trade_id=message.trade_id,
                order=self._orders[message.cl_ord_id],
                price=message.last_px,
                quantity=message.last_qty,
                is_maker=message.liquidity == wire.Liquidity.MAKER,
                ts_ns=self._traded_at[message.cl_ord_id],
                is_auction=message.liquidity == wire.Liquidity.AUCTION,
            )
        )
        self._moved.set()

    def _rejected(self, message: wire.OrderRejected) -> None:
        if message.reject_code == wire.RejectCode.WOULD_TAKE_LIQUIDITY:
            self._comparison.post_only_rejects += 1
            self._refused.add(message.cl_ord_id)
        else:
            order = self._orders.get(message.cl_ord_id)
            self._comparison.difference(f"order {order} was refused: {message.reject_code!r}, limit {message.limit}")

    def _cancel_refused(self, message: wire.CancelReplaceReject) -> None:
        if message.reject_code != NO_CHANGE:  # the venue takes an amend that changes nothing
            self._cancels_refused.append(message)

    def _judge_refused_cancels(self) -> None:
        """Recorded members cancel refused post-only orders too; whatever else is refused is a difference.

        Judged at the end: the sequencer's answer and the matcher's are of two partitions, so they may cross.
        """
        for message in self._cancels_refused:
            if message.orig_cl_ord_id not in self._refused:
                order = self._orders.get(message.orig_cl_ord_id)
                self._comparison.difference(f"cancel or replace of order {order} was refused: {message.reject_code!r}")

    # --- waiting ----------------------------------------------------------------------------------------------------

    async def _answered(self, left: int) -> None:
        """Wait until at most `left` commands are unanswered."""
        await self._wait_until(lambda: self._unanswered <= left)

    async def _wait_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._moved.clear()
            try:
                async with asyncio.timeout(ANSWER_WAIT_S):
                    await self._moved.wait()
            except TimeoutError:
                raise CommandError(
                    f"the exchange left {self._unanswered} commands unanswered for {ANSWER_WAIT_S:.0f} s",
                    ExitCode.UNAVAILABLE,
                ) from None
            self._book.pump()
        self._book.pump()

    async def _quiet(self) -> None:
        """Wait until both sides of every trade have been heard and nothing more comes."""
        end = time.monotonic() + BOOK_WAIT_S
        while True:
            heard = self._comparison.execution_count
            await asyncio.sleep(SETTLE_S)
            half = self._comparison.half_reported - self._given_up
            if heard == self._comparison.execution_count and not half:
                return
            if time.monotonic() > end:
                # The verdict names them; waiting for them again at every amend would take forever.
                self._given_up |= half
                return

    async def _check(self, index: int) -> None:
        # Market data is published behind the reports: the last events may still be on their way.
        end = time.monotonic() + BOOK_WAIT_S
        self._book.pump()
        while not self._comparison.agrees(index, self._book.state(self._icebergs)) and time.monotonic() < end:
            await asyncio.sleep(SETTLE_S)
            self._book.pump()
        self._comparison.checkpoint(index, self._book.state(self._icebergs))


def _is_answered_cancel(message: object) -> bool:
    return isinstance(message, wire.OrderCanceled) and message.cancel_reason == wire.CancelReason.CLIENT


async def replay(
    node: Node, address: tuple[str, int], recording: Recording, comparison: Comparison, link: AdminLink
) -> None:
    """Prepare, send, compare balances, clean up. The verdict is the comparison's."""
    starts = {}
    for partition in range(1, node.engine.partitions + 1):
        with open_market(node, partition) as ring:
            starts[partition] = ring.published
    stage = prepare(link, node, recording)
    clients = [BullringClient([address], session_id=session, signer=signer) for session, signer in stage.sessions]
    book = BookWatch(node, stage.partition, stage.instrument, starts[stage.partition])

    def uncross() -> None:
        set_state(link, stage.instrument, wire.MarketState.CONTINUOUS)

    try:
        for client in clients:
            await client.start()
        try:
            await Replay(stage, recording, comparison, clients, book, uncross).run()
        except BookError as error:
            comparison.difference(f"the market data contradicts itself: {error}")
        compare_balances(link, stage, recording, comparison)
        await clean_up(link, stage, clients)
    finally:
        for client in clients:
            with contextlib.suppress(OSError):
                await client.close()
        book.close()


def compare_balances(link: AdminLink, stage: Stage, recording: Recording, comparison: Comparison) -> None:
    """Check what the recorded trades leave on the accounts (fees are zero)."""
    sides = {command.order: command.side for command in recording.commands if command.kind == "new"}
    expected = {owner: list(stage.funds.get(owner, (0, 0))) for owner in stage.accounts}
    moves = [(order, price, quantity) for _, *both, price, quantity in recording.trades for order in both]
    if recording.auction is not None:
        # Judged by the comparison already; the recording has no fills of the orders that stand for unseen members.
        moves += [(order, recording.auction.price, quantity) for order, quantity in comparison.auction_fills.items()]
    for order, price, quantity in moves:
        sign = 1 if sides[order] == "B" else -1
        expected[stage.owners[order]][0] += sign * quantity
        expected[stage.owners[order]][1] -= sign * quantity * price
    for owner, account in stage.accounts.items():
        found = {reply.asset_id: reply.available + reply.held for reply in link.balances(account)}
        got = [found.get(asset.asset_id, 0) for asset in stage.assets]
        if got != expected[owner]:
            comparison.difference(
                f"account {account} has (base, quote) {got}, recorded trades make it {expected[owner]}"
            )


async def clean_up(link: AdminLink, stage: Stage, clients: Sequence[BullringClient]) -> None:
    """Cancel what is open, take the money back and close the instrument, so that runs do not add up."""
    for client in clients[RESTING_SESSIONS - 1 :]:
        if client.established:
            client.mass_cancel(scope=wire.MassCancelScope.ACCOUNT)
    end = time.monotonic() + ANSWER_WAIT_S
    while _open_orders(link, stage) and time.monotonic() < end:
        await asyncio.sleep(CLEAN_UP_LOOK_S)
    for account in stage.accounts.values():
        for reply in link.balances(account):
            asset = next(asset for asset in stage.assets if asset.asset_id == reply.asset_id)
            if reply.available:
                credit(link, account=account, asset=asset, units=-reply.available)
    set_state(link, stage.instrument, wire.MarketState.CLOSED)


def _open_orders(link: AdminLink, stage: Stage) -> int:
    return sum(reply.open_orders for reply in link.accounts() if reply.account_id in stage.accounts.values())
