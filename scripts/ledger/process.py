"""The ledger's process: follows the committed log into the store, compares, answers questions. Nobody waits for it.

Whatever is wrong with the store, the process lives on, says so in run_dir/ledger.json, its counters and its log, and
tries again.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from journaler.cursors import store_cursor
from ringbuf.wire import messages as wire
from scripts.admin.link import AdminLink
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.ledger.store import LateStore, from_beginning, make_images, make_owner, make_replication, make_store
from scripts.ledger.watchdog import Watchdog
from scripts.node import LEDGER_FACTS_FILE
from scripts.priority import step_back
from settlement.answers import answers
from settlement.bookkeeper import Bookkeeper, BookkeeperConfig
from settlement.consumer import Consumer, ConsumerConfig
from settlement.errors import StoreUnavailable
from settlement.images import Images
from settlement.ledger import Ledger
from settlement.reader import Reader
from settlement.service import Handler, Row, Service
from settlement.source import LiveSource

if TYPE_CHECKING:
    from scripts.process import Process

CONSUMER = "ledger"
IDLE_S = 0.02
FACTS_S = 0.5
STOP_SHARE = 0.7  # of the time the supervisor gives for stopping; what is not stored by then is derived again
_NUMBERS = (
    "derived", "stored", "lag", "blocks", "retries", "postings", "trades", "open_orders", "marks_compared",
    "marks_differing",
)  # fmt: skip


def run_ledger(process: Process, ready: Callable[[Mapping[str, Any]], None]) -> None:
    """Run until asked to stop, then store what is still to be stored."""
    config = process.config
    step_back(config.ledger.nice)
    ready({})
    with ExitStack() as stack:
        LedgerLoop(process, stack).run()


class LedgerLoop:
    """The objects of a running ledger, and their loop."""

    def __init__(self, process: Process, stack: ExitStack) -> None:
        self._process = process
        self._config = config = process.config
        self._ended = threading.Event()
        self._said = ""
        images = make_images(config)
        self._allow_trim(images.needed_from)
        store = LateStore(lambda: make_store(config), f"{config.ledger.store} store of {config.data_dir}")
        stack.callback(store.close)
        self._consumer = _consumer(process, store, images, self._allow_trim, self._ended)
        stack.callback(self._consumer.stop)
        stack.callback(self._ended.set)
        ledger = config.ledger
        self._keeper = Bookkeeper(
            self._consumer,
            store,
            BookkeeperConfig(
                reconcile_s=ledger.reconcile_s,
                reconcile_rows_max=ledger.reconcile_rows_max,
            ),
            from_beginning=lambda: from_beginning(config, self._consumer.status.stored),
            clock_ns=time.time_ns,
            on_difference=self._alarm,
        )
        reader = Reader(store, lambda: self._consumer.status.stored)
        asked = answers(reader, self._facts)
        opened = {name: handler if name == "status" else self._when_opened(handler) for name, handler in asked.items()}
        stack.callback(_service(config, opened | self._commands()).close)
        self._beat = time.monotonic()
        Watchdog(
            {"the writer": lambda: self._consumer.busy_ns() / 1e9, "the loop": lambda: time.monotonic() - self._beat},
            ledger.stall_s if ledger.store == "chdb" else 0,
            _end_at_once,
            wait=self._ended.wait,
        )
        process.count("ledger", lambda: {name: self._facts()[name] for name in _NUMBERS})

    def run(self) -> None:
        process, due = self._process, 0.0
        while not process.stopping:
            self._beat = time.monotonic()
            if not self._keeper.step():
                time.sleep(IDLE_S)
            if time.monotonic() >= due:
                due = time.monotonic() + FACTS_S
                self._tell()
        # What was committed until now is stored if the store keeps up; what is not will be derived again.
        deadline = time.monotonic() + STOP_SHARE * self._config.supervisor.stop_timeout_s
        while time.monotonic() < deadline and not self._consumer.status.trouble:
            if not self._keeper.step():
                if self._consumer.status.derived == process.rings.log.visible:
                    break
                time.sleep(IDLE_S)
        self._consumer.flush()
        self._tell()

    def _allow_trim(self, sequence: int) -> None:
        """Tell the journal which record is the first that a start may need."""
        store_cursor(self._config.journal_dir, CONSUMER, sequence)

    def _when_opened(self, handler: Handler) -> Handler:
        def answer(**given: Any) -> Iterable[Row]:
            if not self._consumer.opened:
                raise StoreUnavailable("the ledger is opening its books: ask again in a few seconds")
            return handler(**given)

        return answer

    def _commands(self) -> dict[str, Handler]:
        return {"reconcile": lambda: [self._keeper.reconcile_soon().as_row()]}

    def _facts(self) -> dict[str, Any]:
        found = dict(self._keeper.facts())
        found["log_end"] = self._process.rings.log.visible
        found["lag"] = max(0, found["log_end"] - found["stored"])
        return found

    def _tell(self) -> None:
        self._process.check_parent()
        self._process.write_gauges()
        facts = self._facts()
        path = self._config.run_dir / LEDGER_FACTS_FILE
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(facts))
        draft.rename(path)
        if facts["trouble"] != self._said:
            self._said = facts["trouble"]
            _log(self._said or "the ledger is well again")

    def _alarm(self, sentence: str) -> None:
        _log(f"ALARM: {sentence}")
        if self._config.ledger.on_difference == "cancel-only":
            try:
                stop_trading(self._config)
            except CommandError as error:
                _log(f"the pairs could not be put into CancelOnly: {error}")


def _consumer(
    process: Process, store: LateStore, images: Images, kept: Callable[[int], None], ended: threading.Event
) -> Consumer:
    config, rings = process.config, process.rings
    ledger = config.ledger
    return Consumer(
        lambda start: LiveSource(rings.log, rings.reports, config.journal_dir, start),
        Ledger(store, make_owner(), time.time_ns, make_replication(config)),
        ConsumerConfig(
            block_rows=ledger.block_rows,
            flush_ms=ledger.flush_ms,
            retry_ms=ledger.retry_ms,
            insurance_account=ledger.insurance_account,
            image_records=ledger.image_records,
        ),
        clock_ns=time.time_ns,
        wait=ended.wait,
        images=images,
        on_image=kept,
    )


def _service(config: Config, handlers: Mapping[str, Handler]) -> Service:
    try:
        return Service(config.ledger_socket, handlers)
    except OSError as error:
        raise CommandError(
            f"cannot listen on {config.ledger_socket} (ledger.socket): {error.strerror}", ExitCode.CANNOT_CREATE
        ) from error


def stop_trading(config: Config) -> None:
    """Put every pair that is open into CancelOnly. Raises CommandError."""
    with AdminLink.open(config) as link:
        for reply in link.instruments().values():
            if reply.state in (wire.MarketState.PRE_OPEN, wire.MarketState.AUCTION, wire.MarketState.CONTINUOUS):
                change = wire.InstrumentState(instrument_id=reply.instrument_id, state=wire.MarketState.CANCEL_ONLY)
                link.command(change, f"CancelOnly for {reply.symbol}")


def _end_at_once(sentence: str) -> None:
    """The thread that hangs cannot be ended, so nothing is tidied up."""
    _log(f"{sentence}: this process ends, to be started again")
    os._exit(ExitCode.IO_ERROR)


def _log(sentence: str) -> None:
    print(f"ledger: {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} {sentence}", file=sys.stderr, flush=True)
