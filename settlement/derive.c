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
    open_orders_free(&ledger->open);
    pool_free(&ledger->transfers);
    free(ledger->instruments);
    free(ledger->sums);
    free(ledger->entry_assets);
    row_list_free(&ledger->postings);
    row_list_free(&ledger->trades);
    row_list_free(&ledger->order_rows);
    row_list_free(&ledger->dirty);
    row_list_free(&ledger->touched);
    row_list_free(&ledger->scratch);
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

    if (asset->asset_id > ASSET_MAX)
        return ledger_fail(ledger, "asset %u: more than %d is not understood", asset->asset_id, ASSET_MAX);
    if (!reach((void **)&ledger->sums, &used, asset->asset_id, sizeof(house_sums_t)) ||
        !reach((void **)&ledger->entry_assets, &ledger->assets_used, asset->asset_id, sizeof(uint32_t)))
        return ledger_fail(ledger, "memory is short");
    /* The venue has both its balances in every asset from the start. */
    if (books_open(&ledger->books, BOOK_FEES, 0, asset->asset_id) == BOOKS_NONE ||
        books_open(&ledger->books, BOOK_DUST, 0, asset->asset_id) == BOOKS_NONE)
        return ledger_fail(ledger, "memory is short");
    return true;
}

static bool add_instrument(ledger_t *ledger, const instrument_add_t *added)
{
    if (added->instrument_id > INSTRUMENT_MAX)
        return ledger_fail(ledger, "instrument %u: more than %d is not understood", added->instrument_id, INSTRUMENT_MAX);
    if (added->base_asset_id >= ledger->assets_used || added->quote_asset_id >= ledger->assets_used)
        return ledger_fail(ledger, "instrument %u trades an asset that was never added", added->instrument_id);
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

uint8_t ledger_book_of(const ledger_t *ledger, uint32_t account)
{
    return ledger->insurance_account != 0 && account == ledger->insurance_account ? BOOK_INSURANCE : BOOK_CLIENT;
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
            pool_prefetch(&ledger->open.orders, open_order_key(partition, order_id_at(report + REPORTS_AHEAD)));
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
    case TEMPLATE_LIST_END:
        return ledger_end_list(ledger, slot);
    case TEMPLATE_SOURCE_OPEN:
    case TEMPLATE_TICK:
    case TEMPLATE_SNAPSHOT:
    case TEMPLATE_PAIRS_PAUSED:
    case TEMPLATE_PAIRS_RESUMED:
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
        return ledger_new_order(ledger, slot);
    case TEMPLATE_ORDER_DETAILS:
        return ledger_order_details(ledger, slot);
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        return ledger_cancel_order(ledger, slot);
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        return ledger_replace_order(ledger, slot);
    case TEMPLATE_ORDER_AMEND_REQUEST:
        return ledger_amend_order(ledger, slot);
    case TEMPLATE_ORDER_LIST_REQUEST:
        return ledger_begin_list(ledger, slot);
    case TEMPLATE_QUOTE:
        return ledger_begin_quote(ledger, slot);
    case TEMPLATE_QUOTE_LEG:
        return ledger_quote_side(ledger, slot);
    case TEMPLATE_BALANCE_ADJUST:
        return ledger_adjust_balance(ledger, slot);
    case TEMPLATE_ASSET_ADD:
        return add_asset(ledger, (const asset_add_t *)slot->block);
    case TEMPLATE_INSTRUMENT_ADD:
        return add_instrument(ledger, (const instrument_add_t *)slot->block);
    case TEMPLATE_QUARANTINE: /* the refusals it causes are reports */
    case TEMPLATE_SEQUENCE:
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

/* The exchange wrote it on behalf of a list, under the list's session. */
static bool is_due(const log_slot_t *slot)
{
    return slot->source == 0 && slot->session != 0 &&
           (slot->template_id == TEMPLATE_NEW_ORDER_SINGLE || slot->template_id == TEMPLATE_ORDER_DETAILS ||
            slot->template_id == TEMPLATE_ORDER_LIST_REQUEST);
}

static bool take_record(ledger_t *ledger, const log_slot_t *slot, const report_span_t *spans)
{
    bool first = !ledger->group.linked;

    ledger->last_ts_ns = slot->ts_ns;
    if (first)
        ledger->group = (group_t){0};
    ledger->group.linked = (slot->flags & SLOT_FLAG_MORE) != 0;
    if (is_due(slot))
        return ledger_take_due(ledger, slot, first);
    if ((slot->flags & SLOT_FLAG_REJECT) != 0)
        return true;
    if (slot->session == 0 && slot->template_id < TEMPLATE_SESSION_NEGOTIATE)
        return own_record(ledger, slot, spans);
    return request(ledger, slot);
}

/* A half-made entry is no entry: its rows go. */
static void forget_rows(ledger_t *ledger, int64_t postings, int64_t trades, int64_t orders)
{
    const posting_t *rows = ledger->postings.rows;

    for (int64_t i = postings; i < ledger->postings.count; i++)
        books_entry(&ledger->books, rows[i].slot)->rows--;
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
