/* The books: what every ledger account has, as of the last record derived.
 *
 * A ledger account is (book, account, asset), an amount is in whole units of the asset, credit positive: what the venue owes to
 * clients or has earned is above zero; what it owns, or others still owe to it, below. So every entry sums to zero in every
 * asset, and so do the books. Accounts of clients have two parts, available and held; all others only `available`. */
#ifndef BULLRING_SETTLEMENT_BOOKS_H
#define BULLRING_SETTLEMENT_BOOKS_H

#include <stdbool.h>
#include <stdint.h>

#include "pool.h"

/* The numbers stand in every row of the store: they are never reused. settlement/chart.py names them. */
enum book {
    BOOK_CLIENT = 1,
    BOOK_INSURANCE = 2,
    BOOK_FEES = 10,
    BOOK_REBATES = 11,
    BOOK_DUST = 12,
    BOOK_ADJUSTMENTS = 13,
    BOOK_DEPOSITS = 20,    /* in transit */
    BOOK_WITHDRAWALS = 21, /* in transit */
    BOOK_TREASURY = 22,
};

enum posting_code {
    CODE_DEPOSIT = 1,
    CODE_WITHDRAWAL = 2,
    CODE_ADJUSTMENT = 3,
    CODE_DEPOSIT_PENDING = 4,
    CODE_DEPOSIT_POSTED = 5,
    CODE_DEPOSIT_VOIDED = 6,
    CODE_WITHDRAWAL_PENDING = 7,
    CODE_WITHDRAWAL_POSTED = 8,
    CODE_WITHDRAWAL_VOIDED = 9,
    CODE_HOLD = 10,
    CODE_RELEASE = 11,
    CODE_FILL_MAKER = 20,
    CODE_FILL_TAKER = 21,
    CODE_FILL_AUCTION = 22,
    CODE_TRANSFER = 23,
    CODE_FEE = 30,
    CODE_REBATE = 31,
    CODE_DUST = 32,
};

typedef struct book_entry {
    int64_t available;
    int64_t held;
    uint32_t account;
    uint32_t asset;
    uint32_t rows;   /* postings in the block that is being gathered */
    uint32_t offset; /* where the next of them goes when the block is taken */
    uint8_t book;
} book_entry_t;

/* The exchange's account that collects what only rounding made of fees; account 0 is its other one, for fees and rebates. */
#define ACCOUNT_ROUNDING UINT32_C(0xfffffffe)

typedef struct books {
    pool_t accounts; /* of book_entry_t; none is ever removed */
} books_t;

#define BOOKS_NONE PLACE_NONE
#define ASSET_MAX 65535

void books_free(books_t *books);

static inline book_entry_t *books_entry(const books_t *books, uint32_t slot)
{
    return (book_entry_t *)(void *)books->accounts.items + slot;
}

/* The slot of the account, opened if need be; BOOKS_NONE when memory is short. Moves the entries. */
uint32_t books_open(books_t *books, uint8_t book, uint32_t account, uint32_t asset);

/* BOOKS_NONE if it was never opened. */
uint32_t books_find(const books_t *books, uint8_t book, uint32_t account, uint32_t asset);

/* The hash a HashMark carries, from our own balances: the sum over all balances of the exchange's account table of
 * mark_term(account, asset, available, held), modulo 2^128. Account 0 has fees + rebates there, ACCOUNT_ROUNDING the dust. */
void books_mark_hash(const books_t *books, uint64_t out[2]);

#endif
