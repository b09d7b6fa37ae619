"""The same bytes to all; a slow reader is left behind, gets the newest, and is ended when too much waits."""

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.web.streams.fanout import Audience, FanOut, ws_frame
from gateway.web.streams.names import parse
from gateway.web.streams.payloads import MS, US
from tests.kit.stream_peer import Peer

QUEUE_BYTES = 65536
TRADE, BEST = parse("btcusdt@trade"), parse("btcusdt@bookTicker")


@pytest.fixture
def fan() -> Iterator[FanOut]:
    made = FanOut(QUEUE_BYTES)
    yield made
    made.close()


def say(text: str) -> Any:
    return lambda unit: {"text": text, "unit": unit}


def body(text: str, unit: int = MS) -> bytes:
    return b'{"text":"' + text.encode() + b'","unit":' + str(unit).encode() + b"}"


def test_each_form_is_made_once_and_goes_to_all_who_want_it(fan: FanOut) -> None:
    audience, peers = Audience(fan, TRADE), [Peer(fan) for _ in range(40)]
    made: list[int] = []
    for index, peer in enumerate(peers):
        audience.add(peer.outlet, combined=index % 2 == 1, unit_ns=MS if index < 20 else US)

    def make(unit: int) -> Any:
        made.append(unit)
        return {"text": "a", "unit": unit}

    audience.tell(make)

    assert sorted(made) == [US, MS]
    for index, peer in enumerate(peers):
        payload = body("a", MS if index < 20 else US)
        wrapped = b'{"stream":"btcusdt@trade","data":' + payload + b"}"
        assert peer.read() == ws_frame(wrapped if index % 2 else payload)


def test_who_left_gets_nothing(fan: FanOut) -> None:
    audience, peers = Audience(fan, TRADE), [Peer(fan) for _ in range(3)]
    for peer in peers:
        audience.add(peer.outlet, combined=False, unit_ns=MS)
    audience.remove(peers[0].outlet)
    peers[0].outlet.close()

    audience.tell(say("b"))

    assert [peer.read() if peer is not peers[0] else b"" for peer in peers] == [b"", *[ws_frame(body("b"))] * 2]


def test_slow_reader_misses_no_trade_and_gets_only_the_newest_price(fan: FanOut) -> None:
    trades, bests, peer, other = Audience(fan, TRADE), Audience(fan, BEST), Peer(fan), Peer(fan)
    for audience in (trades, bests):
        for each in (peer, other):
            audience.add(each.outlet, combined=False, unit_ns=MS)
    sent, seen_by_other = [], b""
    for number in range(400):
        trades.tell(say(f"trade {number}"))
        bests.tell(say(f"best {number}"))
        sent.append(ws_frame(body(f"trade {number}")))
        seen_by_other += other.read()

    data = b""
    for _ in range(1000):
        data += peer.read()
        fan.poll()

    assert all(frame in seen_by_other for frame in sent)
    places = [data.find(frame) for frame in sent]
    assert -1 not in places
    assert places == sorted(places)
    assert data.count(b"best") + peer.outlet.conflated == 400
    assert peer.outlet.conflated > 0
    assert data.endswith(ws_frame(body("best 399")))
    assert peer.outlet not in fan.behind


def test_end_of_a_candle_reaches_the_slow_too(fan: FanOut) -> None:
    audience, peer = Audience(fan, parse("btcusdt@kline_1s")), Peer(fan)
    audience.add(peer.outlet, combined=False, unit_ns=MS)
    for number in range(600):
        audience.tell(say(f"open {number}"))
        if number % 100 == 99:
            audience.tell(say(f"end {number}"), keep=True)
    data = b""
    for _ in range(1000):
        data += peer.read()
        fan.poll()

    assert data.count(b"end ") == 6
    assert peer.outlet.conflated > 0


def test_who_never_reads_is_ended_within_the_bound(fan: FanOut) -> None:
    audience, peer = Audience(fan, TRADE), Peer(fan)
    audience.add(peer.outlet, combined=False, unit_ns=MS)
    for number in range(10_000):
        audience.tell(say(f"trade {number}"))
        if peer.reasons:
            break

    assert peer.reasons == ["the reader is too slow"]
    assert fan.slow_closed == 1
    assert number * len(ws_frame(body("trade 10"))) < QUEUE_BYTES + 65536


def test_newcomer_gets_the_newest_where_only_that_counts(fan: FanOut) -> None:
    bests, trades, peer = Audience(fan, BEST), Audience(fan, TRADE), Peer(fan)
    bests.tell(say("old"))
    bests.tell(say("new"))
    trades.tell(say("gone"))

    for audience in (trades, bests):
        audience.add(peer.outlet, combined=False, unit_ns=MS)

    assert peer.read() == ws_frame(body("new"))


def test_broken_connection_does_not_hurt_the_others(fan: FanOut) -> None:
    audience, broken, other = Audience(fan, TRADE), Peer(fan), Peer(fan)
    for peer in (broken, other):
        audience.add(peer.outlet, combined=False, unit_ns=MS)
    broken.socket.close()

    audience.tell(say("c"))
    fan.poll()

    assert other.read() == ws_frame(body("c"))
    assert broken.reasons == ["the connection is broken"]
    assert broken.heard == [b""]
