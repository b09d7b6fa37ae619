"""What leaves over UDP: numbers, packets, lines A and B, heartbeats, ends, re-requests."""

import socket
import struct
import time
from typing import Any

import pytest

from gateway.errors import GatewayConfigError
from gateway.marketdata.feed import Destination, Feed, Kind, generation_of
from ringbuf.wire.market_codec import decode_market
from ringbuf.wire.market_messages import InstrumentDefinition, SystemEvent, SystemEventCode
from tests.kit.feed_site import MOLD_HEADER, FeedSite, Packet, Receiver, config, flow, traders

FULL, DERIVED, REFERENCE = "BR001TEST1", "BR101TEST1", "BR900TEST1"
MARKET_BYTES_MAX = 58  # the largest message of a full channel and its length


def trade(site: FeedSite, count: int) -> None:
    for _ in flow(site.exchange, *traders(site.exchange), count):
        pass


def test_messages_are_numbered_by_ring_index_and_both_lines_carry_all() -> None:
    with FeedSite().start() as site:
        trade(site, 300)
        expected = dict(enumerate(site.messages(), 1))
        assert len(expected) > 300

        site.until(lambda: all(len(line.messages(FULL)) == len(expected) for line in site.lines))

        assert site.lines[0].messages(FULL) == expected
        assert site.lines[1].raw == site.lines[0].raw


def test_packets_are_as_full_as_allowed_and_never_larger() -> None:
    with FeedSite(config(packet_bytes_max=500)) as site:
        site.start()
        trade(site, 200)

        site.until(lambda: len(site.lines[0].messages(FULL)) == len(site.messages()))

        sizes = [len(data) for data in site.lines[0].raw if data.startswith(FULL.encode()) and len(data) > 20]
        assert max(sizes) <= 500
        assert all(size > 500 - MARKET_BYTES_MAX for size in sizes[:-1]), "only the last one is not full"


def test_a_packet_waits_for_company_at_most_the_configured_delay() -> None:
    with FeedSite(config(pack_delay_us=200_000), lines=1) as site:
        site.start()
        seller, buyer = traders(site.exchange)
        began = time.monotonic()
        for price in (10, 11, 12):
            site.exchange.buy(buyer, price, 1)
            site.feed.poll()
        if time.monotonic() - began < 0.2:  # a machine that stood still in between proves nothing
            assert [packet for packet in site.lines[0].receive() if packet.messages] == []

        site.until(lambda: len(site.lines[0].messages(FULL)) == 3)

        assert time.monotonic() - began >= 0.2
        assert site.exchange.sell(seller, 100, 1)


def test_a_feed_begins_with_what_is_published_after_its_start() -> None:
    with FeedSite(lines=1) as site:
        trade(site, 50)
        before = len(site.messages())
        site.start()
        site.until(lambda: any(packet.session == FULL for packet in site.lines[0].receive()))
        first = next(packet for packet in site.lines[0].receive() if packet.session == FULL)
        assert (first.count, first.number) == (0, before + 1), "a heartbeat at once says where the channel stands"

        trade(site, 20)

        site.until(lambda: before + 1 in site.lines[0].messages(FULL))
        assert min(site.lines[0].messages(FULL)) == before + 1


def test_a_silent_channel_sends_heartbeats_with_the_next_number() -> None:
    with FeedSite(config(heartbeat_ms=10), lines=1) as site:
        site.start()
        trade(site, 10)
        count = len(site.messages())

        def beats() -> list[Packet]:
            return [packet for packet in site.lines[0].receive() if packet.session == FULL and packet.count == 0]

        site.until(lambda: len(beats()) >= 5)

        assert beats()[-1].number == count + 1


def test_the_end_of_an_old_session_is_announced() -> None:
    with FeedSite(config(heartbeat_ms=10), lines=1) as site:
        site.start()
        site.feed.end_session("BR001OLD00", 77)

        def ends() -> list[Packet]:
            return [packet for packet in site.lines[0].receive() if packet.session == "BR001OLD00"]

        site.until(lambda: len(ends()) == 5)

        assert {(packet.count, packet.number) for packet in ends()} == {(0xFFFF, 77)}


def test_the_reference_channel_goes_round_and_round() -> None:
    with FeedSite(config(definitions_ms=1), lines=1) as site:
        site.start()
        site.feed.define(SystemEvent(transact_time=5, event_code=SystemEventCode.START))
        for number in range(1, 31):
            site.feed.define(InstrumentDefinition(instrument_id=number, symbol=f"P{number}-Q", partition=1))
        late = Receiver()
        site.stack.callback(late.close)

        site.until(lambda: len(site.lines[0].messages(REFERENCE)) == 31)
        rounds = len(site.lines[0].receive())
        site.until(lambda: len(site.lines[0].receive()) >= rounds + 8)

        found = site.lines[0].messages(REFERENCE)
        assert decode_market(found[31]) == InstrumentDefinition(instrument_id=30, symbol="P30-Q", partition=1)
        packets = [packet for packet in site.lines[0].receive() if packet.session == REFERENCE and packet.count]
        assert sum(packet.number == 1 for packet in packets) >= 2


def test_only_the_kinds_a_destination_names_are_sent_to_it() -> None:
    receivers = {kind: Receiver() for kind in (Kind.FULL, Kind.DERIVED, Kind.DEFINITIONS)}
    with FeedSite(lines=0) as site:
        destinations = [Destination(0, kind, "127.0.0.1", each.port) for kind, each in receivers.items()]
        site.feed = Feed(config(destinations=destinations, heartbeat_ms=10))
        site.feed.attach({1: site.market})
        site.start()
        site.feed.define(SystemEvent(event_code=SystemEventCode.START))
        trade(site, 20)

        site.until(lambda: all(len(each.receive()) > 5 for each in receivers.values()))

        sessions = {kind: {packet.session for packet in each.receive()} for kind, each in receivers.items()}
        assert sessions == {Kind.FULL: {FULL}, Kind.DERIVED: {DERIVED}, Kind.DEFINITIONS: {REFERENCE}}
    for each in receivers.values():
        each.close()


# --- re-requests ------------------------------------------------------------------------------------------------------


class Asker:
    """Sends MoldUDP64 requests."""

    def __init__(self, site: FeedSite) -> None:
        self.site = site
        self.port = site.feed.listen_rerequest("127.0.0.1", 0)
        self.answers = Receiver()
        site.stack.callback(self.answers.close)

    def ask(self, session: str, number: int, count: int) -> None:
        self.raw(MOLD_HEADER.pack(session.encode(), number, count))

    def raw(self, data: bytes) -> None:
        self.answers.socket.sendto(data, ("127.0.0.1", self.port))

    def counter(self, name: str) -> int:
        return self.site.feed.counters()[name]


def test_a_request_is_answered_with_as_many_messages_as_fit_one_packet() -> None:
    with FeedSite().start() as site:
        trade(site, 200)
        asker, expected = Asker(site), site.messages()

        asker.ask(FULL, 11, 5)
        asker.ask(FULL, 1, 65535)

        few, many = site.until(lambda: asker.answers.receive() if len(asker.answers.receive()) == 2 else None)
        assert (few.session, few.number, few.messages) == (FULL, 11, expected[10:15])
        assert many.messages == expected[: many.count]
        assert 1472 - MARKET_BYTES_MAX < len(asker.answers.raw[1]) <= 1472


@pytest.mark.parametrize(
    ("session", "number", "count", "counter"),
    [
        ("BR002TEST1", 1, 1, "rerequests_malformed"),
        ("BR001OTHER", 1, 1, "rerequests_malformed"),
        (FULL, 0, 1, "rerequests_malformed"),
        (FULL, 1 << 63, 1, "rerequests_malformed"),
        (FULL, 1, 0, "rerequests_malformed"),
        (FULL, 1 << 40, 1, "rerequests_refused"),
    ],
)
def test_a_request_for_what_is_not_there_gets_no_answer(session: str, number: int, count: int, counter: str) -> None:
    with FeedSite().start() as site:
        trade(site, 10)
        asker = Asker(site)

        asker.ask(session, number, count)
        site.until(lambda: asker.counter(counter) == 1)
        asker.ask(FULL, 1, 1)
        site.until(lambda: asker.answers.receive())

        assert len(asker.answers.raw) == 1


@pytest.mark.parametrize("data", [b"", b"BR001TEST1", bytes(19), bytes(21), bytes(1400)])
def test_a_malformed_request_is_counted_and_passed_over(data: bytes) -> None:
    with FeedSite().start() as site:
        asker = Asker(site)

        asker.raw(data)

        site.until(lambda: asker.counter("rerequests_malformed") == 1)


def test_a_flood_of_requests_is_bounded_and_harms_nobody_else() -> None:
    with FeedSite(config(rerequests_per_s=20)) as site:
        site.start()
        trade(site, 100)
        asker = Asker(site)

        for _ in range(500):
            asker.ask(FULL, 1, 65535)
            site.feed.poll()
        site.until(lambda: asker.counter("rerequests") + asker.counter("rerequests_refused") == 500)
        answered = asker.counter("rerequests")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.2", 0))
            other.setblocking(False)
            other.sendto(MOLD_HEADER.pack(FULL.encode(), 1, 1), ("127.0.0.1", asker.port))
            site.until(lambda: asker.counter("rerequests") > answered)

            assert Packet.parse(other.recv(2048)).messages == site.messages()[:1]
        assert answered < 500, "a bucket of 20 and 20 a second do not answer 500 requests in a moment"
        assert answered >= 20


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"partitions": 0}, "partitions = 0: must be 1 to 31"),
        ({"packet_bytes_max": 255}, "packet_bytes_max = 255: must be 256 to 65507"),
        ({"derived_slots": 30000}, "derived_slots = 30000: must be a power of two"),
        ({"derived_slots": 8192}, "derived_slots = 8192: must be 16384 to"),
        ({"generation": "abcde"}, "generation = 'abcde': must be five characters 0-9 A-Z"),
        ({"key": b"short"}, "key has 5 bytes: must have 32"),
        ({"heartbeat_ms": 0}, "heartbeat_ms = 0: must be 10 to 60000"),
    ],
)
def test_a_limit_out_of_range_is_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(GatewayConfigError, match=text.replace("(", r"\(")):
        config(**changes)


def test_a_generation_follows_from_the_history_alone() -> None:
    assert generation_of(1) == generation_of(1)
    assert len({generation_of(cluster) for cluster in range(1000)}) == 1000
    config(generation=generation_of(1 << 63))


def test_a_short_packet_is_no_packet() -> None:
    """The parser of these tests notices damage."""
    with pytest.raises((AssertionError, struct.error)):
        Packet.parse(MOLD_HEADER.pack(b"BR001TEST1", 1, 2) + struct.pack(">H", 4) + b"abc")
