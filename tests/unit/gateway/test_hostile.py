"""Clients that mean no good: everybody else is served, and what they can take is bounded."""

import os
import random
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from ringbuf.wire.codec import encode_frame
from ringbuf.wire.messages import Negotiate, NewOrderSingle, OrderAccepted, OrdType, Side, Terminate, TerminateCode
from tests.kit.fake_exchange import FakeSession
from tests.kit.raw_client import RawClient
from tests.kit.site import ACCOUNT, MakeSite, Site
from tests.kit.waiting import eventually

OTHER_SESSION = 6
ORDER = NewOrderSingle(instrument_id=1, side=Side.BUY, order_qty=1, price=1, ord_type=OrdType.LIMIT, time_in_force=1)


def is_served(client: RawClient, number: int) -> bool:
    client.send(ORDER, seq_num=number)
    return isinstance(client.message(), OrderAccepted)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_logon_sent_byte_by_byte_ends_at_its_deadline_and_holds_up_nobody(make_site: MakeSite) -> None:
    site = make_site(logon_deadline_ms=400, connections_max=64)
    honest = site.logged_on()
    logon = encode_frame(Negotiate(session_id=OTHER_SESSION))
    with ExitStack() as stack:
        slow = [stack.enter_context(RawClient(site.port)) for _ in range(40)]
        for number, byte in enumerate(logon[:30], 1):
            for client in slow:
                try:
                    client.raw(bytes([byte]))
                except OSError:
                    continue  # ended already
            assert is_served(honest, number)
        endings = [client.message() for client in slow]
    assert all(isinstance(ending, Terminate) for ending in endings)
    assert {ending.code for ending in endings if isinstance(ending, Terminate)} == {TerminateCode.LOGON_TIMEOUT}
    assert site.server.counters()["logon_timeouts"] == 40
    eventually(lambda: site.server.counters()["open"] == 1)


def test_places_that_are_held_open_are_given_to_others_at_the_deadline(make_site: MakeSite) -> None:
    site = make_site(logon_deadline_ms=300, connections_max=4)
    held = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(4)]
    eventually(lambda: site.server.counters()["open"] == 4)
    eventually(lambda: site.server.counters()["logon_timeouts"] == 4)
    for client in held:
        client.close()
    eventually(lambda: site.server.counters()["open"] == 0)

    assert is_served(site.logged_on(), 1)


def test_half_open_connections_end_by_silence(make_site: MakeSite) -> None:
    site = make_site()
    client = site.client()
    site.exchange.sessions[OTHER_SESSION] = FakeSession(account=ACCOUNT)
    client.negotiate(site.signer, OTHER_SESSION)
    client.establish(site.signer, OTHER_SESSION, keep_alive_ms=250)
    honest = site.logged_on()

    assert is_served(honest, 1)
    # The socket stays open: no FIN reaches a server behind a dead link either, silence is all it sees.
    eventually(lambda: site.server.counters()["keep_alive_lapsed"] == 1)
    eventually(lambda: site.server.counters()["open"] == 1)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 1 << 20, 264, 257])
def test_a_giant_length_takes_no_memory(site: Site, length: int) -> None:
    honest, client = site.logged_on(), site.client()
    before = resident_bytes()
    client.raw(length.to_bytes(4, "little") + b"\x50\xeb" + bytes(26))

    ending = client.message()
    assert isinstance(ending, Terminate)
    assert ending.code == TerminateCode.DECODING_ERROR
    assert is_served(honest, 1)
    assert resident_bytes() - before < 8 << 20


def test_a_flood_of_garbage_connections_does_not_disturb_a_session(make_site: MakeSite, rng: random.Random) -> None:
    site = make_site(connections_max=32)
    honest = site.logged_on()
    before = resident_bytes()
    for number in range(1, 201):
        try:
            with socket.create_connection(("127.0.0.1", site.port), timeout=5) as garbage:
                garbage.sendall(rng.randbytes(rng.randrange(1, 3000)))
        except OSError:
            pass  # cut off while we wrote
        if number % 20 == 0:
            assert is_served(honest, number // 20)
    assert resident_bytes() - before < 32 << 20
    eventually(lambda: site.server.counters()["open"] == 1)


def test_a_flood_of_requests_waits_its_turn(make_site: MakeSite) -> None:
    site = make_site()
    site.exchange.sessions[OTHER_SESSION] = FakeSession(account=ACCOUNT)
    flooder, honest = site.client(), site.logged_on()
    flooder.log_on(site.signer, OTHER_SESSION)
    flooder.socket.settimeout(20)
    flood = b"".join(encode_frame(ORDER, seq_num=number) for number in range(1, 2001))
    flooder.raw(flood)

    assert [is_served(honest, number) for number in range(1, 51)] == [True] * 50
    answers = [flooder.message() for _ in range(2000)]
    assert all(isinstance(answer, OrderAccepted) for answer in answers)
