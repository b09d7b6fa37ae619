"""kill -9 of the ledger and its store, at random while blocks are stored; then its books are those of one left alone.

The embedded store dies with the ledger's process; with --store clickhouse a server of Debian's is started, and it or
the ledger is killed. Every block is delivered twice besides. Then the store must say what the journal says, unit for
unit and row for row, and the same as a store that was filled in one go.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.bench._clickhouse import DATABASE, LocalServer, server_program
from scripts.bench._market import Market, MarketMaker
from scripts.config import CHECKOUT
from scripts.drills import Context, Drill, DrillSkipped, Option, Outcome
from scripts.drills._ledger_child import log_end, open_store
from scripts.exit_codes import ExitCode
from settlement.derivation import Derivation
from settlement.errors import StoreError
from settlement.reconcile import compare_store, recount
from settlement.source import FileSource
from settlement.store import Store, one

STORES = ("chdb", "clickhouse")
TRADES_A_KILL = 60
BLOCKS_MAX = 4  # stored before the next kill
PAUSE_MAX_S = 0.06
LAST_S = 600.0
TABLES = {"postings": "", "trades": "", "orders": " FINAL"}


@dataclass
class Site:
    """A journal, and where the books go."""

    journal: Path
    folder: Path
    server: LocalServer | None

    def start(self, fault: str = "") -> subprocess.Popen[str]:
        port = 0 if self.server is None else self.server.port
        arguments = [str(self.journal), str(self.folder), str(port), fault]
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.drills._ledger_child", *arguments],
            cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @contextmanager
    def store(self) -> Iterator[Store]:
        made = open_store(self.folder, 0 if self.server is None else self.server.port)
        try:
            yield made
        finally:
            made.close()


def run(context: Context) -> Outcome:
    kind = context.options["store"]
    if kind not in STORES:
        raise ValueError(f"--store {kind}: must be one of {', '.join(STORES)}")
    journal = context.folder / "journal"
    MarketMaker(Market(TRADES_A_KILL * context.runs + 500, accounts=50, seed=context.seed), journal).run()
    outcome = Outcome({"store": kind, "acked_lost": 0, "acked_dup": 0, "kills": 0, "kills_of_the_server": 0})
    outcome.facts["records"] = log_end(journal)
    with _site(context, journal, kind, "killed") as site:
        for number in context.rounds():
            _kill_once(context, site, outcome)
            if outcome.problems:
                return outcome
            if number % 20 == 19:
                context.say(f"{number + 1} kills")
        _finish(site, context.planted or "", outcome)
        if outcome.passed:
            _judge(context, site, outcome)
    return outcome


@contextmanager
def _site(context: Context, journal: Path, kind: str, name: str) -> Iterator[Site]:
    folder = context.folder / name
    folder.mkdir()
    if kind == "chdb":
        yield Site(journal, folder, None)
        return
    program = server_program()
    if program is None:
        reason = "no ClickHouse server here (Debian: apt-get install clickhouse-server)"
        raise DrillSkipped(reason, ExitCode.UNAVAILABLE)
    server = LocalServer(program, folder / "server")
    server.start()
    try:
        server.query(f"CREATE DATABASE {DATABASE}")
        yield Site(journal, folder, server)
    finally:
        server.stop()


def _kill_once(context: Context, site: Site, outcome: Outcome) -> None:
    """kill -9 a little after some blocks, or after it has begun to open the books."""
    child = site.start(context.planted or "")
    assert child.stdout is not None
    for _ in range(1 + context.rng.randint(0, BLOCKS_MAX)):
        line = child.stdout.readline()
        if line == "done\n":
            break
        if line not in ("open\n", "block\n"):
            child.kill()
            outcome.problem(f"the ledger ended: {child.communicate()[1][-500:]}")
            return
    time.sleep(context.rng.uniform(0.0, PAUSE_MAX_S))
    if site.server is not None and context.rng.random() < 0.5:
        site.server.kill()
        outcome.add(kills_of_the_server=1)
        # Its client finds the server gone, and then there again.
        site.server.start()
        time.sleep(context.rng.uniform(0.0, PAUSE_MAX_S))
    child.kill()
    child.communicate()
    outcome.add(kills=1)


def _finish(site: Site, fault: str, outcome: Outcome) -> None:
    last = site.start(fault)
    try:
        out, errors = last.communicate(timeout=LAST_S)
    except subprocess.TimeoutExpired:
        last.kill()
        outcome.problem(f"the ledger was not done after {LAST_S:g} s: {last.communicate()[1][-500:]}")
        return
    outcome.check(out.endswith("done\n"), f"the ledger ended: {errors[-500:]}")


def _judge(context: Context, site: Site, outcome: Outcome) -> None:
    """Compare with the journal derived anew, then with a store that was filled in one go."""
    end = int(outcome.facts["records"])
    source = FileSource(site.journal)
    derivation = recount(Derivation(), source, end, progress=lambda _: None)
    source.close()
    counts = derivation.counts()
    outcome.facts |= {"postings": counts.postings, "trades": counts.trades}
    outcome.check(counts.marks_differing == 0, "ledger and exchange differ at a hash mark")
    killed = _contents(site, derivation, outcome)
    with _site(context, site.journal, str(outcome.facts["store"]), "whole") as whole:
        _finish(whole, "", outcome)
        if outcome.passed:
            outcome.check(_contents(whole, derivation, outcome) == killed, "a store filled in one go has other rows")


def _contents(site: Site, derivation: Derivation, outcome: Outcome) -> dict[str, tuple[int, int]]:
    """Return rows and a checksum of each table, after the store has been compared with the derivation."""
    counts, found = derivation.counts(), {}
    try:
        with site.store() as store:
            result = compare_store(store, derivation.balances())
            outcome.check(result.good, f"the store differs from the journal: {result.sentence}")
            for table, keys in (("postings", "sequence, idx"), ("trades", "instrument, trade_id")):
                row = one(store.select(f"SELECT count() AS r, uniqExact({keys}) AS k FROM {table}"))
                known = getattr(counts, table)
                # What was stored, and is not there or there twice.
                outcome.add(acked_lost=known - row["k"], acked_dup=row["r"] - row["k"])
                sentence = f"{table}: {row['r']} rows, {row['k']} keys, {known} booked"
                outcome.check(row["r"] == row["k"] == known, sentence)
            blocks = store.select("SELECT first, end FROM blocks ORDER BY end")
            follows = blocks["first"].tolist() == [0, *blocks["end"].tolist()[:-1]]
            outcome.check(follows, "a block does not follow on the one before")
            for table, final in TABLES.items():
                sums = store.select(f"SELECT count() AS r, sum(cityHash64(*) % 1000000007) AS h FROM {table}{final}")
                found[table] = (int(sums["r"][0]), int(sums["h"][0]))
    except StoreError as error:
        outcome.problem(str(error))
    return found


DRILL = Drill(
    summary="kill -9 of the ledger and its store while blocks are stored, each twice; then the books are judged",
    run=run,
    faults={"lost": "one posting of each block is not stored"},
    runs=20,
    options=(Option("store", "chdb", "chdb or clickhouse"),),
)
