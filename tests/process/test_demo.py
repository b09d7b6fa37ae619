"""The exchange as a user meets it: started, traded with, killed, stopped, reopened."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clients import BullringClient, Report, load_signer
from ringbuf.wire import messages as wire
from scripts.exit_codes import ExitCode
from scripts.stat import cpu_seconds
from tests.kit import eventually
from tests.kit.exchange import Exchange, bullring

PRICE_TICKS, LOTS = 10_000_000, 1_000  # 100,000.00 USDT, 0.01 BTC
ANSWER_S = 10.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """One exchange for the tests that leave it running."""
    with Exchange(tmp_path_factory.mktemp("demo") / "data", "--quiet-market") as exchange:
        yield exchange


class Trader:
    """A client with an account and key made from the command line."""

    def __init__(self, exchange: Exchange, *funds: str) -> None:
        arguments = [word for fund in funds for word in ("--fund", fund)]
        self.account = exchange.command("account", "create", *arguments)[0]["account"]
        key = exchange.command("key", "create", "--account", str(self.account))[0]
        self.client = BullringClient(
            [exchange.address], session_id=key["session"], signer=load_signer(Path(key["secret_saved_in"]))
        )

    async def expect(self, kind: type[Any]) -> Any:
        """Return the next report of a kind, skipping others."""
        async with asyncio.timeout(ANSWER_S):
            async for report in self.client.reports():
                if isinstance(report, Report) and isinstance(report.message, kind):
                    return report.message
        raise AssertionError("no more reports")


async def trade_once(maker: Trader, taker: Trader) -> None:
    async with maker.client, taker.client:
        maker.client.new_order(instrument_id=1, side=wire.Side.SELL, quantity=LOTS, price=PRICE_TICKS, cl_ord_id=1)
        accepted = await maker.expect(wire.OrderAccepted)
        taker.client.new_order(instrument_id=1, side=wire.Side.BUY, quantity=LOTS // 2, price=PRICE_TICKS, cl_ord_id=7)
        fill = await taker.expect(wire.OrderExecuted)
        other = await maker.expect(wire.OrderExecuted)
        assert (fill.last_px, fill.last_qty, fill.liquidity) == (PRICE_TICKS, LOTS // 2, wire.Liquidity.TAKER)
        assert (other.order_id, other.leaves_qty, other.trade_id) == (accepted.order_id, LOTS // 2, fill.trade_id)


def balances(exchange: Exchange, trader: Trader) -> Any:
    return exchange.command("account", "show", str(trader.account))[0]["balances"]


MAKER_BALANCES = {
    "BTC": {"available": "0.99000000", "held": "0.00500000"},
    "USDT": {"available": "500.00000000", "held": "0.00000000"},
}
TAKER_BALANCES = {
    "BTC": {"available": "0.00500000", "held": "0.00000000"},
    "USDT": {"available": "999500.00000000", "held": "0.00000000"},
}


def test_two_clients_trade_and_the_state_survives_a_reopening(data: Path) -> None:
    with Exchange(data, "--quiet-market") as exchange:
        maker, taker = Trader(exchange, "BTC=1"), Trader(exchange, "USDT=1000000")
        asyncio.run(trade_once(maker, taker))
        eventually(lambda: balances(exchange, maker) == MAKER_BALANCES)
        eventually(lambda: balances(exchange, taker) == TAKER_BALANCES)
        accounts = exchange.ready["accounts"]
        assert exchange.stop() == ExitCode.OK

    with Exchange(data, "--quiet-market") as exchange:
        assert exchange.ready["epoch"] == 2
        assert exchange.ready["accounts"] == accounts
        assert balances(exchange, maker) == MAKER_BALANCES
        assert balances(exchange, taker) == TAKER_BALANCES
        open_orders = {row["instrument"]: row["open_orders"] for row in exchange.command("instrument", "list")}
        assert open_orders["BTC-USDT"] == 1


def test_killed_core_process_comes_back_with_everything_answered(exchange: Exchange) -> None:
    maker, taker = Trader(exchange, "BTC=1"), Trader(exchange, "USDT=1000000")
    asyncio.run(trade_once(maker, taker))
    eventually(lambda: balances(exchange, taker) == TAKER_BALANCES)

    for victim in ("fused", "journaler"):
        pid = exchange.pid(victim)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda was=pid, name=victim: exchange.pid(name) != was, deadline_s=60)  # type: ignore[misc]
        eventually(lambda: bullring("stat", "--data", str(exchange.data)).returncode == ExitCode.OK, deadline_s=60)

        assert balances(exchange, maker) == MAKER_BALANCES
        assert balances(exchange, taker) == TAKER_BALANCES


def test_stat_shows_cursors_processes_and_lags(exchange: Exchange) -> None:
    exchange.command("account", "list")

    facts = exchange.command("stat")[0]

    assert facts["running"] is True
    assert facts["mode"] == "D1"
    assert {process["state"] for process in facts["processes"]} == {"running"}
    log = next(row for row in facts["rings"] if row["ring"] == "log")
    assert log["published"] > 0
    assert log["lags"].keys() == {"journaler"}
    assert facts["counters"]["fused"]["admin.queries"] > 0


def test_second_instance_on_the_same_data_is_refused_with_a_sentence(exchange: Exchange) -> None:
    done = bullring("run", "--data", str(exchange.data))

    assert done.returncode == ExitCode.BUSY
    assert "another exchange" in done.stderr
    assert str(exchange.data) in done.stderr


def test_port_in_use_is_one_clear_sentence(exchange: Exchange, tmp_path: Path) -> None:
    address = exchange.ready["binary_gateway"]

    done = bullring("demo", "--data", str(tmp_path / "other"), "--listen", address)

    assert done.returncode == ExitCode.CANNOT_CREATE
    sentences = [line for line in done.stderr.splitlines() if line.startswith("bullring:")]
    assert sentences == [
        f"bullring: {address} is in use by another program: stop that, or choose another with gateway.binary.listen"
    ]


@pytest.mark.slow
def test_demo_market_trades_and_ends_by_itself(data: Path) -> None:
    with Exchange(data, "--seconds", "6") as exchange:
        before = time.monotonic()
        eventually(lambda: exchange.command("stat")[0]["counters"]["fused"]["sequencer.reports"] > 200, deadline_s=60)
        out, _ = exchange.process.communicate(timeout=60)

        assert exchange.process.returncode == ExitCode.OK
        assert time.monotonic() - before < 60
        assert '"event": "stopped"' in out


def test_nothing_is_left_in_shared_memory(data: Path) -> None:
    with Exchange(data, "--quiet-market") as exchange:
        assert exchange.stop() == ExitCode.OK

    done = bullring("stat", "--data", str(data))
    assert done.returncode == ExitCode.UNAVAILABLE
    prefix = next(iter((data / "run").glob("bullring.*.log.producer.lock"))).name.removesuffix(".log.producer.lock")
    assert list(Path("/dev/shm").glob(f"{prefix}*")) == []


@pytest.mark.slow
def test_exchange_that_dies_again_and_again_gives_up(data: Path) -> None:
    with Exchange(data, "--quiet-market", "--set", "supervisor.restarts_max=1") as exchange:
        first = exchange.pid("fused")
        os.kill(first, signal.SIGKILL)
        second = eventually(lambda: exchange.pid("fused") if exchange.pid("fused") != first else 0, deadline_s=60)
        os.kill(second, signal.SIGKILL)
        exchange.process.communicate(timeout=60)

        assert exchange.process.returncode == ExitCode.INTERNAL
        assert "giving up" in exchange.errors.read_text()


def test_killed_supervisor_takes_its_processes_along_and_can_be_started_again(data: Path) -> None:
    with Exchange(data, "--quiet-market") as exchange:
        pids = [exchange.pid("fused"), exchange.pid("journaler")]
        exchange.process.kill()
        exchange.process.communicate(timeout=60)
        eventually(lambda: all(cpu_seconds(pid) is None for pid in pids), deadline_s=30)

    with Exchange(data, "--quiet-market") as exchange:
        assert exchange.ready["epoch"] == 2
        assert exchange.stop() == ExitCode.OK


def test_command_without_an_exchange_says_so(tmp_path: Path) -> None:
    done = bullring("account", "list", "--data", str(tmp_path / "nothing"))

    assert done.returncode == ExitCode.UNAVAILABLE
    assert "no exchange answers" in done.stderr
