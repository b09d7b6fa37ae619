"""The market feed over WebSocket, in a process of its own: it reads the market rings like the feed does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import uvloop
from aiohttp import web

from gateway.marketdata.definitions import Definitions
from gateway.marketdata.feed import Feed, Kind
from gateway.marketdata.websocket import MarketWeb, WebConfig
from journaler.reader import LogFollower
from ringbuf import StageStatus
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_messages import InstrumentDefinition
from scripts.addresses import listen_error, numeric
from scripts.config import split_address
from scripts.exit_codes import CommandError, ExitCode
from scripts.feed_process import DEFINITION_BATCHES, feed_config, follow
from scripts.priority import step_back

if TYPE_CHECKING:
    from scripts.process import Process, Ready

HOUSEKEEPING_S = 0.1


def run_feed_web(process: Process, ready: Ready) -> None:
    """Run until asked to stop."""
    step_back(process.config.gateway.feed.nice)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(process, ready))


async def _serve(process: Process, ready: Ready) -> None:
    section, rings = process.config.gateway.feed, process.rings
    # A second feed: books of its own, no packets.
    feed = Feed(replace(feed_config(process.node), publish=Kind(0), destinations=()))
    feed.attach(rings.market)
    market = MarketWeb(feed, web_config(process, feed))

    def define(message: WireMessage) -> None:
        feed.define(message)
        if isinstance(message, InstrumentDefinition):
            market.streams.define(message)

    definitions = Definitions(process.config.definitions_path(process.plan.name), feed.config.generation, define)
    follower = LogFollower(rings.log, process.config.journal_dir, definitions.position)
    follow(definitions, follower, -1)
    feed.start()
    process.count("web", market.counters)
    application = web.Application()
    application.add_routes(market.routes())
    server = web.AppRunner(application, access_log=None)
    await server.setup()
    port = await _listen(server, section.listen_web, process.node.feed_ports.get("listen_web", 0))
    ready({"feed_ports": {"listen_web": port}})
    try:
        house = _keep_house(process, market, lambda: follow(definitions, follower, DEFINITION_BATCHES))
        tasks = {asyncio.create_task(market.run(_stalled(feed))), asyncio.create_task(house)}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        definitions.save()
        await server.cleanup()


def web_config(process: Process, feed: Feed) -> WebConfig:
    """Return the limits of WebSocket connections."""
    section = process.config.gateway.feed
    return WebConfig(
        key=feed.config.key,
        connections_max=section.connections_max,
        connections_per_user=section.connections_per_user,
        queue_bytes=max(section.output_bytes, 65536),
        heartbeat_s=section.heartbeat_ms / 1000,
        poll_s=section.park_us / 1e6,
    )


async def _listen(server: web.AppRunner, address: str, port_before: int) -> int:
    host, port = split_address(address)
    site = web.TCPSite(server, numeric(host, "gateway.feed.listen_web"), port or port_before)
    try:
        await site.start()
    except OSError as error:
        raise listen_error(error, address, "gateway.feed.listen_web") from error
    return int(server.addresses[0][1])


async def _keep_house(process: Process, market: MarketWeb, follow_log: Callable[[], None]) -> None:
    while not process.stopping:
        process.check_parent()
        process.write_counters()
        follow_log()
        await asyncio.sleep(HOUSEKEEPING_S)
    await market.stop()
    process.write_counters()


def _stalled(feed: Feed) -> Callable[[int], None]:
    def stalled(status: int) -> None:
        # A hole: the feed's own process comes to it as well, and makes it again.
        if status != StageStatus.LAPPED:
            raise CommandError(f"feed-web: {feed.error or 'the stage failed'} ({status})", ExitCode.INTERNAL)

    return stalled
