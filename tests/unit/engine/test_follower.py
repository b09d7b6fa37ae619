"""A sequencer that follows another node's log through the ring, answers queries, and then leads."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from engine import EngineConfig, Matcher, Sequencer
from engine.engine import decode_report, encode_command
from ringbuf import Mode, Ring
from ringbuf.wire import messages as wire
from tests.kit.composed_exchange import BASE, PAIR, QUOTE, Exchange, make_exchange

SLOTS = 1 << 12
ADMIN = 1


class Follower:
    """Rings, sequencer and one matcher of a node; the test is its replicator and its journaler."""

    def __init__(self, stack: ExitStack, config: EngineConfig, prefix: str, run_dir: Path) -> None:
        def ring(slot_size: int = 128, **more: Any) -> Ring:
            return stack.enter_context(Ring.private(slot_size=slot_size, slot_count=SLOTS, **more))

        shared = {"slot_size": 128, "slot_count": SLOTS, "mode": Mode.DURABLE, "commit": 0, "run_dir": run_dir}
        self.log = stack.enter_context(Ring.create(f"{prefix}log", gating={0: "journaler"}, **shared))  # type: ignore[arg-type]
        self.log.lock_producer()
        self.own_log = stack.enter_context(Ring.attach(f"{prefix}log", run_dir=run_dir))  # the sequencer process's
        self.ingress, self.reply, self.report0, self.reports = ring(), ring(), ring(), ring()
        self.sequencer = Sequencer(config)
        self.matcher = Matcher(config, 1)
        self.sequencer.attach(
            log=self.own_log,
            report0=self.report0,
            reply=self.reply,
            reports={1: self.reports},
            ingress={1: self.ingress},
        )
        self.matcher.attach(log=self.own_log, reports=self.reports, market=ring(64))
        self.sequencer.follow()

    def receive(self, records: bytes, *, commit: int | None = None) -> None:
        assert self.log.append(records, wanted=0)
        self.commit(self.log.published if commit is None else commit)

    def commit(self, sequence: int) -> None:
        self.log.advance(0, self.log.published)
        self.log.store_commit(sequence)
        self.run()

    def run(self) -> None:
        from engine._engine import ffi, lib

        pointers = ffi.new("matcher_t *[]", [self.matcher.ptr])
        assert lib.composed_run(self.sequencer.ptr, pointers, 1) >= 0, self.sequencer.error


@pytest.fixture
def leader() -> Iterator[Exchange]:
    exchange = make_exchange()
    yield exchange
    exchange.engine.close()


@pytest.fixture
def follower(leader: Exchange, shm_prefix: str, tmp_path: Path) -> Iterator[Follower]:
    with ExitStack() as stack:
        yield Follower(stack, leader.engine.config, shm_prefix, tmp_path)


def new_records(leader: Exchange) -> bytes:
    return b"".join(slots for _, slots in leader.engine.log_records())


def pass_time(leader: Exchange) -> None:
    """Two seconds: marks, a tick and a hash mark are due."""
    leader.engine.set_time(leader.engine._now_ns + 2_000_000_000)
    leader.engine._run()
    leader.engine._new_outputs()


def trade(leader: Exchange) -> tuple[int, int]:
    seller, buyer = leader.account(base=100), leader.account(quote=1000)
    leader.sell(seller, 8, 5)
    leader.buy(buyer, 10, 7)
    pass_time(leader)
    return seller, buyer


def test_it_comes_to_the_leaders_state(leader: Exchange, follower: Follower) -> None:
    seller, buyer = trade(leader)

    follower.receive(new_records(leader))

    assert follower.sequencer.state_hash() == leader.engine.sequencer.state_hash()
    assert follower.matcher.book_side(PAIR, sell=False) == leader.engine.book(PAIR)[0]
    assert follower.sequencer.balance(buyer, BASE) == (5, 0)
    assert follower.sequencer.balance(seller, QUOTE) == (40, 0)
    assert follower.sequencer.check()


def test_it_stops_at_what_is_committed(leader: Exchange, follower: Follower) -> None:
    records = new_records(leader)
    trade(leader)
    more = new_records(leader)

    follower.receive(records)
    position = follower.sequencer.position
    follower.receive(more, commit=position)

    assert (follower.sequencer.position, follower.matcher.position) == (position, position)
    follower.commit(follower.log.published)
    assert follower.sequencer.position == follower.log.published


def test_it_answers_queries_and_takes_nothing_else(leader: Exchange, follower: Follower) -> None:
    _, buyer = trade(leader)
    follower.receive(new_records(leader))
    position = follower.sequencer.position
    order = wire.NewOrderSingle(cl_ord_id=9, price=1, order_qty=1, instrument_id=PAIR, side=wire.Side.BUY)
    follower.ingress.publish(encode_command(order, session=2, seq_num=99))
    query = wire.BalanceQuery(request_id=4, account_id=buyer, asset_id=BASE)
    follower.ingress.publish(encode_command(query, session=ADMIN, seq_num=0))

    follower.run()

    replies = [decode_report(follower.reply.read(at))[4] for at in range(follower.reply.published)]
    assert [type(reply) for reply in replies] == [wire.BalanceReply, wire.QueryEnd]
    assert (replies[0].account_id, replies[0].available) == (buyer, 5)
    assert follower.sequencer.position == follower.log.published == position
    assert follower.ingress.consumer(0).cursor == 2


def test_it_leads_on_from_where_the_other_stopped(leader: Exchange, follower: Follower) -> None:
    _, buyer = trade(leader)
    follower.receive(new_records(leader))
    end = follower.log.published
    follower.log.unlock_producer()
    follower.own_log.lock_producer()

    follower.sequencer.lead(epoch=2, node=1)
    follower.own_log.advance(0, follower.own_log.published)
    follower.own_log.store_commit(follower.own_log.published)
    follower.run()

    assert follower.sequencer.epoch == 2
    assert follower.own_log.published >= end + 2  # EpochStart, SourceOpen
    assert follower.sequencer.balance(buyer, BASE) == (5, 0)


def test_a_state_that_differs_from_the_leaders_mark_stops_it(leader: Exchange, follower: Follower) -> None:
    trade(leader)
    records = bytearray(new_records(leader))
    at = next(
        at for at in range(0, len(records), 128)
        if int.from_bytes(records[at + 6 : at + 8], "little") == wire.Template.HASH_MARK
    )  # fmt: skip
    records[at + 32] ^= 1

    with pytest.raises(AssertionError, match="state hash differs"):
        follower.receive(bytes(records))


# --- holding and the window -------------------------------------------------------------------------------------------


def test_while_held_no_record_is_written(leader: Exchange) -> None:
    _, buyer = trade(leader)
    before = leader.engine.log.published

    leader.engine.sequencer.hold(True)
    assert leader.buy(buyer, 1, 1) == []
    pass_time(leader)
    assert leader.engine.log.published == before

    leader.engine.sequencer.hold(False)
    pass_time(leader)
    assert leader.engine.log.published > before + 1


def test_the_log_never_runs_further_ahead_of_commit_than_the_ring_is_long(shm_prefix: str, tmp_path: Path) -> None:
    """Z4: a standby that does not acknowledge stops the sequencer, although the disk is done."""
    with ExitStack() as stack:
        config = EngineConfig(partitions=1)
        node = Follower(stack, config, shm_prefix, tmp_path)
        node.log.unlock_producer()
        node.own_log.lock_producer()
        node.sequencer.set_time(1_700_000_000_000_000_000)
        node.sequencer.lead(epoch=1, node=1)
        node.log.store_commit(node.log.published)

        for turn in range(2 * SLOTS):
            node.sequencer.set_time(1_700_000_000_000_000_000 + (turn + 1) * 1_000_000_000)
            node.sequencer.poll()
            node.log.advance(0, node.log.published)

        assert node.log.published - node.log.commit <= SLOTS
        assert node.log.published > SLOTS // 2
