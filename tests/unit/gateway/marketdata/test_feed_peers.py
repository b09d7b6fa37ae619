"""Programs nobody here wrote read our traffic: Nasdaq's own SoupBinTCP client, tshark's dissectors, PyPI's `sbe`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sbe
from nasdaq_protocols import soup

from gateway.marketdata.tokens import Token
from ringbuf.wire import generate
from ringbuf.wire.market_codec import encode_market
from ringbuf.wire.market_messages import MESSAGES, InstrumentDefinition, SnapshotRequest, SystemEvent
from tests.kit.composed_exchange import PAIR
from tests.kit.feed_site import FeedSite, config, flow, token, traders
from tests.unit.ringbuf.test_dissector import CLIENT_PORT, TCP, TSHARK, fields, folder, ip_packet, tshark, udp

__all__ = ["folder"]  # the fixture
FULL = "BR001TEST1"
DEADLINE_S = 30.0
MOLD_PORT, SOUP_PORT = 9300, 9200
SEGMENT, LOGIN_SIZE = 1000, 49
SYN, ACK = 2, 16
SNAPSHOT_END = 42
REPO = Path(generate.__file__).resolve().parents[2]
needs_tshark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed (nor named by TSHARK)")


def trade(site: FeedSite, count: int, seed: int = 1) -> None:
    for _ in flow(site.exchange, *traders(site.exchange), count, seed=seed):
        pass


# --- nasdaq-protocols -------------------------------------------------------------------------------------------------


def with_nasdaq(scene: Callable[[FeedSite, Any, int, int], Awaitable[None]]) -> None:
    """Run a scene with Nasdaq's client beside a feed that is polled."""
    with FeedSite(lines=0).start() as site:
        replay, snapshot = site.feed.listen_replay("127.0.0.1", 0), site.feed.listen_snapshot("127.0.0.1", 0)

        async def run() -> None:
            async def poll() -> None:
                while True:
                    site.feed.poll()
                    await asyncio.sleep(0)

            polling = asyncio.create_task(poll())
            async with asyncio.timeout(DEADLINE_S):
                await scene(site, soup, replay, snapshot)
            polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await polling

        asyncio.run(run())


async def receive(session: Any, soup: Any, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        message = await session.receive_msg()
        if isinstance(message, soup.SequencedData):
            found.append(message.data)
    return found


def test_nasdaqs_client_replays_from_a_number_and_goes_on_live() -> None:
    async def scene(site: FeedSite, soup: Any, replay: int, _: int) -> None:
        trade(site, 300)
        who = token()
        session = await soup.connect_async(("127.0.0.1", replay), who.user, who.password, "BR001", 91)

        assert session.session_id.session == FULL
        found = await receive(session, soup, len(site.messages()) - 90)
        trade(site, 20, seed=2)
        found += await receive(session, soup, len(site.messages()) - 90 - len(found))

        assert found == site.messages()[90:]
        session.logout()

    with_nasdaq(scene)


def test_nasdaqs_client_gets_a_snapshot() -> None:
    async def scene(site: FeedSite, soup: Any, _: int, snapshot: int) -> None:
        trade(site, 200)
        who = token()
        session = await soup.connect_async(("127.0.0.1", snapshot), who.user, who.password)
        session.send_unseq_data(encode_market(SnapshotRequest(instrument_id=PAIR)))
        bids, asks = site.exchange.engine.book(PAIR)

        found = await receive(session, soup, len(bids) + len(asks) + 3)

        names = [MESSAGES[int.from_bytes(data[2:4], "little")].__name__ for data in found]
        orders = ["SnapshotOrder"] * (len(bids) + len(asks))
        assert names == ["SnapshotBegin", *orders, "BookDigest", "SnapshotEnd"]
        session.logout()

    with_nasdaq(scene)


@pytest.mark.parametrize(
    ("who", "session", "reason"), [(Token("AAAAAA", "BBBBBBBBBB"), "", "Not"), (token(), "BR099", "Session")]
)
def test_nasdaqs_client_is_refused(who: Token, session: str, reason: str) -> None:
    async def scene(_site: FeedSite, soup: Any, replay: int, _: int) -> None:
        with pytest.raises(ConnectionRefusedError, match=reason.upper()):
            await soup.connect_async(("127.0.0.1", replay), who.user, who.password, session, 1)

    with_nasdaq(scene)


# --- tshark ----------------------------------------------------------------------------------------------------------

DECODE_AS = ["-d", f"udp.port=={MOLD_PORT},moldudp64", "-d", "moldudp64.payload,bullring_md"]
BAD = "_ws.malformed || _ws.expert.severity == error || bullring_md.malformed"


@needs_tshark
def test_tshark_reads_every_packet_of_all_channels(folder: Path) -> None:
    with FeedSite(config(heartbeat_ms=10, definitions_ms=1), lines=1) as site:
        site.start()
        site.feed.define(SystemEvent())
        site.feed.define(InstrumentDefinition(instrument_id=1, symbol="BASE-QUOTE", partition=1))
        trade(site, 400)
        site.until(lambda: len(site.lines[0].messages(FULL)) == len(site.messages()))
        site.feed.end_session(FULL, 99)
        site.until(lambda: any(packet.count == 0xFFFF for packet in site.lines[0].receive()))
        raw, expected, derived = site.lines[0].raw, site.messages(), site.lines[0].messages("BR101TEST1")
    packets = [udp(MOLD_PORT, data) for data in raw]

    assert tshark(folder, packets, *DECODE_AS, "-Y", BAD) == []
    wanted = fields("moldudp64.session", "moldudp64.sequence", "moldudp64.msgseq", "bullring_md.template_id")
    rows = [row.split("\t") for row in tshark(folder, packets, *DECODE_AS, *wanted)]
    assert len(rows) == len(raw)
    templates: dict[str, list[int]] = {}
    for session, _, numbers, kinds in rows:
        if numbers:
            assert len(numbers.split(",")) == len(kinds.split(","))
            if session == FULL:
                templates.setdefault(session, []).extend(int(kind) for kind in kinds.split(","))
    assert templates[FULL] == [int.from_bytes(message[2:4], "little") for message in expected]
    assert len(derived) > 50


@needs_tshark
def test_tshark_reads_logins_replay_snapshots_and_heartbeats(folder: Path) -> None:
    with FeedSite(config(heartbeat_ms=10), lines=0) as site:
        site.start()
        trade(site, 100)
        replay, snapshot, refused = site.replay(), site.snapshots(), site.replay()
        assert replay.login("BR001", 5)[0] == snapshot.login()[0] == b"A"
        assert refused.login("BR001", who=Token("X", "Y"))[0] == b"J"
        snapshot.send(b"U", encode_market(SnapshotRequest(instrument_id=PAIR)))
        replay.send(b"R")
        site.until(lambda: len(replay.data()) == len(site.messages()) - 4)
        site.until(lambda: any(data[2] == SNAPSHOT_END for data in snapshot.data()))
        site.until(lambda: replay.receive() and (b"H", b"") in replay.packets)
        streams = [(peer.sent, peer.got) for peer in (replay, snapshot, refused)]
        sequenced = [len(peer.data()) for peer in (replay, snapshot)]
    decode_as = ["-d", f"tcp.port=={SOUP_PORT},soupbintcp"]

    counts = []
    for sent, got in streams:
        segments = conversation(sent, got)
        assert tshark(folder, segments, *decode_as, "-Y", BAD) == []
        kinds = (
            ",".join(tshark(folder, segments, *decode_as, *fields("soupbintcp.packet_type")))
            .replace("'", "")
            .split(",")
        )
        counts.append({kind: kinds.count(kind) for kind in set(kinds) if kind})
    assert counts[0]["S"] == sequenced[0]
    assert (counts[0]["L"], counts[0]["A"], counts[0]["R"]) == (1, 1, 1)
    assert counts[0]["H"] >= 1
    assert (counts[1]["S"], counts[1]["U"]) == (sequenced[1], 1)
    assert counts[2] == {"L": 1, "J": 1}


def conversation(sent: bytes, got: bytes) -> list[bytes]:
    """A TCP connection: the client's login, all the server said, the rest of the client's, in segments."""
    client, server = (CLIENT_PORT, SOUP_PORT), (SOUP_PORT, CLIENT_PORT)
    segments = [segment(client, 0, 0, SYN), segment(server, 0, 1, SYN | ACK), segment(client, 1, 1, ACK)]
    segments.append(segment(client, 1, 1, ACK, sent[:LOGIN_SIZE]))
    # The answer to the login leaves alone, as from the real server: tshark 4.0 takes the rest for a new conversation.
    answer = 2 + int.from_bytes(got[:2], "big")
    for at, end in itertools.pairwise([0, *range(answer, len(got), SEGMENT), len(got)]):
        segments.append(segment(server, 1 + at, 1 + LOGIN_SIZE, ACK, got[at:end]))
    if sent[LOGIN_SIZE:]:
        segments.append(segment(client, 1 + LOGIN_SIZE, 1 + len(got), ACK, sent[LOGIN_SIZE:]))
    return segments


def segment(ports: tuple[int, int], sequence: int, acknowledged: int, flags: int, data: bytes = b"") -> bytes:
    header = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledged, 0x50, flags, 65535, 0, 0)
    return ip_packet(TCP, header + data)


@needs_tshark
def test_a_damaged_message_is_marked(folder: Path) -> None:
    """The control: the filter of the tests above finds what is wrong."""
    with FeedSite(lines=1).start() as site:
        trade(site, 5)
        site.until(lambda: len(site.lines[0].messages(FULL)) == len(site.messages()))
        whole = next(data for data in site.lines[0].raw if data.startswith(FULL.encode()) and len(data) > 60)
    damaged = whole[:22] + b"\xff" + whole[23:]

    assert tshark(folder, [udp(MOLD_PORT, whole)], *DECODE_AS, "-Y", BAD) == []
    assert len(tshark(folder, [udp(MOLD_PORT, damaged)], *DECODE_AS, "-Y", BAD)) == 1


# --- sbe -------------------------------------------------------------------------------------------------------------


def test_the_package_sbe_reads_our_messages() -> None:
    with (REPO / generate.MARKETDATA).open() as file:
        peer = sbe.Schema.parse(file)
    with FeedSite(lines=0).start() as site:
        trade(site, 60)
        site.settle()
        messages = site.messages()
        stream, snapshot = site.replay(), site.snapshots()
        stream.login("BR101", 1)
        snapshot.login()
        snapshot.send(b"U", encode_market(SnapshotRequest(instrument_id=PAIR)))
        site.until(lambda: len(stream.data()) > 50 and any(data[2] == SNAPSHOT_END for data in snapshot.data()))
        messages += stream.data()[:60] + snapshot.data()

    seen = set()
    for data in messages:
        decoded = peer.decode(data)
        ours: Any = MESSAGES[int.from_bytes(data[2:4], "little")].unpack(data, 8)
        seen.add(decoded.message_name)
        assert decoded.message_name == type(ours).__name__
        for name, value in decoded.value.items():
            if name in ("orderId", "qty", "price", "lastQty", "newQty", "instrumentId", "lastSeqNum", "digestLow"):
                snake = "".join("_" + char.lower() if char.isupper() else char for char in name)
                assert getattr(ours, snake) == value
    assert {"OrderAdd", "OrderExecute", "LevelUpdate", "Bbo", "Trade", "SnapshotBegin", "SnapshotEnd"} <= seen
