/* Postings out of the committed log: a function of the log's records and the matchers' reports, and of nothing else.
 *
 * Records are taken in order of the log. A SETTLED mark books the reports of its partition up to its report sequence, so the
 * books after record s are the exchange's accounts after record s. What may move money and is not understood stops the
 * derivation at that record, with a sentence; what cannot move money is passed over. */
#ifndef BULLRING_SETTLEMENT_DERIVE_H
#define BULLRING_SETTLEMENT_DERIVE_H

#include <stdint.h>

#include "books.h"
#include "open_orders.h"
#include "orders.h"
#include "rows.h"
#include "slots.h"

#define PARTITIONS_MAX 64
#define ERROR_TEXT_MAX 256
#define LEDGER_FAILED (-1)
#define INSTRUMENT_MAX 65535

/* Reports of one partition, from report sequence `first` on. */
typedef struct report_span {
    const report_slot_t *slots;
    int64_t first;
    int64_t count;
} report_span_t;

typedef struct ledger_instrument {
    int64_t quote_per_tick_lot; /* 0 = no such instrument */
    int64_t base_per_lot;
    uint32_t base_asset;
    uint32_t quote_asset;
    uint8_t partition;
} ledger_instrument_t;

/* Fees of the entry that is being made, by asset: they are booked once an entry. */
typedef struct house_sums {
    int64_t fees;
    int64_t rebates;
    int64_t dust;
    int64_t balance; /* of all postings of the entry */
    uint8_t touched;
} house_sums_t;

typedef struct entry {
    uint64_t sequence;
    uint64_t ts_ns;
    uint32_t idx; /* of the next posting */
} entry_t;

/* The first report of a trade, until the second one comes. */
typedef struct half_trade {
    trade_t trade;
    int64_t amount;
    uint8_t side;
    uint8_t liquidity;
    uint8_t open;
} half_trade_t;

/* The command that is being taken: one record, or several that are linked (docs/MATCHING.md, section 2). */
typedef struct group {
    bool linked;    /* the next record belongs to it */
    bool covered;   /* its orders follow an admitted cancel, which leaves `extra` to hold at once */
    bool due;       /* legs of a list whose time has come */
    uint8_t quote_flags;
    int64_t extra;
    uint32_t list;  /* place + 1 of the list it began or that is due, 0 = none */
    uint32_t quote; /* likewise of the quote */
    char client_text[CLIENT_TEXT_SIZE]; /* of the OrderDetails before the next order */
} group_t;

/* What is in transit of one account and asset under one reference. */
typedef struct transfer {
    uint64_t reference;
    int64_t units; /* what the book has of it */
    uint32_t account;
    uint32_t asset;
    uint8_t book;
} transfer_t;

typedef struct ledger_counts {
    uint64_t records;
    uint64_t reports;
    uint64_t postings;
    uint64_t trades;
    uint64_t marks_compared; /* hash marks */
    uint64_t marks_differing;
    int64_t last_mark_equal; /* sequence of the newest hash mark that agreed, -1 = none yet */
    int64_t first_mark_differing;
} ledger_counts_t;

typedef struct ledger {
    books_t books;
    open_orders_t open;
    pool_t transfers;          /* of transfer_t: in transit */
    ledger_instrument_t *instruments;
    house_sums_t *sums;        /* by asset */
    uint32_t instruments_used; /* highest id + 1 */
    uint32_t assets_used;
    uint32_t *entry_assets;    /* assets with a sum in this entry */
    uint32_t entry_asset_count;
    uint32_t partitions;       /* 0 = no Genesis yet */
    uint32_t insurance_account;
    uint64_t cluster;
    uint64_t epoch;
    uint64_t last_ts_ns;
    int64_t position;          /* the next record */
    int64_t settled[PARTITIONS_MAX];
    entry_t entry;
    half_trade_t half;
    group_t group;
    uint8_t failed;
    row_list_t postings;       /* posting_t */
    row_list_t trades;         /* trade_t */
    row_list_t order_rows;     /* order_row_t */
    row_list_t dirty;          /* uint32_t, places of changed orders in the pool */
    row_list_t touched;        /* uint32_t, slots of books with rows in this block */
    row_list_t scratch;        /* bytes, for sorting the rows of a block */
    ledger_counts_t counts;
    char error[ERROR_TEXT_MAX];
} ledger_t;

/* `insurance_account`: the exchange's account that is the insurance fund, 0 = none. NULL when memory is short. */
ledger_t *ledger_new(uint32_t insurance_account);
void ledger_free(ledger_t *ledger);

/* Take `count` records from sequence `first` on, which must be the position. `spans`: by partition, the reports that the marks
 * among the records name, PARTITIONS_MAX of them. Returns how many were taken: all, or LEDGER_FAILED, and then
 * everything before the record `position` has been derived and nothing more can be. */
int64_t ledger_feed(ledger_t *ledger, const log_slot_t *slots, int64_t first, int64_t count, const report_span_t *spans);

/* Where the marks among these records lead: writes, by partition, the highest report sequence + 1, 0 = no mark. */
void ledger_scan_marks(const log_slot_t *slots, int64_t count, int64_t *ends);

/* ---- inside the package ----------------------------------------------------------------------------------------------- */

/* The derivation cannot go on; always false, so that a caller can pass it up. */
bool ledger_fail(ledger_t *ledger, const char *format, ...) __attribute__((format(printf, 2, 3)));

void ledger_begin_entry(ledger_t *ledger, uint64_t sequence, uint64_t ts_ns);

/* Book one change of the ledger account in `posting->slot`. Fills in key, balances after it and the account. */
bool ledger_post(ledger_t *ledger, posting_t *posting);

bool ledger_post_to(ledger_t *ledger, uint8_t book, uint32_t account, uint32_t asset, posting_t *posting);

/* Add a fee (negative: rebate) to what the house books at the end of the entry. */
bool ledger_charge(ledger_t *ledger, uint32_t asset, int64_t fee, int64_t rounding);

/* Book the fees of the entry, and check that it sums to zero in every asset. */
bool ledger_end_entry(ledger_t *ledger);

const ledger_instrument_t *ledger_instrument(ledger_t *ledger, uint32_t id);

/* Units of the base asset (SIDE_SELL) or, at `limit`, of the quote asset that `lots` are. False beyond 2^62 or below 0. */
bool ledger_worth(const ledger_instrument_t *instrument, uint8_t side, int64_t limit, int64_t lots, int64_t *units);

/* What all of an order may cost at worst, of what it pays with. */
bool ledger_need(ledger_t *ledger, const open_order_t *order, int64_t *units);

/* Move `units` from available to held for an order, in the entry that is open. */
bool ledger_hold(ledger_t *ledger, open_order_t *order, int64_t units, uint64_t event_ns);

/* Note that an order has changed, so that the block gets a row of it. */
bool ledger_changed(ledger_t *ledger, open_order_t *order, uint64_t event_ns);

/* The order is gone, and leaves its list. */
void ledger_forget_order(ledger_t *ledger, open_order_t *order);

/* It is gone, with a last row. */
bool ledger_end_order(ledger_t *ledger, open_order_t *order, uint64_t event_ns, uint16_t reason);

bool ledger_put_order_row(ledger_t *ledger, const open_order_t *order, uint16_t reason);

/* Account and book, for an order or an adjustment. */
uint8_t ledger_book_of(const ledger_t *ledger, uint32_t account);

/* ---- derive_transfers.c: money in and out */

bool ledger_adjust_balance(ledger_t *ledger, const log_slot_t *slot);

/* ---- derive_orders.c: records of orders */

bool ledger_new_order(ledger_t *ledger, const log_slot_t *slot);
bool ledger_cancel_order(ledger_t *ledger, const log_slot_t *slot);
bool ledger_replace_order(ledger_t *ledger, const log_slot_t *slot);
bool ledger_amend_order(ledger_t *ledger, const log_slot_t *slot);
bool ledger_order_details(ledger_t *ledger, const log_slot_t *slot);

/* ---- derive_groups.c: records of lists and quotes */

bool ledger_begin_list(ledger_t *ledger, const log_slot_t *slot);
/* Of a list's group: the order just opened is its next leg. */
bool ledger_add_leg(ledger_t *ledger, const log_slot_t *slot, open_order_t *order);
/* Legs of a list whose time has come, admitted or refused. */
bool ledger_take_due(ledger_t *ledger, const log_slot_t *slot, bool first);
bool ledger_end_list(ledger_t *ledger, const log_slot_t *slot);
bool ledger_begin_quote(ledger_t *ledger, const log_slot_t *slot);
bool ledger_quote_side(ledger_t *ledger, const log_slot_t *slot);
/* An order that belongs to a list has ended. */
void ledger_leave_list(ledger_t *ledger, const open_order_t *order);

/* An order on its way, with nothing held yet. NULL, and the derivation has failed, if it cannot be. */
open_order_t *ledger_open_order(ledger_t *ledger, const log_slot_t *slot, const new_order_single_t *request);

bool ledger_settle_report(ledger_t *ledger, uint8_t partition, int64_t report_seq, const report_slot_t *report);

#endif
