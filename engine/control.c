/* Administration through the log: assets, instruments, accounts, keys, sessions, money, fees, kill switches. Only privileged
 * sessions. Checked like orders (a pure verdict that completes the record with the ids it chose), answered with AdminAck on ring 0. */
#include "control.h"

#include <string.h>

#define RATE_MAX 100000 /* a tenth of the amount, in millionths */
#define STP_GROUPS_MAX (UINT32_C(1) << 31) /* a matcher keeps groups and accounts in one number */

verdict_t choose_id(uint32_t *id, uint32_t used, uint32_t max, bool exists)
{
    if (*id == 0)
        *id = used + 1;
    if (*id > max)
        return refuse_at(REJECT_CODE_CAPACITY_REACHED, max);
    return exists ? refuse(REJECT_CODE_ALREADY_EXISTS) : ADMITTED;
}

/* ---- checks ----------------------------------------------------------------------------------------------------------------------- */

/* No balance changes: what is in transit under the reference is final (docs/LEDGER.md, "Money in and out"). */
static bool finishes_transfer(const balance_adjust_t *request)
{
    return request->amount == 0 && request->reference != 0 &&
           (request->kind == BALANCE_KIND_DEPOSIT || request->kind == BALANCE_KIND_WITHDRAWAL);
}

static verdict_t admit_balance(const sequencer_t *sequencer, const balance_adjust_t *request)
{
    const registry_t *registry = &sequencer->registry;
    const asset_t *asset = registry_asset(registry, request->asset_id);

    if (registry_account(registry, request->account_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ACCOUNT);
    if (asset == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ASSET);
    if (finishes_transfer(request))
        return ADMITTED;
    if (request->amount == 0 || request->amount <= -AMOUNT_LIMIT || request->amount >= AMOUNT_LIMIT ||
        asset->external_units + request->amount >= AMOUNT_LIMIT)
        return refuse(REJECT_CODE_OUT_OF_RANGE);
    const balance_t *balance = accounts_find(&sequencer->accounts, request->account_id, request->asset_id);
    if (balance == NULL && !accounts_has_room(&sequencer->accounts, 1))
        return refuse(REJECT_CODE_BALANCE_CAPACITY);
    if (request->amount < 0 && (balance == NULL || balance->available + request->amount < 0))
        return refuse_at(REJECT_CODE_INSUFFICIENT_BALANCE, balance == NULL ? 0 : balance->available);
    return ADMITTED;
}

static verdict_t admit_key(const registry_t *registry, const key_create_t *request)
{
    if (registry_account(registry, request->account_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ACCOUNT);
    if (request->access_key_id[0] == 0)
        return refuse(REJECT_CODE_INVALID_SYMBOL);
    if (registry_key(registry, request->access_key_id) != NULL)
        return refuse(REJECT_CODE_ALREADY_EXISTS);
    return registry->keys_used >= registry->keys_max ? refuse_at(REJECT_CODE_CAPACITY_REACHED, registry->keys_max)
                                                     : ADMITTED;
}

static verdict_t admit_session(const registry_t *registry, session_create_t *request)
{
    bool exists = request->session_id != 0 && registry_session(registry, request->session_id) != NULL;

    if (request->kind != SESSION_KIND_PRIVILEGED && registry_account(registry, request->account_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ACCOUNT);
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

static verdict_t admit_fees(const registry_t *registry, const fee_tier_set_t *request)
{
    if (request->tier >= FEE_TIERS)
        return refuse(REJECT_CODE_OUT_OF_RANGE);
    if (request->instrument_id != 0 && registry_instrument(registry, request->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    if (request->taker_rate < 0 || request->taker_rate > RATE_MAX || request->maker_rate < -RATE_MAX ||
        request->maker_rate > RATE_MAX)
        return refuse(REJECT_CODE_OUT_OF_RANGE);
    /* Id 0 stands for the pairs without rates of their own, those to come included. */
    uint32_t first = request->instrument_id, last = first == 0 ? registry->instruments_used : first;
    for (uint32_t instrument = first; instrument <= last; instrument++)
        if (!rebate_fits(registry, request, instrument))
            return refuse(REJECT_CODE_OUT_OF_RANGE);
    return ADMITTED;
}

static verdict_t admit_account(const registry_t *registry, account_create_t *request)
{
    bool exists = request->account_id != 0 && registry_account(registry, request->account_id) != NULL;

    if (request->fee_tier >= FEE_TIERS || request->stp_group_id >= STP_GROUPS_MAX)
        return refuse(REJECT_CODE_OUT_OF_RANGE);
    return choose_id(&request->account_id, registry->accounts_used, registry->accounts_max, exists);
}

static verdict_t admit_account_limits(const registry_t *registry, const account_limits_t *request)
{
    if (registry_account(registry, request->account_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ACCOUNT);
    return request->fee_tier >= FEE_TIERS ? refuse_at(REJECT_CODE_OUT_OF_RANGE, FEE_TIERS - 1) : ADMITTED;
}

/* Where a firm stands in the table of those that are killed, or a free place; NULL = neither. */
static uint32_t *killed_firm(const registry_t *registry, uint32_t firm)
{
    const uint32_t *place = NULL;

    for (uint32_t i = 0; i < KILLED_FIRMS_MAX; i++) {
        const uint32_t *entry = &registry->killed_firms[i];
        if (*entry == firm)
            return (uint32_t *)entry;
        if (*entry == 0 && place == NULL)
            place = entry;
    }
    return (uint32_t *)place;
}

static bool two_operators(uint32_t first, uint32_t second)
{
    return first != 0 && second != 0 && first != second;
}

static verdict_t admit_kill_switch(const registry_t *registry, const kill_switch_t *request)
{
    bool kill = request->action == KILL_ACTION_KILL;

    switch (request->scope) {
    case KILL_SCOPE_ACCOUNT:
        if (registry_account(registry, request->target_id) == NULL)
            return refuse(REJECT_CODE_UNKNOWN_ACCOUNT);
        break;
    case KILL_SCOPE_FIRM:
        if (request->target_id == 0)
            return refuse(REJECT_CODE_OUT_OF_RANGE);
        if (kill && killed_firm(registry, request->target_id) == NULL)
            return refuse_at(REJECT_CODE_CAPACITY_REACHED, KILLED_FIRMS_MAX);
        break;
    case KILL_SCOPE_INSTRUMENT:
        if (registry_instrument(registry, request->target_id) == NULL)
            return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
        break;
    default:
        break;
    }
    return kill || two_operators(request->first_operator, request->second_operator) ? ADMITTED : refuse(REJECT_CODE_SECOND_OPERATOR_REQUIRED);
}

/* Only while a matcher is away can it have published nothing of the input it died on. */
static verdict_t admit_quarantine(const sequencer_t *sequencer, const quarantine_t *request)
{
    if (!two_operators(request->first_operator, request->second_operator))
        return refuse(REJECT_CODE_SECOND_OPERATOR_REQUIRED);
    if (request->target_seq >= (uint64_t)sequencer->position)
        return refuse_at(REJECT_CODE_OUT_OF_RANGE, sequencer->position - 1);
    return sequencer->paused == 0 ? refuse(REJECT_CODE_OUT_OF_RANGE) : ADMITTED;
}

static verdict_t admit_template(const sequencer_t *sequencer, log_slot_t *slot)
{
    const registry_t *registry = &sequencer->registry;
    void *block = slot->block;
    verdict_t verdict;

    if (instrument_admit(sequencer, slot, &verdict))
        return verdict;
    switch (slot->template_id) {
    case TEMPLATE_ACCOUNT_CREATE:
        return admit_account(registry, block);
    case TEMPLATE_BALANCE_ADJUST:
        return admit_balance(sequencer, block);
    case TEMPLATE_KEY_CREATE:
        return admit_key(registry, block);
    case TEMPLATE_KEY_REVOKE:
        return registry_key(registry, ((key_revoke_t *)block)->access_key_id) == NULL ? refuse(REJECT_CODE_UNKNOWN_KEY)
                                                                                      : ADMITTED;
    case TEMPLATE_SESSION_CREATE:
        return admit_session(registry, block);
    case TEMPLATE_FEE_TIER_SET:
        return admit_fees(registry, block);
    case TEMPLATE_ACCOUNT_LIMITS:
        return admit_account_limits(registry, block);
    case TEMPLATE_KILL_SWITCH:
        return admit_kill_switch(registry, block);
    case TEMPLATE_QUARANTINE:
        return admit_quarantine(sequencer, block);
    default:
        return refuse(REJECT_CODE_UNKNOWN_TEMPLATE);
    }
}

/* Which matchers a record concerns besides the sequencer. */
static uint8_t partition_of_record(const sequencer_t *sequencer, const log_slot_t *slot)
{
    switch (slot->template_id) {
    case TEMPLATE_INSTRUMENT_ADD:
    case TEMPLATE_ACCOUNT_CREATE:
    case TEMPLATE_FEE_TIER_SET:
        return PARTITION_ALL;
    case TEMPLATE_KILL_SWITCH:
        return ((const kill_switch_t *)slot->block)->action == KILL_ACTION_KILL ? PARTITION_ALL : PARTITION_SEQUENCER;
    case TEMPLATE_INSTRUMENT_LIMITS:
        return partition_of(sequencer, ((const instrument_limits_t *)slot->block)->instrument_id);
    case TEMPLATE_INSTRUMENT_STATE:
        return partition_of(sequencer, ((const instrument_state_t *)slot->block)->instrument_id);
    case TEMPLATE_INSTRUMENT_VOLATILITY:
        return partition_of(sequencer, ((const instrument_volatility_t *)slot->block)->instrument_id);
    case TEMPLATE_INSTRUMENT_SCHEDULE:
        return partition_of(sequencer, ((const instrument_schedule_t *)slot->block)->instrument_id);
    default:
        return PARTITION_SEQUENCER;
    }
}

verdict_t control_admit(const sequencer_t *sequencer, log_slot_t *slot)
{
    const session_t *session = registry_session(&sequencer->registry, slot->session);

    slot->partition = PARTITION_SEQUENCER;
    if (session->kind != SESSION_KIND_PRIVILEGED)
        return refuse(REJECT_CODE_NOT_PRIVILEGED);
    uint16_t code = orders_validate(slot->template_id, slot->block);
    if (code != REJECT_CODE_NONE)
        return refuse(code);
    verdict_t verdict = admit_template(sequencer, slot);
    if (!verdict.rejected)
        slot->partition = partition_of_record(sequencer, slot);
    return verdict;
}

/* ---- effects ---------------------------------------------------------------------------------------------------------------------- */

static void apply_balance(sequencer_t *sequencer, const balance_adjust_t *request)
{
    if (finishes_transfer(request))
        return;
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

static void apply_account_limits(registry_t *registry, const account_limits_t *request)
{
    account_t *account = &registry->accounts[request->account_id];

    account->open_orders_max = request->open_orders_max;
    account->fee_tier = request->fee_tier;
    account->rate_max[RATE_ORDERS_10S] = request->orders_per10_seconds;
    account->rate_max[RATE_ORDERS_DAY] = request->orders_per_day;
    account->rate_max[RATE_CANCELS_10S] = request->cancels_per10_seconds;
}

static void apply_kill_switch(registry_t *registry, const kill_switch_t *request)
{
    bool kill = request->action == KILL_ACTION_KILL;

    switch (request->scope) {
    case KILL_SCOPE_ACCOUNT:
        registry->accounts[request->target_id].killed = kill;
        break;
    case KILL_SCOPE_FIRM: {
        uint32_t *place = killed_firm(registry, request->target_id);
        if (kill)
            *place = request->target_id;
        else if (place != NULL && *place == request->target_id)
            *place = 0;
        break;
    }
    case KILL_SCOPE_INSTRUMENT:
        registry->instruments[request->target_id].killed = kill;
        break;
    default:
        registry->killed_all = kill;
        break;
    }
}

/* Returns the id the command made or concerns. */
static uint64_t apply_template(sequencer_t *sequencer, uint16_t template_id, const void *block)
{
    registry_t *registry = &sequencer->registry;
    const fee_tier_set_t *fees = block;

    switch (template_id) {
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
    case TEMPLATE_FEE_TIER_SET:
        *registry_fee(registry, fees->tier, fees->instrument_id) =
            (fee_rates_t){.maker = fees->maker_rate, .taker = fees->taker_rate, .set = 1};
        return fees->tier;
    case TEMPLATE_ACCOUNT_LIMITS:
        apply_account_limits(registry, block);
        return ((const account_limits_t *)block)->account_id;
    case TEMPLATE_KILL_SWITCH:
        apply_kill_switch(registry, block);
        return ((const kill_switch_t *)block)->target_id;
    case TEMPLATE_QUARANTINE: /* of concern to matchers that replay the log from before it */
        return ((const quarantine_t *)block)->target_seq;
    default:
        return instrument_apply(sequencer, template_id, block);
    }
}

void control_apply(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence, int64_t limit)
{
    bool rejected = (slot->flags & SLOT_FLAG_REJECT) != 0;
    uint64_t result = rejected ? 0 : apply_template(sequencer, slot->template_id, slot->block);
    admin_ack_t *report = report0_begin(sequencer, slot->session, TEMPLATE_ADMIN_ACK, sequence, true);

    memcpy(&report->request_id, slot->block, sizeof(report->request_id)); /* first field of every admin block */
    report->result_id = result;
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->limit = limit;
    report->ref_template_id = slot->template_id;
    report->code = rejected ? (uint16_t)slot->aux : (uint16_t)REJECT_CODE_NONE;
    report0_commit(sequencer);
}
