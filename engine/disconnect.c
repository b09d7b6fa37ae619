/* Cancel on disconnect: a session whose client stays away loses its open orders. Counted in the time of the log, so that leader,
 * replicas and replays agree; the mass cancel it ends in is a record of the log (decision 0045). */
#include "sequencer_state.h"

#include <string.h>

#define NS_PER_MS UINT64_C(1000000)
#define OWN_FAULT_NS (UINT64_C(30) * NS_PER_SECOND) /* a client needs this long to find us again after a fault of ours */

enum disconnect_state {
    DISCONNECT_NONE,
    DISCONNECT_WAITING, /* until disconnect_ns */
    DISCONNECT_DUE,     /* its record is to be written */
};

static void wait_until(sequencer_t *sequencer, session_t *session, uint64_t ns)
{
    if (session->disconnect_state == DISCONNECT_NONE)
        sequencer->disconnects.waiting++;
    if (sequencer->disconnects.waiting == 1 || ns < sequencer->disconnects.next_ns)
        sequencer->disconnects.next_ns = ns;
    session->disconnect_state = DISCONNECT_WAITING;
    session->disconnect_ns = ns;
}

void disconnect_begin(sequencer_t *sequencer, session_t *session, uint8_t cause, uint64_t ts_ns)
{
    uint64_t timeout_ns = session->cod_timeout_ms * NS_PER_MS;
    bool ours = cause == DOWN_CAUSE_GATEWAY_DEAD || cause == DOWN_CAUSE_FAILOVER || cause == DOWN_CAUSE_SHUTDOWN;
    uint8_t asked = cause == DOWN_CAUSE_CLIENT_TERMINATE ? COD_TYPE_ON_TERMINATE : COD_TYPE_ON_DISCONNECT;

    if ((session->cod_type & asked) == 0 || session->disconnect_state == DISCONNECT_DUE)
        return;
    if (ours && timeout_ns < OWN_FAULT_NS)
        timeout_ns = OWN_FAULT_NS;
    wait_until(sequencer, session, ts_ns + timeout_ns);
}

/* The client is back. */
void disconnect_end(sequencer_t *sequencer, session_t *session)
{
    sequencer->disconnects.waiting -= session->disconnect_state == DISCONNECT_WAITING;
    sequencer->disconnects.due -= session->disconnect_state == DISCONNECT_DUE;
    session->disconnect_state = DISCONNECT_NONE;
}

/* While we were away nobody could come back. */
void disconnect_extend(session_t *session, uint64_t ts_ns)
{
    if (session->disconnect_state == DISCONNECT_WAITING && session->disconnect_ns < ts_ns + OWN_FAULT_NS)
        session->disconnect_ns = ts_ns + OWN_FAULT_NS;
}

void disconnect_tick(sequencer_t *sequencer, uint64_t ts_ns)
{
    registry_t *registry = &sequencer->registry;

    if (sequencer->disconnects.waiting == 0 || ts_ns < sequencer->disconnects.next_ns)
        return;
    sequencer->disconnects.next_ns = UINT64_MAX;
    for (uint32_t id = 1; id <= registry->sessions_used; id++) {
        session_t *session = &registry->sessions[id];
        if (session->disconnect_state != DISCONNECT_WAITING)
            continue;
        if (session->disconnect_ns <= ts_ns) {
            session->disconnect_state = DISCONNECT_DUE;
            sequencer->disconnects.waiting--;
            sequencer->disconnects.due++;
            sequencer->due_from = 1;
        } else if (session->disconnect_ns < sequencer->disconnects.next_ns)
            sequencer->disconnects.next_ns = session->disconnect_ns;
    }
}

/* One mass cancel of a session that is due. `source` 0: it is ours, not the client's. A gateway that died may leave thousands due
 * at once: each search goes on where the one before ended. */
void disconnect_write(sequencer_t *sequencer, uint64_t now)
{
    const registry_t *registry = &sequencer->registry;
    uint32_t id = sequencer->due_from;

    while (id <= registry->sessions_used && registry->sessions[id].disconnect_state != DISCONNECT_DUE)
        id++;
    INVARIANT(id <= registry->sessions_used);
    sequencer->due_from = id;
    const session_t *session = &registry->sessions[id];
    log_slot_t *slot = log_open(sequencer, TEMPLATE_MASS_CANCEL_REQUEST, now);
    slot->session = id;
    slot->partition = PARTITION_ALL;
    slot->ingress_ns = slot->ts_ns;
    *(mass_cancel_request_t *)slot->block = (mass_cancel_request_t){
        /* A privileged session may have orders of any account. */
        .account_id = session->kind == SESSION_KIND_PRIVILEGED ? 0 : session->account,
        .scope = MASS_CANCEL_SCOPE_SESSION,
    };
    log_seal(sequencer, slot);
}

void disconnect_apply(sequencer_t *sequencer, const log_slot_t *slot)
{
    session_t *session = registry_session(&sequencer->registry, slot->session);

    INVARIANT(session != NULL);
    INVARIANT(session->disconnect_state == DISCONNECT_DUE);
    disconnect_end(sequencer, session);
}
