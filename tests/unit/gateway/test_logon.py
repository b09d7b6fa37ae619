"""Who may log on, and what the others are told."""

import time

import pytest

from gateway.auth import hmac_secret
from gateway.clients import HmacSigner
from gateway.clients.python.signing import signed_frame
from ringbuf.wire.messages import (
    CredentialType,
    Establish,
    EstablishAck,
    EstablishReject,
    EstablishRejectCode,
    KeyReply,
    MassCancelRequest,
    Negotiate,
    NegotiateReject,
    NegotiateRejectCode,
    NegotiateResponse,
    NewOrderSingle,
    SessionBind,
    SessionBound,
    SessionDown,
    Terminate,
    TerminateCode,
)
from tests.kit import eventually
from tests.kit.fake_exchange import FakeExchange, FakeSession
from tests.kit.raw_client import RawClient
from tests.kit.site import ACCOUNT, SESSION, MakeSite, Site

SECOND_NS = 1_000_000_000


def test_ed25519_key_logs_on_and_every_partition_tells_its_position(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(partitions=3))
    client = site.client()

    response = client.negotiate(site.signer, SESSION)
    ack = client.establish(site.signer, SESSION, keep_alive_ms=500)
    bound = [client.receive() for _ in range(3)]

    assert isinstance(response, NegotiateResponse)
    assert (response.session_id, response.session_ver_id, response.max_retransmit_count) == (SESSION, 1, 10_000)
    assert isinstance(ack, EstablishAck)
    assert (ack.next_seq_no, ack.last_incoming_seq_no, ack.keep_alive_interval_ms) == (1, 0, 500)
    assert [header.partition for header, _ in bound] == [1, 2, 3]
    assert all(isinstance(message, SessionBound) and header.seq_num == 0 for header, message in bound)


@pytest.mark.parametrize("turns", [0, 1, 20])
def test_establish_ack_comes_first_even_if_matchers_answer_sooner(turns: int, make_site: MakeSite) -> None:
    """With many turns between, nothing else makes the connection's held output move."""
    site = make_site(exchange=FakeExchange(partitions=2, sequencer_late_turns=turns))
    client = site.client()
    client.negotiate(site.signer, SESSION)

    first = client.establish(site.signer, SESSION)

    assert isinstance(first, EstablishAck)
    assert {client.receive()[0].partition for _ in range(2)} == {1, 2}


def test_hmac_key_logs_on_with_the_secret_derived_from_the_seal_key(make_site: MakeSite) -> None:
    seal, salt = b"s" * 32, bytes(range(32))
    site = make_site(seal_key=seal)
    site.exchange.keys["HMAC"] = KeyReply(
        access_key_id="HMAC",
        material=salt,
        account_id=ACCOUNT,
        permissions=3,
        credential_type=CredentialType.HMAC_SHA256,
    )
    signer = HmacSigner("HMAC", hmac_secret(seal, "HMAC", salt))

    assert isinstance(site.client().negotiate(signer, SESSION), NegotiateResponse)


def test_hmac_key_is_refused_without_a_seal_key(site: Site) -> None:
    site.exchange.keys["HMAC"] = KeyReply(access_key_id="HMAC", material=b"x" * 32, account_id=ACCOUNT, permissions=3)

    answer = site.client().negotiate(HmacSigner("HMAC", b"guess"), SESSION)

    assert isinstance(answer, NegotiateReject)
    assert answer.code == NegotiateRejectCode.CREDENTIALS


@pytest.mark.parametrize("changed", [32, 33, 40, 48, 56, 90, 111])
def test_signature_covers_every_byte_before_it(site: Site, changed: int) -> None:
    message = Negotiate(
        session_id=SESSION,
        credential_type=CredentialType.ED25519,
        session_ver_id=1,
        timestamp=time.time_ns(),
        access_key_id="KEY",
        client_app_name="name",
    )
    frame = bytearray(signed_frame(message, site.signer, sending_time=1))
    frame[changed] ^= 1
    client = site.client()

    client.raw(bytes(frame))

    answer = client.message()
    assert isinstance(answer, NegotiateReject)
    assert client.closed()
    assert site.server.counters()["logons"] == 0


def test_unknown_key_is_refused_like_a_bad_signature(site: Site) -> None:
    stranger = site.key("GONE")
    del site.exchange.keys["GONE"]

    answer = site.client().negotiate(stranger, SESSION)

    assert isinstance(answer, NegotiateReject)
    assert answer.code == NegotiateRejectCode.CREDENTIALS


@pytest.mark.parametrize("session", [0, 1, 101, 0xFFFFFFFF])
def test_admin_and_unknown_sessions_are_refused_before_anybody_is_asked(site: Site, session: int) -> None:
    answer = site.client().negotiate(site.signer, session)

    assert isinstance(answer, NegotiateReject)
    assert answer.code == NegotiateRejectCode.CREDENTIALS
    assert site.exchange.received == []


def test_key_of_another_account_is_refused_by_the_log(site: Site) -> None:
    other = site.key("OTHER", account=ACCOUNT + 1)

    answer = site.client().negotiate(other, SESSION)

    assert isinstance(answer, NegotiateReject)
    assert answer.code == NegotiateRejectCode.CREDENTIALS


@pytest.mark.parametrize("shift_ns", [-6 * SECOND_NS, 6 * SECOND_NS])
def test_timestamp_outside_the_window_is_refused(site: Site, shift_ns: int) -> None:
    answer = site.client().negotiate(site.signer, SESSION, stamp=time.time_ns() + shift_ns)

    assert isinstance(answer, NegotiateReject)
    assert answer.code == NegotiateRejectCode.INVALID_TIMESTAMP


def test_timestamp_is_a_nonce(site: Site) -> None:
    stamp = time.time_ns()
    site.client().negotiate(site.signer, SESSION, stamp=stamp)

    answer = site.client().negotiate(site.signer, SESSION, version=2, stamp=stamp)

    assert isinstance(answer, NegotiateReject)
    assert answer.code == NegotiateRejectCode.INVALID_TIMESTAMP


def test_old_session_version_is_refused_with_the_current_one(site: Site) -> None:
    site.client().negotiate(site.signer, SESSION, version=9)

    answer = site.client().negotiate(site.signer, SESSION, version=9)

    assert isinstance(answer, NegotiateReject)
    assert (answer.code, answer.current_session_ver_id) == (NegotiateRejectCode.DUPLICATE_ID, 9)


def test_establish_of_another_version_is_refused(site: Site) -> None:
    site.client().negotiate(site.signer, SESSION, version=1)

    answer = site.client().establish(site.signer, SESSION, version=3)

    assert isinstance(answer, EstablishReject)
    assert answer.code == EstablishRejectCode.UNNEGOTIATED


def test_client_that_lost_its_numbers_is_told_where_to_go_on(site: Site) -> None:
    site.logged_on().socket.close()
    eventually(lambda: not site.exchange.sessions[SESSION].bound)
    site.exchange.sessions[SESSION].last_in = 40

    answer = site.client().establish(site.signer, SESSION, next_seq=3)

    assert isinstance(answer, EstablishReject)
    assert (answer.code, answer.expected_seq_no) == (EstablishRejectCode.NEXT_SEQ_NO, 41)


@pytest.mark.parametrize("interval_ms", [0, 249, 60_001])
def test_keep_alive_interval_out_of_range_is_refused(site: Site, interval_ms: int) -> None:
    client = site.client()
    client.negotiate(site.signer, SESSION)

    answer = client.establish(site.signer, SESSION, keep_alive_ms=interval_ms)

    assert isinstance(answer, EstablishReject)
    assert answer.code == EstablishRejectCode.KEEPALIVE_INTERVAL


def test_guessing_blocks_the_key_for_a_while_where_it_was_guessed(site: Site) -> None:
    wrong = site.key("STRANGER")
    wrong.access_key_id = "KEY"
    for _ in range(5):
        site.client().negotiate(wrong, SESSION)

    answer = site.client().negotiate(site.signer, SESSION)

    assert isinstance(answer, NegotiateReject)
    assert answer.code == NegotiateRejectCode.TOO_MANY_ATTEMPTS
    elsewhere = site.client(source="127.0.0.2").negotiate(site.signer, SESSION)
    assert isinstance(elsewhere, NegotiateResponse)


def test_logon_in_one_segment_needs_no_waiting(site: Site) -> None:
    client = site.client()
    now = time.time_ns()
    negotiate = Negotiate(
        session_id=SESSION,
        credential_type=CredentialType.ED25519,
        session_ver_id=4,
        timestamp=now,
        access_key_id="KEY",
    )
    establish = Establish(
        session_id=SESSION,
        keep_alive_interval_ms=1000,
        session_ver_id=4,
        timestamp=now + 1,
        next_seq_no=1,
        credential_type=CredentialType.ED25519,
        access_key_id="KEY",
    )
    client.raw(
        signed_frame(negotiate, site.signer, sending_time=0) + signed_frame(establish, site.signer, sending_time=0)
    )

    assert isinstance(client.message(), NegotiateResponse)
    assert isinstance(client.message(), EstablishAck)


def test_newer_connection_takes_the_session_over_without_cancel_on_disconnect(site: Site) -> None:
    old = site.logged_on()
    new = site.client()

    ack = new.establish(site.signer, SESSION)

    assert isinstance(ack, EstablishAck)
    last = old.message()
    assert isinstance(last, Terminate)
    assert last.code == TerminateCode.SUPERSEDED
    assert old.closed()
    assert not any(slot.template == SessionDown.TEMPLATE_ID for slot in site.exchange.received)
    assert site.exchange.sessions[SESSION].bound


def establish_later(site: Site, *, next_seq: int) -> RawClient:
    """Send an Establish whose answer comes many turns after its record is in the log; return its connection."""
    binds = sum(slot.template == SessionBind.TEMPLATE_ID for slot in site.exchange.received)
    site.exchange.sequencer_late_turns = 300
    message = Establish(
        session_id=SESSION,
        keep_alive_interval_ms=60_000,
        session_ver_id=1,
        timestamp=time.time_ns(),
        next_seq_no=next_seq,
        credential_type=CredentialType.ED25519,
        access_key_id="KEY",
    )
    client = site.client()
    client.raw(signed_frame(message, site.signer, sending_time=0))
    eventually(lambda: sum(slot.template == SessionBind.TEMPLATE_ID for slot in site.exchange.received) > binds)
    return client


def test_late_frame_of_the_old_connection_is_not_taken_after_the_new_one_is_told_what_the_log_holds(
    make_site: MakeSite,
) -> None:
    site = make_site(exchange=FakeExchange(partitions=0))
    old = site.logged_on()
    new = establish_later(site, next_seq=2)

    old.send(MassCancelRequest(cl_ord_id=1), seq_num=1)
    ack = new.message()

    assert isinstance(ack, EstablishAck)
    assert ack.last_incoming_seq_no == 0
    last = old.message()
    assert isinstance(last, Terminate)
    assert last.code == TerminateCode.SUPERSEDED
    assert site.exchange.requests() == []


def test_old_connection_goes_on_when_the_log_refuses_the_new_one(make_site: MakeSite) -> None:
    site = make_site(exchange=FakeExchange(partitions=0))
    old = site.logged_on()
    old.send(MassCancelRequest(cl_ord_id=1), seq_num=1)
    eventually(lambda: len(site.exchange.requests()) == 1)
    new = establish_later(site, next_seq=1)

    old.send(MassCancelRequest(cl_ord_id=2), seq_num=2)

    answer = new.message()
    assert isinstance(answer, EstablishReject)
    assert answer.code == EstablishRejectCode.NEXT_SEQ_NO
    eventually(lambda: [slot.seq_num for slot in site.exchange.requests()] == [1, 2])


def test_lost_connection_is_told_to_the_sequencer(site: Site) -> None:
    site.logged_on().socket.close()

    eventually(lambda: not site.exchange.sessions[SESSION].bound)

    assert site.exchange.received[-1].template == SessionDown.TEMPLATE_ID


def test_connection_lost_right_after_its_bind_is_told_too(site: Site) -> None:
    client = site.client()
    client.negotiate(site.signer, SESSION)
    message = Establish(
        session_id=SESSION,
        keep_alive_interval_ms=1000,
        session_ver_id=1,
        timestamp=time.time_ns(),
        next_seq_no=1,
        credential_type=CredentialType.ED25519,
        access_key_id="KEY",
    )
    client.raw(signed_frame(message, site.signer, sending_time=0))
    eventually(lambda: any(slot.template == SessionBind.TEMPLATE_ID for slot in site.exchange.received))
    client.socket.close()

    eventually(lambda: site.server.counters()["open"] == 0)

    assert any(slot.template == SessionBind.TEMPLATE_ID for slot in site.exchange.received)
    eventually(lambda: site.exchange.received[-1].template == SessionDown.TEMPLATE_ID)
    assert not site.exchange.sessions[SESSION].bound


def test_terminate_is_answered_and_closes(site: Site) -> None:
    client = site.logged_on()

    client.send(Terminate(session_id=SESSION))

    answer = client.message()
    assert isinstance(answer, Terminate)
    assert answer.code == TerminateCode.FINISHED
    assert client.closed()
    eventually(lambda: not site.exchange.sessions[SESSION].bound)


def test_who_does_not_log_on_in_time_is_disconnected(make_site: MakeSite) -> None:
    site = make_site(logon_deadline_ms=200)
    slow = site.client()
    slow.raw(b"\xb0")  # one byte of a frame, then nothing: a slow loris

    answer = slow.message()

    assert isinstance(answer, Terminate)
    assert answer.code == TerminateCode.LOGON_TIMEOUT
    assert slow.closed()


def test_silent_client_lapses_and_a_talking_one_does_not(make_site: MakeSite) -> None:
    site = make_site()
    site.exchange.sessions[6] = FakeSession(account=ACCOUNT)
    client = site.client()
    client.negotiate(site.signer, SESSION)
    client.establish(site.signer, SESSION, keep_alive_ms=250)

    kinds = []
    while not kinds or not isinstance(kinds[-1], Terminate):
        kinds.append(client.message())

    assert isinstance(kinds[-1], Terminate)
    assert kinds[-1].code == TerminateCode.KEEP_ALIVE_LAPSED
    assert len([kind for kind in kinds if type(kind).__name__ == "Sequence"]) >= 2


def test_request_before_the_logon_ends_the_connection(site: Site) -> None:
    client = site.client()

    client.send(NewOrderSingle(), seq_num=1)

    answer = client.message()
    assert isinstance(answer, Terminate)
    assert answer.code == TerminateCode.NOT_ESTABLISHED


def test_more_connections_than_the_slab_holds_are_closed_at_once(make_site: MakeSite) -> None:
    site = make_site(connections_max=2)
    kept = [site.client(), site.client()]
    eventually(lambda: site.server.counters()["open"] == 2)

    assert site.client().closed()

    kept[0].socket.close()
    eventually(lambda: site.server.counters()["open"] == 1)
    assert isinstance(site.client().negotiate(site.signer, SESSION), NegotiateResponse)
