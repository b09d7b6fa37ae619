#include "columns.h"

#include <stdlib.h>
#include <string.h>

#include "invariant.h"
#include "platform.h"
#include "sort.h"

#define ROWS_AHEAD 12

/* ---- closing ---------------------------------------------------------------------------------------------------------- */

bool ledger_close_block(ledger_t *ledger, block_counts_t *counts)
{
    const uint32_t *places = ledger->dirty.rows;

    for (int64_t i = 0; i < ledger->dirty.count; i++) {
        open_order_t *order = open_order_at(&ledger->open, places[i]);
        /* Ended since, or its place taken by another order that stands in the list again; or half changed by a record that failed. */
        if (!order->dirty || (ledger->failed && order->sequence == (uint64_t)ledger->position))
            continue;
        order->dirty = false;
        if (!ledger_put_order_row(ledger, order, 0))
            return false;
    }
    ledger->dirty.count = 0;
    counts->postings = ledger->postings.count;
    counts->trades = ledger->trades.count;
    counts->orders = ledger->order_rows.count;
    return true;
}

/* ---- postings: a counting sort by ledger account; within one they are in order already ----------------------------------- */

static int by_account(const void *left, const void *right, void *context)
{
    const book_entry_t *entries = context;
    const book_entry_t *a = &entries[*(const uint32_t *)left], *b = &entries[*(const uint32_t *)right];

    if (a->book != b->book)
        return a->book < b->book ? -1 : 1;
    if (a->account != b->account)
        return a->account < b->account ? -1 : 1;
    return a->asset < b->asset ? -1 : a->asset > b->asset;
}

static void place_accounts(ledger_t *ledger)
{
    uint32_t *slots = ledger->touched.rows;
    book_entry_t *entries = books_entry(&ledger->books, 0);
    uint32_t next = 0;

    if (ledger->touched.count == 0)
        return;
    qsort_r(slots, (size_t)ledger->touched.count, sizeof(uint32_t), by_account, entries);
    for (int64_t i = 0; i < ledger->touched.count; i++) {
        entries[slots[i]].offset = next;
        next += entries[slots[i]].rows;
        entries[slots[i]].rows = 0;
    }
}

/* Rows are read in the order of keys, from all over memory: each is fetched some rows before its turn. */
static inline void fetch_row(const void *row, size_t size)
{
    for (size_t at = 0; at < size; at += CACHE_LINE)
        PREFETCH((const char *)row + at);
}

static void write_posting(const posting_t *row, int64_t i, const posting_columns_t *out)
{
    out->sequence[i] = row->sequence;
    out->ts_ns[i] = row->ts_ns;
    out->event_ns[i] = row->event_ns;
    out->order_id[i] = row->order_id;
    out->reference[i] = row->reference;
    out->available[i] = row->available;
    out->held[i] = row->held;
    out->fee[i] = row->fee;
    out->price[i] = row->price;
    out->quantity[i] = row->quantity;
    out->epoch[i] = row->epoch;
    out->idx[i] = row->idx;
    out->account[i] = row->account;
    out->asset[i] = row->asset;
    out->instrument[i] = row->instrument;
    out->book[i] = row->book;
    out->code[i] = row->code;
}

static bool take_postings(ledger_t *ledger, const posting_columns_t *out)
{
    const posting_t *rows = ledger->postings.rows;
    int64_t count = ledger->postings.count;
    uint32_t *from = row_list_reserve(&ledger->scratch, count * (int64_t)sizeof(uint32_t), 1);

    if (from == NULL)
        return ledger_fail(ledger, "memory is short");
    place_accounts(ledger);
    for (int64_t i = 0; i < count; i++)
        from[books_entry(&ledger->books, rows[i].slot)->offset++] = (uint32_t)i;
    /* Row by row and not column by column: a row's fields lie together where it is read. */
    for (int64_t i = 0; i < count; i++) {
        if (i + ROWS_AHEAD < count)
            fetch_row(&rows[from[i + ROWS_AHEAD]], sizeof(posting_t));
        write_posting(&rows[from[i]], i, out);
    }
    return true;
}

/* ---- trades and orders -------------------------------------------------------------------------------------------------- */

/* The rows of a list in order of their keys, until the next list is sorted; NULL when memory is short. */
static const sort_row_t *sort_list(ledger_t *ledger, const row_list_t *list, void (*key)(const row_list_t *, sort_row_t *))
{
    int64_t count = list->count;
    sort_row_t *memory = row_list_reserve(&ledger->scratch, 2 * count * (int64_t)sizeof(sort_row_t), 1);

    if (memory == NULL) {
        ledger_fail(ledger, "memory is short");
        return NULL;
    }
    for (int64_t i = 0; i < count; i++) {
        memory[i].row = (uint32_t)i;
        key(list, &memory[i]);
    }
    return sort_rows(memory, memory + count, count);
}

static void trade_key(const row_list_t *list, sort_row_t *out)
{
    const trade_t *row = (const trade_t *)list->rows + out->row;

    out->major = row->instrument;
    out->minor = row->trade_id;
}

static void write_trade(const trade_t *row, int64_t i, const trade_columns_t *out)
{
    out->sequence[i] = row->sequence;
    out->event_ns[i] = row->event_ns;
    out->trade_id[i] = row->trade_id;
    out->buyer_order[i] = row->buyer_order;
    out->seller_order[i] = row->seller_order;
    out->price[i] = row->price;
    out->quantity[i] = row->quantity;
    out->amount[i] = row->amount;
    out->buyer_fee[i] = row->buyer_fee;
    out->seller_fee[i] = row->seller_fee;
    out->epoch[i] = row->epoch;
    out->instrument[i] = row->instrument;
    out->buyer[i] = row->buyer;
    out->seller[i] = row->seller;
    out->buyer_fee_asset[i] = row->buyer_fee_asset;
    out->seller_fee_asset[i] = row->seller_fee_asset;
    out->maker_side[i] = row->maker_side;
    out->buyer_tier[i] = row->buyer_tier;
    out->seller_tier[i] = row->seller_tier;
    out->buyer_rounding[i] = row->buyer_rounding;
    out->seller_rounding[i] = row->seller_rounding;
}

static bool take_trades(ledger_t *ledger, const trade_columns_t *out)
{
    const trade_t *rows = ledger->trades.rows;
    const sort_row_t *sorted = sort_list(ledger, &ledger->trades, trade_key);

    if (sorted == NULL)
        return false;
    for (int64_t i = 0; i < ledger->trades.count; i++) {
        if (i + ROWS_AHEAD < ledger->trades.count)
            fetch_row(&rows[sorted[i + ROWS_AHEAD].row], sizeof(trade_t));
        write_trade(&rows[sorted[i].row], i, out);
    }
    return true;
}

static void order_key(const row_list_t *list, sort_row_t *out)
{
    const order_row_t *row = (const order_row_t *)list->rows + out->row;

    out->major = (uint64_t)row->account << 32 | row->instrument;
    out->minor = row->order_id;
}

static void write_order(const order_row_t *row, int64_t i, const order_columns_t *out)
{
    out->sequence[i] = row->sequence;
    out->order_id[i] = row->order_id;
    out->client_id[i] = row->client_id;
    out->list_id[i] = row->list_id;
    out->created_ns[i] = row->created_ns;
    out->updated_ns[i] = row->updated_ns;
    out->price[i] = row->price;
    out->stop_price[i] = row->stop_price;
    out->quantity[i] = row->quantity;
    out->display[i] = row->display;
    out->filled[i] = row->filled;
    out->amount[i] = row->amount;
    out->epoch[i] = row->epoch;
    out->account[i] = row->account;
    out->instrument[i] = row->instrument;
    out->exec_inst[i] = row->exec_inst;
    out->expire_s[i] = row->expire_s;
    out->reason[i] = row->reason;
    out->trailing[i] = row->trailing;
    out->side[i] = row->side;
    out->order_type[i] = row->order_type;
    out->time_in_force[i] = row->time_in_force;
    out->status[i] = row->status;
    out->tier[i] = row->tier;
    memcpy(out->client_text + i * CLIENT_TEXT_SIZE, row->client_text, CLIENT_TEXT_SIZE);
}

static bool take_orders(ledger_t *ledger, const order_columns_t *out)
{
    const order_row_t *rows = ledger->order_rows.rows;
    const sort_row_t *sorted = sort_list(ledger, &ledger->order_rows, order_key);

    if (sorted == NULL)
        return false;
    for (int64_t i = 0; i < ledger->order_rows.count; i++) {
        if (i + ROWS_AHEAD < ledger->order_rows.count)
            fetch_row(&rows[sorted[i + ROWS_AHEAD].row], sizeof(order_row_t));
        write_order(&rows[sorted[i].row], i, out);
    }
    return true;
}

bool ledger_take_block(ledger_t *ledger, const posting_columns_t *postings, const trade_columns_t *trades,
                       const order_columns_t *orders)
{
    INVARIANT(ledger->dirty.count == 0);
    if (!take_postings(ledger, postings) || !take_trades(ledger, trades) || !take_orders(ledger, orders))
        return false;
    ledger_drop_block(ledger);
    return true;
}

void ledger_drop_block(ledger_t *ledger)
{
    const uint32_t *places = ledger->dirty.rows;
    const uint32_t *slots = ledger->touched.rows;

    for (int64_t i = 0; i < ledger->dirty.count; i++)
        open_order_at(&ledger->open, places[i])->dirty = false;
    for (int64_t i = 0; i < ledger->touched.count; i++)
        books_entry(&ledger->books, slots[i])->rows = 0;
    ledger->dirty.count = 0;
    ledger->touched.count = 0;
    ledger->postings.count = 0;
    ledger->trades.count = 0;
    ledger->order_rows.count = 0;
}

int64_t ledger_row_count(const ledger_t *ledger)
{
    return ledger->postings.count + ledger->trades.count + ledger->order_rows.count;
}

/* ---- balances --------------------------------------------------------------------------------------------------------- */

int64_t ledger_balance_count(const ledger_t *ledger)
{
    return ledger->books.accounts.used;
}

void ledger_balances(const ledger_t *ledger, uint8_t *book, uint32_t *account, uint32_t *asset, int64_t *available,
                     int64_t *held)
{
    for (uint32_t i = 0; i < ledger->books.accounts.used; i++) {
        const book_entry_t *entry = books_entry(&ledger->books, i);
        book[i] = entry->book;
        account[i] = entry->account;
        asset[i] = entry->asset;
        available[i] = entry->available;
        held[i] = entry->held;
    }
}

bool ledger_balance(const ledger_t *ledger, uint8_t book, uint32_t account, uint32_t asset, int64_t *available, int64_t *held)
{
    uint32_t slot = books_find(&ledger->books, book, account, asset);

    *available = slot == BOOKS_NONE ? 0 : books_entry(&ledger->books, slot)->available;
    *held = slot == BOOKS_NONE ? 0 : books_entry(&ledger->books, slot)->held;
    return slot != BOOKS_NONE;
}

int64_t ledger_open_order_count(const ledger_t *ledger)
{
    return ledger->open.orders.count;
}
