#include "books.h"

#include <stdlib.h>
#include <string.h>

#include "invariant.h"
#include "platform.h"

#define FIRST_CAPACITY 1024

static uint64_t key_hash(uint8_t book, uint32_t account, uint32_t asset)
{
    uint64_t key = ((uint64_t)account << 32 | asset) ^ (uint64_t)book << 56;
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return key ^ key >> 29;
}

static bool grow(books_t *books)
{
    uint32_t capacity = books->capacity == 0 ? FIRST_CAPACITY : books->capacity * 2;
    uint64_t mask = (uint64_t)capacity * 2 - 1;
    book_entry_t *entries = realloc(books->entries, capacity * sizeof(book_entry_t));

    if (entries == NULL)
        return false;
    books->entries = entries;
    uint32_t *index = calloc(mask + 1, sizeof(uint32_t));
    if (index == NULL)
        return false;
    for (uint32_t i = 0; i < books->count; i++) {
        uint64_t at = key_hash(entries[i].book, entries[i].account, entries[i].asset) & mask;
        while (index[at] != 0)
            at = (at + 1) & mask;
        index[at] = i + 1;
    }
    free(books->index);
    books->index = index;
    books->mask = mask;
    books->capacity = capacity;
    return true;
}

void books_free(books_t *books)
{
    free(books->entries);
    free(books->index);
    *books = (books_t){0};
}

/* Where the account stands in the index, or the empty place where it would. */
static uint64_t locate(const books_t *books, uint8_t book, uint32_t account, uint32_t asset)
{
    uint64_t at = key_hash(book, account, asset) & books->mask;

    /* Ends: the load is at most a half, so an empty place exists. */
    for (; books->index[at] != 0; at = (at + 1) & books->mask) {
        const book_entry_t *entry = &books->entries[books->index[at] - 1];
        if (entry->account == account && entry->asset == asset && entry->book == book)
            break;
    }
    return at;
}

uint32_t books_find(const books_t *books, uint8_t book, uint32_t account, uint32_t asset)
{
    if (books->count == 0)
        return BOOKS_NONE;
    uint32_t place = books->index[locate(books, book, account, asset)];
    return place == 0 ? BOOKS_NONE : place - 1;
}

uint32_t books_open(books_t *books, uint8_t book, uint32_t account, uint32_t asset)
{
    if (books->count == books->capacity && !grow(books))
        return BOOKS_NONE;
    uint64_t at = locate(books, book, account, asset);
    if (books->index[at] != 0)
        return books->index[at] - 1;
    INVARIANT(books->count < books->capacity);
    books->entries[books->count] = (book_entry_t){.book = book, .account = account, .asset = asset};
    books->index[at] = ++books->count;
    return books->count - 1;
}

/* ---- the exchange's hash ---------------------------------------------------------------------------------------------- */

static uint64_t fold(uint64_t a, uint64_t b)
{
    uint128_t product = (uint128_t)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xd6e8feb86659fd93));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint128_t mark_term(uint32_t account, uint32_t asset, int64_t available, int64_t held)
{
    const uint64_t tag = UINT64_C(0x62616c616e6365); /* "balance" */
    uint64_t key = (uint64_t)account << 32 | asset;
    uint64_t low = fold(fold(key, (uint64_t)available), fold((uint64_t)held, tag ^ UINT64_C(0xa0761d6478bd642f)));
    uint64_t high = fold(low ^ (uint64_t)held, key ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint128_t)high << 64 | low;
}

static int64_t balance_of(const books_t *books, uint8_t book, uint32_t asset)
{
    uint32_t slot = books_find(books, book, 0, asset);
    return slot == BOOKS_NONE ? 0 : books->entries[slot].available;
}

void books_mark_hash(const books_t *books, uint64_t out[2])
{
    uint128_t hash = 0;

    for (uint32_t i = 0; i < books->count; i++) {
        const book_entry_t *entry = &books->entries[i];
        if (entry->book == BOOK_CLIENT || entry->book == BOOK_INSURANCE)
            hash += mark_term(entry->account, entry->asset, entry->available, entry->held);
        else if (entry->book == BOOK_FEES)
            hash += mark_term(0, entry->asset,
                              entry->available + balance_of(books, BOOK_REBATES, entry->asset) +
                                  balance_of(books, BOOK_DUST, entry->asset),
                              0);
    }
    out[0] = (uint64_t)hash;
    out[1] = (uint64_t)(hash >> 64);
}
