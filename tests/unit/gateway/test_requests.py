"""What becomes of the frames of a client that is logged on."""

import random
import struct

import pytest

from ringbuf import StorageLevel
from ringbuf.wire.codec import encode_frame
from ringbuf.wire.messages import (
    AssetAdd,
    BalanceQuery,
    BalanceReply,
    BusinessReject,
    EstablishAck,
    EstablishReject,
    FrameFlag,
    KeyQuery,
    MassCancelRequest,
    NewOrderSingle,
    NotApplied,
    OrderAccepted,
    OrderCancelRequest,
    OrderRejected,
    QueryEnd,
    RejectCode,
    Sequence,
    SessionBind,
    Terminate,
    TerminateCode,
)
from tests.kit import eventually
from tests.kit.fake_exchange import FLAG_MORE, FLAG_REJECT, FakeExchange
from tests.kit.journals import set_storage
from tests.kit.raw_client import RawClient
from tests.kit.site import ACCOUNT, SESSION, MakeSite, Site


def order(**terms: object) -> NewOrderSingle:
    values: dict[str, object] = {"instrument_id": 1, "side": 1, "ord_type": 2, "time_in_force": 1}
    return NewOrderSingle(**(values | {"price": 100, "order_qty": 5} | terms))  # type: ignore[arg-type]


def patched(frame: bytes, offset: int, data: bytes) -> bytes:
    return frame[:offset] + data + frame[offset + len(data) :]


def decoding_error(client: RawClient) -> bool:
    """Whether the server ends the connection with Terminate(DecodingError) now."""
    answer = client.message()
    assert isinstance(answer, Terminate), answer
    assert answer.code == TerminateCode.DECODING_ERROR
    return client.closed()


def test_request_reaches_the_ring_byte_for_byte_and_its_report_comes_back(site: Site) -> None:
    client = site.logged_on()
    sent = order(cl_ord_id=0x1122334455667788, client_tag=9)

    client.send(sent, seq_num=1)
    header, answer = client.receive()

    (slot,) = site.exchange.requests()
    assert (slot.session, slot.template, slot.flags, slot.block) == (SESSION, 100, 0, sent.pack())
    assert isinstance(answer, OrderAccepted)
    assert (answer.cl_ord_id, answer.ref_seq_num) == (sent.cl_ord_id, 1)
    assert (header.partition, header.seq_num, header.frame_flags) == (1, 1, 0)


def test_many_frames_in_one_segment_are_answered_in_order(site: Site) -> None:
    client = site.logged_on()

    client.raw(b"".join(encode_frame(order(cl_ord_id=n), seq_num=n) for n in range(1, 101)))

    answers = [client.receive() for _ in range(100)]
    assert [message.cl_ord_id for _, message in answers] == list(range(1, 101))  # type: ignore[attr-defined]
    assert [header.seq_num for header, _ in answers] == list(range(1, 101))


@pytest.mark.parametrize("cut", range(1, 112))
def test_frame_cut_anywhere_is_put_together_again(site: Site, cut: int) -> None:
    client = site.logged_on()
    frame = encode_frame(order(), seq_num=1)
    assert len(frame) == 112

    client.raw(frame[:cut])
    reads = site.server.counters()["bytes_in"]
    eventually(lambda: site.server.counters()["bytes_in"] >= reads)
    client.raw(frame[cut:])

    assert isinstance(client.message(), OrderAccepted)


MALFORMED = {
    "length 0": (0, struct.pack("<I", 0)),
    "length of a header alone": (0, struct.pack("<I", 32)),
    "giant length": (0, struct.pack("<I", 0xFFFFFFFF)),
    "length that is no multiple of 8": (0, struct.pack("<I", 113)),
    "length above the block's": (0, struct.pack("<I", 120)),
    "length below the block's": (0, struct.pack("<I", 104)),
    "encoding": (4, struct.pack("<H", 0x5BE0)),
    "block longer than the template": (0, struct.pack("<IHH", 120, 0xEB50, 88)),
    "schema": (10, struct.pack("<H", 1002)),
    "version from the future": (12, struct.pack("<H", 1)),
    "partition bits": (14, struct.pack("<H", 0x100)),
    "replay flag": (14, struct.pack("<H", FrameFlag.POSS_RETRANS)),
    "unknown flag": (14, struct.pack("<H", 16)),
    "number 0": (16, struct.pack("<Q", 0)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_frame_ends_the_connection(site: Site, name: str) -> None:
    client = site.logged_on()
    offset, data = MALFORMED[name]

    client.raw(patched(encode_frame(order(), seq_num=1), offset, data) + bytes(64))

    assert decoding_error(client)
    assert site.exchange.requests() == []
    assert site.server.counters()["malformed"] == 1


def test_giant_length_is_refused_before_the_frame_is_there(site: Site) -> None:
    client = site.logged_on()

    client.raw(struct.pack("<I", 0x7FFFFFFF))

    assert decoding_error(client)


def test_frames_before_a_malformed_one_count(site: Site) -> None:
    client = site.logged_on()

    client.raw(encode_frame(order(), seq_num=1) + b"garbage that is no frame at all")

    assert decoding_error(client)
    eventually(lambda: len(site.exchange.requests()) == 1)


REFUSED = {
    "side": (order(side=3), RejectCode.INVALID_SIDE),
    "order type": (order(ord_type=9), RejectCode.INVALID_ORD_TYPE),
    "time in force": (order(time_in_force=2), RejectCode.INVALID_TIME_IN_FORCE),
    "self-trade mode": (order(stp_mode=6), RejectCode.INVALID_STP),
    "exec inst": (order(exec_inst=1 << 9), RejectCode.INVALID_COMBINATION),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_value_is_a_numbered_reject_and_the_stream_goes_on(site: Site, name: str) -> None:
    client = site.logged_on()
    bad, code = REFUSED[name]

    client.raw(encode_frame(bad, seq_num=1) + encode_frame(order(), seq_num=2))

    answers = [client.receive() for _ in range(2)]
    (rejected,) = [message for _, message in answers if isinstance(message, OrderRejected)]
    (accepted,) = [message for _, message in answers if isinstance(message, OrderAccepted)]
    assert (rejected.reject_code, rejected.ref_seq_num) == (code, 1)
    assert accepted.ref_seq_num == 2


def test_padding_that_is_not_zero_is_refused(site: Site) -> None:
    client = site.logged_on()

    client.raw(patched(encode_frame(order(), seq_num=1), 32 + 47, b"\1"))

    answer = client.message()
    assert isinstance(answer, OrderRejected)
    assert answer.reject_code == RejectCode.PADDING_NOT_ZERO


def test_short_block_is_refused_and_numbered(site: Site) -> None:
    client = site.logged_on()
    whole = encode_frame(order(), seq_num=1)

    client.raw(patched(whole[:-8], 0, struct.pack("<IHH", 104, 0xEB50, 72)))

    answer = client.message()
    assert isinstance(answer, OrderRejected)
    assert (answer.reject_code, answer.ref_seq_num) == (RejectCode.BLOCK_TOO_SHORT, 1)


@pytest.mark.parametrize("template", [999, 5000, 65535])
def test_unknown_template_is_refused_and_numbered(site: Site, template: int) -> None:
    client = site.logged_on()

    client.raw(patched(encode_frame(order(), seq_num=1), 8, struct.pack("<H", template)))

    answer = client.message()
    assert isinstance(answer, BusinessReject)
    assert (answer.reject_code, answer.ref_template_id, answer.ref_seq_num) == (
        RejectCode.UNKNOWN_TEMPLATE,
        template,
        1,
    )


def test_template_of_the_log_never_reaches_the_ring_under_its_number(site: Site) -> None:
    client = site.logged_on()
    forged = SessionBind(session_id=SESSION + 1, session_ver_id=1, access_key_id="KEY", connection_id=3)

    client.raw(encode_frame(forged, seq_num=1))

    answer = client.message()
    assert isinstance(answer, BusinessReject)
    assert answer.reject_code == RejectCode.UNKNOWN_TEMPLATE
    (slot,) = site.exchange.requests()
    assert slot.template == 65535
    assert slot.flags & FLAG_REJECT


def test_administration_needs_a_privileged_key(site: Site) -> None:
    client = site.logged_on()

    client.send(AssetAdd(request_id=1, symbol="X"), seq_num=1)

    answer = client.message()
    assert isinstance(answer, BusinessReject)
    assert answer.reject_code == RejectCode.NOT_PRIVILEGED


def test_key_without_trading_permission_may_not_trade(site: Site) -> None:
    reader = site.key("READER", permissions=1)
    client = site.client()
    client.log_on(reader, SESSION)

    client.send(order(), seq_num=1)

    answer = client.message()
    assert isinstance(answer, OrderRejected)
    assert answer.reject_code == RejectCode.PERMISSION_DENIED


def test_query_gets_the_session_account_and_no_number(site: Site) -> None:
    client = site.logged_on()

    client.send(BalanceQuery(request_id=33, account_id=ACCOUNT + 1))

    header, reply = client.receive()
    assert isinstance(reply, BalanceReply)
    assert (reply.request_id, reply.account_id, header.seq_num) == (33, ACCOUNT, 0)
    assert isinstance(client.message(), QueryEnd)
    assert site.exchange.requests() == []


def test_privileged_key_may_ask_about_any_account(site: Site) -> None:
    client = site.client()
    client.log_on(site.key("ADMIN", permissions=11), SESSION)

    client.send(BalanceQuery(request_id=1, account_id=ACCOUNT + 1))

    reply = client.message()
    assert isinstance(reply, BalanceReply)
    assert reply.account_id == ACCOUNT + 1


def test_keys_cannot_be_asked_for(site: Site) -> None:
    client = site.logged_on()

    client.send(KeyQuery(request_id=5, access_key_id="KEY"))

    answer = client.message()
    assert isinstance(answer, QueryEnd)
    assert (answer.code, answer.request_id) == (RejectCode.PERMISSION_DENIED, 5)


def test_duplicate_is_dropped_and_gap_is_answered_with_not_applied(site: Site) -> None:
    client = site.logged_on()
    client.send(order(), seq_num=1)
    client.message()

    client.send(order(), seq_num=1, flags=FrameFlag.POSS_RESEND)
    client.send(order(), seq_num=4)

    answer = client.message()
    assert isinstance(answer, NotApplied)
    assert (answer.from_seq_no, answer.count) == (2, 2)


def test_sequence_skips_numbers_but_a_heartbeat_is_not_forwarded(site: Site) -> None:
    client = site.logged_on()
    client.send(Sequence(next_seq_no=1))
    client.send(Sequence(next_seq_no=5))
    client.send(order(), seq_num=5)

    assert isinstance(client.message(), OrderAccepted)
    assert [slot.template for slot in site.exchange.received if slot.template == Sequence.TEMPLATE_ID] == [9]


def test_linked_frames_stay_together_and_share_a_refusal(site: Site) -> None:
    client = site.logged_on()
    more = FrameFlag.MORE
    group = [(order(), more), (order(side=7), more), (order(), 0)]
    frames = b"".join(encode_frame(part, seq_num=n, flags=flag) for n, (part, flag) in enumerate(group, 1))

    client.raw(frames[:200])
    eventually(lambda: site.server.counters()["bytes_in"] > 0)
    assert site.exchange.requests() == []
    client.raw(frames[200:])

    slots = eventually(lambda: len(site.exchange.requests()) == 3 and site.exchange.requests())
    assert [slot.flags & FLAG_MORE for slot in slots] == [FLAG_MORE, FLAG_MORE, 0]
    assert [slot.aux for slot in slots] == [RejectCode.INVALID_SIDE] * 3
    assert all(slot.flags & FLAG_REJECT for slot in slots)


def test_more_than_eight_linked_frames_are_malformed(site: Site) -> None:
    client = site.logged_on()

    client.raw(b"".join(encode_frame(order(), seq_num=n, flags=FrameFlag.MORE) for n in range(1, 10)))

    assert decoding_error(client)


def test_negotiate_on_an_established_connection_is_refused(site: Site) -> None:
    client = site.logged_on()

    answer = client.negotiate(site.signer, SESSION, version=2)

    assert isinstance(answer, EstablishReject)


def test_full_ingress_ring_stops_reading_and_loses_nothing(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(ingress_slots=64))
    client = site.logged_on()
    cancels = 500
    frames = [encode_frame(OrderCancelRequest(instrument_id=1, order_id=n), seq_num=n) for n in range(1, cancels + 1)]

    def pause() -> None:
        site.exchange.paused = True

    def go_on() -> None:
        site.exchange.paused = False

    site.loop.call(pause)
    client.raw(b"".join(frames))
    eventually(lambda: site.server.counters()["ingress_full"] > 0)
    site.loop.call(go_on)

    eventually(lambda: len(site.exchange.requests()) == cancels)
    assert [slot.seq_num for slot in site.exchange.requests()] == list(range(1, cancels + 1))


def test_last_quarter_of_the_ring_takes_cancels_and_refuses_orders(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(ingress_slots=64))
    client = site.logged_on()

    def pause() -> None:
        site.exchange.paused = True

    def go_on() -> None:
        site.exchange.paused = False

    site.loop.call(pause)
    client.raw(b"".join(encode_frame(order(), seq_num=n) for n in range(1, 51)))
    client.raw(encode_frame(MassCancelRequest(), seq_num=51))
    eventually(lambda: site.server.counters()["requests"] == 51)
    site.loop.call(go_on)

    slots = eventually(lambda: len(site.exchange.requests()) == 51 and site.exchange.requests())
    assert [slot.aux for slot in slots[:48]] == [0] * 48
    assert [slot.aux for slot in slots[48:50]] == [RejectCode.SYSTEM_BUSY] * 2
    assert slots[50].aux == 0


def test_orders_are_refused_and_cancels_taken_while_the_journaler_is_far_behind(site: Site) -> None:
    client = site.logged_on()
    site.loop.call(lambda: site.exchange.log.publish(*[b""] * 47))
    client.send(order(), seq_num=1)
    accepted = client.message()

    site.loop.call(lambda: site.exchange.log.publish(b""))
    client.send(order(), seq_num=2)
    refused = client.message()
    client.send(OrderCancelRequest(instrument_id=1), seq_num=3)
    slots = eventually(lambda: len(site.exchange.requests()) == 3 and site.exchange.requests())

    assert isinstance(accepted, OrderAccepted)
    assert isinstance(refused, OrderRejected)
    assert refused.reject_code == RejectCode.SYSTEM_BUSY
    assert slots[2].aux == 0


@pytest.mark.parametrize(
    ("storage", "code"),
    [
        (StorageLevel.LOW, RejectCode.NONE),
        (StorageLevel.CANCEL_ONLY, RejectCode.SYSTEM_BUSY),
        (StorageLevel.HALT, RejectCode.SYSTEM_BUSY),
    ],
)
def test_orders_are_refused_and_cancels_taken_while_the_disk_is_nearly_full(
    site: Site, storage: StorageLevel, code: RejectCode
) -> None:
    client = site.logged_on()
    site.loop.call(lambda: set_storage(site.exchange.log, storage))
    client.send(order(), seq_num=1)
    client.send(OrderCancelRequest(instrument_id=1), seq_num=2)

    slots = eventually(lambda: len(site.exchange.requests()) == 2 and site.exchange.requests())

    assert [slot.aux for slot in slots] == [code, 0]


def test_throttle_refuses_what_is_too_much_and_leaves_cancels_twice_the_room(make_site: MakeSite) -> None:
    site = make_site(throttle_count=10, throttle_interval_ms=60_000)
    client = site.logged_on()

    client.raw(b"".join(encode_frame(order(), seq_num=n) for n in range(1, 13)))
    client.raw(b"".join(encode_frame(OrderCancelRequest(instrument_id=1), seq_num=n) for n in range(13, 34)))

    slots = eventually(lambda: len(site.exchange.requests()) == 33 and site.exchange.requests())
    assert [slot.aux for slot in slots] == [0] * 10 + [2] * 2 + [0] * 20 + [2]


def test_random_bytes_never_reach_the_ring(site: Site, rng: random.Random) -> None:
    for _ in range(30):
        client = site.client()
        client.raw(rng.randbytes(rng.randrange(4, 400)))
        answer = client.message()
        assert isinstance(answer, Terminate)

    assert site.exchange.received == []


def test_shutdown_tells_every_client(site: Site) -> None:
    client = site.logged_on()

    site.loop.call(site.server.shutdown)

    answer = client.message()
    assert isinstance(answer, Terminate)
    assert answer.code == TerminateCode.SERVER_SHUTDOWN
    assert client.closed()


def test_session_can_go_on_after_a_malformed_frame(site: Site) -> None:
    client = site.logged_on()
    client.send(order(), seq_num=1)
    client.message()
    client.raw(b"\0" * 40)
    assert decoding_error(client)

    again = site.client()
    ack = again.establish(site.signer, SESSION, next_seq=2)

    assert isinstance(ack, EstablishAck)
    assert (ack.last_incoming_seq_no, ack.next_seq_no) == (1, 1)
