"""`bullring ship`: copy the log to another place as it grows, for the day when both nodes are lost."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from journaler import JournalError
from journaler.shipping import Shipped, Shipper
from scripts.arguments import command_parser, config_of, progress
from scripts.exit_codes import CommandError, ExitCode
from scripts.notify import ServiceManager

JOURNAL = "journal"
EVERY_S = 10.0


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("ship", "Copy the log to another site's storage as it grows.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a folder on the other site's storage")
    parser.add_argument("--every", type=float, default=EVERY_S, metavar="S", help=f"seconds; {EVERY_S} by default")
    parser.add_argument("--once", action="store_true", help="copy what there is, then end")
    options = parser.parse_args(arguments)
    if options.every <= 0:
        raise CommandError(f"--every {options.every}: must be more than 0 seconds", ExitCode.USAGE)
    source = config_of(options).journal_dir
    if not source.is_dir():
        raise CommandError(f"there is no journal at {source}", ExitCode.NO_INPUT)
    try:
        shipper = Shipper(source, options.to / JOURNAL)
    except OSError as error:
        raise CommandError(f"cannot write to {options.to}: {error.strerror}", ExitCode.CANNOT_CREATE) from error
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    manager = ServiceManager()
    manager.ready(f"copying {source} to {options.to}")
    while True:
        began = time.monotonic()
        shipped = _ship(shipper)
        _tell(shipped, time.monotonic() - began, as_json=options.json)
        if options.once or stop.is_set():
            break
        manager.alive()
        if shipped is not None:
            manager.status(f"the copy holds the log below {shipped.sequence}")
        stop.wait(max(0.0, began + options.every - time.monotonic()))
    return ExitCode.OK


def _ship(shipper: Shipper) -> Shipped | None:
    try:
        return shipper.ship()
    except JournalError as error:
        raise CommandError(str(error), ExitCode.BAD_INPUT) from error
    except OSError as error:
        raise CommandError(f"shipping failed: {error}", ExitCode.IO_ERROR) from error


def _tell(shipped: Shipped | None, seconds: float, *, as_json: bool) -> None:
    if shipped is None:
        return
    if shipped.put_aside is not None:
        progress(f"the node has cut off what it had not committed; the copy of it was put aside: {shipped.put_aside}")
    if as_json:
        facts = {"sequence": shipped.sequence, "epoch": shipped.epoch, "bytes": shipped.copied_bytes}
        print(json.dumps({"event": "shipped", **facts, "seconds": round(seconds, 3)}), flush=True)
