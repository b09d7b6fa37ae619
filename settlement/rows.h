/* What the ledger hands out: rows of four kinds, gathered while records are derived, taken away a block at a time as columns.
 *
 * A posting is one change of one ledger account; the postings of one log record are an entry and sum to zero in every asset. Its
 * key is (epoch, sequence, idx): the record's sequence in the log, and its place in the entry. */
#ifndef BULLRING_SETTLEMENT_ROWS_H
#define BULLRING_SETTLEMENT_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#define CLIENT_TEXT_SIZE 36

typedef struct posting {
    uint64_t sequence;
    uint64_t ts_ns;     /* stamp of the log record: when it was booked */
    uint64_t event_ns;  /* stamp of what caused it: a trade happens before the mark that books it */
    uint64_t order_id;  /* 0 = none */
    uint64_t reference; /* fills: trade id; adjustments: the operator's or wallet's reference */
    int64_t available;
    int64_t held;
    int64_t fee;        /* part of `available` that is a fee (negative: rebate), in units of this asset */
    int64_t price;      /* fills only, ticks */
    int64_t quantity;   /* fills only, lots */
    uint32_t epoch;
    uint32_t idx;
    uint32_t account;
    uint32_t asset;
    uint32_t instrument; /* 0 = none */
    uint32_t slot;       /* of the ledger account in books_t */
    uint8_t book;
    uint8_t code;
} posting_t;

typedef struct trade {
    uint64_t sequence; /* of the mark that books it */
    uint64_t event_ns;
    uint64_t trade_id;
    uint64_t buyer_order;
    uint64_t seller_order;
    int64_t price;
    int64_t quantity;
    int64_t amount;    /* price x quantity in units of the quote asset */
    int64_t buyer_fee;
    int64_t seller_fee;
    uint32_t epoch;
    uint32_t instrument;
    uint32_t buyer;
    uint32_t seller;
    uint32_t buyer_fee_asset;
    uint32_t seller_fee_asset;
    uint8_t maker_side; /* SIDE_..., 0 in an auction */
    uint8_t buyer_tier;
    uint8_t seller_tier;
    uint8_t buyer_rounding; /* part of the fee that only rounding made */
    uint8_t seller_rounding;
} trade_t;

/* An order as it stood when the block ended, or when it ended itself. */
typedef struct order_row {
    uint64_t sequence; /* of the last record that changed it: the newest row of an order is the true one */
    uint64_t order_id;
    uint64_t client_id;
    uint64_t list_id; /* 0 = none */
    uint64_t created_ns;
    uint64_t updated_ns;
    int64_t price;    /* limit; of market orders the protection price */
    int64_t stop_price;
    int64_t quantity; /* total, filled included */
    int64_t display;
    int64_t filled;
    int64_t amount;   /* of all fills, in units of the quote asset */
    uint32_t epoch;
    uint32_t account;
    uint32_t instrument;
    uint32_t exec_inst;
    uint32_t expire_s;
    uint16_t reason;  /* why it ended: a cancel reason, or with status Rejected a reject code */
    uint16_t trailing;
    uint8_t side;
    uint8_t order_type;
    uint8_t time_in_force;
    uint8_t status;
    uint8_t tier;
    char client_text[CLIENT_TEXT_SIZE];
} order_row_t;

/* A growing list; the element's size goes with every call. */
typedef struct row_list {
    void *rows;
    int64_t count;
    int64_t capacity;
} row_list_t;

/* Room for one more, NULL when memory is short. */
void *row_list_push(row_list_t *list, int64_t row_size);

/* Room for so many rows, whatever was there before; NULL when memory is short. */
void *row_list_reserve(row_list_t *list, int64_t count, int64_t row_size);

void row_list_free(row_list_t *list);

#endif
