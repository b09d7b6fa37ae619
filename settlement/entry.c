/* An entry: the postings of one log record, which sum to zero in every asset. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "derive.h"

bool ledger_fail(ledger_t *ledger, const char *format, ...)
{
    va_list arguments;

    if (ledger->failed)
        return false; /* the first reason is the one that matters */
    ledger->failed = 1;
    int length = snprintf(ledger->error, ERROR_TEXT_MAX, "record %lld: ", (long long)ledger->position);
    va_start(arguments, format);
    vsnprintf(ledger->error + length, (size_t)(ERROR_TEXT_MAX - length), format, arguments);
    va_end(arguments);
    return false;
}

void ledger_begin_entry(ledger_t *ledger, uint64_t sequence, uint64_t ts_ns)
{
    ledger->entry = (entry_t){.sequence = sequence, .ts_ns = ts_ns};
}

static house_sums_t *sums_of(ledger_t *ledger, uint32_t asset)
{
    if (asset == 0 || asset >= ledger->assets_used) {
        ledger_fail(ledger, "asset %u was never added", asset);
        return NULL;
    }
    house_sums_t *sums = &ledger->sums[asset];
    if (!sums->touched) {
        *sums = (house_sums_t){.touched = 1};
        ledger->entry_assets[ledger->entry_asset_count++] = asset;
    }
    return sums;
}

static bool add(int64_t *to, int64_t units)
{
    return !__builtin_add_overflow(*to, units, to);
}

/* The block's list of accounts with postings, and how many each has: what taking the block sorts by. */
static bool touch(ledger_t *ledger, uint32_t slot)
{
    if (books_entry(&ledger->books, slot)->rows++ > 0)
        return true;
    uint32_t *place = row_list_push(&ledger->touched, sizeof(uint32_t));
    if (place == NULL)
        return ledger_fail(ledger, "memory is short");
    *place = slot;
    return true;
}

bool ledger_post(ledger_t *ledger, posting_t *posting)
{
    book_entry_t *account = books_entry(&ledger->books, posting->slot);
    house_sums_t *sums = sums_of(ledger, account->asset);

    if (sums == NULL)
        return false;
    if (!add(&account->available, posting->available) || !add(&account->held, posting->held) ||
        !add(&sums->balance, posting->available) || !add(&sums->balance, posting->held))
        return ledger_fail(ledger, "an amount of asset %u does not fit 64 bits", account->asset);
    if (account->held < 0)
        return ledger_fail(ledger, "account %u would have %lld units of asset %u held", account->account,
                           (long long)account->held, account->asset);
    if (account->available < 0 && account->book == BOOK_CLIENT)
        return ledger_fail(ledger, "account %u would have %lld units of asset %u available", account->account,
                           (long long)account->available, account->asset);
    posting_t *row = row_list_push(&ledger->postings, sizeof(posting_t));
    if (row == NULL)
        return ledger_fail(ledger, "memory is short");
    posting->sequence = ledger->entry.sequence;
    posting->ts_ns = ledger->entry.ts_ns;
    posting->epoch = (uint32_t)ledger->epoch;
    posting->idx = ledger->entry.idx++;
    posting->book = account->book;
    posting->account = account->account;
    posting->asset = account->asset;
    *row = *posting;
    return touch(ledger, posting->slot);
}

bool ledger_post_to(ledger_t *ledger, uint8_t book, uint32_t account, uint32_t asset, posting_t *posting)
{
    posting->slot = books_open(&ledger->books, book, account, asset);
    if (posting->slot == BOOKS_NONE)
        return ledger_fail(ledger, "memory is short");
    return ledger_post(ledger, posting);
}

bool ledger_charge(ledger_t *ledger, uint32_t asset, int64_t fee, int64_t rounding)
{
    house_sums_t *sums = sums_of(ledger, asset);

    if (sums == NULL)
        return false;
    int64_t *to = fee < 0 ? &sums->rebates : &sums->fees;
    if (!add(to, fee - rounding) || !add(&sums->dust, rounding))
        return ledger_fail(ledger, "the fees in asset %u do not fit 64 bits", asset);
    return true;
}

static bool post_house(ledger_t *ledger, uint8_t book, uint8_t code, uint32_t asset, int64_t units)
{
    posting_t posting = {.code = code, .available = units, .event_ns = ledger->entry.ts_ns};

    return units == 0 || ledger_post_to(ledger, book, 0, asset, &posting);
}

bool ledger_end_entry(ledger_t *ledger)
{
    for (uint32_t i = 0; i < ledger->entry_asset_count; i++) {
        uint32_t asset = ledger->entry_assets[i];
        house_sums_t *sums = &ledger->sums[asset];
        if (!post_house(ledger, BOOK_FEES, CODE_FEE, asset, sums->fees) ||
            !post_house(ledger, BOOK_REBATES, CODE_REBATE, asset, sums->rebates) ||
            !post_house(ledger, BOOK_DUST, CODE_DUST, asset, sums->dust))
            return false;
        if (sums->balance != 0)
            return ledger_fail(ledger, "the entry is out of balance by %lld units of asset %u: a report is missing, doubled or wrong",
                               (long long)sums->balance, asset);
        sums->touched = 0;
    }
    ledger->entry_asset_count = 0;
    return true;
}
