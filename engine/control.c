/* Administration through the log: assets, instruments, accounts, keys, sessions, money, fees. Only privileged sessions. Checked like
 * orders (a pure verdict that completes the record with the ids it chose), answered with AdminAck on ring 0. */
#include "sequencer_state.h"

#include <string.h>

#include "invariant.h"

#define RATE_MAX 100000 /* a tenth of the amount, in millionths */

bool is_control(uint16_t template_id)
{
    return template_id >= TEMPLATE_ASSET_ADD && template_id <= TEMPLATE_ACCOUNT_LIMITS;
}

static uint16_t choose_id(uint32_t *id, uint32_t used, uint32_t max, bool exists)
{
    if (*id == 0)
        *id = used + 1;
    if (*id > max)
        return REJECT_CODE_CAPACITY_REACHED;
    return exists ? REJECT_CODE_ALREADY_EXISTS : REJECT_CODE_NONE;
}

static uint16_t admit_asset(const sequencer_t *sequencer, asset_add_t *request)
{
    const registry_t *registry = &sequencer->registry;
    bool exists = request->asset_id != 0 && registry_asset(registry, request->asset_id) != NULL;

    if (request->symbol[0] == 0)
        return REJECT_CODE_INVALID_SYMBOL;
    if (request->exponent < -18 || request->exponent > 0)
        return REJECT_CODE_INVALID_SCALE;
    for (uint32_t id = 1; id <= registry->assets_used; id++)
        if (memcmp(registry->assets[id].symbol, request->symbol, sizeof(request->symbol)) == 0)
            return REJECT_CODE_ALREADY_EXISTS;
    if (!accounts_has_room(&sequencer->accounts, 1)) /* the venue's own balance */
        return REJECT_CODE_BALANCE_CAPACITY;
    return choose_id(&request->asset_id, registry->assets_used, registry->assets_max, exists);
}

static uint16_t admit_instrument(const sequencer_t *sequencer, instrument_add_t *request)
{
    const registry_t *registry = &sequencer->registry;
    bool exists = request->instrument_id != 0 && registry_instrument(registry, request->instrument_id) != NULL;

    if (request->symbol[0] == 0)
        return REJECT_CODE_INVALID_SYMBOL;
    for (uint32_t id = 1; id <= registry->instruments_used; id++)
        if (memcmp(registry->instruments[id].symbol, request->symbol, sizeof(request->symbol)) == 0)
            return REJECT_CODE_ALREADY_EXISTS;
    if (registry_asset(registry, request->base_asset_id) == NULL ||
        registry_asset(registry, request->quote_asset_id) == NULL || request->base_asset_id == request->quote_asset_id)
        return REJECT_CODE_UNKNOWN_ASSET;
    if (request->tick_size <= 0 || request->lot_size <= 0 || request->quote_per_tick_lot <= 0 ||
        request->base_per_lot <= 0)
        return REJECT_CODE_INVALID_SCALE;
    uint16_t code = choose_id(&request->instrument_id, registry->instruments_used, registry->instruments_max, exists);
    if (code != REJECT_CODE_NONE)
        return code;
    if (request->assigned_partition == 0)
        request->assigned_partition = (uint8_t)((request->instrument_id - 1) % sequencer->config.partitions + 1);
    return request->assigned_partition > sequencer->config.partitions ? REJECT_CODE_OUT_OF_RANGE : REJECT_CODE_NONE;
}

static uint16_t admit_limits(const registry_t *registry, const instrument_limits_t *request)
{
    if (registry_instrument(registry, request->instrument_id) == NULL)
        return REJECT_CODE_UNKNOWN_INSTRUMENT;
    if (request->min_qty < 1 || request->max_qty < request->min_qty || request->min_notional < 0 ||
        request->max_notional < 0 || (request->max_notional != 0 && request->max_notional < request->min_notional) ||
        request->min_px < 0 || request->max_px < request->min_px || request->band_down_bps > 10000)
        return REJECT_CODE_OUT_OF_RANGE;
    if (request->reference_px != PX_NULL && request->reference_px < 0)
        return REJECT_CODE_OUT_OF_RANGE;
    return REJECT_CODE_NONE;
}

static uint16_t admit_balance(const sequencer_t *sequencer, const balance_adjust_t *request)
{
    const registry_t *registry = &sequencer->registry;
    const asset_t *asset = registry_asset(registry, request->asset_id);

    if (registry_account(registry, request->account_id) == NULL)
        return REJECT_CODE_UNKNOWN_ACCOUNT;
    if (asset == NULL)
        return REJECT_CODE_UNKNOWN_ASSET;
    if (request->amount == 0 || request->amount <= -AMOUNT_LIMIT || request->amount >= AMOUNT_LIMIT ||
        asset->external_units + request->amount >= AMOUNT_LIMIT)
        return REJECT_CODE_OUT_OF_RANGE;
    const balance_t *balance = accounts_find(&sequencer->accounts, request->account_id, request->asset_id);
    if (balance == NULL && !accounts_has_room(&sequencer->accounts, 1))
        return REJECT_CODE_BALANCE_CAPACITY;
    if (request->amount < 0 && (balance == NULL || balance->available + request->amount < 0))
        return REJECT_CODE_INSUFFICIENT_BALANCE;
    return REJECT_CODE_NONE;
}

static uint16_t admit_key(const registry_t *registry, const key_create_t *request)
{
    if (registry_account(registry, request->account_id) == NULL)
        return REJECT_CODE_UNKNOWN_ACCOUNT;
    if (request->access_key_id[0] == 0)
        return REJECT_CODE_INVALID_SYMBOL;
    if (registry_key(registry, request->access_key_id) != NULL)
        return REJECT_CODE_ALREADY_EXISTS;
    return registry->keys_used >= registry->keys_max ? REJECT_CODE_CAPACITY_REACHED : REJECT_CODE_NONE;
}

static uint16_t admit_session(const registry_t *registry, session_create_t *request)
{
    bool exists = request->session_id != 0 && registry_session(registry, request->session_id) != NULL;

    if (request->kind != SESSION_KIND_PRIVILEGED && registry_account(registry, request->account_id) == NULL)
        return REJECT_CODE_UNKNOWN_ACCOUNT;
    return choose_id(&request->session_id, registry->sessions_used, registry->sessions_max, exists);
}

/* Rates of a tier for one pair as they would be with `request` in force; unset = neither the pair nor all pairs have any. */
static fee_rates_t rates_with(const registry_t *registry, const fee_tier_set_t *request, uint8_t tier, uint32_t instrument)
{
    const fee_rates_t asked = {.maker = request->maker_rate, .taker = request->taker_rate, .set = 1};

    if (request->instrument_id == instrument && request->tier == tier)
        return asked;
    const fee_rates_t *own = registry_fee(registry, tier, instrument);
    if (own->set)
        return *own;
    return request->instrument_id == 0 && request->tier == tier ? asked : *registry_fee(registry, tier, 0);
}

/* A rebate is at most the smallest taker fee of the pair, so that a trade never costs the venue money (CORE section 4). */
static bool rebate_fits(const registry_t *registry, const fee_tier_set_t *request, uint32_t instrument)
{
    int32_t smallest_taker = RATE_MAX, largest_rebate = 0;

    for (uint8_t tier = 0; tier < FEE_TIERS; tier++) {
        const fee_rates_t rates = rates_with(registry, request, tier, instrument);
        if (!rates.set)
            continue;
        smallest_taker = rates.taker < smallest_taker ? rates.taker : smallest_taker;
        largest_rebate = -rates.maker > largest_rebate ? -rates.maker : largest_rebate;
    }
    return largest_rebate <= smallest_taker;
}

static uint16_t admit_fees(const registry_t *registry, const fee_tier_set_t *request)
{
    if (request->tier >= FEE_TIERS)
        return REJECT_CODE_OUT_OF_RANGE;
    if (request->instrument_id != 0 && registry_instrument(registry, request->instrument_id) == NULL)
        return REJECT_CODE_UNKNOWN_INSTRUMENT;
    if (request->taker_rate < 0 || request->taker_rate > RATE_MAX || request->maker_rate < -RATE_MAX ||
        request->maker_rate > RATE_MAX)
        return REJECT_CODE_OUT_OF_RANGE;
    /* Id 0 stands for the pairs without rates of their own, those to come included. */
    uint32_t first = request->instrument_id, last = first == 0 ? registry->instruments_used : first;
    for (uint32_t instrument = first; instrument <= last; instrument++)
        if (!rebate_fits(registry, request, instrument))
            return REJECT_CODE_OUT_OF_RANGE;
    return REJECT_CODE_NONE;
}

static uint16_t admit_account(const registry_t *registry, account_create_t *request)
{
    bool exists = request->account_id != 0 && registry_account(registry, request->account_id) != NULL;

    if (request->fee_tier >= FEE_TIERS)
        return REJECT_CODE_OUT_OF_RANGE;
    return choose_id(&request->account_id, registry->accounts_used, registry->accounts_max, exists);
}

static uint16_t admit_template(const sequencer_t *sequencer, log_slot_t *slot)
{
    const registry_t *registry = &sequencer->registry;
    void *block = slot->block;

    switch (slot->template_id) {
    case TEMPLATE_ASSET_ADD:
        return admit_asset(sequencer, block);
    case TEMPLATE_INSTRUMENT_ADD:
        return admit_instrument(sequencer, block);
    case TEMPLATE_INSTRUMENT_LIMITS:
        return admit_limits(registry, block);
    case TEMPLATE_INSTRUMENT_STATE:
        return registry_instrument(registry, ((instrument_state_t *)block)->instrument_id) == NULL
                   ? REJECT_CODE_UNKNOWN_INSTRUMENT
                   : REJECT_CODE_NONE;
    case TEMPLATE_ACCOUNT_CREATE:
        return admit_account(registry, block);
    case TEMPLATE_BALANCE_ADJUST:
        return admit_balance(sequencer, block);
    case TEMPLATE_KEY_CREATE:
        return admit_key(registry, block);
    case TEMPLATE_KEY_REVOKE:
        return registry_key(registry, ((key_revoke_t *)block)->access_key_id) == NULL ? REJECT_CODE_UNKNOWN_KEY
                                                                                      : REJECT_CODE_NONE;
    case TEMPLATE_SESSION_CREATE:
        return admit_session(registry, block);
    case TEMPLATE_FEE_TIER_SET:
        return admit_fees(registry, block);
    case TEMPLATE_ACCOUNT_LIMITS:
        if (((account_limits_t *)block)->fee_tier >= FEE_TIERS)
            return REJECT_CODE_OUT_OF_RANGE;
        return registry_account(registry, ((account_limits_t *)block)->account_id) == NULL ? REJECT_CODE_UNKNOWN_ACCOUNT
                                                                                           : REJECT_CODE_NONE;
    default:
        return REJECT_CODE_UNKNOWN_TEMPLATE;
    }
}

verdict_t control_admit(const sequencer_t *sequencer, log_slot_t *slot)
{
    const session_t *session = registry_session(&sequencer->registry, slot->session);
    uint16_t code = REJECT_CODE_NOT_PRIVILEGED;

    slot->partition = PARTITION_SEQUENCER;
    if (session->kind == SESSION_KIND_PRIVILEGED) {
        code = orders_validate(slot->template_id, slot->block);
        if (code == REJECT_CODE_NONE)
            code = admit_template(sequencer, slot);
    }
    if (code == REJECT_CODE_NONE &&
        (slot->template_id == TEMPLATE_INSTRUMENT_ADD || slot->template_id == TEMPLATE_INSTRUMENT_STATE ||
         slot->template_id == TEMPLATE_FEE_TIER_SET))
        slot->partition = PARTITION_ALL;
    return (verdict_t){.code = code, .rejected = code != REJECT_CODE_NONE};
}

static void apply_asset(sequencer_t *sequencer, const asset_add_t *request)
{
    registry_t *registry = &sequencer->registry;
    asset_t *asset = &registry->assets[request->asset_id];

    memcpy(asset->symbol, request->symbol, sizeof(asset->symbol));
    asset->exponent = request->exponent;
    asset->exists = 1;
    if (request->asset_id > registry->assets_used)
        registry->assets_used = request->asset_id;
    /* The venue's entry exists from the start, so that booking a fee never needs room. */
    (void)accounts_obtain(&sequencer->accounts, ACCOUNT_VENUE, request->asset_id);
}

static void apply_instrument(registry_t *registry, const instrument_add_t *request)
{
    instrument_t *instrument = &registry->instruments[request->instrument_id];

    *instrument = (instrument_t){
        .tick_size = request->tick_size,
        .lot_size = request->lot_size,
        .quote_per_tick_lot = request->quote_per_tick_lot,
        .base_per_lot = request->base_per_lot,
        .min_lots = 1,
        .max_lots = AMOUNT_LIMIT - 1,
        .min_ticks = 1,
        .max_ticks = AMOUNT_LIMIT - 1,
        .reference_ticks = PX_NULL,
        .base_asset = request->base_asset_id,
        .quote_asset = request->quote_asset_id,
        .partition = request->assigned_partition,
        .exists = 1,
        .type = request->instrument_type,
        .state = MARKET_STATE_CONTINUOUS,
        .price_exponent = request->price_exponent,
        .quantity_exponent = request->qty_exponent,
    };
    memcpy(instrument->symbol, request->symbol, sizeof(instrument->symbol));
    if (request->instrument_id > registry->instruments_used)
        registry->instruments_used = request->instrument_id;
}

static void apply_limits(registry_t *registry, const instrument_limits_t *request)
{
    instrument_t *instrument = &registry->instruments[request->instrument_id];

    instrument->min_lots = request->min_qty;
    instrument->max_lots = request->max_qty;
    instrument->min_notional = request->min_notional;
    instrument->max_notional = request->max_notional;
    instrument->min_ticks = request->min_px;
    instrument->max_ticks = request->max_px;
    instrument->band_up_bps = request->band_up_bps;
    instrument->band_down_bps = request->band_down_bps;
    if (!instrument->traded)
        instrument->reference_ticks = request->reference_px;
}

static void apply_balance(sequencer_t *sequencer, const balance_adjust_t *request)
{
    balance_t *balance = accounts_obtain(&sequencer->accounts, request->account_id, request->asset_id);

    balance_change(&sequencer->accounts, balance, request->amount, 0);
    sequencer->registry.assets[request->asset_id].external_units += request->amount;
}

static void apply_account(sequencer_t *sequencer, const account_create_t *request)
{
    registry_t *registry = &sequencer->registry;

    registry->accounts[request->account_id] = (account_t){
        .firm = request->firm_id,
        .stp_group = request->stp_group_id,
        .open_orders_max = sequencer->config.open_orders_per_account_max,
        .exists = 1,
        .fee_tier = request->fee_tier,
    };
    if (request->account_id > registry->accounts_used)
        registry->accounts_used = request->account_id;
}

static void apply_key(registry_t *registry, const key_create_t *request)
{
    api_key_t *key = &registry->keys[++registry->keys_used];

    memcpy(key->access_key, request->access_key_id, sizeof(key->access_key));
    memcpy(key->material, request->material, sizeof(key->material));
    key->account = request->account_id;
    key->permissions = request->permissions;
    key->credential_type = request->credential_type;
    key->exists = 1;
}

static void apply_session(registry_t *registry, const session_create_t *request)
{
    registry->sessions[request->session_id] =
        (session_t){.account = request->account_id, .kind = request->kind, .exists = 1};
    if (request->session_id > registry->sessions_used)
        registry->sessions_used = request->session_id;
}

/* Returns the id the command made or concerns. */
static uint64_t apply_template(sequencer_t *sequencer, uint16_t template_id, const void *block)
{
    registry_t *registry = &sequencer->registry;

    switch (template_id) {
    case TEMPLATE_ASSET_ADD:
        apply_asset(sequencer, block);
        return ((const asset_add_t *)block)->asset_id;
    case TEMPLATE_INSTRUMENT_ADD:
        apply_instrument(registry, block);
        return ((const instrument_add_t *)block)->instrument_id;
    case TEMPLATE_INSTRUMENT_LIMITS:
        apply_limits(registry, block);
        return ((const instrument_limits_t *)block)->instrument_id;
    case TEMPLATE_INSTRUMENT_STATE:
        return ((const instrument_state_t *)block)->instrument_id; /* the matcher's; settled when it reports */
    case TEMPLATE_ACCOUNT_CREATE:
        apply_account(sequencer, block);
        return ((const account_create_t *)block)->account_id;
    case TEMPLATE_BALANCE_ADJUST:
        apply_balance(sequencer, block);
        return ((const balance_adjust_t *)block)->account_id;
    case TEMPLATE_KEY_CREATE:
        apply_key(registry, block);
        return registry->keys_used;
    case TEMPLATE_KEY_REVOKE:
        registry_key(registry, ((const key_revoke_t *)block)->access_key_id)->exists = 0;
        return 0;
    case TEMPLATE_SESSION_CREATE:
        apply_session(registry, block);
        return ((const session_create_t *)block)->session_id;
    case TEMPLATE_FEE_TIER_SET: {
        const fee_tier_set_t *request = block;
        *registry_fee(registry, request->tier, request->instrument_id) =
            (fee_rates_t){.maker = request->maker_rate, .taker = request->taker_rate, .set = 1};
        return request->tier;
    }
    default: {
        INVARIANT(template_id == TEMPLATE_ACCOUNT_LIMITS);
        const account_limits_t *request = block;
        registry->accounts[request->account_id].open_orders_max = request->open_orders_max;
        registry->accounts[request->account_id].fee_tier = request->fee_tier;
        return request->account_id;
    }
    }
}

int64_t control_limit(const sequencer_t *sequencer, const log_slot_t *slot, uint16_t code)
{
    const registry_t *registry = &sequencer->registry;

    if (code == REJECT_CODE_INSUFFICIENT_BALANCE) {
        const balance_adjust_t *request = (const balance_adjust_t *)slot->block;
        const balance_t *balance = accounts_find(&sequencer->accounts, request->account_id, request->asset_id);
        return balance == NULL ? 0 : balance->available;
    }
    if (code != REJECT_CODE_CAPACITY_REACHED)
        return 0;
    switch (slot->template_id) {
    case TEMPLATE_ASSET_ADD:
        return registry->assets_max;
    case TEMPLATE_INSTRUMENT_ADD:
        return registry->instruments_max;
    case TEMPLATE_ACCOUNT_CREATE:
        return registry->accounts_max;
    case TEMPLATE_KEY_CREATE:
        return registry->keys_max;
    default:
        return registry->sessions_max;
    }
}

void control_apply(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    bool rejected = (slot->flags & SLOT_FLAG_REJECT) != 0;
    uint16_t code = rejected ? (uint16_t)slot->aux : (uint16_t)REJECT_CODE_NONE;
    int64_t limit = rejected ? control_limit(sequencer, slot, code) : 0;
    uint64_t result = rejected ? 0 : apply_template(sequencer, slot->template_id, slot->block);
    admin_ack_t *report = report0_begin(sequencer, slot->session, TEMPLATE_ADMIN_ACK, sequence, true);

    memcpy(&report->request_id, slot->block, sizeof(report->request_id)); /* first field of every admin block */
    report->result_id = result;
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->limit = limit;
    report->ref_template_id = slot->template_id;
    report->code = code;
    report0_commit(sequencer);
}
