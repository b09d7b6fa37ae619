#include "sequencer_state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "invariant.h"

#define MARK_SLOTS PARTITIONS_MAX     /* worst case of marks before a command */
#define INGRESS_AHEAD 8               /* slots looked ahead when warming caches */
#define PUBLISH_GROUPS 16             /* groups between publishes of the log while busy */

static const char *capacity_error(const sequencer_config_t *config)
{
    if (config->partitions < 1 || config->partitions >= PARTITIONS_MAX)
        return "partitions: 1 to 63";
    if (config->orders_per_partition < 64 || (config->orders_per_partition & (config->orders_per_partition - 1)) != 0)
        return "orders_per_partition: a power of two, at least 64";
    if (config->orders_per_partition > (1u << 28))
        return "orders_per_partition: at most 2^28";
    if (config->instruments_max < 1 || config->instruments_max > UINT16_MAX)
        return "instruments_max: 1 to 65535";
    if (config->accounts_max < 1 || config->balances_max < 1 || config->sessions_max < 1 || config->keys_max < 1 ||
        config->assets_max < 1 || config->open_orders_per_account_max < 1)
        return "accounts, balances, sessions, keys, assets, open orders: at least 1";
    if (config->balances_max > (1u << 30))
        return "balances_max: at most 2^30";
    return NULL;
}

static void carve(sequencer_t *sequencer)
{
    arena_t *arena = &sequencer->arena;

    accounts_carve(&sequencer->accounts, arena, sequencer->config.balances_max, sequencer->config.assets_max);
    registry_carve(&sequencer->registry, arena, &sequencer->config);
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        orders_carve(&sequencer->orders[partition], arena, sequencer->config.orders_per_partition);
}

sequencer_t *sequencer_new(const sequencer_config_t *config, const char **error)
{
    *error = capacity_error(config);
    if (*error != NULL)
        return NULL;
    sequencer_t *sequencer = calloc(1, sizeof(*sequencer));
    if (sequencer == NULL) {
        *error = "out of memory";
        return NULL;
    }
    sequencer->config = *config;
    carve(sequencer);
    if (arena_map(&sequencer->arena, sequencer->arena.used) != 0) {
        free(sequencer);
        *error = "the tables do not fit in memory: lower the capacities";
        return NULL;
    }
    carve(sequencer);
    sequencer->accounts.seed = config->hash_seed;
    for (uint32_t partition = 1; partition <= config->partitions; partition++) {
        sequencer->orders[partition].seed = config->hash_seed;
        orders_init(&sequencer->orders[partition]);
    }
    return sequencer;
}

void sequencer_free(sequencer_t *sequencer)
{
    if (sequencer == NULL)
        return;
    arena_unmap(&sequencer->arena);
    free(sequencer);
}

void sequencer_attach(sequencer_t *sequencer, ring_t *log, ring_t *reports0, ring_t *replies)
{
    sequencer->log = log;
    sequencer->reports0 = reports0;
    sequencer->replies = replies;
    sequencer->busy_position = sequencer->position;
}

void sequencer_attach_reports(sequencer_t *sequencer, uint8_t partition, ring_t *reports)
{
    INVARIANT(partition >= 1);
    INVARIANT(partition <= sequencer->config.partitions);
    settlement_t *settlement = &sequencer->settlements[partition];
    int64_t due = ring_capacity(reports) / 4;

    settlement->ring = reports;
    settlement->noted = settlement->applied;
    ring_advance(reports, 1, settlement->marked);
    atomic_store_explicit(&reports->header->consumers[1].gating, 1, memory_order_release);
    if (sequencer->marks_due_at == 0 || due < sequencer->marks_due_at)
        sequencer->marks_due_at = due;
}

void sequencer_attach_ingress(sequencer_t *sequencer, uint16_t source, ring_t *ingress)
{
    INVARIANT(source >= 1);
    INVARIANT(source < SOURCES_MAX);
    sequencer->ingress[source] = ingress;
    atomic_store_explicit(&ingress->header->consumers[0].gating, 1, memory_order_release);
    if (source + 1u > sequencer->sources_attached)
        sequencer->sources_attached = source + 1u;
}

/* ---- time --------------------------------------------------------------------------------------------------------- */

static uint64_t clock_ns(const sequencer_t *sequencer)
{
    struct timespec now;

    if (sequencer->fixed_time != 0)
        return sequencer->fixed_time;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t stamp(const sequencer_t *sequencer, uint64_t now)
{
    return now > sequencer->last_ts ? now : sequencer->last_ts + 1;
}

void sequencer_set_time(sequencer_t *sequencer, uint64_t now_ns)
{
    sequencer->fixed_time = now_ns;
}

/* ---- writing the log ---------------------------------------------------------------------------------------------- */

/* The next log slot, zeroed and stamped; the caller fills in the rest and calls seal(). Room was checked. */
static log_slot_t *open_slot(sequencer_t *sequencer, uint16_t template_id, uint64_t now)
{
    int64_t sequence = ring_claim(sequencer->log, 1);
    INVARIANT(sequence == sequencer->position);
    log_slot_t *slot = ring_slot(sequencer->log, sequence);

    *slot = (log_slot_t){.template_id = template_id, .ts_ns = stamp(sequencer, now)};
    return slot;
}

/* A client's request, copied into the next log slot and stamped. */
static log_slot_t *copy_slot(sequencer_t *sequencer, const log_slot_t *request, uint16_t source, int64_t index, uint64_t now)
{
    int64_t sequence = ring_claim(sequencer->log, 1);
    INVARIANT(sequence == sequencer->position);
    log_slot_t *slot = ring_slot(sequencer->log, sequence);

    *slot = *request;
    slot->ts_ns = stamp(sequencer, now);
    slot->source = source;
    slot->src_seq = (uint32_t)index;
    slot->flags &= SLOT_FLAG_MORE | SLOT_FLAG_REJECT;
    slot->partition = PARTITION_SEQUENCER;
    return slot;
}

static void seal(sequencer_t *sequencer, const log_slot_t *slot)
{
    apply_record(sequencer, slot, sequencer->position);
    if ((slot->flags & SLOT_FLAG_LAZY) == 0)
        sequencer->busy_position = sequencer->position;
}

static void publish(sequencer_t *sequencer)
{
    ring_t *log = sequencer->log;

    /* Before pub: the journaler that sees the records must see that they are wanted. */
    atomic_store_explicit(&log->header->wanted, sequencer->busy_position, memory_order_relaxed);
    ring_publish(log, sequencer->position);
}

static void write_marks(sequencer_t *sequencer, uint64_t now)
{
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        settlement_t *settlement = &sequencer->settlements[partition];
        if (settlement->applied == settlement->marked)
            continue;
        log_slot_t *slot = open_slot(sequencer, TEMPLATE_SETTLED, now);
        settled_t *mark = (settled_t *)slot->block;
        mark->report_seq = (uint64_t)settlement->applied;
        mark->settled_partition = (uint8_t)partition;
        slot->partition = PARTITION_ALL;
        slot->flags = SLOT_FLAG_LAZY;
        settlement->marked = settlement->applied;
        sequencer->counters[SEQUENCER_MARKS]++;
        seal(sequencer, slot);
    }
}

static bool marks_overdue(const sequencer_t *sequencer)
{
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        const settlement_t *settlement = &sequencer->settlements[partition];
        if (settlement->applied - settlement->marked > sequencer->marks_due_at)
            return true;
    }
    return false;
}

static bool marks_pending(const sequencer_t *sequencer)
{
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        if (sequencer->settlements[partition].applied != sequencer->settlements[partition].marked)
            return true;
    return false;
}

static void write_tick(sequencer_t *sequencer, uint64_t now)
{
    log_slot_t *slot = open_slot(sequencer, TEMPLATE_TICK, now);

    ((tick_t *)slot->block)->now = now;
    slot->partition = PARTITION_ALL;
    slot->flags = SLOT_FLAG_LAZY;
    seal(sequencer, slot);
}

static void write_hash_mark(sequencer_t *sequencer, uint64_t now)
{
    log_slot_t *slot = open_slot(sequencer, TEMPLATE_HASH_MARK, now);
    hash_mark_t *mark = (hash_mark_t *)slot->block;
    bool conserved = true;

    for (uint32_t asset = 1; asset <= sequencer->registry.assets_used; asset++)
        conserved &= sequencer->accounts.asset_totals[asset] == sequencer->registry.assets[asset].external_units;
    INVARIANT(conserved);
    mark->accounts_hash_low = (uint64_t)sequencer->accounts.hash;
    mark->accounts_hash_high = (uint64_t)(sequencer->accounts.hash >> 64);
    mark->mark_index = sequencer->mark_index + 1;
    mark->conservation_ok = conserved;
    slot->partition = PARTITION_ALL;
    slot->flags = SLOT_FLAG_LAZY;
    seal(sequencer, slot);
}

/* ---- step 2: settle ------------------------------------------------------------------------------------------------ */

static void note_reports(sequencer_t *sequencer)
{
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        settlement_t *settlement = &sequencer->settlements[partition];
        settlement->noted = ring_published(settlement->ring);
    }
    sequencer->draining = true;
}

static int64_t settle_some(sequencer_t *sequencer, uint8_t partition, int64_t bound, int64_t limit)
{
    settlement_t *settlement = &sequencer->settlements[partition];
    int64_t first = settlement->applied;
    int64_t last = bound - first > limit ? first + limit : bound;

    /* The ring waits for our cursor, so slots may be read in place. Two passes: the tables are larger than the caches. */
    for (int64_t sequence = first; sequence < last; sequence++)
        settle_prefetch(sequencer, partition, ring_slot(settlement->ring, sequence));
    for (int64_t sequence = first; sequence < last; sequence++)
        settle_report(sequencer, partition, ring_slot(settlement->ring, sequence));
    settlement->applied = last;
    return last - first;
}

/* Bounded by `limit`; resumes with the same noted bounds. True when everything noted is settled. */
static bool settle_noted(sequencer_t *sequencer, int64_t limit, int64_t *work)
{
    const int64_t chunk = 64;

    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        settlement_t *settlement = &sequencer->settlements[partition];
        while (settlement->applied < settlement->noted) {
            if (*work >= limit)
                return false;
            *work += settle_some(sequencer, (uint8_t)partition, settlement->noted, chunk);
        }
    }
    sequencer->draining = false;
    return true;
}

/* ---- step 3: commands ----------------------------------------------------------------------------------------------- */

static void not_applied(sequencer_t *sequencer, const log_slot_t *slot, const session_t *session)
{
    not_applied_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_NOT_APPLIED);

    reply->from_seq_no = session->last_incoming + 1;
    reply->count = (uint32_t)(slot->seq_num - session->last_incoming - 1);
    sequencer->counters[SEQUENCER_GAPS]++;
}

/* The exactly-once rule (CORE section 7): bound to this source, and exactly the next number. */
static bool admissible(sequencer_t *sequencer, const log_slot_t *slot, uint16_t source)
{
    const session_t *session = registry_session(&sequencer->registry, slot->session);

    if (session == NULL || !session->bound || session->source != source) {
        sequencer->counters[SEQUENCER_NOT_BOUND]++;
        return false;
    }
    if (slot->template_id == TEMPLATE_SEQUENCE)
        return ((const sequence_message_t *)slot->block)->next_seq_no > session->last_incoming + 1;
    if (slot->seq_num <= session->last_incoming) {
        sequencer->counters[SEQUENCER_DUPLICATES]++;
        return false;
    }
    if (slot->seq_num != session->last_incoming + 1) {
        not_applied(sequencer, slot, session);
        return false;
    }
    return true;
}

static void take_command(sequencer_t *sequencer, const log_slot_t *request, uint16_t source, int64_t index, uint64_t now)
{
    bool session_record = is_session_record(request->template_id);
    bool linked = sequencer->ingress_linked[source];

    sequencer->ingress_linked[source] = (request->flags & SLOT_FLAG_MORE) != 0;
    if (is_query(request->template_id)) {
        answer_query(sequencer, request);
        return;
    }
    if (session_record ? request->template_id < TEMPLATE_SESSION_NEGOTIATE
                       : !admissible(sequencer, request, source))
        return;
    log_slot_t *slot = copy_slot(sequencer, request, source, index, now);
    if (linked) /* the last one of a group shares the fate of the others */
        slot->flags |= SLOT_FLAG_MORE;
    verdict_t verdict = session_record ? session_admit(sequencer, slot) : admit(sequencer, slot);
    /* Never half a group in the log: a group is written whole or, as now, refused slot by slot. */
    slot->flags &= (uint16_t)~SLOT_FLAG_MORE;
    if (verdict.rejected) {
        slot->flags |= SLOT_FLAG_REJECT;
        slot->aux = verdict.code;
        slot->partition = PARTITION_SEQUENCER;
        sequencer->counters[SEQUENCER_REJECTED]++;
    }
    sequencer->counters[SEQUENCER_COMMANDS]++;
    seal(sequencer, slot);
}

static void warm_order(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t order_id,
                       uint64_t orig_client_id, uint64_t client_id)
{
    if (order_id != U64_NULL)
        PREFETCH(orders_line(orders, order_id));
    else
        orders_prefetch_client(orders, account, instrument, orig_client_id);
    if (client_id != 0)
        orders_prefetch_client(orders, account, instrument, client_id);
}

/* Touch what a request further down the ring will need: the tables are larger than the caches. Only hints: nothing is judged. */
static void warm(const sequencer_t *sequencer, const log_slot_t *request)
{
    const session_t *session = registry_session(&sequencer->registry, request->session);
    const void *block = request->block;

    if (session == NULL)
        return;
    if (request->template_id == TEMPLATE_NEW_ORDER_SINGLE) {
        const new_order_single_t *order = block;
        const instrument_t *instrument = registry_instrument(&sequencer->registry, order->instrument_id);
        if (instrument == NULL)
            return;
        uint32_t account = order->account_id != 0 ? order->account_id : session->account;
        accounts_prefetch(&sequencer->accounts, account,
                          order->side == SIDE_SELL ? instrument->base_asset : instrument->quote_asset);
        orders_prefetch_client(&sequencer->orders[instrument->partition], account, order->instrument_id,
                               order->cl_ord_id);
    } else if (request->template_id == TEMPLATE_ORDER_CANCEL_REQUEST) {
        const order_cancel_request_t *cancel = block;
        const instrument_t *instrument = registry_instrument(&sequencer->registry, cancel->instrument_id);
        if (instrument != NULL)
            warm_order(&sequencer->orders[instrument->partition], session->account, cancel->instrument_id,
                       cancel->order_id, cancel->orig_cl_ord_id, 0);
    } else if (request->template_id == TEMPLATE_ORDER_REPLACE_REQUEST) {
        const order_replace_request_t *replace = block;
        const instrument_t *instrument = registry_instrument(&sequencer->registry, replace->instrument_id);
        if (instrument != NULL)
            warm_order(&sequencer->orders[instrument->partition], session->account, replace->instrument_id,
                       replace->order_id, replace->orig_cl_ord_id, replace->cl_ord_id);
    }
}

static bool room_for_command(sequencer_t *sequencer)
{
    const int64_t worst = MARK_SLOTS + GROUP_SLOTS_MAX + 2;

    if (ring_room(sequencer->log, worst) < worst) {
        sequencer->counters[SEQUENCER_LOG_FULL]++;
        return false;
    }
    return answers_have_room(sequencer);
}

/* Commands of one source up to the noted bound. */
static int64_t take_source(sequencer_t *sequencer, uint16_t source, int64_t limit, uint64_t now, bool *marked)
{
    ring_t *ring = sequencer->ingress[source];
    int64_t next = sequencer->ingress_next[source];
    int64_t bound = sequencer->ingress_noted[source];
    int64_t done = 0, groups = 0;

    for (int64_t i = next; i < bound && i < next + INGRESS_AHEAD; i++)
        warm(sequencer, ring_slot(ring, i));
    while (next < bound && done < limit && room_for_command(sequencer)) {
        if (!*marked) {
            write_marks(sequencer, now);
            *marked = true;
        }
        if (next + INGRESS_AHEAD < bound)
            warm(sequencer, ring_slot(ring, next + INGRESS_AHEAD));
        take_command(sequencer, ring_slot(ring, next), source, next, now);
        next++;
        done++;
        if (++groups == PUBLISH_GROUPS) {
            publish(sequencer);
            groups = 0;
        }
    }
    sequencer->ingress_next[source] = next;
    return done;
}

static int64_t take_commands(sequencer_t *sequencer, int64_t limit, uint64_t now)
{
    int64_t work = 0;
    bool marked = false;

    for (uint32_t i = 0; i < sequencer->sources_attached && work < limit; i++) {
        uint32_t source = (sequencer->next_source + i) % sequencer->sources_attached;
        if (sequencer->ingress[source] != NULL && sequencer->ingress_next[source] < sequencer->ingress_noted[source])
            work += take_source(sequencer, (uint16_t)source, limit - work, now, &marked);
    }
    sequencer->next_source = sequencer->sources_attached == 0 ? 0 : (sequencer->next_source + 1) % sequencer->sources_attached;
    return work;
}

/* Marks, ticks and hash marks that are due without a command. */
static int64_t keep_time(sequencer_t *sequencer, uint64_t now)
{
    bool busy = sequencer->busy_position > sequencer->last_hash_position || marks_pending(sequencer);
    uint64_t tick_every = busy ? TICK_BUSY_NS : TICK_IDLE_NS;
    int64_t before = sequencer->position;

    if (!room_for_command(sequencer))
        return 0;
    if (marks_overdue(sequencer))
        write_marks(sequencer, now);
    if (now >= sequencer->last_tick_ts + tick_every) {
        write_marks(sequencer, now);
        write_tick(sequencer, now);
        if (busy && now >= sequencer->last_hash_ts + HASH_MARK_NS)
            write_hash_mark(sequencer, now);
    }
    return sequencer->position - before;
}

/* ---- step 4 --------------------------------------------------------------------------------------------------------- */

static void store_cursors(sequencer_t *sequencer)
{
    for (uint32_t source = 0; source < sequencer->sources_attached; source++) {
        ring_t *ring = sequencer->ingress[source];
        if (ring != NULL)
            ring_advance(ring, 0, sequencer->ingress_next[source]);
    }
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        ring_advance(sequencer->settlements[partition].ring, 1, sequencer->settlements[partition].marked);
}

static void note_ingress(sequencer_t *sequencer)
{
    for (uint32_t source = 0; source < sequencer->sources_attached; source++)
        if (sequencer->ingress[source] != NULL)
            sequencer->ingress_noted[source] = ring_published(sequencer->ingress[source]);
}

int64_t sequencer_poll(void *state, int64_t limit)
{
    sequencer_t *sequencer = state;
    int64_t work = 0;

    if (!sequencer->leading)
        return STAGE_IDLE;
    answers_release(sequencer);
    if (!sequencer->draining) {
        /* Ingress first: an order sent because of a fill is noted only if the fill was already published. */
        note_ingress(sequencer);
        note_reports(sequencer);
    }
    if (!settle_noted(sequencer, limit, &work))
        return work;
    uint64_t now = clock_ns(sequencer);
    int64_t before = sequencer->position;
    int64_t taken = take_commands(sequencer, limit, now);
    taken += keep_time(sequencer, now);
    if (sequencer->position != before)
        publish(sequencer);
    if (taken != 0 || work != 0)
        store_cursors(sequencer);
    answers_release(sequencer);
    return work + taken;
}

/* ---- leading and following ------------------------------------------------------------------------------------------ */

static void write_genesis(sequencer_t *sequencer, uint64_t now)
{
    log_slot_t *slot = open_slot(sequencer, TEMPLATE_GENESIS, now);
    const sequencer_config_t *config = &sequencer->config;

    *(genesis_t *)slot->block = (genesis_t){
        .cluster_id = config->cluster_id,
        .hash_seed = config->hash_seed,
        .partition_count = config->partitions,
        .orders_per_partition = config->orders_per_partition,
        .accounts_max = config->accounts_max,
        .balances_max = config->balances_max,
        .sessions_max = config->sessions_max,
        .instruments_max = config->instruments_max,
        .keys_max = config->keys_max,
        .assets_max = config->assets_max,
        .open_orders_per_account_max = config->open_orders_per_account_max,
    };
    seal(sequencer, slot);
}

static void write_source_open(sequencer_t *sequencer, uint16_t source, uint64_t now)
{
    log_slot_t *slot = open_slot(sequencer, TEMPLATE_SOURCE_OPEN, now);
    int64_t base = atomic_load_explicit(&sequencer->ingress[source]->header->consumers[0].cursor, memory_order_acquire);

    ((source_open_t *)slot->block)->base = (uint64_t)base;
    ((source_open_t *)slot->block)->source = source;
    sequencer->ingress_next[source] = base;
    sequencer->ingress_noted[source] = base;
    seal(sequencer, slot);
}

void sequencer_lead(sequencer_t *sequencer, uint64_t epoch, uint32_t node)
{
    uint64_t now = clock_ns(sequencer);

    INVARIANT(!sequencer->leading);
    INVARIANT(sequencer->log->claimed == sequencer->position);
    if (sequencer->position == 0)
        write_genesis(sequencer, now);
    log_slot_t *slot = open_slot(sequencer, TEMPLATE_EPOCH_START, now);
    ((epoch_start_t *)slot->block)->epoch = epoch;
    ((epoch_start_t *)slot->block)->node_id = node;
    slot->partition = PARTITION_ALL;
    seal(sequencer, slot);
    for (uint32_t source = 1; source < sequencer->sources_attached; source++)
        if (sequencer->ingress[source] != NULL)
            write_source_open(sequencer, (uint16_t)source, now);
    atomic_store_explicit(&sequencer->log->header->epoch, epoch, memory_order_relaxed);
    sequencer->leading = true;
    publish(sequencer);
}

static const char *genesis_mismatch(const sequencer_t *sequencer, const genesis_t *genesis)
{
    const sequencer_config_t *config = &sequencer->config;

    if (genesis->hash_seed != config->hash_seed)
        return "Genesis has another hash_seed than the configuration";
    if (genesis->partition_count != config->partitions)
        return "Genesis has another partition count than the configuration";
    if (genesis->orders_per_partition != config->orders_per_partition)
        return "Genesis has other orders_per_partition than the configuration";
    if (genesis->accounts_max != config->accounts_max || genesis->balances_max != config->balances_max ||
        genesis->sessions_max != config->sessions_max || genesis->instruments_max != config->instruments_max ||
        genesis->keys_max != config->keys_max || genesis->assets_max != config->assets_max ||
        genesis->open_orders_per_account_max != config->open_orders_per_account_max)
        return "Genesis has other capacities than the configuration";
    return NULL;
}

/* A mark in the log: settle up to it, if the reports are there already. */
static bool follow_mark(sequencer_t *sequencer, const settled_t *mark)
{
    settlement_t *settlement = &sequencer->settlements[mark->settled_partition];
    int64_t bound = (int64_t)mark->report_seq;

    if (ring_published(settlement->ring) < bound)
        return false;
    while (settlement->applied < bound)
        (void)settle_some(sequencer, mark->settled_partition, bound, bound - settlement->applied);
    settlement->marked = bound;
    settlement->noted = bound;
    ring_advance(settlement->ring, 1, bound);
    return true;
}

int64_t sequencer_feed(sequencer_t *sequencer, const log_slot_t *slots, int64_t first_sequence, int64_t count)
{
    int64_t done = 0;

    INVARIANT(!sequencer->leading);
    if (first_sequence != sequencer->position) {
        sequencer->error = "records fed out of order";
        return STAGE_FAILED;
    }
    for (; done < count; done++) {
        const log_slot_t *slot = &slots[done];
        if (ring_room(sequencer->reports0, GROUP_SLOTS_MAX) < GROUP_SLOTS_MAX)
            break;
        if (slot->template_id == TEMPLATE_GENESIS) {
            sequencer->error = genesis_mismatch(sequencer, (const genesis_t *)slot->block);
            if (sequencer->error != NULL)
                return STAGE_FAILED;
        }
        /* Only what the sequencer wrote itself: a client's refused record may carry any template. */
        bool own = slot->session == 0;
        if (own && slot->template_id == TEMPLATE_SETTLED && !follow_mark(sequencer, (const settled_t *)slot->block))
            break;
        if (own && slot->template_id == TEMPLATE_HASH_MARK) {
            const hash_mark_t *mark = (const hash_mark_t *)slot->block;
            if (mark->accounts_hash_low != (uint64_t)sequencer->accounts.hash ||
                mark->accounts_hash_high != (uint64_t)(sequencer->accounts.hash >> 64)) {
                sequencer->error = "state hash differs from the HASHMARK in the log";
                return STAGE_FAILED;
            }
        }
        apply_record(sequencer, slot, first_sequence + done);
        if ((slot->flags & SLOT_FLAG_LAZY) == 0)
            sequencer->busy_position = sequencer->position;
    }
    /* What is fed is committed: its answers may be seen at once. */
    if (ring_published(sequencer->reports0) != sequencer->reports0->claimed)
        ring_publish(sequencer->reports0, sequencer->reports0->claimed);
    return done;
}

/* ---- introspection --------------------------------------------------------------------------------------------------- */

int64_t sequencer_position(const sequencer_t *sequencer)
{
    return sequencer->position;
}

int64_t sequencer_settled(const sequencer_t *sequencer, uint8_t partition)
{
    return partition == PARTITION_SEQUENCER ? sequencer->next_report0 : sequencer->settlements[partition].marked;
}

uint64_t sequencer_epoch(const sequencer_t *sequencer)
{
    return sequencer->epoch;
}

const char *sequencer_error(const sequencer_t *sequencer)
{
    return sequencer->error;
}

int64_t sequencer_counter(const sequencer_t *sequencer, int which)
{
    INVARIANT(which >= 0 && which < SEQUENCER_COUNTERS);
    return sequencer->counters[which];
}

bool sequencer_balance(const sequencer_t *sequencer, uint32_t account, uint32_t asset, int64_t *available, int64_t *held)
{
    const balance_t *balance = asset == 0 ? NULL : accounts_find(&sequencer->accounts, account, asset);

    *available = balance == NULL ? 0 : balance->available;
    *held = balance == NULL ? 0 : balance->held;
    return balance != NULL;
}
