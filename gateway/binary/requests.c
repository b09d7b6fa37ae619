#include <string.h>

#include "internal.h"

/* ---- ingress ----------------------------------------------------------------------------------------------------- */

/* The next slot, cleared and stamped, or NULL when the ring is full. ingress_publish() makes it visible. */
log_slot_t *ingress_slot(server_t *server, uint32_t session, uint16_t template_id, uint64_t seq_num)
{
    int64_t sequence = ring_claim(server->ingress, 1);
    if (sequence < 0)
        return NULL;
    log_slot_t *slot = ring_slot(server->ingress, sequence);
    slot_clear(slot);
    slot->session = session;
    slot->source = server->config.source;
    slot->template_id = template_id;
    slot->src_seq = (uint32_t)sequence;
    slot->version = ORDERS_SCHEMA_VERSION;
    slot->seq_num = seq_num;
    slot->ingress_ns = server_wall(server);
    return slot;
}

void ingress_publish(server_t *server)
{
    if (server->ingress_published == server->ingress->claimed)
        return;
    server->ingress_published = server->ingress->claimed;
    ring_publish(server->ingress, server->ingress_published);
}

bool session_down_write(server_t *server, connection_t *connection)
{
    session_down_t block = {
        .session_ver_id = connection->session_ver_id,
        .session_id = connection->session,
        .connection_id = connection->id,
        .cause = connection->down_cause,
    };
    log_slot_t *slot = ingress_slot(server, connection->session, TEMPLATE_SESSION_DOWN, 0);
    if (slot == NULL)
        return false;
    memcpy(slot->block, &block, sizeof(block));
    ingress_publish(server);
    connection->bound = false;
    return true;
}

/* The journaler is far behind, or says that its disk is nearly full. */
static bool log_is_behind(const ring_t *log)
{
    int64_t gating = log == NULL ? INT64_MAX : ring_gating_minimum(log);
    if (log != NULL && ring_storage_at_least(log, RING_STORAGE_CANCEL_ONLY))
        return true;
    return gating != INT64_MAX && (ring_published(log) - gating) * 4 >= ring_capacity(log) * 3;
}

/* Slots left for cancels only: the last quarter of the ring, and everything while the log must not grow. */
static bool server_busy(server_t *server)
{
    int64_t reserve = ring_capacity(server->ingress) / 4;

    if (server->cancel_only)
        return true;
    if (ring_room(server->ingress, reserve) < reserve)
        return true;
    if (!server->log_looked_at) { /* once a turn: these are other processes' cache lines */
        server->log_looked_at = true;
        server->log_busy = log_is_behind(server->log);
    }
    return server->log_busy;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static bool is_cancel(uint16_t template_id)
{
    return template_id == TEMPLATE_ORDER_CANCEL_REQUEST || template_id == TEMPLATE_MASS_CANCEL_REQUEST;
}

static uint16_t permission(const connection_t *connection, enum frame_kind kind)
{
    if (kind == FRAME_ADMIN && (connection->permissions & PERMISSIONS_ADMIN) == 0)
        return REJECT_CODE_NOT_PRIVILEGED;
    if (kind == FRAME_REQUEST && (connection->permissions & (PERMISSIONS_TRADE | PERMISSIONS_ADMIN)) == 0)
        return REJECT_CODE_PERMISSION_DENIED;
    return REJECT_CODE_NONE;
}

static uint16_t request_code(server_t *server, connection_t *connection, const frame_t *frame, const void *block)
{
    uint16_t template_id = frame->header.template_id;
    uint16_t code = framing_check(frame, block);

    if (code == REJECT_CODE_NONE)
        code = permission(connection, framing_kind(template_id));
    if (code == REJECT_CODE_NONE)
        code = limits_take(server, connection, is_cancel(template_id));
    if (code == REJECT_CODE_NONE && framing_kind(template_id) == FRAME_REQUEST && !is_cancel(template_id) &&
        server_busy(server))
        code = REJECT_CODE_SYSTEM_BUSY;
    return code;
}

/* A template of ours that only the log may hold must not reach the sequencer under its own number, not even flagged. */
static uint16_t slot_template(uint16_t template_id)
{
    enum frame_kind kind = framing_kind(template_id);
    return kind == FRAME_INTERNAL || kind == FRAME_SESSION ? U16_NULL : template_id;
}

static uint64_t request_number(server_t *server, connection_t *connection, const frame_t *frame)
{
    uint64_t seq_num = frame->header.seq_num;

    if (server->config.admin) {
        seq_num = server->admin_next++;
        server->admin_owner[seq_num % ADMIN_OWNERS] = connection->id;
    } else if (seq_num == connection->next_in) {
        connection->next_in++;
    }
    return seq_num;
}

/* A gateway of ours on this host stamps when it took the request: a deadline counts from there, however long the frame was on its
 * way to us. */
static uint64_t trusted_ingress(uint64_t now_ns, uint64_t sending_time)
{
    return sending_time != 0 && sending_time < now_ns ? sending_time : now_ns;
}

/* Write one linked group (mostly of one). The caller has seen that there is room. A refusal of one refuses all. */
static void write_group(server_t *server, connection_t *connection, const frame_t *frames, uint32_t count)
{
    uint16_t code = REJECT_CODE_NONE;
    log_slot_t *slots[GROUP_SLOTS_MAX];

    for (uint32_t i = 0; i < count; i++) {
        const frame_header_t *header = &frames[i].header;
        uint64_t seq_num = request_number(server, connection, &frames[i]);
        log_slot_t *slot = ingress_slot(server, connection->session, slot_template(header->template_id), seq_num);
        INVARIANT(slot != NULL);
        size_t length = header->block_length < LOG_BLOCK_MAX ? header->block_length : LOG_BLOCK_MAX;
        block_copy(slot->block, frames[i].block, length);
        if ((connection->permissions & PERMISSIONS_ADMIN) != 0 && !server->config.admin)
            slot->ingress_ns = trusted_ingress(slot->ingress_ns, header->sending_time);
        slot->flags = i + 1 < count ? SLOT_FLAG_MORE : 0;
        uint16_t own = request_code(server, connection, &frames[i], slot->block);
        code = code == REJECT_CODE_NONE ? own : code;
        slots[i] = slot;
    }
    server->counters.requests += count;
    if (code == REJECT_CODE_NONE)
        return;
    server->counters.rejected += count;
    for (uint32_t i = 0; i < count; i++) {
        slots[i]->flags |= SLOT_FLAG_REJECT;
        slots[i]->aux = code;
    }
}

/* Collect the frames of the group that starts at `first`. Returns the bytes it takes, 0 = not all here, -1 = malformed. */
static int collect_group(const uint8_t *bytes, size_t available, frame_t *frames, uint32_t *count)
{
    size_t length = 0;

    for (*count = 0; *count < GROUP_SLOTS_MAX;) {
        frame_t *frame = &frames[*count];
        int got = framing_next(bytes + length, available - length, frame);
        if (got <= 0)
            return got;
        enum frame_kind kind = framing_kind(frame->header.template_id);
        bool linked = *count > 0 || (frame->header.flags & FRAME_FLAG_MORE) != 0;
        if (linked && (kind == FRAME_SESSION || kind == FRAME_QUERY))
            return FRAMING_MALFORMED;
        length += (size_t)got;
        ++*count;
        if ((frame->header.flags & FRAME_FLAG_MORE) == 0)
            return (int)length;
    }
    return FRAMING_MALFORMED; /* more than GROUP_SLOTS_MAX linked frames */
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

static void query_refuse(server_t *server, connection_t *connection, const frame_t *frame, uint16_t code)
{
    query_end_t block = {.code = code, .ref_template_id = frame->header.template_id};

    if (frame->header.block_length >= sizeof(block.request_id))
        memcpy(&block.request_id, frame->block, sizeof(block.request_id));
    connection_send(server, connection, TEMPLATE_QUERY_END, 0, 0, &block);
}

static uint16_t query_code(const connection_t *connection, const frame_t *frame, const void *block)
{
    bool privileged = (connection->permissions & PERMISSIONS_ADMIN) != 0;
    uint16_t code = framing_check(frame, block);

    if (code == REJECT_CODE_NONE && frame->header.template_id == TEMPLATE_KEY_QUERY && !privileged)
        return REJECT_CODE_PERMISSION_DENIED;
    return code;
}

static enum parse_verdict query_frame(server_t *server, connection_t *connection, const frame_t *frame)
{
    _Alignas(8) uint8_t block[LOG_BLOCK_MAX] = {0};
    size_t length = frame->header.block_length < LOG_BLOCK_MAX ? frame->header.block_length : LOG_BLOCK_MAX;

    memcpy(block, frame->block, length);
    uint16_t code = query_code(connection, frame, block);
    if (code == REJECT_CODE_NONE && server_busy(server))
        code = REJECT_CODE_SYSTEM_BUSY;
    if (code != REJECT_CODE_NONE) {
        query_refuse(server, connection, frame, code);
        return PARSE_DONE;
    }
    log_slot_t *slot = ingress_slot(server, connection->session, frame->header.template_id, 0);
    if (slot == NULL)
        return PARSE_WAIT;
    memcpy(slot->block, block, length);
    int offset = framing_query_account_offset(frame->header.template_id);
    if (offset >= 0 && (connection->permissions & PERMISSIONS_ADMIN) == 0)
        memcpy(slot->block + offset, &connection->account, sizeof(connection->account));
    server->counters.queries++;
    return PARSE_DONE;
}

/* ---- session messages of an established connection --------------------------------------------------------------- */

static enum parse_verdict sequence_frame(server_t *server, connection_t *connection, const sequence_message_t *sequence)
{
    if (server->config.admin || sequence->next_seq_no <= connection->next_in)
        return PARSE_DONE; /* only a heartbeat */
    log_slot_t *slot = ingress_slot(server, connection->session, TEMPLATE_SEQUENCE, 0);
    if (slot == NULL)
        return PARSE_WAIT;
    memcpy(slot->block, sequence, sizeof(*sequence));
    connection->next_in = sequence->next_seq_no;
    return PARSE_DONE;
}

static enum parse_verdict session_frame(server_t *server, connection_t *connection, const frame_t *frame)
{
    _Alignas(8) uint8_t block[SERVER_FRAME_MAX] = {0};

    memcpy(block, frame->block, frame->header.block_length);
    if (!framing_check_session(frame, block)) {
        server->counters.malformed++;
        connection_terminate(server, connection, TERMINATE_CODE_DECODING_ERROR, DOWN_CAUSE_SERVER_TERMINATE);
        return PARSE_DEAD;
    }
    switch (frame->header.template_id) {
    case TEMPLATE_SEQUENCE:
        return sequence_frame(server, connection, (const sequence_message_t *)block);
    case TEMPLATE_TERMINATE:
        connection_terminate(server, connection, TERMINATE_CODE_FINISHED, DOWN_CAUSE_CLIENT_TERMINATE);
        return PARSE_DEAD;
    case TEMPLATE_RETRANSMIT_REQUEST:
        retransmit_request(server, connection, frame);
        return connection_alive(connection) ? PARSE_DONE : PARSE_DEAD;
    default: { /* Negotiate or Establish on an established connection */
        establish_reject_t reject = {.session_id = connection->session,
                                     .code = ESTABLISH_REJECT_CODE_ALREADY_ESTABLISHED,
                                     .session_ver_id = connection->session_ver_id};
        connection_send(server, connection, TEMPLATE_ESTABLISH_REJECT, 0, 0, &reject);
        return connection_alive(connection) ? PARSE_DONE : PARSE_DEAD;
    }
    }
}

/* ---- the stream -------------------------------------------------------------------------------------------------- */

static enum parse_verdict malformed(server_t *server, connection_t *connection)
{
    server->counters.malformed++;
    connection_terminate(server, connection, TERMINATE_CODE_DECODING_ERROR, DOWN_CAUSE_SERVER_TERMINATE);
    return PARSE_DEAD;
}

/* Ask the sequencer which number session 1 continues with; until it answers, commands wait. */
void admin_ask_number(server_t *server)
{
    session_query_t block = {.request_id = (uint64_t)server->config.source << 48, .session_id = SERVER_ADMIN_SESSION};

    if (server->now_ns - server->admin_asked_ns < UINT64_C(500000000))
        return;
    log_slot_t *slot = ingress_slot(server, SERVER_ADMIN_SESSION, TEMPLATE_SESSION_QUERY, 0);
    if (slot == NULL)
        return;
    server->admin_asked_ns = server->now_ns;
    memcpy(slot->block, &block, sizeof(block));
    ingress_publish(server);
}

/* A drop copy has no flow of requests: nothing of it is logged, so the answer has no number. */
static enum parse_verdict drop_copy_refuse(server_t *server, connection_t *connection, const frame_t *frames, uint32_t count)
{
    for (uint32_t i = 0; i < count && connection_alive(connection); i++) {
        business_reject_t block = {.ref_seq_num = frames[i].header.seq_num,
                                   .ref_template_id = frames[i].header.template_id,
                                   .reject_code = REJECT_CODE_PERMISSION_DENIED};
        connection_send(server, connection, TEMPLATE_BUSINESS_REJECT, 0, 0, &block);
    }
    return connection_alive(connection) ? PARSE_DONE : PARSE_DEAD;
}

static enum parse_verdict request_frames(server_t *server, connection_t *connection, const frame_t *frames, uint32_t count)
{
    if (connection->drop_copy)
        return drop_copy_refuse(server, connection, frames, count);
    if (server->idle) {
        connection_terminate(server, connection, TERMINATE_CODE_NOT_ESTABLISHED, DOWN_CAUSE_SERVER_TERMINATE);
        return PARSE_DEAD;
    }
    if (server->config.admin && server->admin_next == 0) {
        admin_ask_number(server);
        return PARSE_WAIT;
    }
    for (uint32_t i = 0; i < count; i++)
        if (frames[i].header.seq_num == 0 && !server->config.admin)
            return malformed(server, connection);
    if (ring_room(server->ingress, count) < (int64_t)count)
        return PARSE_WAIT;
    write_group(server, connection, frames, count);
    if (!limits_flooded(connection))
        return PARSE_DONE;
    server->counters.floods++;
    connection_terminate(server, connection, TERMINATE_CODE_FLOOD, DOWN_CAUSE_SERVER_TERMINATE);
    return PARSE_DEAD;
}

/* Take the group at the front of the input. `length` gets its bytes. */
static enum parse_verdict parse_one(server_t *server, connection_t *connection, const uint8_t *bytes, size_t available,
                                    size_t *length)
{
    frame_t frames[GROUP_SLOTS_MAX];
    uint32_t count = 0;
    int got = collect_group(bytes, available, frames, &count);

    *length = 0;
    if (got < 0)
        return malformed(server, connection);
    if (got == 0)
        return PARSE_DONE;
    *length = (size_t)got;
    server->counters.frames_in += count;
    connection->received_ns = server->now_ns;
    if (connection->state != CONNECTION_ESTABLISHED)
        return logon_frame(server, connection, &frames[0]);
    switch (framing_kind(frames[0].header.template_id)) {
    case FRAME_SESSION:
        return session_frame(server, connection, &frames[0]);
    case FRAME_QUERY:
        return query_frame(server, connection, &frames[0]);
    default:
        return request_frames(server, connection, frames, count);
    }
}

/* A newer connection's SessionBind is in the ring before what this one would add, and may have told its client already what the
 * log holds: nothing of this one may follow. If the log refuses the newer one, this one goes on. */
static bool yields_session(const server_t *server, const connection_t *connection)
{
    uint32_t binding = server->binding[connection->session];
    return connection->state == CONNECTION_ESTABLISHED && binding != 0 && binding != connection->id;
}

/* Take all whole frames of the input; what waits for room stays in front. */
void connection_parse(server_t *server, connection_t *connection)
{
    size_t offset = 0, length = 0;
    enum parse_verdict verdict = PARSE_DONE;

    while (verdict == PARSE_DONE && offset < connection->in_length) {
        if (connection->unread_until_ns != 0)
            break;
        if (connection->state != CONNECTION_OPEN && connection->state != CONNECTION_ESTABLISHED)
            break; /* a step of the logon is under way; it stalls the connection when it is done */
        if (yields_session(server, connection)) {
            verdict = PARSE_WAIT;
            break;
        }
        verdict = parse_one(server, connection, connection->in + offset, connection->in_length - offset, &length);
        if (verdict == PARSE_DONE && length == 0)
            break;
        if (verdict == PARSE_DONE)
            offset += length;
    }
    ingress_publish(server);
    if (verdict == PARSE_DEAD) {
        connection->in_length = 0;
        return;
    }
    if (verdict == PARSE_WAIT) {
        server->counters.ingress_full++;
        connection_stall(server, connection);
    }
    connection->in_length -= (uint32_t)offset;
    memmove(connection->in, connection->in + offset, connection->in_length);
}
