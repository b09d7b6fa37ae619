"""What the supervisor of a replicated node makes of processes that die: no replicator takes part here."""

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.cluster_supervisor import ClusterSupervisor
from scripts.config import load
from scripts.exit_codes import CommandError, ExitCode
from scripts.placement import Kind, ProcessPlan

GATEWAY = ProcessPlan(Kind.GATEWAY, "gateway", "park")
RESTARTS_MAX = 3


class Site(ClusterSupervisor):
    """Its processes are programs that end at once, or that wait for something that does not come."""

    process_module = "scripts.exit_codes"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    peer = {"replication.peer": "127.0.0.1:9", "node.node_id": 1, "replication.peer_node": 2}
    limits = {"supervisor.restarts_max": RESTARTS_MAX, "node.data_dir": str(tmp_path / "data")}
    supervisor = Site(load(None, peer | limits), lambda text: None, lambda state: None)
    supervisor._prepare()
    yield supervisor
    supervisor._drop_core()
    supervisor.stop()


def until(condition: Callable[[], bool], step: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        step()


def test_a_gateway_that_dies_again_and_again_is_given_up(site: Site) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    site._launch([GATEWAY])

    with pytest.raises(CommandError, match=rf"supervisor\.restarts_max = {RESTARTS_MAX}\)") as caught:
        until(lambda: False, lambda: site._handle_events(0.2))

    assert caught.value.code == ExitCode.INTERNAL
    assert site.restarts["gateway"] == RESTARTS_MAX + 1
    site._drop_core()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_event_is_not_taken_for_one_of_a_process_that_got_its_number(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to start the core anew in the moment in which a process of the old one dies."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    site._socket = ours
    site._epoll.register(ours, select.EPOLLIN)
    theirs.send(json.dumps({"do": "anything"}).encode())
    site._launch([GATEWAY])
    old = site._children[0]
    until(lambda: old.process.poll() is not None)

    def start_anew(message: object) -> None:
        site._drop_core()
        monkeypatch.setattr(Site, "process_module", "tests.kit.stands_still")
        site._launch([GATEWAY])

    taken: list[int] = []
    monkeypatch.setattr(site, "_do", start_anew)
    monkeypatch.setattr(site, "_dies", taken.append)
    monkeypatch.setattr(site, "_becomes_ready", taken.append)
    site._handle_events(0.2)

    (new,) = site._children
    assert new.death_fd == old.death_fd  # or nothing is shown here
    assert new.process.poll() is None
    assert taken == []
    theirs.close()
