"""The arbiter: etcd over its JSON gateway. The only file that talks to etcd.

Keys below a prefix: `leader`, `isr` (the in-sync set), `floor`, `nonce/N`, and `nodes/N`, which is leased and only for
people to look at. Every change is one transaction that compares the revisions of leader and isr, and for a promotion of
the candidate's nonce, so a request that was given up for lost can do no harm later.

Requests run one after the other on a thread of their own. An answer that does not come in time is UNKNOWN: the
request may have been done, or be done later.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import queue
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicator import events as ev
from replicator.errors import ReplicatorError
from replicator.events import ClusterView, Floor, Leader, Outcome

LEASE_S = 5
READ_ATTEMPTS = 3
RANGES = ("leader", "isr", "floor", "nonce")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorConfig:
    """Where etcd is. With `ca` the connection is TLS, with `certificate` and `key` this node shows its own."""

    endpoints: tuple[str, ...]  # HOST:PORT each
    prefix: str
    node: int
    timeout_ms: int = 100
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ReplicatorError("endpoints = []: must name one etcd at least")
        for endpoint in self.endpoints:
            host, _, port = endpoint.rpartition(":")
            if not host or not port.isdigit():
                raise ReplicatorError(f"endpoints: {endpoint!r} must be HOST:PORT")
        if not 10 <= self.timeout_ms <= 10_000:
            raise ReplicatorError(f"timeout_ms = {self.timeout_ms}: must be 10 to 10000")
        if not self.prefix.startswith("/") or self.prefix.endswith("/"):
            raise ReplicatorError(f"prefix = {self.prefix!r}: must begin and not end with a slash")


class Etcd:
    """One client, blocking. Raises OSError or ReplicatorError when no answer can be had."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self._config = config
        self._at = 0
        self._connection: http.client.HTTPConnection | None = None
        self._tls = _tls(config)

    def view(self) -> ClusterView:
        """Read all keys as of one revision. Asks each endpoint, at most READ_ATTEMPTS in all."""
        for attempt in range(READ_ATTEMPTS):
            try:
                reply = self._post("kv/txn", {"compare": [], "success": self._ranges()})
                return self._decode(reply["responses"])
            except OSError:
                if attempt == READ_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def transact(self, action: ev.Cas, floor: Floor | None) -> tuple[bool, ClusterView]:
        """Do one transaction; return whether it won and what stands there after it."""
        compare = [_compare(self._key("leader"), action.leader_revision)]
        compare.append(_compare(self._key("isr"), action.members_revision))
        if action.nonce_revision is not None:
            compare.append(_compare(self._key("nonce"), action.nonce_revision))
        puts = []
        if action.leader is not None:
            puts.append(_put(self._key("leader"), _leader_text(action.leader)))
        if action.members is not None:
            puts.append(_put(self._key("isr"), json.dumps(sorted(action.members))))
        if floor is not None:
            puts.append(_put(self._key("floor"), json.dumps({"epoch": floor.epoch, "sequence": floor.sequence})))
        reply = self._post(
            "kv/txn", {"compare": compare, "success": [*puts, *self._ranges()], "failure": self._ranges()}
        )
        won = reply.get("succeeded") is True
        responses = reply["responses"]
        return won, self._decode(responses[len(puts) :] if won else responses)

    def bump_nonce(self) -> None:
        """Change this node's nonce key, so that promotions that compare its old revision fail."""
        self._post("kv/put", {"key": _encode(self._key("nonce")), "value": _encode(str(time.time_ns()))})

    def announce(self, lease: str | None, text: str) -> str:
        """Put what people may want to know about this node under a lease; return the lease to give next time."""
        if lease is not None:
            kept = self._post("lease/keepalive", {"ID": lease}).get("result", {})
            if "TTL" not in kept:  # it had run out: etcd answers, but without a time
                lease = None
        if lease is None:
            lease = str(self._post("lease/grant", {"TTL": str(LEASE_S)})["ID"])
        key = f"{self._config.prefix}/nodes/{self._config.node}"
        self._post("kv/put", {"key": _encode(key), "value": _encode(text), "lease": lease})
        return lease

    def nodes(self) -> dict[int, dict[str, Any]]:
        """What the nodes that are alive say of themselves."""
        start = f"{self._config.prefix}/nodes/"
        reply = self._post("kv/range", {"key": _encode(start), "range_end": _encode(start[:-1] + "0")})
        found = {}
        for pair in reply.get("kvs", []):
            name = base64.b64decode(pair["key"]).decode().removeprefix(start)
            found[int(name)] = json.loads(base64.b64decode(pair["value"]))
        return found

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _key(self, name: str) -> str:
        return f"{self._config.prefix}/{name}" + (f"/{self._config.node}" if name == "nonce" else "")

    def _ranges(self) -> list[dict[str, Any]]:
        return [{"requestRange": {"key": _encode(self._key(name))}} for name in RANGES]

    def _decode(self, responses: list[dict[str, Any]]) -> ClusterView:
        values: dict[str, Any] = {}
        revisions: dict[str, int] = {}
        for name, response in zip(RANGES, responses, strict=True):
            found = response.get("response_range", response.get("responseRange", {})).get("kvs", [])
            revisions[name] = int(found[0]["mod_revision"]) if found else 0
            values[name] = json.loads(base64.b64decode(found[0]["value"])) if found else None
        leader, floor = values["leader"], values["floor"]
        return ClusterView(
            leader=_leader(leader) if leader is not None else None,
            leader_revision=revisions["leader"],
            members=frozenset((int(node), int(incarnation)) for node, incarnation in values["isr"] or ()),
            members_revision=revisions["isr"],
            nonce_revision=revisions["nonce"],
            floor=Floor(int(floor["epoch"]), int(floor["sequence"])) if floor is not None else None,
        )

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            connection = self._connect()
            connection.request("POST", f"/v3/{path}", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._next_endpoint()
            raise OSError(f"etcd does not answer: {error}") from error
        if response.status != 200:
            self._next_endpoint()
            raise OSError(f"etcd answers {response.status}: {data[:200].decode(errors='replace')}")
        reply: dict[str, Any] = json.loads(data)
        return reply

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, _, port = self._config.endpoints[self._at].rpartition(":")
            timeout = self._config.timeout_ms / 1000
            if self._tls is not None:
                self._connection = http.client.HTTPSConnection(host, int(port), timeout=timeout, context=self._tls)
            else:
                self._connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
        return self._connection

    def _next_endpoint(self) -> None:
        self.close()
        self._at = (self._at + 1) % len(self._config.endpoints)


class Coordinator:
    """Runs requests of the state machine on a thread; `take` hands the answers out on the caller's."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self._etcd = Etcd(config)
        self._requests: queue.SimpleQueue[tuple[ev.Action, Floor | None] | None] = queue.SimpleQueue()
        self._answers: deque[ev.Event] = deque()
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._status: Callable[[], str] = lambda: "{}"
        self._lease: str | None = None
        self.failures = 0
        self.requests = 0
        self._thread = threading.Thread(target=self._run, name="coordinator", daemon=True)

    def start(self, status: Callable[[], str]) -> None:
        """`status` is asked, on the coordinator's thread, for the text shown under this node's leased key."""
        self._status = status
        self._thread.start()

    def fileno(self) -> int:
        """Readable when `take` has something."""
        return self._ready

    def ask(self, action: ev.Action, floor: Floor | None = None) -> None:
        """Queue ReadCluster, Cas or BumpNonce."""
        self._requests.put((action, floor))

    def take(self) -> list[ev.Event]:
        """Return the answers that have come."""
        try:
            os.eventfd_read(self._ready)
        except BlockingIOError:
            return []
        answers = []
        while self._answers:
            answers.append(self._answers.popleft())
        return answers

    def close(self) -> None:
        self._requests.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._etcd.close()
        os.close(self._ready)

    def _run(self) -> None:
        announced = 0.0
        while True:
            try:
                request = self._requests.get(timeout=LEASE_S / 10)
            except queue.Empty:
                request = ()  # type: ignore[assignment]
            if request is None:
                return
            if request:
                self._answers.append(self._do(*request))
                os.eventfd_write(self._ready, 1)
            if time.monotonic() - announced > LEASE_S / 5 and self._requests.empty():
                announced = time.monotonic()
                self._announce()

    def _announce(self) -> None:
        try:
            self._lease = self._etcd.announce(self._lease, self._status())
        except (OSError, ValueError, KeyError):
            self._lease = None  # shown to people only; the next time will do

    def _do(self, action: ev.Action, floor: Floor | None) -> ev.Event:
        self.requests += 1
        try:
            match action:
                case ev.ReadCluster(request):
                    return ev.ClusterRead(request, self._etcd.view())
                case ev.BumpNonce(request):
                    self._etcd.bump_nonce()
                    return ev.NonceBumped(request, True)
                case ev.Cas(request):
                    won, view = self._etcd.transact(action, floor)
                    return ev.CasDone(request, Outcome.WON if won else Outcome.LOST, view)
        except (OSError, ValueError, KeyError, TypeError):
            self.failures += 1
        return no_answer(action)


def no_answer(action: ev.Action) -> ev.Event:
    """What the state machine hears when nothing came back."""
    match action:
        case ev.ReadCluster(request):
            return ev.ClusterRead(request, None)
        case ev.BumpNonce(request):
            return ev.NonceBumped(request, False)
        case ev.Cas(request):
            return ev.CasDone(request, Outcome.UNKNOWN)
    raise ValueError(f"{action} is no request to the arbiter")


def _tls(config: CoordinatorConfig) -> ssl.SSLContext | None:
    if config.ca is None:
        return None
    context = ssl.create_default_context(cafile=str(config.ca))
    if config.certificate is not None:
        context.load_cert_chain(config.certificate, config.key)
    return context


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _compare(key: str, revision: int) -> dict[str, str]:
    return {"key": _encode(key), "target": "MOD", "result": "EQUAL", "modRevision": str(revision)}


def _put(key: str, value: str) -> dict[str, Any]:
    return {"requestPut": {"key": _encode(key), "value": _encode(value)}}


def _leader_text(leader: Leader) -> str:
    fields = {"epoch": leader.epoch, "node": leader.node, "incarnation": leader.incarnation}
    return json.dumps({**fields, "failovers": list(leader.failovers)})


def _leader(facts: Mapping[str, Any]) -> Leader:
    failovers = tuple(int(at) for at in facts["failovers"])
    return Leader(int(facts["epoch"]), int(facts["node"]), int(facts["incarnation"]), failovers)
