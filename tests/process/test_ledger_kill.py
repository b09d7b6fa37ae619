"""kill -9 of consumer and store, at random under load: the books end up the same, each posting once.

BULLRING_LEDGER_KILLS sets how often; hundreds are meant for the command line.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.ledger.store import LateStore
from settlement import schema
from settlement.clickhouse_store import ClickhouseStore
from settlement.derivation import Derivation
from settlement.reconcile import compare_store
from settlement.store import Store, one
from tests.kit import eventually
from tests.kit.clickhouse_server import DATABASE, ClickhouseServer
from tests.kit.ledger_books import Books, chdb_store
from tests.kit.ledger_market import record_market
from tests.kit.ledger_run import Recording

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("BULLRING_LEDGER_KILLS", "5"))
COMMANDS_A_KILL = 400
RUN_S = 600


def start(journal: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.drills._ledger_child", str(journal), str(folder), "0", ""]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_after(child: subprocess.Popen[str], blocks: int, pause_s: float) -> None:
    """kill -9 a little after the child has stored so many blocks; with 0, after it has begun to open its store."""
    assert child.stdout is not None
    for _ in range(1 + blocks):
        line = child.stdout.readline()
        assert line in ("open\n", "block\n"), (line, child.communicate()[1])
    time.sleep(pause_s)
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.mark.slow
def test_killed_consumer_and_store_end_up_with_the_same_books(tmp_path: Path, rng: random.Random) -> None:
    market = record_market(COMMANDS_A_KILL * KILLS, days=3, partitions=2)
    journal, directory = tmp_path / "journal", tmp_path
    market.write(journal)

    for _ in range(KILLS):
        kill_after(start(journal, directory), rng.randint(0, 3), rng.uniform(0.0, 0.05))
    last = start(journal, directory)
    out, errors = last.communicate(timeout=RUN_S)

    assert out.endswith("block\ndone\n"), errors
    store = chdb_store(directory / "store")
    check_books(store, market)
    store.close()


def check_books(store: Store, market: Recording) -> None:
    """The store says what the log says, each row once, each block behind the one before."""
    derivation = Derivation()
    market.feed(derivation)
    result = compare_store(store, derivation.balances())
    assert result.good, result.sentence
    keys = one(store.select("SELECT count() AS rows, uniqExact(sequence, idx) AS keys FROM postings"))
    assert keys["rows"] == keys["keys"] == derivation.counts().postings
    trades = one(store.select("SELECT count() AS rows, uniqExact(instrument, trade_id) AS keys FROM trades"))
    assert trades["rows"] == trades["keys"] == derivation.counts().trades
    blocks = store.select("SELECT first, end FROM blocks ORDER BY end")
    assert blocks["first"].tolist() == [0, *blocks["end"].tolist()[:-1]]
    days = store.select("SELECT day FROM days ORDER BY day")["day"].tolist()
    assert days == sorted(set(days))
    closes = one(store.select("SELECT count() AS rows, uniqExact(day, book, account, asset) AS keys FROM closes"))
    assert closes["rows"] == closes["keys"]


# --- a server ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClickhouseServer]:
    monkeypatch.setattr(schema, "TEMPORARY_LIFETIME_S", 1)
    made = ClickhouseServer(tmp_path / "server")
    made.start()
    made.query(f"CREATE DATABASE {DATABASE}")
    yield made
    made.signal(signal.SIGCONT)
    made.stop()


def late_store(server: ClickhouseServer, timeout_s: int) -> LateStore:
    """Return what the ledger's process has: the server may be down just when it is first needed."""
    return LateStore(lambda: ClickhouseStore(server.config(timeout_s=timeout_s)), "server under test")


@pytest.mark.slow
def test_killed_server_ends_up_with_the_same_books(server: ClickhouseServer, rng: random.Random) -> None:
    market = record_market(COMMANDS_A_KILL * KILLS, days=3, partitions=2)
    store = late_store(server, timeout_s=30)
    books = Books(store, market)
    kills, blocks = 0, 0

    while books.consumer.status.stored < market.end:
        if not books.consumer.step():
            time.sleep(0.001)
        status = books.consumer.status
        assert status.state != "halted", status.trouble
        if status.derived == market.end:
            books.consumer.flush()
        if kills < KILLS and status.blocks >= blocks:
            # At once, or in the middle of something a little later.
            time.sleep(rng.uniform(0.0, 0.02))
            server.kill()
            kills += 1
            blocks = status.blocks + rng.randint(1, 12)
            server.start()
    books.stop()

    assert kills == KILLS
    assert books.consumer.status.retries > 0
    check_books(store, market)
    store.close()


@pytest.mark.slow
def test_server_that_hangs_or_is_down_is_waited_for(server: ClickhouseServer) -> None:
    market = record_market(300)
    half = Recording(market.records[: market.end // 2 * 128], market.reports)
    store = late_store(server, timeout_s=1)
    first = Books(store, half)
    first.run()
    first.stop()
    server.signal(signal.SIGSTOP)
    books = Books(store, market, token=2)

    def in_trouble(word: str) -> bool:
        books.consumer.step()
        return word in books.consumer.status.trouble

    eventually(lambda: in_trouble("the store does not answer"), deadline_s=60)
    assert books.consumer.status.stored == 0
    server.kill()
    eventually(lambda: in_trouble("Connection refused"), deadline_s=60)
    server.start()
    books.run()
    books.stop()

    assert books.consumer.status.trouble == ""
    check_books(store, market)
    store.close()
