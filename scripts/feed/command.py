"""`bullring feed watch|record|token|repair`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.marketdata.tokens import SUBSCRIBER_MAX, Entitlement, mint
from scripts.arguments import add_common, command_parser, config_of, emit_one
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.feed import record, watch
from scripts.feed.desk import read_key
from scripts.market_repair import repair
from scripts.node import engine_config

GRANTS = {
    "full": Entitlement.FULL | Entitlement.SNAPSHOTS | Entitlement.DEFINITIONS,
    "derived": Entitlement.DERIVED | Entitlement.SNAPSHOTS | Entitlement.DEFINITIONS,
    "all": Entitlement.ALL,
}
DAYS_MAX = 10_000


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("feed", "The binary market-data feed.")
    actions = parser.add_subparsers(dest="action", required=True)
    watching = actions.add_parser("watch", help="live ladder and tape of one pair")
    watch.add_arguments(watching)
    recording = actions.add_parser("record", help="channels into pcap or Parquet")
    record.add_arguments(recording)
    token = actions.add_parser("token", help="a login for a subscriber, checked by the feed without asking anybody")
    token.add_argument("subscriber", type=int, help=f"number of the subscriber, 0..{SUBSCRIBER_MAX}")
    token.add_argument("--grant", choices=sorted(GRANTS), default="all", help="what it opens (default %(default)s)")
    token.add_argument("--days", type=int, default=30, metavar="N", help="good for so many days (default %(default)s)")
    repairing = actions.add_parser("repair", help="make market data again that the archive lacks, from the journal")
    for action in (watching, recording, token, repairing):
        add_common(action, nested=True)
    options = parser.parse_args(arguments)
    config = config_of(options)
    if options.action == "token":
        return _token(options, config)
    if options.action == "repair":
        written = repair(config.journal_dir, engine_config(config))
        emit_one({"slots_written": written}, as_json=options.json)
        return ExitCode.OK
    work = watch.watch if options.action == "watch" else record.record
    return asyncio.run(_until_interrupted(work(options, config)))


def _token(options: argparse.Namespace, config: Config) -> int:
    if not 0 <= options.days <= DAYS_MAX:
        raise CommandError(f"--days {options.days}: must be 0..{DAYS_MAX}", ExitCode.USAGE)
    last_day = datetime.now(UTC).date() + timedelta(days=options.days)
    try:
        token = mint(
            read_key(config),
            subscriber=options.subscriber,
            entitlements=GRANTS[options.grant],
            last_day=last_day,
        )
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    facts = {"user": token.user, "password": token.password, "grant": options.grant, "last_day": str(last_day)}
    emit_one(facts, as_json=options.json)
    return ExitCode.OK


async def _until_interrupted(work: Coroutine[Any, Any, int]) -> int:
    """Run to the end, or until Ctrl-C or SIGTERM: then what was recorded is closed in order."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return int(await task)
    return ExitCode.OK
