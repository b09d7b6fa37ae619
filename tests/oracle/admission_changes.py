"""Admission of cancels, replaces, amends and mass cancels."""

from __future__ import annotations

from ringbuf.wire.messages import (
    MassCancelFlags,
    MassCancelRequest,
    MassCancelScope,
    NotionalFlags,
    OrderAmendRequest,
    OrderCancelRequest,
    OrderReplaceRequest,
    RejectCode,
    Side,
    SideOrBoth,
)
from tests.oracle import filters
from tests.oracle.admission import Admission
from tests.oracle.choices import MONEY_LIMIT, REPLACE_MAY_REPEAT_OWN_CL_ORD_ID, REPLACES_IN_FLIGHT_MAX
from tests.oracle.filters import ICEBERG_TYPES, RESTING_TIFS, Refusal
from tests.oracle.lines import OrderLine, Session, Version
from tests.oracle.records import ALL_MATCHERS, Record
from tests.oracle.tables import ADMIN_ACCOUNT

MASS_FLAGS_KNOWN = MassCancelFlags.LOCK_ENTRY | MassCancelFlags.UNLOCK_ENTRY


class ChangeAdmission(Admission):
    """Requests about orders that are open already."""

    def admit_cancel(self, session: Session, seq_num: int, message: OrderCancelRequest, stamp_ns: int) -> None:
        try:
            line = self.checked_cancel(session, message, stamp_ns)
        except Refusal as refusal:
            self.reject_change(session, seq_num, message, refusal)
            return
        line.request.account.cancels.add(stamp_ns)
        self.log_change(session, seq_num, message, line, stamp_ns)

    # -- replace and amend -----------------------------------------------------------------------------------------

    def admit_replace(self, session: Session, seq_num: int, message: OrderReplaceRequest, stamp_ns: int) -> None:
        line = None
        try:
            account = self.account_for(session, message.account_id)
            self.instrument_for(message.instrument_id)
            self.check_blocked(account, message.instrument_id)
            line = self.resolve(account.account_id, message)
            version = self.checked_version(line, message, stamp_ns)
            price_max, total_max, need = self.cover_with(line, version)
            self.check_cover(line.account_id, line.asset_paid, need - line.hold)
        except Refusal as refusal:
            self.reject_change(session, seq_num, message, refusal, line)
            return
        line.has_entry = line.has_entry or version.display is not None
        line.pending.append(version)
        line.price_max, line.total_max = price_max, total_max
        self.set_hold(line, need)
        self.take_client_id(line, version.cl_ord_id)
        self.count_order(line.request.account, stamp_ns)
        self.log_change(session, seq_num, message, line, stamp_ns)

    def checked_version(self, line: OrderLine, message: OrderReplaceRequest, stamp_ns: int) -> Version:
        """Run the checks of a replace between the order's existence and the money."""
        if line.pair is not None or line.is_pending_leg:
            raise Refusal(RejectCode.INVALID_LIST)
        if line.quote is not None:
            raise Refusal(RejectCode.INVALID_QUOTE)
        if message.replace_flags or line.amount is not None:
            # A quantity in lots says nothing about an amount of money.
            raise Refusal(RejectCode.INVALID_COMBINATION)
        if message.price is not None and line.is_market_type:
            raise Refusal(RejectCode.INVALID_PRICE, line.instrument.limits.min_px)
        version = self.new_version(line, message)
        self.check_new_terms(line, message, version)
        self.check_order_rate(line.request.account, stamp_ns)
        self.check_larger_position(line, version)
        self.check_in_flight(line)
        self.check_new_client_id(line, version.cl_ord_id)
        if version.display is not None and not line.has_entry:
            self.check_entry_room(line.partition)
        return version

    def new_version(self, line: OrderLine, message: OrderReplaceRequest) -> Version:
        """Fill absent fields from the newest version in flight."""
        newest = line.pending[-1] if line.pending else line
        total = newest.total if message.order_qty is None else message.order_qty
        display = newest.display
        if message.display_qty is not None:
            display = message.display_qty if message.display_qty < total else None
        return Version(
            price=newest.price if message.price is None else message.price,
            total=total,
            display=display,
            cl_ord_id=message.cl_ord_id,
        )

    def check_new_terms(self, line: OrderLine, message: OrderReplaceRequest, version: Version) -> None:
        """Check price, band and quantity only where the request names them, the notional always."""
        instrument = line.instrument
        if message.price is not None:
            filters.check_price(instrument, version.price)
        is_free = not line.is_market_type and version.price == 0
        if message.order_qty is not None or is_free:
            filters.check_quantity(instrument, version.total, ord_type=line.ord_type, is_free=is_free)
        if message.display_qty is not None:
            self.check_display(line, message.display_qty)
        units = instrument.notional(version.price, version.total)
        filters.check_notional(instrument, units, version.total, is_market=line.is_market_type)
        if message.price is not None:
            base = filters.trigger_base(line.request) if line.is_algo else instrument.reference()
            filters.check_band(instrument, line.side, version.price, base)
        if version.display is not None:
            filters.check_iceberg_parts(instrument, version.total, version.display)

    def check_display(self, line: OrderLine, display_qty: int) -> None:
        may_be_iceberg = line.ord_type in ICEBERG_TYPES and line.request.message.time_in_force in RESTING_TIFS
        if display_qty <= 0 or not may_be_iceberg:
            raise Refusal(RejectCode.INVALID_DISPLAY_QTY)
        if display_qty < line.instrument.limits.min_qty:
            raise Refusal(RejectCode.INVALID_DISPLAY_QTY, line.instrument.limits.min_qty)

    def check_larger_position(self, line: OrderLine, version: Version) -> None:
        """Check the position of a buy that is to be larger than any version of it so far."""
        if line.side == Side.BUY and version.total > max(line.total, line.total_max):
            self.check_position_of(line.request, version.total - line.cum, except_line=line)

    def check_in_flight(self, line: OrderLine) -> None:
        if len(line.pending) >= REPLACES_IN_FLIGHT_MAX:
            raise Refusal(RejectCode.PENDING_REQUEST, REPLACES_IN_FLIGHT_MAX)

    def check_new_client_id(self, line: OrderLine, cl_ord_id: int) -> None:
        if REPLACE_MAY_REPEAT_OWN_CL_ORD_ID and cl_ord_id == line.cl_ord_id:
            return
        self.check_client_id(line.account_id, line.instrument.instrument_id, cl_ord_id)

    def cover_with(self, line: OrderLine, version: Version) -> tuple[int, int, int]:
        """Return highest price, highest total, and the hold that covers every version in flight.

        The hold never shrinks here: what a smaller version frees comes back when the last replace is answered.
        """
        if not line.pending:
            line.price_max, line.total_max = line.price, line.total
        price_max = max(line.price_max, version.price)
        total_max = max(line.total_max, version.total)
        need = line.instrument.hold_for(line.side, price_max, total_max - line.cum)
        if need >= MONEY_LIMIT:
            raise Refusal(RejectCode.MAX_NOTIONAL, line.instrument.limits.max_notional or MONEY_LIMIT - 1)
        return price_max, total_max, need

    def admit_amend(self, session: Session, seq_num: int, message: OrderAmendRequest, stamp_ns: int) -> None:
        line = None
        try:
            account = self.account_for(session, message.account_id)
            line = self.resolve(account.account_id, message)
            self.check_amend(line, message, stamp_ns)
        except Refusal as refusal:
            self.reject_change(session, seq_num, message, refusal, line)
            return
        newest = line.pending[-1] if line.pending else line
        if not line.pending:
            line.price_max, line.total_max = line.price, line.total
        line.pending.append(Version(newest.price, message.new_qty, newest.display, message.cl_ord_id))
        line.amends += 1
        self.take_client_id(line, message.cl_ord_id)
        self.count_order(line.request.account, stamp_ns)
        self.log_change(session, seq_num, message, line, stamp_ns)

    def check_amend(self, line: OrderLine, message: OrderAmendRequest, stamp_ns: int) -> None:
        rules = line.instrument.rules
        if line.is_pending_leg:
            raise Refusal(RejectCode.INVALID_LIST)
        if line.quote is not None:
            raise Refusal(RejectCode.INVALID_QUOTE)
        if line.amount is not None:
            raise Refusal(RejectCode.INVALID_COMBINATION)
        least = filters.quantity_bounds(line.instrument, line.ord_type)[0]
        if message.new_qty <= 0:
            raise Refusal(RejectCode.INVALID_QTY, least)
        if message.new_qty < least:
            raise Refusal(RejectCode.MIN_QTY, least)
        self.check_amended_notional(line, message.new_qty)
        if rules.amends_max and line.amends >= rules.amends_max:
            raise Refusal(RejectCode.AMEND_LIMIT, rules.amends_max)
        self.check_order_rate(line.request.account, stamp_ns)
        self.check_in_flight(line)
        self.check_new_client_id(line, message.cl_ord_id)

    def check_amended_notional(self, line: OrderLine, total: int) -> None:
        """An amend only makes the order smaller: of the notional range the minimum counts."""
        instrument = line.instrument
        newest = line.pending[-1] if line.pending else line
        has_min = not line.is_market_type or instrument.rules.notional_flags & NotionalFlags.MARKET_MIN
        if has_min and instrument.notional(newest.price, total) < instrument.limits.min_notional:
            raise Refusal(RejectCode.MIN_NOTIONAL, instrument.limits.min_notional)

    # -- mass cancel -----------------------------------------------------------------------------------------------

    def admit_mass_cancel(self, session: Session, seq_num: int, message: MassCancelRequest, stamp_ns: int) -> None:
        try:
            account_id = self.check_mass_cancel(session, message, stamp_ns)
        except Refusal as refusal:
            self.reject_mass_cancel(session, seq_num, message, refusal.code)
            return
        account = self.accounts[account_id]
        if message.scope <= MassCancelScope.ACCOUNT:
            account.cancels.add(stamp_ns)
        if message.mass_flags:
            account.is_locked = bool(message.mass_flags & MassCancelFlags.LOCK_ENTRY)
        record = Record(ALL_MATCHERS, stamp_ns, session.session_id, seq_num, message, account_id)
        record.firm_id = account.firm_id
        self.log.append(record)

    def check_mass_cancel(self, session: Session, message: MassCancelRequest, stamp_ns: int) -> int:
        """Return the account it is for."""
        if (
            message.side not in set(SideOrBoth)
            or message.scope not in set(MassCancelScope)
            or message.mass_flags & ~int(MASS_FLAGS_KNOWN)
        ):
            raise Refusal(RejectCode.INVALID_COMBINATION)
        of_everybody = message.scope > MassCancelScope.FIRM and session.is_privileged
        account = self.accounts[ADMIN_ACCOUNT] if of_everybody else self.account_for(session, message.account_id)
        if message.scope > MassCancelScope.ACCOUNT and not session.is_privileged:
            raise Refusal(RejectCode.PERMISSION_DENIED)
        if message.scope == MassCancelScope.FIRM and account.firm_id == 0:
            raise Refusal(RejectCode.INVALID_COMBINATION)
        if message.mass_flags == MASS_FLAGS_KNOWN:
            raise Refusal(RejectCode.INVALID_COMBINATION)
        if message.mass_flags and message.scope != MassCancelScope.ACCOUNT:
            raise Refusal(RejectCode.INVALID_COMBINATION)
        if message.instrument_id != 0 or message.scope == MassCancelScope.INSTRUMENT:
            self.instrument_for(message.instrument_id)
        if message.scope == MassCancelScope.FIRM and account.firm_id == 0:
            raise Refusal(RejectCode.INVALID_COMBINATION)
        if message.scope <= MassCancelScope.ACCOUNT:
            self.check_cancel_rate(account, stamp_ns)
        return account.account_id
