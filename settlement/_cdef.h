/* The C surface Python sees. Kept by hand; cffi compares the structs written in full with the compiler's at import. */

typedef struct log_slot {
    ...;
} log_slot_t;

typedef struct report_slot {
    ...;
} report_slot_t;

#define PARTITIONS_MAX ...
#define LEDGER_FAILED ...
#define BOOKS_NONE ...
#define ACCOUNT_ROUNDING ...

enum book {
    BOOK_CLIENT,
    BOOK_INSURANCE,
    BOOK_FEES,
    BOOK_REBATES,
    BOOK_DUST,
    BOOK_ADJUSTMENTS,
    BOOK_DEPOSITS,
    BOOK_WITHDRAWALS,
    BOOK_TREASURY,
    ...
};

enum posting_code {
    CODE_DEPOSIT,
    CODE_WITHDRAWAL,
    CODE_ADJUSTMENT,
    CODE_DEPOSIT_PENDING,
    CODE_DEPOSIT_POSTED,
    CODE_DEPOSIT_VOIDED,
    CODE_WITHDRAWAL_PENDING,
    CODE_WITHDRAWAL_POSTED,
    CODE_WITHDRAWAL_VOIDED,
    CODE_HOLD,
    CODE_RELEASE,
    CODE_FILL_MAKER,
    CODE_FILL_TAKER,
    CODE_FILL_AUCTION,
    CODE_TRANSFER,
    CODE_FEE,
    CODE_REBATE,
    CODE_DUST,
    ...
};

typedef struct report_span {
    const report_slot_t *slots;
    int64_t first;
    int64_t count;
} report_span_t;

typedef struct ledger_counts {
    uint64_t records;
    uint64_t reports;
    uint64_t postings;
    uint64_t trades;
    uint64_t marks_compared;
    uint64_t marks_differing;
    int64_t last_mark_equal;
    int64_t first_mark_differing;
} ledger_counts_t;

typedef struct block_counts {
    int64_t postings;
    int64_t trades;
    int64_t orders;
} block_counts_t;

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
    char *client_text;
} order_columns_t;

typedef struct ledger {
    ledger_counts_t counts;
    uint64_t cluster;
    uint64_t epoch;
    uint64_t last_ts_ns;
    int64_t position;
    uint32_t partitions;
    uint32_t insurance_account;
    uint8_t failed;
    int64_t settled[...];
    char error[...];
    ...;
} ledger_t;

ledger_t *ledger_new(uint32_t insurance_account);
void ledger_free(ledger_t *ledger);
int64_t ledger_feed(ledger_t *ledger, const log_slot_t *slots, int64_t first, int64_t count, const report_span_t *spans);
void ledger_scan_marks(const log_slot_t *slots, int64_t count, int64_t *ends);
int64_t ledger_row_count(const ledger_t *ledger);
bool ledger_close_block(ledger_t *ledger, block_counts_t *counts);
bool ledger_take_block(ledger_t *ledger, const posting_columns_t *postings, const trade_columns_t *trades,
                       const order_columns_t *orders);
void ledger_drop_block(ledger_t *ledger);
int64_t ledger_balance_count(const ledger_t *ledger);
void ledger_balances(const ledger_t *ledger, uint8_t *book, uint32_t *account, uint32_t *asset, int64_t *available,
                     int64_t *held);
bool ledger_balance(const ledger_t *ledger, uint8_t book, uint32_t account, uint32_t asset, int64_t *available, int64_t *held);
int64_t ledger_open_order_count(const ledger_t *ledger);
int64_t ledger_image_size(const ledger_t *ledger);
void ledger_write_image(const ledger_t *ledger, char *image);
ledger_t *ledger_from_image(const char *image, int64_t size);
