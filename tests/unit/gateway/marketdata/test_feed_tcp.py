"""What the feed says over SoupBinTCP: logins, replay, live continuation, snapshots; who misbehaves is dropped alone."""

import socket
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.marketdata.feed import Hole
from gateway.marketdata.tokens import ALPHABET, Entitlement, Token, check, mint
from ringbuf.wire.market_codec import decode_market, encode_market
from ringbuf.wire.market_messages import (
    BookDigest,
    BookType,
    EventFlags,
    InstrumentStatus,
    LevelUpdate,
    SnapshotBegin,
    SnapshotEnd,
    SnapshotOrder,
    SnapshotRequest,
    SystemEvent,
)
from tests.kit.composed_exchange import PAIR
from tests.kit.feed_site import KEY, FeedSite, SoupPeer, config, flow, token, traders

FULL, DERIVED, REFERENCE = "BR001TEST1", "BR101TEST1", "BR900TEST1"
LAPPED = -1


def trade(site: FeedSite, count: int, seed: int = 1) -> None:
    for _ in flow(site.exchange, *traders(site.exchange), count, seed=seed):
        pass


def accepted(session: str, number: int) -> tuple[bytes, bytes]:
    return b"A", f"{session}{number:>20}".encode()


def ended(site: FeedSite, peer: SoupPeer) -> bool:
    site.until(lambda: peer.receive() >= 0 and peer.closed)
    return peer.closed


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_says_who_may_have_what_until_when() -> None:
    today = datetime.now(UTC).date()
    made = mint(KEY, subscriber=(1 << 25) - 1, entitlements=Entitlement.FULL | Entitlement.SNAPSHOTS, last_day=today)

    grant = check(KEY, Token(made.user.lower(), made.password))

    assert grant is not None
    assert (grant.subscriber, grant.entitlements) == ((1 << 25) - 1, Entitlement.FULL | Entitlement.SNAPSHOTS)
    assert grant.last_day == today
    assert check(bytes(32), made) is None
    assert check(KEY, made, datetime.now(UTC) + timedelta(days=1)) is None


@pytest.mark.parametrize("place", range(16))
def test_no_character_of_a_token_can_be_changed(place: int) -> None:
    made = token()
    text = made.user + made.password
    other = ALPHABET[(ALPHABET.index(text[place]) + 1) % 32]
    changed = text[:place] + other + text[place + 1 :]

    assert check(KEY, Token(changed[:6], changed[6:])) is None
    with FeedSite().start() as site:
        assert site.replay().login(who=Token(changed[:6], changed[6:])) == (b"J", b"A")


def test_c_and_python_agree_on_tokens() -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with FeedSite().start() as site:
        assert site.replay().login(who=Token(token().user.lower(), token().password.lower()))[0] == b"A"
        old = mint(KEY, subscriber=7, entitlements=Entitlement.ALL, last_day=yesterday)
        assert site.replay().login(who=old) == (b"J", b"A")
        assert site.replay().login(who=Token("", "")) == (b"J", b"A")
        assert site.replay().login(who=Token("!!!!!!", "!!!!!!!!!!")) == (b"J", b"A")


@pytest.mark.parametrize(
    ("entitlements", "session", "answer"),
    [
        (Entitlement.FULL, FULL, b"A"),
        (Entitlement.FULL, DERIVED, b"J"),
        (Entitlement.DERIVED, DERIVED, b"A"),
        (Entitlement.DERIVED, FULL, b"J"),
        (Entitlement.DEFINITIONS, REFERENCE, b"A"),
        (Entitlement.SNAPSHOTS, FULL, b"J"),
    ],
)
def test_a_token_opens_only_what_it_names(entitlements: Entitlement, session: str, answer: bytes) -> None:
    with FeedSite().start() as site:
        assert site.replay().login(session, who=token(entitlements))[0] == answer
        opened = site.snapshots().login(who=token(entitlements))[0]
        assert opened == (b"A" if entitlements & Entitlement.SNAPSHOTS else b"J")


def test_an_address_that_fails_too_often_is_refused_whatever_it_says() -> None:
    with FeedSite(config(logins_failed_max=3)) as site:
        site.start()
        for _ in range(3):
            assert site.replay().login(who=Token("AAAAAA", "AAAAAAAAAA")) == (b"J", b"A")

        assert site.replay().login() == (b"J", b"A")


def test_without_a_key_everybody_is_welcome() -> None:
    with FeedSite(config(key=None)) as site:
        site.start()
        assert site.replay().login(who=Token("anyone", "atall")) == accepted(FULL, 1)


# --- replay -----------------------------------------------------------------------------------------------------------


def test_replay_begins_where_it_is_asked_to_and_goes_on_live() -> None:
    with FeedSite().start() as site:
        trade(site, 300)
        before = site.messages()
        peer = site.replay()

        assert peer.login("BR001", 91) == accepted(FULL, 91)
        site.until(lambda: len(peer.data()) == len(before) - 90)
        trade(site, 50, seed=2)
        site.until(lambda: len(peer.data()) == len(site.messages()) - 90)

        assert peer.data() == site.messages()[90:]


def test_number_zero_is_the_next_message() -> None:
    with FeedSite().start() as site:
        trade(site, 20)
        count = len(site.messages())
        peer = site.replay()

        assert peer.login(FULL, 0) == accepted(FULL, count + 1)
        trade(site, 1)
        site.until(lambda: peer.data())

        assert peer.data() == site.messages()[count:]


def test_a_number_to_come_is_waited_for() -> None:
    with FeedSite().start() as site:
        peer = site.replay()
        assert peer.login(FULL, 40) == accepted(FULL, 40)

        trade(site, 60)
        site.until(lambda: len(peer.data()) == len(site.messages()) - 39)

        assert peer.data() == site.messages()[39:]


@pytest.mark.parametrize("session", ["BR002TEST1", "BR001OTHER", "BR102", "nonsense", "SNAPSHOT"])
def test_an_unknown_session_is_not_available(session: str) -> None:
    with FeedSite().start() as site:
        assert site.replay().login(session, 1) == (b"J", b"S")


def test_a_number_that_is_none_is_refused() -> None:
    with FeedSite().start() as site:
        for number in ("12x", "-1", "99999999999999999999"):
            peer, who = site.replay(), token()
            peer.send(b"L", f"{who.user}{who.password}{FULL}{number:>20}".encode())
            site.until(peer.receive)
            assert peer.packets == [(b"J", b"S")]
            assert ended(site, peer)


def test_what_the_ring_has_lost_comes_from_the_archive(tmp_path: Path) -> None:
    with FeedSite(config(archive=tmp_path), ring_slots=1 << 10) as site:
        site.start()
        slots: list[bytes] = []
        with (tmp_path / "1").open("wb") as archive:
            for _ in flow(site.exchange, *traders(site.exchange), 3000):
                while len(slots) < site.market.published:
                    slots.append(site.market.read(len(slots)))
                    archive.write(slots[-1])
        assert len(slots) > 3 * site.market.capacity
        peer = site.replay()

        assert peer.login(FULL, 1) == accepted(FULL, 1)
        site.until(lambda: len(peer.data()) == len(slots))

        assert peer.data() == [slot[8 : 16 + slot[8]] for slot in slots]
        assert len(site.lines[0].messages(FULL)) == len(slots), "the packets too, from the first one on"
        assert site.feed.counters()["laps"] > 0


def test_a_hole_in_the_archive_is_told_and_once_filled_all_goes_on(tmp_path: Path) -> None:
    with FeedSite(config(archive=tmp_path, books=False), ring_slots=1 << 10) as site:
        slots: list[bytes] = []
        for _ in flow(site.exchange, *traders(site.exchange), 3000):
            while len(slots) < site.market.published:
                slots.append(site.market.read(len(slots)))
        whole = b"".join(slots)
        (tmp_path / "1").write_bytes(whole[: 64 * 100] + bytes(64 * 10) + whole[64 * 110 :])
        site.start()
        peer = site.replay()
        assert peer.login(FULL, 1) == accepted(FULL, 1)
        site.until(lambda: site.feed.hole, status=LAPPED)
        assert site.feed.hole == Hole(1, 100)

        (tmp_path / "1").write_bytes(whole)
        site.until(lambda: len(peer.data()) == len(slots))

        assert peer.data() == [slot[8 : 16 + slot[8]] for slot in slots]


def test_derived_history_is_as_long_as_configured() -> None:
    with FeedSite(config(derived_slots=1 << 14), lines=0) as site:
        site.start()
        trade(site, 9000)
        site.settle()
        position = site.feed.position(101)
        assert 1 < position.oldest < position.next

        assert site.replay().login(DERIVED, position.oldest - 1) == (b"J", b"S")
        peer = site.replay()
        assert peer.login(DERIVED, position.oldest) == accepted(DERIVED, position.oldest)
        site.until(lambda: len(peer.data()) == position.next - position.oldest)


def test_heartbeats_go_both_ways_and_silence_is_ended() -> None:
    with FeedSite(config(heartbeat_ms=10, silence_timeout_ms=400)) as site:
        site.start()
        talks, silent = site.replay(), site.replay()
        assert talks.login(FULL)[0] == silent.login(FULL)[0] == b"A"

        said = [time.monotonic()]

        def gone() -> bool:
            if time.monotonic() > said[-1] + 0.1:
                talks.send(b"R")
                said.append(time.monotonic())
            talks.receive()
            silent.receive()
            return silent.closed

        site.until(gone)

        assert not talks.closed
        assert (b"H", b"") in talks.packets
        assert site.feed.counters()["silent"] == 1


def test_a_login_must_come_in_time() -> None:
    with FeedSite(config(login_timeout_ms=20)) as site:
        site.start()
        peer = site.replay()

        assert ended(site, peer)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        b"\xff\xffL" + bytes(300),
        struct.pack(">H", 5) + b"Labcd",
        struct.pack(">H", 1) + b"?",
        struct.pack(">H", 1) + b"U",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_soup_is_disconnected_and_nobody_else(data: bytes) -> None:
    with FeedSite().start() as site:
        good, bad = site.replay(), site.replay()
        assert good.login(FULL, 1)[0] == b"A"

        bad.send_raw(data)

        assert ended(site, bad)
        trade(site, 5)
        site.until(lambda: len(good.data()) == len(site.messages()))
        assert not good.closed


def test_a_second_login_and_a_logout_end_the_connection() -> None:
    with FeedSite().start() as site:
        again, out = site.replay(), site.replay()
        assert again.login(FULL)[0] == out.login(FULL)[0] == b"A"
        again.send(b"L", bytes(46))
        out.send(b"O")

        assert ended(site, again)
        assert ended(site, out)


def test_a_flood_of_packets_ends_the_connection() -> None:
    with FeedSite().start() as site:
        peer = site.replay()
        peer.login(FULL)

        peer.send_raw(b"\0\1+" * 200)

        assert ended(site, peer)
        assert site.feed.counters()["floods"] == 1


def test_connections_of_one_user_and_of_all_are_bounded() -> None:
    with FeedSite(config(connections_per_user=2, connections_max=3)) as site:
        site.start()
        assert [site.replay().login(FULL)[0] for _ in range(3)] == [b"A", b"A", b"J"]

        site.until(lambda: site.feed.counters()["open"] == 2)
        assert site.replay().login(FULL, who=token(subscriber=8))[0] == b"A"
        assert ended(site, site.replay())
        assert site.feed.counters()["refused"] == 1


def small_buffer(peer: SoupPeer) -> SoupPeer:
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return peer


def test_a_reader_that_takes_nothing_holds_nobody_up() -> None:
    with FeedSite(config(output_bytes=4096), ring_slots=1 << 16) as site:
        site.start()
        trade(site, 5000)
        slow, fast = small_buffer(site.replay()), site.replay()
        slow.login(FULL, 1)
        fast.login(FULL, 1)

        site.until(lambda: fast.receive() == len(site.messages()))

        assert fast.data() == site.messages()
        assert site.feed.counters()["open"] == 2


def test_a_reader_that_takes_nothing_for_long_is_dropped_though_it_talks() -> None:
    with FeedSite(config(output_bytes=4096, silence_timeout_ms=300), ring_slots=1 << 16) as site:
        site.start()
        trade(site, 40000)
        slow, said = small_buffer(site.replay()), [0.0]
        slow.login(FULL, 1)

        def dropped() -> bool:
            if time.monotonic() > said[-1] + 0.1 and site.feed.counters()["open"]:
                slow.send(b"R")
                said.append(time.monotonic())
            return site.feed.counters()["stuck"] == 1

        site.until(dropped)


# --- snapshots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entitlement", "kind", "given"),
    [
        (Entitlement.FULL, BookType.BY_ORDER, True),
        (Entitlement.FULL, BookType.BY_LEVEL, True),
        (Entitlement.DERIVED, BookType.BY_LEVEL, True),
        (Entitlement.DERIVED, BookType.BY_ORDER, False),
        (Entitlement.DEFINITIONS, BookType.BY_LEVEL, False),
    ],
)
def test_a_snapshot_shows_no_more_than_the_channels(entitlement: Entitlement, kind: BookType, given: bool) -> None:
    with FeedSite(lines=0).start() as site:
        _, buyer = traders(site.exchange)
        site.exchange.buy(buyer, 100, 5)
        peer = site.snapshots()
        assert peer.login(who=token(entitlement | Entitlement.SNAPSHOTS)) == accepted("SNAPSHOT  ", 1)
        peer.send(b"U", encode_market(SnapshotRequest(request_id=1, instrument_id=PAIR, book_type=kind)))
        if given:
            assert site.until(done(peer))
        else:
            site.until(lambda: peer.receive() is not None and peer.closed)
            assert peer.data() == []


def snapshot(site: FeedSite, instrument: int, kind: BookType = BookType.BY_ORDER) -> list[object]:
    """Ask on a new connection; return the messages up to the last SnapshotEnd."""
    peer = site.snapshots()
    assert peer.login() == accepted("SNAPSHOT  ", 1)
    peer.send(b"U", encode_market(SnapshotRequest(request_id=1, instrument_id=instrument, book_type=kind)))
    return site.until(done(peer))


def done(peer: SoupPeer, requests: int = 1) -> Callable[[], list[object] | None]:
    seen = [-1]

    def look() -> list[object] | None:
        if peer.receive() == seen[0]:
            return None
        seen[0] = peer.receive()
        messages: list[object] = list(peer.decoded())
        ends = [each for each in messages if isinstance(each, SnapshotEnd) and each.instruments_remaining == 0]
        return messages if len(ends) == requests else None

    return look


def test_a_snapshot_is_the_book_in_priority_order_with_its_number() -> None:
    with FeedSite().start() as site:
        trade(site, 400)
        bids, asks = site.exchange.engine.book(PAIR)
        assert len(bids) > 5
        assert len(asks) > 5

        begin, *orders, digest, end = snapshot(site, PAIR)

        count = len(site.messages())
        assert isinstance(begin, SnapshotBegin)
        assert (begin.last_seq_num, begin.order_count) == (count, len(bids) + len(asks))
        assert all(isinstance(each, SnapshotOrder) and each.event_flags == EventFlags.RECOVERY for each in orders)
        found = [(each.order_id, each.price, each.qty) for each in orders]  # type: ignore[attr-defined]
        assert found == [*bids, *asks]
        assert end == SnapshotEnd(last_seq_num=count, instrument_id=PAIR, instruments_remaining=0)
        assert isinstance(digest, BookDigest)
        low, high = struct.unpack("<QQ", site.exchange.engine.matchers[0].book_hash(PAIR))
        assert (digest.digest_low, digest.digest_high) == (low, high)


def test_a_snapshot_by_level_names_the_derived_channel() -> None:
    with FeedSite().start() as site:
        trade(site, 400)
        begin, *levels, end = snapshot(site, PAIR, BookType.BY_LEVEL)

        expected: dict[tuple[int, int], list[int]] = {}
        for side, orders in zip((1, 2), site.exchange.engine.book(PAIR), strict=True):
            for _, price, qty in orders:
                expected.setdefault((side, price), []).append(qty)
        assert isinstance(begin, SnapshotBegin)
        assert begin.last_seq_num == site.feed.position(101).next - 1
        assert [each for each in levels if not isinstance(each, LevelUpdate)] == []
        found = {(each.side, each.price): (each.new_qty, each.num_orders) for each in levels}  # type: ignore[attr-defined]
        assert found == {key: (sum(each), len(each)) for key, each in expected.items()}
        assert isinstance(end, SnapshotEnd)


def test_a_book_without_events_is_empty_as_of_message_zero() -> None:
    with FeedSite().start() as site:
        assert snapshot(site, 9) == [SnapshotBegin(instrument_id=9), SnapshotEnd(instrument_id=9)]
        assert snapshot(site, 0) == [SnapshotBegin(partition=1), SnapshotEnd()]


def test_all_books_come_one_after_the_other() -> None:
    with FeedSite().start() as site:
        from ringbuf.wire import messages as wire

        for number in (2, 3):
            site.exchange.admin(
                wire.InstrumentAdd(
                    tick_size=1, lot_size=1, quote_per_tick_lot=1, base_per_lot=1, base_asset_id=1, quote_asset_id=2,
                    symbol=f"P{number}",
                )
            )  # fmt: skip
        _, buyer = traders(site.exchange)
        for number in (1, 3):
            site.exchange.buy(buyer, 10 + number, number, instrument_id=number)

        messages = snapshot(site, 0)

        assert messages[0] == SnapshotBegin(last_seq_num=2, partition=1), "where the channel stood at the beginning"
        ends = [each for each in messages if isinstance(each, SnapshotEnd)]
        assert [(end.instrument_id, end.instruments_remaining) for end in ends] == [(1, 1), (3, 0)]
        orders = [each for each in messages if isinstance(each, SnapshotOrder)]
        assert [(each.instrument_id, each.price) for each in orders] == [(1, 11), (3, 13)]


def test_a_halted_book_says_so() -> None:
    from ringbuf.wire import messages as wire

    with FeedSite().start() as site:
        site.exchange.admin(wire.InstrumentState(instrument_id=PAIR, state=wire.MarketState.HALTED))

        messages = snapshot(site, PAIR)

        assert [each.status for each in messages if isinstance(each, InstrumentStatus)] == [wire.MarketState.HALTED]


def test_requests_of_the_same_moment_share_one_copy() -> None:
    with FeedSite(config(snapshot_age_ms=60_000)) as site:
        site.start()
        trade(site, 200)
        first = snapshot(site, PAIR)
        trade(site, 10, seed=2)

        assert snapshot(site, PAIR) == first
        assert site.feed.counters()["snapshots_made"] == 1
        assert snapshot(site, PAIR, BookType.BY_LEVEL) != first


def test_requests_are_answered_in_order_and_a_flood_of_them_ends_the_connection() -> None:
    with FeedSite().start() as site:
        trade(site, 50)
        peer, flooder = site.snapshots(), site.snapshots()
        request = encode_market(SnapshotRequest(instrument_id=PAIR))
        assert peer.login()[0] == flooder.login()[0] == b"A"
        for _ in range(8):
            peer.send(b"U", request)
        flooder.send_raw((struct.pack(">H", len(request) + 1) + b"U" + request) * 30)

        messages = site.until(done(peer, 8))

        begins = [each for each in messages if isinstance(each, SnapshotBegin)]
        assert len(begins) == 8
        assert ended(site, flooder)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"short",
        encode_market(SystemEvent()),
        encode_market(SnapshotRequest(instrument_id=17)),
        encode_market(SnapshotRequest(book_type=2)),
        encode_market(SnapshotRequest(partition=2)),
        encode_market(SnapshotRequest())[:-1],
        b"\0\0" + encode_market(SnapshotRequest())[2:],
    ],
)
def test_a_malformed_request_for_a_snapshot_ends_the_connection(payload: bytes) -> None:
    with FeedSite().start() as site:
        peer = site.snapshots()
        assert peer.login()[0] == b"A"

        peer.send(b"U", payload)

        assert ended(site, peer)
        assert site.feed.counters()["malformed"] == 1


def test_memory_of_snapshots_is_bounded() -> None:
    with FeedSite(config(snapshot_bytes_max=1 << 16, snapshot_age_ms=0, orders_expected=4096)) as site:
        site.start()
        _, buyer = traders(site.exchange)
        for price in range(1, 1001):
            site.exchange.buy(buyer, price, 1)
        site.settle()

        for _ in range(4):
            assert len(snapshot(site, PAIR)) == 1003
            assert site.feed.counters()["snapshot_bytes"] <= 1 << 16


def test_trading_goes_on_while_a_snapshot_is_read_slowly() -> None:
    with FeedSite(config(output_bytes=4096, orders_expected=1 << 16), ring_slots=1 << 16) as site:
        site.start()
        _, buyer = traders(site.exchange)
        for price in range(1, 20001):
            site.exchange.buy(buyer, price, 1)
        site.settle()
        peer = site.snapshots()
        peer.login()
        peer.send(b"U", encode_market(SnapshotRequest(instrument_id=PAIR)))
        for _ in range(10):
            site.feed.poll()
        number = len(site.messages())
        for price in range(1, 101):
            site.exchange.buy(buyer, price, 2)

        messages = site.until(done(peer))

        assert isinstance(messages[0], SnapshotBegin)
        assert (messages[0].order_count, messages[0].last_seq_num) == (20000, number)
        assert decode_market(encode_market(messages[-1])) == messages[-1]
        site.until(lambda: len(site.lines[0].messages(FULL)) == number + 100)
