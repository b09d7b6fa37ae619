#include <string.h>

#include "internal.h"

#define WALK_STEPS 256  /* reports walked back in one turn, of one job */
#define SEND_STEPS 128  /* reports sent in one turn, of one job */

static retransmit_job_t *job_find(server_t *server, const connection_t *connection, uint32_t partition)
{
    for (uint32_t i = 0; i < server->config.retransmit_jobs; i++)
        if (server->jobs[i].connection_id == connection->id && server->jobs[i].partition == partition)
            return &server->jobs[i];
    return NULL;
}

static retransmit_job_t *job_free(server_t *server)
{
    for (uint32_t i = 0; i < server->config.retransmit_jobs; i++)
        if (server->jobs[i].connection_id == 0)
            return &server->jobs[i];
    return NULL;
}

static void job_end(server_t *server, retransmit_job_t *job)
{
    INVARIANT(server->jobs_running > 0);
    server->jobs_running--;
    job->connection_id = 0;
}

void retransmit_forget(server_t *server, connection_t *connection)
{
    if (server->jobs_running == 0)
        return;
    for (uint32_t i = 0; i < server->config.retransmit_jobs; i++)
        if (server->jobs[i].connection_id == connection->id)
            job_end(server, &server->jobs[i]);
}

static void reject(server_t *server, connection_t *connection, uint32_t partition, uint64_t request_timestamp, uint8_t code)
{
    retransmit_reject_t block = {
        .session_id = connection->session, .code = code, .request_timestamp = request_timestamp};

    server->counters.retransmit_rejects++;
    connection_send(server, connection, TEMPLATE_RETRANSMIT_REJECT, (uint16_t)(partition << FRAME_FLAG_PARTITION_SHIFT), 0,
                    &block);
}

static retransmit_job_t *job_start(server_t *server, const connection_t *connection, uint32_t partition, uint64_t from,
                                   uint64_t count)
{
    retransmit_job_t *job = job_free(server);
    const report_chain_t *chain = &connection->chains[partition];

    if (job == NULL)
        return NULL;
    job->connection_id = connection->id;
    job->partition = (uint8_t)partition;
    job->silent = job->walked = false;
    job->from = from;
    job->count = (uint32_t)count;
    job->sent = 0;
    job->request_timestamp = 0;
    job->cursor_seq = chain->next_seq - 1;
    job->cursor = chain->last_index - 1;
    server->jobs_running++;
    return job;
}

/* A code of RetransmitRejectCode, or -1 if the request can be served. Cuts `count` to what there is. */
static int range_check(const server_t *server, const connection_t *connection, uint32_t partition, uint64_t from,
                       uint64_t *count)
{
    if (partition >= server->config.report_rings || (connection->bound_mask >> partition & 1) == 0)
        return RETRANSMIT_REJECT_CODE_OUT_OF_RANGE;
    const report_chain_t *chain = &connection->chains[partition];
    if (from == 0 || *count == 0 || from >= chain->next_seq || chain->last_index == 0)
        return RETRANSMIT_REJECT_CODE_OUT_OF_RANGE;
    if (*count > server->config.retransmit_max)
        return RETRANSMIT_REJECT_CODE_REQUEST_LIMIT_EXCEEDED;
    if (*count > chain->next_seq - from)
        *count = chain->next_seq - from;
    return -1;
}

void retransmit_request(server_t *server, connection_t *connection, const frame_t *frame)
{
    uint32_t partition = frame->header.flags >> FRAME_FLAG_PARTITION_SHIFT;
    retransmit_request_t request;

    memcpy(&request, frame->block, sizeof(request));
    uint64_t count = request.count;
    int code = range_check(server, connection, partition, request.from_seq_no, &count);
    if (server->config.admin || request.session_id != connection->session)
        code = RETRANSMIT_REJECT_CODE_INVALID_SESSION;
    else if (code < 0 && job_find(server, connection, partition) != NULL)
        code = RETRANSMIT_REJECT_CODE_IN_PROGRESS;
    retransmit_job_t *job = code < 0 ? job_start(server, connection, partition, request.from_seq_no, count) : NULL;
    if (code < 0 && job == NULL)
        code = RETRANSMIT_REJECT_CODE_REQUEST_LIMIT_EXCEEDED;
    if (job == NULL)
        reject(server, connection, partition, request.timestamp, (uint8_t)code);
    else
        job->request_timestamp = request.timestamp;
}

/* What Establish.recoverFromSeqNo asks for, of partition 0. The client finds a gap by itself if this cannot be served. */
void retransmit_recover(server_t *server, connection_t *connection, uint64_t from)
{
    uint64_t count = server->config.retransmit_max;

    if (range_check(server, connection, 0, from, &count) >= 0)
        return;
    retransmit_job_t *job = job_start(server, connection, 0, from, count);
    if (job != NULL)
        job->silent = true;
}

/* Read the report at `index`, which must be number `seq_num` of the connection's session. */
static bool job_read(server_t *server, const retransmit_job_t *job, uint32_t session, int64_t index, uint64_t seq_num,
                     report_slot_t *slot)
{
    observed_t *source = &server->reports[job->partition];

    if (index < 0 || report_read(server, source, job->partition, index, 1, slot) != RING_OK)
        return false;
    return slot->session == session && slot->seq_num == (uint32_t)seq_num;
}

/* Likewise of an account, numbered for it. */
static bool is_of_account(const report_slot_t *slot, uint32_t account, uint64_t number)
{
    return report_account(slot) == account && slot->account_seq == (uint32_t)number;
}

static void job_fail(server_t *server, retransmit_job_t *job, connection_t *connection)
{
    uint32_t partition = job->partition;
    bool silent = job->silent;
    uint64_t timestamp = job->request_timestamp;

    job_end(server, job);
    if (!silent)
        reject(server, connection, partition, timestamp, RETRANSMIT_REJECT_CODE_OUT_OF_RANGE);
}

static void job_announce(server_t *server, const retransmit_job_t *job, connection_t *connection)
{
    retransmission_t block = {
        .session_id = connection->session,
        .count = job->count,
        .request_timestamp = job->request_timestamp,
        .next_seq_no = job->from,
    };
    server->counters.retransmissions++;
    if (!job->silent)
        connection_send(server, connection, TEMPLATE_RETRANSMISSION,
                        (uint16_t)(job->partition << FRAME_FLAG_PARTITION_SHIFT), 0, &block);
}

/* The report at the cursor is one of them, or a later one. True if it is the first that is wanted. */
static bool job_found(server_t *server, retransmit_job_t *job, connection_t *connection)
{
    if (job->cursor_seq - job->from < job->count)
        job->positions[job->cursor_seq - job->from] = job->cursor;
    if (job->cursor_seq != job->from)
        return false;
    job->walked = true;
    job_announce(server, job, connection);
    return true;
}

/* Report by report, since those of an account are not chained. */
static void job_search(server_t *server, retransmit_job_t *job, connection_t *connection)
{
    observed_t *source = &server->reports[job->partition];
    report_slot_t slot;

    for (int i = 0; i < WALK_STEPS; i++, job->cursor--) {
        if (job->cursor < 0 || report_read(server, source, job->partition, job->cursor, 1, &slot) != RING_OK) {
            job_fail(server, job, connection);
            return;
        }
        if (!is_of_account(&slot, connection->account, job->cursor_seq))
            continue;
        if (job_found(server, job, connection))
            return;
        job->cursor_seq--;
    }
}

static void job_walk(server_t *server, retransmit_job_t *job, connection_t *connection)
{
    report_slot_t slot;

    if (connection->drop_copy) {
        job_search(server, job, connection);
        return;
    }

    for (int i = 0; i < WALK_STEPS; i++) {
        if (!job_read(server, job, connection->session, job->cursor, job->cursor_seq, &slot)) {
            job_fail(server, job, connection);
            return;
        }
        if (job_found(server, job, connection))
            return;
        /* Saturated or first although an earlier number is wanted: the chain does not reach that far. */
        if (slot.distance == 0 || slot.distance == UINT32_MAX) {
            job_fail(server, job, connection);
            return;
        }
        job->cursor -= slot.distance;
        job->cursor_seq--;
    }
}

/* Live reports go first: a replay uses at most half of the output. */
static bool output_has_room(const server_t *server, const connection_t *connection)
{
    return connection->out_tail - connection->out_head < server->config.output_size / 2;
}

static void job_send(server_t *server, retransmit_job_t *job, connection_t *connection)
{
    report_slot_t slot;

    for (int i = 0; i < SEND_STEPS && job->sent < job->count && output_has_room(server, connection); i++) {
        uint64_t seq_num = job->from + job->sent;
        int64_t position = job->positions[job->sent];
        bool found = connection->drop_copy
                         ? report_read(server, &server->reports[job->partition], job->partition, position, 1, &slot) == RING_OK
                         : job_read(server, job, connection->session, position, seq_num, &slot);
        if (!found) {
            connection_terminate(server, connection, TERMINATE_CODE_UNSPECIFIED, DOWN_CAUSE_SERVER_TERMINATE);
            return; /* promised and gone: the archive has lost it */
        }
        if (!report_send(server, connection, job->partition, FRAME_FLAG_POSS_RETRANS, seq_num, &slot))
            return;
        job->sent++;
    }
    if (job->sent == job->count)
        job_end(server, job);
}

int64_t retransmit_poll(server_t *server)
{
    int64_t work = 0;

    for (uint32_t i = 0; i < server->config.retransmit_jobs && server->jobs_running > 0; i++) {
        retransmit_job_t *job = &server->jobs[i];
        if (job->connection_id == 0)
            continue;
        connection_t *connection = server_connection(server, job->connection_id);
        INVARIANT(connection != NULL); /* retransmit_forget() ran when it ended */
        if (job->walked)
            job_send(server, job, connection);
        else
            job_walk(server, job, connection);
        work++;
    }
    return work;
}
