"""The books beside a running exchange: commands, kills and troubles of the ledger, and trading that does not notice."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from journaler import LogReader
from scripts.exit_codes import ExitCode
from settlement.schema import NEWEST
from tests.kit import eventually
from tests.kit.clickhouse_server import DATABASE, ClickhouseServer
from tests.kit.exchange import Exchange, bullring
from tests.kit.ledger_books import chdb_store

CATCH_UP_S = 120.0
TABLES = ("postings", "trades", "orders", "assets", "instruments", "accounts", "closes", "days")


def facts(exchange: Exchange) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((exchange.data / "run" / "ledger.json").read_text())
    except (OSError, ValueError):
        return {"state": "unknown", "stored": 0, "lag": 1 << 60, "trouble": "", "trades": 0}
    return found


def published(exchange: Exchange) -> int:
    """Return how long the log is."""
    return next(ring["published"] for ring in exchange.command("stat")[0]["rings"] if ring["ring"] == "log")


def goes_on(exchange: Exchange) -> None:
    """Trading goes on: the log grows by a good piece."""
    before = published(exchange)
    eventually(lambda: published(exchange) > before + 200, deadline_s=60)


def restarts(exchange: Exchange) -> dict[str, int]:
    return {row["process"]: row["restarts"] for row in exchange.command("stat")[0]["processes"]}


def caught_up(exchange: Exchange, beyond: int = 0) -> None:
    """The ledger follows the market, and is well."""

    def near() -> bool:
        found = facts(exchange)
        return bool(found["stored"] > beyond and found["lag"] < 5_000 and not found["trouble"])

    eventually(near, deadline_s=CATCH_UP_S)


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    settings = ("--set", "ledger.flush_ms=200", "--set", "ledger.image_records=1000")
    with Exchange(tmp_path_factory.mktemp("ledger") / "data", *settings) as exchange:
        caught_up(exchange)
        yield exchange


def ledger(exchange: Exchange, *arguments: str) -> Any:
    return exchange.command("ledger", *arguments)


# --- what the commands say --------------------------------------------------------------------------------------------


def test_what_was_traded_can_be_asked(exchange: Exchange) -> None:
    eventually(lambda: facts(exchange)["trades"] > 20, deadline_s=CATCH_UP_S)
    caught_up(exchange)

    trades = ledger(exchange, "trades", "BTC-USDT", "--limit", "10")
    numbers = [row["trade"] for row in trades]
    assert numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert {"price", "quantity", "amount", "maker"} <= set(trades[0])
    candles = ledger(exchange, "candles", "BTC-USDT", "--interval", "1m")
    assert sum(row["trades"] for row in candles) >= numbers[-1]
    assert all(float(row["low"]) <= float(row["open"]) <= float(row["high"]) for row in candles)
    makers = [account for account in range(2, 6) if ledger(exchange, "fills", str(account), "--limit", "5")]
    assert makers
    fills = ledger(exchange, "fills", str(makers[0]), "--pair", "BTC-USDT", "--limit", "5")
    assert all(row["pair"] == "BTC-USDT" for row in fills)
    orders = ledger(exchange, "orders", str(makers[0]), "--limit", "5")
    assert [row["time"] for row in orders] == sorted(row["time"] for row in orders)
    unknown = bullring("ledger", "candles", "A-B", "--data", str(exchange.data))
    assert unknown.returncode == ExitCode.BAD_INPUT
    assert "unknown pair 'A-B'; there are: BTC-USDT" in unknown.stderr


def test_books_of_a_running_exchange_can_be_asked(exchange: Exchange) -> None:
    eventually(lambda: facts(exchange)["trades"] > 20, deadline_s=CATCH_UP_S)
    caught_up(exchange)

    status = ledger(exchange, "status")[0]
    assert status["state"] == "running"
    assert status["marks_differing"] == 0
    assert status["differences"] == []
    trial = ledger(exchange, "trial-balance")
    assert {row["asset"] for row in trial} == {"BTC", "ETH", "SOL", "USDT"}
    assert all(float(row["available"]) == 0 for row in trial if row["book"] == "sum")
    you = exchange.ready["accounts"]["you"]["account"]
    assert {row["asset"]: row["available"] for row in ledger(exchange, "balance", str(you))} == {
        "BTC": "1000.00000000",
        "ETH": "20000.00000000",
        "SOL": "200000.00000000",
        "USDT": "100000000.00000000",
    }
    statement = ledger(exchange, "statement", str(you), "--asset", "BTC")
    assert statement[0]["closing_available"] == "1000.00000000"
    assert [line["what"] for line in statement[1:]] == ["deposit"]
    fees = ledger(exchange, "fees", "--by", "instrument,account")
    assert {row["pair"] for row in fees} <= {"BTC-USDT", "ETH-USDT", "SOL-USDT", "ETH-BTC"}
    tiers = ledger(exchange, "fees", "--by", "tier")
    assert {row["tier"] for row in tiers} == {0}
    assert all(float(row["turnover"]["USDT"]) > 0 for row in tiers if row["asset"] == "USDT")


def test_balances_are_the_exchanges_own(exchange: Exchange) -> None:
    """Asked of the exchange and of the ledger; the demo's own account does not trade."""
    account = exchange.command("account", "create", "--fund", "BTC=1.5", "--fund", "USDT=10.25")[0]

    def same() -> bool:
        rows = ledger(exchange, "balance", str(account["account"]))
        own = {row["asset"]: {"available": row["available"], "held": row["held"]} for row in rows}
        return bool(own == account["balances"])

    eventually(same, deadline_s=30)


def test_reconciliation_on_command_agrees(exchange: Exchange) -> None:
    caught_up(exchange)

    rows = ledger(exchange, "reconcile", "--recount", "--exchange")

    assert [row["kind"] for row in rows] == ["store", "recount", "exchange"]
    assert [row["differences"] for row in rows] == [0, 0, 0]
    assert all(row["compared"] > 15 for row in rows)


def test_export_of_a_running_exchange(exchange: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    caught_up(exchange)

    told = ledger(exchange, "export", "trades", str(path))[0]

    lines = path.read_text().splitlines()
    assert len(lines) == told["rows"] + 1
    again = bullring("ledger", "export", "trades", str(path), "--data", str(exchange.data))
    assert again.returncode == ExitCode.BAD_INPUT
    assert "exists already" in again.stderr


def test_overview_has_the_books_at_a_glance(exchange: Exchange) -> None:
    caught_up(exchange)

    page = ledger(exchange, "overview")[0]

    assert page["balanced"] is True
    assert page["status"]["state"] == "running"
    assert set(page["sums"]) == {"BTC", "ETH", "SOL", "USDT"}
    assert {row["book"] for row in page["trial_balance"]} >= {"client", "treasury"}


def test_withdrawal_is_pending_then_posted_and_a_deposit_is_reversed(exchange: Exchange) -> None:
    account = str(exchange.command("account", "create", "--fund", "BTC=2")[0]["account"])
    ledger(exchange, "transfer", "withdrawal", "pending", account, "BTC", "--amount", "0.5", "--reference", "4711")
    eventually(lambda: [row["amount"] for row in ledger(exchange, "transit")] == ["0.50000000"], deadline_s=60)

    ledger(exchange, "transfer", "withdrawal", "posted", account, "BTC", "--reference", "4711")
    eventually(lambda: ledger(exchange, "transit") == [], deadline_s=60)
    lines = ledger(exchange, "statement", account, "--asset", "BTC")[1:]
    assert [line["what"] for line in lines] == ["deposit", "withdrawal_pending"]
    assert lines[1]["reference"] == 4711

    record = str(lines[1]["record"])
    assert [row["account"] for row in ledger(exchange, "entry", record)] == [f"client:{account}", "withdrawals"]
    unsure = bullring("ledger", "reverse", record, "--data", str(exchange.data))
    assert unsure.returncode == ExitCode.USAGE
    ledger(exchange, "reverse", record, "--yes")
    eventually(lambda: ledger(exchange, "statement", account)[0]["closing_available"] == "2.00000000", deadline_s=60)
    assert bullring("ledger", "reverse", "0", "--yes", "--data", str(exchange.data)).returncode == ExitCode.BAD_INPUT


def test_order_records_of_a_running_exchange(exchange: Exchange, tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    caught_up(exchange)

    told = ledger(exchange, "order-records", str(path), "--pair", "BTC-USDT", "--mic", "XBUL")[0]

    content = json.loads(path.read_text())
    assert len(content["orderRecords"]) == told["orderRecords"] > 0
    assert {record["segmentMic"] for record in content["orderRecords"]} == {"XBUL"}
    assert told["complete"] is told["wholeWindow"] is True
    wrong = bullring(
        "ledger", "order-records", str(tmp_path / "none.json"), "--pair", "A-B", "--data", str(exchange.data)
    )
    assert (wrong.returncode, "unknown pair" in wrong.stderr) == (ExitCode.BAD_INPUT, True)


def test_stat_tells_how_the_books_are(exchange: Exchange) -> None:
    caught_up(exchange)

    done = bullring("stat", "--data", str(exchange.data))

    assert done.returncode == ExitCode.OK
    assert "ledger: running," in done.stdout
    assert "hash marks agree" in done.stdout


def test_wrong_questions_are_answered_with_what_is_wrong(exchange: Exchange) -> None:
    for arguments, code, said in (
        (("statement", "1", "--asset", "XYZ"), ExitCode.BAD_INPUT, "unknown asset 'XYZ'"),
        (("balance", "--at", "soon"), ExitCode.USAGE, "--at = 'soon': must be a date"),
        (("fees", "--by", "colour"), ExitCode.BAD_INPUT, "must be instrument, account or tier"),
        (("export", "trades", "file.txt"), ExitCode.USAGE, "must end with .csv or .parquet"),
        (("statement", "1", "--from", "2026-01-02", "--to", "2026-01-01"), ExitCode.USAGE, "--from is after --to"),
        (("rebuild",), ExitCode.USAGE, "say --yes"),
    ):
        done = bullring("ledger", *arguments, "--data", str(exchange.data))
        assert done.returncode == code, (arguments, done)
        assert said in done.stderr


# --- kills and troubles -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_ledger_comes_back_and_trading_does_not_notice(exchange: Exchange) -> None:
    for _ in range(3):
        pid = exchange.pid("ledger")
        before = facts(exchange)["stored"]
        os.kill(pid, signal.SIGKILL)
        goes_on(exchange)
        eventually(lambda was=pid: "ledger" in restarts(exchange) and exchange.pid("ledger") != was, deadline_s=60)  # type: ignore[misc]
        caught_up(exchange, before)

    assert {count for name, count in restarts(exchange).items() if name != "ledger"} == {0}
    assert restarts(exchange)["ledger"] >= 3
    assert [row["differences"] for row in ledger(exchange, "reconcile", "--recount")] == [0, 0]


@pytest.mark.slow
def test_ledger_goes_on_from_an_image_and_lets_the_journal_be_trimmed(exchange: Exchange) -> None:
    cursor = exchange.data / "journal" / "consumers" / "ledger"
    eventually(lambda: cursor.exists() and int(cursor.read_text()) > 0, deadline_s=CATCH_UP_S)
    needed = int(cursor.read_text())
    # A block has been stored behind the older image.
    caught_up(exchange, beyond=needed + 2000)

    os.kill(exchange.pid("ledger"), signal.SIGKILL)

    eventually(lambda: facts(exchange).get("began", 0) >= needed, deadline_s=CATCH_UP_S)
    caught_up(exchange, beyond=published(exchange))
    assert facts(exchange)["marks_differing"] == 0
    rows = ledger(exchange, "reconcile", "--recount")
    assert [row["differences"] for row in rows] == [0, 0]
    assert rows[-1]["from_record"] == 0


def trim(exchange: Exchange) -> int:
    """Take a snapshot and let go what nothing needs any more; return where the log begins then, 0 = as before."""
    taken = bullring("snapshot", "take", "--data", str(exchange.data))
    if taken.returncode == ExitCode.NO_INPUT:
        return 0  # no two hash marks yet
    assert taken.returncode == ExitCode.OK, taken.stderr
    done = bullring("journal", "trim", str(exchange.data / "journal"), "--yes")
    assert done.returncode == ExitCode.OK, done.stderr
    return LogReader(exchange.data / "journal").first_sequence


def recount(exchange: Exchange) -> int:
    """The books agree with what the log's files say; return the record from which they were counted."""
    rows = ledger(exchange, "reconcile", "--recount")
    assert [row["differences"] for row in rows] == [0, 0]
    return int(rows[-1]["from_record"])


@pytest.mark.slow
def test_ledger_goes_on_over_a_trimmed_journal_or_says_what_it_lacks(tmp_path: Path) -> None:
    """Trimmed under a running ledger, which is killed, then started anew; and, the control, without its images."""
    data, images = tmp_path / "data", tmp_path / "data" / "ledger-images"
    wishes = ("ledger.flush_ms=200", "ledger.image_records=1000", f"journal.segment_size_bytes={1 << 20}")
    settings = [part for wish in wishes for part in ("--set", wish)]
    with Exchange(data, *settings) as exchange:
        first = eventually(lambda: trim(exchange), deadline_s=CATCH_UP_S)
        os.kill(exchange.pid("ledger"), signal.SIGKILL)
        eventually(lambda: facts(exchange).get("began", 0) >= first, deadline_s=CATCH_UP_S)
        caught_up(exchange, beyond=published(exchange))
        assert recount(exchange) >= first
        assert exchange.stop() == ExitCode.OK
    with Exchange(data, *settings) as exchange:
        caught_up(exchange, beyond=published(exchange))
        assert facts(exchange)["began"] >= first
        assert recount(exchange) >= first
        assert exchange.stop() == ExitCode.OK

    stored = facts(exchange)["stored"]
    images.rename(tmp_path / "elsewhere")
    lacking = f"begins at record {first} and is needed from record 0 on: bring its archived segments back"
    with Exchange(data, *settings) as exchange:
        eventually(lambda: lacking in facts(exchange)["trouble"], deadline_s=CATCH_UP_S)
        goes_on(exchange)
        assert lacking in bullring("stat", "--data", str(data)).stdout
        assert (facts(exchange)["stored"], restarts(exchange)["ledger"]) == (stored, 0)
        assert exchange.stop() == ExitCode.OK
    refused = bullring("ledger", "rebuild", "--yes", "--data", str(data))
    assert refused.returncode != ExitCode.OK and lacking in refused.stderr
    # With its images it goes on where it was: nothing had been touched.
    shutil.rmtree(images, ignore_errors=True)
    (tmp_path / "elsewhere").rename(images)
    with Exchange(data, *settings) as exchange:
        caught_up(exchange, beyond=published(exchange))
        assert recount(exchange) >= first


@pytest.mark.slow
def test_rerun_into_a_fresh_store_gives_identical_books(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Exchange(data) as exchange:
        eventually(lambda: facts(exchange)["trades"] > 50, deadline_s=CATCH_UP_S)
        os.kill(exchange.pid("fused"), signal.SIGKILL)
        eventually(lambda: facts(exchange)["trades"] > 100, deadline_s=CATCH_UP_S)
        assert exchange.stop() == ExitCode.OK
        assert facts(exchange)["lag"] == 0
    first = content(data / "ledger")
    assert first["postings"]

    assert bullring("ledger", "rebuild", "--yes", "--data", str(data)).returncode == ExitCode.OK
    assert bullring("ledger", "balance", "--data", str(data)).returncode == ExitCode.NO_INPUT
    with Exchange(data, "--quiet-market") as exchange:
        last = max(row[0] for row in first["blocks"])
        caught_up(exchange, last)
        assert exchange.stop() == ExitCode.OK

    again = content(data / "ledger", below=last)
    for table in TABLES:
        if table == "orders":
            # Those changed by the last reports of the first run, which only a mark of the second one books.
            assert len(first[table]) - 20 < len(again[table]) <= len(first[table])
            assert set(again[table]) <= set(first[table])
        else:
            assert again[table] == first[table], table


def content(directory: Path, below: int = 1 << 62) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row below a record, sorted. Orders as they stand at the end are another matter: the newest wins."""
    store = chdb_store(directory)
    found = {}
    for table in TABLES:
        rows = store.select(f"SELECT * FROM {table}{' FINAL' if table == 'orders' else ''} WHERE sequence < {below}")
        found[table] = sorted(zip(*(rows[name].tolist() for name in sorted(rows)), strict=True))
    blocks = store.select("SELECT end FROM blocks")
    found["blocks"] = sorted((end,) for end in blocks["end"].tolist())
    store.close()
    return found


@pytest.mark.slow
def test_store_that_is_refused_does_not_touch_trading(tmp_path: Path) -> None:
    """A store of a newer program; healed while the exchange runs on."""
    data = tmp_path / "data"
    with Exchange(data) as exchange:
        eventually(lambda: facts(exchange)["trades"] > 10, deadline_s=CATCH_UP_S)
        assert exchange.stop() == ExitCode.OK
    store = chdb_store(data / "ledger")
    store.execute(f"INSERT INTO schema_migrations SELECT toUInt32({NEWEST + 1}), 'later', toUInt32(1), toUInt64(1)")
    store.close()
    shutil.copytree(data / "ledger", tmp_path / "refused")

    with Exchange(data) as exchange:
        eventually(lambda: f"has schema {NEWEST + 1}" in facts(exchange)["trouble"], deadline_s=60)
        goes_on(exchange)
        done = bullring("stat", "--data", str(data))
        assert "ledger: the store refuses: " in done.stdout
        assert restarts(exchange)["fused"] == 0
        # Somebody removes it; the ledger's process is told by being started again.
        shutil.rmtree(data / "ledger")
        os.kill(exchange.pid("ledger"), signal.SIGKILL)
        caught_up(exchange, 1)
        assert [row["differences"] for row in ledger(exchange, "reconcile", "--recount")] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("reaction", ["alarm", "cancel-only"])
def test_difference_alarms_and_stops_trading_only_if_told_to(tmp_path: Path, reaction: str) -> None:
    data = tmp_path / "data"
    with Exchange(data) as exchange:
        eventually(lambda: facts(exchange)["trades"] > 10, deadline_s=CATCH_UP_S)
        assert exchange.stop() == ExitCode.OK
    store = chdb_store(data / "ledger")
    store.execute("ALTER TABLE postings UPDATE available = available + 1 WHERE book = 1 AND account = 2 AND code = 1")
    store.close()

    settings = ("--set", f"ledger.on_difference={reaction}", "--set", "ledger.reconcile_s=1")
    with Exchange(data, *settings) as exchange:
        eventually(lambda: bool(facts(exchange).get("differences")), deadline_s=CATCH_UP_S)
        done = bullring("ledger", "status", "--data", str(data))
        assert done.returncode == ExitCode.NEGATIVE
        assert "the store differs from the log" in done.stdout
        if reaction == "alarm":
            goes_on(exchange)
        else:
            eventually(lambda: states(exchange) == {"cancel_only"}, deadline_s=60)
        assert restarts(exchange)["fused"] == 0
        assert "ALARM: " in (data / "logs" / "ledger.log").read_text()


def states(exchange: Exchange) -> set[str]:
    return {row["state"] for row in exchange.command("instrument", "list")}


@pytest.mark.slow
def test_store_that_somebody_else_has_is_waited_for(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "ledger").mkdir(parents=True)
    mine = chdb_store(data / "ledger")
    with Exchange(data) as exchange:
        eventually(lambda: "another process has the store" in facts(exchange)["trouble"], deadline_s=60)
        goes_on(exchange)
        asked = bullring("ledger", "balance", "--data", str(data))
        assert asked.returncode == ExitCode.UNAVAILABLE
        mine.close()
        caught_up(exchange, 1)


@pytest.mark.slow
def test_disk_with_too_little_space_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Exchange(data, "--set", f"ledger.disk_reserve_bytes={1 << 50}") as exchange:
        eventually(lambda: "are kept free" in facts(exchange)["trouble"], deadline_s=60)
        goes_on(exchange)
        assert facts(exchange)["stored"] == 0
        assert facts(exchange)["lag"] > 0
        assert exchange.stop() == ExitCode.OK
    with Exchange(data) as exchange:
        caught_up(exchange, 1)


@pytest.mark.slow
def test_server_by_configuration_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    server = ClickhouseServer(tmp_path / "server")
    server.start()
    server.query(f"CREATE DATABASE {DATABASE}")
    file = tmp_path / "mine.toml"
    file.write_text(
        f'[ledger]\nstore = "clickhouse"\n[ledger.clickhouse]\nport = {server.port}\ndatabase = "{DATABASE}"\n',
        encoding="utf-8",
    )
    try:
        with Exchange(tmp_path / "data", "--config", str(file)) as exchange:
            caught_up(exchange, 1)
            server.kill()
            eventually(lambda: "the store does not answer" in facts(exchange)["trouble"], deadline_s=60)
            goes_on(exchange)
            eventually(lambda: facts(exchange)["lag"] > 500, deadline_s=60)
            behind = facts(exchange)["stored"]
            server.start()
            caught_up(exchange, behind)
            rows = exchange.command("ledger", "reconcile", "--recount", "--config", str(file))
            assert [row["differences"] for row in rows] == [0, 0]
            assert restarts(exchange)["ledger"] == 0
    finally:
        server.stop()


@pytest.mark.slow
def test_full_disk_of_the_store_is_waited_for(tmp_path: Path) -> None:
    """A filesystem of its own that fills up, and is made larger while the exchange runs."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a filesystem cannot be mounted here: {mounted.stderr.strip()}")
    try:
        small = ("--set", f"ledger.directory={folder / 'store'}", "--set", "ledger.disk_reserve_bytes=0")
        with Exchange(tmp_path / "data", *small) as exchange:
            eventually(lambda: "space" in facts(exchange)["trouble"].lower(), deadline_s=CATCH_UP_S)
            goes_on(exchange)
            behind = facts(exchange)["stored"]
            subprocess.run(["mount", "-o", "remount,size=900m", str(folder)], check=True)
            caught_up(exchange, behind)
            rows = ledger(exchange, "reconcile", "--recount")
            assert [row["differences"] for row in rows] == [0, 0]
            assert exchange.stop() == ExitCode.OK
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_questions_before_the_books_are_open_are_put_off(tmp_path: Path) -> None:
    """Asked again and again from the first moment on: told to come again, or answered; never how the store failed."""
    with Exchange(tmp_path / "data") as exchange:

        def asked() -> bool:
            done = bullring("ledger", "trial-balance", "--data", str(exchange.data))
            if done.returncode != ExitCode.OK:
                assert done.returncode == ExitCode.UNAVAILABLE, done.stderr
                assert "UNKNOWN_TABLE" not in done.stderr
            return done.returncode == ExitCode.OK

        eventually(asked, deadline_s=CATCH_UP_S)
