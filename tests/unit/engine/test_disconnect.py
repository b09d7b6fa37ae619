"""Cancel on disconnect: what ends the orders of a session, when, and that a replay ends them at the same place."""

from dataclasses import dataclass
from typing import Any

import pytest

from engine import ComposedEngine, EngineConfig, Output
from engine.engine import encode_command
from ringbuf.wire import messages as wire
from tests.kit.composed_exchange import PAIR, Exchange, make_exchange, of

MS = 1_000_000
SECOND = 1000 * MS
GATEWAY = 0  # session of a gateway's own word


@dataclass
class Floor:
    """An exchange with one trader's session, and the clock."""

    exchange: Exchange
    account: int
    session: int
    now: int = 1_700_000_000 * SECOND

    def wait(self, ns: int) -> list[Output]:
        """Let time pass; return what it caused."""
        self.now += ns
        self.exchange.engine.set_time(self.now)
        self.exchange.engine._run()
        return self.exchange.engine._new_outputs()

    def raw(self, message: Any, session: int) -> list[Output]:
        return self.exchange.engine.submit_slots(encode_command(message, session=session, seq_num=0))

    def bind(self, cod: wire.CodType, timeout_ms: int) -> None:
        bind = wire.SessionBind(
            session_ver_id=1,
            next_seq_no=1000,
            session_id=self.session,
            connection_id=self.session,
            cod_timeout_ms=timeout_ms,
            cod_type=cod,
        )
        self.raw(bind, self.session)

    def down(self, cause: wire.DownCause) -> None:
        message = wire.SessionDown(session_ver_id=1, session_id=self.session, connection_id=self.session, cause=cause)
        self.raw(message, self.session)

    @property
    def open_orders(self) -> int:
        return len(self.exchange.engine.open_orders(self.account))


@pytest.fixture
def floor() -> Floor:
    exchange = make_exchange()
    account = exchange.account(base=1000, quote=100_000)
    made = Floor(exchange, account, exchange.sessions[account])
    exchange.engine.set_time(made.now)
    exchange.buy(account, 10, 5)
    exchange.sell(account, 20, 5)
    return made


def canceled(outputs: list[Output]) -> list[wire.CancelReason]:
    return [report.cancel_reason for report in of(outputs, wire.OrderCanceled)]


@pytest.mark.parametrize(
    ("cod", "cause", "after_ms"),
    [
        (wire.CodType.ON_DISCONNECT, wire.DownCause.CLIENT_DISCONNECT, 2000),
        (wire.CodType.ON_DISCONNECT, wire.DownCause.KEEP_ALIVE_LAPSED, 2000),
        (wire.CodType.ON_DISCONNECT, wire.DownCause.SERVER_TERMINATE, 2000),
        (wire.CodType.ON_DISCONNECT, wire.DownCause.CLIENT_TERMINATE, None),
        (wire.CodType.ON_TERMINATE, wire.DownCause.CLIENT_TERMINATE, 2000),
        (wire.CodType.ON_TERMINATE, wire.DownCause.CLIENT_DISCONNECT, None),
        (wire.CodType.ON_DISCONNECT_OR_TERMINATE, wire.DownCause.CLIENT_TERMINATE, 2000),
        (wire.CodType.ON_DISCONNECT, wire.DownCause.GATEWAY_DEAD, 30_000),
        (wire.CodType.ON_DISCONNECT, wire.DownCause.SHUTDOWN, 30_000),
        (wire.CodType.ON_TERMINATE, wire.DownCause.SHUTDOWN, None),
        (wire.CodType.ON_DISCONNECT, wire.DownCause.SUPERSEDED, None),
        (wire.CodType.NEVER, wire.DownCause.CLIENT_DISCONNECT, None),
    ],
)
def test_what_the_client_chose_and_why_it_went_decide(
    floor: Floor, cod: wire.CodType, cause: wire.DownCause, after_ms: int | None
) -> None:
    floor.bind(cod, 2000)
    floor.down(cause)

    before = floor.wait((100_000 if after_ms is None else after_ms - 1) * MS)
    after = floor.wait(20 * MS)

    assert canceled(before) == []
    expected = [] if after_ms is None else [wire.CancelReason.CANCEL_ON_DISCONNECT] * 2
    assert canceled(after) == expected
    assert floor.open_orders == 2 - len(expected)
    floor.exchange.engine.check()


def test_the_reports_wait_for_the_session_and_one_report_ends_them(floor: Floor) -> None:
    floor.bind(wire.CodType.ON_DISCONNECT, 0)
    floor.down(wire.DownCause.CLIENT_DISCONNECT)

    outputs = floor.wait(20 * MS)

    [report] = of(outputs, wire.MassCancelReport)
    assert (report.total_affected, report.ref_seq_num, report.scope) == (2, 0, wire.MassCancelScope.SESSION)
    assert {output.session for output in outputs if isinstance(output.message, wire.OrderCanceled)} == {floor.session}
    assert all(report.ref_seq_num == 0 for report in of(outputs, wire.OrderCanceled))
    assert canceled(floor.wait(60 * SECOND)) == []


def test_a_client_that_is_back_in_time_keeps_its_orders(floor: Floor) -> None:
    floor.bind(wire.CodType.ON_DISCONNECT, 2000)
    floor.down(wire.DownCause.CLIENT_DISCONNECT)
    floor.wait(1900 * MS)
    floor.bind(wire.CodType.ON_DISCONNECT, 2000)

    assert canceled(floor.wait(100 * SECOND)) == []
    assert floor.open_orders == 2


def test_a_new_version_that_is_never_bound_counts_as_away(floor: Floor) -> None:
    floor.bind(wire.CodType.ON_DISCONNECT, 2000)
    negotiate = wire.SessionNegotiate(session_ver_id=2, session_id=floor.session, connection_id=99)
    floor.raw(negotiate, floor.session)

    assert canceled(floor.wait(1999 * MS)) == []
    assert len(canceled(floor.wait(20 * MS))) == 2


def test_other_sessions_of_the_account_keep_theirs(floor: Floor) -> None:
    other = floor.exchange.admin(wire.SessionCreate(account_id=floor.account)).result_id
    floor.exchange.engine.bind(other)
    order = wire.NewOrderSingle(
        cl_ord_id=900, price=11, order_qty=1, instrument_id=PAIR, side=wire.Side.BUY, ord_type=wire.OrdType.LIMIT
    )
    floor.exchange.engine.submit(other, order)
    floor.bind(wire.CodType.ON_DISCONNECT, 0)
    floor.down(wire.DownCause.CLIENT_DISCONNECT)
    floor.wait(20 * MS)

    assert floor.open_orders == 1


def test_sessions_that_go_together_or_one_after_another_all_lose_their_orders(floor: Floor) -> None:
    exchange = floor.exchange
    floors = [floor]
    for _ in range(3):
        account = exchange.account(base=1000, quote=100_000)
        exchange.buy(account, 10, 5)
        floors.append(Floor(exchange, account, exchange.sessions[account], floor.now))
    for place, timeout_ms in ((0, 500), (1, 100), (2, 500), (3, 100)):
        floors[place].bind(wire.CodType.ON_DISCONNECT, timeout_ms)
        floors[place].down(wire.DownCause.CLIENT_DISCONNECT)

    floor.wait(120 * MS)
    assert [each.open_orders for each in floors] == [2, 0, 1, 0]
    floor.wait(400 * MS)
    assert [each.open_orders for each in floors] == [0, 0, 0, 0]


def test_a_gateway_that_starts_gives_its_sessions_thirty_seconds(floor: Floor) -> None:
    floor.bind(wire.CodType.ON_DISCONNECT, 0)
    floor.raw(wire.SessionDown(cause=wire.DownCause.GATEWAY_DEAD), GATEWAY)

    assert canceled(floor.wait(29_999 * MS)) == []
    assert len(canceled(floor.wait(20 * MS))) == 2


def test_replay_cancels_at_the_same_record(floor: Floor) -> None:
    engine = floor.exchange.engine
    floor.bind(wire.CodType.ON_DISCONNECT, 500)
    floor.down(wire.DownCause.CLIENT_DISCONNECT)
    floor.wait(600 * MS)
    floor.exchange.buy(floor.exchange.account(quote=1000), 7, 1)

    again = ComposedEngine(EngineConfig(partitions=1))
    again.replay(engine.log_records())

    assert floor.open_orders == 0
    assert again.state_hash() == engine.state_hash()


@pytest.mark.parametrize("waiting_ms", [0, 400])
def test_whoever_takes_over_gives_thirty_seconds_from_then_on(floor: Floor, waiting_ms: int) -> None:
    engine = floor.exchange.engine
    floor.bind(wire.CodType.ON_DISCONNECT, 500)
    if waiting_ms:  # away already; else bound until the takeover
        floor.down(wire.DownCause.CLIENT_DISCONNECT)
        floor.wait(waiting_ms * MS)

    again = ComposedEngine(EngineConfig(partitions=1))
    again.set_time(floor.now)
    records = engine.log_records()
    again.replay(records)
    assert again.state_hash() == engine.state_hash()
    for _, data in records:  # whoever takes over has them in its ring
        for offset in range(0, len(data), 128):
            again.log.publish(data[offset : offset + 128])
    again.start(epoch=2)
    taken_over = Floor(Exchange(again), floor.account, floor.session, floor.now)

    assert canceled(taken_over.wait(29_999 * MS)) == []
    assert len(canceled(taken_over.wait(20 * MS))) == 2
