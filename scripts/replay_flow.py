"""`bullring replay-flow DIR`: recorded order flow through the binary gateway, every result compared."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.clients import LogonRefused
from scripts.admin.link import AdminLink
from scripts.arguments import command_parser, config_of, progress
from scripts.exit_codes import CommandError, ExitCode
from scripts.flow.comparison import DIFFERENCES_SHOWN, Comparison
from scripts.flow.recording import RESTING, TAKING, load, unsupported
from scripts.flow.replay import RESTING_SESSIONS, replay
from scripts.node import Node


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("replay-flow", "Send recorded order flow and compare what the exchange makes of it.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a recorded set: commands, trades, checkpoints")
    parser.add_argument("--address", metavar="HOST:PORT", help="binary gateway (default: the running exchange's)")
    options = parser.parse_args(arguments)
    config = config_of(options)

    recording = load(options.directory)
    needed = unsupported(recording)
    if needed:
        raise CommandError(
            f"{recording.name} needs what this exchange cannot do yet ({'; '.join(needed)}): nothing was compared",
            ExitCode.NOT_SUPPORTED,
        )
    node = Node.load(config.run_dir)
    comparison = Comparison(recording)
    began = time.monotonic()
    address = _address(options.address, node)
    with AdminLink.open(config) as link:
        try:
            asyncio.run(replay(node, address, recording, comparison, link))
        except (OSError, LogonRefused, TimeoutError) as error:
            text = f"the binary gateway at {address[0]}:{address[1]} did not carry on: {type(error).__name__} {error}"
            raise CommandError(text, ExitCode.UNAVAILABLE) from error
    passed = comparison.conclude()
    _report(comparison, passed, time.monotonic() - began, as_json=options.json)
    return ExitCode.OK if passed else ExitCode.NEGATIVE


def _address(text: str | None, node: Node) -> tuple[str, int]:
    host, _, port = (text or node.binary_address).rpartition(":")
    if not port.isdigit():
        raise CommandError(f"--address {text}: must be HOST:PORT", ExitCode.USAGE)
    return host.strip("[]"), int(port)


def _report(comparison: Comparison, passed: bool, seconds: float, *, as_json: bool) -> None:
    recording = comparison.recording
    facts = {
        "set": recording.name,
        "verdict": "pass" if passed else "fail",
        "commands": len(recording.commands),
        "connections": RESTING_SESSIONS - 1 + len({RESTING, TAKING} | set(recording.owners().values())),
        "trades": len(comparison.trades()),
        "trades_recorded": len(recording.trades),
        "checkpoints": comparison.checkpoints_seen,
        "checkpoints_recorded": len(recording.checkpoints),
        "checkpoints_bad": comparison.checkpoints_bad,
        "post_only_rejects": comparison.post_only_rejects,
        "auction_orders_filled": len(comparison.auction_fills),
        "self_matches_prevented": len(comparison.self_matches_prevented),
        "self_match_cancels_sent": len(comparison.self_matches_sent),
        "seconds": round(seconds, 2),
        "commands_per_s": round(len(recording.commands) / seconds),
        "differences": len(comparison.differences),
        "first_differences": comparison.differences[:DIFFERENCES_SHOWN],
    }
    if as_json:
        print(json.dumps(facts))
        return
    for text in comparison.differences[:DIFFERENCES_SHOWN]:
        progress(f"  {text}")
    print(
        f"{'PASS' if passed else 'FAIL'}: {recording.name}: {facts['commands']} commands over {facts['connections']} "
        f"connections in {facts['seconds']} s, {facts['trades']} of {facts['trades_recorded']} trades in order with "
        f"maker, taker, price and quantity, {facts['checkpoints']} checkpoints ({facts['checkpoints_bad']} bad), "
        f"{facts['post_only_rejects']} post-only rejects, "
        f"{facts['auction_orders_filled']} orders filled by the auction, "
        f"{facts['self_matches_prevented']} self-matches prevented, {facts['differences']} differences"
    )
