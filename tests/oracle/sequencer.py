"""Sessions, admission, holds, order identity, settlement of reports."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

from ringbuf.wire.messages import (
    AccountCreate,
    AccountLimits,
    AssetAdd,
    BalanceAdjust,
    FeeTierSet,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentState,
    MassCancelRequest,
    NewOrderSingle,
    OrderCancelRequest,
    OrderReplaceRequest,
    OrdStatus,
    OrdType,
    RejectCode,
    ResponseTo,
    Sequence,
    SessionCreate,
    SessionKind,
    Side,
)
from tests.oracle import admission
from tests.oracle.accounts import Account, Ledger
from tests.oracle.admission import Instrument, Refusal
from tests.oracle.choices import (
    BAND_SCALE,
    MONEY_LIMIT,
    NEW_REFERENCE_REPLACES_LAST_TRADE,
    RATE_MAX,
    REPLACE_MAY_REPEAT_OWN_CL_ORD_ID,
    REPLACES_IN_FLIGHT_MAX,
)
from tests.oracle.records import ALL_MATCHERS, SEQUENCER, ModelError, Record, Report

ADMIN_SESSION = 1
ADMIN_ACCOUNT = 0
ADMIN_MESSAGES = (
    AssetAdd,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentState,
    AccountCreate,
    AccountLimits,
    BalanceAdjust,
    SessionCreate,
    FeeTierSet,
)
NO_LIMITS = InstrumentLimits(min_qty=1, max_qty=(1 << 63) - 1, min_px=1, max_px=(1 << 63) - 1)


@dataclass(slots=True)
class Session:
    session_id: int
    account_id: int
    kind: int
    is_bound: bool = False
    last_seq: int = 0


@dataclass(slots=True)
class Version:
    """Terms a replace in flight asks for."""

    price: int
    total: int
    cl_ord_id: int


@dataclass(slots=True)
class OrderLine:
    """An open order as the sequencer knows it."""

    order_id: int
    partition: int
    account_id: int
    session: int
    instrument: Instrument
    side: int
    ord_type: int
    price: int
    total: int
    cl_ord_id: int
    cum: int = 0
    hold: int = 0
    pending: list[Version] = field(default_factory=list)
    # Highest terms among the versions since the first replace still in flight was sent.
    price_max: int = 0
    total_max: int = 0
    is_done: bool = False


class Sequencer:
    def __init__(self, *, partitions: int, orders_max: int) -> None:
        self.orders_max = orders_max
        self.ledger = Ledger()
        self.accounts = {ADMIN_ACCOUNT: Account(ADMIN_ACCOUNT)}
        self.assets: set[int] = set()
        self.instruments: dict[int, Instrument] = {}
        self.rates: dict[tuple[int, int], tuple[int, int]] = {}
        self.sessions = {ADMIN_SESSION: Session(ADMIN_SESSION, ADMIN_ACCOUNT, SessionKind.PRIVILEGED, True)}
        self.lines: dict[tuple[int, int], OrderLine] = {}
        self.slots: dict[int, set[int]] = {partition: set() for partition in range(1, partitions + 1)}
        self.last_order_id: dict[int, int] = defaultdict(int)
        self.client_ids: dict[tuple[int, int, int], OrderLine] = {}
        self.numbers: dict[int, int] = {}
        self.reports: list[Report] = []
        self.replies: list[tuple[int, str, dict[str, int]]] = []
        self.log: list[Record] = []

    # -- one command -----------------------------------------------------------------------------------------------

    def admit(self, session_id: int, seq_num: int, message: Any) -> None:
        """Take a command if it is the session's next one; refuse it, or write a record to `log`."""
        session = self.sessions[session_id]
        if not session.is_bound:
            return
        if isinstance(message, Sequence):
            session.last_seq = max(session.last_seq, message.next_seq_no - 1)
            return
        expected = session.last_seq + 1
        if seq_num < expected:
            return
        if seq_num > expected:
            gap = {"from_seq_no": expected, "count": seq_num - expected}
            self.replies.append((session_id, "NotApplied", gap))
            return
        session.last_seq = seq_num
        if isinstance(message, NewOrderSingle):
            self.admit_order(session, seq_num, message)
        elif isinstance(message, OrderCancelRequest):
            self.admit_cancel(session, seq_num, message)
        elif isinstance(message, OrderReplaceRequest):
            self.admit_replace(session, seq_num, message)
        elif isinstance(message, MassCancelRequest):
            self.admit_mass_cancel(session, seq_num, message)
        elif isinstance(message, ADMIN_MESSAGES):
            self.admit_admin(session, seq_num, message)
        else:
            raise ModelError(f"the model does not know {type(message).__name__}")

    def account_for(self, session: Session, account_id: int) -> int:
        """Return the account a request acts for."""
        if session.kind == SessionKind.PRIVILEGED:
            if account_id not in self.accounts:
                raise Refusal(RejectCode.INVALID_ACCOUNT)
            return account_id
        if session.kind == SessionKind.DROP_COPY:
            raise Refusal(RejectCode.PERMISSION_DENIED)
        if account_id not in (0, session.account_id):
            raise Refusal(RejectCode.INVALID_ACCOUNT)
        return session.account_id

    def instrument_for(self, instrument_id: int) -> Instrument:
        instrument = self.instruments.get(instrument_id)
        if instrument is None:
            raise Refusal(RejectCode.UNKNOWN_INSTRUMENT)
        return instrument

    # -- new orders ------------------------------------------------------------------------------------------------

    def admit_order(self, session: Session, seq_num: int, message: NewOrderSingle) -> None:
        try:
            admission.check_shape(message)
            account = self.accounts[self.account_for(session, message.account_id)]
            instrument = self.instrument_for(message.instrument_id)
            admission.check_features(message, account.stp_group_id)
            price = self.checked_price(instrument, message)
            self.check_capacity(account, instrument, message)
            partition = instrument.definition.assigned_partition
            need = instrument.hold_for(message.side, price, message.order_qty)
            self.check_cover(account.account_id, instrument.asset_paid(message.side), need)
        except Refusal as refusal:
            self.reject_order(session, seq_num, message, refusal)
            return
        line = OrderLine(
            order_id=self.next_order_id(partition),
            partition=partition,
            account_id=account.account_id,
            session=session.session_id,
            instrument=instrument,
            side=message.side,
            ord_type=message.ord_type,
            price=price,
            total=message.order_qty,
            cl_ord_id=message.cl_ord_id,
            price_max=price,
            total_max=message.order_qty,
        )
        self.lines[partition, line.order_id] = line
        self.slots[partition].add(line.order_id % self.orders_max)
        self.take_client_id(line, line.cl_ord_id)
        self.set_hold(line, need)
        self.log.append(
            Record(
                partition,
                session.session_id,
                seq_num,
                message,
                account_id=account.account_id,
                order_id=line.order_id,
                price=price,
                tier=account.fee_tier,
                stp_group_id=account.stp_group_id,
            )
        )

    def checked_price(self, instrument: Instrument, message: NewOrderSingle) -> int:
        """Run checks 6 to 9; return the limit, or the protection price of a market order."""
        if message.ord_type == OrdType.MARKET:
            admission.check_quantity(instrument, message.order_qty)
            price = admission.protection_price(instrument, message.side)
            admission.check_notional(instrument, price, message.order_qty)
            return price
        price = admission.check_price(instrument, message.price)
        admission.check_quantity(instrument, message.order_qty)
        admission.check_notional(instrument, price, message.order_qty)
        admission.check_band(instrument, message.side, price)
        return price

    def check_capacity(self, account: Account, instrument: Instrument, message: NewOrderSingle) -> None:
        open_orders = sum(
            1 for line in self.lines.values() if line.account_id == account.account_id and not line.is_done
        )
        if open_orders >= account.open_orders_max:
            raise Refusal(RejectCode.OPEN_ORDER_LIMIT, account.open_orders_max)
        self.check_client_id(account.account_id, message.instrument_id, message.cl_ord_id)
        if len(self.slots[instrument.definition.assigned_partition]) >= self.orders_max:
            raise Refusal(RejectCode.ORDER_CAPACITY)

    def check_client_id(self, account_id: int, instrument_id: int, cl_ord_id: int) -> None:
        if cl_ord_id != 0 and (account_id, instrument_id, cl_ord_id) in self.client_ids:
            raise Refusal(RejectCode.DUPLICATE_CL_ORD_ID)

    def check_cover(self, account_id: int, asset_id: int, need: int) -> None:
        available = self.ledger.available[account_id, asset_id]
        if need > available:
            raise Refusal(RejectCode.INSUFFICIENT_BALANCE, available)

    def next_order_id(self, partition: int) -> int:
        order_id = self.last_order_id[partition] + 1
        while order_id % self.orders_max in self.slots[partition]:
            order_id += 1
        self.last_order_id[partition] = order_id
        return order_id

    # -- cancel and replace ----------------------------------------------------------------------------------------

    def resolve(self, account_id: int, message: OrderCancelRequest | OrderReplaceRequest) -> OrderLine:
        instrument = self.instrument_for(message.instrument_id)
        line: OrderLine | None
        if message.order_id is not None:
            line = self.lines.get((instrument.definition.assigned_partition, message.order_id))
        elif message.orig_cl_ord_id is not None:
            line = self.client_ids.get((account_id, message.instrument_id, message.orig_cl_ord_id))
        else:
            line = None
        if line is None or line.is_done or line.account_id != account_id or line.instrument is not instrument:
            raise Refusal(RejectCode.UNKNOWN_ORDER)
        return line

    def admit_cancel(self, session: Session, seq_num: int, message: OrderCancelRequest) -> None:
        try:
            account_id = self.account_for(session, message.account_id)
            line = self.resolve(account_id, message)
        except Refusal as refusal:
            self.reject_change(session, seq_num, message, refusal)
            return
        record = Record(
            line.partition, session.session_id, seq_num, message, account_id=account_id, order_id=line.order_id
        )
        self.log.append(record)

    def admit_replace(self, session: Session, seq_num: int, message: OrderReplaceRequest) -> None:
        line = None
        try:
            account_id = self.account_for(session, message.account_id)
            line = self.resolve(account_id, message)
            version = self.checked_version(line, message)
            self.check_new_client_id(line, version.cl_ord_id)
            price_max, total_max, need = self.cover_with(line, version)
            asset_id = line.instrument.asset_paid(line.side)
            self.check_cover(account_id, asset_id, need - line.hold)
        except Refusal as refusal:
            self.reject_change(session, seq_num, message, refusal, line)
            return
        line.pending.append(version)
        line.price_max, line.total_max = price_max, total_max
        self.set_hold(line, need)
        self.take_client_id(line, version.cl_ord_id)
        record = Record(
            line.partition, session.session_id, seq_num, message, account_id=account_id, order_id=line.order_id
        )
        self.log.append(record)

    def checked_version(self, line: OrderLine, message: OrderReplaceRequest) -> Version:
        """Run checks 6 to 9: price, band and quantity only where the request names them, the notional always."""
        newest = line.pending[-1] if line.pending else line
        price = newest.price if message.price is None else message.price
        total = newest.total if message.order_qty is None else message.order_qty
        if message.price is not None:
            admission.check_price(line.instrument, price)
        if message.order_qty is not None:
            admission.check_quantity(line.instrument, total)
        admission.check_notional(line.instrument, price, total)
        if message.price is not None:
            admission.check_band(line.instrument, line.side, price)
        if len(line.pending) >= REPLACES_IN_FLIGHT_MAX:
            raise Refusal(RejectCode.PENDING_REQUEST, REPLACES_IN_FLIGHT_MAX)
        return Version(price, total, message.cl_ord_id)

    def check_new_client_id(self, line: OrderLine, cl_ord_id: int) -> None:
        if REPLACE_MAY_REPEAT_OWN_CL_ORD_ID and cl_ord_id == line.cl_ord_id:
            return
        self.check_client_id(line.account_id, line.instrument.definition.instrument_id, cl_ord_id)

    def cover_with(self, line: OrderLine, version: Version) -> tuple[int, int, int]:
        """Return highest price, highest total, and the hold that covers every version in flight.

        The hold never shrinks here: what a smaller version frees comes back when the last replace is answered.
        """
        price_max = max(line.price_max, version.price)
        total_max = max(line.total_max, version.total)
        need = line.instrument.hold_for(line.side, price_max, total_max - line.cum)
        if need >= MONEY_LIMIT:
            raise Refusal(RejectCode.MAX_NOTIONAL, line.instrument.limits.max_notional or MONEY_LIMIT - 1)
        return price_max, total_max, need

    def admit_mass_cancel(self, session: Session, seq_num: int, message: MassCancelRequest) -> None:
        account_id = message.account_id
        try:
            admission.check_shape(message)
            account_id = self.account_for(session, message.account_id)
            if message.instrument_id != 0:
                self.instrument_for(message.instrument_id)
        except Refusal as refusal:
            self.report(
                session.session_id,
                "MassCancelReport",
                cl_ord_id=message.cl_ord_id,
                ref_seq_num=seq_num,
                instrument_id=message.instrument_id,
                account_id=account_id,
                total_affected=0,
                reject_code=refusal.code,
                side=message.side,
                scope=message.scope,
            )
            return
        self.log.append(Record(ALL_MATCHERS, session.session_id, seq_num, message, account_id=account_id))

    # -- administration --------------------------------------------------------------------------------------------

    def admit_admin(self, session: Session, seq_num: int, message: Any) -> None:
        result_id = 0
        code, limit = RejectCode.NONE, 0
        try:
            if session.kind != SessionKind.PRIVILEGED:
                raise Refusal(RejectCode.NOT_PRIVILEGED)
            result_id = self.apply_admin(session, seq_num, message)
        except Refusal as refusal:
            code, limit = RejectCode(refusal.code), refusal.limit
        self.report(
            session.session_id,
            "AdminAck",
            request_id=message.request_id,
            result_id=result_id,
            ref_seq_num=seq_num,
            limit=limit,
            ref_template_id=message.TEMPLATE_ID,
            code=code,
        )

    def apply_admin(self, session: Session, seq_num: int, message: Any) -> int:
        """Do it; return the id of what was made, 0 if nothing was."""
        if isinstance(message, AssetAdd):
            asset_id = message.asset_id or len(self.assets) + 1
            self.assets.add(asset_id)
            return asset_id
        if isinstance(message, AccountCreate):
            account_id = message.account_id or len(self.accounts)
            self.accounts[account_id] = Account(
                account_id, message.stp_group_id, message.firm_id, message.fee_tier
            )
            return account_id
        if isinstance(message, SessionCreate):
            if message.account_id not in self.accounts:
                raise Refusal(RejectCode.UNKNOWN_ACCOUNT)
            session_id = message.session_id or len(self.sessions) + 1
            self.sessions[session_id] = Session(session_id, message.account_id, message.kind)
            return session_id
        if isinstance(message, InstrumentAdd):
            instrument_id = message.instrument_id or len(self.instruments) + 1
            filled = replace(message, instrument_id=instrument_id)
            self.instruments[instrument_id] = Instrument(filled, NO_LIMITS)
            self.log.append(Record(ALL_MATCHERS, session.session_id, seq_num, filled))
            return instrument_id
        self.apply_change(session, seq_num, message)
        return 0

    def apply_change(self, session: Session, seq_num: int, message: Any) -> None:
        if isinstance(message, InstrumentLimits):
            instrument = self.instrument_for(message.instrument_id)
            if message.band_down_bps > BAND_SCALE:
                raise Refusal(RejectCode.OUT_OF_RANGE)
            instrument.limits = message
            if message.reference_px is not None and NEW_REFERENCE_REPLACES_LAST_TRADE:
                instrument.last_trade_px = None
        elif isinstance(message, InstrumentState):
            instrument = self.instrument_for(message.instrument_id)
            partition = instrument.definition.assigned_partition
            self.log.append(Record(partition, session.session_id, seq_num, message))
        elif isinstance(message, FeeTierSet):
            if message.instrument_id != 0:
                self.instrument_for(message.instrument_id)
            self.set_rates(message)
            self.log.append(Record(ALL_MATCHERS, session.session_id, seq_num, message))
        elif isinstance(message, AccountLimits):
            account = self.known_account(message.account_id)
            account.open_orders_max = message.open_orders_max
            account.fee_tier = message.fee_tier
        elif isinstance(message, BalanceAdjust):
            self.known_account(message.account_id)
            if message.asset_id not in self.assets:
                raise Refusal(RejectCode.UNKNOWN_ASSET)
            if message.amount < 0:
                self.check_cover(message.account_id, message.asset_id, -message.amount)
            self.ledger.deposit(message.account_id, message.asset_id, message.amount)

    def set_rates(self, message: FeeTierSet) -> None:
        """Check the new rates: of no pair may a tier's rebate exceed the smallest taker fee of any tier."""
        if not 0 <= message.taker_rate <= RATE_MAX or not -RATE_MAX <= message.maker_rate <= RATE_MAX:
            raise Refusal(RejectCode.OUT_OF_RANGE)
        rates = self.rates | {(message.tier, message.instrument_id): (message.maker_rate, message.taker_rate)}
        for pair in [0, *self.instruments]:
            # A pair's own rate of a tier counts before that of all pairs (scope 0).
            in_force = {tier: rate for scope in (0, pair) for (tier, of), rate in rates.items() if of == scope}
            if max((-maker for maker, _ in in_force.values()), default=0) > min(
                (taker for _, taker in in_force.values()), default=RATE_MAX
            ):
                raise Refusal(RejectCode.OUT_OF_RANGE)
        self.rates = rates

    def known_account(self, account_id: int) -> Account:
        account = self.accounts.get(account_id)
        if account is None:
            raise Refusal(RejectCode.UNKNOWN_ACCOUNT)
        return account

    # -- settlement ------------------------------------------------------------------------------------------------

    def settle(self, report: Report) -> None:
        """Apply one matcher's report to the order table and the balances."""
        order_id = report.fields.get("order_id")
        line = self.lines.get((report.partition, order_id)) if order_id is not None else None
        if line is None:
            return
        if report.name == "OrderExecuted":
            self.settle_fill(line, report.fields)
        elif report.name == "OrderPrevented":
            line.total -= report.fields["prevented_qty"]
            self.adjust_hold(line)
        elif report.name == "OrderReplaced":
            line.price, line.total = report.fields["price"], report.fields["order_qty"]
            version = line.pending.pop(0)
            if version.cl_ord_id != 0:
                self.drop_client_id(line, line.cl_ord_id)
                line.cl_ord_id = version.cl_ord_id
            self.adjust_hold(line)
        elif report.name == "CancelReplaceReject" and report.fields["response_to"] == ResponseTo.REPLACE:
            self.drop_client_id(line, line.pending.pop(0).cl_ord_id)
            self.adjust_hold(line)
        if report.final:
            self.finish(line)
        if line.is_done and not line.pending:
            del self.lines[report.partition, line.order_id]
            self.slots[report.partition].discard(line.order_id % self.orders_max)

    def settle_fill(self, line: OrderLine, fill: dict[str, int]) -> None:
        instrument = line.instrument
        price, quantity = fill["last_px"], fill["last_qty"]
        instrument.last_trade_px = price
        line.cum += quantity
        before = line.hold
        line.hold = self.required_hold(line)
        paid = instrument.hold_for(line.side, price, quantity)
        received = instrument.hold_for(Side.SELL if line.side == Side.BUY else Side.BUY, price, quantity)
        self.ledger.pay_from_hold(
            line.account_id, instrument.asset_paid(line.side), released=before - line.hold, paid=paid
        )
        self.ledger.receive(line.account_id, instrument.asset_received(line.side), received)
        self.ledger.charge(line.account_id, fill["fee_asset_id"], fill["fee"])

    def required_hold(self, line: OrderLine) -> int:
        """Return what the order must hold now.

        With replaces in flight the highest terms count, and only fills make the hold smaller: a version still in
        flight carries its own total, so quantity prevented meanwhile must stay covered.
        """
        if not line.pending:
            line.price_max, line.total_max = line.price, line.total
        return line.instrument.hold_for(line.side, line.price_max, line.total_max - line.cum)

    def adjust_hold(self, line: OrderLine) -> None:
        if not line.is_done:
            self.set_hold(line, self.required_hold(line))

    def set_hold(self, line: OrderLine, units: int) -> None:
        self.ledger.hold(line.account_id, line.instrument.asset_paid(line.side), units - line.hold)
        line.hold = units

    def finish(self, line: OrderLine) -> None:
        self.set_hold(line, 0)
        line.is_done = True
        self.drop_client_id(line, line.cl_ord_id)
        for version in line.pending:
            self.drop_client_id(line, version.cl_ord_id)

    def take_client_id(self, line: OrderLine, cl_ord_id: int) -> None:
        if cl_ord_id != 0:
            self.client_ids[line.account_id, line.instrument.definition.instrument_id, cl_ord_id] = line

    def drop_client_id(self, line: OrderLine, cl_ord_id: int) -> None:
        key = (line.account_id, line.instrument.definition.instrument_id, cl_ord_id)
        if self.client_ids.get(key) is line:
            del self.client_ids[key]

    # -- outputs ---------------------------------------------------------------------------------------------------

    def report(self, session_id: int, name: str, **fields: Any) -> None:
        number = self.numbers.get(session_id, 0) + 1
        self.numbers[session_id] = number
        self.reports.append(Report(SEQUENCER, session_id, number, name, fields))

    def reject_order(self, session: Session, seq_num: int, message: NewOrderSingle, refusal: Refusal) -> None:
        self.report(
            session.session_id,
            "OrderRejected",
            cl_ord_id=message.cl_ord_id,
            order_id=None,
            ref_seq_num=seq_num,
            client_tag=message.client_tag,
            limit=refusal.limit,
            instrument_id=message.instrument_id,
            account_id=message.account_id or session.account_id,
            reject_code=refusal.code,
            side=message.side,
        )

    def reject_change(
        self,
        session: Session,
        seq_num: int,
        message: OrderCancelRequest | OrderReplaceRequest,
        refusal: Refusal,
        line: OrderLine | None = None,
    ) -> None:
        is_replace = isinstance(message, OrderReplaceRequest)
        status = OrdStatus.REJECTED
        if line is not None:
            status = OrdStatus.PARTIALLY_FILLED if line.cum else OrdStatus.NEW
        self.report(
            session.session_id,
            "CancelReplaceReject",
            cl_ord_id=message.cl_ord_id,
            orig_cl_ord_id=line.cl_ord_id if line is not None else message.orig_cl_ord_id or 0,
            order_id=line.order_id if line is not None else message.order_id,
            ref_seq_num=seq_num,
            limit=refusal.limit,
            instrument_id=message.instrument_id,
            account_id=message.account_id or session.account_id,
            reject_code=refusal.code,
            response_to=ResponseTo.REPLACE if is_replace else ResponseTo.CANCEL,
            ord_status=status,
        )

    def check(self) -> None:
        """Raise unless money is conserved and every hold is backed by exactly its open orders."""
        self.ledger.check()
        holds: dict[tuple[int, int], int] = defaultdict(int)
        for line in self.lines.values():
            holds[line.account_id, line.instrument.asset_paid(line.side)] += line.hold
            if not line.pending and not line.is_done:
                exact = line.instrument.hold_for(line.side, line.price, line.total - line.cum)
                if line.hold != exact:
                    raise ModelError(f"order {line.order_id} holds {line.hold}, needs {exact}")
        for key, units in self.ledger.held.items():
            if holds[key] != units:
                raise ModelError(f"account {key[0]} asset {key[1]}: {units} held, orders hold {holds[key]}")
