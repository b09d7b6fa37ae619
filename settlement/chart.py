"""The chart of accounts: which books there are, what a posting says it is for, how an account is called.

A ledger account is (book, account, asset). Amounts are whole units of the asset, credit positive; docs/LEDGER.md says
how each posting arises. The numbers are those of settlement/books.h and stand in every row of the store.
"""

from enum import IntEnum

from settlement._ledger import lib


class Book(IntEnum):
    """What kind of account: whose money, and why the venue has it."""

    CLIENT = lib.BOOK_CLIENT
    INSURANCE = lib.BOOK_INSURANCE
    FEES = lib.BOOK_FEES
    REBATES = lib.BOOK_REBATES
    DUST = lib.BOOK_DUST
    ADJUSTMENTS = lib.BOOK_ADJUSTMENTS
    DEPOSITS = lib.BOOK_DEPOSITS
    WITHDRAWALS = lib.BOOK_WITHDRAWALS
    TREASURY = lib.BOOK_TREASURY


class Code(IntEnum):
    """What a posting is for."""

    DEPOSIT = lib.CODE_DEPOSIT
    WITHDRAWAL = lib.CODE_WITHDRAWAL
    ADJUSTMENT = lib.CODE_ADJUSTMENT
    DEPOSIT_PENDING = lib.CODE_DEPOSIT_PENDING
    DEPOSIT_POSTED = lib.CODE_DEPOSIT_POSTED
    DEPOSIT_VOIDED = lib.CODE_DEPOSIT_VOIDED
    WITHDRAWAL_PENDING = lib.CODE_WITHDRAWAL_PENDING
    WITHDRAWAL_POSTED = lib.CODE_WITHDRAWAL_POSTED
    WITHDRAWAL_VOIDED = lib.CODE_WITHDRAWAL_VOIDED
    HOLD = lib.CODE_HOLD
    RELEASE = lib.CODE_RELEASE
    FILL_MAKER = lib.CODE_FILL_MAKER
    FILL_TAKER = lib.CODE_FILL_TAKER
    FILL_AUCTION = lib.CODE_FILL_AUCTION
    TRANSFER = lib.CODE_TRANSFER
    FEE = lib.CODE_FEE
    REBATE = lib.CODE_REBATE
    DUST = lib.CODE_DUST


# Accounts of clients in the exchange's own table, under their number there.
EXCHANGE_BOOKS = frozenset({Book.CLIENT, Book.INSURANCE})
# The venue's books, and its account there: fees less rebates are in one, what rounding made of fees in the other.
VENUE_ACCOUNT = 0
ROUNDING_ACCOUNT: int = lib.ACCOUNT_ROUNDING
VENUE_ACCOUNTS = {Book.FEES: VENUE_ACCOUNT, Book.REBATES: VENUE_ACCOUNT, Book.DUST: ROUNDING_ACCOUNT}


def exchange_account(book: int, account: int) -> int | None:
    """Return the account of the exchange's own table that a ledger account is part of; None: the ledger's alone."""
    return account if book in EXCHANGE_BOOKS else VENUE_ACCOUNTS.get(Book(book))


def books_of(account: int) -> list[tuple[Book, int]]:
    """Return the ledger accounts (book, account) that an account of the exchange's own table is made of."""
    venue = [(book, 0) for book, number in VENUE_ACCOUNTS.items() if number == account]
    return venue or [(book, account) for book in sorted(EXCHANGE_BOOKS)]


def account_name(book: Book, account: int) -> str:
    """Return "client:42", "treasury"."""
    name = book.name.lower()
    return f"{name}:{account}" if book in EXCHANGE_BOOKS else name
