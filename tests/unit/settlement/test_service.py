"""The socket that answers: rows in pieces, errors as sentences, nothing but whole numbers into a question."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from settlement.answers import book_named, plain
from settlement.chart import Book
from settlement.errors import BooksDiffer, StoreUnavailable
from settlement.service import REQUEST_BYTES_MAX, ROWS_A_LINE, Service, ServiceClient, ServiceError


def count(n: int) -> Iterator[dict[str, int]]:
    return ({"n": number} for number in range(n))


def away() -> list[dict[str, Any]]:
    raise StoreUnavailable("the store has gone")


def no_file() -> list[dict[str, Any]]:
    raise FileExistsError("it exists already")


def refused() -> list[dict[str, Any]]:
    raise BooksDiffer("other books")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    socket_path = tmp_path / "ledger.sock"
    service = Service(socket_path, {"count": lambda n: count(n), "away": away, "refused": refused, "no_file": no_file})
    yield socket_path
    service.close()
    assert not socket_path.exists()


@pytest.fixture
def client(path: Path) -> Iterator[ServiceClient]:
    made = ServiceClient(path, timeout_s=10)
    yield made
    made.close()


@pytest.mark.parametrize("rows", [0, 1, ROWS_A_LINE, ROWS_A_LINE + 1, 3 * ROWS_A_LINE])
def test_rows_come_in_order_however_many(client: ServiceClient, rows: int) -> None:
    assert [row["n"] for row in client.call("count", n=rows)] == list(range(rows))


def test_answer_that_was_not_read_to_its_end_does_not_disturb_the_next(client: ServiceClient) -> None:
    assert next(client.call("count", n=5 * ROWS_A_LINE)) == {"n": 0}

    assert list(client.call("count", n=2)) == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "said"),
    [
        ("nothing", {}, "request", "unknown call 'nothing'; there are: away, count, no_file, refused"),
        ("count", {}, "request", "missing 1 required positional argument"),
        ("count", {"n": "x"}, "request", "cannot be interpreted as an integer"),
        ("away", {}, "unavailable", "the store has gone"),
        ("refused", {}, "refused", "other books"),
        ("no_file", {}, "request", "it exists already"),
    ],
)
def test_errors_are_sentences_of_a_kind_and_the_connection_lives_on(
    client: ServiceClient, name: str, arguments: dict[str, Any], kind: str, said: str
) -> None:
    with pytest.raises(ServiceError, match=said) as caught:
        list(client.call(name, **arguments))

    assert caught.value.kind == kind
    assert list(client.call("count", n=1)) == [{"n": 0}]


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[]\n", b'{"call": 1}\n', b'{"call": "count", "args": 3}\n', b'{"call": null}\n']
)
def test_malformed_requests_are_answered(path: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(path))
        raw.sendall(line)
        answer = json.loads(raw.makefile("rb").readline())

    assert answer["kind"] == "request"


def test_request_that_is_too_long_is_answered(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(path))
        raw.sendall(b"x" * REQUEST_BYTES_MAX)
        answer = json.loads(raw.makefile("rb").readline())

    assert f"a request may have {REQUEST_BYTES_MAX} bytes" in answer["error"]


def test_socket_belongs_to_its_owner_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_service_that_ends_is_told_as_unavailable(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ServiceClient(tmp_path / "nobody.sock")


# --- what may pass as an argument -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"account": "1 OR 1 = 1"}, "account = '1 OR 1 = 1': must be a whole number"),
        ({"limit": 1.5}, "limit = 1.5: must be a whole number"),
        ({"start_ns": [1]}, "must be a whole number"),
        ({"client_text": 5}, "client_text = 5: must be a text"),
        ({"by": "account"}, "must be a list of texts"),
        ({"by": [1]}, "must be a list of texts"),
        ({"book": "vault"}, "book = 'vault': must be one of client, insurance, fees"),
    ],
)
def test_argument_of_the_wrong_kind_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plain(given)


def test_arguments_of_the_right_kind_pass() -> None:
    given = {"account": 1, "newest": True, "order_id": None, "book": "fees", "client_text": "a'b", "by": ["tier"]}

    assert plain(given) == given | {"book": Book.FEES}
    assert book_named(22) is Book.TREASURY
