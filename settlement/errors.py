"""What can go wrong in the settlement package."""

from __future__ import annotations


class SettlementError(Exception):
    """Base of everything this package raises on purpose."""


class DerivationHalted(SettlementError):
    """A record or report cannot be booked: not understood, or not consistent with what was before it."""

    def __init__(self, reason: str, *, position: int) -> None:
        super().__init__(reason)
        self.position = position  # the record that could not be booked


class StoreError(SettlementError):
    """The store did not do what it was asked; whether it did a part is not known."""


class StoreUnavailable(StoreError):
    """It may work later: no connection, no space, no memory, too busy."""


class StoreRefused(StoreError):
    """It will not work before somebody changes something: another schema, another exchange's books, no permission."""


class BooksDiffer(SettlementError):
    """What the store holds does not fit the log: it belongs to another log, or is ahead of it."""


class LogTrimmed(SettlementError):
    """The log's files begin later than where it is needed from."""


class SourceNotReady(SettlementError):
    """Reports that a mark in the log names cannot be read yet."""
