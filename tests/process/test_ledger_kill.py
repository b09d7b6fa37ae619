"""kill -9 of the consumer with its embedded store, at random under load: the books end up the same, each posting once.

BULLRING_LEDGER_KILLS sets how often; hundreds are meant for the command line.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from settlement.derivation import Derivation
from settlement.reconcile import compare_store
from settlement.store import one
from tests.kit.ledger_books import chdb_store
from tests.kit.ledger_market import record_market

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("BULLRING_LEDGER_KILLS", "8"))
BLOCK_ROWS = 120
RUN_S = 300


def start(journal: Path, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.kit.ledger_child", str(journal), str(store), str(BLOCK_ROWS)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_consumer_and_store_end_up_with_the_same_books(tmp_path: Path, rng: random.Random) -> None:
    market = record_market(500 * KILLS, days=3, partitions=2)
    journal, directory = tmp_path / "journal", tmp_path / "store"
    market.write(journal)
    kills = 0

    for _ in range(KILLS):
        child = start(journal, directory)
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n", child.communicate()[1]
        try:
            # Some die while they open or replay, most while they append.
            child.wait(rng.uniform(0.0, 0.4))
            assert child.returncode == 0, child.communicate()[1]
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.communicate()
            kills += 1
    last = start(journal, directory)
    out, errors = last.communicate(timeout=RUN_S)

    assert out == "open\ndone\n", errors
    assert kills >= min(KILLS, 3)
    derivation = Derivation()
    market.feed(derivation)
    store = chdb_store(directory)
    result = compare_store(store, derivation.balances())
    assert result.good, result.sentence
    keys = one(store.select("SELECT count() AS rows, uniqExact(sequence, idx) AS keys FROM postings"))
    assert keys["rows"] == keys["keys"] == derivation.counts().postings
    trades = one(store.select("SELECT count() AS rows, uniqExact(instrument, trade_id) AS keys FROM trades"))
    assert trades["rows"] == trades["keys"] == derivation.counts().trades
    blocks = store.select("SELECT first, end FROM blocks ORDER BY end")
    assert blocks["first"].tolist() == [0, *blocks["end"].tolist()[:-1]]
    assert len(store.select("SELECT day FROM days")["day"]) == len(set(store.select("SELECT day FROM days")["day"]))
    store.close()
