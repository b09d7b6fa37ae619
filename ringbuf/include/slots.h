/* The three slot layouts of CORE section 8. A ring index is the sequence, so no slot stores its own full sequence. */
#ifndef BULLRING_SLOTS_H
#define BULLRING_SLOTS_H

#include <stddef.h>
#include <stdint.h>

#define LOG_BLOCK_MAX 80
#define REPORT_BLOCK_MAX 96
#define MARKET_BLOCK_MAX 48
#define GROUP_SLOTS_MAX 8

#define PARTITION_SEQUENCER 0
#define PARTITION_ALL 255

/* Flags of ingress and log slots; bits 8..15 hold the fee tier the sequencer stamped at admission. */
enum slot_flag {
    SLOT_FLAG_MORE = 1u << 0,   /* linked with the next slot */
    SLOT_FLAG_LAZY = 1u << 1,   /* marks, ticks, hash marks: no sync of their own */
    SLOT_FLAG_REJECT = 1u << 2, /* verdict: rejected, code in aux (set by the gateway or the sequencer) */
};
#define SLOT_TIER_SHIFT 8

/* Flags of report slots. */
enum report_flag {
    REPORT_FLAG_MORE = 1u << 0,          /* the counterpart's report of the same trade follows */
    REPORT_FLAG_LAST_OF_INPUT = 1u << 1, /* last output of its input */
    REPORT_FLAG_FINAL = 1u << 2,         /* the order of this report is done: its line is freed when this is settled */
    REPORT_FLAG_COVERED = 1u << 3,       /* OrderAccepted whose hold its predecessor's money completes */
    REPORT_FLAG_DROP_COPY = 1u << 4,     /* SessionBound of a drop copy: the next number is the account's */
};

typedef struct log_slot {
    uint32_t session;    /* session id; 0 = the sequencer itself */
    uint16_t source;     /* ingress ring it came from, stamped by the sequencer */
    uint16_t template_id;
    uint32_t src_seq;    /* low 32 bits of the ingress ring index */
    uint8_t version;
    uint8_t partition;   /* whom it concerns: 0 sequencer, p matcher p, 255 all */
    uint16_t flags;
    uint64_t seq_num;    /* the client's number */
    uint64_t ingress_ns;
    uint8_t block[LOG_BLOCK_MAX];
    uint64_t ts_ns;      /* the sequencer's stamp */
    uint64_t aux;        /* accepted new order: order id; rejected: code; linked cancel: extra cover; bind of a drop copy: its account */
} log_slot_t;

typedef struct report_slot {
    uint32_t session;
    uint16_t template_id; /* 0 = no report, a filler */
    uint8_t version;
    uint8_t partition;
    uint32_t account_seq; /* low 32 bits of the (account, partition) number */
    uint16_t flags;
    uint16_t spare;
    uint32_t seq_num;     /* low 32 bits of the (session, partition) number; 0 = unnumbered */
    uint32_t distance;    /* ring indexes back to the session's previous numbered report here; 0 = none */
    uint64_t in_seq;      /* log sequence that caused it */
    uint8_t block[REPORT_BLOCK_MAX];
} report_slot_t;

typedef struct market_slot {
    uint64_t update_id; /* contiguous per instrument */
    uint16_t block_length;
    uint16_t template_id;
    uint16_t schema_id;
    uint16_t version;
    uint8_t block[MARKET_BLOCK_MAX];
} market_slot_t;

/* All zero. By words of 32 bytes, because compilers make a string instruction of memset() here, and that costs 20 ns. */
static inline void slot_clear(log_slot_t *slot)
{
    typedef uint64_t words_t __attribute__((vector_size(32), aligned(8), may_alias));
    words_t *words = (words_t *)(void *)slot;

    words[0] = words[1] = words[2] = words[3] = (words_t){0};
}

/* Log slots of the command that begins at `slots`; 0 = its last one is not among the `count`. */
static inline uint32_t slots_linked(const log_slot_t *slots, int64_t count)
{
    for (uint32_t i = 0; i < count && i < GROUP_SLOTS_MAX; i++)
        if ((slots[i].flags & SLOT_FLAG_MORE) == 0)
            return i + 1;
    return 0;
}

_Static_assert(sizeof(log_slot_t) == 128, "CORE section 8");
_Static_assert(offsetof(log_slot_t, source) == 4, "CORE section 8");
_Static_assert(offsetof(log_slot_t, template_id) == 6, "CORE section 8");
_Static_assert(offsetof(log_slot_t, src_seq) == 8, "CORE section 8");
_Static_assert(offsetof(log_slot_t, version) == 12, "CORE section 8");
_Static_assert(offsetof(log_slot_t, partition) == 13, "CORE section 8");
_Static_assert(offsetof(log_slot_t, flags) == 14, "CORE section 8");
_Static_assert(offsetof(log_slot_t, seq_num) == 16, "CORE section 8");
_Static_assert(offsetof(log_slot_t, ingress_ns) == 24, "CORE section 8");
_Static_assert(offsetof(log_slot_t, block) == 32, "CORE section 8");
_Static_assert(offsetof(log_slot_t, ts_ns) == 112, "CORE section 8");
_Static_assert(offsetof(log_slot_t, aux) == 120, "CORE section 8");
_Static_assert(sizeof(report_slot_t) == 128, "CORE section 8");
_Static_assert(offsetof(report_slot_t, template_id) == 4, "CORE section 8");
_Static_assert(offsetof(report_slot_t, account_seq) == 8, "CORE section 8");
_Static_assert(offsetof(report_slot_t, flags) == 12, "CORE section 8");
_Static_assert(offsetof(report_slot_t, seq_num) == 16, "CORE section 8");
_Static_assert(offsetof(report_slot_t, distance) == 20, "CORE section 8");
_Static_assert(offsetof(report_slot_t, in_seq) == 24, "CORE section 8");
_Static_assert(offsetof(report_slot_t, block) == 32, "CORE section 8");
_Static_assert(sizeof(market_slot_t) == 64, "CORE section 8");
_Static_assert(offsetof(market_slot_t, block) == 16, "CORE section 8");

#endif
