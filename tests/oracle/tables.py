"""What the sequencer keeps, and its own reports: the ground its parts stand on."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from ringbuf.wire.messages import (
    KillScope,
    ListOrderStatus,
    ListStatusType,
    MassCancelRequest,
    NewOrderSingle,
    OrderCancelRequest,
    OrderListRequest,
    OrdStatus,
    Quote,
    RejectCode,
    ResponseTo,
    SessionKind,
)
from tests.oracle.accounts import Account, Ledger
from tests.oracle.filters import Instrument, Refusal
from tests.oracle.lines import OrderLine, OrderList, PairHold, QuoteLines, Session
from tests.oracle.records import SEQUENCER, Record, Report
from tests.oracle.reports import Change

ADMIN_SESSION = 1
ADMIN_ACCOUNT = 0
UNLIMITED = 1 << 40


class Tables:
    """State of partition 0."""

    def __init__(
        self,
        *,
        partitions: int,
        orders_max: int,
        entries_max: int = UNLIMITED,
        lists_max: int = UNLIMITED,
        quotes_max: int = UNLIMITED,
    ) -> None:
        self.orders_max, self.entries_max = orders_max, entries_max
        self.lists_max, self.quotes_max = lists_max, quotes_max
        self.ledger = Ledger()
        self.accounts = {ADMIN_ACCOUNT: Account(ADMIN_ACCOUNT)}
        self.assets: set[int] = set()
        self.instruments: dict[int, Instrument] = {}
        self.rates: dict[tuple[int, int], tuple[int, int]] = {}
        self.killed: set[tuple[int, int]] = set()
        self.sessions = {ADMIN_SESSION: Session(ADMIN_SESSION, ADMIN_ACCOUNT, SessionKind.PRIVILEGED, True)}
        self.lines: dict[tuple[int, int], OrderLine] = {}
        self.slots: dict[int, set[int]] = {partition: set() for partition in range(1, partitions + 1)}
        self.last_order_id: dict[int, int] = defaultdict(int)
        # The newest line of a client order id counts; a quote may use an id its set already has.
        self.client_ids: dict[tuple[int, int, int], list[OrderLine]] = defaultdict(list)
        self.lists: dict[int, OrderList] = {}
        self.last_list_id = 0
        self.quotes: dict[tuple[int, int, int], QuoteLines] = {}
        # Lists whose working leg was filled: their pending legs come before any other command.
        self.due: deque[OrderList] = deque()
        self.numbers: dict[int, int] = {}
        self.reports: list[Report] = []
        self.replies: list[tuple[int, str, dict[str, int]]] = []
        self.log: list[Record] = []

    # -- who and where ---------------------------------------------------------------------------------------------

    def account_for(self, session: Session, account_id: int) -> Account:
        """Return the account a request acts for."""
        if session.is_privileged:
            if account_id not in self.accounts:
                raise Refusal(RejectCode.INVALID_ACCOUNT)
            return self.accounts[account_id]
        if session.kind == SessionKind.DROP_COPY:
            raise Refusal(RejectCode.PERMISSION_DENIED)
        if account_id not in (0, session.account_id):
            raise Refusal(RejectCode.INVALID_ACCOUNT)
        return self.accounts[session.account_id]

    def instrument_for(self, instrument_id: int) -> Instrument:
        instrument = self.instruments.get(instrument_id)
        if instrument is None:
            raise Refusal(RejectCode.UNKNOWN_INSTRUMENT)
        return instrument

    def check_blocked(self, account: Account, instrument_id: int) -> None:
        """Refuse what the kill switch blocks, and what a locked account asks for."""
        reaches = {
            (KillScope.ALL, 0),
            (KillScope.INSTRUMENT, instrument_id),
            (KillScope.ACCOUNT, account.account_id),
            (KillScope.FIRM, account.firm_id),
        }
        if reaches & self.killed:
            raise Refusal(RejectCode.KILL_SWITCH)
        if account.is_locked:
            raise Refusal(RejectCode.ACCOUNT_LOCKED)

    def open_lines(self, account_id: int) -> list[OrderLine]:
        return [line for line in self.lines.values() if line.account_id == account_id and not line.is_done]

    def check_cover(self, account_id: int, asset_id: int, need: int, other_cover: int = 0) -> None:
        available = self.ledger.available[account_id, asset_id]
        if need > available + other_cover:
            raise Refusal(RejectCode.INSUFFICIENT_BALANCE, available)

    # -- rates -----------------------------------------------------------------------------------------------------

    def check_order_rate(self, account: Account, stamp_ns: int, more: int = 0) -> None:
        """Refuse an order, replace, amend or quote beyond the account's rates; `more` came before in its list."""
        for window, allowed in (
            (account.orders, account.orders_per_10s),
            (account.orders_of_day, account.orders_per_day),
        ):
            if allowed and window.counted(stamp_ns) + more >= allowed:
                raise Refusal(RejectCode.RATE_LIMIT, allowed)

    def count_order(self, account: Account, stamp_ns: int) -> None:
        account.orders.add(stamp_ns)
        account.orders_of_day.add(stamp_ns)

    def check_cancel_rate(self, account: Account, stamp_ns: int) -> None:
        allowed = account.cancels_per_10s
        if allowed and account.cancels.counted(stamp_ns) >= allowed:
            raise Refusal(RejectCode.RATE_LIMIT, allowed)

    # -- identity --------------------------------------------------------------------------------------------------

    def next_order_id(self, partition: int) -> int:
        order_id = self.last_order_id[partition] + 1
        while order_id % self.orders_max in self.slots[partition]:
            order_id += 1
        self.last_order_id[partition] = order_id
        return order_id

    def holders(self, account_id: int, instrument_id: int, cl_ord_id: int) -> list[OrderLine]:
        """Return the lines that have a client order id, oldest first."""
        return self.client_ids.get((account_id, instrument_id, cl_ord_id), []) if cl_ord_id else []

    def check_client_id(
        self, account_id: int, instrument_id: int, cl_ord_id: int, own: QuoteLines | None = None
    ) -> None:
        """Refuse a client order id that an open order has; the quote set `own` may use its own again."""
        for line in self.holders(account_id, instrument_id, cl_ord_id):
            if own is None or line.quote is not own:
                raise Refusal(RejectCode.DUPLICATE_CL_ORD_ID)

    def take_client_id(self, line: OrderLine, cl_ord_id: int) -> None:
        if cl_ord_id != 0:
            self.client_ids[line.account_id, line.instrument.instrument_id, cl_ord_id].append(line)

    def drop_client_id(self, line: OrderLine, cl_ord_id: int) -> None:
        key = (line.account_id, line.instrument.instrument_id, cl_ord_id)
        if line in self.client_ids.get(key, []):
            self.client_ids[key].remove(line)
            if not self.client_ids[key]:
                del self.client_ids[key]

    # -- holds -----------------------------------------------------------------------------------------------------

    def set_hold(self, owner: OrderLine | PairHold, units: int) -> None:
        """Hold more or give back, so that this much is held for an order, or for a pair of them."""
        line = owner.legs[0] if isinstance(owner, PairHold) else owner
        self.ledger.hold(line.account_id, line.asset_paid, units - owner.hold)
        owner.hold = units

    # -- reports ---------------------------------------------------------------------------------------------------

    def report(self, session_id: int, name: str, *, final: bool = False, **fields: Any) -> None:
        number = self.numbers.get(session_id, 0) + 1
        self.numbers[session_id] = number
        self.reports.append(Report(SEQUENCER, session_id, number, name, fields, final))

    def reject_order(
        self, session: Session, seq_num: int, message: NewOrderSingle, code: int, limit: int = 0, **fields: Any
    ) -> None:
        common = {
            "cl_ord_id": message.cl_ord_id,
            "order_id": None,
            "ref_seq_num": seq_num,
            "client_tag": message.client_tag,
            "limit": limit,
            "instrument_id": message.instrument_id,
            "account_id": message.account_id or session.account_id,
            "reject_code": code,
            "side": message.side,
        }
        self.report(session.session_id, "OrderRejected", **(common | fields))

    def reject_change(
        self, session: Session, seq_num: int, message: Change, refusal: Refusal, line: OrderLine | None = None
    ) -> None:
        is_cancel = isinstance(message, OrderCancelRequest)
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
            response_to=ResponseTo.CANCEL if is_cancel else ResponseTo.REPLACE,
            ord_status=status,
        )

    def reject_mass_cancel(self, session: Session, seq_num: int, message: MassCancelRequest, code: int) -> None:
        self.report(
            session.session_id,
            "MassCancelReport",
            cl_ord_id=message.cl_ord_id,
            ref_seq_num=seq_num,
            instrument_id=message.instrument_id,
            account_id=message.account_id or session.account_id,
            total_affected=0,
            reject_code=code,
            side=message.side,
            scope=message.scope,
        )

    def reject_quote(self, session: Session, seq_num: int, message: Quote, code: int) -> None:
        sides = {}
        for name in ("bid", "ask"):
            sides |= {f"{name}_order_id": None, f"{name}_unused_id": None}
            sides |= {f"{name}_reject_code": code, f"{name}_status": OrdStatus.REJECTED}
        self.report(
            session.session_id,
            "QuoteAck",
            quote_id=message.quote_id,
            ref_seq_num=seq_num,
            instrument_id=message.instrument_id,
            account_id=message.account_id or session.account_id,
            quote_set_id=message.quote_set_id,
            **sides,
        )

    def reject_list(self, session: Session, seq_num: int, message: OrderListRequest, code: int) -> None:
        self.report(
            session.session_id,
            "ListStatus",
            list_id=0,
            list_cl_ord_id=message.list_cl_ord_id,
            ref_seq_num=seq_num,
            instrument_id=message.instrument_id,
            account_id=message.account_id or session.account_id,
            list_type=message.list_type,
            status_type=ListStatusType.RESPONSE,
            order_status=ListOrderStatus.REJECT,
            leg_count=message.leg_count,
            reject_code=code,
        )

    def list_status(self, order_list: OrderList, status_type: int, order_status: int, ref_seq_num: int = 0) -> None:
        self.report(
            order_list.session,
            "ListStatus",
            list_id=order_list.list_id,
            list_cl_ord_id=order_list.list_cl_ord_id,
            ref_seq_num=ref_seq_num,
            instrument_id=order_list.instrument_id,
            account_id=order_list.account_id,
            list_type=order_list.list_type,
            status_type=status_type,
            order_status=order_status,
            leg_count=len(order_list.legs),
            reject_code=RejectCode.NONE,
        )

    def business_reject(self, session: Session, seq_num: int, message: Any, code: int) -> None:
        self.report(
            session.session_id,
            "BusinessReject",
            ref_seq_num=seq_num,
            cl_ord_id=int.from_bytes(message.pack()[:8], "little"),
            ref_template_id=message.TEMPLATE_ID,
            reject_code=code,
        )
