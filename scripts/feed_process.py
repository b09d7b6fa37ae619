"""The market feed's process: publishes, keeps books, serves replay, snapshots and re-requests, follows the log for
definitions. Nobody on the order path knows of it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gateway.errors import ListenError
from gateway.marketdata.definitions import Definitions
from gateway.marketdata.feed import Destination, Feed, FeedConfig, Kind, generation_of
from journaler.reader import LogFollower
from ringbuf import StageStatus, sharpen_timers
from scripts.addresses import listen_error, numeric
from scripts.config import CHECKOUT, FEED_LISTENERS, Config, FeedSection, split_address
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import Node, feed_key
from scripts.placement import NOT_PINNED
from scripts.priority import step_back

if TYPE_CHECKING:
    from scripts.process import Process, Ready

KINDS = {"full": Kind.FULL, "derived": Kind.DERIVED, "definitions": Kind.DEFINITIONS, "all": Kind.ALL}
DEFINITION_BATCHES = 16  # of the log, between two turns of the stage
NS_PER_US = 1000


def run_feed(process: Process, ready: Ready) -> None:
    """Run until asked to stop."""
    node, rings, plan = process.node, process.rings, process.plan
    section = process.config.gateway.feed
    if plan.core == NOT_PINNED and section.nice:
        step_back(section.nice)
    sharpen_timers()
    try:
        feed = Feed(feed_config(node))
    except ListenError as error:  # of a destination: its interface is looked up then
        text = f"gateway.feed.line_a, line_b: cannot send to {error.filename} by interface_a, interface_b"
        raise CommandError(f"{text}: {error.strerror}", ExitCode.CONFIGURATION) from error
    feed.attach(rings.market)
    ports = listen(feed, node)
    definitions = Definitions(process.config.definitions_path(plan.name), feed.config.generation, feed.define)
    follower = LogFollower(rings.log, process.config.journal_dir, definitions.position)
    follow(definitions, follower, -1)
    feed.start()
    process.count("feed", feed.counters)
    process.count("channel", lambda: {str(number): feed.position(number).next - 1 for number in feed.channels})
    # Nothing rings for it: a publisher that had to wake this process would pay for it on the order path.
    bell = process.doorbell([], sockets=True)
    ready({"feed_ports": ports})
    process.serve(
        [feed.stage],
        bell,
        sockets=feed.fd if bell is not None else -1,
        sleep_ns=section.park_us * NS_PER_US,
        service=lambda: follow(definitions, follower, DEFINITION_BATCHES),
        cure=lambda status: cure(process, feed, status),
        quiet=Farewell(feed) if section.end_session_on_stop else None,
        on_stop=lambda: stop(feed, definitions),
    )


def follow(definitions: Definitions, follower: LogFollower, batches: int) -> None:
    """Take up to so many batches of the log; -1 = all there are."""
    while batches and (batch := follower.read()) is not None:
        definitions.apply(*batch)
        batches -= 1


def feed_config(node: Node) -> FeedConfig:
    """Return the feed's configuration from the node's."""
    section = node.config.gateway.feed
    return FeedConfig(
        partitions=node.engine.partitions,
        generation=generation_of(node.engine.cluster_id),
        instruments_max=node.engine.instruments_max,
        archive=node.config.journal_dir / "market",
        key=feed_key(node.config) if section.tokens else None,
        destinations=destinations(section),
        orders_expected=node.engine.orders_per_partition,
        reference_slots=max(1024, 1 << (4 * node.engine.instruments_max).bit_length()),
        **{
            name: getattr(section, name)
            for name in (
                "packet_bytes_max pack_delay_us heartbeat_ms definitions_ms derived_slots connections_max "
                "connections_per_user output_bytes rerequests_per_s snapshot_age_ms snapshot_bytes_max"
            ).split()
        },
    )


def destinations(section: FeedSection) -> list[Destination]:
    """Return where packets go."""
    found = []
    lines = ((section.line_a, section.interface_a), (section.line_b, section.interface_b))
    for line, (texts, interface) in enumerate(lines):
        for text in texts:
            kind, _, address = text.partition("@")
            host, port = split_address(address)
            key = f"gateway.feed.line_{'ab'[line]}"
            found.append(
                Destination(line, KINDS[kind], numeric(host, key), port, interface or None, section.multicast_ttl)
            )
    return found


def listen(feed: Feed, node: Node) -> dict[str, int]:
    """Listen on all three addresses; return the ports by key. Ports of an earlier start are kept."""
    ports = {}
    servers: Mapping[str, Callable[[str, int], int]] = {
        "listen_replay": feed.listen_replay,
        "listen_rerequest": feed.listen_rerequest,
        "listen_snapshot": feed.listen_snapshot,
    }
    for key in FEED_LISTENERS:
        host, port = split_address(getattr(node.config.gateway.feed, key))
        port = port or node.feed_ports.get(key, 0)
        try:
            ports[key] = servers[key](numeric(host, f"gateway.feed.{key}"), port)
        except ListenError as error:
            raise listen_error(error, f"{host}:{port}", f"gateway.feed.{key}") from error
    return ports


def cure(process: Process, feed: Feed, status: int) -> None:
    """Fill the hole that stopped the feed: market data that neither ring nor archive has, made again from the log."""
    hole = feed.hole
    if status != StageStatus.LAPPED or hole is None:
        raise CommandError(f"feed: {feed.error or 'the stage failed'} ({status})", ExitCode.INTERNAL)
    text = f"feed: slot {hole.first} of market ring {hole.partition} is missing; making it again from the journal"
    print(text, file=sys.stderr, flush=True)
    # In a process of its own: it needs an engine's memory for a moment.
    command = [sys.executable, "-m", "scripts.market_repair", str(process.config.run_dir)]
    done = subprocess.run(command, cwd=CHECKOUT, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise CommandError(f"{text}: that failed ({done.returncode})", ExitCode.IO_ERROR)


def stop(feed: Feed, definitions: Definitions) -> None:
    """Say goodbye."""
    definitions.save()
    feed.shutdown()


class Farewell:
    """Asked whether the stage may end, once it has nothing to do: first tells the end of all sessions, repeatedly."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._begun = False

    def __call__(self) -> bool:
        feed = self._feed
        if not self._begun:
            self._begun = True
            for channel in feed.channels:
                feed.end_session(feed.session(channel), feed.position(channel).next)
        return not feed.ending


def feed_addresses(config: Config, ports: Mapping[str, int]) -> dict[str, Any]:
    """Return the feed's addresses for people, by what is there."""
    return {
        key.removeprefix("listen_"): f"{split_address(getattr(config.gateway.feed, key))[0]}:{port}"
        for key, port in ports.items()
    }
