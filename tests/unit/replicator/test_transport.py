"""The link: encrypted, only with the one peer, never waiting."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from replicator.errors import ReplicatorError
from replicator.transport import PUBLIC_FILE, SECRET_FILE, KeyPair, Link, LinkConfig, Waiter
from tests.kit.ports import free_port
from tests.kit.waiting import eventually

KEYS = (KeyPair.make(), KeyPair.make())
STRANGER = KeyPair.make()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def link(stack: ExitStack, ports: tuple[int, int], node: int, *, keys: KeyPair | None = None) -> Link:
    config = LinkConfig(
        listen=f"127.0.0.1:{ports[node]}",
        peer=f"127.0.0.1:{ports[1 - node]}",
        keys=keys or KEYS[node],
        peer_public=KEYS[1 - node].public,
    )
    made = Link(config)
    stack.callback(made.close)
    return made


def arrives(source: Link, target: Link, frame: bytes) -> bool:
    source.send(frame)
    while (received := target.receive()) is not None:
        if received == frame:
            return True
    return False


def test_frames_go_both_ways(stack: ExitStack) -> None:
    ports = (free_port(), free_port())
    first, second = link(stack, ports, 0), link(stack, ports, 1)

    eventually(lambda: arrives(first, second, b"there"), deadline_s=30)
    eventually(lambda: arrives(second, first, b"and back"), deadline_s=30)


def test_a_stranger_is_not_heard(stack: ExitStack) -> None:
    ports = (free_port(), free_port())
    first = link(stack, ports, 0)
    stranger = link(stack, ports, 1, keys=STRANGER)
    other_ports = (ports[0], free_port())

    for _ in range(50):
        stranger.send(b"let me in")
        assert first.receive() is None
    # And the peer itself still is.
    peer = link(stack, other_ports, 1)
    eventually(lambda: arrives(peer, first, b"it is me"), deadline_s=30)


NULL_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL".ljust(54, b"\0")


def test_a_listener_in_the_peers_place_is_told_nothing(stack: ExitStack) -> None:
    """It offers no encryption; the link insists on CURVE and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as ear:
        first = link(stack, (free_port(), ear.getsockname()[1]), 0)
        ear.settimeout(30)
        connection, _ = ear.accept()
        with connection:
            connection.settimeout(30)
            connection.sendall(NULL_GREETING)
            heard = b""
            while chunk := connection.recv(4096):
                heard += chunk
                first.send(b"secret-frame")

    assert heard[12:17] == b"CURVE"
    assert b"secret-frame" not in heard


def test_a_peer_that_comes_back_is_heard_again(stack: ExitStack) -> None:
    ports = (free_port(), free_port())
    first = link(stack, ports, 0)
    with ExitStack() as life:
        second = link(life, ports, 1)
        eventually(lambda: arrives(second, first, b"one"), deadline_s=30)
    second = link(stack, ports, 1)

    eventually(lambda: arrives(second, first, b"two"), deadline_s=30)
    eventually(lambda: arrives(first, second, b"three"), deadline_s=30)


def test_nobody_waits_for_a_peer_that_is_not_there(stack: ExitStack) -> None:
    first = link(stack, (free_port(), free_port()), 0)

    for _ in range(10_000):
        first.send(bytes(100))

    assert first.sent == 0
    assert first.dropped == 10_000


def test_waiting_ends_with_a_frame_or_a_descriptor(stack: ExitStack) -> None:
    ports = (free_port(), free_port())
    first, second = link(stack, ports, 0), link(stack, ports, 1)
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    stack.callback(os.close, bell)
    waiter = Waiter(second, bell)

    assert waiter.wait(0) == set()
    os.eventfd_write(bell, 1)
    assert waiter.wait(30_000) == {bell}
    os.eventfd_read(bell)

    def woken() -> bool:
        first.send(b"x")
        return waiter.wait(100) == set() and second.receive() is not None

    eventually(woken, deadline_s=30)


def test_an_address_in_use_is_named(stack: ExitStack) -> None:
    ports = (free_port(), free_port())
    link(stack, ports, 0)

    with pytest.raises(ReplicatorError, match=str(ports[0])):
        link(stack, ports, 0)


@pytest.mark.parametrize("address", ["host", "host:", "host:0", "host:65536", ":80"])
def test_an_address_must_be_one(address: str) -> None:
    with pytest.raises(ReplicatorError, match="HOST:PORT"):
        LinkConfig(listen=address, peer="127.0.0.1:1", keys=KEYS[0], peer_public=KEYS[1].public)


def test_keys_are_read_back_and_kept_secret(tmp_path: Path) -> None:
    KEYS[0].save(tmp_path)

    assert KeyPair.load(tmp_path / SECRET_FILE) == KEYS[0]
    assert (tmp_path / PUBLIC_FILE).read_text().strip() == KEYS[0].public
    assert (tmp_path / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        KEYS[1].save(tmp_path)


def test_a_secret_others_may_read_is_refused(tmp_path: Path) -> None:
    KEYS[0].save(tmp_path)
    (tmp_path / SECRET_FILE).chmod(0o644)

    with pytest.raises(ReplicatorError, match="0600"):
        KeyPair.load(tmp_path / SECRET_FILE)


@pytest.mark.parametrize("text", ["", "{}", '{"public": "short", "secret": "short"}'])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / SECRET_FILE
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(ReplicatorError, match=SECRET_FILE):
        KeyPair.load(path)
