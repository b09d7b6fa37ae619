"""Reports on their way out: routing, numbers, replay, slow readers."""

from pathlib import Path

import pytest

from gateway.binary import BinaryServer, ServerConfig
from ringbuf.wire.codec import encode_frame
from ringbuf.wire.messages import (
    EstablishAck,
    FrameFlag,
    InstrumentStateReport,
    OrderAccepted,
    OrderExecuted,
    Retransmission,
    RetransmitReject,
    RetransmitRejectCode,
    RetransmitRequest,
    Terminate,
    TerminateCode,
)
from tests.kit import eventually
from tests.kit.fake_exchange import FakeExchange, FakeSession, Loop
from tests.kit.raw_client import RawClient, ed25519_key
from tests.kit.site import ACCOUNT, SESSION, MakeSite, Site


def emit(site: Site, count: int, *, partition: int = 1, session: int = SESSION, first: int = 1) -> None:
    def publish() -> None:
        for number in range(first, first + count):
            site.exchange.report(partition, session, OrderExecuted(trade_id=number))

    site.loop.call(publish)


def replayed(client: RawClient, count: int) -> list[tuple[int, int]]:
    """Return (seq_num, trade_id) of the frames of a retransmission, checking its flags."""
    rows = []
    for _ in range(count):
        header, message = client.receive()
        assert isinstance(message, OrderExecuted), message
        assert header.frame_flags & FrameFlag.POSS_RETRANS
        rows.append((header.seq_num, message.trade_id))
    return rows


def ask(client: RawClient, *, first: int, count: int, partition: int = 1, session: int = SESSION) -> None:
    request = RetransmitRequest(session_id=session, from_seq_no=first, count=count, timestamp=55)
    client.send(request, partition=partition)


def test_reports_are_numbered_per_partition_and_go_only_to_their_session(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(partitions=2))
    site.exchange.sessions[6] = FakeSession(account=ACCOUNT)
    client, other = site.logged_on(), site.client()
    other.log_on(site.key("KEY6"), 6, partitions=2)

    emit(site, 2, partition=2)
    emit(site, 1, session=6, first=50)
    emit(site, 1, partition=1)

    heads = sorted((header.partition, header.seq_num) for header, _ in [client.receive() for _ in range(3)])
    assert heads == [(1, 1), (2, 1), (2, 2)]
    header, message = other.receive()
    assert isinstance(message, OrderExecuted)
    assert (header.partition, header.seq_num, message.trade_id) == (1, 1, 50)


def test_unnumbered_event_of_the_session_has_number_0(site: Site) -> None:
    client = site.logged_on()

    site.loop.call(lambda: site.exchange.report(1, SESSION, InstrumentStateReport(instrument_id=3), number=False))

    header, message = client.receive()
    assert isinstance(message, InstrumentStateReport)
    assert (header.seq_num, header.partition) == (0, 1)


def test_numbers_grow_beyond_32_bits(site: Site) -> None:
    site.logged_on().socket.close()
    eventually(lambda: not site.exchange.sessions[SESSION].bound)
    site.exchange.sessions[SESSION].numbers[1] = 2**32 - 2
    client = site.client()
    client.establish(site.signer, SESSION)
    client.message()

    emit(site, 3)

    assert [client.receive()[0].seq_num for _ in range(3)] == [2**32 - 1, 2**32, 2**32 + 1]


def test_reports_of_an_unbound_session_go_nowhere_and_are_replayed_later(site: Site) -> None:
    site.logged_on().socket.close()
    eventually(lambda: not site.exchange.sessions[SESSION].bound)
    emit(site, 5)
    client = site.client()
    client.establish(site.signer, SESSION)
    client.message()

    ask(client, first=2, count=3)

    header, announced = client.receive()
    assert isinstance(announced, Retransmission)
    assert (announced.next_seq_no, announced.count, announced.request_timestamp) == (2, 3, 55)
    assert (header.partition, header.seq_num) == (1, 0)
    assert replayed(client, 3) == [(2, 2), (3, 3), (4, 4)]


def test_replay_goes_on_while_live_reports_come(site: Site) -> None:
    client = site.logged_on()
    emit(site, 700)
    for _ in range(700):
        client.receive()

    ask(client, first=1, count=700)
    emit(site, 10, first=701)

    frames = [client.receive() for _ in range(711)]
    live = [header.seq_num for header, _ in frames if header.seq_num and not header.frame_flags]
    again = [header.seq_num for header, _ in frames if header.frame_flags & FrameFlag.POSS_RETRANS]
    assert live == list(range(701, 711))
    assert again == list(range(1, 701))


def test_count_beyond_the_last_report_is_cut(site: Site) -> None:
    client = site.logged_on()
    emit(site, 3)
    for _ in range(3):
        client.receive()

    ask(client, first=3, count=100)

    announced = client.message()
    assert isinstance(announced, Retransmission)
    assert announced.count == 1
    assert replayed(client, 1) == [(3, 3)]


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        ({"first": 0, "count": 1}, RetransmitRejectCode.OUT_OF_RANGE),
        ({"first": 4, "count": 1}, RetransmitRejectCode.OUT_OF_RANGE),
        ({"first": 1, "count": 0}, RetransmitRejectCode.OUT_OF_RANGE),
        ({"first": 1, "count": 10_001}, RetransmitRejectCode.REQUEST_LIMIT_EXCEEDED),
        ({"first": 1, "count": 1, "partition": 9}, RetransmitRejectCode.OUT_OF_RANGE),
        ({"first": 1, "count": 1, "partition": 255}, RetransmitRejectCode.OUT_OF_RANGE),
        ({"first": 1, "count": 1, "session": 6}, RetransmitRejectCode.INVALID_SESSION),
    ],
)
def test_request_that_cannot_be_served_is_rejected(
    site: Site, request_of: dict[str, int], code: RetransmitRejectCode
) -> None:
    client = site.logged_on()
    emit(site, 3)
    for _ in range(3):
        client.receive()

    ask(client, **request_of)

    header, answer = client.receive()
    assert isinstance(answer, RetransmitReject)
    assert (answer.code, answer.request_timestamp) == (code, 55)
    assert header.partition == request_of.get("partition", 1)


def test_one_replay_of_a_partition_at_a_time(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(report_slots=8192))
    client = site.logged_on()
    emit(site, 3000)
    for _ in range(3000):
        client.receive()

    # In one segment: sent apart, the first replay may be over before the second request is there.
    requests = [RetransmitRequest(session_id=SESSION, from_seq_no=1, count=count) for count in (3000, 1)]
    client.raw(b"".join(encode_frame(request, partition=1) for request in requests))

    frames = [client.receive() for _ in range(3002)]
    rejects = [message for _, message in frames if isinstance(message, RetransmitReject)]
    assert [reject.code for reject in rejects] == [RetransmitRejectCode.IN_PROGRESS]
    assert len([header for header, _ in frames if header.frame_flags & FrameFlag.POSS_RETRANS]) == 3000


def lapped_site(make_site: MakeSite, archive: Path | None) -> tuple[Site, RawClient]:
    """A ring of 64 reports in which the session's first ones are long overwritten."""
    site = make_site(exchange=FakeExchange(report_slots=64), archive=archive)
    client = site.logged_on()
    for first in range(1, 301, 10):
        emit(site, 10, first=first)
        for _ in range(10):
            client.receive()
    return site, client


def test_what_left_the_ring_comes_from_the_archive(make_site: MakeSite, tmp_path: Path) -> None:
    site, client = lapped_site(make_site, tmp_path)
    (tmp_path / "1").write_bytes(b"".join(site.exchange.report_log[1]))

    ask(client, first=1, count=300)

    assert isinstance(client.message(), Retransmission)
    assert replayed(client, 300) == [(number, number) for number in range(1, 301)]


def test_without_an_archive_what_left_the_ring_is_out_of_range(make_site: MakeSite) -> None:
    _, client = lapped_site(make_site, None)

    ask(client, first=1, count=300)
    refused = client.message()
    ask(client, first=290, count=11)

    assert isinstance(refused, RetransmitReject)
    assert refused.code == RetransmitRejectCode.OUT_OF_RANGE
    assert isinstance(client.message(), Retransmission)
    assert replayed(client, 11) == [(number, number) for number in range(290, 301)]


def test_establish_recovers_the_sequencers_own_reports(site: Site) -> None:
    site.logged_on().socket.close()
    eventually(lambda: not site.exchange.sessions[SESSION].bound)
    emit(site, 4, partition=0)
    client = site.client()

    ack = client.establish(site.signer, SESSION, recover_from=3)

    assert isinstance(ack, EstablishAck)
    assert ack.next_seq_no == 5
    frames = [client.receive() for _ in range(3)]
    assert sorted(header.seq_num for header, _ in frames) == [0, 3, 4]


def test_server_that_was_lapped_delivers_from_the_archive(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site(exchange=FakeExchange(report_slots=64), archive=tmp_path)
    client = site.logged_on()
    first = site.exchange.reports[1].published

    def publish() -> None:
        for number in range(1, 201):
            site.exchange.report(1, SESSION, OrderExecuted(trade_id=number))
        (tmp_path / "1").write_bytes(b"".join(site.exchange.report_log[1]))

    site.loop.call(publish)

    frames = [client.receive() for _ in range(200)]
    assert first > 0
    assert [header.seq_num for header, _ in frames] == list(range(1, 201))
    assert site.server.counters()["laps"] == 0


def test_server_that_was_lapped_without_an_archive_has_everybody_log_on_again(make_site: MakeSite) -> None:
    """It may have missed that a session moved; after the new logon numbers and replay are right again."""
    site = make_site(exchange=FakeExchange(report_slots=64))
    client = site.logged_on()

    emit(site, 200)

    last = client.message()
    assert isinstance(last, Terminate)
    assert site.server.counters()["laps"] == 1
    again = site.client()
    assert isinstance(again.establish(site.signer, SESSION), EstablishAck)
    again.message()
    emit(site, 1, first=201)
    assert again.receive()[0].seq_num == 201


def test_slow_reader_is_disconnected_and_the_others_are_not(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(report_slots=1 << 16), output_bytes=4096)
    site.exchange.sessions[6] = FakeSession(account=ACCOUNT)
    slow, other = site.logged_on(), site.client()
    other.log_on(site.key("KEY6"), 6)

    def flood() -> None:
        for number in range(2000):
            site.exchange.report(1, SESSION, OrderExecuted(trade_id=number))

    while site.server.counters()["slow_consumers"] == 0:
        site.loop.call(flood)
    emit(site, 1, session=6)

    assert isinstance(other.message(), OrderExecuted)
    last = None
    while not isinstance(last, Terminate):
        last = slow.message()
    assert last.code == TerminateCode.SLOW_CONSUMER
    eventually(lambda: not site.exchange.sessions[SESSION].bound)


def test_session_moves_to_another_gateway() -> None:
    exchange = FakeExchange(sources=(1, 2, 3))
    signer, known = ed25519_key("KEY", account=ACCOUNT)
    exchange.keys["KEY"] = known
    exchange.sessions[SESSION] = FakeSession(account=ACCOUNT)
    servers = []
    for source in (2, 3):
        server = BinaryServer(ServerConfig(source=source, partitions=1, sessions_max=100))
        exchange.attach(server, source)
        servers.append(server)
    ports = [server.listen_tcp("127.0.0.1", 0) for server in servers]
    with Loop(exchange, *servers) as loop, RawClient(ports[0]) as old, RawClient(ports[1]) as new:
        old.log_on(signer, SESSION)

        new.establish(signer, SESSION)
        last = old.message()
        new.message()
        loop.call(lambda: exchange.report(1, SESSION, OrderAccepted(order_id=8)))

        assert isinstance(last, Terminate)
        assert last.code == TerminateCode.SUPERSEDED
        assert isinstance(new.message(), OrderAccepted)
        assert exchange.sessions[SESSION].source == 3
