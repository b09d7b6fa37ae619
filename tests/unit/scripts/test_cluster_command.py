"""`bullring cluster switchover|promote`: done when the next epoch is there; refused where they make no sense."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts import cluster
from scripts.config import Config, load
from scripts.exit_codes import CommandError, ExitCode

OVERRIDES = {"node.mode": "D2", "node.node_id": 1, "replication.peer": "127.0.0.1:7001", "replication.peer_node": 2}


class Replicator:
    """Answers as one in some states and epochs, one after the other; keeps what it is ordered."""

    def __init__(self, *states: tuple[str, int]) -> None:
        self._states = list(states)
        self.orders: list[str] = []

    def __call__(self, config: Config, message: dict[str, Any]) -> dict[str, Any]:
        if "order" in message:
            self.orders.append(message["order"])
            return {"ok": True}
        state, epoch = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"state": state, "epoch": epoch}


def ordered(monkeypatch: pytest.MonkeyPatch, *states: tuple[str, int]) -> Replicator:
    replicator = Replicator(*states)
    monkeypatch.setattr(cluster, "ask", replicator)
    monkeypatch.setattr(cluster, "config_of", lambda options: load(None, OVERRIDES))
    return replicator


def test_primary_is_ordered_and_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    replicator = ordered(monkeypatch, ("primary", 3), ("primary", 3), ("verify", 3), ("standby", 4))

    assert cluster.run(["switchover", "--json"]) == ExitCode.OK

    assert replicator.orders == ["switchover"]
    assert json.loads(capsys.readouterr().out) == {"order": "switchover", "state": "standby", "epoch": 4}


def test_standby_that_leads_in_a_new_epoch_was_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    replicator = ordered(monkeypatch, ("standby", 3), ("candidate", 3), ("primary", 4))

    assert cluster.run(["promote"]) == ExitCode.OK

    assert replicator.orders == ["promote"]


@pytest.mark.parametrize(
    ("order", "state", "says"),
    [
        ("switchover", "standby", "switchover: this node is standby; ask the primary"),
        ("promote", "primary", "promote: this node leads already, epoch 3"),
        ("bootstrap", "primary", "bootstrap: this node leads already, epoch 3"),
    ],
)
def test_order_that_makes_no_sense_is_not_given(
    monkeypatch: pytest.MonkeyPatch, order: str, state: str, says: str
) -> None:
    replicator = ordered(monkeypatch, (state, 3))

    with pytest.raises(CommandError, match=says) as raised:
        cluster.run([order])

    assert raised.value.code == ExitCode.NEGATIVE
    assert replicator.orders == []


def test_hand_over_that_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ordered(monkeypatch, ("primary", 3), ("fenced", 3))
    monkeypatch.setattr(cluster, "WAIT_S", 0.1)

    with pytest.raises(CommandError, match=r"switchover: still fenced in epoch 3 after 0.1 s") as raised:
        cluster.run(["switchover"])

    assert raised.value.code == ExitCode.NEGATIVE
