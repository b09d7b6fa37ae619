"""What a client may ask of the gateway: buckets, floods, revoked keys, addresses that guess."""

import time

import pytest

from gateway.binary import BinaryServer, ServerConfig
from gateway.clients.python.signing import signed_frame
from gateway.errors import GatewayConfigError
from ringbuf.wire.codec import encode_frame
from ringbuf.wire.messages import (
    AdminAck,
    CodType,
    Establish,
    EstablishAck,
    EstablishReject,
    EstablishRejectCode,
    NewOrderSingle,
    OrderCancelRequest,
    OrdType,
    RejectCode,
    Side,
    Template,
    Terminate,
    TerminateCode,
)
from tests.kit.fake_exchange import FakeSession
from tests.kit.raw_client import RawClient
from tests.kit.site import ACCOUNT, SESSION, MakeSite, Site
from tests.kit.waiting import eventually

OTHER_SESSION = 6


def orders(first: int, count: int) -> bytes:
    order = NewOrderSingle(
        instrument_id=1, side=Side.BUY, order_qty=1, price=1, ord_type=OrdType.LIMIT, time_in_force=1
    )
    return b"".join(encode_frame(order, seq_num=number) for number in range(first, first + count))


def codes(client: RawClient, count: int) -> list[int]:
    """Return the reject codes of the next reports in the order of the requests, 0 = accepted."""
    answers = [client.message() for _ in range(count)]
    answers.sort(key=lambda answer: answer.ref_seq_num)  # type: ignore[attr-defined]
    return [int(getattr(answer, "reject_code", 0)) for answer in answers]


def test_a_bucket_refills_with_time(make_site: MakeSite) -> None:
    site = make_site(throttle_count=10, throttle_interval_ms=200)
    client = site.logged_on()
    client.raw(orders(1, 12))
    assert codes(client, 12) == [0] * 10 + [RejectCode.THROTTLE_EXCEEDED] * 2

    number = 12

    def taken() -> bool:
        nonlocal number
        number += 1
        client.raw(orders(number, 1))
        return codes(client, 1) == [0]

    eventually(taken)


def test_sessions_of_an_account_share_its_bucket_and_cancels_have_their_own(make_site: MakeSite) -> None:
    site = make_site(account_throttle_count=10, throttle_interval_ms=60_000)
    site.exchange.sessions[OTHER_SESSION] = FakeSession(account=ACCOUNT)
    first, second = site.logged_on(), site.client()
    second.log_on(site.signer, OTHER_SESSION)

    first.raw(orders(1, 6))
    assert codes(first, 6) == [0] * 6
    second.raw(orders(1, 6))
    assert codes(second, 6) == [0] * 4 + [RejectCode.THROTTLE_EXCEEDED] * 2
    first.raw(b"".join(encode_frame(OrderCancelRequest(instrument_id=1), seq_num=n) for n in range(7, 28)))
    slots = eventually(
        lambda: [s for s in site.exchange.requests() if s.template == 101][20:] and site.exchange.requests()
    )
    assert [s.aux for s in slots if s.template == Template.ORDER_CANCEL_REQUEST] == [0] * 20 + [2]


def test_the_bucket_of_an_account_outlives_a_connection_only_while_another_is_there(make_site: MakeSite) -> None:
    site = make_site(account_throttle_count=5, throttle_interval_ms=60_000)
    site.exchange.sessions[OTHER_SESSION] = FakeSession(account=ACCOUNT)
    keeper = site.client()
    keeper.log_on(site.signer, OTHER_SESSION)
    client = site.logged_on()
    client.raw(orders(1, 5))
    assert codes(client, 5) == [0] * 5
    client.socket.close()

    again = site.logged_on(version=2)
    again.raw(orders(1, 1))
    assert codes(again, 1) == [RejectCode.THROTTLE_EXCEEDED]


def test_who_goes_on_is_first_not_read_and_then_cut_off(make_site: MakeSite) -> None:
    site = make_site(throttle_count=1, throttle_interval_ms=20)
    client = site.logged_on()
    client.socket.settimeout(20)
    sent, last = 0, None
    deadline = time.monotonic() + 20
    while not isinstance(last, Terminate) and time.monotonic() < deadline:
        client.raw(orders(sent + 1, 50))
        sent += 50
        for _ in range(50):
            last = client.message()
            if isinstance(last, Terminate):
                break

    assert isinstance(last, Terminate)
    assert last.code == TerminateCode.FLOOD
    assert site.server.counters()["floods"] == 1


def test_who_is_refused_a_little_for_long_is_not_cut_off(make_site: MakeSite) -> None:
    site = make_site(throttle_count=20, throttle_interval_ms=50)
    client = site.logged_on()
    refused = 0
    for burst in range(15):
        client.raw(orders(30 * burst + 1, 30))
        refused += sum(code != 0 for code in codes(client, 30))
        time.sleep(0.05)  # an interval: the bucket is full again

    assert refused > 0
    assert site.server.counters()["floods"] == 0


def test_a_flood_is_not_read_while_others_are_answered(make_site: MakeSite) -> None:
    site = make_site(throttle_count=2, throttle_interval_ms=60_000)
    site.exchange.sessions[OTHER_SESSION] = FakeSession(account=ACCOUNT)
    flooder, other = site.logged_on(), site.client()
    other.log_on(site.signer, OTHER_SESSION)
    flooder.raw(orders(1, 100))
    assert (
        codes(flooder, 5) == [0, 0] + [RejectCode.THROTTLE_EXCEEDED] * 3
    )  # twice the limit, and the one that was one too many

    other.raw(orders(1, 1))
    assert codes(other, 1) == [0]
    assert len([slot for slot in site.exchange.requests() if slot.session == SESSION]) == 5


def test_a_revoked_key_ends_its_connections_and_no_others(site: Site) -> None:
    other_signer = site.key("OTHER")
    site.exchange.sessions[OTHER_SESSION] = FakeSession(account=ACCOUNT)
    client, other = site.logged_on(), site.client()
    other.log_on(other_signer, OTHER_SESSION)

    def revoke() -> None:
        del site.exchange.keys["KEY"]
        site.exchange.report(0, 1, AdminAck(ref_template_id=Template.KEY_REVOKE, code=RejectCode.NONE))

    site.loop.call(revoke)
    ended = client.message()
    other.raw(orders(1, 1))

    assert isinstance(ended, Terminate)
    assert ended.code == TerminateCode.CREDENTIALS_REVOKED
    assert codes(other, 1) == [0]
    assert site.server.counters()["keys_revoked"] == 1


def test_recovery_from_a_number_that_does_not_exist_is_refused(site: Site) -> None:
    site.logged_on().socket.close()
    client = site.client()

    answer = client.establish(site.signer, SESSION, recover_from=2)

    assert isinstance(answer, EstablishReject)
    assert answer.code == EstablishRejectCode.RECOVER_OUT_OF_RANGE
    eventually(lambda: not site.exchange.sessions[SESSION].bound)
    assert isinstance(site.client().establish(site.signer, SESSION, recover_from=1), EstablishAck)


@pytest.mark.parametrize(("timeout_ms", "taken"), [(60_000, True), (60_001, False)])
def test_cancel_on_disconnect_waits_at_most_a_minute(site: Site, timeout_ms: int, taken: bool) -> None:
    site.logged_on().socket.close()
    client = site.client()
    message = Establish(
        session_id=SESSION,
        keep_alive_interval_ms=1000,
        session_ver_id=1,
        timestamp=time.time_ns(),
        next_seq_no=1,
        cod_timeout_ms=timeout_ms,
        cod_type=CodType.ON_DISCONNECT,
        credential_type=site.signer.credential_type,
        access_key_id=site.signer.access_key_id,
    )
    client.raw(signed_frame(message, site.signer, sending_time=0))
    answer = client.message()

    assert isinstance(answer, EstablishAck if taken else EstablishReject)


@pytest.mark.parametrize("name", ["throttle_count", "account_throttle_count"])
def test_a_throttle_beyond_one_request_a_nanosecond_is_refused(name: str) -> None:
    with pytest.raises(GatewayConfigError, match=name):
        ServerConfig(source=2, partitions=1, sessions_max=10, throttle_interval_ms=1, **{name: 500_001})  # type: ignore[arg-type]


def test_an_address_that_guesses_is_blocked_but_not_our_own_host(make_site: MakeSite) -> None:
    now = 0.0
    server = BinaryServer(ServerConfig(source=2, partitions=1, sessions_max=10), clock=lambda: now)
    stranger, own = bytes(10) + b"\xff\xff\x0a\x00\x00\x01", bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
    for number in range(20):
        for peer in (stranger, own):
            server._failed(f"KEY-{number}".encode(), peer)

    assert server._addresses.blocked(stranger)
    assert not server._addresses.blocked(own)
    assert not server._addresses.blocked(bytes(15) + b"\x02")
    now = 61.0
    assert not server._addresses.blocked(stranger)
