"""`bullring bench ledger`: the books at work. Each figure's reference is measured in the same run, in turns.

ingest     a journal full of trades goes through the consumer into the store, as when catching up: read, derive, compare
           hash marks, store blocks exactly once. Beside it the same columns are inserted bare into plain tables of the
           same store, through the same driver. Trades a second, and the ratio.
statement  one account's postings among many more of others: opening and closing balance, each line with its balance;
           timed once the store has merged what was inserted.
recount    everything derived anew from a journal of so many records, keeping balances only: rate, and memory.

One JSON object a line. The embedded store runs in this process, as in the ledger's own; a server is started for the run
where Debian's is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.arguments import progress
from scripts.bench._clickhouse import LocalServer, server_program
from scripts.bench._market import QUOTE, Market, MarketMaker
from scripts.exit_codes import CommandError, ExitCode
from scripts.ledger.checking import Progress
from settlement.chart import Book, Code
from settlement.chdb_store import ChdbConfig, ChdbStore
from settlement.clickhouse_store import ClickhouseStore
from settlement.consumer import Consumer, ConsumerConfig
from settlement.derivation import SLOT_SIZE, Block, Columns, Derivation
from settlement.images import Images
from settlement.ledger import Ledger, Owner
from settlement.reader import NS_MAX, Reader
from settlement.reconcile import recount, replay
from settlement.schema import MIGRATIONS, create_statement, migrate
from settlement.source import FileSource
from settlement.store import Store, one

Json = dict[str, Any]
BLOCK_ROWS = 1_600_000  # of the configuration's default, times what a consumer takes when far behind
INSERT_ROWS = 1_000_000
IMAGE_RECORDS = 1_000_000  # the configuration's default
MEMORY_BYTES = 4 << 30
KINDS = ("chdb", "clickhouse")
ROWS_OF = ("postings", "trades", "orders")  # the tables of a block
PARTS = ("ingest", "statement", "recount")
TRADES_TARGET, RATIO_TARGET, STATEMENT_TARGET_S = 200_000, 0.5, 1.0
START_NS = 1_700_000_000_000_000_000
EVERY_NS = 50_000_000  # between postings of the statement's data: 50 M of them are 29 days
MEMORY_SAMPLES = 8
STATEMENTS = 5
SETTLED_LOOKS, SETTLED_PAUSE_S, SETTLE_MAX_S = 4, 0.5, 300.0


def run(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    parts, kinds = options.parts.split(","), options.stores.split(",")
    for name, given, known in (("--parts", parts, PARTS), ("--stores", kinds, KINDS)):
        if not set(given) <= set(known):
            raise CommandError(f"{name} {','.join(given)}: must be of {', '.join(known)}", ExitCode.USAGE)
    root = Path(tempfile.mkdtemp(prefix="bullring-bench-", dir=options.dir))
    try:
        with _stores(kinds, root) as stores:
            if "ingest" in parts:
                _ingest(options, root, stores)
            if "statement" in parts:
                _statement(options, stores)
        if "recount" in parts:
            _recount(options, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return ExitCode.OK


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bullring bench ledger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="of %(default)s")
    parser.add_argument("--stores", default=",".join(KINDS), help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of ingest; medians are printed")
    parser.add_argument("--trades", type=int, default=1_000_000, help="in the journal of ingest (default %(default)s)")
    parser.add_argument("--postings", type=int, default=50_000_000, help="of the statement's store")
    parser.add_argument("--mine", type=int, default=1_000_000, help="of them the account's (default %(default)s)")
    parser.add_argument("--events", type=int, default=10_000_000, help="records to recount (default %(default)s)")
    parser.add_argument("--dir", default=None, help="where to put journals and stores (the disk that is measured)")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: output is always JSON lines")
    return parser.parse_args(arguments)


@dataclass(frozen=True, slots=True)
class Cost:
    """Time on the wall, and of processors: how much of a shared machine it had."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Cost:
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


def _print(part: str, line: Json) -> None:
    print(json.dumps({"bench": "ledger", "part": part, **line}), flush=True)


# --- stores -----------------------------------------------------------------------------------------------------------


class Stores:
    """Makes empty stores of a kind; the embedded one has one folder at a time, so each is closed before the next."""

    def __init__(self, kind: str, root: Path, server: LocalServer | None) -> None:
        self.kind = kind
        self._root = root
        self._server = server
        self._made = 0

    @contextmanager
    def fresh(self) -> Iterator[Store]:
        self._made += 1
        name = f"{self.kind}_{self._made}"
        store: Store
        if self._server is None:
            directory = self._root / name
            store = ChdbStore(ChdbConfig(directory=directory, memory_bytes=MEMORY_BYTES))
        else:
            self._server.query(f"CREATE DATABASE {name}")
            store = ClickhouseStore(replace(self._server.config(timeout_s=600), database=name))
        try:
            yield store
        finally:
            store.close()
            if self._server is None:
                shutil.rmtree(self._root / name, ignore_errors=True)
            else:
                self._server.query(f"DROP DATABASE {name}")


@contextmanager
def _stores(kinds: Sequence[str], root: Path) -> Iterator[list[Stores]]:
    found, server = [], None
    for kind in kinds:
        if kind == "clickhouse":
            program = server_program()
            if program is None:
                progress("no ClickHouse server here (Debian: apt-get install clickhouse-server): left out")
                continue
            server = LocalServer(program, root / "server")
            server.start()
        found.append(Stores(kind, root, server if kind == "clickhouse" else None))
    try:
        yield found
    finally:
        if server is not None:
            server.stop()


# --- ingest -----------------------------------------------------------------------------------------------------------


def _ingest(options: argparse.Namespace, root: Path, stores: list[Stores]) -> None:
    journal = root / "ingest"
    progress(f"making a journal of {options.trades} trades")
    MarketMaker(Market(options.trades), journal).run()
    blocks, deriving = _derive(journal)
    trades = sum(len(block.trades["trade_id"]) for block in blocks)
    rows = sum(len(next(iter(part.values()))) for block in blocks for part in _parts(block).values())
    end = blocks[-1].end
    ours: dict[str, list[Cost]] = {each.kind: [] for each in stores}
    bare: dict[str, list[Cost]] = {each.kind: [] for each in stores}
    for number in range(options.rounds):
        for each in stores:
            progress(f"round {number + 1} of {options.rounds}: {each.kind}")
            bare[each.kind].append(_bare(each, blocks))
            ours[each.kind].append(_consume(each, journal, end))
    for each in stores:
        mine, plain = ours[each.kind], bare[each.kind]
        seconds, alone = (statistics.median(cost.wall_s for cost in costs) for costs in (mine, plain))
        cpu_s = statistics.median(cost.cpu_s for cost in mine)
        line: Json = {
            "store": each.kind,
            "trades": trades,
            "records": end,
            "rows": rows,
            "rounds": options.rounds,
            "trades_per_s": round(trades / seconds),
            "trades_per_s_best": round(trades / min(cost.wall_s for cost in mine)),
            # Of this process: all of the work with the embedded store, without the server's own with a server.
            "trades_per_cpu_s": round(trades / cpu_s),
            "cores_used": round(cpu_s / seconds, 2),
            "rows_per_s": round(rows / seconds),
            "bare_rows_per_s": round(rows / alone),
            "bare_trades_per_s": round(trades / alone),
            "ratio": round(alone / seconds, 3),
            "derive_only_trades_per_s": round(trades / deriving.wall_s),
            "derive_only_trades_per_cpu_s": round(trades / deriving.cpu_s),
            "target_ratio": RATIO_TARGET,
        }
        if each.kind == "chdb":
            line["target_trades_per_s"] = TRADES_TARGET
        _print("ingest", line)
    shutil.rmtree(journal)


def _parts(block: Block) -> dict[str, Columns]:
    return {name: getattr(block, name) for name in ROWS_OF}


def _derive(journal: Path) -> tuple[list[Block], Cost]:
    """Return the blocks of a journal, and what deriving alone took."""
    end = journal_end(journal)
    derivation, source, blocks = Derivation(), FileSource(journal), []
    began = Cost.now()
    for _ in replay(derivation, source, end):
        if derivation.rows >= BLOCK_ROWS:
            blocks.append(derivation.take())
    blocks.append(derivation.take())
    cost = Cost.now() - began
    source.close()
    return blocks, cost


def journal_end(journal: Path) -> int:
    source, end = FileSource(journal), 0
    while (batch := source.read()) is not None:
        end = batch[0] + len(batch[1]) // SLOT_SIZE
    source.close()
    return end


def _bare(stores: Stores, blocks: list[Block]) -> Cost:
    """Insert the blocks' columns into plain tables of the same columns, nothing else."""
    with stores.fresh() as store:
        for table in MIGRATIONS[0].tables:
            if table.name in ROWS_OF:
                store.execute(create_statement(replace(table, newest=""), None, store.version))
        began = Cost.now()
        for block in blocks:
            for name, columns in _parts(block).items():
                store.insert(name, columns)
        return Cost.now() - began


def _consume(stores: Stores, journal: Path, end: int) -> Cost:
    """Run a consumer over the journal into an empty store; return what it took until everything is stored."""
    with stores.fresh() as store, tempfile.TemporaryDirectory(dir=journal.parent) as images:
        ended = threading.Event()
        config = ConsumerConfig(
            block_rows=BLOCK_ROWS // 4, flush_ms=1000, retry_ms=1000, insurance_account=0, image_records=IMAGE_RECORDS
        )
        ledger = Ledger(store, Owner(1, "bench", 1), time.time_ns)
        # A clock far ahead: this is a consumer that catches up.
        ahead_ns = time.time_ns() + 3600 * 10**9
        began = Cost.now()
        consumer = Consumer(
            lambda start: FileSource(journal, start),
            ledger,
            config,
            clock_ns=lambda: ahead_ns,
            wait=ended.wait,
            images=Images(Path(images)),
        )
        while consumer.status.stored < end:
            if not consumer.step():
                time.sleep(0.0005)
            status = consumer.status
            if status.state == "halted" or status.trouble:
                raise CommandError(f"the consumer stopped: {status.trouble}", ExitCode.NEGATIVE)
            if status.derived == end:
                consumer.flush()
        cost = Cost.now() - began
        if consumer.counts.marks_differing:
            raise CommandError("ledger and exchange differ at a hash mark", ExitCode.NEGATIVE)
        consumer.stop()
        return cost


# --- statement --------------------------------------------------------------------------------------------------------


def _statement(options: argparse.Namespace, stores: list[Stores]) -> None:
    middle = START_NS + EVERY_NS * options.postings // 2
    hundredth = middle, middle + EVERY_NS * options.postings // 100
    for each in stores:
        with each.fresh() as store:
            migrate(store, None, now_ns=time.time_ns())
            progress(f"{each.kind}: {options.postings} postings, {options.mine} of them the account's")
            # As when catching up. Afterwards the store puts its rows together, which takes the processors a while.
            store.hold_merges(held=True)
            _fill(store, options.postings, options.mine)
            store.hold_merges(held=False)
            merging_s = _settle(store)
            reader = Reader(store, partial(int, options.postings))
            lines, whole, whole_worst = _timed(reader, (0, NS_MAX))
            part_lines, part, _ = _timed(reader, hundredth)
        line = {
            "store": each.kind,
            "postings": options.postings,
            "lines": lines,
            "merged_after_s": merging_s,
            "seconds_median": round(whole.wall_s, 4),
            "seconds_worst": round(whole_worst, 4),
            # Of this process: all of the work with the embedded store.
            "cpu_seconds_median": round(whole.cpu_s, 4),
            "lines_of_a_hundredth": part_lines,
            "hundredth_seconds_median": round(part.wall_s, 4),
            "target_seconds": STATEMENT_TARGET_S,
        }
        _print("statement", line)


def _settle(store: Store) -> float:
    """Wait until the store merges nothing any more; return how long that took."""
    began, quiet = time.perf_counter(), 0
    while quiet < SETTLED_LOOKS:
        time.sleep(SETTLED_PAUSE_S)
        merges = one(store.select("SELECT count() AS running FROM system.merges"))["running"]
        quiet = 0 if merges else quiet + 1
        if time.perf_counter() - began > SETTLE_MAX_S:
            progress(f"the store still merges after {SETTLE_MAX_S:g} s: statements are timed beside that")
            break
    return round(time.perf_counter() - began, 1)


def _fill(store: Store, postings: int, mine: int) -> None:
    """Store postings of many accounts, every so many of account 1."""
    random = np.random.default_rng(1)
    every = max(1, postings // mine)
    for first in range(0, postings, INSERT_ROWS):
        count = min(INSERT_ROWS, postings - first)
        numbers = np.arange(first, first + count, dtype=np.uint64)
        account = random.integers(2, 20_000, count).astype(np.uint32)
        account[numbers % np.uint64(every) == 0] = 1
        order = np.lexsort((numbers, account))
        store.insert("postings", {name: column[order] for name, column in _postings(numbers, account).items()})


def _postings(numbers: np.ndarray[Any, Any], account: np.ndarray[Any, Any]) -> Columns:
    count = len(numbers)
    times = np.uint64(START_NS) + numbers * np.uint64(EVERY_NS)
    moved = (numbers % np.uint64(1_000)).astype(np.int64) * 100_000
    return {
        "epoch": np.ones(count, np.uint32),
        "sequence": numbers,
        "idx": np.zeros(count, np.uint32),
        "ts_ns": times,
        "event_ns": times,
        "book": np.full(count, Book.CLIENT, np.uint8),
        "account": account,
        "asset": np.full(count, QUOTE, np.uint32),
        "code": np.full(count, Code.FILL_TAKER, np.uint8),
        "available": moved,
        "held": -moved // 2,
        "fee": moved // 2_000,
        "instrument": np.ones(count, np.uint32),
        "order_id": numbers * np.uint64(3),
        "reference": numbers,
        "price": moved + 4_000_000,
        "quantity": moved // 100_000,
    }


def _timed(reader: Reader, period: tuple[int, int]) -> tuple[int, Cost, float]:
    """Return the lines of account 1's statement, the median cost of some runs, and the longest time of one."""
    costs, lines = [], 0
    for _ in range(STATEMENTS):
        began = Cost.now()
        lines = len(reader.statement(1, QUOTE, start_ns=period[0], end_ns=period[1]).lines["sequence"])
        costs.append(Cost.now() - began)
    median = Cost(statistics.median(cost.wall_s for cost in costs), statistics.median(cost.cpu_s for cost in costs))
    return lines, median, max(cost.wall_s for cost in costs)


# --- recount ----------------------------------------------------------------------------------------------------------


def _recount(options: argparse.Namespace, root: Path) -> None:
    journal = root / "recount"
    # A trade is two orders, and its reports are marked settled: about two and a half records.
    progress(f"making a journal of {options.events} records")
    MarketMaker(Market(max(1, options.events * 2 // 5)), journal).run()
    end = journal_end(journal)
    bar = Progress("recount", end)
    memory: list[int] = []

    def follow(position: int) -> None:
        bar(position)
        if position * MEMORY_SAMPLES >= end * (len(memory) + 1):
            memory.append(_own_memory_mib())

    source = FileSource(journal)
    began = time.perf_counter()
    derivation = recount(Derivation(), source, end, progress=follow)
    seconds = time.perf_counter() - began
    source.close()
    counts = derivation.counts()
    _print(
        "recount",
        {
            "records": end,
            "reports": counts.reports,
            "events": end + counts.reports,
            "postings": counts.postings,
            "trades": counts.trades,
            "seconds": round(seconds, 2),
            "records_per_s": round(end / seconds),
            "events_per_s": round((end + counts.reports) / seconds),
            "memory_mib_on_the_way": memory,
            "marks_compared": counts.marks_compared,
            "marks_differing": counts.marks_differing,
        },
    )
    if counts.marks_differing:
        raise CommandError("ledger and exchange differ at a hash mark", ExitCode.NEGATIVE)
    shutil.rmtree(journal)


def _own_memory_mib() -> int:
    """Return the process's own memory; pages of mapped files are the system's to take."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) // 1024
