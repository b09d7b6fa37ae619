"""What the other tests lean on does fail when it should."""

import socket
from pathlib import Path

import pytest

from tests.conftest import leaked_segments
from tests.kit import eventually, free_port


def test_condition_that_comes_true_is_waited_for() -> None:
    answers = iter([0, 0, 7])

    assert eventually(lambda: next(answers)) == 7


def test_condition_that_stays_false_fails_with_its_name_and_last_result() -> None:
    with pytest.raises(AssertionError, match=r"the cursor moved; last result: 0"):
        eventually(lambda: 0, deadline_s=0.02, what="the cursor moved")


def test_condition_is_asked_at_least_once() -> None:
    assert eventually(lambda: True, deadline_s=0.0)


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = [free_port() for _ in range(20)]

    assert len(set(ports)) == 20
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports[0]))


def test_segment_left_behind_is_found(tmp_path: Path) -> None:
    (tmp_path / "bullring-test-1-0-ring").write_bytes(b"")
    (tmp_path / "bullring-test-1-1-ring").write_bytes(b"")

    assert [path.name for path in leaked_segments("bullring-test-1-0-", tmp_path)] == ["bullring-test-1-0-ring"]
