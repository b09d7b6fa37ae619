"""A process that ends on a broken invariant: the supervisor writes down what broke, and how far everybody was."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.auditing.dump import FOLDER
from tests.kit import eventually
from tests.kit.exchange import Exchange, bullring

DEADLINE_S = 120.0
BROKEN = "/x/engine/accounts.c:87: invariant broken in balance_change: balance->held >= 0\n"


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    with Exchange(tmp_path_factory.mktemp("dumps") / "data", "--set", "supervisor.restarts_max=100") as exchange:
        yield exchange


def dumps(exchange: Exchange) -> list[Path]:
    return sorted((exchange.data / FOLDER).glob("*.json"))


def rows(exchange: Exchange, process: str) -> list[dict[str, Any]]:
    """Return what there is of a process; nothing while one of those that trading does not need is away."""
    found = json.loads((exchange.data / "run" / "processes.json").read_text())
    return [row for row in found if row["name"] == process]


def end(exchange: Exchange, process: str, ending: signal.Signals, says: str = "") -> None:
    """End a process as if it had said that, and see another one in its place."""
    pid = exchange.pid(process)
    with (exchange.data / "logs" / f"{process}.log").open("a") as log:
        log.write(says)
    os.kill(pid, ending)
    eventually(
        lambda: any(row["pid"] != pid and row["ready"] for row in rows(exchange, process)), deadline_s=DEADLINE_S
    )


@pytest.mark.slow
@pytest.mark.parametrize("process", ["fused", "journaler", "feed"])
def test_broken_invariant_is_written_down_with_everybodys_position(exchange: Exchange, process: str) -> None:
    before = dumps(exchange)
    [log] = [ring for ring in exchange.command("stat")[0]["rings"] if ring["ring"] == "log"]

    end(exchange, process, signal.SIGABRT, BROKEN)

    [path] = [path for path in dumps(exchange) if path not in before]
    dump: dict[str, Any] = json.loads(path.read_text())
    assert (dump["process"], dump["place"]) == (process, "/x/engine/accounts.c:87")
    assert (dump["function"], dump["condition"]) == ("balance_change", "balance->held >= 0")
    assert dump["log_published"] >= dump["log_visible"] >= log["visible"] > 0
    assert set(dump["reports"]) == {"0", "1", "2"}
    done = bullring("audit", "dump", str(path), "--data", str(exchange.data), "--json", timeout_s=DEADLINE_S)
    answer = json.loads(done.stdout)
    assert (answer["verdict"], answer["replayed_to"] <= dump["log_visible"]) == ("not by the log", True), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGABRT])
def test_other_ends_are_no_dump(exchange: Exchange, ending: signal.Signals) -> None:
    """Also where the log still holds what an earlier process of the name broke."""
    with (exchange.data / "logs" / "journaler.log").open("a") as log:
        log.write(BROKEN)
    end(exchange, "journaler", signal.SIGKILL)
    before = dumps(exchange)

    end(exchange, "journaler", ending)

    assert dumps(exchange) == before
