#include "books.h"

#include "invariant.h"
#include "platform.h"

static uint64_t key_of(uint8_t book, uint32_t account, uint32_t asset)
{
    return (uint64_t)account << 32 | asset << 8 | book;
}

void books_free(books_t *books)
{
    pool_free(&books->accounts);
}

uint32_t books_find(const books_t *books, uint8_t book, uint32_t account, uint32_t asset)
{
    return asset > ASSET_MAX ? BOOKS_NONE : pool_find(&books->accounts, key_of(book, account, asset));
}

uint32_t books_open(books_t *books, uint8_t book, uint32_t account, uint32_t asset)
{
    INVARIANT(asset <= ASSET_MAX);
    uint64_t key = key_of(book, account, asset);
    uint32_t slot = pool_find(&books->accounts, key);

    if (slot != PLACE_NONE)
        return slot;
    slot = pool_add(&books->accounts, sizeof(book_entry_t), key);
    if (slot != PLACE_NONE)
        *books_entry(books, slot) = (book_entry_t){.book = book, .account = account, .asset = asset};
    return slot;
}

/* ---- the exchange's hash ---------------------------------------------------------------------------------------------- */

/* The mix of four words that docs/LEDGER.md describes; constants are the first binary digits of the square roots of 2, 3, 5, 7. */
static uint128_t mix(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint128_t first = (uint128_t)(a ^ UINT64_C(0x6a09e667f3bcc908)) * (b ^ UINT64_C(0xbb67ae8584caa73b));
    uint64_t low = (uint64_t)first, high = (uint64_t)(first >> 64);
    uint128_t second =
        (uint128_t)(low ^ c ^ UINT64_C(0x3c6ef372fe94f82b)) * (high ^ d ^ UINT64_C(0xa54ff53a5f1d36f1));
    return second ^ ((uint128_t)low << 64 | high);
}

static uint128_t mark_term(uint32_t account, uint32_t asset, int64_t available, int64_t held)
{
    const uint64_t tag = UINT64_C(0x62616c616e6365); /* "balance" */
    return mix((uint64_t)account << 32 | asset, (uint64_t)available, (uint64_t)held, tag);
}

static int64_t balance_of(const books_t *books, uint8_t book, uint32_t asset)
{
    uint32_t slot = books_find(books, book, 0, asset);
    return slot == BOOKS_NONE ? 0 : books_entry(books, slot)->available;
}

void books_mark_hash(const books_t *books, uint64_t out[2])
{
    uint128_t hash = 0;

    for (uint32_t i = 0; i < books->accounts.used; i++) {
        const book_entry_t *entry = books_entry(books, i);
        if (entry->book == BOOK_CLIENT || entry->book == BOOK_INSURANCE)
            hash += mark_term(entry->account, entry->asset, entry->available, entry->held);
        else if (entry->book == BOOK_FEES)
            hash += mark_term(0, entry->asset, entry->available + balance_of(books, BOOK_REBATES, entry->asset), 0);
        else if (entry->book == BOOK_DUST)
            hash += mark_term(ACCOUNT_ROUNDING, entry->asset, entry->available, 0);
    }
    out[0] = (uint64_t)hash;
    out[1] = (uint64_t)(hash >> 64);
}
