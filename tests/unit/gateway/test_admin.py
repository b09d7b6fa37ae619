"""The admin gateway: a socket for its owner, session 1, commands numbered by the gateway."""

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.admin import admin_config, admin_server
from gateway.binary import BinaryServer
from gateway.clients import AdminClient, AdminError
from ringbuf.wire.messages import AssetAdd, BalanceQuery, OrderQuery, RejectCode
from tests.kit.fake_exchange import FakeExchange, Loop


class AdminSite:
    def __init__(self, path: Path, exchange: FakeExchange) -> None:
        self.path = path
        self.exchange = exchange
        self.server: BinaryServer = admin_server(admin_config(partitions=1, sessions_max=100))
        exchange.attach(self.server, 1)
        self.server.listen_unix(path)


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[AdminSite]:
    site = AdminSite(tmp_path / "admin.sock", FakeExchange())
    with Loop(site.exchange, site.server):
        yield site


def test_socket_file_is_for_its_owner_alone(admin: AdminSite) -> None:
    assert stat.S_IMODE(admin.path.stat().st_mode) == 0o600


def test_command_is_acknowledged_with_the_id_it_made(admin: AdminSite) -> None:
    with AdminClient(admin.path) as client:
        first = client.asset_add("BTC", exponent=-8)
        second = client.account_create()

    assert second > first > 0
    assert [(slot.session, slot.seq_num) for slot in admin.exchange.requests()] == [(1, 1), (1, 2)]


def test_numbers_continue_where_the_log_stands(admin: AdminSite) -> None:
    admin.exchange.sessions[1].last_in = 41

    with AdminClient(admin.path) as client:
        client.asset_add("BTC", exponent=-8)

    assert [slot.seq_num for slot in admin.exchange.requests()] == [42]


def test_numbers_are_found_again_after_somebody_else_used_them(admin: AdminSite) -> None:
    with AdminClient(admin.path) as client:
        client.asset_add("A", exponent=0)
        admin.exchange.sessions[1].last_in = 0  # an epoch that has lost its tail
        client.asset_add("B", exponent=0)

    assert admin.exchange.sessions[1].last_in == 1


def test_query_returns_its_replies_and_a_refusal_raises(admin: AdminSite) -> None:
    with AdminClient(admin.path) as client:
        (row,) = client.balances(7)
        (again,) = client.query(BalanceQuery(account_id=9))

    assert (row.account_id, row.available) == (7, 77)
    assert again.account_id == 9  # type: ignore[attr-defined]


def test_command_with_a_bad_value_is_refused(admin: AdminSite) -> None:
    with AdminClient(admin.path) as client, pytest.raises(AdminError) as refused:
        client.balance_adjust(account_id=1, asset_id=1, amount=5, kind=9)  # type: ignore[arg-type]

    assert refused.value.code == RejectCode.INVALID_COMBINATION


def test_clients_at_the_same_time_get_their_own_answers(admin: AdminSite) -> None:
    results: dict[int, list[int]] = {}

    def work(index: int) -> None:
        with AdminClient(admin.path) as client:
            results[index] = [client.command(AssetAdd(symbol=f"A{index}")).result_id for _ in range(20)]
            results[index] += [client.query(BalanceQuery(account_id=index))[0].account_id]  # type: ignore[attr-defined]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert [results[index][-1] for index in range(4)] == [0, 1, 2, 3]
    made = [result for ids in results.values() for result in ids[:-1]]
    assert len(made) == len(set(made)) == 80
    assert [slot.seq_num for slot in admin.exchange.requests()] == list(range(1, 81))


def test_silent_exchange_is_a_timeout(tmp_path: Path) -> None:
    exchange = FakeExchange()
    exchange.paused = True
    site = AdminSite(tmp_path / "admin.sock", exchange)
    with Loop(exchange, site.server), AdminClient(site.path, timeout_s=0.2) as client, pytest.raises(TimeoutError):
        client.query(OrderQuery())


def test_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    exchange = FakeExchange()
    first = AdminSite(tmp_path / "admin.sock", exchange)
    del first

    second = AdminSite(tmp_path / "admin.sock", FakeExchange())

    with Loop(second.exchange, second.server), AdminClient(second.path) as client:
        assert client.balances(1)
