"""The arbiter's transactions against a real etcd: who compares what, and what an answer that never came means."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator import events as ev
from replicator.coordinator import Coordinator, CoordinatorConfig, Etcd
from replicator.errors import ReplicatorError
from replicator.events import Floor, Leader, Outcome
from tests.kit.etcd import PREFIX, EtcdServer
from tests.kit.waiting import eventually


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def etcd(server: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Etcd]:
    """A client with keys of this test's own."""
    client = Etcd(server.config(prefix=f"{PREFIX}/{request.node.name}"))
    yield client
    client.close()


def bid(etcd: Etcd, *, epoch: int = 1, node: int = 0) -> tuple[bool, ev.Cas]:
    view = etcd.view()
    action = ev.Cas(
        1,
        view.leader_revision,
        view.members_revision,
        view.nonce_revision,
        Leader(epoch, node, 5),
        frozenset({(node, 5)}),
    )
    return etcd.transact(action, None)[0], action


def test_without_keys_there_is_no_leader(etcd: Etcd) -> None:
    view = etcd.view()

    assert view.leader is None
    assert view.members == frozenset()
    assert (view.leader_revision, view.members_revision, view.nonce_revision) == (0, 0, 0)


def test_a_transaction_is_read_back_as_written(etcd: Etcd) -> None:
    view = etcd.view()
    leader, members = Leader(3, 1, 7, (100, 200)), frozenset({(1, 7), (0, 9)})

    won, after = etcd.transact(ev.Cas(1, 0, 0, 0, leader, members), Floor(3, 44))

    assert won
    assert (after.leader, after.members, after.floor) == (leader, members, Floor(3, 44))
    assert after == etcd.view()
    assert after.leader_revision > view.leader_revision


def test_a_request_with_old_revisions_loses_and_says_what_stands_there(etcd: Etcd) -> None:
    _, first = bid(etcd)

    won, view = etcd.transact(first, None)

    assert not won
    assert view.leader == Leader(1, 0, 5)


@pytest.mark.parametrize("field", ["leader_revision", "members_revision", "nonce_revision"])
def test_each_revision_is_compared(etcd: Etcd, field: str) -> None:
    """A field that etcd did not know would be ignored, and then anybody would win."""
    bid(etcd)
    view = etcd.view()
    revisions = {name: getattr(view, name) for name in ("leader_revision", "members_revision", "nonce_revision")}
    revisions[field] += 1

    won, _ = etcd.transact(ev.Cas(1, *revisions.values(), Leader(2, 1, 6), frozenset({(1, 6)})), None)

    assert not won
    assert etcd.view().leader == Leader(1, 0, 5)


def test_a_bumped_nonce_makes_an_earlier_request_worthless(etcd: Etcd) -> None:
    view = etcd.view()
    late = ev.Cas(1, view.leader_revision, view.members_revision, view.nonce_revision, Leader(1, 0, 5), frozenset())

    etcd.bump_nonce()

    assert not etcd.transact(late, None)[0]
    assert bid(etcd)[0]


def test_the_nonce_is_each_nodes_own(server: EtcdServer, etcd: Etcd, request: pytest.FixtureRequest) -> None:
    other = Etcd(server.config(node=1, prefix=f"{PREFIX}/{request.node.name}"))
    etcd.bump_nonce()

    assert etcd.view().nonce_revision > 0
    assert other.view().nonce_revision == 0
    other.close()


def test_only_the_commit_position_can_be_put(etcd: Etcd) -> None:
    bid(etcd)
    view = etcd.view()

    won, after = etcd.transact(ev.Cas(1, view.leader_revision, view.members_revision, None, None, None), Floor(1, 9))

    assert won
    assert (after.leader, after.members_revision, after.floor) == (view.leader, view.members_revision, Floor(1, 9))


def test_what_a_node_says_of_itself_is_shown(etcd: Etcd) -> None:
    lease = etcd.announce(None, json.dumps({"state": "primary"}))
    again = etcd.announce(lease, json.dumps({"state": "standby"}))

    assert again == lease
    assert etcd.nodes() == {0: {"state": "standby"}}


def test_a_lease_that_ran_out_is_taken_anew(etcd: Etcd) -> None:
    lease = etcd.announce("12345", "{}")

    assert lease != "12345"
    assert etcd.nodes() == {0: {}}


def answers(coordinator: Coordinator, *actions: ev.Action) -> list[ev.Event]:
    found: list[ev.Event] = []
    for action in actions:
        coordinator.ask(action)
    eventually(lambda: found.extend(coordinator.take()) or len(found) == len(actions), deadline_s=30)
    return found


def test_the_coordinator_answers_in_order_and_tells_of_the_node(server: EtcdServer) -> None:
    config = server.config(prefix=f"{PREFIX}/coordinator")
    coordinator = Coordinator(config)
    coordinator.start(lambda: '{"state": "verify"}')

    cas = ev.Cas(2, 0, 0, 0, Leader(1, 0, 5), frozenset({(0, 5)}))
    read, bumped, lost = answers(coordinator, ev.ReadCluster(1), ev.BumpNonce(3), cas)

    assert isinstance(read, ev.ClusterRead) and read.view is not None and read.view.leader is None
    assert bumped == ev.NonceBumped(3, True)
    assert isinstance(lost, ev.CasDone) and lost.outcome is Outcome.LOST
    etcd = Etcd(config)
    eventually(lambda: etcd.nodes() == {0: {"state": "verify"}}, deadline_s=30)
    etcd.close()
    coordinator.close()


def test_an_arbiter_that_is_not_there_is_no_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{unused.getsockname()[1]}"
        coordinator = Coordinator(CoordinatorConfig(endpoints=(endpoint,), prefix=PREFIX, node=0))
        coordinator.start(lambda: "{}")

        cas = ev.Cas(2, 0, 0, None, None, frozenset())
        found = answers(coordinator, ev.ReadCluster(1), cas, ev.BumpNonce(3))

        expected = [ev.ClusterRead(1, None), ev.CasDone(2, Outcome.UNKNOWN), ev.NonceBumped(3, False)]
        assert found == expected
        assert coordinator.failures == 3
        coordinator.close()


def test_an_arbiter_that_says_nothing_is_unknown() -> None:
    """It takes the connection and the request, and does not answer: the request may have been done."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        accepted: list[socket.socket] = []
        threading.Thread(target=lambda: accepted.append(mute.accept()[0]), daemon=True).start()
        endpoint = f"127.0.0.1:{mute.getsockname()[1]}"
        coordinator = Coordinator(CoordinatorConfig(endpoints=(endpoint,), prefix=PREFIX, node=0, timeout_ms=50))
        coordinator.start(lambda: "{}")

        (answer,) = answers(coordinator, ev.Cas(2, 0, 0, None, None, frozenset()))

        assert answer == ev.CasDone(2, Outcome.UNKNOWN)
        coordinator.close()
        for connection in accepted:
            connection.close()


def test_the_next_endpoint_is_asked_when_one_fails(server: EtcdServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        config = CoordinatorConfig(endpoints=(dead, server.endpoint), prefix=PREFIX, node=0, timeout_ms=2000)
        etcd = Etcd(config)

        assert etcd.view().leader is None
        etcd.close()


def test_what_was_written_survives_a_kill_of_etcd(tmp_path: Path) -> None:
    with EtcdServer(tmp_path) as server:
        etcd = Etcd(server.config())
        assert bid(etcd)[0]

        server.kill()
        server.start()

        again = Etcd(server.config())
        assert again.view().leader == Leader(1, 0, 5)
        etcd.close()
        again.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [("endpoints", ()), ("endpoints", ("nowhere",)), ("timeout_ms", 9), ("timeout_ms", 10_001), ("prefix", "x/")],
)
def test_a_wrong_setting_is_named(field: str, value: object) -> None:
    settings = {"endpoints": ("127.0.0.1:2379",), "prefix": PREFIX, "node": 0, field: value}

    with pytest.raises(ReplicatorError, match=field):
        CoordinatorConfig(**settings)  # type: ignore[arg-type]
