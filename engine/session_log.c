/* Sessions in the log: Negotiate, Bind, Down, SourceOpen, EpochStart, Genesis (PROTOCOL section 5, CORE section 7). The gateway has
 * verified the signature; state is checked here, where it is replayed. Answers are unnumbered: they frame the flows. */
#include "sequencer_state.h"

#include <string.h>

#include "invariant.h"

/* The operator's own socket may bind without a key: the file's permission is the authentication. */
static bool keyless(const log_slot_t *slot, const char access_key[ACCESS_KEY_SIZE])
{
    static const char none[ACCESS_KEY_SIZE];
    return slot->source == SOURCE_ADMIN && memcmp(access_key, none, ACCESS_KEY_SIZE) == 0;
}

static bool key_trades(const api_key_t *key)
{
    return (key->permissions & (PERMISSIONS_TRADE | PERMISSIONS_ADMIN)) != 0;
}

/* A Negotiate starts both flows anew and ends a connection, so a key that only reads is kept away from sessions that trade; one
 * of its own it may have. */
static bool key_may(const api_key_t *key, const session_t *session)
{
    if (key == NULL || key->account != session->account)
        return false;
    if (session->kind == SESSION_KIND_DROP_COPY)
        return (key->permissions & (PERMISSIONS_DROP_COPY | PERMISSIONS_ADMIN)) != 0;
    return !session->trades || key_trades(key);
}

static verdict_t admit_negotiate(const sequencer_t *sequencer, const log_slot_t *slot)
{
    const session_negotiate_t *request = (const session_negotiate_t *)slot->block;
    const session_t *session = registry_session(&sequencer->registry, request->session_id);
    const api_key_t *key = registry_key(&sequencer->registry, request->access_key_id);

    if (session == NULL)
        return refuse(NEGOTIATE_REJECT_CODE_CREDENTIALS);
    if (!keyless(slot, request->access_key_id)) {
        if (!key_may(key, session))
            return refuse(NEGOTIATE_REJECT_CODE_CREDENTIALS);
        if (request->timestamp <= key->last_timestamp)
            return refuse(NEGOTIATE_REJECT_CODE_INVALID_TIMESTAMP);
    }
    if (request->session_ver_id <= session->version)
        return refuse(NEGOTIATE_REJECT_CODE_DUPLICATE_ID);
    return ADMITTED;
}

static verdict_t admit_bind(const sequencer_t *sequencer, const log_slot_t *slot)
{
    const session_bind_t *request = (const session_bind_t *)slot->block;
    const session_t *session = registry_session(&sequencer->registry, request->session_id);
    const api_key_t *key = registry_key(&sequencer->registry, request->access_key_id);

    if (session == NULL)
        return refuse(ESTABLISH_REJECT_CODE_CREDENTIALS);
    if (!keyless(slot, request->access_key_id)) {
        if (!key_may(key, session))
            return refuse(ESTABLISH_REJECT_CODE_CREDENTIALS);
        if (request->timestamp <= key->last_timestamp)
            return refuse(ESTABLISH_REJECT_CODE_INVALID_TIMESTAMP);
    }
    if (session->version == 0 || request->session_ver_id != session->version)
        return refuse(ESTABLISH_REJECT_CODE_UNNEGOTIATED);
    if (request->next_seq_no <= session->last_incoming)
        return refuse(ESTABLISH_REJECT_CODE_NEXT_SEQ_NO);
    return ADMITTED;
}

verdict_t session_admit(const sequencer_t *sequencer, log_slot_t *slot)
{
    verdict_t verdict = ADMITTED;
    uint32_t named = 0;

    slot->partition = PARTITION_SEQUENCER;
    if (slot->template_id == TEMPLATE_SESSION_NEGOTIATE) {
        verdict = admit_negotiate(sequencer, slot);
        named = ((const session_negotiate_t *)slot->block)->session_id;
    } else if (slot->template_id == TEMPLATE_SESSION_BIND) {
        verdict = admit_bind(sequencer, slot);
        named = ((const session_bind_t *)slot->block)->session_id;
    } else
        return verdict;
    /* Matchers number per session too: they restart with a Negotiate and answer a Bind. They index by the slot's session, which
     * nobody has checked: the record's own was. */
    if (!verdict.rejected) {
        const session_t *session = &sequencer->registry.sessions[named];
        slot->partition = PARTITION_ALL;
        slot->session = named;
        if (slot->template_id == TEMPLATE_SESSION_BIND && session->kind == SESSION_KIND_DROP_COPY)
            slot->aux = session->account;
    }
    return verdict;
}

/* NULL: the operator's own socket has none. */
static const api_key_t *remember_nonce(sequencer_t *sequencer, const char access_key[ACCESS_KEY_SIZE], uint64_t timestamp)
{
    api_key_t *key = registry_key(&sequencer->registry, access_key);
    if (key != NULL)
        key->last_timestamp = timestamp;
    return key;
}

static void apply_negotiate(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const session_negotiate_t *request = (const session_negotiate_t *)slot->block;
    session_t *session = registry_session(&sequencer->registry, request->session_id);
    bool rejected = (slot->flags & SLOT_FLAG_REJECT) != 0;
    session_negotiated_t *report =
        report0_begin(sequencer, request->session_id, TEMPLATE_SESSION_NEGOTIATED, sequence, false);

    report->session_ver_id = request->session_ver_id;
    report->current_session_ver_id = session == NULL ? 0 : session->version;
    report->request_timestamp = request->timestamp;
    report->transact_time = slot->ts_ns;
    report->session_id = request->session_id;
    report->connection_id = request->connection_id;
    report->code = rejected ? (uint8_t)slot->aux : (uint8_t)NEGOTIATE_REJECT_CODE_NONE;
    report0_commit(sequencer);
    if (rejected)
        return;
    if (session->bound) /* its connection ends; whoever negotiated may not come to establish */
        disconnect_begin(sequencer, session, DOWN_CAUSE_CLIENT_DISCONNECT, slot->ts_ns);
    session->version = request->session_ver_id;
    session->last_incoming = 0;
    session->reports = 0;
    session->last_report = 0;
    session->bound = 0;
    const api_key_t *key = remember_nonce(sequencer, request->access_key_id, request->timestamp);
    session->trades = key != NULL && key_trades(key);
}

static void apply_bind(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const session_bind_t *request = (const session_bind_t *)slot->block;
    session_t *session = registry_session(&sequencer->registry, request->session_id);
    bool rejected = (slot->flags & SLOT_FLAG_REJECT) != 0;
    session_bound_t *report = report0_begin(sequencer, request->session_id, TEMPLATE_SESSION_BOUND, sequence, false);

    report->session_ver_id = request->session_ver_id;
    report->next_seq_no = session == NULL ? 0 : session->reports + 1;
    report->last_report_seq = session == NULL ? 0 : session->last_report;
    report->last_incoming_seq_no = session == NULL ? 0 : session->last_incoming;
    report->transact_time = slot->ts_ns;
    report->request_timestamp = request->timestamp;
    report->session_id = request->session_id;
    report->connection_id = request->connection_id;
    report->code = rejected ? (uint8_t)slot->aux : (uint8_t)ESTABLISH_REJECT_CODE_NONE;
    report->partition = PARTITION_SEQUENCER;
    if (!rejected && session->kind == SESSION_KIND_DROP_COPY) {
        sequencer->report0_open->flags |= REPORT_FLAG_DROP_COPY;
        report->next_seq_no = sequencer->registry.accounts[session->account].reports + 1;
    }
    report0_commit(sequencer);
    if (rejected)
        return;
    disconnect_end(sequencer, session);
    session->source = slot->source;
    session->connection = request->connection_id;
    session->cod_timeout_ms = request->cod_timeout_ms;
    session->cod_type = request->cod_type;
    session->bound = 1;
    (void)remember_nonce(sequencer, request->access_key_id, request->timestamp);
}

static void session_down(sequencer_t *sequencer, session_t *session, uint8_t cause, uint64_t ts_ns)
{
    if (!session->bound)
        return;
    session->bound = 0;
    if (cause != DOWN_CAUSE_SUPERSEDED)
        disconnect_begin(sequencer, session, cause, ts_ns);
}

/* A gateway that starts says so with session 0: whoever was bound through it has lost its connection. */
static void gateway_started(sequencer_t *sequencer, uint16_t source, uint64_t ts_ns)
{
    for (uint32_t id = SESSION_ADMIN + 1; id <= sequencer->registry.sessions_used; id++)
        if (sequencer->registry.sessions[id].source == source)
            session_down(sequencer, &sequencer->registry.sessions[id], DOWN_CAUSE_GATEWAY_DEAD, ts_ns);
}

void session_start_epoch(sequencer_t *sequencer, uint64_t ts_ns)
{
    registry_t *registry = &sequencer->registry;

    for (uint32_t id = 1; id <= registry->sessions_used; id++) {
        disconnect_extend(&registry->sessions[id], ts_ns);
        session_down(sequencer, &registry->sessions[id], DOWN_CAUSE_FAILOVER, ts_ns);
    }
    if (registry->sessions_used < SESSION_ADMIN)
        registry->sessions_used = SESSION_ADMIN;
    session_t *admin = &registry->sessions[SESSION_ADMIN];
    admin->exists = 1;
    admin->kind = SESSION_KIND_PRIVILEGED;
    admin->version = admin->version == 0 ? 1 : admin->version;
    admin->source = SOURCE_ADMIN;
    admin->bound = 1;
}

void session_apply(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const session_down_t *down = (const session_down_t *)slot->block;
    session_t *session;

    switch (slot->template_id) {
    case TEMPLATE_SESSION_NEGOTIATE:
        apply_negotiate(sequencer, slot, sequence);
        break;
    case TEMPLATE_SESSION_BIND:
        apply_bind(sequencer, slot, sequence);
        break;
    case TEMPLATE_SESSION_DOWN:
        session = registry_session(&sequencer->registry, down->session_id);
        /* A newer connection may have taken the session over meanwhile. */
        if (session != NULL && session->source == slot->source && session->connection == down->connection_id)
            session_down(sequencer, session, down->cause, slot->ts_ns);
        if (down->session_id == 0)
            gateway_started(sequencer, slot->source, slot->ts_ns);
        break;
    case TEMPLATE_EPOCH_START:
        sequencer->epoch = ((const epoch_start_t *)slot->block)->epoch;
        session_start_epoch(sequencer, slot->ts_ns);
        break;
    case TEMPLATE_SOURCE_OPEN: {
        const source_open_t *open = (const source_open_t *)slot->block;
        INVARIANT(open->source < SOURCES_MAX);
        sequencer->registry.sources[open->source].next = (int64_t)open->base;
        sequencer->registry.sources[open->source].open = 1;
        break;
    }
    default: /* Genesis: the capacities are checked where the log is opened */
        break;
    }
}
