#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define REPLY_RING UINT32_MAX

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* What has left a report ring is in its file: the journaler holds the ring until it has written there. */
static int archive_read(server_t *server, observed_t *source, uint32_t partition, int64_t index, int64_t count, void *target)
{
    size_t size = (size_t)count * sizeof(report_slot_t);
    char path[sizeof(server->archive) + 16];

    if (partition == REPLY_RING || server->archive[0] == '\0')
        return RING_LAPPED;
    if (source->archive_fd < 0) {
        snprintf(path, sizeof(path), "%s/%u", server->archive, partition);
        source->archive_fd = open(path, O_RDONLY | O_CLOEXEC);
        if (source->archive_fd < 0)
            return RING_LAPPED;
    }
    ssize_t got = pread(source->archive_fd, target, size, (off_t)index * (off_t)sizeof(report_slot_t));
    return got == (ssize_t)size ? RING_OK : RING_LAPPED;
}

int report_read(server_t *server, observed_t *source, uint32_t partition, int64_t index, int64_t count, void *target)
{
    if (ring_read(source->ring, index, count, target) == RING_OK)
        return RING_OK;
    return archive_read(server, source, partition, index, count, target);
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

bool report_send(server_t *server, connection_t *connection, uint32_t partition, uint16_t flags, uint64_t seq_num,
                 const report_slot_t *slot)
{
    if (slot->template_id >= sizeof(server->block_lengths) || server->block_lengths[slot->template_id] == 0)
        return true; /* of a newer schema: nothing this gateway could frame */
    uint16_t bits = (uint16_t)(flags | partition << FRAME_FLAG_PARTITION_SHIFT);
    return connection_send(server, connection, slot->template_id, bits, seq_num, slot->block);
}

/* Full number of a report from its low half; the last full value is never more than 2^31 away. */
static uint64_t widen(uint64_t near, uint32_t low)
{
    return near + (uint64_t)(int64_t)(int32_t)(low - (uint32_t)near);
}

/* 0 in the slot means unnumbered, but it is also the low half of every 2^32nd number. */
static bool is_numbered(const report_chain_t *chain, const report_slot_t *slot)
{
    if (slot->seq_num != 0)
        return true;
    if ((uint32_t)chain->next_seq != 0 || chain->next_seq == 0)
        return false;
    return slot->template_id != TEMPLATE_SESSION_NEGOTIATED && slot->template_id != TEMPLATE_SESSION_BOUND &&
           slot->template_id != TEMPLATE_BOOK_HASH && slot->template_id != TEMPLATE_INSTRUMENT_STATE_REPORT;
}

static void report_deliver(server_t *server, connection_t *connection, uint32_t partition, int64_t index,
                           const report_slot_t *slot)
{
    report_chain_t *chain = &connection->chains[partition];
    uint64_t seq_num = 0;

    if (is_numbered(chain, slot)) {
        seq_num = widen(chain->next_seq, slot->seq_num);
        chain->next_seq = seq_num + 1;
        chain->last_index = index + 1;
    }
    report_send(server, connection, partition, 0, seq_num, slot);
}

void drop_copy_add(server_t *server, connection_t *connection)
{
    if (!connection->drop_copy)
        server->drop_copies[server->drop_copy_count++] = connection_index(server, connection);
    connection->drop_copy = true;
}

void drop_copy_remove(server_t *server, connection_t *connection)
{
    uint32_t index = connection_index(server, connection), at = 0;

    if (!connection->drop_copy)
        return;
    while (server->drop_copies[at] != index)
        at++;
    server->drop_copies[at] = server->drop_copies[--server->drop_copy_count];
    connection->drop_copy = false;
}

/* To those who read the account's reports, numbered for the account. From the last one on: who falls too far behind is cut off, and
 * its place is taken by one that has been served. */
static void drop_copy_deliver(server_t *server, uint32_t partition, int64_t index, const report_slot_t *slot)
{
    uint32_t account = report_account(slot);

    for (uint32_t i = server->drop_copy_count; account != 0 && i-- > 0;) {
        connection_t *connection = &server->connections[server->drop_copies[i]];
        if (connection->account != account || (connection->bound_mask >> partition & 1) == 0)
            continue;
        report_chain_t *chain = &connection->chains[partition];
        uint64_t seq_num = widen(chain->next_seq, slot->account_seq);
        chain->next_seq = seq_num + 1;
        chain->last_index = index + 1;
        report_send(server, connection, partition, 0, seq_num, slot);
    }
}

/* ---- the admin session: many connections, numbers given here ----------------------------------------------------- */

static bool admin_own_reply(server_t *server, const report_slot_t *slot)
{
    uint64_t own = (uint64_t)server->config.source << 48, request_id;
    session_reply_t reply;

    if (slot->template_id < 500)
        return false;
    memcpy(&request_id, slot->block, sizeof(request_id));
    if (request_id != own)
        return false;
    if (slot->template_id == TEMPLATE_SESSION_REPLY && server->admin_next == 0) {
        memcpy(&reply, slot->block, sizeof(reply));
        server->admin_next = reply.last_incoming_seq_no + 1;
    }
    return true;
}

/* Answers to a command go to the connection it came from. */
static bool admin_owned_by(const server_t *server, const connection_t *connection, const report_slot_t *slot)
{
    uint64_t seq_num;

    if (slot->template_id == TEMPLATE_ADMIN_ACK)
        memcpy(&seq_num, slot->block + offsetof(admin_ack_t, ref_seq_num), sizeof(seq_num));
    else if (slot->template_id == TEMPLATE_BUSINESS_REJECT)
        memcpy(&seq_num, slot->block + offsetof(business_reject_t, ref_seq_num), sizeof(seq_num));
    else if (slot->template_id == TEMPLATE_NOT_APPLIED)
        memcpy(&seq_num, slot->block + offsetof(not_applied_t, from_seq_no), sizeof(seq_num));
    else
        return true;
    return server->admin_owner[seq_num % ADMIN_OWNERS] == connection->id;
}

static void admin_deliver(server_t *server, uint32_t partition, int64_t index, const report_slot_t *slot)
{
    if (admin_own_reply(server, slot))
        return;
    if (slot->template_id == TEMPLATE_NOT_APPLIED)
        server->admin_next = 0; /* our count is off: ask again before the next command */
    for (uint32_t i = 0; i < server->config.connections_max; i++) {
        connection_t *connection = &server->connections[i];
        if (connection->state != CONNECTION_ESTABLISHED || !admin_owned_by(server, connection, slot))
            continue;
        if (partition == REPLY_RING)
            report_send(server, connection, 0, 0, 0, slot);
        else
            report_deliver(server, connection, partition, index, slot);
    }
}

/* ---- routing ----------------------------------------------------------------------------------------------------- */

static void note_key_revoked(server_t *server, const report_slot_t *slot)
{
    admin_ack_t ack;

    memcpy(&ack, slot->block, sizeof(ack));
    if (ack.ref_template_id != TEMPLATE_KEY_REVOKE || ack.code != REJECT_CODE_NONE)
        return;
    for (uint32_t i = 0; i < server->config.connections_max; i++)
        server->connections[i].key_to_check |= server->connections[i].state == CONNECTION_ESTABLISHED;
    server->keys_changed = true;
}

static void route_report(server_t *server, uint32_t partition, int64_t index, const report_slot_t *slot)
{
    if (slot->template_id == 0 || slot->session == 0 || slot->session > server->config.sessions_max)
        return;
    if (server->config.admin) {
        if (slot->session == SERVER_ADMIN_SESSION)
            admin_deliver(server, partition, index, slot);
        return;
    }
    if (slot->template_id == TEMPLATE_ADMIN_ACK)
        note_key_revoked(server, slot);
    if (slot->template_id == TEMPLATE_SESSION_BOUND) {
        logon_bound(server, partition, index, slot);
        return;
    }
    if (slot->template_id == TEMPLATE_SESSION_NEGOTIATED) {
        logon_negotiated(server, slot);
        return;
    }
    if (server->drop_copy_count > 0)
        drop_copy_deliver(server, partition, index, slot);
    uint32_t entry = server->by_session[slot->session];
    if (entry == 0)
        return;
    connection_t *connection = &server->connections[entry - 1];
    if (!connection->drop_copy && (connection->bound_mask >> partition & 1) != 0)
        report_deliver(server, connection, partition, index, slot);
}

static void route_reply(server_t *server, int64_t index, const report_slot_t *slot)
{
    if (slot->template_id == 0 || slot->session > server->config.sessions_max)
        return;
    if (slot->session == 0) {
        logon_key_reply(server, slot);
        return;
    }
    if (server->config.admin) {
        if (slot->session == SERVER_ADMIN_SESSION)
            admin_deliver(server, REPLY_RING, index, slot);
        return;
    }
    uint32_t entry = server->by_session[slot->session];
    if (entry != 0 && server->connections[entry - 1].state == CONNECTION_ESTABLISHED)
        report_send(server, &server->connections[entry - 1], 0, 0, 0, slot);
}

/* ---- observing --------------------------------------------------------------------------------------------------- */

/* The records are gone for us. On the reply ring who asked asks again. On a report ring they may have said that a session has
 * moved or begun anew, so that nothing known here about any session can be trusted: all must log on again. */
static void skip_lapped(server_t *server, observed_t *source, uint32_t partition, int64_t published)
{
    server->counters.laps++;
    source->cursor = published;
    if (partition == REPLY_RING || server->config.admin)
        return;
    memset(server->binding, 0, ((size_t)server->config.sessions_max + 1) * sizeof(uint32_t));
    for (uint32_t i = 0; i < server->config.connections_max; i++) {
        connection_t *connection = &server->connections[i];
        if (connection->state == CONNECTION_LOGGED || connection->state == CONNECTION_ESTABLISHED)
            connection_terminate(server, connection, TERMINATE_CODE_UNSPECIFIED, DOWN_CAUSE_GATEWAY_DEAD);
    }
}

/* How many of the next `count` slots are no business of the admin session; looked at where they are. */
static int64_t strangers(const observed_t *source, int64_t count)
{
    int64_t found = 0;

    for (; found < count; found++) {
        const report_slot_t *slot = ring_slot(source->ring, source->cursor + found);
        if (slot->session == SERVER_ADMIN_SESSION)
            break;
    }
    return ring_still_there(source->ring, source->cursor) ? found : 0;
}

static int64_t observe(server_t *server, observed_t *source, uint32_t partition, int64_t limit)
{
    const report_slot_t *slots = (const report_slot_t *)server->batch;
    int64_t published = ring_published(source->ring), done = 0;

    while (source->cursor < published && done < limit) {
        int64_t count = published - source->cursor < OBSERVE_BATCH ? published - source->cursor : OBSERVE_BATCH;
        int64_t skipped = server->config.admin && partition != REPLY_RING ? strangers(source, count) : 0;
        source->cursor += skipped;
        done += skipped;
        count -= skipped;
        if (count == 0)
            continue;
        if (report_read(server, source, partition, source->cursor, count, server->batch) != RING_OK) {
            skip_lapped(server, source, partition, published);
            return done;
        }
        for (int64_t i = 0; i < count; i++) {
            if (partition == REPLY_RING)
                route_reply(server, source->cursor + i, &slots[i]);
            else
                route_report(server, partition, source->cursor + i, &slots[i]);
        }
        source->cursor += count;
        done += count;
    }
    return done;
}

int64_t reports_poll(server_t *server, int64_t limit)
{
    int64_t done = 0;

    for (uint32_t i = 0; i < server->config.report_rings; i++)
        done += observe(server, &server->reports[i], i, limit);
    return done + observe(server, &server->reply, REPLY_RING, limit);
}
