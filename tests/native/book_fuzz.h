/* Random commands to a matcher and to a slow, obvious model: one array of orders, searched from end to end for everything.
 *
 * Compared: every report with its quantities, codes, fees and flags; the resting orders in priority order; a book rebuilt from
 * the market events; all invariants of the book (matcher_check). The report ring is tiny and drained at random, the budget is
 * the smallest, and the window has 64 ticks, so that inputs are interrupted and windows slide all the time. */
#ifndef BULLRING_TESTS_BOOK_FUZZ_H
#define BULLRING_TESTS_BOOK_FUZZ_H

#include "matcher_kit.h"
#include "platform.h"

#define FUZZ_SLOTS 256 /* N */
#define FUZZ_LIVE_MAX 120
#define FUZZ_ACCOUNTS 8
#define FUZZ_BATCH 16
#define FUZZ_EXPECTED_MAX 8192
#define FUZZ_RING_SLOTS 16
#define FUZZ_TEXT_SIZE 256
#define FUZZ_QUOTE 10   /* as the kit's instrument */
#define FUZZ_BASE 1000

typedef struct model_order {
    uint64_t id; /* 0 = free */
    uint64_t cl_ord_id;
    uint64_t priority;      /* smaller = earlier */
    uint64_t account_order; /* when it first rested */
    int64_t price, leaves, cum;
    uint32_t account, session, stp_group;
    uint8_t side, tier, stp_mode;
    bool post_only;
} model_order_t;

typedef struct expected {
    uint16_t template_id;
    uint64_t order_id;
    int64_t quantity; /* accepted: total; executed: last; canceled; prevented; replaced: leaves; mass cancel: count */
    int64_t price;    /* executed, replaced */
    int64_t cum;
    int64_t fee;
    uint32_t fee_asset;
    uint32_t session;
    uint16_t code;
    bool final;
    bool more;
} expected_t;

typedef struct shadow {
    uint64_t id;
    int64_t price, quantity;
    uint64_t priority;
} shadow_t;

typedef struct fuzz {
    kit_t kit;
    uint64_t random;
    model_order_t orders[FUZZ_SLOTS];
    int live;
    uint64_t clock; /* gives priorities */
    uint8_t state;
    int64_t mid;
    expected_t expected[FUZZ_EXPECTED_MAX];
    int expected_count, expected_seen;
    shadow_t shadow[FUZZ_SLOTS];
    uint64_t shadow_clock, update_id;
    char difference[FUZZ_TEXT_SIZE]; /* what was found; empty = all the same */
} fuzz_t;

static const int32_t fuzz_maker_ppm[4] = {0, 100, -250, 333333};
static const int32_t fuzz_taker_ppm[4] = {0, 250, 400, 999999};

#define DIFFERENT(fuzz, ...)                                                          \
    do {                                                                              \
        if ((fuzz)->difference[0] == 0)                                               \
            snprintf((fuzz)->difference, sizeof((fuzz)->difference), __VA_ARGS__);    \
    } while (0)

static inline uint64_t fuzz_random(fuzz_t *fuzz)
{
    fuzz->random ^= fuzz->random >> 12;
    fuzz->random ^= fuzz->random << 25;
    fuzz->random ^= fuzz->random >> 27;
    return fuzz->random * UINT64_C(2685821657736338717) >> 11;
}

static inline int64_t fuzz_below(fuzz_t *fuzz, int64_t bound)
{
    return (int64_t)(fuzz_random(fuzz) % (uint64_t)bound);
}

static inline bool fuzz_chance(fuzz_t *fuzz, int percent)
{
    return fuzz_below(fuzz, 100) < percent;
}

/* ---- the model ---- */

static inline void model_expect(fuzz_t *fuzz, expected_t expected)
{
    CHECK(fuzz->expected_count < FUZZ_EXPECTED_MAX);
    fuzz->expected[fuzz->expected_count++] = expected;
}

static inline bool model_before(const model_order_t *a, const model_order_t *b)
{
    if (a->price != b->price)
        return a->side == SIDE_BUY ? a->price > b->price : a->price < b->price;
    return a->priority < b->priority;
}

/* First in priority of the other side within the limit, at or after `after` (NULL = from the front). */
static inline model_order_t *model_next(fuzz_t *fuzz, const model_order_t *taker, const model_order_t *after)
{
    model_order_t *best = NULL;
    for (int i = 0; i < FUZZ_SLOTS; i++) {
        model_order_t *order = &fuzz->orders[i];
        if (order->id == 0 || order->id == taker->id || order->side == taker->side)
            continue;
        if (taker->side == SIDE_BUY ? order->price > taker->price : order->price < taker->price)
            continue;
        if (after != NULL && !model_before(after, order))
            continue;
        if (best == NULL || model_before(order, best))
            best = order;
    }
    return best;
}

static inline bool model_own(const model_order_t *a, const model_order_t *b)
{
    if (a->stp_group != 0 || b->stp_group != 0)
        return a->stp_group == b->stp_group;
    return a->account == b->account;
}

static inline int64_t model_fee(int64_t received, int32_t ppm)
{
    int128_t exact = (int128_t)received * ppm;
    return received <= 0 || ppm <= 0 ? 0 : (int64_t)((exact + 999999) / 1000000);
}

static inline bool model_transfers(const model_order_t *maker, const model_order_t *taker)
{
    return taker->stp_mode == STP_MODE_TRANSFER && maker->stp_mode == STP_MODE_TRANSFER && model_own(maker, taker) &&
           maker->account != taker->account;
}

static inline void model_trade(fuzz_t *fuzz, model_order_t *maker, model_order_t *taker)
{
    int64_t quantity = maker->leaves < taker->leaves ? maker->leaves : taker->leaves;
    int64_t base = quantity * FUZZ_BASE;
    int64_t quote = quantity * maker->price * FUZZ_QUOTE;
    bool buys = taker->side == SIDE_BUY;
    int64_t taker_fee = model_fee(buys ? base : quote, fuzz_taker_ppm[taker->tier]);
    int64_t maker_fee = model_fee(buys ? quote : base, fuzz_maker_ppm[maker->tier]);
    uint32_t taker_asset = buys ? KIT_BASE_ASSET : KIT_QUOTE_ASSET;
    uint32_t maker_asset = buys ? KIT_QUOTE_ASSET : KIT_BASE_ASSET;
    if (fuzz_maker_ppm[maker->tier] < 0) {
        int64_t taker_gets = buys ? base : quote;
        int64_t rebate =
            taker_gets > 0 ? (int64_t)((int128_t)taker_gets * -fuzz_maker_ppm[maker->tier] / 1000000) : 0;
        /* Out of the taker's fee, without what only rounding made of it. */
        int64_t most = taker_fee == 0 ? 0 : (int64_t)((int128_t)taker_gets * fuzz_taker_ppm[taker->tier] / 1000000);
        maker_fee = -(rebate < most ? rebate : most);
        maker_asset = taker_asset;
    }
    if (model_transfers(maker, taker)) {
        maker_fee = taker_fee = 0;
        maker_asset = buys ? KIT_QUOTE_ASSET : KIT_BASE_ASSET;
    }
    maker->leaves -= quantity;
    maker->cum += quantity;
    taker->leaves -= quantity;
    taker->cum += quantity;
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_ORDER_EXECUTED, .order_id = maker->id, .quantity = quantity,
                                    .price = maker->price, .cum = maker->cum, .fee = maker_fee, .fee_asset = maker_asset,
                                    .session = maker->session, .final = maker->leaves == 0, .more = true});
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_ORDER_EXECUTED, .order_id = taker->id, .quantity = quantity,
                                    .price = maker->price, .cum = taker->cum, .fee = taker_fee, .fee_asset = taker_asset,
                                    .session = taker->session, .final = taker->leaves == 0});
    if (maker->leaves == 0)
        maker->id = 0;
}

static inline void model_canceled(fuzz_t *fuzz, const model_order_t *order, uint32_t session, int64_t quantity, uint16_t reason)
{
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_ORDER_CANCELED, .order_id = order->id, .quantity = quantity,
                                    .cum = order->cum, .session = session, .code = reason, .final = true});
}

/* The order loses `quantity` without a trade. */
static inline void model_prevented(fuzz_t *fuzz, model_order_t *order, int64_t quantity)
{
    if (quantity == 0)
        return;
    order->leaves -= quantity;
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_ORDER_PREVENTED, .order_id = order->id, .quantity = quantity,
                                    .cum = order->cum, .session = order->session, .final = order->leaves == 0});
}

static inline void model_prevent(fuzz_t *fuzz, model_order_t *maker, model_order_t *taker)
{
    bool decrements = taker->stp_mode == STP_MODE_DECREMENT || taker->stp_mode == STP_MODE_TRANSFER;
    int64_t smaller = maker->leaves < taker->leaves ? maker->leaves : taker->leaves;
    int64_t makers = decrements ? smaller : taker->stp_mode == STP_MODE_CANCEL_TAKER ? 0 : maker->leaves;
    int64_t takers = decrements ? smaller : taker->stp_mode == STP_MODE_CANCEL_MAKER ? 0 : taker->leaves;
    model_prevented(fuzz, maker, makers);
    model_prevented(fuzz, taker, takers);
    if (maker->leaves == 0)
        maker->id = 0;
}

static inline void model_match(fuzz_t *fuzz, model_order_t *taker)
{
    while (taker->leaves > 0) {
        model_order_t *maker = model_next(fuzz, taker, NULL);
        if (maker == NULL)
            return;
        if (taker->stp_mode != STP_MODE_NONE && model_own(maker, taker) && !model_transfers(maker, taker))
            model_prevent(fuzz, maker, taker);
        else
            model_trade(fuzz, maker, taker);
    }
}

static inline bool model_fok_fillable(fuzz_t *fuzz, const model_order_t *taker)
{
    int64_t found = 0;
    for (model_order_t *maker = model_next(fuzz, taker, NULL); maker != NULL; maker = model_next(fuzz, taker, maker)) {
        bool own = taker->stp_mode != STP_MODE_NONE && model_own(maker, taker);
        if (own && taker->stp_mode != STP_MODE_CANCEL_MAKER)
            break;
        found += own ? 0 : maker->leaves;
    }
    return found >= taker->leaves;
}

static inline uint16_t model_state_code(const fuzz_t *fuzz)
{
    return fuzz->state == MARKET_STATE_HALTED ? REJECT_CODE_MARKET_HALTED : 0;
}

static inline void model_new(fuzz_t *fuzz, model_order_t *order, uint8_t ord_type, uint8_t time_in_force)
{
    uint16_t code = model_state_code(fuzz);
    if (code == 0 && order->post_only && model_next(fuzz, order, NULL) != NULL)
        code = REJECT_CODE_WOULD_TAKE_LIQUIDITY;
    if (code != 0) {
        model_expect(fuzz, (expected_t){.template_id = TEMPLATE_ORDER_REJECTED, .order_id = order->id,
                                        .session = order->session, .code = code, .final = true});
        return;
    }
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_ORDER_ACCEPTED, .order_id = order->id,
                                    .quantity = order->leaves, .session = order->session});
    if (time_in_force == TIME_IN_FORCE_FOK && !model_fok_fillable(fuzz, order)) {
        model_canceled(fuzz, order, order->session, order->leaves, CANCEL_REASON_FOK_NOT_FILLABLE);
        return;
    }
    model_match(fuzz, order);
    if (order->leaves == 0)
        return;
    if (ord_type == ORD_TYPE_MARKET || time_in_force != TIME_IN_FORCE_GTC) {
        bool nothing = ord_type == ORD_TYPE_MARKET && order->cum == 0;
        model_canceled(fuzz, order, order->session, order->leaves,
                       nothing ? CANCEL_REASON_NO_LIQUIDITY : CANCEL_REASON_IOC_REMAINDER);
        return;
    }
    order->priority = ++fuzz->clock;
    order->account_order = order->priority;
    fuzz->orders[order->id % FUZZ_SLOTS] = *order;
}

static inline void model_refused(fuzz_t *fuzz, uint64_t id, uint32_t session, uint16_t code)
{
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_CANCEL_REPLACE_REJECT, .order_id = id, .session = session,
                                    .code = code});
}

static inline void model_replace(fuzz_t *fuzz, uint64_t id, uint32_t session, int64_t price, int64_t total)
{
    model_order_t *order = &fuzz->orders[id % FUZZ_SLOTS];
    if (order->id != id) {
        model_refused(fuzz, id, session, REJECT_CODE_TOO_LATE_TO_CANCEL);
        return;
    }
    int64_t old_total = order->leaves + order->cum;
    price = price == PX_OPT_NULL ? order->price : price;
    total = total == QTY_OPT_NULL ? old_total : total;
    model_order_t moved = *order;
    moved.price = price;
    moved.leaves = total - order->cum;
    uint16_t code = model_state_code(fuzz);
    if (code == 0 && total <= order->cum)
        code = REJECT_CODE_QTY_BELOW_FILLED;
    if (code == 0 && price == order->price && total == old_total)
        code = REJECT_CODE_REPLACE_NO_CHANGE;
    if (code == 0 && order->post_only && model_next(fuzz, &moved, NULL) != NULL)
        code = REJECT_CODE_WOULD_TAKE_LIQUIDITY;
    if (code != 0) {
        model_refused(fuzz, id, session, code);
        return;
    }
    bool keeps = price == order->price && total < old_total;
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_ORDER_REPLACED, .order_id = id, .quantity = moved.leaves,
                                    .price = price, .cum = moved.cum, .session = session, .code = keeps});
    if (!keeps) {
        model_match(fuzz, &moved);
        moved.priority = ++fuzz->clock;
    }
    if (moved.leaves == 0)
        moved.id = 0;
    *order = moved;
}

static inline void model_mass_cancel(fuzz_t *fuzz, uint32_t account, uint8_t side)
{
    int64_t count = 0;
    for (;; count++) {
        model_order_t *newest = NULL;
        for (int i = 0; i < FUZZ_SLOTS; i++) {
            model_order_t *order = &fuzz->orders[i];
            if (order->id != 0 && order->account == account && (side == SIDE_OR_BOTH_BOTH || order->side == side) &&
                (newest == NULL || order->account_order > newest->account_order))
                newest = order;
        }
        if (newest == NULL)
            break;
        model_canceled(fuzz, newest, newest->session, newest->leaves, CANCEL_REASON_MASS_CANCEL);
        newest->id = 0;
    }
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_MASS_CANCEL_REPORT, .quantity = count, .session = account});
}

/* ---- random commands: each goes to the model at once and returns its record ---- */

static inline int64_t fuzz_price(fuzz_t *fuzz)
{
    int kind = (int)fuzz_below(fuzz, 100);
    if (kind < 80)
        return fuzz->mid + fuzz_below(fuzz, 13) - 6;
    if (kind < 95)
        return fuzz->mid + fuzz_below(fuzz, 401) - 200;
    int64_t absurd = (int64_t)(fuzz_random(fuzz) & ((UINT64_C(1) << fuzz_below(fuzz, 50)) - 1));
    return fuzz_chance(fuzz, 50) ? absurd : -absurd;
}

static inline log_slot_t fuzz_new(fuzz_t *fuzz)
{
    static const uint8_t forces[] = {TIME_IN_FORCE_GTC, TIME_IN_FORCE_GTC, TIME_IN_FORCE_GTC, TIME_IN_FORCE_GTC,
                                     TIME_IN_FORCE_IOC, TIME_IN_FORCE_FOK};
    uint64_t id = fuzz->kit.next_id + 1;
    while (fuzz->orders[id % FUZZ_SLOTS].id != 0)
        id++;
    fuzz->kit.next_id = id;
    uint32_t account = 1 + (uint32_t)fuzz_below(fuzz, FUZZ_ACCOUNTS);
    kit_order_t terms = {.side = fuzz_chance(fuzz, 50) ? SIDE_BUY : SIDE_SELL,
                         .price = fuzz_price(fuzz),
                         .quantity = 1 + fuzz_below(fuzz, 20),
                         .account = account,
                         .session = account + FUZZ_ACCOUNTS * (uint32_t)fuzz_below(fuzz, 2),
                         .ord_type = fuzz_chance(fuzz, 8) ? ORD_TYPE_MARKET : ORD_TYPE_LIMIT,
                         .time_in_force = forces[fuzz_below(fuzz, (int64_t)sizeof(forces))],
                         .stp_mode = (uint8_t)fuzz_below(fuzz, STP_MODE_TRANSFER + 1),
                         .stp_group = fuzz_chance(fuzz, 20) ? 1 + (uint32_t)fuzz_below(fuzz, 3) : 0,
                         .tier = (uint8_t)fuzz_below(fuzz, 4)};
    if (terms.ord_type == ORD_TYPE_MARKET && terms.time_in_force == TIME_IN_FORCE_GTC)
        terms.time_in_force = TIME_IN_FORCE_IOC; /* as the sequencer has it */
    if (terms.ord_type == ORD_TYPE_LIMIT && terms.time_in_force == TIME_IN_FORCE_GTC && fuzz_chance(fuzz, 15))
        terms.exec_inst = EXEC_INST_POST_ONLY;
    model_order_t order = {.id = id, .price = terms.price, .leaves = terms.quantity, .account = account,
                           .session = terms.session, .stp_group = terms.stp_group, .side = terms.side, .tier = terms.tier,
                           .stp_mode = terms.stp_mode, .post_only = terms.exec_inst != 0};
    log_slot_t slot = kit_new_order_record(&fuzz->kit, id, terms);
    model_new(fuzz, &order, terms.ord_type, terms.time_in_force);
    return slot;
}

/* An order to cancel or replace: mostly a live one. */
static inline uint64_t fuzz_target(fuzz_t *fuzz, uint32_t *account)
{
    int start = (int)fuzz_below(fuzz, FUZZ_SLOTS);
    *account = 1 + (uint32_t)fuzz_below(fuzz, FUZZ_ACCOUNTS);
    if (fuzz_chance(fuzz, 5))
        return 1 + (uint64_t)fuzz_below(fuzz, (int64_t)fuzz->kit.next_id + 1);
    for (int i = 0; i < FUZZ_SLOTS; i++) {
        const model_order_t *order = &fuzz->orders[(start + i) % FUZZ_SLOTS];
        if (order->id != 0) {
            *account = order->account;
            return order->id;
        }
    }
    return 1;
}

static inline log_slot_t fuzz_cancel(fuzz_t *fuzz)
{
    uint32_t account;
    uint64_t id = fuzz_target(fuzz, &account);
    model_order_t *order = &fuzz->orders[id % FUZZ_SLOTS];
    if (order->id == id) {
        model_canceled(fuzz, order, account, order->leaves, CANCEL_REASON_CLIENT);
        order->id = 0;
    } else {
        model_refused(fuzz, id, account, REJECT_CODE_TOO_LATE_TO_CANCEL);
    }
    return kit_cancel_record(&fuzz->kit, id, account);
}

static inline log_slot_t fuzz_replace(fuzz_t *fuzz)
{
    uint32_t account;
    uint64_t id = fuzz_target(fuzz, &account);
    int64_t price = fuzz_chance(fuzz, 40) ? PX_OPT_NULL : fuzz_price(fuzz);
    int64_t total = fuzz_chance(fuzz, 30) ? QTY_OPT_NULL : 1 + fuzz_below(fuzz, 25);
    log_slot_t slot = kit_replace_record(&fuzz->kit, id, account, price, total);
    model_replace(fuzz, id, account, price, total);
    return slot;
}

static inline log_slot_t fuzz_mass_cancel(fuzz_t *fuzz)
{
    uint32_t account = 1 + (uint32_t)fuzz_below(fuzz, FUZZ_ACCOUNTS);
    log_slot_t slot = kit_record(&fuzz->kit, TEMPLATE_MASS_CANCEL_REQUEST, account);
    mass_cancel_request_t *block = (mass_cancel_request_t *)slot.block;
    slot.partition = PARTITION_ALL;
    block->account_id = account;
    block->side = (uint8_t)fuzz_below(fuzz, 3);
    block->scope = MASS_CANCEL_SCOPE_ACCOUNT;
    model_mass_cancel(fuzz, account, block->side);
    return slot;
}

static inline log_slot_t fuzz_state(fuzz_t *fuzz)
{
    log_slot_t slot = kit_record(&fuzz->kit, TEMPLATE_INSTRUMENT_STATE, 1);
    instrument_state_t *block = (instrument_state_t *)slot.block;
    /* Mostly open: otherwise little would happen. */
    fuzz->state = fuzz->state == MARKET_STATE_CONTINUOUS && fuzz_chance(fuzz, 20) ? MARKET_STATE_HALTED
                                                                               : MARKET_STATE_CONTINUOUS;
    block->instrument_id = KIT_INSTRUMENT;
    block->state = fuzz->state;
    model_expect(fuzz, (expected_t){.template_id = TEMPLATE_INSTRUMENT_STATE_REPORT, .session = 1, .code = fuzz->state});
    return slot;
}

static inline log_slot_t fuzz_command(fuzz_t *fuzz)
{
    int live = 0;
    for (int i = 0; i < FUZZ_SLOTS; i++)
        live += fuzz->orders[i].id != 0;
    int kind = (int)fuzz_below(fuzz, 1000);
    fuzz->mid += fuzz_below(fuzz, 3) - 1;
    if (fuzz_below(fuzz, 3000) == 0) /* the market jumps */
        fuzz->mid = fuzz_below(fuzz, (int64_t)1 << (4 + fuzz_below(fuzz, 40)));
    if (kind < 4)
        return fuzz_mass_cancel(fuzz);
    if (kind < 8)
        return fuzz_state(fuzz);
    if (live >= FUZZ_LIVE_MAX || kind < 250)
        return fuzz_cancel(fuzz);
    return kind < 500 ? fuzz_replace(fuzz) : fuzz_new(fuzz);
}

/* ---- comparison ---- */

static inline void fuzz_decode_rare(const report_slot_t *slot, expected_t *found)
{
    const void *block = slot->block;
    if (slot->template_id == TEMPLATE_MASS_CANCEL_REPORT)
        found->quantity = ((const mass_cancel_report_t *)block)->total_affected;
    if (slot->template_id == TEMPLATE_INSTRUMENT_STATE_REPORT)
        found->code = ((const instrument_state_report_t *)block)->state;
}

static inline expected_t fuzz_decode(const report_slot_t *slot)
{
    expected_t found = {.template_id = slot->template_id,
                        .session = slot->session,
                        .final = (slot->flags & REPORT_FLAG_FINAL) != 0,
                        .more = (slot->flags & REPORT_FLAG_MORE) != 0};
    const void *block = slot->block;
    switch (slot->template_id) {
    case TEMPLATE_ORDER_ACCEPTED: {
        const order_accepted_t *report = block;
        found.order_id = report->order_id;
        found.quantity = report->order_qty;
        break;
    }
    case TEMPLATE_ORDER_REJECTED: {
        const order_rejected_t *report = block;
        found.order_id = report->order_id;
        found.code = report->reject_code;
        break;
    }
    case TEMPLATE_ORDER_EXECUTED: {
        const order_executed_t *report = block;
        found.order_id = report->order_id;
        found.quantity = report->last_qty;
        found.price = report->last_px;
        found.cum = report->cum_qty;
        found.fee = report->fee;
        found.fee_asset = report->fee_asset_id;
        break;
    }
    case TEMPLATE_ORDER_CANCELED: {
        const order_canceled_t *report = block;
        found.order_id = report->order_id;
        found.quantity = report->canceled_qty;
        found.cum = report->cum_qty;
        found.code = report->cancel_reason;
        break;
    }
    case TEMPLATE_ORDER_PREVENTED: {
        const order_prevented_t *report = block;
        found.order_id = report->order_id;
        found.quantity = report->prevented_qty;
        found.cum = report->cum_qty;
        break;
    }
    case TEMPLATE_ORDER_REPLACED: {
        const order_replaced_t *report = block;
        found.order_id = report->order_id;
        found.quantity = report->leaves_qty;
        found.price = report->price;
        found.cum = report->cum_qty;
        found.code = report->priority_retained;
        break;
    }
    case TEMPLATE_CANCEL_REPLACE_REJECT: {
        const cancel_replace_reject_t *report = block;
        found.order_id = report->order_id;
        found.code = report->reject_code;
        break;
    }
    default:
        fuzz_decode_rare(slot, &found);
        break;
    }
    return found;
}

static inline void fuzz_compare_report(fuzz_t *fuzz, const report_slot_t *slot)
{
    if (fuzz->expected_seen == fuzz->expected_count) {
        DIFFERENT(fuzz, "a report too many: template %u", slot->template_id);
        return;
    }
    expected_t found = fuzz_decode(slot);
    const expected_t *want = &fuzz->expected[fuzz->expected_seen++];
    if (found.template_id != want->template_id || found.order_id != want->order_id || found.quantity != want->quantity ||
        found.price != want->price || found.cum != want->cum || found.fee != want->fee ||
        found.fee_asset != want->fee_asset || found.session != want->session || found.code != want->code ||
        found.final != want->final || found.more != want->more)
        DIFFERENT(fuzz, "report %u of order %llu (quantity %lld, fee %lld, code %u), not %u of order %llu (%lld, %lld, %u)",
                  found.template_id, (unsigned long long)found.order_id, (long long)found.quantity, (long long)found.fee,
                  found.code, want->template_id, (unsigned long long)want->order_id, (long long)want->quantity,
                  (long long)want->fee, want->code);
}

static inline void fuzz_apply_event(fuzz_t *fuzz, const market_slot_t *slot)
{
    const void *block = slot->block;
    if (slot->update_id != ++fuzz->update_id)
        DIFFERENT(fuzz, "update id %llu, not %llu", (unsigned long long)slot->update_id, (unsigned long long)fuzz->update_id);
    if (slot->template_id == TEMPLATE_INSTRUMENT_STATUS)
        return;
    uint64_t id = ((const order_delete_t *)block)->order_id; /* second field of every order event */
    shadow_t *shadow = &fuzz->shadow[id % FUZZ_SLOTS];
    if ((slot->template_id == TEMPLATE_ORDER_ADD) == (shadow->id != 0) ||
        (slot->template_id != TEMPLATE_ORDER_ADD && shadow->id != id))
        DIFFERENT(fuzz, "market event %u about order %llu does not follow", slot->template_id, (unsigned long long)id);
    switch (slot->template_id) {
    case TEMPLATE_ORDER_ADD: {
        const order_add_t *event = block;
        *shadow = (shadow_t){id, event->price, event->qty, ++fuzz->shadow_clock};
        break;
    }
    case TEMPLATE_ORDER_REPLACE: {
        const order_replace_t *event = block;
        *shadow = (shadow_t){id, event->new_price, event->new_qty, ++fuzz->shadow_clock};
        break;
    }
    case TEMPLATE_ORDER_EXECUTE:
        shadow->quantity -= ((const order_execute_t *)block)->last_qty;
        break;
    case TEMPLATE_ORDER_REDUCE:
        shadow->quantity = ((const order_reduce_t *)block)->new_qty;
        break;
    case TEMPLATE_ORDER_DELETE:
        shadow->quantity = 0;
        break;
    default:
        DIFFERENT(fuzz, "market event %u", slot->template_id);
    }
    if (shadow->quantity == 0)
        shadow->id = 0;
}

static inline void fuzz_drain(fuzz_t *fuzz, bool all)
{
    kit_t *kit = &fuzz->kit;
    int64_t end = ring_published(kit->reports);
    if (end > 0 && (((const report_slot_t *)ring_slot(kit->reports, end - 1))->flags & REPORT_FLAG_MORE) != 0)
        DIFFERENT(fuzz, "a publish splits the two reports of a trade");
    if (!all)
        end = kit->report_seen + fuzz_below(fuzz, end - kit->report_seen + 1);
    for (; kit->report_seen < end; kit->report_seen++)
        fuzz_compare_report(fuzz, (const report_slot_t *)ring_slot(kit->reports, kit->report_seen));
    ring_advance(kit->reports, 0, kit->report_seen);
    for (; kit->market_seen < ring_published(kit->market); kit->market_seen++)
        fuzz_apply_event(fuzz, (const market_slot_t *)ring_slot(kit->market, kit->market_seen));
}

static inline void fuzz_feed(fuzz_t *fuzz, const log_slot_t *slots, int64_t count)
{
    matcher_t *matcher = fuzz->kit.matcher;
    for (int64_t fed = 0; fed < count || !matcher_idle(matcher);) {
        fed += matcher_feed(matcher, slots + fed, matcher_position(matcher), count - fed);
        fuzz_drain(fuzz, false);
        if (fuzz->difference[0] != 0)
            return;
    }
    fuzz_drain(fuzz, true);
    if (fuzz->expected_seen != fuzz->expected_count)
        DIFFERENT(fuzz, "%d reports are missing", fuzz->expected_count - fuzz->expected_seen);
    fuzz->expected_seen = 0;
    fuzz->expected_count = 0;
}

static inline void fuzz_compare_book(fuzz_t *fuzz)
{
    matcher_order_t found[FUZZ_SLOTS];
    int listed = 0;
    int live = 0;
    const char *broken = matcher_check(fuzz->kit.matcher);
    if (broken != NULL)
        DIFFERENT(fuzz, "book_check: %s", broken);
    for (uint8_t side = SIDE_BUY; side <= SIDE_SELL; side++) {
        int64_t count = matcher_orders(fuzz->kit.matcher, KIT_INSTRUMENT, side, found, FUZZ_SLOTS);
        uint64_t before = 0;
        const model_order_t *previous = NULL;
        for (int64_t i = 0; i < count; i++) {
            const model_order_t *order = &fuzz->orders[found[i].order_id % FUZZ_SLOTS];
            const shadow_t *shadow = &fuzz->shadow[found[i].order_id % FUZZ_SLOTS];
            if (order->id != found[i].order_id || order->price != found[i].price || order->leaves != found[i].leaves)
                DIFFERENT(fuzz, "order %llu is not as in the model", (unsigned long long)found[i].order_id);
            if (previous != NULL && !model_before(previous, order))
                DIFFERENT(fuzz, "order %llu stands too early", (unsigned long long)found[i].order_id);
            if (shadow->id != order->id || shadow->price != order->price || shadow->quantity != order->leaves)
                DIFFERENT(fuzz, "order %llu is not as market data says", (unsigned long long)found[i].order_id);
            if (previous != NULL && previous->price == order->price && shadow->priority < before)
                DIFFERENT(fuzz, "order %llu is elsewhere in market data", (unsigned long long)found[i].order_id);
            before = shadow->priority;
            previous = order;
        }
        listed += (int)count;
    }
    for (int i = 0; i < FUZZ_SLOTS; i++)
        live += fuzz->orders[i].id != 0;
    if (listed != live)
        DIFFERENT(fuzz, "%d resting orders, not %d", listed, live);
}

static inline void fuzz_set_fees(fuzz_t *fuzz)
{
    for (uint8_t tier = 0; tier < 4; tier++) {
        log_slot_t slot = kit_record(&fuzz->kit, TEMPLATE_FEE_TIER_SET, 1);
        fee_tier_set_t *block = (fee_tier_set_t *)slot.block;
        slot.partition = PARTITION_ALL;
        block->tier = tier;
        block->maker_rate = fuzz_maker_ppm[tier];
        block->taker_rate = fuzz_taker_ppm[tier];
        fuzz_feed(fuzz, &slot, 1);
    }
}

/* Run until a difference is found or `commands` are done; returns how many were done. The caller looks at `difference`. */
static inline long fuzz_run(fuzz_t *fuzz, uint64_t seed, long commands)
{
    memset(fuzz, 0, sizeof(*fuzz));
    fuzz->random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    fuzz->mid = 1000;
    fuzz->state = MARKET_STATE_CONTINUOUS;
    kit_open(&fuzz->kit,
             (matcher_config_t){.orders_max = FUZZ_SLOTS, .instruments_max = 1, .accounts_max = FUZZ_ACCOUNTS,
                                .sessions_max = 2 * FUZZ_ACCOUNTS, .window_log2 = 6, .step_budget = 8},
             FUZZ_RING_SLOTS);
    atomic_store(&fuzz->kit.reports->header->consumers[0].gating, 1);
    fuzz_set_fees(fuzz);
    long done = 0;
    for (long batch = 0; done < commands && fuzz->difference[0] == 0; batch++) {
        log_slot_t slots[FUZZ_BATCH];
        int64_t count = 1 + fuzz_below(fuzz, FUZZ_BATCH);
        for (int64_t i = 0; i < count; i++)
            slots[i] = fuzz_command(fuzz);
        fuzz_feed(fuzz, slots, count);
        if (batch % 8 == 0 || batch < 1000)
            fuzz_compare_book(fuzz);
        done += count;
    }
    kit_free(&fuzz->kit);
    return done;
}

#endif
