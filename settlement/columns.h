/* A block as columns, for a columnar store: one array a column, the rows in the order of the store's key. */
#ifndef BULLRING_SETTLEMENT_COLUMNS_H
#define BULLRING_SETTLEMENT_COLUMNS_H

#include <stdint.h>

#include "derive.h"

/* By (book, account, asset, sequence, idx). */
typedef struct posting_columns {
    uint64_t *sequence;
    uint64_t *ts_ns;
    uint64_t *event_ns;
    uint64_t *order_id;
    uint64_t *reference;
    int64_t *available;
    int64_t *held;
    int64_t *fee;
    int64_t *price;
    int64_t *quantity;
    uint32_t *epoch;
    uint32_t *idx;
    uint32_t *account;
    uint32_t *asset;
    uint32_t *instrument;
    uint8_t *book;
    uint8_t *code;
} posting_columns_t;

/* By (instrument, sequence), within one in the order of the reports. */
typedef struct trade_columns {
    uint64_t *sequence;
    uint64_t *event_ns;
    uint64_t *trade_id;
    uint64_t *buyer_order;
    uint64_t *seller_order;
    int64_t *price;
    int64_t *quantity;
    int64_t *amount;
    int64_t *buyer_fee;
    int64_t *seller_fee;
    uint32_t *epoch;
    uint32_t *instrument;
    uint32_t *buyer;
    uint32_t *seller;
    uint32_t *buyer_fee_asset;
    uint32_t *seller_fee_asset;
    uint8_t *maker_side;
    uint8_t *buyer_tier;
    uint8_t *seller_tier;
    uint8_t *buyer_rounding;
    uint8_t *seller_rounding;
} trade_columns_t;

/* By (account, instrument, order id); one row an order. */
typedef struct order_columns {
    uint64_t *sequence;
    uint64_t *order_id;
    uint64_t *client_id;
    uint64_t *list_id;
    uint64_t *created_ns;
    uint64_t *updated_ns;
    int64_t *price;
    int64_t *stop_price;
    int64_t *quantity;
    int64_t *display;
    int64_t *filled;
    int64_t *amount;
    uint32_t *epoch;
    uint32_t *account;
    uint32_t *instrument;
    uint32_t *exec_inst;
    uint32_t *expire_s;
    uint16_t *reason;
    uint16_t *trailing;
    uint8_t *side;
    uint8_t *order_type;
    uint8_t *time_in_force;
    uint8_t *status;
    uint8_t *tier;
    char *client_text; /* CLIENT_TEXT_SIZE bytes a row, zero-filled */
} order_columns_t;

typedef struct block_counts {
    int64_t postings;
    int64_t trades;
    int64_t orders;
} block_counts_t;

/* End the block: rows of all changed orders are added. Returns how many rows it has; false when memory is short. */
bool ledger_close_block(ledger_t *ledger, block_counts_t *counts);

/* Write the block's rows and begin an empty one. The arrays have room for what ledger_close_block() counted. */
bool ledger_take_block(ledger_t *ledger, const posting_columns_t *postings, const trade_columns_t *trades,
                       const order_columns_t *orders);

/* Rows gathered so far, changed orders that are still open not counted. */
int64_t ledger_row_count(const ledger_t *ledger);

/* Forget the block's rows: a replay up to what a store has already. */
void ledger_drop_block(ledger_t *ledger);

/* Every ledger account as of now: `ledger_balance_count()` elements a column, in no particular order. */
int64_t ledger_balance_count(const ledger_t *ledger);
void ledger_balances(const ledger_t *ledger, uint8_t *book, uint32_t *account, uint32_t *asset, int64_t *available,
                     int64_t *held);

/* One of them; false and zeros if it was never opened. */
bool ledger_balance(const ledger_t *ledger, uint8_t book, uint32_t account, uint32_t asset, int64_t *available, int64_t *held);

int64_t ledger_open_order_count(const ledger_t *ledger);

#endif
