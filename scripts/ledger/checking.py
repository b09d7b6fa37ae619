"""`bullring ledger reconcile` and `order-records`: what goes through the whole journal."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing

from journaler import LogReader
from scripts.arguments import emit, emit_one
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.ledger.asking import RunningBooks, StoredBooks, books_of, command_error
from scripts.ledger.show import period
from scripts.ledger.store import file_source, from_beginning
from settlement.errors import SettlementError
from settlement.order_records import OrderRecords, Window, write_order_records
from settlement.reconcile import compare, compare_engine, first_wrong_record, recount
from settlement.service import Row, ServiceClient, ServiceError

BAR_WIDTH = 30
PROGRESS_S = 0.5


class Progress:
    """A bar on standard error where that is a terminal, a line now and then where not."""

    def __init__(self, what: str, end: int) -> None:
        self._what, self._end = what, end
        self._began = self._said = time.monotonic()
        self._pause_s = PROGRESS_S if sys.stderr.isatty() else 20 * PROGRESS_S

    def __call__(self, position: int) -> None:
        now = time.monotonic()
        if now - self._said < self._pause_s and position < self._end:
            return
        self._said = now
        done = position / self._end if self._end else 1.0
        rate = position / max(now - self._began, 1e-9)
        filled = round(done * BAR_WIDTH)
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        line = f"{self._what} [{bar}] {position} of {self._end} records, {rate:,.0f}/s"
        end = "\r" if sys.stderr.isatty() and position < self._end else "\n"
        print(line, file=sys.stderr, end=end, flush=True)


def reconcile(config: Config, options: argparse.Namespace) -> int:
    """Exit 1 if anything differs."""
    rows: list[Row] = []
    with books_of(config) as books:
        if isinstance(books, RunningBooks):
            rows += books.call("reconcile")
        position = int(next(books.call("status"))["stored"])
        if options.recount or not books.running:
            rows.append(_recount(config, books, position))
        if options.exchange:
            rows.append(_exchange(config, position))
    emit(rows, as_json=options.json)
    return ExitCode.OK if all(row["differences"] == 0 for row in rows) else ExitCode.NEGATIVE


def order_records(config: Config, options: argparse.Namespace) -> int:
    """Write the file; print its statement of completeness. Exit 1 if what it has is not sound."""
    given = period(options)
    window = Window(start_ns=given.get("start_ns", 0), end_ns=given.get("end_ns"), pair=options.pair or "")
    end = _durable_end(config)
    try:
        source = file_source(config)
        records = OrderRecords(
            source, window, end=end, insurance_account=config.ledger.insurance_account, venue=options.mic
        )
        with closing(source):
            statement = write_order_records(options.path.absolute(), records, Progress("order records", end))
    except SettlementError as error:
        raise command_error(error) from error
    except LookupError as error:
        raise CommandError(str(error), ExitCode.BAD_INPUT) from error
    except OSError as error:
        raise CommandError(str(error), ExitCode.CANNOT_CREATE) from error
    emit_one(statement, as_json=options.json)
    return ExitCode.OK if statement["complete"] else ExitCode.NEGATIVE


def _durable_end(config: Config) -> int:
    """Return how far the journal may be read: of a running exchange as far as the books are, which is durable."""
    try:
        client = ServiceClient(config.ledger_socket)
    except OSError:
        return LogReader(config.journal_dir).end
    try:
        return int(next(client.call("status"))["stored"])
    except ServiceError as error:
        raise CommandError(str(error), ExitCode.UNAVAILABLE) from error
    finally:
        client.close()


def _recount(config: Config, books: RunningBooks | StoredBooks, position: int) -> Row:
    try:
        derivation, source = from_beginning(config, position)
        start, began = derivation.position, time.monotonic()
        with closing(source):
            again = recount(derivation, source, position, progress=Progress("recount", position))
    except SettlementError as error:
        raise command_error(error) from error
    if again.position < position:
        raise CommandError(
            f"the books end at record {position}, the journal at {again.position}: they are of another log, or the "
            "journal lost records",
            ExitCode.NEGATIVE,
        )
    seconds = time.monotonic() - began
    stored = {
        (row["book"], row["account"], row["asset"]): (row["available"], row["held"])
        for row in books.call("balances", at=position)
    }
    result = compare("recount", position, again.balances().as_dict(), stored)
    row = dict(result.as_row())
    row["from_record"] = start
    row["records_per_s"] = round((position - start) / max(seconds, 1e-9))
    row["marks_compared"] = again.counts().marks_compared
    row["marks_differing"] = again.counts().marks_differing
    if result.differences and isinstance(books, StoredBooks):
        derivation, source = from_beginning(config, position)
        with closing(source):
            key = result.differences[0].key
            row["first_difference"] = first_wrong_record(books.store, derivation, source, key, position)
    return row


def _exchange(config: Config, position: int) -> Row:
    try:
        result = compare_engine(
            lambda: file_source(config),
            position,
            insurance_account=config.ledger.insurance_account,
            progress=Progress("exchange", position),
        )
    except SettlementError as error:
        raise command_error(error) from error
    return result.as_row()
