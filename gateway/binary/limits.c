/* How much a client may ask: buckets of a session and of its account, cancels apart (decision 0046). */
#include <string.h>

#include "internal.h"

#define FLOOD_INTERVALS 10
#define CANCELS_FACTOR 2

/* A bucket is the time at which it will be full again: it holds as many requests as fit between that and one interval ahead. One
 * without a limit costs nothing and stays full. */
static uint64_t request_cost_ns(uint64_t interval_ns, uint32_t count)
{
    return count == 0 ? 0 : interval_ns / count;
}

static uint64_t bucket_after(uint64_t full_ns, uint64_t now_ns, uint64_t cost_ns)
{
    return (full_ns > now_ns ? full_ns : now_ns) + cost_ns;
}

static account_bucket_t *of_account(server_t *server, uint32_t account)
{
    account_bucket_t *free_entry = NULL;

    for (uint32_t i = 0; i < server->config.connections_max; i++) {
        account_bucket_t *entry = &server->account_buckets[i];
        if (entry->users > 0 && entry->account == account)
            return entry;
        if (entry->users == 0 && free_entry == NULL)
            free_entry = entry;
    }
    INVARIANT(free_entry != NULL); /* as many as connections */
    *free_entry = (account_bucket_t){.account = account};
    return free_entry;
}

void limits_join(server_t *server, connection_t *connection)
{
    connection->limits = of_account(server, connection->account);
    connection->limits->users++;
}

void limits_leave(connection_t *connection)
{
    if (connection->limits != NULL)
        connection->limits->users--;
    connection->limits = NULL;
}

/* Counts what was refused. An interval with more refusals than requests allowed is a flood: the client is not read for the rest of
 * it. FLOOD_INTERVALS of them in a row end the connection; one without breaks the row, however much else was refused. */
static void note_refused(server_t *server, connection_t *connection, uint32_t allowed)
{
    uint64_t interval_ns = (uint64_t)server->config.throttle_interval_ms * 1000000;

    if (server->now_ns >= connection->flood_window_ns + interval_ns) {
        if (!connection->flooded || server->now_ns >= connection->flood_window_ns + 2 * interval_ns)
            connection->flood_intervals = 0;
        connection->flood_window_ns = server->now_ns;
        connection->flood_refused = 0;
        connection->flooded = false;
    }
    if (++connection->flood_refused <= allowed)
        return;
    connection->flood_intervals += !connection->flooded;
    connection->flooded = true;
    connection->unread_until_ns = connection->flood_window_ns + interval_ns;
}

uint16_t limits_take(server_t *server, connection_t *connection, bool cancel)
{
    const server_config_t *config = &server->config;
    uint64_t interval_ns = (uint64_t)config->throttle_interval_ms * 1000000, now = server->now_ns;
    uint32_t factor = cancel ? CANCELS_FACTOR : 1;
    uint32_t session_count = config->throttle_count * factor, account_count = config->account_throttle_count * factor;

    /* A gateway of ours acts for many accounts and limits them itself. */
    if (config->admin || connection->limits == NULL || (connection->permissions & PERMISSIONS_ADMIN) != 0)
        return REJECT_CODE_NONE;
    uint64_t *session = &connection->full_ns[cancel], *account = &connection->limits->full_ns[cancel];
    uint64_t session_after = bucket_after(*session, now, request_cost_ns(interval_ns, session_count));
    uint64_t account_after = bucket_after(*account, now, request_cost_ns(interval_ns, account_count));
    if (session_after > now + interval_ns || account_after > now + interval_ns) {
        note_refused(server, connection, session_count != 0 ? session_count : account_count);
        return REJECT_CODE_THROTTLE_EXCEEDED;
    }
    *session = session_after;
    *account = account_after;
    return REJECT_CODE_NONE;
}

bool limits_read_again(server_t *server, connection_t *connection)
{
    uint64_t interval_ns = (uint64_t)server->config.throttle_interval_ms * 1000000;

    if (connection->unread_until_ns == 0 || server->now_ns < connection->unread_until_ns)
        return false;
    connection->unread_until_ns = 0;
    /* That interval ends here and not before: who was kept waiting longer, for we look only now and then, is still in its row. */
    connection->flood_window_ns = server->now_ns - interval_ns;
    return true;
}

bool limits_flooded(const connection_t *connection)
{
    return connection->flood_intervals >= FLOOD_INTERVALS;
}
