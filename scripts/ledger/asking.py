"""Asking the books: the ledger's process if it runs, else the store itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.ledger.store import make_store
from settlement.answers import answers
from settlement.errors import SettlementError, StoreUnavailable
from settlement.ledger import stored_position
from settlement.reader import Reader
from settlement.service import Row, ServiceClient, ServiceError
from settlement.store import Store


class Books(Protocol):
    """Whoever answers. `running`: a ledger's process does."""

    @property
    def running(self) -> bool: ...

    def call(self, name: str, **arguments: Any) -> Iterator[Row]: ...


class RunningBooks:
    running = True

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def call(self, name: str, **arguments: Any) -> Iterator[Row]:
        """Raises CommandError."""
        try:
            yield from self._client.call(name, **arguments)
        except ServiceError as error:
            raise CommandError(str(error), _CODES[error.kind]) from error
        except OSError as error:
            raise CommandError(f"the ledger does not answer: {error}", ExitCode.UNAVAILABLE) from error


class StoredBooks:
    running = False

    def __init__(self, store: Store) -> None:
        self.store = store
        position = stored_position(store)
        status = {"state": "stopped", "stored": position, "trouble": ""}
        self._handlers = answers(Reader(store, lambda: position), lambda: status)

    def call(self, name: str, **arguments: Any) -> Iterator[Row]:
        """Raises CommandError."""
        try:
            yield from self._handlers[name](**arguments)
        except (ValueError, LookupError) as error:
            raise CommandError(str(error), ExitCode.BAD_INPUT) from error
        except OSError as error:
            raise CommandError(str(error), ExitCode.CANNOT_CREATE) from error
        except SettlementError as error:
            raise command_error(error) from error


_CODES = {"request": ExitCode.BAD_INPUT, "unavailable": ExitCode.UNAVAILABLE, "refused": ExitCode.REFUSED}


def command_error(error: SettlementError) -> CommandError:
    code = ExitCode.UNAVAILABLE if isinstance(error, StoreUnavailable) else ExitCode.IO_ERROR
    return CommandError(str(error), code)


@contextmanager
def books_of(config: Config) -> Iterator[RunningBooks | StoredBooks]:
    """Reach the books. Raises CommandError when there are none, or somebody else has the store."""
    try:
        client = ServiceClient(config.ledger_socket)
    except OSError:
        client = None
    if client is not None:
        try:
            yield RunningBooks(client)
        finally:
            client.close()
        return
    if config.ledger.store == "chdb" and not config.ledger_dir.is_dir():
        raise CommandError(
            f"there are no books in {config.ledger_dir}; the exchange makes them while it runs (ledger.enabled)",
            ExitCode.NO_INPUT,
        )
    try:
        store = make_store(config)
    except SettlementError as error:
        raise command_error(error) from error
    try:
        yield StoredBooks(store)
    except SettlementError as error:
        raise command_error(error) from error
    finally:
        store.close()
