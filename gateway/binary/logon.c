#include <string.h>

#include "internal.h"

#define COD_TIMEOUT_MAX_MS 60000

/* ---- queues between the stage and the thread that checks signatures ----------------------------------------------- */

static bool event_put(event_queue_t *queue, const server_event_t *event)
{
    uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    /* Acquire: the consumer is done with the entry. Pairs with its release of `head`. */
    if (tail - atomic_load_explicit(&queue->head, memory_order_acquire) > queue->mask)
        return false;
    queue->items[tail & queue->mask] = *event;
    /* Release: the entry before the count that names it. Pairs with the acquire in server_next_event(). */
    atomic_store_explicit(&queue->tail, tail + 1, memory_order_release);
    return true;
}

int server_next_event(server_t *server, server_event_t *event)
{
    event_queue_t *queue = &server->events;
    uint32_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);

    if (head == atomic_load_explicit(&queue->tail, memory_order_acquire))
        return 0;
    *event = queue->items[head & queue->mask];
    atomic_store_explicit(&queue->head, head + 1, memory_order_release);
    return 1;
}

int server_answer(server_t *server, const server_answer_t *answer)
{
    answer_queue_t *queue = &server->answers;
    uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);

    if (tail - atomic_load_explicit(&queue->head, memory_order_acquire) > queue->mask)
        return 0;
    queue->items[tail & queue->mask] = *answer;
    /* Release: pairs with the acquire in logon_answers(). */
    atomic_store_explicit(&queue->tail, tail + 1, memory_order_release);
    return 1;
}

/* ---- the request ------------------------------------------------------------------------------------------------- */

static const negotiate_t *logon_negotiate(const connection_t *connection)
{
    return (const negotiate_t *)(connection->logon + FRAME_HEADER_SIZE);
}

static const establish_t *logon_establish(const connection_t *connection)
{
    return (const establish_t *)(connection->logon + FRAME_HEADER_SIZE);
}

static void logon_refuse(server_t *server, connection_t *connection, uint8_t code, uint64_t hint)
{
    server->counters.logons_refused++;
    if (connection->logon_template == TEMPLATE_NEGOTIATE) {
        negotiate_reject_t block = {
            .session_id = connection->session,
            .code = code,
            .session_ver_id = connection->session_ver_id,
            .request_timestamp = connection->logon_timestamp,
            .current_session_ver_id = hint,
        };
        connection_send(server, connection, TEMPLATE_NEGOTIATE_REJECT, 0, 0, &block);
    } else {
        establish_reject_t block = {
            .session_id = connection->session,
            .code = code,
            .session_ver_id = connection->session_ver_id,
            .request_timestamp = connection->logon_timestamp,
            .expected_seq_no = hint,
        };
        connection_send(server, connection, TEMPLATE_ESTABLISH_REJECT, 0, 0, &block);
    }
    connection_finish(server, connection, DOWN_CAUSE_SERVER_TERMINATE);
}

static bool timestamp_fresh(server_t *server, uint64_t timestamp)
{
    uint64_t now = server_wall(server);
    uint64_t window = (uint64_t)server->config.timestamp_window_ms * 1000000;
    uint64_t distance = timestamp > now ? timestamp - now : now - timestamp;
    return distance <= window;
}

/* What can be refused without asking anybody. Returns the code of the request's own kind, 255 = go on. */
static uint8_t logon_precheck(server_t *server, const connection_t *connection, const frame_header_t *header)
{
    bool negotiate = connection->logon_template == TEMPLATE_NEGOTIATE;
    uint32_t session = connection->session;

    if (server->idle)
        return negotiate ? NEGOTIATE_REJECT_CODE_NOT_READY : ESTABLISH_REJECT_CODE_NOT_READY;
    if (negotiate && header->version > ORDERS_SCHEMA_VERSION)
        return NEGOTIATE_REJECT_CODE_UNSUPPORTED_VERSION;
    if (session <= SERVER_ADMIN_SESSION || session > server->config.sessions_max)
        return negotiate ? NEGOTIATE_REJECT_CODE_CREDENTIALS : ESTABLISH_REJECT_CODE_CREDENTIALS;
    if (!timestamp_fresh(server, connection->logon_timestamp))
        return negotiate ? NEGOTIATE_REJECT_CODE_INVALID_TIMESTAMP : ESTABLISH_REJECT_CODE_INVALID_TIMESTAMP;
    if (!negotiate) {
        uint32_t interval = logon_establish(connection)->keep_alive_interval_ms;
        if (interval < server->config.keep_alive_min_ms || interval > server->config.keep_alive_max_ms)
            return ESTABLISH_REJECT_CODE_KEEPALIVE_INTERVAL;
        if (logon_establish(connection)->cod_timeout_ms > COD_TIMEOUT_MAX_MS)
            return ESTABLISH_REJECT_CODE_UNSPECIFIED;
    }
    return NEGOTIATE_REJECT_CODE_NONE;
}

/* Ids of our own key queries: source in the top bits, because every gateway sees the reply ring. */
static uint64_t key_request_id(const server_t *server, const connection_t *connection)
{
    return (uint64_t)server->config.source << 48 | connection->id;
}

static bool key_query_write(server_t *server, const connection_t *connection)
{
    key_query_t block = {.request_id = key_request_id(server, connection)};
    bool negotiate = connection->logon_template == TEMPLATE_NEGOTIATE;

    memcpy(block.access_key_id,
           negotiate ? logon_negotiate(connection)->access_key_id : logon_establish(connection)->access_key_id,
           sizeof(block.access_key_id));
    log_slot_t *slot = ingress_slot(server, 0, TEMPLATE_KEY_QUERY, 0);
    if (slot == NULL)
        return false;
    memcpy(slot->block, &block, sizeof(block));
    return true;
}

/* First frame of a connection, or the next after NegotiateResponse. */
enum parse_verdict logon_frame(server_t *server, connection_t *connection, const frame_t *frame)
{
    uint16_t template_id = frame->header.template_id;

    if (framing_kind(template_id) != FRAME_SESSION || template_id == TEMPLATE_RETRANSMIT_REQUEST) {
        connection_terminate(server, connection, TERMINATE_CODE_NOT_ESTABLISHED, DOWN_CAUSE_SERVER_TERMINATE);
        return PARSE_DEAD;
    }
    memset(connection->logon, 0, sizeof(connection->logon));
    memcpy(connection->logon, &frame->header, FRAME_HEADER_SIZE);
    memcpy(connection->logon + FRAME_HEADER_SIZE, frame->block, frame->header.block_length);
    if (!framing_check_session(frame, connection->logon + FRAME_HEADER_SIZE)) {
        server->counters.malformed++;
        connection_terminate(server, connection, TERMINATE_CODE_DECODING_ERROR, DOWN_CAUSE_SERVER_TERMINATE);
        return PARSE_DEAD;
    }
    if (template_id == TEMPLATE_SEQUENCE)
        return PARSE_DONE;
    if (template_id == TEMPLATE_TERMINATE) {
        connection_terminate(server, connection, TERMINATE_CODE_FINISHED, DOWN_CAUSE_CLIENT_TERMINATE);
        return PARSE_DEAD;
    }
    bool negotiate = template_id == TEMPLATE_NEGOTIATE;
    connection->logon_template = (uint8_t)template_id;
    connection->logon_length = (uint16_t)frame->header.message_length;
    connection->session = negotiate ? logon_negotiate(connection)->session_id : logon_establish(connection)->session_id;
    connection->session_ver_id =
        negotiate ? logon_negotiate(connection)->session_ver_id : logon_establish(connection)->session_ver_id;
    connection->logon_timestamp =
        negotiate ? logon_negotiate(connection)->timestamp : logon_establish(connection)->timestamp;
    uint8_t code = logon_precheck(server, connection, &frame->header);
    if (code != NEGOTIATE_REJECT_CODE_NONE) {
        if (connection->session > server->config.sessions_max)
            connection->session = 0; /* never an index */
        logon_refuse(server, connection, code, 0);
        return PARSE_DEAD;
    }
    if (!key_query_write(server, connection))
        return PARSE_WAIT;
    connection->key_found = 0;
    connection->state = CONNECTION_KEY;
    return PARSE_DONE;
}

/* ---- the key ----------------------------------------------------------------------------------------------------- */

static void logon_hand_over(server_t *server, connection_t *connection)
{
    server_event_t event = {
        .connection_id = connection->id,
        .template_id = connection->logon_template,
        .key_found = connection->key_found,
        .credential_type = connection->key.credential_type,
        .permissions = connection->key.permissions,
        .frame_length = connection->logon_length,
        .account_id = connection->key.account_id,
        .last_timestamp = connection->key.last_timestamp,
    };
    memcpy(event.peer, connection->peer, sizeof(event.peer));
    memcpy(event.access_key_id, connection->key.access_key_id, sizeof(event.access_key_id));
    memcpy(event.material, connection->key.material, sizeof(event.material));
    memcpy(event.frame, connection->logon, sizeof(event.frame));
    connection->state = CONNECTION_VERIFY;
    if (!event_put(&server->events, &event))
        logon_refuse(server, connection,
                     connection->logon_template == TEMPLATE_NEGOTIATE ? NEGOTIATE_REJECT_CODE_NOT_READY
                                                                      : ESTABLISH_REJECT_CODE_NOT_READY,
                     0);
}

/* A key was revoked: which one, only its own query tells. */
void logon_check_keys(server_t *server)
{
    bool done = true;

    for (uint32_t i = 0; i < server->config.connections_max; i++) {
        connection_t *connection = &server->connections[i];
        if (!connection->key_to_check || connection->state != CONNECTION_ESTABLISHED)
            continue;
        connection->key_found = 0;
        if (key_query_write(server, connection))
            connection->key_to_check = false;
        else
            done = false; /* no room: the rest in the next turn */
    }
    server->keys_changed = !done;
    ingress_publish(server);
}

static void logon_key_checked(server_t *server, connection_t *connection, const report_slot_t *slot)
{
    if (slot->template_id == TEMPLATE_KEY_REPLY)
        connection->key_found = 1;
    else if (slot->template_id == TEMPLATE_QUERY_END && connection->key_found == 0) {
        server->counters.keys_revoked++;
        connection_terminate(server, connection, TERMINATE_CODE_CREDENTIALS_REVOKED, DOWN_CAUSE_SERVER_TERMINATE);
    }
}

/* KeyReply and QueryEnd of session 0: answers to key queries of all gateways. */
void logon_key_reply(server_t *server, const report_slot_t *slot)
{
    uint64_t request_id;

    memcpy(&request_id, slot->block, sizeof(request_id)); /* first field of both */
    if (request_id >> 48 != server->config.source)
        return;
    connection_t *connection = server_connection(server, (uint32_t)request_id);
    if (connection != NULL && connection->state == CONNECTION_ESTABLISHED)
        logon_key_checked(server, connection, slot);
    if (connection == NULL || connection->state != CONNECTION_KEY || request_id != key_request_id(server, connection))
        return;
    if (slot->template_id == TEMPLATE_KEY_REPLY) {
        memcpy(&connection->key, slot->block, sizeof(connection->key));
        connection->key_found = 1;
    } else if (slot->template_id == TEMPLATE_QUERY_END) {
        logon_hand_over(server, connection);
    }
}

/* ---- the answer of the checker ----------------------------------------------------------------------------------- */

static bool negotiate_write(server_t *server, const connection_t *connection)
{
    const negotiate_t *request = logon_negotiate(connection);
    session_negotiate_t block = {
        .session_ver_id = request->session_ver_id,
        .timestamp = request->timestamp,
        .session_id = request->session_id,
        .connection_id = connection->id,
    };
    memcpy(block.access_key_id, request->access_key_id, sizeof(block.access_key_id));
    log_slot_t *slot = ingress_slot(server, connection->session, TEMPLATE_SESSION_NEGOTIATE, 0);
    if (slot == NULL)
        return false;
    memcpy(slot->block, &block, sizeof(block));
    ingress_publish(server);
    return true;
}

static bool bind_write(server_t *server, connection_t *connection)
{
    const establish_t *request = logon_establish(connection);
    session_bind_t block = {
        .session_ver_id = request->session_ver_id,
        .timestamp = request->timestamp,
        .next_seq_no = request->next_seq_no,
        .session_id = request->session_id,
        .connection_id = connection->id,
        .cod_timeout_ms = request->cod_timeout_ms,
        .cod_type = request->cod_type,
    };
    memcpy(block.access_key_id, request->access_key_id, sizeof(block.access_key_id));
    log_slot_t *slot = ingress_slot(server, connection->session, TEMPLATE_SESSION_BIND, 0);
    if (slot == NULL)
        return false;
    memcpy(slot->block, &block, sizeof(block));
    ingress_publish(server);
    server->binding[connection->session] = connection->id;
    connection->bound = true;
    return true;
}

/* Returns false if the ingress ring is full: the answer is taken again in a later turn. */
static bool logon_answered(server_t *server, const server_answer_t *answer)
{
    connection_t *connection = server_connection(server, answer->connection_id);

    if (connection == NULL || connection->state != CONNECTION_VERIFY)
        return true; /* gone in the meantime */
    if (answer->accepted == 0) {
        logon_refuse(server, connection, answer->code, 0);
        return true;
    }
    bool negotiate = connection->logon_template == TEMPLATE_NEGOTIATE;
    if (!(negotiate ? negotiate_write(server, connection) : bind_write(server, connection)))
        return false;
    connection->account = connection->key.account_id;
    if (connection->limits == NULL)
        limits_join(server, connection);
    connection->permissions = connection->key.permissions;
    connection->state = CONNECTION_LOGGED;
    return true;
}

void logon_answers(server_t *server)
{
    answer_queue_t *queue = &server->answers;
    uint32_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);

    while (head != atomic_load_explicit(&queue->tail, memory_order_acquire)) {
        if (!logon_answered(server, &queue->items[head & queue->mask]))
            return;
        atomic_store_explicit(&queue->head, ++head, memory_order_release);
    }
}

/* ---- what the log says ------------------------------------------------------------------------------------------- */

/* A newer connection, here or on another gateway, has the session now. Partitions tell at different times, so the log
 * sequence decides what is newer. */
static void supersede(server_t *server, uint32_t session, uint64_t in_seq, const connection_t *newer)
{
    uint32_t index = server->by_session[session];

    if (in_seq <= server->bind_seq[session])
        return;
    server->bind_seq[session] = in_seq;
    if (index == 0 || &server->connections[index - 1] == newer)
        return;
    server->counters.superseded++;
    connection_terminate(server, &server->connections[index - 1], TERMINATE_CODE_SUPERSEDED, DOWN_CAUSE_SUPERSEDED);
}

static connection_t *logon_waiting(server_t *server, uint32_t connection_id, uint16_t template_id, uint32_t session,
                                   uint64_t timestamp)
{
    connection_t *connection = server_connection(server, connection_id);
    bool ours = connection != NULL && connection->session == session && connection->logon_template == template_id &&
                connection->logon_timestamp == timestamp;
    return ours ? connection : NULL;
}

void logon_negotiated(server_t *server, const report_slot_t *slot)
{
    session_negotiated_t block;

    memcpy(&block, slot->block, sizeof(block));
    if (block.session_id > server->config.sessions_max)
        return;
    connection_t *connection =
        logon_waiting(server, block.connection_id, TEMPLATE_NEGOTIATE, block.session_id, block.request_timestamp);
    if (block.code == NEGOTIATE_REJECT_CODE_NONE)
        supersede(server, block.session_id, slot->in_seq, connection); /* its numbers begin anew: the old connection's flow is over */
    if (connection == NULL || connection->state != CONNECTION_LOGGED)
        return;
    if (block.code != NEGOTIATE_REJECT_CODE_NONE) {
        logon_refuse(server, connection, block.code, block.current_session_ver_id);
        return;
    }
    negotiate_response_t response = {
        .session_id = block.session_id,
        .throttle_count = server->config.throttle_count,
        .session_ver_id = block.session_ver_id,
        .request_timestamp = block.request_timestamp,
        .throttle_interval_ms = server->config.throttle_interval_ms,
        .max_open_orders = server->config.open_orders_max,
        .max_retransmit_count = server->config.retransmit_max,
        .min_keep_alive_ms = server->config.keep_alive_min_ms,
        .max_keep_alive_ms = server->config.keep_alive_max_ms,
    };
    connection->state = CONNECTION_OPEN;
    connection_send(server, connection, TEMPLATE_NEGOTIATE_RESPONSE, 0, 0, &response);
    connection_stall(server, connection); /* an Establish may already be there */
}

static void logon_established(server_t *server, connection_t *connection, const session_bound_t *bound)
{
    const establish_t *request = logon_establish(connection);
    establish_ack_t ack = {
        .session_id = bound->session_id,
        .keep_alive_interval_ms = request->keep_alive_interval_ms,
        .session_ver_id = bound->session_ver_id,
        .request_timestamp = bound->request_timestamp,
        .next_seq_no = bound->next_seq_no,
        .last_incoming_seq_no = bound->last_incoming_seq_no,
        .oldest_recoverable_seq_no = 1,
    };
    connection->state = CONNECTION_ESTABLISHED;
    connection->next_in = bound->last_incoming_seq_no + 1;
    connection->keep_alive_ns = (uint64_t)request->keep_alive_interval_ms * 1000000;
    connection->received_ns = connection->sent_ns = server->now_ns;
    server->counters.logons++;
    if (connection->held) {
        connection->held = false;
        frame_write(server, connection->out + connection->hole, TEMPLATE_ESTABLISH_ACK, 0, 0, server_wall(server), &ack);
        connection_mark_dirty(server, connection); /* flushes have passed it over while it was held */
    } else {
        connection_send(server, connection, TEMPLATE_ESTABLISH_ACK, 0, 0, &ack);
    }
    if (request->recover_from_seq_no != 0)
        retransmit_recover(server, connection, request->recover_from_seq_no);
    connection_stall(server, connection);
}

/* Reports of a matcher may be seen before partition 0 has answered: they wait behind room kept for the EstablishAck. */
static bool hold_output(server_t *server, connection_t *connection)
{
    if (connection->held || connection->state != CONNECTION_LOGGED)
        return true;
    uint8_t *hole = connection_reserve(server, connection, FRAME_HEADER_SIZE + sizeof(establish_ack_t));
    if (hole == NULL)
        return false;
    connection->hole = (uint32_t)(hole - connection->out);
    connection->held = true;
    return true;
}

/* SessionBound ends the history of one partition: from here on its reports belong to this connection. */
void logon_bound(server_t *server, uint32_t partition, int64_t index, const report_slot_t *slot)
{
    session_bound_t bound;

    memcpy(&bound, slot->block, sizeof(bound));
    if (bound.session_id == 0 || bound.session_id > server->config.sessions_max)
        return;
    if (partition == 0 && server->binding[bound.session_id] == bound.connection_id)
        server->binding[bound.session_id] = 0;
    connection_t *connection =
        logon_waiting(server, bound.connection_id, TEMPLATE_ESTABLISH, bound.session_id, bound.request_timestamp);
    bool accepted = bound.code == ESTABLISH_REJECT_CODE_NONE;
    bool waiting = connection != NULL &&
                   (connection->state == CONNECTION_LOGGED || connection->state == CONNECTION_ESTABLISHED);
    if (accepted)
        supersede(server, bound.session_id, slot->in_seq, waiting ? connection : NULL);
    if (!waiting)
        return;
    if (!accepted) {
        connection->bound = false; /* the sequencer never bound it */
        logon_refuse(server, connection, bound.code, bound.last_incoming_seq_no + 1);
        return;
    }
    if (slot->in_seq < server->bind_seq[bound.session_id])
        return; /* somebody newer has it already */
    if (partition == 0 && logon_establish(connection)->recover_from_seq_no > bound.next_seq_no) {
        logon_refuse(server, connection, ESTABLISH_REJECT_CODE_RECOVER_OUT_OF_RANGE, bound.last_incoming_seq_no + 1);
        return;
    }
    bool drop_copy = (slot->flags & REPORT_FLAG_DROP_COPY) != 0;
    if (drop_copy)
        drop_copy_add(server, connection);
    else
        drop_copy_remove(server, connection);
    server->by_session[bound.session_id] = connection_index(server, connection) + 1;
    connection->chains[partition].next_seq = bound.next_seq_no;
    /* An account's reports are not chained: they are looked for from here backwards. */
    connection->chains[partition].last_index = drop_copy ? index + 1 : (int64_t)bound.last_report_seq;
    connection->bound_mask |= UINT64_C(1) << partition;
    if (partition == 0)
        logon_established(server, connection, &bound);
    else if (hold_output(server, connection))
        report_send(server, connection, partition, 0, 0, slot);
}
