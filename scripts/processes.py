"""The processes of a node: build the objects of one kind, attach the rings, recover, run, stop cleanly.

Started by the supervisor as `python -m scripts.processes RUN_DIR NAME READY_FD [rejoin]`; with "rejoin" it takes the
place of one that died while the others live on (scripts/rejoin.py). A process writes one JSON line to READY_FD:
{"ready": true, ...} when it takes part, or {"error": sentence, "exit_code": n}. SIGTERM asks it to end. It also ends
when its supervisor has gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from struct import Struct
from typing import Any

from engine import EngineError, Matcher, Sequencer, SequencerCounter
from gateway.admin import admin_config, admin_server
from gateway.binary.server import BinaryServer, ServerConfig
from gateway.binary.tls import TlsConfig
from gateway.errors import ListenError
from journaler import Journaler, JournalerConfig, JournalError
from ringbuf import (
    Doorbell,
    Histogram,
    Lapped,
    ProducerBusy,
    Ring,
    RingbufError,
    Watch,
)
from ringbuf.wire import messages as wire
from scripts.addresses import listen_error, numeric
from scripts.config import split_address
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import (
    ADMIN_SOURCE,
    GATEWAY_SOURCE,
    INGRESS_HISTOGRAM,
    JOURNALER,
    SLOT_SIZE,
    SYNC_HISTOGRAM,
    Node,
    NodeRings,
    seal_key,
)
from scripts.placement import Kind
from scripts.priority import raise_priority
from scripts.process import IDLE_RUN_NS, STANDSTILL_S, Process, Ready
from scripts.rejoin import REJOIN, MatcherRejoin, WorkingOn, rejoin_sequencer
from scripts.role import FollowerRole
from scripts.sandbox import program_paths, read_only
from scripts.snapshots.files import SnapshotError
from scripts.storage import disk_full_text
from scripts.tls import RelayProcess

# How long the journaler may sleep in D0, where nobody waits for it: a small part of what the log ring holds.
BEHIND_NS = 5_000_000
# How long the archives may wait for more to write; the ring holds what they do not have yet.
ARCHIVE_LAG_US = 2000
SAMPLE_SLOTS = 256
# How long the admin gateway may sleep while matchers report to others: a part of what their rings hold.
ADMIN_SLEEP_NS = 5_000_000
INGRESS_NS_OFFSET, TS_NS_OFFSET = 24, 112
U64 = Struct("<Q")
BACK_RECORDS = 4096  # behind the log at most, to be no longer away


class LatencySample:
    """Records how long the newest requests waited between gateway and sequencer: read from the log, not measured there.

    A sample: at most SAMPLE_SLOTS records each time, the newest ones.
    """

    def __init__(self, log: Ring, histogram: Histogram) -> None:
        self._log = log
        self._histogram = histogram
        self._seen = log.published

    def __call__(self) -> Mapping[str, int]:
        published = self._log.published
        first = max(self._seen, published - SAMPLE_SLOTS)
        self._seen = published
        if first < published:
            with contextlib.suppress(Lapped):
                self._record(self._log.read(first, published - first))
        return {}

    def _record(self, slots: bytes) -> None:
        for offset in range(0, len(slots), SLOT_SIZE):
            (ingress_ns,) = U64.unpack_from(slots, offset + INGRESS_NS_OFFSET)
            (ts_ns,) = U64.unpack_from(slots, offset + TS_NS_OFFSET)
            if ingress_ns:
                self._histogram.record(ts_ns - ingress_ns)


class SyncTimes:
    """Copies the journaler's own histogram of write and sync times; its buckets are powers of two."""

    def __init__(self, journaler: Journaler, histogram: Histogram) -> None:
        self._journaler = journaler
        self._histogram = histogram
        self._seen: list[int] = []

    def __call__(self) -> Mapping[str, int]:
        buckets = self._journaler.stats()["sync_buckets"]
        for exponent, count in enumerate(buckets):
            for _ in range(count - (self._seen[exponent] if self._seen else 0)):
                # The middle of the bucket: 2^i..2^(i+1) ns.
                self._histogram.record(3 << exponent >> 1)
        self._seen = list(buckets)
        return {}


def run_journaler(process: Process, ready: Ready) -> None:
    config, rings = process.config, process.rings
    settings = JournalerConfig(
        directory=config.journal_dir,
        mode="D0" if config.node.mode == "D0" else "D1",
        **dataclasses.asdict(config.journal),
        archive_lag_us=ARCHIVE_LAG_US,
        cluster=process.node.engine.cluster_id,
        node=config.node.node_id,
        schema_hash=wire.SCHEMA_HASH,
    )
    journaler = Journaler(settings, rings.log, rings.reports, rings.market)
    # Waking a sleeper on another core costs the order path ten microseconds and more, so it wakes us only for what
    # somebody waits for: records to sync. The archive, and all of D0, is written some milliseconds later.
    awaited = [(rings.log, Watch.PUBLISHED)] if config.node.mode != "D0" else []
    bell = process.doorbell(awaited)

    def numbers() -> dict[str, int]:
        return {name: value for name, value in journaler.stats().items() if isinstance(value, int)}

    def written() -> bool:
        return journaler.position.sequence == rings.log.published

    def archived() -> bool:
        places = ((ring.consumer(JOURNALER), ring.published) for ring in rings.reports.values())
        reports = all(place.cursor == published for place, published in places if place.gating)
        return written() and reports and journaler.market_archived

    # After the journaler has started its helper thread, which prepares files and must not run ahead of anybody.
    priority = raise_priority(process.config.placement.priority_journaler)
    process.count("journaler", lambda: numbers() | {"realtime_priority": priority})
    process.count("sync", SyncTimes(journaler, process.counters.histogram(SYNC_HISTOGRAM)))
    ready({})
    try:
        # Nothing but time says when a lazy record must be written: while one may wait, no sleep may be longer than it
        # may wait. When everything is written there is none, and only a bell can bring one.
        sleep_ns = journaler.idle_timeout_ns if awaited else BEHIND_NS
        process.serve([journaler.stage], bell, sleep_ns=sleep_ns, quiet=written, idle=archived)
    except CommandError:
        if journaler.stats()["halted"] == 0:
            raise
        # No segment could be prepared and the last one is full (J9).
        raise CommandError(disk_full_text(config.journal_dir), ExitCode.IO_ERROR) from None
    finally:
        journaler.close()


def _build_sequencer(process: Process) -> Sequencer:
    rings = process.rings
    if process.rejoins:
        sequencer = rejoin_sequencer(process.config, process.node.engine, rings, process.check_parent)
    else:
        # A follower is not the producer of its log: the replicator is, until this node leads.
        own = (
            (rings.reports[0], rings.reply)
            if process.node.commit is not None
            else (rings.log, rings.reports[0], rings.reply)
        )
        for ring in own:
            ring.lock_producer()
        sequencer = Sequencer(process.node.engine)
        process.load(sequencer, [])
        sequencer.attach(
            log=rings.log,
            report0=rings.reports[0],
            reply=rings.reply,
            reports={partition: ring for partition, ring in rings.reports.items() if partition},
            ingress=rings.ingress,
        )
    process.count("sequencer", lambda: {which.name.lower(): sequencer.counter(which) for which in SequencerCounter})
    process.count("latency", LatencySample(rings.log, process.counters.histogram(INGRESS_HISTOGRAM)))
    return sequencer


def _build_matchers(process: Process) -> list[Matcher]:
    rings = process.rings
    if process.rejoins:
        return _rejoin_matchers(process)
    matchers = []
    for partition in process.plan.partitions:
        rings.reports[partition].lock_producer()
        rings.market[partition].lock_producer()
        matcher = Matcher(process.node.engine, partition)
        process.load(None, [matcher])
        matcher.attach(log=rings.log, reports=rings.reports[partition], market=rings.market[partition])
        matchers.append(matcher)
    return matchers


def _rejoin_matchers(process: Process) -> list[Matcher]:
    """Bring the matchers of this process back; only then do their pairs take orders again."""
    working = WorkingOn(process.config.run_dir, process.plan.name)

    def wait() -> None:
        process.check_parent()
        time.sleep(STANDSTILL_S)

    found = []
    for partition in process.plan.partitions:
        rejoin = MatcherRejoin(process.config, process.node.engine, process.rings, partition, wait)
        rejoin.run(working)
        far = f"from {rejoin.began_at} to {rejoin.matcher.position}, {rejoin.compared} outputs compared"
        print(f"{process.plan.name}: partition {partition} is back: {far}", file=sys.stderr, flush=True)
        found.append(rejoin.matcher)
    working.done()
    for partition in process.plan.partitions:
        process.rings.reports[partition].set_away(False)
    return found


def _build_gateway(process: Process) -> tuple[BinaryServer, int]:
    """Return the listening server and its port."""
    node, binary = process.node, process.config.gateway.binary
    archive = process.config.journal_dir / "reports" if process.config.journal.archive else None
    settings = ServerConfig(
        source=GATEWAY_SOURCE,
        partitions=node.engine.partitions,
        sessions_max=node.engine.sessions_max,
        connections_max=binary.connections_max,
        logon_deadline_ms=binary.logon_timeout_ms,
        throttle_count=binary.throttle_count,
        account_throttle_count=binary.account_throttle_count,
        throttle_interval_ms=binary.throttle_interval_ms,
        busy_poll_us=binary.busy_poll_us,
        open_orders_max=node.engine.open_orders_per_account_max,
        archive=archive,
    )
    server = BinaryServer(settings, seal_key=seal_key(process.config))
    _attach_server(process, server, GATEWAY_SOURCE)
    try:
        port = server.listen_tcp(numeric(binary.host, "gateway.binary.listen"), node.binary_port)
    except ListenError as error:
        raise listen_error(error, node.binary_address, "gateway.binary.listen") from error
    process.count("gateway", server.counters)
    if binary.tls_listen:
        _start_tls(process, port)
    return server, port


def _start_tls(process: Process, port: int) -> None:
    binary = process.config.gateway.binary
    host, tls_port = split_address(binary.tls_listen)
    config = TlsConfig(
        host=numeric(host, "gateway.binary.tls_listen"),
        port=tls_port,
        certificate=Path(binary.tls_certificate),
        key=Path(binary.tls_key),
        target_host=numeric(binary.host, "gateway.binary.listen"),
        target_port=port,
        connections_max=binary.connections_max,
    )
    process.at_end(RelayProcess(config).close)


def _build_admin(process: Process) -> BinaryServer:
    engine = process.node.engine
    server = admin_server(admin_config(partitions=engine.partitions, sessions_max=engine.sessions_max))
    _attach_server(process, server, ADMIN_SOURCE)
    path = process.config.admin_socket
    try:
        server.listen_unix(path)
    except ListenError as error:
        raise listen_error(error, str(path), "gateway.admin.socket") from error
    process.count("admin", server.counters)
    return server


def _attach_server(process: Process, server: BinaryServer, source: int) -> None:
    rings = process.rings
    rings.ingress[source].lock_producer()
    server.attach(
        ingress=rings.ingress[source],
        log=rings.log,
        reports=[rings.reports[partition] for partition in sorted(rings.reports)],
        reply=rings.reply,
    )


def run_fused(process: Process, ready: Ready) -> None:
    """Both gateways, sequencer and all matchers: the whole order path in one loop."""
    rings = process.rings
    sequencer, matchers = _build_sequencer(process), _build_matchers(process)
    process.recover([*matchers, sequencer])
    (server, port), admin = _build_gateway(process), _build_admin(process)
    role = _begin(process, sequencer, matchers, [server, admin])
    # Our own publishing needs no bell: only what the journaler moves can end our waiting.
    watched = [(rings.log, Watch.COMMIT), (rings.log, Watch.CURSORS)]
    watched += [(ring, Watch.CURSORS) for ring in rings.reports.values()]
    bell = process.doorbell(watched, sockets=True)
    stages = [server.stage, admin.stage, sequencer.stage, *(matcher.stage for matcher in matchers)]
    ready({"port": port})
    process.serve(
        stages,
        bell,
        sockets=_sockets(bell, server, admin),
        service=_both(server.service, role),
        lapped={2: sequencer} | {3 + index: matcher for index, matcher in enumerate(matchers)},
        quiet=lambda: _all_answered(rings),
        on_stop=lambda: _shut(server, admin),
    )


def run_sequencer(process: Process, ready: Ready) -> None:
    rings = process.rings
    sequencer = _build_sequencer(process)
    role = None
    if not process.rejoins:
        process.recover([sequencer])
        role = _begin(process, sequencer, [], [])
    watched = [(rings.log, Watch.COMMIT), (rings.log, Watch.CURSORS)]
    watched += [(ring, Watch.PUBLISHED) for ring in (*rings.ingress.values(), *rings.reports.values())]
    ready({})
    process.serve(
        [sequencer.stage],
        process.doorbell(watched),
        service=role,
        lapped={0: sequencer},
        quiet=lambda: _all_answered(rings),
    )


def run_matcher(process: Process, ready: Ready) -> None:
    rings = process.rings
    matchers = _build_matchers(process)
    if not process.rejoins:
        process.recover(matchers)
    watched = [(rings.log, Watch.PUBLISHED if process.config.node.mode == "D0" else Watch.COMMIT)]
    watched += [(rings.reports[partition], Watch.CURSORS) for partition in process.plan.partitions]
    role = _follow(process, None, matchers, [])
    ready({})
    process.serve(
        [matcher.stage for matcher in matchers],
        process.doorbell(watched),
        service=_both(lambda: _say_back(rings, matchers), role),
        lapped=dict(enumerate(matchers)),
        quiet=lambda: all(matcher.position == rings.log.visible for matcher in matchers),
    )


def _say_back(rings: NodeRings, matchers: Sequence[Matcher]) -> None:
    """Taken for stuck, and not: our pairs are taken again as soon as we are near the end of the log."""
    for matcher in matchers:
        ring = rings.reports[matcher.partition]
        if ring.away and rings.log.visible - matcher.position < BACK_RECORDS:
            ring.set_away(False)


def run_gateway(process: Process, ready: Ready) -> None:
    server, port = _build_gateway(process)
    _serve_gateway(process, ready, server, GATEWAY_SOURCE, {"port": port}, process.rings.reports)


def run_admin(process: Process, ready: Ready) -> None:
    # No matcher wakes it for the reports of orders, which are none of its business: it passes them by on its own time.
    awaited = {0: process.rings.reports[0]}
    _serve_gateway(process, ready, _build_admin(process), ADMIN_SOURCE, {}, awaited, sleep_ns=ADMIN_SLEEP_NS)


def _serve_gateway(
    process: Process,
    ready: Ready,
    server: BinaryServer,
    source: int,
    facts: Mapping[str, Any],
    awaited: Mapping[int, Ring],
    *,
    sleep_ns: int = IDLE_RUN_NS,
) -> None:
    rings = process.rings
    watched = [(ring, Watch.PUBLISHED) for ring in (*awaited.values(), rings.reply)]
    bell = process.doorbell([*watched, (rings.ingress[source], Watch.CURSORS)], sockets=True)
    role = _follow(process, None, [], [server])
    read_only([*program_paths(), process.config.journal_dir / "reports"])
    ready(facts)
    process.serve(
        [server.stage],
        bell,
        sockets=_sockets(bell, server),
        sleep_ns=sleep_ns,
        service=_both(server.service, role),
        on_stop=lambda: _shut(server),
    )


def _begin(
    process: Process, sequencer: Sequencer, matchers: Sequence[Matcher], servers: Sequence[BinaryServer]
) -> Callable[[], object] | None:
    """Lead at once, or, on a replicated node, follow until the replicator says otherwise."""
    role = _follow(process, sequencer, matchers, servers)
    if role is None:
        sequencer.lead(epoch=process.node.epoch, node=process.config.node.node_id)
    return role


def _follow(
    process: Process, sequencer: Sequencer | None, matchers: Sequence[Matcher], servers: Sequence[BinaryServer]
) -> Callable[[], object] | None:
    if process.node.commit is None:
        return None
    role = FollowerRole(process.node, process.rings, sequencer, matchers, servers)
    process.at_end(role.close)
    return role


def _both(first: Callable[[], object], second: Callable[[], object] | None) -> Callable[[], object]:
    if second is None:
        return first

    def both() -> None:
        first()
        second()

    return both


def _sockets(bell: Doorbell | None, *servers: BinaryServer) -> int:
    """Return a descriptor that is readable when any server has something to do, -1 for a process that never sleeps."""
    if bell is None:
        return -1
    if len(servers) == 1:
        return servers[0].fd
    both = select.epoll()
    for server in servers:
        both.register(server.fd, select.EPOLLIN)
    # Kept open for the life of the process.
    return os.dup(both.fileno())


def _shut(*servers: BinaryServer) -> None:
    for server in servers:
        server.shutdown()


def _all_answered(rings: NodeRings) -> bool:
    """Every record durable, every report settled: nothing is lost if the sequencer ends here."""
    settled = all(ring.consumer(1).cursor == ring.published for number, ring in rings.reports.items() if number)
    return settled and rings.log.visible == rings.log.published


def run_ledger(process: Process, ready: Ready) -> None:
    # Late: what the ledger needs is large, and no other process needs it.
    from scripts.ledger import process as ledger

    ledger.run_ledger(process, ready)


def _run_history(process: Process, ready: Ready) -> None:
    from scripts import web  # its libraries take time and memory that no other process should spend

    web.run_history(process, ready)


def _run_web(process: Process, ready: Ready) -> None:
    from scripts import web

    web.run_web(process, ready)


def _run_feed(process: Process, ready: Ready) -> None:
    # Late, as the next one: what only observers need, nobody who comes back under load should have to load.
    from scripts.feed_process import run_feed

    run_feed(process, ready)


def _run_feed_web(process: Process, ready: Ready) -> None:
    from scripts.feed_web import run_feed_web

    run_feed_web(process, ready)


KINDS: dict[Kind, Callable[[Process, Ready], None]] = {
    Kind.JOURNALER: run_journaler,
    Kind.SEQUENCER: run_sequencer,
    Kind.MATCHER: run_matcher,
    Kind.GATEWAY: run_gateway,
    Kind.ADMIN: run_admin,
    Kind.FUSED: run_fused,
    Kind.HISTORY: _run_history,
    Kind.WEB: _run_web,
    Kind.FEED: _run_feed,
    Kind.FEED_WEB: _run_feed_web,
    Kind.LEDGER: run_ledger,
}


def main(arguments: Sequence[str]) -> int:
    run_dir, name, ready_fd = Path(arguments[0]), arguments[1], int(arguments[2])
    rejoins = arguments[3:] == [REJOIN]

    def tell(facts: Mapping[str, Any]) -> None:
        os.write(ready_fd, json.dumps(facts).encode() + b"\n")
        os.close(ready_fd)

    def ready(facts: Mapping[str, Any]) -> None:
        tell({"ready": True, **facts})
        told.append(True)

    told: list[bool] = []
    try:
        node = Node.load(run_dir)
        plan = next(plan for plan in node.plans if plan.name == name)
        with ExitStack() as stack:
            KINDS[plan.kind](Process(node, plan, stack, rejoins=rejoins), ready)
        return ExitCode.OK
    except (CommandError, RingbufError, EngineError, JournalError, SnapshotError, OSError, ValueError) as error:
        code = _exit_code(error)
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if not told:
            tell({"error": str(error), "exit_code": int(code)})
        return code


def _exit_code(error: Exception) -> ExitCode:
    match error:
        case CommandError():
            return error.code
        case ProducerBusy():
            return ExitCode.BUSY
        case JournalError() | OSError():
            return ExitCode.IO_ERROR
        case _:
            return ExitCode.INTERNAL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
