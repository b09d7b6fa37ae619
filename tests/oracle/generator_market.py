"""Random time, market states, filters, rates, locks and kill switches; and the whole generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ringbuf.wire.messages import (
    AccountLimits,
    InstrumentSchedule,
    InstrumentState,
    KillAction,
    KillScope,
    KillSwitch,
    MarketState,
    MassCancelFlags,
    MassCancelRequest,
    MassCancelScope,
    Sequence,
    StpModes,
)
from tests.oracle.choices import DAY_SECONDS, MILLISECOND_NS, SECOND_NS
from tests.oracle.exchange import Exchange
from tests.oracle.generator import Generator
from tests.oracle.generator_groups import GroupGenerator
from tests.oracle.tables import ADMIN_SESSION
from tests.oracle.world import Command, World, limits_of, rules_of, volatility_of

UNKNOWN_INSTRUMENT = 99


class FullGenerator(GroupGenerator):
    """Everything docs/MATCHING.md has."""

    def __init__(self, seed: int, world: World, exchange: Exchange) -> None:
        super().__init__(seed, world, exchange)
        self.kinds = [
            (260, self.limit_order),
            (40, self.market_order),
            (40, self.post_only),
            (40, self.fok_exact),
            (25, self.edge_of_funds),
            (30, self.edge_of_limits),
            (12, self.huge_order),
            (40, self.odd_order),
            (90, self.stop_order),
            (25, self.stop_iceberg),
            (45, self.sweep),
            (70, self.iceberg),
            (35, self.minimum),
            (45, self.quote_amount),
            (25, self.dated_order),
            (3, self.old_request),
            (110, self.replace_order),
            (40, self.amend_order),
            (45, self.cancel_order),
            (20, self.flagged_cancel),
            (45, self.cancel_replace),
            (75, self.order_list),
            (18, self.cancel_of_list),
            (60, self.quote),
            (6, self.broken_group),
            (8, self.unknown_order),
            (16, self.mass_cancel),
            (7, self.odd_sequence),
            (40, self.let_time_pass),
            (5, self.change_limits),
            (10, self.change_rules),
            (3, self.change_volatility),
            (2, self.change_schedule),
            (14, self.change_state),
            (3, self.change_fees),
            (8, self.adjust_balance),
            (5, self.change_account),
            (3, self.kill),
            (2, self.lock),
        ]
        self.weights = [weight for weight, _ in self.kinds]
        self.instrument_weights = (6, 4, 1, 1)
        self.repairs: list[Command] = []

    def next(self) -> Command:
        """Return one command; what blocks trading is mostly taken back before long."""
        roll = self.random.random()
        if self.exchange.sequencer.killed and roll < 0.15:
            return self.unkill()
        locked = [account_id for account_id, account in self.exchange.sequencer.accounts.items() if account.is_locked]
        if locked and roll < 0.08:
            return self.unlock(self.random.choice(locked))
        if self.repairs and roll < 0.025:
            return self.repairs.pop(0)
        if self.closed_markets() and self.random.random() < 0.03:
            return self.change_state()
        return super().next()

    def for_a_while(self, command: Command, repair: Any) -> Command:
        """Return a command that restricts trading, and note the message that takes it back."""
        self.repairs.append(Command(ADMIN_SESSION, repair))
        return command

    def burst(self) -> list[Command]:
        """Return commands in flight together: no time passes, and nothing ends many orders at once."""
        commands = super().burst()
        if self.random.random() < 0.25:
            session, instrument = self.random.choice((2, 4, 6)), self.instrument()
            commands += [self.quote_of(session, instrument) for _ in range(self.random.choice((2, 4, 8)))]
        return [
            command
            for command in commands
            if not command.tick and not isinstance(command.message, KillSwitch | MassCancelRequest | Sequence)
        ]

    # -- time ------------------------------------------------------------------------------------------------------

    def let_time_pass(self) -> Command:
        """Let a tick come after milliseconds, seconds, now and then hours."""
        pick = self.random.choice
        ms = pick((11, 40, 99, 101, 150, 600, 1_000, 1_600, 2_600, 4_100, 10_000, 70_000))
        roll = self.random.random()
        if roll < 0.03:
            ms = pick((3_600_000, 7 * 3_600_000))
        elif roll < 0.05:
            # To the end of the day of some instrument, or a second before it.
            end = self.exchange.sequencer.instruments[pick((1, 2, 3))].rules.day_end_second
            ms = ((end - self.now_s() - pick((0, 0, 1))) % DAY_SECONDS) * 1_000
        return Command(0, None, advance_ns=ms * MILLISECOND_NS + self.random.randint(0, 999), tick=True)

    def change_limits(self) -> Command:
        command = super().change_limits()
        if command.message.instrument_id == 2 and self.random.random() < 0.2:
            # The lower edge is 0: nothing may be sold by amount.
            command = replace(command, message=replace(command.message, band_down_bps=10_000))
        known = command.message.instrument_id in self.world.instruments
        return self.for_a_while(command, limits_of(command.message.instrument_id)) if known else command

    # -- market states ---------------------------------------------------------------------------------------------

    def change_state(self) -> Command:
        """Move a market on: into auctions, through halts, and mostly back to continuous."""
        states = {market.instrument_id: market.state for matcher in self.exchange.matchers.values()
                  for market in matcher.markets.values()}  # fmt: skip
        instrument_id = self.random.choice((1, 1, 1, 2, 2, 3, 4))
        if self.random.random() < 0.02:
            return Command(ADMIN_SESSION, InstrumentState(instrument_id=77, state=MarketState.AUCTION))
        away = [key for key, state in states.items() if state != MarketState.CONTINUOUS]
        if away and self.random.random() < 0.6:
            instrument_id = self.random.choice(away)
        follow = {
            MarketState.CONTINUOUS: (MarketState.AUCTION, MarketState.AUCTION, MarketState.PRE_OPEN, MarketState.HALTED,
                                     MarketState.CANCEL_ONLY, MarketState.CLOSED),
            MarketState.PRE_OPEN: (MarketState.AUCTION, MarketState.AUCTION, MarketState.CONTINUOUS,
                                   MarketState.PRE_OPEN),
            MarketState.AUCTION: (MarketState.CONTINUOUS, MarketState.CONTINUOUS, MarketState.CONTINUOUS,
                                  MarketState.CONTINUOUS, MarketState.HALTED, MarketState.PRE_OPEN),
            MarketState.HALTED: (MarketState.CONTINUOUS, MarketState.CONTINUOUS, MarketState.AUCTION),
            MarketState.CANCEL_ONLY: (MarketState.CONTINUOUS, MarketState.CLOSED),
            MarketState.CLOSED: (MarketState.PRE_OPEN, MarketState.CONTINUOUS),
        }  # fmt: skip
        state = self.random.choice(follow[MarketState(states[instrument_id])])
        return Command(ADMIN_SESSION, InstrumentState(instrument_id=instrument_id, state=state))

    def closed_markets(self) -> list[int]:
        """Return markets that want to be opened; auctions have time to collect."""
        markets = [market for matcher in self.exchange.matchers.values() for market in matcher.markets.values()]
        return [market.instrument_id for market in markets if market.state != MarketState.CONTINUOUS]

    def change_volatility(self) -> Command:
        pick = self.random.choice
        changes: dict[str, Any] = pick(
            ({}, {"up_bps": 0}, {"down_bps": 0}, {"up_bps": 150, "down_bps": 200}, {"reference_ms": 0},
             {"halt_ms": 100, "auction_ms": 100})
        )  # fmt: skip
        instrument_id = pick((1, 2, 2, 3, UNKNOWN_INSTRUMENT))
        command = Command(ADMIN_SESSION, volatility_of(instrument_id, **changes))
        wide = {"up_bps": 0, "down_bps": 0} if instrument_id != 2 else {}
        return self.for_a_while(command, volatility_of(instrument_id, **wide))

    def change_schedule(self) -> Command:
        """Let the market change its state by itself in some seconds; or clear an entry."""
        pick = self.random.choice
        second = (self.exchange.now_ns // SECOND_NS + pick((1, 2, 5, 60, 3_000))) % DAY_SECONDS
        message = InstrumentSchedule(
            instrument_id=pick((1, 2, 3)),
            second_of_day=second,
            entry=self.random.randrange(3),
            state=pick((MarketState.AUCTION, MarketState.CONTINUOUS, MarketState.CONTINUOUS, MarketState.PRE_OPEN)),
            active=pick((1, 1, 0)),
        )
        return Command(ADMIN_SESSION, message)

    # -- filters and rates -----------------------------------------------------------------------------------------

    def change_rules(self) -> Command:
        pick = self.random.choice
        changes: dict[str, Any] = pick(
            ({}, {}, {"open_orders_max": 5}, {"algo_orders_max": 1}, {"iceberg_orders_max": 1},
             {"order_lists_max": 1}, {"iceberg_orders_max": 1, "order_lists_max": 1}, {"amends_max": 1},
             {"iceberg_parts_max": 4}, {"notional_flags": 0}, {"market_min_qty": 5, "market_max_qty": 20},
             {"stp_modes": StpModes.NONE | StpModes.CANCEL_MAKER | StpModes.DECREMENT},
             {"bid_down_bps": 900, "ask_up_bps": 900}, {"trailing_above_min": 60, "trailing_below_max": 400})
        )  # fmt: skip
        instrument_id = pick((1, 1, 2, 2, 2, 3, 4))
        if self.random.random() < 0.35:
            changes = {"position_max": self.tight_position(instrument_id)}
        return self.for_a_while(Command(ADMIN_SESSION, rules_of(instrument_id, **changes)), rules_of(instrument_id))

    def tight_position(self, instrument_id: int) -> int:
        """Return a bound on positions some lots above what one account has."""
        definition = self.exchange.sequencer.instruments[instrument_id].definition
        owned = sum(self.exchange.balance(self.random.choice((1, 2, 3, 4, 6)), definition.base_asset_id))
        return max(1, owned + self.random.choice((5, 12, 30, 80)) * definition.base_per_lot)

    def change_account(self) -> Command:
        pick = self.random.choice
        account_id = pick((*self.world.accounts, 88))
        message = AccountLimits(
            account_id=account_id,
            open_orders_max=4 if account_id == 6 else pick((15, 100_000)),
            fee_tier=self.random.randrange(3),
            orders_per10_seconds=pick((0, 0, 0, 2, 6, 25)),
            orders_per_day=pick((0, 0, 0, 0, 30)),
            cancels_per10_seconds=pick((0, 0, 0, 2)),
        )
        free = AccountLimits(
            account_id=account_id,
            open_orders_max=4 if account_id == 6 else 100_000,
            fee_tier=self.random.randrange(3),
        )
        return self.for_a_while(Command(ADMIN_SESSION, message), free)

    # -- mass cancel, locks, kill switch ---------------------------------------------------------------------------

    def mass_cancel(self) -> Command:
        pick = self.random.choice
        command = super().mass_cancel()
        message: MassCancelRequest = command.message
        if self.random.random() < 0.25:
            message = replace(message, stp_group_id=pick((7, 1)))
        if self.random.random() < 0.2:
            message = replace(
                message, mass_flags=pick((MassCancelFlags.LOCK_ENTRY, MassCancelFlags.LOCK_ENTRY, 3, 8)),
                scope=pick((MassCancelScope.ACCOUNT, MassCancelScope.ACCOUNT, MassCancelScope.SESSION)),
            )  # fmt: skip
        if self.random.random() < 0.15:
            message = replace(message, scope=pick((MassCancelScope.FIRM, MassCancelScope.ALL, 9)))
            session = pick((ADMIN_SESSION, command.session))
            account_id = pick((1, 3)) if session == ADMIN_SESSION else 0
            return replace(command, session=session, message=replace(message, account_id=account_id))
        return replace(command, message=message)

    def lock(self) -> Command:
        """Lock an account, and cancel some of its orders."""
        message = MassCancelRequest(
            cl_ord_id=self.cl_ord_id(),
            instrument_id=self.random.choice((0, 1, 2, 4)),
            scope=MassCancelScope.ACCOUNT,
            mass_flags=MassCancelFlags.LOCK_ENTRY,
        )
        return Command(self.session(), message)

    def unlock(self, account_id: int) -> Command:
        message = MassCancelRequest(
            account_id=account_id, scope=MassCancelScope.ACCOUNT, mass_flags=MassCancelFlags.UNLOCK_ENTRY
        )
        return Command(ADMIN_SESSION, message)

    def kill(self) -> Command:
        pick = self.random.choice
        scope = pick((KillScope.ACCOUNT, KillScope.ACCOUNT, KillScope.INSTRUMENT, KillScope.FIRM, KillScope.ALL))
        target_id = pick((1, 2, 3)) if self.random.random() < 0.95 else 88
        message = KillSwitch(scope=scope, target_id=target_id, action=KillAction.KILL)
        session = ADMIN_SESSION if self.random.random() < 0.9 else self.session()
        return Command(session, message)

    def unkill(self) -> Command:
        """Take a kill back, with two operators or with too few."""
        scope, target_id = self.random.choice(sorted(self.exchange.sequencer.killed))
        operators = self.random.choice(((4, 5), (4, 5), (4, 5), (4, 4), (0, 5), (4, 0)))
        message = KillSwitch(
            scope=KillScope(scope),
            target_id=target_id,
            action=KillAction.UNKILL,
            first_operator=operators[0],
            second_operator=operators[1],
        )
        return Command(ADMIN_SESSION, message)


def make_generator(seed: int, world: World, exchange: Exchange) -> Generator:
    """Return the generator of everything a target can be asked."""
    return FullGenerator(seed, world, exchange)
