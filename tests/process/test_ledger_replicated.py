"""Replicated tables on two servers of this machine: a block counts when both have it; a lost one is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from settlement.clickhouse_store import ClickhouseStore
from settlement.derivation import Derivation
from settlement.reconcile import compare_store
from settlement.schema import Replication, migrate
from tests.kit import eventually
from tests.kit.clickhouse_server import DATABASE, ClickhouseServer
from tests.kit.ledger_books import Books
from tests.kit.ledger_market import record_market
from tests.kit.ledger_run import Recording
from tests.kit.zookeeper import Zookeeper

REPLICATION = Replication("/clickhouse/bullring", "{replica}", 2)
_CLUSTER = """
  <zookeeper><node><host>127.0.0.1</host><port>{port}</port></node></zookeeper><macros><replica>{name}</replica></macros>
"""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[ClickhouseServer]]:
    with ExitStack() as stack:
        zookeeper = Zookeeper(tmp_path / "zookeeper")
        stack.callback(zookeeper.stop)
        made = []
        for name in ("a", "b"):
            server = ClickhouseServer(tmp_path / name, _CLUSTER.format(port=zookeeper.port, name=name))
            stack.callback(server.stop)
            server.start()
            server.query(f"CREATE DATABASE {DATABASE}")
            made.append(server)
        yield made


def open_store(server: ClickhouseServer) -> ClickhouseStore:
    return ClickhouseStore(replace(server.config(timeout_s=10), quorum=REPLICATION.quorum))


def check(server: ClickhouseServer, market: Recording) -> None:
    store = open_store(server)
    derivation = Derivation()
    market.feed(derivation)
    result = compare_store(store, derivation.balances())
    store.close()
    assert result.good, result.sentence
    assert result.compared > 8


@pytest.mark.slow
def test_both_replicas_have_the_books_and_a_lost_one_is_waited_for(servers: list[ClickhouseServer]) -> None:
    market = record_market(200)
    half = Recording(market.records[: market.end // 2 * 128], market.reports)
    here, other = servers
    peer = open_store(other)
    migrate(peer, REPLICATION, now_ns=1)
    peer.close()
    store = open_store(here)
    first = Books(store, half, replication=REPLICATION)
    first.run()
    first.stop()
    check(other, half)

    other.kill()
    books = Books(store, market, token=2, replication=REPLICATION)

    def in_trouble() -> bool:
        books.consumer.step()
        return bool(books.consumer.status.trouble)

    eventually(in_trouble, deadline_s=120)
    assert books.consumer.status.stored <= half.end
    other.start()
    books.run()
    books.stop()

    check(here, market)
    check(other, market)
    store.close()
