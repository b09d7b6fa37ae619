/* Money in and out: the operator's and the wallet's BalanceAdjust.
 *
 * Without a reference it is done at once, against the treasury. With one there is a transfer behind it that takes its time: it is
 * pending in transit; the opposite sign under the same reference voids it, amount 0 posts it: what is in transit goes to the
 * treasury. Nothing is ever changed or taken back but by another entry. */
#include "derive.h"

#include "orders.h"

/* Where the other side of an adjustment stands. */
typedef struct contra {
    uint8_t book;
    uint8_t code;
} contra_t;

static contra_t contra_of(const balance_adjust_t *adjust)
{
    bool in = adjust->amount > 0, transit = adjust->reference != 0;

    if (adjust->kind == BALANCE_KIND_DEPOSIT)
        return transit ? (contra_t){BOOK_DEPOSITS, in ? CODE_DEPOSIT_PENDING : CODE_DEPOSIT_VOIDED}
                       : (contra_t){BOOK_TREASURY, CODE_DEPOSIT};
    if (adjust->kind == BALANCE_KIND_WITHDRAWAL)
        return transit ? (contra_t){BOOK_WITHDRAWALS, in ? CODE_WITHDRAWAL_VOIDED : CODE_WITHDRAWAL_PENDING}
                       : (contra_t){BOOK_TREASURY, CODE_WITHDRAWAL};
    return (contra_t){BOOK_ADJUSTMENTS, CODE_ADJUSTMENT};
}

static uint64_t transfer_key(const balance_adjust_t *adjust)
{
    uint64_t key = pool_hash(adjust->reference);

    key = pool_hash(key ^ ((uint64_t)adjust->account_id << 32 | adjust->asset_id));
    key = pool_hash(key + adjust->kind);
    return key == 0 ? 1 : key;
}

/* The transfer, made if need be; NULL, and the derivation has failed, if it cannot be. */
static transfer_t *transfer_of(ledger_t *ledger, const balance_adjust_t *adjust, uint8_t book)
{
    uint64_t key = transfer_key(adjust);
    uint32_t place = pool_find(&ledger->transfers, key);
    bool fresh = place == PLACE_NONE;

    if (fresh)
        place = pool_add(&ledger->transfers, sizeof(transfer_t), key);
    if (place == PLACE_NONE) {
        ledger_fail(ledger, "memory is short");
        return NULL;
    }
    transfer_t *transfer = (transfer_t *)(void *)ledger->transfers.items + place;
    if (fresh)
        *transfer = (transfer_t){
            .reference = adjust->reference, .account = adjust->account_id, .asset = adjust->asset_id, .book = book};
    if (transfer->reference != adjust->reference || transfer->account != adjust->account_id ||
        transfer->asset != adjust->asset_id || transfer->book != book) {
        ledger_fail(ledger, "references %llu and %llu cannot be told apart", (unsigned long long)transfer->reference,
                    (unsigned long long)adjust->reference);
        return NULL;
    }
    return transfer;
}

/* Remember what came into transit, or left it; what is through is forgotten. */
static bool carry(ledger_t *ledger, const balance_adjust_t *adjust, uint8_t book, int64_t units)
{
    transfer_t *transfer = transfer_of(ledger, adjust, book);

    if (transfer == NULL)
        return false;
    if (__builtin_add_overflow(transfer->units, units, &transfer->units))
        return ledger_fail(ledger, "the amount under reference %llu does not fit 64 bits", (unsigned long long)adjust->reference);
    if (transfer->units == 0)
        pool_remove(&ledger->transfers, transfer_key(adjust));
    return true;
}

/* It is final: out of transit, into the treasury. Without anything in transit there is nothing to book. */
static bool post_transfer(ledger_t *ledger, const log_slot_t *slot, const balance_adjust_t *adjust)
{
    bool deposit = adjust->kind == BALANCE_KIND_DEPOSIT;
    uint8_t book = deposit ? BOOK_DEPOSITS : BOOK_WITHDRAWALS;
    posting_t posting = {.code = deposit ? CODE_DEPOSIT_POSTED : CODE_WITHDRAWAL_POSTED,
                         .reference = adjust->reference,
                         .event_ns = slot->ts_ns};

    if (adjust->reference == 0 || pool_find(&ledger->transfers, transfer_key(adjust)) == PLACE_NONE)
        return true;
    transfer_t *transfer = transfer_of(ledger, adjust, book);
    if (transfer == NULL)
        return false;
    int64_t units = transfer->units;
    ledger_begin_entry(ledger, (uint64_t)ledger->position, slot->ts_ns);
    posting.available = -units;
    if (!carry(ledger, adjust, book, -units) || !ledger_post_to(ledger, book, 0, adjust->asset_id, &posting))
        return false;
    posting.available = units;
    return ledger_post_to(ledger, BOOK_TREASURY, 0, adjust->asset_id, &posting) && ledger_end_entry(ledger);
}

bool ledger_adjust_balance(ledger_t *ledger, const log_slot_t *slot)
{
    const balance_adjust_t *adjust = (const balance_adjust_t *)slot->block;
    contra_t contra = contra_of(adjust);
    posting_t posting = {
        .code = contra.code, .available = adjust->amount, .reference = adjust->reference, .event_ns = slot->ts_ns};

    if (adjust->amount == 0)
        return post_transfer(ledger, slot, adjust);
    ledger_begin_entry(ledger, (uint64_t)ledger->position, slot->ts_ns);
    if (!ledger_post_to(ledger, ledger_book_of(ledger, adjust->account_id), adjust->account_id, adjust->asset_id, &posting))
        return false;
    posting.available = -adjust->amount;
    if (!ledger_post_to(ledger, contra.book, 0, adjust->asset_id, &posting) || !ledger_end_entry(ledger))
        return false;
    return contra.book == BOOK_TREASURY || contra.book == BOOK_ADJUSTMENTS || carry(ledger, adjust, contra.book, -adjust->amount);
}
