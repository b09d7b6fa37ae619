"""The web gateway's processes: private history, and the workers with a session of their own to the core each."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop

from gateway.clients import Signer, load_signer
from gateway.marketdata.feed import Feed, Kind
from gateway.web.app import WebGateway
from gateway.web.config import LimitsConfig, WebConfig
from gateway.web.core_link import CoreLink, InputReader
from gateway.web.history_server import HistoryConfig, HistoryServer
from gateway.web.streams.live import LiveMarket
from journaler.reader import ReportArchive
from ringbuf import StageStatus, Watch
from ringbuf.wire import messages as wire
from scripts.admin.account import create_account
from scripts.admin.key import create_ed25519_key
from scripts.admin.link import AdminLink
from scripts.admin.session import create_session
from scripts.config import HISTORY_SOCKET, Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.feed_process import cure, feed_config
from scripts.node import seal_key
from scripts.operator_view import operator_sources
from scripts.process import HOUSEKEEPING_S, Process, Ready

SHARED_FILE = "web-shared"
SESSIONS_FILE = "sessions.json"
IDLE_S = 0.05
YOUNG = 1  # generation of the garbage collector: what was made since its last look
TOKEN_LENGTH_MIN = 16
PERMISSIONS = wire.Permissions.READ | wire.Permissions.TRADE | wire.Permissions.ADMIN


def run_history(process: Process, ready: Ready) -> None:
    config, rings = process.config, process.rings
    watched = [(ring, Watch.PUBLISHED) for ring in rings.reports.values()]
    bell = process.doorbell([*watched, (rings.log, Watch.COMMIT)], sockets=True)
    assert bell is not None  # this process always parks
    web = config.gateway.web
    server = HistoryServer(
        HistoryConfig(
            store_path=config.web_dir / "history.db",
            journal_dir=config.journal_dir,
            socket_path=config.run_dir / HISTORY_SOCKET,
            cluster=process.node.engine.cluster_id,
            log_end=process.node.log_end,
            events_max=web.events_max,
            ended_orders_days=web.ended_orders_days,
            trades_days=web.trades_days,
        ),
        log=rings.log,
        reports=rings.reports,
        doorbell=bell,
    )
    process.count("history", lambda: {"commits": server.commits, "reports": server.reports, "lag": server.lag})
    ready({})
    due = 0.0
    # What is kept is open orders, which hold nothing in circles. Left alone, the collector looks through all of them
    # again and again, a quarter of this process's time; once a second it looks at what is new.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        while not (process.stopping and server.caught_up()):
            server.step(IDLE_S)
            if time.monotonic() >= due:
                due = time.monotonic() + HOUSEKEEPING_S
                gc.collect(YOUNG)
                process.check_parent()
                process.write_counters()
    finally:
        server.close()


def run_web(process: Process, ready: Ready) -> None:
    uvloop.run(_serve(process, ready))


def check_certificate(certificate: str, key: str) -> None:
    """Raise CommandError unless both are there and belong together."""
    name = f"gateway.web.tls_certificate = {certificate!r}, tls_key = {key!r}"
    for path in (certificate, key):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise CommandError(f"{name}: cannot read {path}: {error.strerror}", ExitCode.CONFIGURATION) from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        text = f"{name}: no certificate in PEM form and the key that belongs to it"
        raise CommandError(f"{text} ({error.strerror})", ExitCode.CONFIGURATION) from error


async def _serve(process: Process, ready: Ready) -> None:
    node, config = process.node, process.config
    if config.gateway.web.tls_certificate:
        check_certificate(config.gateway.web.tls_certificate, config.gateway.web.tls_key)
    number = int(process.plan.name.rpartition("-")[2])
    config.web_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    archive = ReportArchive(config.journal_dir)
    core = CoreLink(
        [(config.gateway.binary.host, node.binary_port)],
        credentials=lambda: asyncio.to_thread(credentials, config, number),
        partitions=node.engine.partitions,
    )
    inputs = InputReader(process.rings.reports, archive)
    gateway = WebGateway(
        web_config(process, number), core=core, inputs=inputs, live=live_market(process, number),
        operator=operator_sources(config),
    )  # fmt: skip
    # A node that follows another one cannot bind a session before it leads; it answers 503 until then.
    await gateway.start(wait_for_core=not config.replicated)
    process.count("web", gateway.numbers)
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    ready({})
    while not stopped.is_set():
        process.check_parent()
        process.write_counters()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HOUSEKEEPING_S):
                await stopped.wait()
    await gateway.stop()
    archive.close()


def web_config(process: Process, number: int) -> WebConfig:
    node, config = process.node, process.config
    web = config.gateway.web
    return WebConfig(
        host=web.host,
        port=node.web_port,
        number=number,
        workers=web.workers,
        tls_certificate=Path(web.tls_certificate) if web.tls_certificate else None,
        tls_key=Path(web.tls_key) if web.tls_key else None,
        store_path=config.web_dir / "history.db",
        history_socket=config.run_dir / HISTORY_SOCKET,
        shared_path=config.run_dir / SHARED_FILE,
        keys_path=config.web_dir / "rsa",
        limits=LimitsConfig(
            weight_per_minute=web.weight_per_minute,
            requests_per_5_minutes=web.requests_per_5_minutes,
            orders_per_10_seconds=web.orders_per_10_seconds,
            orders_per_day=web.orders_per_day,
            ban_first_s=web.ban_first_s,
        ),
        listen_keys=web.listen_keys,
        body_bytes_max=web.body_bytes_max,
        connections_max=web.connections_max,
        operator_token=operator_token(web.operator_token_file),
        stream_attempts=web.stream_attempts,
        stream_messages_per_s=web.stream_messages_per_s,
        streams_max=web.streams_max,
        stream_queue_bytes=web.stream_queue_bytes,
        open_orders_max=node.engine.open_orders_per_account_max,
        hash_seed=node.engine.hash_seed,
        seal_key=seal_key(config),
    )


def operator_token(path: str) -> str:
    """Return the token in the file. Raises CommandError when there is none."""
    if not path:
        return ""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        text = f"gateway.web.operator_token_file = {path!r}: {error.strerror}"
        raise CommandError(text, ExitCode.CONFIGURATION) from error
    if len(token) < TOKEN_LENGTH_MIN:
        text = f"gateway.web.operator_token_file: a token must have at least {TOKEN_LENGTH_MIN} characters"
        raise CommandError(text, ExitCode.CONFIGURATION)
    return token


def live_market(process: Process, number: int) -> LiveMarket:
    """Return books of this worker's own, made from the market rings and their archive."""
    slots = process.config.gateway.web.derived_slots
    feed = Feed(replace(feed_config(process.node), publish=Kind(0), destinations=(), derived_slots=slots))
    feed.attach(process.rings.market)
    feed.start()
    repairs = Repairs(process, feed, number)
    return LiveMarket(feed, repairs.stalled)


class Repairs:
    """What to do when market data is missing: the first worker has it made again, the others wait for that."""

    def __init__(self, process: Process, feed: Feed, number: int) -> None:
        self._process, self._feed, self._number = process, feed, number
        self._task: asyncio.Task[None] | None = None

    def stalled(self, status: int) -> None:
        """Take the status of a feed that cannot go on."""
        if status != StageStatus.LAPPED:
            raise CommandError(f"web: {self._feed.error or 'the feed failed'} ({status})", ExitCode.INTERNAL)
        if self._number == 0 and (self._task is None or self._task.done()):
            cure_it = asyncio.to_thread(cure, self._process, self._feed, status)
            self._task = asyncio.get_running_loop().create_task(cure_it)


# --- sessions of the workers ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerSession:
    """A privileged session and its key; no other worker uses either: a key's logons must come in order of time."""

    account: int
    session: int
    key_id: str
    key_file: str


def credentials(config: Config, number: int) -> tuple[int, Signer] | None:
    """Return session and key of a worker; None while the exchange does not take administration commands."""
    try:
        own = worker_session(config, number)
    except CommandError as error:
        print(f"web-{number}: no session yet: {error}", file=sys.stderr, flush=True)
        return None
    return own.session, load_signer(Path(own.key_file))


def worker_session(config: Config, number: int) -> WorkerSession:
    """Return this worker's session, made at its first start."""
    path = config.web_dir / SESSIONS_FILE
    with _locked(config.web_dir / "lock"), AdminLink.open(config) as link:
        known = json.loads(path.read_text()) if path.is_file() else {}
        accounts = {reply.account_id for reply in link.accounts()}
        own = known.get(str(number))
        if own is not None and own["account"] in accounts and Path(own["key_file"]).is_file():
            return WorkerSession(**own)
        account = next((entry["account"] for entry in known.values() if entry["account"] in accounts), 0)
        account = account or create_account(link)
        key_id, key_file = create_ed25519_key(link, config, account, PERMISSIONS)
        made = WorkerSession(account, create_session(link, account, wire.SessionKind.PRIVILEGED), key_id, str(key_file))
        known[str(number)] = asdict(made)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(known, indent=1))
        temporary.rename(path)
        return made


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
