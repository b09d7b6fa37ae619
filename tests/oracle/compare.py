"""Run the model and a target in lockstep; report the first difference; shrink the run that shows it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from time import monotonic
from typing import Any

from ringbuf.wire.messages import CancelReason, KillSwitch, MassCancelRequest, RejectCode, RestateReason, Side
from ringbuf.wire.messages import Sequence as SkipNumbers
from tests.oracle.adapter import Levels, Target, describe_line
from tests.oracle.exchange import Exchange, Numbered
from tests.oracle.generator_market import make_generator
from tests.oracle.records import SEQUENCER, MarketEvent, Outcome, Report
from tests.oracle.world import Command, World, setup

MakeTarget = Callable[[World], Target]
# One command settled before the next, or several in flight together.
Step = Command | list[Command]
SHRINK_SECONDS_MAX = 25.0
NEVER = 1 << 62
OPEN_FIELDS = {
    ("CancelReplaceReject", "orig_cl_ord_id"),
    ("CancelReplaceReject", "ord_status"),
    ("MassCancelReport", "account_id"),
    ("ListStatus", "list_id"),
}
OPEN_ADMIN_FIELDS = {"limit"}
TEMPLATES_WITH_RESULT = {330, 331, 334, 338}
DIGEST_ID, DIGEST_RANK, DIGEST_QUANTITY = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F
STATE_EVENTS = ("InstrumentStatus", "AuctionIndicative")


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing the target did otherwise than the model."""

    step: int
    command: Step
    what: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return (
            f"step {self.step}: {_lines(self.command)}\n  {self.what}\n"
            f"  expected: {_lines(self.expected)}\n  got:      {_lines(self.got)}"
        )


def _lines(value: Any) -> str:
    if isinstance(value, list):
        return "\n            ".join(str(item) for item in value) or "nothing"
    return str(value)


class Mismatch(Exception):
    def __init__(self, what: str, expected: Any, got: Any) -> None:
        super().__init__(what)
        self.what, self.expected, self.got = what, expected, got


def is_open(report: Report, name: str) -> bool:
    """Return True for a field the documents say nothing about (README.md, 'not compared')."""
    if (report.name, name) in OPEN_FIELDS:
        return True
    values = report.fields
    if report.name == "OrderRejected":
        is_bare = values["reject_code"] == RejectCode.INVALID_PRICE and values["limit"] == 0
        return (report.partition == SEQUENCER and name == "account_id") or (name == "limit" and is_bare)
    if report.name == "CancelReplaceReject" and name == "limit":
        return bool(values["reject_code"] == RejectCode.INVALID_PRICE)
    if report.name == "CancelReplaceReject" and report.partition == SEQUENCER:
        return name in ("order_id", "account_id")
    if report.name == "OrderCanceled" and values["cancel_reason"] != CancelReason.CLIENT:
        return name in ("cl_ord_id", "orig_cl_ord_id", "ref_seq_num")
    if report.name == "OrderReplaced" and values["restate_reason"] != RestateReason.CLIENT:
        return name == "ref_seq_num"
    if report.name == "AdminAck":
        return name in OPEN_ADMIN_FIELDS or (
            name == "result_id" and values["ref_template_id"] not in TEMPLATES_WITH_RESULT
        )
    return False


def is_ended_with_others(values: dict[str, Any]) -> bool:
    """Return True for an order that a mass cancel or kill switch ended, itself or by way of its pair."""
    return values.get("cancel_reason") in (
        CancelReason.MASS_CANCEL,
        CancelReason.KILL_SWITCH,
        CancelReason.LIST_CANCELED,
    )


def same_report(expected: Report, got: Report, *, in_order: bool = True) -> bool:
    """Compare two reports; `in_order` False: of what ends many orders neither numbers nor which leg went first."""
    if (expected.partition, expected.session, expected.name) != (got.partition, got.session, got.name):
        return False
    if in_order and expected.seq_num != got.seq_num:
        return False
    if expected.partition != SEQUENCER and expected.final != got.final:
        return False
    free: set[str] = set()
    if not in_order and is_ended_with_others(expected.fields) and is_ended_with_others(got.fields):
        free = {"cancel_reason"}
    return all(
        got.fields.get(name) == value
        for name, value in expected.fields.items()
        if name not in free and not is_open(expected, name)
    )


class Replica:
    """A book rebuilt from market data alone."""

    def __init__(self) -> None:
        self.sides: dict[int, list[list[int]]] = {Side.BUY: [], Side.SELL: []}
        self.last_update_id = 0

    def apply(self, event: MarketEvent) -> None:
        if event.update_id != self.last_update_id + 1:
            raise Mismatch(f"update id of {event.name}", self.last_update_id + 1, event.update_id)
        self.last_update_id = event.update_id
        values = event.fields
        if event.name == "OrderAdd":
            self.insert(values["side"], values["order_id"], values["price"], values["qty"])
        elif event.name == "OrderReplace":
            self.take(event)
            self.insert(values["side"], values["order_id"], values["new_price"], values["new_qty"])
        elif event.name == "OrderDelete":
            self.take(event)
        elif event.name == "OrderReduce":
            self.find(event)[2] = values["new_qty"]
        elif event.name == "OrderExecute":
            entry = self.find(event)
            entry[2] -= values["last_qty"]
            if entry[2] == 0:
                self.take(event)
        elif event.name == "BookDigest":
            self.check_digest(event)

    def check_digest(self, event: MarketEvent) -> None:
        """Compare a digest with that of the book as rebuilt so far (docs/PROTOCOL.md, section 14)."""
        digest, count = 0, 0
        for side, entries in self.sides.items():
            for order_id, price, quantity in entries:
                rank = price if side == Side.SELL else -1 - price
                key = (order_id * DIGEST_ID % (1 << 64)) ^ (rank * DIGEST_RANK % (1 << 64))
                digest = (digest + key * (quantity + DIGEST_QUANTITY)) % (1 << 128)
                count += 1
        told = event.fields["digest_low"] | event.fields["digest_high"] << 64
        if (digest, count) != (told, event.fields["order_count"]):
            raise Mismatch("digest of the book and number of orders", (digest, count), (told, event))

    def insert(self, side: int, order_id: int, price: int, quantity: int) -> None:
        entries = self.sides[side]
        index = 0
        while index < len(entries) and (
            entries[index][1] >= price if side == Side.BUY else entries[index][1] <= price
        ):
            index += 1
        entries.insert(index, [order_id, price, quantity])

    def find(self, event: MarketEvent) -> list[int]:
        for entry in self.sides[event.fields["side"]]:
            if entry[0] == event.fields["order_id"]:
                return entry
        raise Mismatch(f"{event.name} of an order market data never showed", "a shown order", event)

    def take(self, event: MarketEvent) -> None:
        self.sides[event.fields["side"]].remove(self.find(event))

    def book(self) -> tuple[Levels, Levels]:
        bids, asks = ([(a, b, c) for a, b, c in self.sides[side]] for side in (Side.BUY, Side.SELL))
        return bids, asks


@dataclass
class Lockstep:
    """The model and one target, fed with the same commands."""

    world: World
    target: Target
    deep_every: int = 16
    model: Exchange = field(init=False)
    replicas: dict[int, Replica] = field(default_factory=lambda: defaultdict(Replica))
    # The model's list ids -> the target's.
    list_ids: dict[int, int] = field(default_factory=dict)
    step: int = 0

    def __post_init__(self) -> None:
        self.model = self.world.exchange()

    def run(self, step: Step) -> Difference | None:
        """Give both the step; return the first difference."""
        self.step += 1
        commands = step if isinstance(step, list) else [step]
        advance_ns = max((command.advance_ns for command in commands), default=0)
        self.model.now_ns += advance_ns
        self.target.advance(advance_ns)
        if not isinstance(step, list) and step.bind:
            self.model.bind(step.bind)
            self.target.bind(step.bind)
            return None
        return self.catch(step, lambda: self.run_commands(commands))

    def run_commands(self, commands: list[Command]) -> None:
        """Run what is in flight together. The target goes first: the model follows the times in its log."""
        is_tick = any(command.tick for command in commands)
        frames = numbered(self.model, [command for command in commands if not command.tick])
        got = self.target.run(frames, tick=is_tick)
        expected = self.model.burst(frames, got.log)
        ends_many = any(isinstance(command.message, MassCancelRequest | KillSwitch) for command in commands)
        ticked = any(entry.now_ns is not None for entry in got.log)
        self.compare(got, expected, ends_many=ends_many, ticked=ticked)

    def catch(self, step: Step, act: Callable[[], None]) -> Difference | None:
        """Act, look into the state when it is time; turn what goes wrong into a difference."""
        try:
            act()
            if self.step % self.deep_every == 0:
                self.compare_state()
        except Mismatch as mismatch:
            return Difference(self.step, step, mismatch.what, mismatch.expected, mismatch.got)
        except Exception as error:  # whatever breaks in the target is the finding
            return Difference(self.step, step, "the target failed", "no exception", repr(error))
        return None

    def finish(self, last: Step) -> Difference | None:
        """Compare everything once more at the end of a run."""
        return self.catch(last, self.compare_state)

    # -- visible output --------------------------------------------------------------------------------------------

    def compare(self, got: Outcome, expected: Outcome, *, ends_many: bool, ticked: bool) -> None:
        # What the matchers said comes first: it is what partition 0 goes by.
        for partition in (*range(1, self.world.partitions + 1), SEQUENCER):
            wanted = [report for report in expected.reports if report.partition == partition]
            seen = [report for report in got.reports if report.partition == partition]
            if ends_many:
                self.compare_mass_cancel(wanted, seen)
            else:
                self.compare_reports(wanted, seen)
                self.compare_list_ids(wanted, seen)
        self.compare_replies(expected, got)
        self.compare_market(expected.market_events, got.market_events, many=ends_many or ticked)

    def compare_reports(self, wanted: list[Report], seen: list[Report]) -> None:
        for index in range(max(len(wanted), len(seen))):
            if index >= len(wanted) or index >= len(seen) or not same_report(wanted[index], seen[index]):
                raise Mismatch(f"report {index}{_field_names(wanted, seen, index)}", wanted, seen)

    def compare_mass_cancel(self, wanted: list[Report], seen: list[Report]) -> None:
        """The order in which a mass cancel finds its orders is free; everything else is not."""
        last = ("AdminAck", "MassCancelReport")

        def by_order(report: Report) -> tuple[bool, str, int]:
            concerns = report.fields.get("order_id") or report.fields.get("list_cl_ord_id") or 0
            return report.name in last, report.name, concerns

        ordered_wanted, ordered_seen = sorted(wanted, key=by_order), sorted(seen, key=by_order)
        numbers = [sorted((report.session, report.seq_num) for report in reports) for reports in (wanted, seen)]
        pairs = zip(ordered_wanted, ordered_seen, strict=False)
        if (
            len(wanted) != len(seen)
            or numbers[0] != numbers[1]
            or not all(same_report(one, other, in_order=False) for one, other in pairs)
        ):
            raise Mismatch("reports of a mass cancel", ordered_wanted, ordered_seen)
        if seen and seen[-1].partition != SEQUENCER and seen[-1].name != "MassCancelReport":
            raise Mismatch("the last report of a mass cancel", "MassCancelReport", seen[-1])

    def compare_list_ids(self, wanted: list[Report], seen: list[Report]) -> None:
        """How lists are numbered is the target's choice; one list has one number."""
        for one, other in zip(wanted, seen, strict=True):
            if one.name == "ListStatus" and one.fields["list_id"]:
                list_id = self.list_ids.setdefault(one.fields["list_id"], other.fields["list_id"])
                if list_id != other.fields["list_id"]:
                    raise Mismatch("list id", list_id, other)

    def compare_replies(self, expected: Outcome, got: Outcome) -> None:
        wanted = [(name, values) for _, name, values in expected.replies]
        seen = [(name, values) for _, name, values in got.replies]
        good = len(wanted) == len(seen) and all(
            one[0] == other[0] and one[1].items() <= other[1].items()
            for one, other in zip(wanted, seen, strict=True)
        )
        if not good:
            raise Mismatch("replies", wanted, seen)

    def compare_market(self, wanted: list[MarketEvent], seen: list[MarketEvent], *, many: bool) -> None:
        all_seen, seen = seen, [event for event in seen if event.name != "BookDigest"]
        if bool(wanted) != bool(seen):
            raise Mismatch("market data", wanted, seen)
        # Only a partition has an order of its own.
        wanted, seen = (sorted(events, key=attrgetter("partition")) for events in (wanted, seen))
        trades = [[_trade(event) for event in events if event.name == "OrderExecute"] for events in (wanted, seen)]
        if trades[0] != trades[1]:
            raise Mismatch("trades in market data", trades[0], trades[1])
        states = [[_state(event) for event in events if event.name in STATE_EVENTS] for events in (wanted, seen)]
        if states[0] != states[1]:
            raise Mismatch("market states in market data", states[0], states[1])
        for partition in {event.partition for event in seen}:
            # Each input ends once; what concerns several instruments ends on each, and may be several events.
            ends, own = ([event.last for event in events if event.partition == partition] for events in (seen, wanted))
            if not ends[-1] or (sum(ends) != sum(own) and not many):
                raise Mismatch("end-of-event flags", f"{sum(own)}, one on the last event of each input", seen)
        final = {event.instrument_id: event.last for event in seen}
        if not all(final.values()):
            raise Mismatch("last events of instruments", "end-of-event on each", seen)
        # Digests have a number too, and must fit the book.
        for event in all_seen:
            self.replicas[event.instrument_id].apply(event)
        for instrument_id in {event.instrument_id for event in wanted + seen}:
            rebuilt, book = self.replicas[instrument_id].book(), self.model.book(instrument_id)
            if rebuilt != book:
                raise Mismatch(f"book {instrument_id} rebuilt from market data", book, rebuilt)

    # -- state -----------------------------------------------------------------------------------------------------

    def compare_state(self) -> None:
        self.model.check()
        self.target.check()
        for account_id in self.world.accounts:
            if account_id not in self.model.sequencer.accounts:
                continue
            for asset_id in self.world.assets:
                wanted, seen = self.model.balance(account_id, asset_id), self.target.balance(account_id, asset_id)
                if wanted != seen:
                    raise Mismatch(f"balance of account {account_id} asset {asset_id}", wanted, seen)
            self.compare_open_orders(account_id)
        for instrument_id in self.model.sequencer.instruments:
            book, target_book = self.model.book(instrument_id), self.target.book(instrument_id)
            if book != target_book:
                raise Mismatch(f"book {instrument_id}", book, target_book)

    def compare_open_orders(self, account_id: int) -> None:
        key = lambda order: (order["instrument_id"], order["order_id"])  # noqa: E731
        wanted = sorted((describe_line(line) for line in self.model.open_orders(account_id)), key=key)
        seen = sorted(self.target.open_orders(account_id), key=key)
        same = len(wanted) == len(seen) and all(
            one.items() <= other.items() for one, other in zip(wanted, seen, strict=True)
        )
        if not same:
            raise Mismatch(f"open orders of account {account_id}", wanted, seen)


def _field_names(wanted: list[Report], seen: list[Report], index: int) -> str:
    if index >= min(len(wanted), len(seen)):
        return " is missing or too many"
    one, other = wanted[index], seen[index]
    names = [
        f"{name} {value!r} != {other.fields.get(name)!r}"
        for name, value in one.fields.items()
        if not is_open(one, name) and other.fields.get(name) != value
    ]
    for name in ("name", "session", "seq_num", "final"):
        if getattr(one, name) != getattr(other, name):
            names.append(f"{name} {getattr(one, name)!r} != {getattr(other, name)!r}")
    return ": " + ", ".join(names)


def _trade(event: MarketEvent) -> tuple[int, ...]:
    values = event.fields
    names = ("order_id", "trade_id", "last_px", "last_qty", "side", "implied")
    return (event.instrument_id, *(int(values[name]) for name in names))


def _state(event: MarketEvent) -> tuple[Any, ...]:
    names = ("status", "indicative_px", "indicative_qty", "surplus_qty", "surplus_side")
    return event.instrument_id, event.name, *(event.fields.get(name) for name in names)


@dataclass
class Result:
    """A finished random run."""

    steps: list[Step]
    difference: Difference | None
    seen: Counter[str] = field(default_factory=Counter)


def numbered(exchange: Exchange, commands: Iterable[Command]) -> list[Numbered]:
    """Give each command of a burst its numbers."""
    following: dict[int, int] = {}
    result = []
    for command in commands:
        next_seq = following.get(command.session, exchange.next_seq(command.session))
        frames = command.frames(next_seq)
        if isinstance(command.message, SkipNumbers):
            frames = [(0, command.message)]
        elif command.seq_shift == 0:
            next_seq += len(frames) if not command.gap_at else command.gap_at
        following[command.session] = next_seq
        result.append((command.session, frames, command.age_us))
    return result


def run_steps(
    world: World, steps: Iterable[Step], make_target: MakeTarget, *, deep_every: int = 1
) -> Difference | None:
    """Run the setup and these steps; return the first difference."""
    with closing(make_target(world)) as target:
        lockstep = Lockstep(world, target, deep_every)
        last: Step = []
        for last in [*setup(world), *steps]:
            difference = lockstep.run(last)
            if difference is not None:
                return difference
        return lockstep.finish(last)


def run_random(
    seed: int,
    count: int,
    world: World,
    make_target: MakeTarget,
    *,
    deep_every: int = 16,
    bursts: bool = False,
    swarm: bool = False,
) -> Result:
    """Run the setup and `count` generated steps; `swarm`: of kinds weighted anew by the seed."""
    with closing(make_target(world)) as target:
        return _random_steps(seed, count, Lockstep(world, target, deep_every), bursts=bursts, swarm=swarm)


def _random_steps(seed: int, count: int, lockstep: Lockstep, *, bursts: bool, swarm: bool) -> Result:
    world = lockstep.world
    result = Result([], None)
    for command in setup(world):
        result.difference = lockstep.run(command)
        if result.difference is not None:
            return result
    generator = make_generator(seed, world, lockstep.model)
    if swarm:
        generator.swarm()
    for _ in range(count):
        step = generator.burst() if bursts else generator.next()
        result.steps.append(step)
        result.difference = lockstep.run(step)
        if result.difference is not None:
            return result
    if result.steps:
        result.difference = lockstep.finish(result.steps[-1])
    return result


def shrink(world: World, steps: list[Step], make_target: MakeTarget) -> list[Step]:
    """Drop steps while the run still fails, halves first; then commands inside bursts; until time is up."""
    deadline = monotonic() + SHRINK_SECONDS_MAX
    # Looking into the state after every step is slow: only where the reports alone do not show the fault.
    deep_every = NEVER if run_steps(world, steps, make_target, deep_every=NEVER) is not None else 1

    def still_fails(candidate: list[Step]) -> bool:
        return run_steps(world, candidate, make_target, deep_every=deep_every) is not None

    steps = _drop(steps, still_fails, deadline)
    for index, step in enumerate(steps):
        if isinstance(step, list):
            steps[index] = _drop(step, partial(_fails_with, still_fails, steps[:index], steps[index + 1 :]), deadline)
    return steps


def _fails_with(
    still_fails: Callable[[list[Step]], bool], before: list[Step], after: list[Step], burst: list[Command]
) -> bool:
    return still_fails([*before, burst, *after])


def _drop(items: list[Any], still_fails: Callable[[list[Any]], bool], deadline: float) -> list[Any]:
    size = max(1, len(items) // 2)
    while monotonic() < deadline:
        start, dropped = 0, False
        while start < len(items) and monotonic() < deadline:
            candidate = items[:start] + items[start + size :]
            if still_fails(candidate):
                items, dropped = candidate, True
            else:
                start += size
        if size == 1 and not dropped:
            break
        size = max(1, size // 2)
    return items


def explain(seed: int, world: World, steps: list[Step], make_target: MakeTarget) -> str:
    """Return a report of the smallest run found that still fails."""
    small = shrink(world, steps, make_target)
    difference = run_steps(world, small, make_target)
    shown = "\n".join(f"  {_lines(step)}" for step in small)
    return f"seed {seed}, {len(steps)} steps, shrunk to {len(small)}:\n{shown}\n{difference}"
