"""What operators change: assets, instruments, accounts, sessions, money, filters, rates, the kill switch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ringbuf.wire.messages import (
    AccountCreate,
    AccountLimits,
    AssetAdd,
    BalanceAdjust,
    BalanceKind,
    FeeTierSet,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentRules,
    InstrumentSchedule,
    InstrumentState,
    InstrumentVolatility,
    KillAction,
    KillScope,
    KillSwitch,
    RejectCode,
    SessionCreate,
)
from tests.oracle.accounts import Account
from tests.oracle.admission_quotes import QuoteAdmission
from tests.oracle.choices import BAND_SCALE, NEW_REFERENCE_REPLACES_LAST_TRADE, RATE_MAX
from tests.oracle.filters import Instrument, Refusal
from tests.oracle.lines import Session
from tests.oracle.records import ALL_MATCHERS, Record

ADMIN_MESSAGES = (
    AccountCreate,
    AccountLimits,
    AssetAdd,
    BalanceAdjust,
    FeeTierSet,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentRules,
    InstrumentSchedule,
    InstrumentState,
    InstrumentVolatility,
    KillSwitch,
    SessionCreate,
)


class Administration(QuoteAdmission):
    """Commands of privileged sessions, each answered by an AdminAck."""

    def admit_admin(self, session: Session, seq_num: int, message: Any, stamp_ns: int) -> None:
        result_id = 0
        code, limit = RejectCode.NONE, 0
        try:
            if not session.is_privileged:
                raise Refusal(RejectCode.NOT_PRIVILEGED)
            result_id = self.apply_admin(session, seq_num, message, stamp_ns)
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

    def apply_admin(self, session: Session, seq_num: int, message: Any, stamp_ns: int) -> int:
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
            self.instruments[instrument_id] = Instrument(filled, self.orders_max)
            self.log.append(Record(ALL_MATCHERS, stamp_ns, session.session_id, seq_num, filled))
            return instrument_id
        if isinstance(message, AccountLimits | BalanceAdjust):
            self.change_account(message)
        elif isinstance(message, FeeTierSet):
            if message.instrument_id != 0:
                self.instrument_for(message.instrument_id)
            self.set_rates(message)
            self.log.append(Record(ALL_MATCHERS, stamp_ns, session.session_id, seq_num, message))
        elif isinstance(message, KillSwitch):
            self.switch(message)
            if message.action == KillAction.KILL:
                self.log.append(Record(ALL_MATCHERS, stamp_ns, session.session_id, seq_num, message))
        else:
            self.change_instrument(session, seq_num, message, stamp_ns)
        return 0

    def change_instrument(self, session: Session, seq_num: int, message: Any, stamp_ns: int) -> None:
        instrument = self.instrument_for(message.instrument_id)
        if isinstance(message, InstrumentLimits):
            if message.band_down_bps > BAND_SCALE:
                raise Refusal(RejectCode.OUT_OF_RANGE)
            instrument.limits = message
            if message.reference_px is not None and NEW_REFERENCE_REPLACES_LAST_TRADE:
                instrument.last_trade_px = None
        elif isinstance(message, InstrumentRules):
            instrument.rules = message
        partition = instrument.definition.assigned_partition
        self.log.append(Record(partition, stamp_ns, session.session_id, seq_num, message))

    def change_account(self, message: AccountLimits | BalanceAdjust) -> None:
        account = self.accounts.get(message.account_id)
        if account is None:
            raise Refusal(RejectCode.UNKNOWN_ACCOUNT)
        if isinstance(message, AccountLimits):
            account.open_orders_max = message.open_orders_max
            account.fee_tier = message.fee_tier
            account.orders_per_10s = message.orders_per10_seconds
            account.orders_per_day = message.orders_per_day
            account.cancels_per_10s = message.cancels_per10_seconds
            return
        if message.asset_id not in self.assets:
            raise Refusal(RejectCode.UNKNOWN_ASSET)
        if message.amount == 0:
            # Only says that what is in transit under the reference is final.
            if message.reference == 0 or message.kind == BalanceKind.ADJUSTMENT:
                raise Refusal(RejectCode.OUT_OF_RANGE)
            return
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

    def switch(self, message: KillSwitch) -> None:
        """Block, or unblock, what two operators together may."""
        if message.scope == KillScope.ACCOUNT and message.target_id not in self.accounts:
            raise Refusal(RejectCode.UNKNOWN_ACCOUNT)
        if message.scope == KillScope.INSTRUMENT:
            self.instrument_for(message.target_id)
        reach = (int(message.scope), 0 if message.scope == KillScope.ALL else message.target_id)
        if message.action == KillAction.KILL:
            self.killed.add(reach)
            return
        if 0 in (message.first_operator, message.second_operator) or message.first_operator == message.second_operator:
            raise Refusal(RejectCode.SECOND_OPERATOR_REQUIRED)
        self.killed.discard(reach)
