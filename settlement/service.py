"""Questions to the books over a Unix socket, for the command line and the gateways: one process has the store.

A request is one line of JSON, {"call": NAME, "args": {...}}; its answer is any number of lines {"rows": [...]} and then
{"end": number of rows}, or {"error": sentence, "kind": "request" | "unavailable" | "refused"}. A connection may ask
again and again. Who may open the socket may read everything: its file belongs to its owner alone.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from settlement.errors import SettlementError, StoreUnavailable

Row = Mapping[str, Any]  # plain values
Handler = Callable[..., Iterable[Row]]
REQUEST_BYTES_MAX = 1 << 16
ROWS_A_LINE = 500
ANSWER_TIMEOUT_S = 600.0


class ServiceError(SettlementError):
    """What the other side answered instead of rows."""

    def __init__(self, sentence: str, kind: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    handlers: Mapping[str, Handler]


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        while line := self.rfile.readline(REQUEST_BYTES_MAX):
            try:
                for answer in _answers(server.handlers, line):
                    self.wfile.write(answer)
            except (BrokenPipeError, ConnectionResetError):
                return


def _answers(handlers: Mapping[str, Handler], line: bytes) -> Iterator[bytes]:
    try:
        handler, arguments = _parse(handlers, line)
        count, chunk = 0, []
        for row in handler(**arguments):
            chunk.append(row)
            count += 1
            if len(chunk) == ROWS_A_LINE:
                yield _line({"rows": chunk})
                chunk = []
        if chunk:
            yield _line({"rows": chunk})
        yield _line({"end": count})
    except (TypeError, ValueError, LookupError, OSError) as error:
        yield _line({"error": str(error), "kind": "request"})
    except StoreUnavailable as error:
        yield _line({"error": str(error), "kind": "unavailable"})
    except SettlementError as error:
        yield _line({"error": str(error), "kind": "refused"})


def _parse(handlers: Mapping[str, Handler], line: bytes) -> tuple[Handler, dict[str, Any]]:
    if not line.endswith(b"\n"):
        raise ValueError(f"a request may have {REQUEST_BYTES_MAX} bytes and ends with a line feed")
    request = json.loads(line)
    if not isinstance(request, dict) or not isinstance(request.get("args", {}), dict):
        raise ValueError("a request is an object with call and args")
    name = request.get("call")
    if not isinstance(name, str) or name not in handlers:
        raise ValueError(f"unknown call {name!r}; there are: {', '.join(sorted(handlers))}")
    return handlers[name], request.get("args", {})


def _line(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


class Service:
    """Answers in threads of its own until closed."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        """Raises OSError when the socket cannot be made."""
        self._path = path
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._server = _Server(str(path), _Connection)
        finally:
            os.umask(mask)
        self._server.handlers = handlers
        self._thread = threading.Thread(target=self._server.serve_forever, name="ledger-service", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


class ServiceClient:
    """One connection to a ledger that runs. Raises OSError when nobody listens there."""

    def __init__(self, path: Path, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")
        self._answering = False

    def call(self, name: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yield the rows of an answer; what is not read of it is gone with the next call. Raises ServiceError."""
        while self._answering:
            self._next()
        self._socket.sendall(_line({"call": name, "args": arguments}))
        self._answering = True
        while self._answering:
            answer = self._next()
            if "error" in answer:
                raise ServiceError(answer["error"], answer["kind"])
            yield from answer.get("rows", [])

    def _next(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            self._answering = False
            raise ServiceError("the ledger closed the connection", "unavailable")
        answer: dict[str, Any] = json.loads(line)
        self._answering = "rows" in answer
        return answer

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
