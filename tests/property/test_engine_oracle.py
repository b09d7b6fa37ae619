"""The C engine does what the model does.

BULLRING_ORACLE_COMMANDS sets how many commands the long run compares (1_000_000 and more are meant for the
command line), BULLRING_ORACLE_SEED where its seeds start.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ringbuf.wire.messages import (
    ExecInst,
    MassCancelRequest,
    NewOrderSingle,
    OrderCancelRequest,
    OrderReplaceRequest,
    OrdType,
    Sequence,
    Side,
    StpMode,
    TimeInForce,
)
from tests.oracle.adapter import EngineTarget, Fault, ModelTarget
from tests.oracle.compare import NEVER, Lockstep, MakeTarget, explain, run_random, run_steps
from tests.oracle.faults import FAULTS
from tests.oracle.world import Command, World, setup

COMMANDS_DEFAULT = 60_000
COMMANDS_PER_SEED = 10_000


def world_of(partitions: int, orders_max: int) -> World:
    """Return a world of the engine's own capacities (docs/MATCHING.md, section 17, check 28)."""
    return World(
        partitions=partitions,
        orders_max=orders_max,
        entries_max=orders_max // 2,
        lists_max=orders_max // 4,
        quotes_max=orders_max // 8,
    )


def make_engine(world: World) -> EngineTarget:
    return EngineTarget(world)


def compare(
    seed: int, count: int, world: World, make_target: MakeTarget, *, bursts: bool = False, swarm: bool = False
) -> None:
    result = run_random(seed, count, world, make_target, bursts=bursts, swarm=swarm)
    if result.difference is not None:
        print(f"seed {seed}: {result.difference}")
        pytest.fail(explain(seed, world, result.steps, make_target))


@pytest.mark.parametrize("orders_max", [64, 128, 1024])
def test_engine_and_model_agree_on_short_runs(orders_max: int) -> None:
    for seed in range(3):
        compare(seed, 1_500, world_of(2, orders_max), make_engine)


@pytest.mark.parametrize("orders_max", [64, 1024])
def test_engine_and_model_agree_on_commands_in_flight_together(orders_max: int) -> None:
    for seed in range(4):
        world = world_of(2, orders_max)
        compare(seed, 150, world, make_engine, bursts=True)


@pytest.mark.slow
def test_engine_and_model_agree_on_a_long_run() -> None:
    count = int(os.environ.get("BULLRING_ORACLE_COMMANDS", COMMANDS_DEFAULT))
    first = int(os.environ.get("BULLRING_ORACLE_SEED", "1000"))
    for done in range(0, count, COMMANDS_PER_SEED):
        seed = first + done // COMMANDS_PER_SEED
        orders_max = (64, 128, 1024)[seed % 3]
        world = world_of(1 + seed % 3, orders_max)
        commands = min(count - done, COMMANDS_PER_SEED)
        compare(seed, commands, world, make_engine, swarm=seed % 2 == 1)
        print(f"seeds {first} to {seed}: {done + commands} commands, no difference")


def compare_one(command: Command) -> None:
    world = world_of(1, 64)
    difference = run_steps(world, [command], make_engine)
    assert difference is None, str(difference)


def test_skipping_numbers_is_not_answered() -> None:
    compare_one(Command(2, Sequence(next_seq_no=10)))


def test_shape_is_checked_before_permission() -> None:
    order = NewOrderSingle(instrument_id=1, side=200, ord_type=OrdType.LIMIT, price=100, order_qty=5)
    compare_one(Command(World(partitions=1, orders_max=64).drop_copy_session, order))


class OrderMachine(RuleBasedStateMachine):
    """Short runs that hypothesis makes and shrinks itself: one market, three accounts, few prices."""

    make_target: MakeTarget

    @initialize()
    def start(self) -> None:
        self.world = world_of(1, 64)
        self.lockstep = Lockstep(self.world, type(self).make_target(self.world), deep_every=NEVER)
        for command in setup(self.world):
            self.run(command)
        self.lockstep.deep_every = 1

    def run(self, command: Command) -> None:
        difference = self.lockstep.run(command)
        assert difference is None, str(difference)

    @rule(
        session=st.sampled_from([2, 3, 4, 6]),
        side=st.sampled_from(list(Side)),
        price=st.integers(98, 103),
        quantity=st.integers(2, 12),
        time_in_force=st.sampled_from([TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK]),
        stp_mode=st.sampled_from(list(StpMode)),
        post_only=st.booleans(),
        cl_ord_id=st.integers(0, 4),
    )
    def limit(self, session: int, price: int, quantity: int, *, post_only: bool, **fields: Any) -> None:
        exec_inst = ExecInst.POST_ONLY if post_only else 0
        message = NewOrderSingle(
            instrument_id=1, ord_type=OrdType.LIMIT, price=price, order_qty=quantity, exec_inst=exec_inst, **fields
        )
        self.run(Command(session, message))

    @rule(session=st.sampled_from([2, 4, 6]), side=st.sampled_from(list(Side)), quantity=st.integers(2, 25))
    def market(self, session: int, side: int, quantity: int) -> None:
        message = NewOrderSingle(
            instrument_id=1, ord_type=OrdType.MARKET, side=side, order_qty=quantity, time_in_force=TimeInForce.IOC
        )
        self.run(Command(session, message))

    def pick(self, index: int) -> tuple[int, int]:
        """Return (session, order id) of an open order, or of none."""
        lines = list(self.lockstep.model.sequencer.lines.values())
        if not lines:
            return 2, 1
        line = lines[index % len(lines)]
        return line.session, line.order_id

    @rule(index=st.integers(0, 15), cl_ord_id=st.integers(0, 4))
    def cancel(self, index: int, cl_ord_id: int) -> None:
        session, order_id = self.pick(index)
        self.run(Command(session, OrderCancelRequest(cl_ord_id=cl_ord_id, instrument_id=1, order_id=order_id)))

    @rule(
        index=st.integers(0, 15),
        price=st.none() | st.integers(97, 104),
        quantity=st.none() | st.integers(1, 20),
        cl_ord_id=st.integers(0, 4),
    )
    def replace(self, index: int, price: int | None, quantity: int | None, cl_ord_id: int) -> None:
        session, order_id = self.pick(index)
        message = OrderReplaceRequest(
            cl_ord_id=cl_ord_id, instrument_id=1, order_id=order_id, price=price, order_qty=quantity
        )
        self.run(Command(session, message))

    @rule(session=st.sampled_from([2, 4]), scope=st.integers(0, 1), side=st.integers(0, 2))
    def mass_cancel(self, session: int, scope: int, side: int) -> None:
        self.run(Command(session, MassCancelRequest(instrument_id=1, scope=scope, side=side)))

    def teardown(self) -> None:
        if hasattr(self, "lockstep"):
            self.lockstep.target.close()

    @invariant()
    def model_is_sound(self) -> None:
        if hasattr(self, "lockstep"):
            self.lockstep.model.check()


def run_machine(make: MakeTarget, examples: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    machine = type("Machine", (OrderMachine,), {"make_target": staticmethod(make)})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=checks,
            database=None,
            phases=phases,
        ),
    )


def test_engine_and_model_agree_in_the_state_machine() -> None:
    run_machine(make_engine, examples=60)


@pytest.mark.parametrize("name", ["last in first out", "self-trade prevention ignored", "post-only may cross"])
def test_state_machine_finds_planted_faults(name: str) -> None:
    fault: Fault = next(fault for fault in FAULTS if fault.name == name)

    with pytest.raises(AssertionError):
        run_machine(lambda world: ModelTarget(world, fault), examples=300, phases=(Phase.generate,))
