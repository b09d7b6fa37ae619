/* SoupBinTCP as the feed speaks it: logins, streams of a channel, snapshots on request.
 *
 * Replay port: the login's session names a channel (its first five characters are enough, none is channel 1), its number the
 * first message wanted, 0 for the next one to come. Snapshot port: the client sends SnapshotRequest as unsequenced data and gets,
 * per instrument, SnapshotBegin, InstrumentStatus, the book, BookDigest, SnapshotEnd as sequenced data. */
#include <errno.h>
#include <time.h>

#include "feed_internal.h"
#include "token.h"

#define CLIENT_PACKETS_A_SECOND 100
#define SNAPSHOT_SESSION "SNAPSHOT  "

static uint8_t *reserve(feed_t *feed, soup_t *soup, uint32_t size)
{
    INVARIANT(soup->out_tail + size <= feed->config.output_size);
    uint8_t *to = soup->out + soup->out_tail;
    soup->out_tail += size;
    return to;
}

static void say(feed_t *feed, soup_t *soup, uint8_t type, const void *payload, uint32_t size)
{
    uint8_t *to = reserve(feed, soup, SOUP_HEADER_SIZE + size);
    soup_header(to, type, size);
    if (size > 0)
        memcpy(to + SOUP_HEADER_SIZE, payload, size);
}

static void say_message(feed_t *feed, soup_t *soup, uint16_t template_id, const void *block, uint16_t block_length)
{
    market_header_t header = {block_length, template_id, MARKETDATA_SCHEMA_ID, MARKETDATA_SCHEMA_VERSION};
    uint8_t *to = reserve(feed, soup, SOUP_HEADER_SIZE + MARKET_HEADER_SIZE + block_length);
    soup_header(to, 'S', MARKET_HEADER_SIZE + block_length);
    memcpy(to + SOUP_HEADER_SIZE, &header, sizeof(header));
    memcpy(to + SOUP_HEADER_SIZE + MARKET_HEADER_SIZE, block, block_length);
    feed->counters.messages_out++;
}

/* ---- logins ------------------------------------------------------------------------------------------------------ */

void soup_refuse(feed_t *feed, soup_t *soup, uint8_t reason)
{
    feed->counters.logins_refused++;
    say(feed, soup, 'J', &reason, 1);
    soup->state = SOUP_CLOSING;
    soup->sent_ns = feed->now_ns;
}

/* Digits with spaces around them; -1 = something else. */
static int64_t parse_number(const uint8_t *text, int size)
{
    int64_t number = 0;
    int begin = 0, end = size;
    while (begin < end && text[begin] == ' ')
        begin++;
    while (end > begin && (text[end - 1] == ' ' || text[end - 1] == 0))
        end--;
    if (begin == end)
        return 0;
    for (int i = begin; i < end; i++) {
        if (text[i] < '0' || text[i] > '9' || number > INT64_MAX / 10 - 10)
            return -1;
        number = number * 10 + (text[i] - '0');
    }
    return number;
}

static uint32_t connections_of(const feed_t *feed, const soup_t *soup)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < feed->counters.open; i++) {
        const soup_t *other = &feed->connections[feed->open_list[i]];
        count += (other->state == SOUP_STREAM || other->state == SOUP_SNAPSHOT) &&
                 memcmp(other->user, soup->user, SOUP_USER_SIZE) == 0;
    }
    return count;
}

/* What the login may have; -1 = nothing. Addresses that keep failing are not even looked at. */
static int entitled(feed_t *feed, const soup_t *soup, const uint8_t *user, const uint8_t *password)
{
    struct timespec now;
    int entitlements = FEED_KINDS | FEED_SNAPSHOTS;
    if (feed->config.tokens == 0)
        return entitlements;
    if (!limiter_has(&feed->logins_failed, soup->address, feed->now_ns))
        return -1;
    clock_gettime(CLOCK_REALTIME, &now);
    if (token_check(feed->config.key, user, password, (uint64_t)now.tv_sec, &entitlements))
        return entitlements;
    limiter_take(&feed->logins_failed, soup->address, feed->now_ns);
    return -1;
}

static void accept_login(feed_t *feed, soup_t *soup, const char *session, uint64_t number)
{
    char text[SOUP_ACCEPTED_SIZE + 1];
    memcpy(text, session, SESSION_SIZE);
    for (int i = SOUP_ACCEPTED_SIZE - 1; i >= SESSION_SIZE; i--) { /* right-justified, as the protocol's numbers are */
        text[i] = number > 0 || i == SOUP_ACCEPTED_SIZE - 1 ? (char)('0' + number % 10) : ' ';
        number /= 10;
    }
    say(feed, soup, 'A', text, SOUP_ACCEPTED_SIZE);
    feed->counters.logins++;
}

static void login_stream(feed_t *feed, soup_t *soup, const uint8_t *session, int64_t number, int entitlements)
{
    feed_channel_t *channel = channel_of_session(feed, (const char *)session);
    if (channel == NULL || number < 0) {
        soup_refuse(feed, soup, 'S');
        return;
    }
    if ((entitlements & channel->kind) == 0) {
        soup_refuse(feed, soup, 'A');
        return;
    }
    int64_t index = number == 0 ? channel_published(channel) : number - 1;
    if (index < channel_oldest(channel)) {
        soup_refuse(feed, soup, 'S');
        return;
    }
    soup->channel = channel;
    soup->next = index;
    soup->state = SOUP_STREAM;
    accept_login(feed, soup, channel->session, (uint64_t)index + 1);
}

static void login(feed_t *feed, soup_t *soup, const uint8_t *payload, uint32_t size)
{
    const uint8_t *password = payload + SOUP_USER_SIZE;
    const uint8_t *session = password + SOUP_PASSWORD_SIZE;
    if (soup->state != SOUP_LOGIN || size != SOUP_LOGIN_SIZE) {
        feed->counters.malformed++;
        soup_close(feed, soup);
        return;
    }
    int entitlements = entitled(feed, soup, payload, password);
    for (int i = 0; i < SOUP_USER_SIZE; i++)
        soup->user[i] = (char)(payload[i] >= 'a' && payload[i] <= 'z' ? payload[i] - 'a' + 'A' : payload[i]);
    if (entitlements < 0 || connections_of(feed, soup) >= feed->config.connections_per_user) {
        soup_refuse(feed, soup, 'A');
    } else if (!soup->snapshots) {
        login_stream(feed, soup, session, parse_number(session + SESSION_SIZE, SOUP_NUMBER_SIZE), entitlements);
    } else if (feed->config.books == 0 || (entitlements & FEED_SNAPSHOTS) == 0) {
        soup_refuse(feed, soup, 'A');
    } else {
        soup->entitlements = (uint8_t)entitlements;
        soup->state = SOUP_SNAPSHOT;
        accept_login(feed, soup, SNAPSHOT_SESSION, 1);
    }
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void flood(feed_t *feed, soup_t *soup)
{
    feed->counters.floods++;
    soup_close(feed, soup);
}

/* Is the instrument one of those the request asks for, as far as known? */
static bool wanted(feed_t *feed, const soup_request_t *request, uint32_t instrument)
{
    const feed_books_t *books = snapshot_books(feed, instrument);
    return books != NULL && (request->partition == 0 || request->partition == books->channel->partition);
}

static void want_snapshot(feed_t *feed, soup_t *soup, const uint8_t *payload, uint32_t size)
{
    market_header_t header;
    snapshot_request_t request;
    if (size < sizeof(header) + sizeof(request)) {
        feed->counters.malformed++;
        soup_close(feed, soup);
        return;
    }
    memcpy(&header, payload, sizeof(header));
    memcpy(&request, payload + sizeof(header), sizeof(request));
    if (header.schema_id != MARKETDATA_SCHEMA_ID || header.template_id != TEMPLATE_SNAPSHOT_REQUEST ||
        header.block_length < sizeof(request) || request.book_type > BOOK_TYPE_BY_LEVEL ||
        request.instrument_id > feed->config.instruments_max || request.partition > feed->config.partitions) {
        feed->counters.malformed++;
        soup_close(feed, soup);
        return;
    }
    if ((soup->entitlements & (request.book_type == BOOK_TYPE_BY_LEVEL ? FEED_FULL | FEED_DERIVED : FEED_FULL)) == 0) {
        feed->counters.logins_refused++; /* the protocol can only refuse a login */
        soup_close(feed, soup);
        return;
    }
    if (soup->request_count == SOUP_REQUESTS_MAX) {
        flood(feed, soup);
        return;
    }
    bool all = request.instrument_id == 0;
    soup->requests[soup->request_count++] = (soup_request_t){
        .instrument = all ? 1 : request.instrument_id,
        .last = all ? feed->config.instruments_max : request.instrument_id,
        .partition = request.partition,
        .book_type = request.book_type,
        .all = all,
    };
}

/* One packet of a client. */
void soup_packet(feed_t *feed, soup_t *soup, uint8_t type, const uint8_t *payload, uint32_t size)
{
    if (feed->now_ns - soup->window_ns > NS_PER_S) {
        soup->window_ns = feed->now_ns;
        soup->window_packets = 0;
    }
    if (++soup->window_packets > CLIENT_PACKETS_A_SECOND) {
        flood(feed, soup);
        return;
    }
    switch (type) {
    case 'L':
        login(feed, soup, payload, size);
        return;
    case 'U':
        if (soup->state == SOUP_SNAPSHOT)
            want_snapshot(feed, soup, payload, size);
        else if (soup->state != SOUP_STREAM) /* a stream has nothing to be asked: passed over, as debug is */
            soup_close(feed, soup);
        return;
    case 'R':
    case '+':
        return;
    case 'O':
        soup_close(feed, soup);
        return;
    default:
        feed->counters.malformed++;
        soup_close(feed, soup);
    }
}

/* ---- what is said ------------------------------------------------------------------------------------------------ */

static int64_t fill_stream(feed_t *feed, soup_t *soup)
{
    feed_channel_t *channel = soup->channel;
    uint32_t slot_size = channel->slot_size, largest = SOUP_HEADER_SIZE + slot_size;
    int64_t count = channel_published(channel) - soup->next;
    int64_t room = (int64_t)((feed->config.output_size - soup->out_tail) / largest);
    if (count <= 0 || room == 0)
        return 0;
    count = count < room ? count : room;
    count = count < FEED_REPLAY_BATCH ? count : FEED_REPLAY_BATCH;
    count = count < ring_capacity(channel->ring) ? count : ring_capacity(channel->ring);
    int64_t got = channel_read(feed, channel, soup->next, count, feed->replay);
    if (got == CHANNEL_HOLE) {
        if (channel->kind == FEED_FULL) {
            feed->hole_partition = channel->partition;
            feed->hole_first = soup->next;
        } else {
            soup_close(feed, soup); /* it fell behind what is kept: it has to start anew */
        }
        return 0;
    }
    uint8_t *to = soup->out + soup->out_tail;
    for (int64_t i = 0; i < got; i++) {
        const uint8_t *slot = feed->replay + i * slot_size;
        uint32_t size = slot_message_size(slot, slot_size);
        soup_header(to, 'S', size);
        memcpy(to + SOUP_HEADER_SIZE, slot_message(slot), size);
        to += SOUP_HEADER_SIZE + size;
    }
    soup->out_tail = (uint32_t)(to - soup->out);
    soup->next += got;
    feed->counters.messages_out += (uint64_t)got;
    return got;
}

/* All instruments: say first where the channels stand, so that what is new in the meantime is not missed. */
static void begin_request(feed_t *feed, soup_t *soup)
{
    soup_request_t *request = &soup->requests[0];
    request->begun = true;
    request->remaining = 1;
    if (!request->all)
        return;
    request->remaining = 0;
    for (uint32_t i = 1; i <= feed->config.instruments_max; i++)
        request->remaining += wanted(feed, request, i);
    for (uint8_t p = 1; p <= feed->config.partitions; p++) {
        if (request->partition != 0 && request->partition != p)
            continue;
        snapshot_begin_t begin = {.last_seq_num = snapshot_number(feed->books[p], request->book_type),
                                  .partition = p, .book_type = request->book_type};
        say_message(feed, soup, TEMPLATE_SNAPSHOT_BEGIN, &begin, sizeof(begin));
    }
}

/* The instrument of the request is done; 0 = there was none. */
static void end_snapshot(feed_t *feed, soup_t *soup, uint32_t instrument, uint64_t last_number)
{
    soup_request_t *request = &soup->requests[0];
    uint32_t next = instrument + 1;
    while (instrument != 0 && next <= request->last && !wanted(feed, request, next))
        next++;
    bool last = instrument == 0 || next > request->last;
    request->remaining -= request->remaining > 0;
    /* Instruments may have come meanwhile: only the last one says 0. */
    request->remaining = last ? 0 : request->remaining > 0 ? request->remaining : 1;
    snapshot_end_t end = {.last_seq_num = last_number, .instrument_id = instrument, .instruments_remaining = request->remaining};
    say_message(feed, soup, TEMPLATE_SNAPSHOT_END, &end, sizeof(end));
    request->instrument = next;
    if (last) {
        soup->request_count--;
        memmove(soup->requests, soup->requests + 1, soup->request_count * sizeof(soup->requests[0]));
    }
    feed->counters.snapshots++;
}

/* No book: of one instrument it is empty as of message 0, of all there is none. */
static void say_none(feed_t *feed, soup_t *soup)
{
    const soup_request_t *request = &soup->requests[0];
    snapshot_begin_t begin = {.instrument_id = request->instrument, .partition = request->partition, .book_type = request->book_type};
    if (!request->all)
        say_message(feed, soup, TEMPLATE_SNAPSHOT_BEGIN, &begin, sizeof(begin));
    end_snapshot(feed, soup, request->all ? 0 : request->instrument, 0);
}

static int64_t start_snapshot(feed_t *feed, soup_t *soup)
{
    soup_request_t *request = &soup->requests[0];
    if (!feed_caught_up(feed))
        return 0;
    if (!request->begun)
        begin_request(feed, soup);
    while (request->instrument < request->last && !wanted(feed, request, request->instrument))
        request->instrument++;
    if (!wanted(feed, request, request->instrument)) {
        say_none(feed, soup);
        return 1;
    }
    soup->snapshot = snapshot_want(feed, request->instrument, request->book_type);
    return soup->snapshot != NULL;
}

static int64_t fill_snapshot(feed_t *feed, soup_t *soup)
{
    snapshot_t *snapshot = soup->snapshot;
    if (soup->served) {
        if (soup->snapshot_offset < snapshot->size)
            return 1;
        end_snapshot(feed, soup, snapshot->instrument, snapshot->last_number);
        snapshot_release(feed, snapshot);
        soup->snapshot = NULL;
        soup->served = false;
        return 1;
    }
    if (snapshot != NULL) {
        soup->served = snapshot->state == SNAPSHOT_READY;
        soup->snapshot_offset = 0;
        return soup->served;
    }
    return soup->request_count > 0 ? start_snapshot(feed, soup) : 0;
}

int64_t soup_fill(feed_t *feed, soup_t *soup)
{
    int64_t work = 0;
    if (soup->state == SOUP_STREAM)
        work = fill_stream(feed, soup);
    else if (soup->state == SOUP_SNAPSHOT)
        work = fill_snapshot(feed, soup);
    bool quiet = feed->now_ns - soup->sent_ns >= feed->config.heartbeat_ms * NS_PER_MS;
    if (soup->out_tail == 0 && quiet && !soup->served && (soup->state == SOUP_STREAM || soup->state == SOUP_SNAPSHOT))
        say(feed, soup, 'H', NULL, 0);
    return work;
}
