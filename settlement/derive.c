/* Records of the log: holds, adjustments, definitions; marks lead to the reports (derive_reports.c). */
#include "derive.h"

#include <stdlib.h>
#include <string.h>

#include "invariant.h"
#include "orders.h"
#include "platform.h"

#define FIRST_INSTRUMENTS 64
#define REPORTS_AHEAD 8

/* ---- life ------------------------------------------------------------------------------------------------------------- */

ledger_t *ledger_new(uint32_t insurance_account)
{
    ledger_t *ledger = calloc(1, sizeof(ledger_t));

    if (ledger == NULL)
        return NULL;
    ledger->insurance_account = insurance_account;
    ledger->counts.last_mark_equal = -1;
    ledger->counts.first_mark_differing = -1;
    return ledger;
}

void ledger_free(ledger_t *ledger)
{
    books_free(&ledger->books);
    open_orders_free(&ledger->orders);
    free(ledger->instruments);
    free(ledger->sums);
    free(ledger->entry_assets);
    row_list_free(&ledger->postings);
    row_list_free(&ledger->trades);
    row_list_free(&ledger->order_rows);
    row_list_free(&ledger->dirty);
    row_list_free(&ledger->touched);
    free(ledger);
}

/* ---- definitions ------------------------------------------------------------------------------------------------------ */

/* Make an array reach index `id`; new elements are zero. */
static bool reach(void **array, uint32_t *used, uint32_t id, size_t size)
{
    if (id < *used)
        return true;
    void *grown = realloc(*array, ((size_t)id + 1) * size);
    if (grown == NULL)
        return false;
    memset((char *)grown + *used * size, 0, ((size_t)id + 1 - *used) * size);
    *array = grown;
    *used = id + 1;
    return true;
}

static bool add_asset(ledger_t *ledger, const asset_add_t *asset)
{
    uint32_t used = ledger->assets_used;

    if (!reach((void **)&ledger->sums, &used, asset->asset_id, sizeof(house_sums_t)) ||
        !reach((void **)&ledger->entry_assets, &ledger->assets_used, asset->asset_id, sizeof(uint32_t)))
        return ledger_fail(ledger, "memory is short");
    /* The venue has a balance in every asset from the start. */
    if (books_open(&ledger->books, BOOK_FEES, 0, asset->asset_id) == BOOKS_NONE)
        return ledger_fail(ledger, "memory is short");
    return true;
}

static bool add_instrument(ledger_t *ledger, const instrument_add_t *added)
{
    if (!reach((void **)&ledger->instruments, &ledger->instruments_used, added->instrument_id, sizeof(ledger_instrument_t)))
        return ledger_fail(ledger, "memory is short");
    if (added->quote_per_tick_lot <= 0 || added->base_per_lot <= 0 || added->assigned_partition >= PARTITIONS_MAX)
        return ledger_fail(ledger, "instrument %u has scales or a partition that cannot be", added->instrument_id);
    ledger->instruments[added->instrument_id] = (ledger_instrument_t){
        .quote_per_tick_lot = added->quote_per_tick_lot,
        .base_per_lot = added->base_per_lot,
        .base_asset = added->base_asset_id,
        .quote_asset = added->quote_asset_id,
        .partition = added->assigned_partition,
    };
    return true;
}

const ledger_instrument_t *ledger_instrument(ledger_t *ledger, uint32_t id)
{
    if (id >= ledger->instruments_used || ledger->instruments[id].quote_per_tick_lot == 0) {
        ledger_fail(ledger, "instrument %u was never added", id);
        return NULL;
    }
    return &ledger->instruments[id];
}

/* ---- money in and out ------------------------------------------------------------------------------------------------- */

static uint8_t book_of(const ledger_t *ledger, uint32_t account)
{
    return ledger->insurance_account != 0 && account == ledger->insurance_account ? BOOK_INSURANCE : BOOK_CLIENT;
}

typedef struct contra {
    uint8_t book;
    uint8_t code;
} contra_t;

/* Where the other side of an adjustment stands. With a reference there is a transfer behind it that is not final yet: it waits in
 * transit, and the opposite sign under the same reference voids it. */
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

static bool adjust_balance(ledger_t *ledger, const log_slot_t *slot)
{
    const balance_adjust_t *adjust = (const balance_adjust_t *)slot->block;
    contra_t contra = contra_of(adjust);
    posting_t posting = {
        .code = contra.code, .available = adjust->amount, .reference = adjust->reference, .event_ns = slot->ts_ns};

    ledger_begin_entry(ledger, (uint64_t)ledger->position, slot->ts_ns);
    if (!ledger_post_to(ledger, book_of(ledger, adjust->account_id), adjust->account_id, adjust->asset_id, &posting))
        return false;
    posting.available = -adjust->amount;
    return ledger_post_to(ledger, contra.book, 0, adjust->asset_id, &posting) && ledger_end_entry(ledger);
}

/* ---- orders ----------------------------------------------------------------------------------------------------------- */

bool ledger_hold_for(const ledger_instrument_t *instrument, uint8_t side, int64_t limit, int64_t lots, int64_t *units)
{
    int128_t need = side == SIDE_SELL ? (int128_t)lots * instrument->base_per_lot : (int128_t)limit * lots;

    /* In two steps, since three 64-bit factors need not fit 128 bits. */
    if (need < 0 || need >= UNITS_LIMIT)
        return false;
    if (side != SIDE_SELL)
        need *= instrument->quote_per_tick_lot;
    if (need >= UNITS_LIMIT)
        return false;
    *units = (int64_t)need;
    return true;
}

static bool open_accounts(ledger_t *ledger, open_order_t *order, const ledger_instrument_t *instrument)
{
    uint8_t book = book_of(ledger, order->account);
    uint32_t base = books_open(&ledger->books, book, order->account, instrument->base_asset);
    uint32_t quote = books_open(&ledger->books, book, order->account, instrument->quote_asset);

    if (base == BOOKS_NONE || quote == BOOKS_NONE)
        return ledger_fail(ledger, "memory is short");
    order->pays = order->side == SIDE_SELL ? base : quote;
    order->gets = order->side == SIDE_SELL ? quote : base;
    return true;
}

/* Move `units` from available to held, as an entry of its own. */
static bool post_hold(ledger_t *ledger, const log_slot_t *slot, open_order_t *order, int64_t units)
{
    posting_t posting = {.code = CODE_HOLD,
                         .slot = order->pays,
                         .available = -units,
                         .held = units,
                         .instrument = order->instrument,
                         .order_id = order->id,
                         .event_ns = slot->ts_ns};

    if (units == 0)
        return true;
    order->hold += units;
    ledger_begin_entry(ledger, (uint64_t)ledger->position, slot->ts_ns);
    return ledger_post(ledger, &posting) && ledger_end_entry(ledger);
}

static bool understood(ledger_t *ledger, const new_order_single_t *order)
{
    if (order->list_role != LIST_ROLE_NONE)
        return ledger_fail(ledger, "an order of a list: its hold is not understood by this version of the ledger");
    if ((order->exec_inst & EXEC_INST_QUOTE_AMOUNT) != 0)
        return ledger_fail(ledger, "an order by quote amount: its hold is not understood by this version of the ledger");
    if (order->side != SIDE_BUY && order->side != SIDE_SELL)
        return ledger_fail(ledger, "an admitted order with side %u", order->side);
    return true;
}

static bool open_order(ledger_t *ledger, const log_slot_t *slot)
{
    const new_order_single_t *request = (const new_order_single_t *)slot->block;
    const ledger_instrument_t *instrument = ledger_instrument(ledger, request->instrument_id);
    int64_t hold = 0;

    if (instrument == NULL || !understood(ledger, request))
        return false;
    if (slot->aux == 0 || open_orders_find(&ledger->orders, instrument->partition, slot->aux) != NULL)
        return ledger_fail(ledger, "order %llu is open already", (unsigned long long)slot->aux);
    if (!ledger_hold_for(instrument, request->side, request->price, request->order_qty, &hold))
        return ledger_fail(ledger, "the hold of order %llu is no amount below 2^62", (unsigned long long)slot->aux);
    open_order_t *order = open_orders_add(&ledger->orders, instrument->partition, slot->aux);
    if (order == NULL)
        return ledger_fail(ledger, "memory is short");
    order->client_id = request->cl_ord_id;
    order->created_ns = slot->ts_ns;
    order->limit = request->price;
    order->total = request->order_qty;
    order->stop_price = request->stop_px;
    order->display = request->display_qty;
    order->account = request->account_id;
    order->instrument = request->instrument_id;
    order->exec_inst = request->exec_inst;
    order->expire_s = request->expire_time;
    order->trailing = request->trailing_delta;
    order->side = request->side;
    order->order_type = request->ord_type;
    order->time_in_force = request->time_in_force;
    order->status = ORD_STATUS_NEW;
    order->tier = (uint8_t)(slot->flags >> SLOT_TIER_SHIFT);
    memcpy(order->client_text, ledger->details_text, sizeof order->client_text);
    return open_accounts(ledger, order, instrument) && ledger_changed(ledger, order, slot->ts_ns) &&
           post_hold(ledger, slot, order, hold);
}

/* What its versions on the way could need at most, above what is held already, is held too. */
static bool replace_order(ledger_t *ledger, const log_slot_t *slot)
{
    const order_replace_request_t *request = (const order_replace_request_t *)slot->block;
    const ledger_instrument_t *instrument = ledger_instrument(ledger, request->instrument_id);

    if (instrument == NULL)
        return false;
    open_order_t *order = open_orders_find(&ledger->orders, instrument->partition, request->order_id);
    if (order == NULL)
        return ledger_fail(ledger, "a replace of order %llu, which is not open", (unsigned long long)request->order_id);
    if (order->version_count == VERSIONS_MAX)
        return ledger_fail(ledger, "order %llu has more than %d replaces on their way", (unsigned long long)order->id,
                           VERSIONS_MAX);
    order_version_t newest = {order->limit, order->total};
    if (order->version_count > 0)
        newest = order->versions[order->version_count - 1];
    if (request->price != PX_OPT_NULL)
        newest.limit = request->price;
    if (request->order_qty != QTY_OPT_NULL)
        newest.total = request->order_qty;
    order->versions[order->version_count++] = newest;
    int64_t limit = order->limit, total = order->total, need = 0;
    for (uint8_t i = 0; i < order->version_count; i++) {
        limit = order->versions[i].limit > limit ? order->versions[i].limit : limit;
        total = order->versions[i].total > total ? order->versions[i].total : total;
    }
    if (!ledger_hold_for(instrument, order->side, limit, total - order->filled, &need))
        return ledger_fail(ledger, "the hold of order %llu is no amount below 2^62", (unsigned long long)order->id);
    return post_hold(ledger, slot, order, need > order->hold ? need - order->hold : 0);
}

/* ---- rows of orders --------------------------------------------------------------------------------------------------- */

bool ledger_changed(ledger_t *ledger, open_order_t *order, uint64_t event_ns)
{
    order->updated_ns = event_ns;
    order->sequence = (uint64_t)ledger->position;
    order->epoch = (uint32_t)ledger->epoch;
    if (order->dirty)
        return true;
    order->dirty = 1;
    uint32_t *place = row_list_push(&ledger->dirty, sizeof(uint32_t));
    if (place == NULL)
        return ledger_fail(ledger, "memory is short");
    *place = (uint32_t)(order - ledger->orders.pool);
    return true;
}

bool ledger_put_order_row(ledger_t *ledger, const open_order_t *order, uint16_t reason)
{
    order_row_t *row = row_list_push(&ledger->order_rows, sizeof(order_row_t));

    if (row == NULL)
        return ledger_fail(ledger, "memory is short");
    *row = (order_row_t){
        .sequence = order->sequence,
        .order_id = order->id,
        .client_id = order->client_id,
        .created_ns = order->created_ns,
        .updated_ns = order->updated_ns,
        .price = order->limit,
        .stop_price = order->stop_price,
        .quantity = order->total,
        .display = order->display,
        .filled = order->filled,
        .amount = order->amount,
        .epoch = order->epoch,
        .account = order->account,
        .instrument = order->instrument,
        .exec_inst = order->exec_inst,
        .expire_s = order->expire_s,
        .reason = reason,
        .trailing = order->trailing,
        .side = order->side,
        .order_type = order->order_type,
        .time_in_force = order->time_in_force,
        .status = order->status,
        .tier = order->tier,
    };
    memcpy(row->client_text, order->client_text, sizeof row->client_text);
    return true;
}

/* ---- marks ------------------------------------------------------------------------------------------------------------ */

static uint64_t order_id_at(const report_slot_t *report)
{
    /* Order id stands at offset 8 in OrderExecuted and at 16 in most others; a wrong guess costs a useless prefetch. */
    uint64_t id;
    memcpy(&id, report->block + (report->template_id == TEMPLATE_ORDER_EXECUTED ? 8 : 16), sizeof id);
    return id;
}

static bool settle(ledger_t *ledger, const log_slot_t *slot, const report_span_t *spans)
{
    const settled_t *mark = (const settled_t *)slot->block;
    uint8_t partition = mark->settled_partition;

    if (partition == 0 || partition >= PARTITIONS_MAX)
        return ledger_fail(ledger, "a mark of partition %u", partition);
    const report_span_t *span = &spans[partition];
    int64_t from = ledger->settled[partition], to = (int64_t)mark->report_seq;
    if (to < from)
        return ledger_fail(ledger, "a mark of partition %u goes back from %lld to %lld", partition, (long long)from,
                           (long long)to);
    if (to > from && (span->first > from || span->first + span->count < to))
        return ledger_fail(ledger, "reports %lld to %lld of partition %u are not at hand", (long long)from,
                           (long long)to - 1, partition);
    ledger_begin_entry(ledger, (uint64_t)ledger->position, slot->ts_ns);
    for (int64_t i = from; i < to; i++) {
        const report_slot_t *report = &span->slots[i - span->first];
        if (i + REPORTS_AHEAD < to)
            open_orders_prefetch(&ledger->orders, partition, order_id_at(report + REPORTS_AHEAD));
        if (!ledger_settle_report(ledger, partition, i, report))
            return false;
    }
    if (ledger->half.open)
        return ledger_fail(ledger, "trade %llu of instrument %u has only one side",
                           (unsigned long long)ledger->half.trade.trade_id, ledger->half.trade.instrument);
    ledger->settled[partition] = to;
    ledger->counts.reports += (uint64_t)(to - from);
    return ledger_end_entry(ledger);
}

/* The exchange's own hash of its balances: what makes the two agree, or not, at every mark. */
static void compare(ledger_t *ledger, const hash_mark_t *mark)
{
    uint64_t own[2];

    books_mark_hash(&ledger->books, own);
    ledger->counts.marks_compared++;
    if (own[0] == mark->accounts_hash_low && own[1] == mark->accounts_hash_high) {
        if (ledger->counts.marks_differing == 0)
            ledger->counts.last_mark_equal = ledger->position;
        return;
    }
    if (ledger->counts.marks_differing++ == 0)
        ledger->counts.first_mark_differing = ledger->position;
}

void ledger_scan_marks(const log_slot_t *slots, int64_t count, int64_t *ends)
{
    for (int64_t i = 0; i < count; i++) {
        if (slots[i].template_id != TEMPLATE_SETTLED || slots[i].session != 0)
            continue;
        const settled_t *mark = (const settled_t *)slots[i].block;
        if (mark->settled_partition < PARTITIONS_MAX)
            ends[mark->settled_partition] = (int64_t)mark->report_seq;
    }
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

/* Records that the exchange writes itself. */
static bool own_record(ledger_t *ledger, const log_slot_t *slot, const report_span_t *spans)
{
    switch (slot->template_id) {
    case TEMPLATE_GENESIS:
        ledger->cluster = ((const genesis_t *)slot->block)->cluster_id;
        ledger->partitions = ((const genesis_t *)slot->block)->partition_count;
        return true;
    case TEMPLATE_EPOCH_START:
        ledger->epoch = ((const epoch_start_t *)slot->block)->epoch;
        return true;
    case TEMPLATE_SETTLED:
        return settle(ledger, slot, spans);
    case TEMPLATE_HASH_MARK:
        compare(ledger, (const hash_mark_t *)slot->block);
        return true;
    case TEMPLATE_SOURCE_OPEN:
    case TEMPLATE_TICK:
    case TEMPLATE_SNAPSHOT:
    case TEMPLATE_PAIRS_PAUSED:
    case TEMPLATE_PAIRS_RESUMED:
    case TEMPLATE_QUARANTINE: /* the refusal it causes is a report */
    case TEMPLATE_ACTIVATE:
        return true;
    default:
        return ledger_fail(ledger, "template %u of the exchange's own is not understood by this version of the ledger",
                           slot->template_id);
    }
}

static bool request(ledger_t *ledger, const log_slot_t *slot)
{
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        return open_order(ledger, slot);
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        return replace_order(ledger, slot);
    case TEMPLATE_BALANCE_ADJUST:
        return adjust_balance(ledger, slot);
    case TEMPLATE_ASSET_ADD:
        return add_asset(ledger, (const asset_add_t *)slot->block);
    case TEMPLATE_INSTRUMENT_ADD:
        return add_instrument(ledger, (const instrument_add_t *)slot->block);
    case TEMPLATE_ORDER_DETAILS:
        memcpy(ledger->details_text, ((const order_details_t *)slot->block)->client_text, sizeof ledger->details_text);
        return true;
    case TEMPLATE_SEQUENCE:
    case TEMPLATE_ORDER_CANCEL_REQUEST:
    case TEMPLATE_MASS_CANCEL_REQUEST:
    case TEMPLATE_ORDER_STATUS_REQUEST:
    case TEMPLATE_SESSION_NEGOTIATE:
    case TEMPLATE_SESSION_BIND:
    case TEMPLATE_SESSION_DOWN:
    case TEMPLATE_INSTRUMENT_LIMITS:
    case TEMPLATE_INSTRUMENT_STATE:
    case TEMPLATE_ACCOUNT_CREATE:
    case TEMPLATE_KEY_CREATE:
    case TEMPLATE_KEY_REVOKE:
    case TEMPLATE_SESSION_CREATE:
    case TEMPLATE_FEE_TIER_SET:
    case TEMPLATE_CAPACITY_SET:
    case TEMPLATE_KILL_SWITCH:
    case TEMPLATE_ACCOUNT_LIMITS:
    case TEMPLATE_INSTRUMENT_RULES:
    case TEMPLATE_INSTRUMENT_VOLATILITY:
    case TEMPLATE_INSTRUMENT_SCHEDULE:
        return true;
    default:
        return ledger_fail(ledger, "request template %u is not understood by this version of the ledger", slot->template_id);
    }
}

static bool take_record(ledger_t *ledger, const log_slot_t *slot, const report_span_t *spans)
{
    ledger->last_ts_ns = slot->ts_ns;
    if ((slot->flags & SLOT_FLAG_REJECT) != 0)
        return true;
    bool taken = slot->session == 0 && slot->template_id < TEMPLATE_SESSION_NEGOTIATE ? own_record(ledger, slot, spans)
                                                                                      : request(ledger, slot);
    if (slot->template_id != TEMPLATE_ORDER_DETAILS)
        memset(ledger->details_text, 0, sizeof ledger->details_text);
    return taken;
}

/* A half-made entry is no entry: its rows go. */
static void forget_rows(ledger_t *ledger, int64_t postings, int64_t trades, int64_t orders)
{
    const posting_t *rows = ledger->postings.rows;

    for (int64_t i = postings; i < ledger->postings.count; i++)
        ledger->books.entries[rows[i].slot].rows--;
    ledger->postings.count = postings;
    ledger->trades.count = trades;
    ledger->order_rows.count = orders;
}

int64_t ledger_feed(ledger_t *ledger, const log_slot_t *slots, int64_t first, int64_t count, const report_span_t *spans)
{
    if (ledger->failed)
        return LEDGER_FAILED;
    if (first != ledger->position) {
        ledger_fail(ledger, "records from %lld on came instead", (long long)first);
        return LEDGER_FAILED;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t postings = ledger->postings.count, trades = ledger->trades.count, orders = ledger->order_rows.count;
        if (!take_record(ledger, &slots[i], spans)) {
            forget_rows(ledger, postings, trades, orders);
            return LEDGER_FAILED;
        }
        ledger->counts.postings += (uint64_t)(ledger->postings.count - postings);
        ledger->counts.trades += (uint64_t)(ledger->trades.count - trades);
        ledger->counts.records++;
        ledger->position++;
    }
    return count;
}
