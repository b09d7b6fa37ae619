"""`bullring cluster`: keys, state, switchover, and what an operator decides when the nodes must not."""

from __future__ import annotations

import argparse
import json
import socket
import time
from collections.abc import Sequence
from typing import Any

from replicator.coordinator import Etcd
from replicator.errors import ReplicatorError
from replicator.transport import PUBLIC_FILE, SECRET_FILE, KeyPair
from scripts.arguments import add_common, config_of, emit, emit_one, progress
from scripts.config import REPLICATOR_SOCKET, Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.replica_process import coordinator_config

ANSWER_MAX = 65536
POLL_S = 0.02
WAIT_S = 30.0
ORDERS = {
    "switchover": "the standby leads from now on; no request is refused",
    "promote": "make the other node's standby the leader although it may lack records (say where with --config/--data)",
    "bootstrap": "the arbiter knows no leader: make this node's log the cluster's",
}


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bullring cluster", description="A node that is one of two.")
    commands = parser.add_subparsers(dest="command", required=True)
    keys = commands.add_parser("keys", help="make this node's key pair for the link; print the public key")
    status = commands.add_parser("status", help="what the arbiter and the nodes say")
    for nested in (keys, status):
        add_common(nested)
    for name, text in ORDERS.items():
        order = commands.add_parser(name, help=text)
        add_common(order)
        order.add_argument("--no-wait", action="store_true", help="do not wait until it is done")
    options = parser.parse_args(arguments)
    config = config_of(options)
    if options.command == "keys":
        return _keys(config, as_json=options.json)
    if not config.replicated:
        raise CommandError("this node is alone: replication.peer is empty", ExitCode.CONFIGURATION)
    if options.command == "status":
        return _status(config, as_json=options.json)
    return _order(config, options.command, wait=not options.no_wait, as_json=options.json)


def _keys(config: Config, *, as_json: bool) -> int:
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (config.data_dir / SECRET_FILE).exists():
        KeyPair.make().save(config.data_dir)
    try:
        public = KeyPair.load(config.data_dir / SECRET_FILE).public
    except ReplicatorError as error:
        raise CommandError(str(error), ExitCode.BAD_INPUT) from error
    emit_one({"public_key": public, "file": str(config.data_dir / PUBLIC_FILE)}, as_json=as_json)
    return ExitCode.OK


def ask(config: Config, message: dict[str, Any]) -> dict[str, Any]:
    """Send one line to this node's replicator and return its answer. Raises CommandError if none runs."""
    path = config.run_dir / REPLICATOR_SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(WAIT_S)
            link.connect(str(path))
            link.sendall(json.dumps(message).encode() + b"\n")
            answer: dict[str, Any] = json.loads(link.makefile("rb").readline(ANSWER_MAX) or b"{}")
            return answer
    except (OSError, ValueError) as error:
        raise CommandError(f"no replicator answers at {path}: {error}", ExitCode.UNAVAILABLE) from error


def _status(config: Config, *, as_json: bool) -> int:
    etcd = Etcd(coordinator_config(config))
    try:
        view, nodes = etcd.view(), etcd.nodes()
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"the arbiter does not answer: {error}", ExitCode.UNAVAILABLE) from error
    finally:
        etcd.close()
    leader = view.leader
    facts = {
        "leader": leader.node if leader else None,
        "epoch": leader.epoch if leader else None,
        "in_sync": ", ".join(str(node) for node, _ in sorted(view.members)),
        "floor": view.floor.sequence if view.floor else None,
        "failovers_last_hour": sum(time.time() - at < 3600 for at in leader.failovers) if leader else 0,
    }
    rows = [{"node": node, **said} for node, said in sorted(nodes.items())]
    if as_json:
        emit([facts | {"nodes": rows}], as_json=True)
    else:
        emit_one(facts, as_json=False)
        emit(rows, as_json=False, empty="no node says anything")
    return ExitCode.OK if leader is not None else ExitCode.NEGATIVE


def _order(config: Config, order: str, *, wait: bool, as_json: bool) -> int:
    before = ask(config, {})
    if order == "switchover" and before.get("state") != "primary":
        raise CommandError(f"switchover: this node is {before.get('state')}; ask the primary", ExitCode.NEGATIVE)
    if order != "switchover" and before.get("state") == "primary":
        raise CommandError(f"{order}: this node leads already, epoch {before.get('epoch')}", ExitCode.NEGATIVE)
    ask(config, {"order": order})
    wanted = ("standby", "catchup", "verify") if order == "switchover" else ("primary",)
    deadline = time.monotonic() + WAIT_S
    now = before
    while wait and not (now.get("state") in wanted and now.get("epoch", 0) > before.get("epoch", 0)):
        if time.monotonic() > deadline:
            still = f"{now.get('state')} in epoch {now.get('epoch')}"
            raise CommandError(f"{order}: still {still} after {WAIT_S:g} s", ExitCode.NEGATIVE)
        time.sleep(POLL_S)
        now = ask(config, {})
    emit_one({"order": order, "state": now.get("state"), "epoch": now.get("epoch")}, as_json=as_json)
    if not wait:
        progress("not waited for: see `bullring cluster status`")
    return ExitCode.OK
