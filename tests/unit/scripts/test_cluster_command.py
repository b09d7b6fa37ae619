"""`bullring cluster switchover`: asked where nobody leads it says so, and orders nothing."""

from __future__ import annotations

from typing import Any

import pytest

from scripts import cluster
from scripts.config import Config, load
from scripts.exit_codes import CommandError, ExitCode

OVERRIDES = {"node.mode": "D2", "node.node_id": 1, "replication.peer": "127.0.0.1:7001", "replication.peer_node": 2}


class Replicator:
    """Answers as one in some states, one after the other; keeps what it is ordered."""

    def __init__(self, *states: str) -> None:
        self._states = list(states)
        self.orders: list[str] = []

    def __call__(self, config: Config, message: dict[str, Any]) -> dict[str, Any]:
        if "order" in message:
            self.orders.append(message["order"])
            return {"ok": True}
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"state": state, "epoch": 3}


def ordered(monkeypatch: pytest.MonkeyPatch, *states: str) -> Replicator:
    replicator = Replicator(*states)
    monkeypatch.setattr(cluster, "ask", replicator)
    monkeypatch.setattr(cluster, "config_of", lambda options: load(None, OVERRIDES))
    return replicator


def test_primary_is_ordered_and_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    replicator = ordered(monkeypatch, "primary", "primary", "standby")

    assert cluster.run(["switchover", "--json"]) == ExitCode.OK

    assert replicator.orders == ["switchover"]
    assert '"standby"' in capsys.readouterr().out


def test_standby_is_not_ordered_to_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    replicator = ordered(monkeypatch, "standby")

    with pytest.raises(CommandError, match="this node is standby; ask the primary") as raised:
        cluster.run(["switchover"])

    assert raised.value.code == ExitCode.NEGATIVE
    assert replicator.orders == []
