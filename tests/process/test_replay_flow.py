"""Recorded order flow through real connections: the verdict is right, and a planted fault turns it."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.admin.link import AdminLink
from scripts.config import load as load_config
from scripts.exit_codes import ExitCode
from scripts.flow.comparison import Comparison, Execution
from scripts.flow.recording import RESTING, BookState, Command, Recording, load, unsupported
from scripts.flow.replay import replay
from scripts.node import Node
from tests.kit.exchange import Exchange, bullring
from tests.kit.flow_sample import SAMPLE, generate

BITSTAMP = Path("data/l3/bitstamp_btcusd_20260502_a")
CME = Path("data/l3/cme_es_20231225_a")


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    with Exchange(tmp_path_factory.mktemp("replay") / "data", "--quiet-market") as exchange:
        yield exchange


def run(exchange: Exchange, comparison: Comparison) -> bool:
    config = load_config(None, {"node.data_dir": str(exchange.data)})
    node = Node.load(config.run_dir)
    with AdminLink.open(config) as link:
        asyncio.run(replay(node, exchange.address, comparison.recording, comparison, link))
    return comparison.conclude()


def test_sample_is_what_its_generator_makes() -> None:
    for name, data in generate().items():
        committed = (SAMPLE / name).read_bytes()
        if name.endswith(".gz"):
            committed, data = gzip.decompress(committed), gzip.decompress(data)
        assert committed == data, name


def test_sample_passes_and_leaves_no_money_behind(exchange: Exchange) -> None:
    done = bullring("replay-flow", str(SAMPLE), "--data", str(exchange.data), timeout_s=300)

    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    assert done.stdout.startswith("PASS: flow_sample: 1200 commands over 3 connections")
    assert len(done.stdout.splitlines()) == 1
    totals = {row["asset"]: row["total"] for row in exchange.command("asset", "list")}
    assert {totals["RFLOT"], totals["RFMONEY"]} == {"0.00000000"}


class PriceFault(Comparison):
    """An engine that reports the price of one execution wrongly."""

    def execution(self, execution: Execution) -> None:
        wrong = execution.trade_id == 50
        super().execution(replace(execution, price=execution.price + 1) if wrong else execution)


class MakerFault(Comparison):
    """An engine that fills another order of the level first."""

    def execution(self, execution: Execution) -> None:
        wrong = execution.trade_id == 7 and execution.is_maker
        super().execution(replace(execution, order=execution.order + 1) if wrong else execution)


class LostFault(Comparison):
    """An engine that forgets to tell one side of a trade."""

    def execution(self, execution: Execution) -> None:
        if not (execution.trade_id == 20 and execution.is_maker):
            super().execution(execution)


class BookFault(Comparison):
    """An engine whose book has one lot too many at one checkpoint."""

    def agrees(self, index: int, state: BookState) -> bool:
        wrong = index == 599
        return super().agrees(index, replace(state, bid_qty=state.bid_qty + 1) if wrong else state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (PriceFault, "trade 49:"),
        (MakerFault, "trade 6:"),
        (LostFault, "trade 20: only one side was reported"),
        (BookFault, "after command 599: book"),
    ],
)
def test_planted_engine_fault_is_caught(exchange: Exchange, fault: type[Comparison], sentence: str) -> None:
    comparison = fault(load(SAMPLE))

    assert run(exchange, comparison) is False
    assert any(text.startswith(sentence) for text in comparison.differences), comparison.differences


def test_folder_without_a_set_is_no_input(exchange: Exchange, tmp_path: Path) -> None:
    done = bullring("replay-flow", str(tmp_path), "--data", str(exchange.data))

    assert done.returncode == ExitCode.NO_INPUT
    assert "meta.json is missing" in done.stderr


@pytest.mark.slow
def test_recorded_bitstamp_set_passes(exchange: Exchange, shared_data: Path) -> None:
    folder = shared_data / BITSTAMP
    if not folder.is_dir():
        pytest.skip(f"the recorded set {BITSTAMP} is not in the shared data")

    done = bullring("replay-flow", str(folder), "--data", str(exchange.data), "--json", timeout_s=300)

    facts = json.loads(done.stdout)
    assert done.returncode == ExitCode.OK, facts
    assert facts["trades"] == facts["trades_recorded"] == 109
    assert facts["checkpoints"] == facts["checkpoints_recorded"] == 75
    assert facts["checkpoints_bad"] == facts["differences"] == 0
    assert facts["post_only_rejects"] == 54_644


@pytest.mark.slow
def test_recorded_cme_set_passes_with_auction_icebergs_and_self_matches(exchange: Exchange, shared_data: Path) -> None:
    folder = shared_data / CME
    if not folder.is_dir():
        pytest.skip(f"the recorded set {CME} is not in the shared data")

    done = bullring("replay-flow", str(folder), "--data", str(exchange.data), "--json", timeout_s=300)

    facts = json.loads(done.stdout)
    assert done.returncode == ExitCode.OK, facts
    assert facts["trades"] == facts["trades_recorded"] == 2743
    assert facts["checkpoints"] == facts["checkpoints_recorded"] == 65
    assert facts["checkpoints_bad"] == facts["differences"] == 0
    assert facts["self_matches_prevented"] + facts["self_match_cancels_sent"] == 41
    assert facts["self_matches_prevented"] >= 39  # two takers are filled before they reach their own


def auction_set(**changes: object) -> Recording:
    """Return a recording that is only its auction and one self-match."""
    meta = {"auction": {"price": 10, "qty": 5, "fills": [[1, 5], [2, 3]]}, "smp_pairs_taker_maker": [[4, 3]]}
    commands = [Command(i, i, "new", i + 1, "BS"[i % 2], 10, 5, "MKT" if i == 5 else "GTC", 0, 0, "") for i in range(6)]
    return Recording(name="x", meta=meta | changes, commands=commands, trades=[], checkpoints={})


def auction_fill(order: int, quantity: int, trade_id: int, *, price: int = 10) -> Execution:
    return Execution(trade_id, order, price, quantity, is_maker=False, ts_ns=0, is_auction=True)


@pytest.mark.parametrize(
    ("fills", "prevented", "sentence"),
    [
        ([(1, 3, 1), (2, 3, 1), (1, 2, 2), (6, 2, 2)], {3}, None),
        ([(1, 3, 1), (2, 2, 1), (1, 2, 2), (6, 2, 2)], {3}, "the auction filled of order 2 2, recorded 3"),
        ([(1, 3, 1), (2, 3, 1)], {3}, "the auction traded 3.0, recorded 5"),
        ([(1, 3, 1), (2, 3, 1), (1, 2, 2), (6, 2, 2)], set(), "self-match prevention was recorded for [3]"),
        ([(1, 3, 1), (2, 3, 1), (1, 2, 2), (6, 2, 2)], {2, 3}, "self-match prevention ended [2]"),
    ],
)
def test_auction_and_self_matches_are_judged(
    fills: list[tuple[int, int, int]], prevented: set[int], sentence: str | None
) -> None:
    comparison = Comparison(auction_set())
    for fill in fills:
        comparison.execution(auction_fill(*fill))
    comparison.self_matches_prevented |= prevented

    assert comparison.conclude() is (sentence is None), comparison.differences
    assert sentence is None or any(text.startswith(sentence) for text in comparison.differences)


def test_orders_that_may_not_meet_have_an_owner_of_their_own() -> None:
    recording = auction_set(smp_pairs_taker_maker=[[4, 3], [5, 3], [2, 1]])
    owners = recording.owners()

    assert owners[3] == owners[4] == owners[5] != owners[1] == owners[2]
    assert owners[6] == RESTING


def test_set_that_needs_more_than_the_exchange_has_ends_with_the_reason() -> None:
    recording = auction_set(auction=None)
    strange = [replace(recording.commands[0], kind="uncross"), replace(recording.commands[1], tif="GFA")]

    assert unsupported(recording) == []
    assert unsupported(replace(recording, commands=strange)) == [
        "a call auction that meta.json does not describe: 1",
        "time in force GFA: 1",
    ]
