"""`bullring run`: the exchange of a configuration, in the foreground, until asked to stop."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scripts.arguments import command_parser, config_of, duration_s, progress
from scripts.cluster_supervisor import ClusterSupervisor
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.feed_process import feed_addresses
from scripts.node import Node
from scripts.notify import ServiceManager
from scripts.supervisor import Supervisor

# Called once the exchange is ready; what it returns is called again and again while the exchange runs, and last of
# all with True when it stops.
OnReady = Callable[[Supervisor], Callable[[bool], None] | None]


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("run", "Run the exchange until Ctrl-C or SIGTERM.")
    parser.add_argument("--seconds", type=duration_s, metavar="N", help="end by itself after this time")
    options = parser.parse_args(arguments)
    config = config_of(options)

    def on_ready(supervisor: Supervisor) -> None:
        assert supervisor.node is not None
        announce(supervisor.node, as_json=options.json)

    return serve(config, seconds=options.seconds, as_json=options.json, on_ready=on_ready)


def announce(node: Node, *, as_json: bool) -> None:
    feed = feed_addresses(node.config, node.feed_ports)
    facts = {
        "event": "ready",
        "binary_gateway": node.binary_address,
        "feed": feed,
        "admin_socket": str(node.config.admin_socket),
        "data": str(node.config.data_dir),
        "mode": node.config.node.mode,
        "epoch": node.epoch,
        "log_position": node.log_end,
        "web": node.web_urls(),
    }
    if as_json:
        print(json.dumps(facts), flush=True)
    else:
        print(f"ready: binary gateway {facts['binary_gateway']}, admin socket {facts['admin_socket']}", flush=True)
        if feed:
            text = ", ".join(f"{name} {address}" for name, address in feed.items())
            print(f"market feed: {text}", flush=True)


def serve(config: Config, *, seconds: float | None, as_json: bool, on_ready: OnReady) -> int:
    """Run a node until SIGINT, SIGTERM or the time is over. Raises CommandError when it cannot go on."""

    def say(text: str) -> None:
        if as_json:
            print(json.dumps({"event": "note", "text": text}), flush=True)
        else:
            progress(text)

    def on_state(facts: Mapping[str, Any]) -> None:
        if as_json:
            print(json.dumps({"event": "state", **facts}), flush=True)
        else:
            sync = ", standby in sync" if facts["in_sync"] else ""
            sync += ", hot" if facts["hot"] else ""
            progress(f"{facts['state']}, epoch {facts['epoch']}{sync}")

    manager = ServiceManager()
    supervisor = ClusterSupervisor(config, say, on_state) if config.replicated else Supervisor(config, say)
    supervisor.on_recovery = manager.busy
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.request_stop())
    try:
        supervisor.start()
    except CommandError as error:
        if error.code is ExitCode.INTERRUPTED:
            return ExitCode.OK
        raise
    beside: Callable[[bool], None] | None = None
    try:
        manager.ready(f"{config.node.name} on {config.data_dir}")
        end = None if seconds is None else time.monotonic() + seconds
        beside = on_ready(supervisor)
        while supervisor.step():
            manager.alive()
            if beside is not None:
                beside(False)
            if end is not None and time.monotonic() >= end:
                break
    finally:
        manager.stopping()
        if beside is not None:
            beside(True)
        supervisor.stop()
    if as_json:
        print(json.dumps({"event": "stopped"}), flush=True)
    else:
        progress("stopped")
    return ExitCode.OK
