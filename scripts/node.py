"""What one running node is made of: names, rings and what the supervisor tells every process (run_dir/node.json)."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from engine import EngineConfig, Places
from journaler import LogReader
from ringbuf import Doorbells, Mode, Ring, remove_segment, segments_under
from ringbuf.wire import messages as wire
from scripts.config import Config, from_tables
from scripts.exit_codes import CommandError, ExitCode
from scripts.placement import Kind, ProcessPlan

SLOT_SIZE = 128
MARKET_SLOT_SIZE = 64
BLOCK_OFFSET = 32
TEMPLATE_OFFSET = 6
ADMIN_SOURCE = 1
GATEWAY_SOURCE = 2
SOURCES = (ADMIN_SOURCE, GATEWAY_SOURCE)
JOURNALER, SEQUENCER = 0, 1  # places of the gating consumers of report rings
NODE_FILE = "node.json"
LEDGER_FACTS_FILE = "ledger.json"  # what the ledger's process says of itself
SEAL_KEY_BYTES = 32
# Names of histograms in the counter files, in nanoseconds.
INGRESS_HISTOGRAM = "ingress_to_log_ns"
SYNC_HISTOGRAM = "write_and_sync_ns"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One start of the exchange. `log_end`: first sequence that is not in the journal's files yet.

    `commit`: of a replicated node, which starts as a follower: up to where its log is known to be committed.
    `snapshot`: folder of the snapshot that owners load, "" for none; `places`: where outputs go on then.
    """

    config: Config
    plans: tuple[ProcessPlan, ...]
    log_end: int
    epoch: int
    engine: EngineConfig
    binary_port: int = 0
    web_port: int = 0
    feed_ports: Mapping[str, int] = field(default_factory=dict)  # by key of [gateway.feed]
    commit: int | None = None
    snapshot: str = ""
    places: Places = field(default_factory=Places)
    quarantined: tuple[int, ...] | None = None  # behind the snapshot; None: owners look for them themselves

    def save(self) -> None:
        """Write node.json, whole or not at all."""
        path = self.config.run_dir / NODE_FILE
        temporary = path.with_suffix(".new")
        engine = {name: getattr(self.engine, name) for name in EngineConfig.__dataclass_fields__}
        plans = [{name: getattr(plan, name) for name in ProcessPlan.__dataclass_fields__} for plan in self.plans]
        facts = {
            "config": self.config.as_tables(),
            "plans": plans,
            "log_end": self.log_end,
            "epoch": self.epoch,
            "engine": engine,
            "binary_port": self.binary_port,
            "web_port": self.web_port,
            "feed_ports": dict(self.feed_ports),
            "commit": self.commit,
            "snapshot": self.snapshot,
            "quarantined": self.quarantined,
            "places": {"settled": dict(self.places.settled), "market": dict(self.places.market)},
        }
        temporary.write_text(json.dumps(facts))
        temporary.rename(path)

    @classmethod
    def load(cls, run_dir: Path) -> Node:
        """Read node.json. Raises CommandError when no exchange has been started there."""
        try:
            facts: dict[str, Any] = json.loads((run_dir / NODE_FILE).read_text())
        except FileNotFoundError:
            raise CommandError(
                f"no exchange runs with {run_dir}; start one with ./scripts/run or `bullring run`", ExitCode.UNAVAILABLE
            ) from None
        return cls(
            config=from_tables(facts["config"]),
            plans=tuple(_plan(plan) for plan in facts["plans"]),
            log_end=facts["log_end"],
            epoch=facts["epoch"],
            engine=EngineConfig(**facts["engine"]),
            binary_port=facts["binary_port"],
            web_port=facts["web_port"],
            feed_ports=facts["feed_ports"],
            commit=facts["commit"],
            snapshot=facts["snapshot"],
            quarantined=None if facts["quarantined"] is None else tuple(facts["quarantined"]),
            places=Places(**{name: _numbered(table) for name, table in facts["places"].items()}),
        )

    @property
    def recovered_end(self) -> int:
        """Up to where owners apply the log before they take part: a follower not beyond what is committed."""
        return self.log_end if self.commit is None else self.commit

    @property
    def binary_address(self) -> str:
        return _address(self.config.gateway.binary.host, self.binary_port)

    @property
    def web_address(self) -> str:
        return _address(self.config.gateway.web.host, self.web_port)

    def web_urls(self) -> dict[str, str]:
        """Return every address of the web gateway; empty without one."""
        if self.config.gateway.web.workers == 0:
            return {}
        secure = "s" if self.config.gateway.web.tls_certificate else ""
        http, socket = f"http{secure}://{self.web_address}", f"ws{secure}://{self.web_address}"
        return {
            "page": f"{http}/",
            "rest": f"{http}/api/v3",
            "sapi": f"{http}/sapi/v1",
            "ws_api": f"{socket}/ws-api/v3",
            "streams": f"{socket}/ws",
            "combined_streams": f"{socket}/stream",
            "openapi": f"{http}/openapi.json",
            "metrics": f"{http}/metrics",
            "health": f"{http}/health",
        }


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _plan(facts: dict[str, Any]) -> ProcessPlan:
    return ProcessPlan(**facts | {"kind": Kind(facts["kind"]), "partitions": tuple(facts["partitions"])})


def _numbered(table: Mapping[str, int]) -> dict[int, int]:
    return {int(number): value for number, value in table.items()}


def counter_path(config: Config, process_name: str) -> Path:
    return config.counters_dir / f"{process_name}.counters"


def engine_config(config: Config) -> EngineConfig:
    """Return the engine's capacities: those of the log's Genesis, or of the configuration for a new log.

    Raises JournalError when retention has deleted the log's beginning: then a snapshot has them.
    """
    genesis = read_genesis(config.journal_dir)
    if genesis is None:
        capacities = config.capacities
        return EngineConfig(
            partitions=config.placement.partitions,
            orders_per_partition=capacities.orders_per_partition,
            accounts_max=capacities.accounts,
            balances_max=capacities.balances,
            sessions_max=capacities.sessions,
            instruments_max=capacities.instruments,
            keys_max=capacities.keys,
            assets_max=capacities.assets,
            open_orders_per_account_max=capacities.open_orders_per_account,
            cluster_id=config.replication.cluster if config.replicated else secrets.randbits(63) or 1,
            hash_seed=secrets.randbits(64),
        )
    return EngineConfig.of_genesis(genesis)


def read_genesis(directory: Path) -> wire.Genesis | None:
    """Return the first record of the log, None if the log is empty."""
    if not directory.is_dir():
        return None
    for first, records in LogReader(directory).batches(0):
        template = int.from_bytes(records[TEMPLATE_OFFSET : TEMPLATE_OFFSET + 2], "little")
        if first != 0 or template != wire.Template.GENESIS:
            raise CommandError(f"{directory} does not begin with a Genesis record", ExitCode.BAD_INPUT)
        return wire.Genesis.unpack(records, BLOCK_OFFSET)
    return None


def seal_key(config: Config) -> bytes:
    """Return the key HMAC secrets follow from, made at the first start."""
    return _key(config.seal_key_path)


def feed_key(config: Config) -> bytes:
    """Return the key that tokens of the market feed are made with, made at the first start."""
    return _key(config.feed_key_path)


def _key(path: Path) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SEAL_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    return path.read_bytes()


class NodeRings:
    """All rings of a node. The supervisor creates them and removes their names; everybody else attaches."""

    def __init__(
        self,
        stack: ExitStack,
        doorbells: Doorbells,
        log: Ring,
        reply: Ring,
        reports: Mapping[int, Ring],
        market: Mapping[int, Ring],
        ingress: Mapping[int, Ring],
    ) -> None:
        self._stack = stack
        self.doorbells = doorbells
        self.log = log
        self.reply = reply
        self.reports = reports
        self.market = market
        self.ingress = ingress

    @classmethod
    def create(cls, node: Node) -> Self:
        """Make every ring empty: the log goes on where the files end, outputs where the snapshot was taken."""
        remove_all(node.config)
        config = node.config
        sizes = config.rings
        prefix = config.node.ring_prefix
        mode = Mode.D0 if config.node.mode == "D0" else Mode.DURABLE
        # Without an archive nobody but the sequencer waits for reports.
        archiver = {JOURNALER: "journaler"} if config.journal.archive else {}
        with ExitStack() as stack:
            doorbells = stack.enter_context(Doorbells.create(f"{prefix}.doorbells", run_dir=config.run_dir))

            def ring(
                name: str, slots: int, gating: dict[int, str], slot_size: int = SLOT_SIZE, *, base: int = 0
            ) -> Ring:
                return stack.enter_context(
                    Ring.create(
                        f"{prefix}.{name}",
                        slot_size=slot_size,
                        slot_count=slots,
                        base=base,
                        mode=mode if name == "log" else Mode.PLAIN,
                        schema_hash=wire.SCHEMA_HASH,
                        epoch=node.epoch,
                        gating=gating,
                        commit=node.commit if name == "log" else None,
                        run_dir=config.run_dir,
                        doorbells=doorbells,
                    )
                )

            made = cls(
                stack=ExitStack(),
                doorbells=doorbells,
                log=ring("log", sizes.log_slots, {JOURNALER: "journaler"}, base=node.log_end),
                reply=ring("reply", sizes.reply_slots, {}),
                reports={
                    partition: ring(
                        f"report.{partition}",
                        sizes.report_slots,
                        archiver | ({SEQUENCER: "sequencer"} if partition else {}),
                        base=node.places.settled.get(partition, 0),
                    )
                    for partition in range(node.engine.partitions + 1)
                },
                market={
                    partition: ring(
                        f"market.{partition}",
                        sizes.market_slots,
                        {},
                        MARKET_SLOT_SIZE,
                        base=node.places.market.get(partition, 0),
                    )
                    for partition in range(1, node.engine.partitions + 1)
                },
                ingress={
                    source: ring(f"ingress.{source}", sizes.ingress_slots, {0: "sequencer"}) for source in SOURCES
                },
            )
            # Only now, with all of them made: until here a failure closes what there is.
            made._stack = stack.pop_all()
            return made

    @classmethod
    def attach(cls, node: Node, *, writable: bool = True, read_only: frozenset[str] = frozenset()) -> Self:
        """Map the rings of a running node. Not writable: a tool that must not disturb it.

        `read_only`: names of rings that are mapped for reading although the others are not.
        """
        config = node.config
        prefix = config.node.ring_prefix
        with ExitStack() as stack:
            doorbells = stack.enter_context(Doorbells.attach(f"{prefix}.doorbells", run_dir=config.run_dir))

            def ring(name: str, slot_size: int = SLOT_SIZE) -> Ring:
                return stack.enter_context(
                    Ring.attach(
                        f"{prefix}.{name}",
                        slot_size=slot_size,
                        schema_hash=wire.SCHEMA_HASH,
                        writable=writable and name not in read_only,
                        run_dir=config.run_dir,
                        doorbells=doorbells if writable and name not in read_only else None,
                    )
                )

            made = cls(
                stack=ExitStack(),
                doorbells=doorbells,
                log=ring("log"),
                reply=ring("reply"),
                reports={partition: ring(f"report.{partition}") for partition in range(node.engine.partitions + 1)},
                market={
                    partition: ring(f"market.{partition}", MARKET_SLOT_SIZE)
                    for partition in range(1, node.engine.partitions + 1)
                },
                ingress={source: ring(f"ingress.{source}") for source in SOURCES},
            )
            # Only now, with all of them made: until here a failure closes what there is.
            made._stack = stack.pop_all()
            return made

    def all(self) -> Mapping[str, Ring]:
        """Return every ring by its name in the picture of DESIGN section 2."""
        return {
            **{f"ingress.{source}": ring for source, ring in self.ingress.items()},
            "log": self.log,
            **{f"report.{partition}": ring for partition, ring in self.reports.items()},
            "reply": self.reply,
            **{f"market.{partition}": ring for partition, ring in self.market.items()},
        }

    def close(self) -> None:
        self._stack.close()


def remove_all(config: Config) -> None:
    """Remove what a killed node left in shared memory; nobody of this node may run."""
    for name in list(segments_under(f"{config.node.ring_prefix}.")):
        remove_segment(name)
