/* Market-data feed: one stage that turns market rings into MoldUDP64 packets, keeps books from them, derives the channels of
 * levels and prints, and serves re-requests (UDP), replay and snapshots (SoupBinTCP). docs/FEED.md is the specification.
 *
 *   market ring p ─┬─► publish.c    packets of channel p, A and B                        match -> kernel: nothing else in between
 *                  └─► books.c      books by order ─► derived ring p ─► publish.c        channel 100 + p
 *                        └─► snapshot.c   copies of one book at one number
 *   reference ring ──► publish.c    channel 900, sent round and round
 *   any ring or archive file ──► rerequest.c, tcp.c
 *
 * A channel is a ring of slots (u64, SBE header, block) and, for market rings, the journaler's archive of it; the number of a
 * message is its ring index + 1. Nobody waits for this stage: what the ring has lost is read from the archive, and what the
 * archive does not have is a hole (STAGE_LAPPED, feed_hole()): the process makes it again from the log.
 *
 * Everything runs on the thread that polls. Memory is taken in feed_new(), except books that outgrow it and snapshots. */
#ifndef BULLRING_FEED_H
#define BULLRING_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "ring.h"
#include "stage.h"

#define FEED_PARTITIONS_MAX 31
#define FEED_CHANNELS_MAX (2 * FEED_PARTITIONS_MAX + 1)
#define FEED_DERIVED_BASE 100   /* channel number of partition p's levels and prints: 100 + p */
#define FEED_REFERENCE 900
#define FEED_DESTINATIONS_MAX 64
#define FEED_KEY_SIZE 32
#define FEED_GENERATION_SIZE 5
#define FEED_REFERENCE_BLOCK_MAX 120
#define FEED_REFERENCE_SLOT 136 /* u64, SBE header, the largest block */

#define FEED_REFERENCE_SLOTS_MIN 1024
#define FEED_DERIVED_SLOTS_MIN 16384 /* four times what one message can make at most */

enum feed_kind { FEED_FULL = 1, FEED_DERIVED = 2, FEED_DEFINITIONS = 4, FEED_KINDS = 7 };

/* What a token entitles to, and so the first character of a user name. */
#define FEED_SNAPSHOTS 8

typedef struct feed_config {
    const char *archive;               /* folder with a flat file of market slots per partition; NULL = ring memory only */
    char generation[8];                /* 5 characters: changes when history begins anew */
    uint8_t key[FEED_KEY_SIZE];        /* tokens are made with it */
    uint8_t partitions;
    uint8_t publish;                   /* kinds of channels sent over UDP */
    uint8_t books;                     /* 1 = keep books: derived channels and snapshots */
    uint8_t tokens;                    /* 1 = a login needs a token, 0 = any is welcome */
    uint32_t packet_size_max;          /* bytes of a UDP payload */
    uint32_t pack_delay_us;            /* how long the first message of a packet may wait for company */
    uint32_t heartbeat_ms;             /* silence on a channel, or a connection, after which one is sent */
    uint32_t definitions_ms;           /* between two packets of the reference channel's round */
    uint32_t orders_expected;          /* resting orders of a partition: memory taken at start */
    uint32_t instruments_max;          /* largest instrument id */
    uint32_t derived_slots;            /* history of a derived channel; a power of two, at least FEED_DERIVED_SLOTS_MIN */
    uint32_t reference_slots;          /* of the reference channel; likewise */
    uint32_t connections_max;
    uint32_t connections_per_user;
    uint32_t output_size;              /* bytes a connection may have unsent */
    uint32_t login_timeout_ms;
    uint32_t silence_timeout_ms;       /* a client that sends nothing, or takes nothing, for so long is dropped */
    uint32_t logins_failed_max;        /* of one address within a minute; beyond, everything is refused for as long */
    uint32_t rerequests_per_s;         /* of one address; as many at once */
    uint32_t snapshot_age_ms;          /* a snapshot this young serves the next request too */
    uint64_t snapshot_bytes_max;       /* of all snapshots in memory */
} feed_config_t;

typedef struct feed_counters {
    uint64_t messages, packets, heartbeats, bytes, send_failures, rounds;     /* UDP; packets and bytes per destination */
    uint64_t laps;                                     /* reads of a channel that had to go to the archive */
    uint64_t events, derived, digests;                 /* books: messages applied, made, digests that agreed */
    uint64_t rerequests, rerequests_refused, rerequests_malformed;
    uint64_t accepted, refused, closed, open;          /* TCP connections */
    uint64_t logins, logins_refused, malformed, silent, stuck, floods;
    uint64_t messages_out, bytes_out;                  /* TCP */
    uint64_t snapshots, snapshots_made, snapshot_bytes;
} feed_counters_t;

typedef struct feed_position {
    uint64_t next;      /* number the channel's next message will have */
    uint64_t oldest;    /* number of the oldest message that can be replayed */
    uint64_t sent;      /* next number to be sent over UDP; 0 = not sent by this process */
} feed_position_t;

typedef struct feed feed_t;

/* NULL if memory is short or the configuration is out of range. */
feed_t *feed_new(const feed_config_t *config);
void feed_free(feed_t *feed);

/* Market ring of partition 1.. ; all of them before feed_start(). */
void feed_attach(feed_t *feed, int partition, ring_t *market);

/* Send channels of `kinds` to an address, as feed 0 (A) or 1 (B). `interface` is an address of ours or NULL. 0 or -errno. */
int feed_add_destination(feed_t *feed, int line, int kinds, const char *address, uint16_t port, const char *interface, int ttl);

/* Begin: market rings are sent from what is published now on. */
void feed_start(feed_t *feed);

/* Each returns the port (0 chooses) or -errno; numeric addresses. */
int feed_listen_replay(feed_t *feed, const char *address, uint16_t port);
int feed_listen_snapshot(feed_t *feed, const char *address, uint16_t port);
int feed_listen_rerequest(feed_t *feed, const char *address, uint16_t port);

/* Add a message of at most FEED_REFERENCE_BLOCK_MAX bytes of block to the reference channel. */
void feed_define(feed_t *feed, const void *message, uint32_t size);

/* Tell the receivers of `session` (10 characters) that it ended before number `next`. */
void feed_end_session(feed_t *feed, const char *session, uint64_t next);
/* Is there an end that is to be told once more? */
bool feed_ending(const feed_t *feed);

/* stage_poll_fn. STAGE_LAPPED: see feed_hole(). STAGE_FAILED: feed_error(). */
int64_t feed_poll(void *feed, int64_t limit);

/* Readable while a socket has something for feed_poll(). */
int feed_epoll_fd(const feed_t *feed);

/* The first index of a market ring that neither ring nor archive has, and its partition; false = none is missing. */
bool feed_hole(const feed_t *feed, int *partition, int64_t *first);

/* Have the books come up to what was published when feed_start() was called? */
bool feed_caught_up(const feed_t *feed);

/* Where a channel stands; false = no such channel. */
bool feed_position(feed_t *feed, int channel, feed_position_t *position);
const char *feed_session(const feed_t *feed, int channel);

/* Up to `size` bytes of a MoldUDP64 packet that begins with `number`; 0 = nothing there (yet, or any more). */
int64_t feed_packet(feed_t *feed, int channel, uint64_t number, uint8_t *packet, uint32_t size);

/* Copy up to `count` slots of the channel derived from `partition`, from message `number` on; returns how many, 0 = nothing there
 * (yet, or any more). A slot: u64 update id of the instrument as of the message, SBE header, block. */
int64_t feed_derived(feed_t *feed, int partition, uint64_t number, uint32_t count, void *slots);

typedef struct feed_level {
    int64_t price, qty;
    uint64_t orders;
} feed_level_t;

/* The best `count` levels of a side, and the update id that they are as of. Returns how many there are; -1 = not now: the end of
 * an event is still to come. */
int64_t feed_levels(feed_t *feed, int partition, uint32_t instrument, uint8_t side, uint32_t count, feed_level_t *levels,
                    uint64_t *update_id);

/* Is the last event that the books have of a partition whole? Only then are they consistent. */
bool feed_between_events(feed_t *feed, int partition);

/* Copy up to `count` slots of a partition's market channel, from message `number` on, of those that the books have taken; returns
 * how many, 0 = none yet; -1 = that message is in neither ring nor archive. `next` becomes the number after the last one taken. */
int64_t feed_taken(feed_t *feed, int partition, uint64_t number, uint32_t count, void *slots, uint64_t *next);

typedef struct feed_order {
    uint64_t id;
    int64_t price, qty;
} feed_order_t;

/* The first `count` orders of a side, best price first and by priority within it, and the update id that they are as of. Returns how
 * many the side has, which may be more; -1 = not now: the end of an event is still to come. */
int64_t feed_orders(feed_t *feed, int partition, uint32_t instrument, uint8_t side, uint32_t count, feed_order_t *orders,
                    uint64_t *update_id);

/* Stop listening and close all connections. */
void feed_shutdown(feed_t *feed);

const char *feed_error(const feed_t *feed);
const feed_counters_t *feed_counters(const feed_t *feed);

#endif
