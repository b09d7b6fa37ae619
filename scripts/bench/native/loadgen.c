/* Load for the binary gateway: N sessions on one busy thread, over TCP, through the C client. Prints one line of JSON.
 *
 * The mix is that of exchange-core's generator: 82 % moves (replace with a new price), 9 % new resting orders, 3 % IOC, 6 %
 * cancels, on a book of about `--orders` resting orders. One new order in sixteen and all IOC cross, so that about 1 command
 * in 17 trades; the ratio really reached is in the output. When a session has no order to move or cancel, or too many, it
 * opens or cancels instead.
 *
 * Modes: window = each session keeps W requests unanswered; rate = open loop, R requests a second all together, latency
 * counted from the moment a request was due, not from when it could be sent.
 *
 * Latency is from the request to the first report that refers to it, in log-linear buckets (64 in each power of two); --histogram
 * writes it as HdrHistogram's percentile distribution. In rate mode `late_ns` shows how well the generator kept its own schedule. */
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "gateway/clients/c/bullring_client.h"

#define FLIGHTS (1u << 16) /* requests of a session that may be unanswered */
#define HISTOGRAM_SUB 64
#define HISTOGRAM_SIZE (HISTOGRAM_SUB * 48)
#define CODES 1024
#define SESSIONS_MAX 1024
#define BATCH 64 /* requests of a session in one turn */
#define POLLED_SESSIONS_MAX 4
#define READY_MAX 64
#define KEEP_ALIVE_MS 10000
#define KEEP_ALIVE_LOOK_NS UINT64_C(100000000)

enum order_state { ORDER_FREE, ORDER_PENDING, ORDER_LIVE, ORDER_BUSY };
enum action { ACTION_NEW, ACTION_IOC, ACTION_CANCEL, ACTION_MOVE, ACTIONS };

typedef struct order {
    uint64_t id;
    int64_t price;
    uint32_t generation;
    uint32_t live_at; /* index in `live` while ORDER_LIVE */
    uint8_t state, side;
} order_t;

typedef struct flight {
    uint64_t sent_ns; /* 0 = answered */
    uint32_t order;
    uint32_t generation;
} flight_t;

typedef struct histogram {
    uint64_t buckets[HISTOGRAM_SIZE];
    uint64_t max, sum, count;
} histogram_t;

typedef struct options {
    const char *address;
    const char *histogram; /* file; NULL = none */
    const char *sessions;
    uint16_t port;
    bool rate_mode;
    bool yield; /* give the core away after a round without an answer, for who works on the same core */
    uint32_t instrument, window, orders;
    double rate, seconds, warmup;
    int64_t price, spread, quantity;
    uint64_t seed;
} options_t;

typedef struct session {
    bullring_client_t client;
    order_t *orders;
    uint32_t *live;    /* orders that may be moved or canceled */
    uint32_t *unused;
    uint32_t live_count, unused_count, order_count;
    flight_t *flights;
    uint32_t in_flight;
} session_t;

static struct {
    options_t options;
    session_t *sessions;
    uint32_t session_count;
    bool measuring;
    int epoll_fd;
    uint64_t now_ns;
    uint64_t keep_alive_due_ns;
    uint64_t random;
    uint64_t sent_in_all; /* warm-up included */
    uint64_t sent, answered, reports, fills, actions[ACTIONS], codes[CODES], gaps, lost;
    uint64_t due; /* requests of the schedule in the measured time */
    histogram_t latency, late;
} load;

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static uint64_t random_below(uint64_t bound)
{
    load.random ^= load.random << 13;
    load.random ^= load.random >> 7;
    load.random ^= load.random << 17;
    return (uint64_t)(((unsigned __int128)load.random * bound) >> 64);
}

static uint32_t bucket_of(uint64_t ns)
{
    if (ns < HISTOGRAM_SUB)
        return (uint32_t)ns;
    int shift = 63 - __builtin_clzll(ns) - 6; /* keeps the leading bit and six more */
    uint32_t bucket = (uint32_t)((uint64_t)(shift + 1) * HISTOGRAM_SUB + ((ns >> shift) - HISTOGRAM_SUB));
    return bucket < HISTOGRAM_SIZE ? bucket : HISTOGRAM_SIZE - 1;
}

/* Upper edge: a percentile is never told too low. */
static uint64_t bucket_top(uint32_t bucket)
{
    if (bucket < HISTOGRAM_SUB)
        return bucket;
    uint32_t shift = bucket / HISTOGRAM_SUB - 1;
    return (((uint64_t)bucket % HISTOGRAM_SUB + HISTOGRAM_SUB + 1) << shift) - 1;
}

static uint64_t percentile(const histogram_t *histogram, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)histogram->count + 0.999999), seen = 0;

    for (uint32_t i = 0; i < HISTOGRAM_SIZE; i++) {
        seen += histogram->buckets[i];
        if (seen >= wanted && seen > 0)
            return bucket_top(i) < histogram->max ? bucket_top(i) : histogram->max;
    }
    return histogram->max;
}

static void record(histogram_t *histogram, uint64_t ns)
{
    if (!load.measuring)
        return;
    histogram->buckets[bucket_of(ns)]++;
    histogram->count++;
    histogram->sum += ns;
    histogram->max = ns > histogram->max ? ns : histogram->max;
}

static double mean(const histogram_t *histogram)
{
    return histogram->count == 0 ? 0.0 : (double)histogram->sum / (double)histogram->count;
}

/* HdrHistogram's text form (.hgrm), values in microseconds. */
static void write_histogram(const histogram_t *histogram, const char *path)
{
    FILE *file = fopen(path, "w");
    uint64_t seen = 0;

    if (file == NULL) {
        fprintf(stderr, "loadgen: cannot write %s: %s\n", path, strerror(errno));
        exit(73);
    }
    fprintf(file, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for (uint32_t i = 0; i < HISTOGRAM_SIZE; i++) {
        if (histogram->buckets[i] == 0)
            continue;
        seen += histogram->buckets[i];
        uint64_t top = bucket_top(i) < histogram->max ? bucket_top(i) : histogram->max;
        double share = (double)seen / (double)histogram->count;
        fprintf(file, "%12.3f %2.12f %10" PRIu64, (double)top / 1000.0, share, seen);
        if (seen < histogram->count)
            fprintf(file, " %14.2f\n", 1.0 / (1.0 - share));
        else
            fprintf(file, "\n");
    }
    fprintf(file, "#[Mean    = %12.3f]\n#[Max     = %12.3f, Total count    = %12" PRIu64 "]\n#[Buckets = %12d, SubBuckets     = %12d]\n",
            mean(histogram) / 1000.0, (double)histogram->max / 1000.0, histogram->count, 48, HISTOGRAM_SUB);
    fclose(file);
}

/* ---- orders of a session ----------------------------------------------------------------------------------------- */

static void order_enlist(session_t *session, order_t *order)
{
    order->state = ORDER_LIVE;
    order->live_at = session->live_count;
    session->live[session->live_count++] = (uint32_t)(order - session->orders);
}

static void order_delist(session_t *session, order_t *order)
{
    if (order->state != ORDER_LIVE)
        return;
    uint32_t last = session->live[--session->live_count];
    session->live[order->live_at] = last;
    session->orders[last].live_at = order->live_at;
}

static void order_done(session_t *session, order_t *order)
{
    if (order->state == ORDER_FREE)
        return;
    order_delist(session, order);
    order->state = ORDER_FREE;
    order->generation++;
    session->unused[session->unused_count++] = (uint32_t)(order - session->orders);
}

/* Client ids carry slot and generation: an answer to a slot's former owner finds nobody. */
static uint64_t client_id(const session_t *session, const order_t *order)
{
    return (uint64_t)order->generation << 32 | (uint32_t)(order - session->orders + 1);
}

static order_t *order_of(session_t *session, uint64_t id)
{
    uint32_t index = (uint32_t)id - 1;

    if (index >= session->order_count || session->orders[index].generation != id >> 32)
        return NULL;
    return session->orders[index].state == ORDER_FREE ? NULL : &session->orders[index];
}

/* ---- reports ----------------------------------------------------------------------------------------------------- */

static order_t *answer(session_t *session, uint64_t seq_num)
{
    flight_t *flight = &session->flights[seq_num % FLIGHTS];

    if (seq_num == 0 || flight->sent_ns == 0)
        return NULL;
    record(&load.latency, load.now_ns > flight->sent_ns ? load.now_ns - flight->sent_ns : 0);
    flight->sent_ns = 0;
    session->in_flight--;
    load.answered += load.measuring;
    order_t *order = &session->orders[flight->order];
    return order->generation == flight->generation && order->state != ORDER_FREE ? order : NULL;
}

static void count_code(uint16_t code)
{
    if (load.measuring)
        load.codes[code < CODES ? code : CODES - 1]++;
}

static void on_accepted(session_t *session, const order_accepted_t *report)
{
    order_t *order = answer(session, report->ref_seq_num);
    if (order == NULL)
        return;
    order->id = report->order_id;
    if (report->time_in_force == TIME_IN_FORCE_GTC)
        order_enlist(session, order);
}

static void on_executed(session_t *session, const order_executed_t *report)
{
    load.fills += load.measuring && report->liquidity == LIQUIDITY_TAKER;
    order_t *order = order_of(session, report->cl_ord_id);
    if (order != NULL && report->leaves_qty == 0)
        order_done(session, order);
}

static void on_canceled(session_t *session, const order_canceled_t *report)
{
    answer(session, report->ref_seq_num);
    order_t *order = order_of(session, report->orig_cl_ord_id != 0 ? report->orig_cl_ord_id : report->cl_ord_id);
    if (order != NULL)
        order_done(session, order);
}

static void on_replaced(session_t *session, const order_replaced_t *report)
{
    order_t *order = answer(session, report->ref_seq_num);
    if (order != NULL && order->state == ORDER_BUSY)
        order_enlist(session, order);
}

static void on_refused_change(session_t *session, const cancel_replace_reject_t *report)
{
    order_t *order = answer(session, report->ref_seq_num);

    count_code(report->reject_code);
    if (order == NULL || order->state != ORDER_BUSY)
        return;
    if (report->reject_code == REJECT_CODE_UNKNOWN_ORDER || report->reject_code == REJECT_CODE_TOO_LATE_TO_CANCEL)
        order_done(session, order);
    else
        order_enlist(session, order);
}

static void on_rejected(session_t *session, uint64_t ref_seq_num, uint16_t code)
{
    order_t *order = answer(session, ref_seq_num);

    count_code(code);
    if (order == NULL)
        return;
    if (order->state == ORDER_PENDING)
        order_done(session, order);
    else if (order->state == ORDER_BUSY)
        order_enlist(session, order);
}

static void on_frame(void *context, const frame_header_t *header, const void *block)
{
    session_t *session = context;
    uint8_t partition = (uint8_t)(header->flags >> FRAME_FLAG_PARTITION_SHIFT);

    load.reports += load.measuring;
    if (header->seq_num > session->client.expected[partition])
        load.gaps++;
    switch (header->template_id) {
    case TEMPLATE_ORDER_ACCEPTED:
        on_accepted(session, block);
        break;
    case TEMPLATE_ORDER_EXECUTED:
        on_executed(session, block);
        break;
    case TEMPLATE_ORDER_CANCELED:
        on_canceled(session, block);
        break;
    case TEMPLATE_ORDER_REPLACED:
        on_replaced(session, block);
        break;
    case TEMPLATE_CANCEL_REPLACE_REJECT:
        on_refused_change(session, block);
        break;
    case TEMPLATE_ORDER_REJECTED:
        on_rejected(session, ((const order_rejected_t *)block)->ref_seq_num, ((const order_rejected_t *)block)->reject_code);
        break;
    case TEMPLATE_BUSINESS_REJECT:
        on_rejected(session, ((const business_reject_t *)block)->ref_seq_num, ((const business_reject_t *)block)->reject_code);
        break;
    default:
        break;
    }
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* Resting: on the own side of the middle, close to it more often. Crossing: through the best few levels of the other side. */
static int64_t price_for(uint8_t side, bool crossing)
{
    int64_t spread = load.options.spread;
    int64_t near = (int64_t)random_below((uint64_t)spread), far = (int64_t)random_below((uint64_t)spread);
    int64_t distance = 1 + (near < far ? near : far);

    if (crossing)
        return side == SIDE_BUY ? load.options.price + spread : load.options.price - spread;
    return side == SIDE_BUY ? load.options.price - distance : load.options.price + distance;
}

static int64_t fly(session_t *session, int64_t seq_num, const order_t *order, uint64_t due_ns)
{
    if (seq_num < 0)
        return seq_num;
    flight_t *flight = &session->flights[(uint64_t)seq_num % FLIGHTS];
    flight->sent_ns = due_ns;
    flight->order = (uint32_t)(order - session->orders);
    flight->generation = order->generation;
    session->in_flight++;
    load.sent += load.measuring;
    load.sent_in_all++;
    return seq_num;
}

static int64_t send_new(session_t *session, bool immediate, uint64_t due_ns)
{
    order_t *order = &session->orders[session->unused[session->unused_count - 1]];
    uint8_t side = random_below(2) == 0 ? SIDE_BUY : SIDE_SELL;
    bool crossing = immediate || random_below(16) == 0;
    int64_t quantity = 1 + (int64_t)random_below((uint64_t)load.options.quantity);
    new_order_single_t request = bullring_limit_order(load.options.instrument, side, price_for(side, crossing), quantity);

    request.cl_ord_id = client_id(session, order);
    if (immediate)
        request.time_in_force = TIME_IN_FORCE_IOC;
    int64_t seq_num = fly(session, bullring_send_new(&session->client, &request), order, due_ns);
    if (seq_num < 0)
        return seq_num;
    session->unused_count--;
    order->state = ORDER_PENDING;
    order->side = side;
    order->price = request.price;
    return seq_num;
}

static int64_t send_change(session_t *session, bool cancel, uint64_t due_ns)
{
    order_t *order = &session->orders[session->live[random_below(session->live_count)]];
    int64_t seq_num;

    if (cancel) {
        order_cancel_request_t request = {
            .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = order->id, .instrument_id = load.options.instrument};
        seq_num = bullring_send_cancel(&session->client, &request);
    } else {
        int64_t price = price_for(order->side, false);
        if (price == order->price) /* a move that moves nothing is refused */
            price += order->side == SIDE_BUY ? -1 : 1;
        order->price = price;
        order_replace_request_t request = {
            .orig_cl_ord_id = ORDER_ID_OPT_NULL,
            .order_id = order->id,
            .price = price,
            .order_qty = QTY_OPT_NULL,
            .display_qty = QTY_OPT_NULL,
            .instrument_id = load.options.instrument,
        };
        seq_num = bullring_send_replace(&session->client, &request);
    }
    if (fly(session, seq_num, order, due_ns) < 0)
        return seq_num;
    order_delist(session, order);
    order->state = ORDER_BUSY;
    return seq_num;
}

static enum action choose(const session_t *session)
{
    uint32_t wanted = load.options.orders / load.session_count + 1;
    uint64_t draw = random_below(100);

    if (session->live_count == 0)
        return ACTION_NEW;
    if (draw < 82)
        return ACTION_MOVE;
    if (draw < 85)
        return ACTION_IOC;
    /* 9 % new and 6 % cancels hold the book's size only on average: steer it. */
    if (session->order_count - session->unused_count < wanted)
        return draw < 97 ? ACTION_NEW : ACTION_CANCEL;
    return draw < 91 ? ACTION_NEW : ACTION_CANCEL;
}

/* Returns false if the session cannot send now. */
static bool send_one(session_t *session, uint64_t due_ns)
{
    enum action action = choose(session);

    if (session->in_flight >= FLIGHTS - 1)
        return false;
    if ((action == ACTION_NEW || action == ACTION_IOC) && session->unused_count == 0) {
        if (session->live_count == 0)
            return false;
        action = ACTION_CANCEL;
    }
    int64_t seq_num = action == ACTION_NEW || action == ACTION_IOC ? send_new(session, action == ACTION_IOC, due_ns)
                                                                   : send_change(session, action == ACTION_CANCEL, due_ns);
    if (seq_num < 0)
        return false;
    load.actions[action] += load.measuring;
    return true;
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static void fail(const char *what, uint32_t session, int status)
{
    const bullring_client_t *client = &load.sessions[session].client;
    fprintf(stderr, "loadgen: session %u: %s: status %d, reject code %u, terminate code %u\n", client->session_id, what, status,
            client->reject_code, client->terminate_code);
    exit(1);
}

static void receive(uint32_t session)
{
    int status;

    load.now_ns = bullring_clock(CLOCK_MONOTONIC);
    status = bullring_poll(&load.sessions[session].client);
    if (status < 0)
        fail("receive", session, status);
}

/* A few sessions are read in turn; of many only those that have something, or looking would take longer than what is looked for. */
static void receive_all(void)
{
    struct epoll_event events[READY_MAX];

    if (load.session_count <= POLLED_SESSIONS_MAX) {
        for (uint32_t i = 0; i < load.session_count; i++)
            receive(i);
        return;
    }
    int count = epoll_wait(load.epoll_fd, events, READY_MAX, 0);
    for (int i = 0; i < count; i++)
        receive(events[i].data.u32);
}

static void exchange_all(void)
{
    uint64_t reports = load.reports;
    int status;

    for (uint32_t i = 0; i < load.session_count; i++) {
        status = bullring_flush(&load.sessions[i].client);
        if (status < 0)
            fail("send", i, status);
    }
    receive_all();
    if (load.now_ns >= load.keep_alive_due_ns) {
        load.keep_alive_due_ns = load.now_ns + KEEP_ALIVE_LOOK_NS;
        for (uint32_t i = 0; i < load.session_count; i++) {
            status = bullring_keep_alive(&load.sessions[i].client);
            if (status < 0)
                fail("keep alive", i, status);
        }
    }
    if (load.options.yield && load.reports == reports)
        sched_yield();
}

static void fill_windows(void)
{
    for (uint32_t i = 0; i < load.session_count; i++) {
        session_t *session = &load.sessions[i];
        load.now_ns = bullring_clock(CLOCK_MONOTONIC);
        for (int n = 0; n < BATCH && session->in_flight < load.options.window; n++)
            if (!send_one(session, load.now_ns))
                break;
    }
}

/* Send what has become due since `start`; `*issued` counts the requests of the schedule. */
static void follow_schedule(uint64_t start, uint64_t *issued)
{
    double interval_ns = 1e9 / load.options.rate;
    uint64_t now = bullring_clock(CLOCK_MONOTONIC);
    uint64_t due = (uint64_t)((double)(now - start) / interval_ns);

    load.now_ns = now;

    for (int n = 0; n < BATCH * (int)load.session_count && *issued < due; n++) {
        uint64_t due_ns = start + (uint64_t)((double)*issued * interval_ns);
        if (!send_one(&load.sessions[*issued % load.session_count], due_ns))
            return; /* later, and late */
        record(&load.late, now - due_ns);
        ++*issued;
    }
}

static double run_for(double seconds)
{
    uint64_t start = bullring_clock(CLOCK_MONOTONIC), issued = 0;
    uint64_t end = start + (uint64_t)(seconds * 1e9);

    while (bullring_clock(CLOCK_MONOTONIC) < end) {
        if (load.options.rate_mode)
            follow_schedule(start, &issued);
        else
            fill_windows();
        exchange_all();
    }
    if (load.options.rate_mode && load.measuring)
        load.due = (uint64_t)((double)(end - start) * load.options.rate / 1e9);
    return (double)(bullring_clock(CLOCK_MONOTONIC) - start) / 1e9;
}

static void drain(void)
{
    uint64_t end = bullring_clock(CLOCK_MONOTONIC) + UINT64_C(3000000000);
    uint32_t waiting;

    do {
        exchange_all();
        waiting = 0;
        for (uint32_t i = 0; i < load.session_count; i++)
            waiting += load.sessions[i].in_flight;
    } while (waiting > 0 && bullring_clock(CLOCK_MONOTONIC) < end);
    load.lost = waiting;
}

/* ---- set up ------------------------------------------------------------------------------------------------------ */

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL) {
        fprintf(stderr, "loadgen: out of memory\n");
        exit(71);
    }
    return memory;
}

static void session_prepare(session_t *session, uint32_t id, const char *key_id, const uint8_t secret[32])
{
    bullring_init(&session->client, id, on_frame, session);
    bullring_key_hmac(&session->client, key_id, secret);
    session->flights = allocate(FLIGHTS, sizeof(flight_t));
}

static void session_slots(session_t *session)
{
    uint32_t slots = 2 * load.options.orders / load.session_count + load.options.window + 64;

    session->orders = allocate(slots, sizeof(order_t));
    session->live = allocate(slots, sizeof(uint32_t));
    session->unused = allocate(slots, sizeof(uint32_t));
    session->order_count = session->unused_count = slots;
    for (uint32_t i = 0; i < slots; i++)
        session->unused[i] = slots - 1 - i;
}

/* Lines of "SESSION KEY-ID SECRET-HEX"; '#' begins a comment. */
static void read_sessions(const char *path)
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    char line[256], key_id[33], hex[65];
    uint8_t secret[32];
    uint32_t id;

    if (file == NULL) {
        fprintf(stderr, "loadgen: cannot read %s: %s\n", path, strerror(errno));
        exit(66);
    }
    load.sessions = allocate(SESSIONS_MAX, sizeof(session_t));
    while (fgets(line, sizeof(line), file) != NULL && load.session_count < SESSIONS_MAX) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        bool whole = sscanf(line, "%" SCNu32 " %32s %64s", &id, key_id, hex) == 3 && strlen(hex) == 64;
        for (int i = 0; whole && i < 32; i++)
            whole = sscanf(hex + 2 * i, "%2hhx", &secret[i]) == 1;
        if (!whole) {
            fprintf(stderr, "loadgen: %s: must be lines of SESSION KEY-ID SECRET-HEX (64 digits): %s", path, line);
            exit(65);
        }
        session_prepare(&load.sessions[load.session_count++], id, key_id, secret);
    }
    if (file != stdin)
        fclose(file);
    for (uint32_t i = 0; i < load.session_count; i++)
        session_slots(&load.sessions[i]);
}

static void log_on_all(void)
{
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < load.session_count; i++) {
        bullring_client_t *client = &load.sessions[i].client;
        int status = bullring_connect(client, load.options.address, load.options.port);
        if (status < 0)
            fail("connect", i, status);
        status = bullring_log_on(client, bullring_clock(CLOCK_REALTIME), KEEP_ALIVE_MS, 5000);
        if (status < 0)
            fail("logon", i, status);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(load.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) != 0)
            fail("epoll", i, -errno);
    }
}

static void usage(const char *program)
{
    fprintf(stderr,
            "usage: %s --address HOST:PORT --sessions FILE --instrument ID [options]\n"
            "  --sessions FILE   lines of SESSION KEY-ID SECRET-HEX (HMAC); - = standard input\n"
            "  --window W        requests unanswered per session (default 64)\n"
            "  --rate R          open loop instead: requests a second, all sessions together\n"
            "  --wait spin|yield when nothing comes (default spin); yield where others need this core\n"
            "  --seconds S       measured time (default 5); --warmup S before it (default 1)\n"
            "  --orders N        resting orders aimed at, all sessions together (default 1000)\n"
            "  --price P         middle price in ticks (default 10000); --spread T ticks to each side (default 100)\n"
            "  --quantity Q      1..Q lots an order (default 10); --seed N (default 1)\n"
            "  --histogram FILE  write the latencies as HdrHistogram's percentile distribution, in us\n",
            program);
    exit(64);
}

static void split_address(char *text, const char *program)
{
    char *colon = strrchr(text, ':');
    if (colon == NULL)
        usage(program);
    *colon = '\0';
    load.options.address = text;
    load.options.port = (uint16_t)atoi(colon + 1);
}

static void read_options(int count, char **arguments)
{
    static const struct option known[] = {
        {"address", 1, NULL, 'a'}, {"sessions", 1, NULL, 's'}, {"instrument", 1, NULL, 'i'}, {"window", 1, NULL, 'w'},
        {"rate", 1, NULL, 'r'},    {"wait", 1, NULL, 'y'},    {"seconds", 1, NULL, 't'},  {"warmup", 1, NULL, 'u'},     {"orders", 1, NULL, 'o'},
        {"price", 1, NULL, 'p'},   {"spread", 1, NULL, 'd'},   {"quantity", 1, NULL, 'q'},   {"seed", 1, NULL, 'e'},
        {"histogram", 1, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    options_t *options = &load.options;
    int letter;

    *options = (options_t){.window = 64, .orders = 1000, .seconds = 5, .warmup = 1, .price = 10000, .spread = 100,
                           .quantity = 10, .seed = 1};
    while ((letter = getopt_long(count, arguments, "", known, NULL)) != -1) {
        switch (letter) {
        case 'a': split_address(optarg, arguments[0]); break;
        case 's': options->sessions = optarg; break;
        case 'i': options->instrument = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'w': options->window = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'r': options->rate = strtod(optarg, NULL); options->rate_mode = true; break;
        case 'y': options->yield = strcmp(optarg, "yield") == 0; break;
        case 't': options->seconds = strtod(optarg, NULL); break;
        case 'u': options->warmup = strtod(optarg, NULL); break;
        case 'o': options->orders = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'p': options->price = strtoll(optarg, NULL, 10); break;
        case 'd': options->spread = strtoll(optarg, NULL, 10); break;
        case 'q': options->quantity = strtoll(optarg, NULL, 10); break;
        case 'h': options->histogram = optarg; break;
        case 'e': options->seed = strtoull(optarg, NULL, 10); break;
        default: usage(arguments[0]);
        }
    }
    if (options->address == NULL || options->sessions == NULL || options->instrument == 0 || options->window == 0 ||
        options->window >= FLIGHTS || options->orders == 0 || options->quantity < 1 || options->spread < 1 ||
        options->price <= options->spread || (options->rate_mode && options->rate <= 0))
        usage(arguments[0]);
    load.random = options->seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
}

static uint64_t cpu_ns(void)
{
    return bullring_clock(CLOCK_PROCESS_CPUTIME_ID);
}

static void print_result(double seconds)
{
    const options_t *options = &load.options;
    const histogram_t *latency = &load.latency;
    const char *comma = "";

    printf("{\"mode\": \"%s\", \"sessions\": %u, \"window\": %u, \"rate\": %.0f, \"seconds\": %.3f, ",
           options->rate_mode ? "rate" : "window", load.session_count, options->rate_mode ? 0 : options->window, options->rate,
           seconds);
    printf("\"seed\": %" PRIu64 ", \"orders\": %" PRIu64 ", \"answered\": %" PRIu64 ", \"orders_per_s\": %.0f, ", options->seed,
           load.sent, load.answered, (double)load.answered / seconds);
    printf("\"orders_in_all\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 ", ", load.sent_in_all, cpu_ns());
    printf("\"reports\": %" PRIu64 ", \"reports_per_s\": %.0f, \"fills\": %" PRIu64 ", \"commands_per_fill\": %.1f, ",
           load.reports, (double)load.reports / seconds, load.fills,
           load.fills == 0 ? 0.0 : (double)load.answered / (double)load.fills);
    printf("\"mix\": {\"new\": %" PRIu64 ", \"ioc\": %" PRIu64 ", \"cancel\": %" PRIu64 ", \"move\": %" PRIu64 "}, ",
           load.actions[ACTION_NEW], load.actions[ACTION_IOC], load.actions[ACTION_CANCEL], load.actions[ACTION_MOVE]);
    printf("\"rejects\": {");
    for (int code = 0; code < CODES; code++) {
        if (load.codes[code] == 0)
            continue;
        printf("%s\"%d\": %" PRIu64, comma, code, load.codes[code]);
        comma = ", ";
    }
    printf("}, \"gaps\": %" PRIu64 ", \"unanswered\": %" PRIu64 ", ", load.gaps, load.lost);
    printf("\"rtt_ns\": {\"count\": %" PRIu64 ", \"mean\": %.0f, \"p50\": %" PRIu64 ", \"p90\": %" PRIu64 ", \"p99\": %" PRIu64
           ", \"p999\": %" PRIu64 ", \"p9999\": %" PRIu64 ", \"max\": %" PRIu64 "}",
           latency->count, mean(latency), percentile(latency, 0.50), percentile(latency, 0.90), percentile(latency, 0.99),
           percentile(latency, 0.999), percentile(latency, 0.9999), latency->max);
    printf(", \"due\": %" PRIu64 ", \"late_ns\": {\"p50\": %" PRIu64 ", \"p99\": %" PRIu64 ", \"p999\": %" PRIu64
           ", \"max\": %" PRIu64 "}}\n",
           load.due, percentile(&load.late, 0.50), percentile(&load.late, 0.99), percentile(&load.late, 0.999), load.late.max);
}

int main(int count, char **arguments)
{
    read_options(count, arguments);
    read_sessions(load.options.sessions);
    if (load.session_count == 0)
        usage(arguments[0]);
    log_on_all();
    run_for(load.options.warmup);
    load.measuring = true;
    double seconds = run_for(load.options.seconds);
    load.measuring = false;
    drain();
    print_result(seconds);
    if (load.options.histogram != NULL)
        write_histogram(&load.latency, load.options.histogram);
    for (uint32_t i = 0; i < load.session_count; i++)
        bullring_disconnect(&load.sessions[i].client);
    return load.lost > 0 ? 2 : 0;
}
