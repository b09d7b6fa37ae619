/* What the parts of the feed share; nobody else includes this. */
#ifndef BULLRING_FEED_INTERNAL_H
#define BULLRING_FEED_INTERNAL_H

#include <sys/socket.h>

#include "feed.h"
#include "gateway/clients/c/bullring_book.h"
#include "limiter.h"
#include "marketdata.h"
#include "slots.h"
#include "transport.h"

#define FEED_BATCH 32             /* slots copied at once */
#define FEED_REPLAY_BATCH 512     /* the same for replay: each is one system call */
#define FEED_SLOT_MAX FEED_REFERENCE_SLOT
#define FEED_SLOT_HEADER 16       /* u64 and SBE header before the block */
#define FEED_PACKET_MAX 65507
#define FEED_BOOKS_CHUNK 32       /* messages applied between two looks at the rings to be sent */
#define FEED_SERVE_ROUNDS 8       /* a busy loop looks at its sockets this seldom */
#define FEED_EVENT_LEVELS_MAX 4096 /* changed levels gathered before they are told, at an event's end or not */
#define FEED_PATH_MAX 256
#define FEED_ERROR_MAX 256
#define FEED_SNAPSHOTS_MAX 128
#define FEED_ENDS_MAX FEED_CHANNELS_MAX

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

enum channel_status {
    CHANNEL_LATER = 0,  /* in neither yet: the archive is about to have it */
    CHANNEL_HOLE = -1,  /* never will: the archive went on without it, or there is none */
};

_Static_assert(FEED_DERIVED_SLOTS_MIN >= 4 * FEED_EVENT_LEVELS_MAX, "what one message makes is sent before it is overwritten");

typedef struct feed_channel {
    char session[SESSION_SIZE + 1];
    uint16_t number;
    uint8_t kind;
    uint8_t partition;
    bool live;          /* in feed->live: its messages are sent as they come */
    ring_t *ring;       /* NULL = this process does not have the channel */
    ring_t own;         /* the ring of derived and reference channels */
    void *memory;
    size_t memory_size;
    uint32_t slot_size;
    int archive_fd;     /* -1 = not open */
    char archive_path[FEED_PATH_MAX];
    /* publish.c */
    int64_t next;       /* index of the next message to go into the packet */
    int64_t round;      /* reference: index of the next one to be repeated */
    uint64_t round_ns;
    uint64_t sent_ns, began_ns;
    uint32_t packet_size;
    uint16_t packet_count;
    uint8_t *packet;
} feed_channel_t;

typedef struct feed_destination {
    int fd;
    uint8_t line; /* 0 A, 1 B */
    uint8_t kinds;
} feed_destination_t;

/* A session that is over: its end is announced for a while. */
typedef struct feed_end {
    char session[SESSION_SIZE + 1];
    uint8_t kind;
    uint64_t next;
    uint64_t due_ns;
    uint32_t left;
} feed_end_t;

/* ---- books.c ------------------------------------------------------------------------------------------------------ */

typedef struct best {
    int64_t bid_px, bid_qty, ask_px, ask_qty;
} best_t;

typedef struct feed_books {
    bullring_books_t books;
    feed_channel_t *channel; /* of the market ring */
    feed_channel_t *derived;
    int64_t position;        /* index of the next slot to be applied */
    int64_t live_from;       /* published at the start: from there on derived messages are news */
    uint64_t transact_time;
    uint64_t implied_trade;  /* the first half of an auction's print */
    uint32_t implied_instrument;
    uint8_t *last_flags;     /* of the newest derived message of this event */
    bool event_open;         /* messages of the last event are still to come */
    bool live;               /* caught up with what was published at the start */
    uint32_t held;           /* snapshots being copied: the books stand still */
    uint32_t touched_count;
    bullring_touch_t touched[FEED_EVENT_LEVELS_MAX];
    best_t *best;            /* by instrument: last one told */
    uint64_t update_id;      /* of the market slot being applied */
    uint64_t *update_ids;    /* by instrument: of the last slot that changed a level */
} feed_books_t;

/* ---- snapshot.c --------------------------------------------------------------------------------------------------- */

enum snapshot_state { SNAPSHOT_FREE = 0, SNAPSHOT_COPYING, SNAPSHOT_READY };

typedef struct snapshot {
    uint8_t state;
    uint8_t book_type;
    uint32_t instrument;
    uint32_t references;
    uint64_t made_ns;
    feed_books_t *books;
    bullring_level_walk_t walk;
    uint8_t side;             /* being walked: SIDE_BUY, then SIDE_SELL */
    const bullring_level_t *level;
    uint32_t order;           /* next one of that level */
    uint64_t last_number;     /* the book is what this and all earlier messages made it */
    uint8_t *bytes;           /* Soup packets up to, without, SnapshotEnd */
    size_t size, capacity;
} snapshot_t;

/* ---- tcp.c -------------------------------------------------------------------------------------------------------- */

enum soup_state {
    SOUP_FREE = 0,
    SOUP_LOGIN,    /* expects a login */
    SOUP_STREAM,   /* gets messages of its channel from `next` on */
    SOUP_SNAPSHOT, /* asks for snapshots */
    SOUP_CLOSING,  /* only sends what is left */
};

#define SOUP_INPUT_SIZE 256
#define SOUP_REQUESTS_MAX 8

typedef struct soup_request {
    uint32_t instrument;  /* next one to give */
    uint32_t last;        /* last one wanted */
    uint32_t remaining;   /* instruments to be given, as counted at the beginning */
    uint8_t partition;    /* whose; 0 = any */
    uint8_t book_type;
    bool all, begun;
} soup_request_t;

typedef struct soup {
    uint8_t state;
    bool snapshots;       /* came in on the snapshot port */
    uint8_t entitlements; /* of its token */
    bool write_armed;     /* the socket is full */
    bool served;          /* `snapshot` is being sent */
    int fd;
    uint32_t id;
    char user[SOUP_USER_SIZE + 1];
    uint8_t address[16];
    feed_channel_t *channel;
    int64_t next;
    uint64_t accepted_ns, received_ns, sent_ns, progress_ns, window_ns;
    uint32_t window_packets; /* client packets in this second */
    uint32_t in_length;
    uint32_t out_head, out_tail;
    uint32_t request_count;
    soup_request_t requests[SOUP_REQUESTS_MAX];
    snapshot_t *snapshot;
    size_t snapshot_offset;
    uint8_t in[SOUP_INPUT_SIZE];
    uint8_t *out;
} soup_t;

struct feed {
    feed_config_t config;
    char archive[FEED_PATH_MAX];
    char error[FEED_ERROR_MAX];
    bool started, failed;
    int hole_partition; /* 0 = none */
    int64_t hole_first;
    uint64_t now_ns;
    uint64_t timer_ns;
    uint32_t busy_rounds;
    feed_channel_t channels[FEED_CHANNELS_MAX]; /* by place: PLACE_... */
    feed_channel_t *live[FEED_CHANNELS_MAX];
    uint32_t live_count;
    feed_books_t *books[FEED_PARTITIONS_MAX + 1];
    uint32_t destination_count;
    feed_destination_t destinations[FEED_DESTINATIONS_MAX];
    uint32_t end_count;
    feed_end_t ends[FEED_ENDS_MAX];
    int epoll_fd, replay_fd, snapshot_fd, rerequest_fd;
    limiter_t rerequests, rerequests_all, logins_failed;
    soup_t *connections;
    uint32_t *free_list, free_count;
    uint32_t *open_list; /* counters.open of them */
    uint32_t turn;       /* whose turn it is to be written to */
    uint8_t *buffers;
    uint32_t generation;
    snapshot_t snapshots[FEED_SNAPSHOTS_MAX];
    uint64_t snapshot_bytes;
    feed_counters_t counters;
    _Alignas(CACHE_LINE) uint8_t batch[FEED_BATCH * FEED_SLOT_MAX];
    _Alignas(CACHE_LINE) uint8_t replay[FEED_REPLAY_BATCH * FEED_SLOT_MAX];
};

/* ---- slots -------------------------------------------------------------------------------------------------------- */

/* The message of a slot: SBE header and block, its size bounded by the slot whatever the slot says. */
static inline uint32_t slot_message_size(const uint8_t *slot, uint32_t slot_size)
{
    uint16_t block_length;
    memcpy(&block_length, slot + 8, sizeof(block_length));
    uint32_t size = MARKET_HEADER_SIZE + block_length;
    return size <= slot_size - 8 ? size : slot_size - 8;
}

static inline const uint8_t *slot_message(const uint8_t *slot)
{
    return slot + 8;
}

static inline uint16_t slot_template(const uint8_t *slot)
{
    uint16_t template_id;
    memcpy(&template_id, slot + 10, sizeof(template_id));
    return template_id;
}

/* ---- channel.c ---------------------------------------------------------------------------------------------------- */

enum { PLACE_FULL = 0, PLACE_DERIVED = FEED_PARTITIONS_MAX, PLACE_REFERENCE = 2 * FEED_PARTITIONS_MAX };

void channel_open(feed_t *feed, feed_channel_t *channel, uint16_t number, uint8_t kind, uint8_t partition);
bool channel_make_ring(feed_channel_t *channel, uint32_t slot_size, uint64_t slots);
void channel_close(feed_channel_t *channel);
feed_channel_t *channel_find(feed_t *feed, uint32_t number);
feed_channel_t *channel_of_session(feed_t *feed, const char session[SESSION_SIZE]);
/* Copy up to `count` slots from `index`, which is published, into `out`; returns how many, or a channel_status. */
int64_t channel_read(feed_t *feed, feed_channel_t *channel, int64_t index, int64_t count, uint8_t *out);
/* The oldest index that channel_read() may have. */
int64_t channel_oldest(feed_channel_t *channel);
/* Pack messages from `index` into `packet`; returns its size, 0 if there is not one message. */
uint32_t channel_pack(feed_t *feed, feed_channel_t *channel, int64_t index, int64_t count_max, uint8_t *packet, uint32_t size);

static inline int64_t channel_published(const feed_channel_t *channel)
{
    return ring_published(channel->ring);
}

/* ---- publish.c ---------------------------------------------------------------------------------------------------- */

int64_t publish_poll(feed_t *feed, int64_t limit);
void publish_start(feed_t *feed, feed_channel_t *channel, int64_t next);

/* ---- books.c ------------------------------------------------------------------------------------------------------ */

feed_books_t *books_new(feed_t *feed, int partition);
void books_free(feed_books_t *books);
/* Negative = STAGE_LAPPED or STAGE_FAILED. */
int64_t books_poll(feed_t *feed, feed_books_t *books, int64_t limit);
bool books_caught_up(const feed_books_t *books);

/* ---- snapshot.c --------------------------------------------------------------------------------------------------- */

int64_t snapshot_poll(feed_t *feed);
/* A snapshot of the instrument's book, ready or being made, with one reference more; NULL = not now. */
snapshot_t *snapshot_want(feed_t *feed, uint32_t instrument, uint8_t book_type);
void snapshot_release(feed_t *feed, snapshot_t *snapshot);
/* Number of the last message, of the full or the derived channel, that a snapshot taken now would contain. */
uint64_t snapshot_number(const feed_books_t *books, uint8_t book_type);
/* The books an instrument is in; NULL = nowhere seen. */
feed_books_t *snapshot_books(feed_t *feed, uint32_t instrument);
void snapshots_free(feed_t *feed);

/* ---- rerequest.c -------------------------------------------------------------------------------------------------- */

int64_t rerequest_poll(feed_t *feed);

/* ---- tcp.c, soup.c ------------------------------------------------------------------------------------------------ */

bool tcp_allocate(feed_t *feed);
void tcp_free(feed_t *feed);
int64_t tcp_poll(feed_t *feed);
void tcp_shutdown(feed_t *feed);

void soup_packet(feed_t *feed, soup_t *soup, uint8_t type, const uint8_t *payload, uint32_t size);
/* Fill the output as far as there is something to say. */
int64_t soup_fill(feed_t *feed, soup_t *soup);
void soup_close(feed_t *feed, soup_t *soup);
void soup_refuse(feed_t *feed, soup_t *soup, uint8_t reason);

int fail(feed_t *feed, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
