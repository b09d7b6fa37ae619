/* Fuzz of the frame cutter: whatever bytes come, in whatever pieces, it never reads outside them and decides the same.
 *
 * LLVMFuzzerTestOneInput is the usual entry. The plain main runs mutations of valid frames from a printed seed and says every
 * few seconds how far it is: framing_fuzz [SEED [RUNS]]. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gateway/binary/framing.h"
#include "invariant.h"
#include "slots.h"

#define RUNS_DEFAULT 200000
#define RUNS_QUICK 20000
#define STREAM_MAX 1024
#define PROGRESS_S 10
#define PROGRESS_RUNS 8192 /* between two looks at the clock */

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

typedef struct decision {
    int status;
    size_t offset; /* bytes of whole frames before it */
    uint32_t frames;
    uint64_t mix; /* of templates and codes */
} decision_t;

static void judge(const frame_t *frame, decision_t *decision)
{
    _Alignas(8) uint8_t block[FRAME_LENGTH_MAX] = {0};
    enum frame_kind kind = framing_kind(frame->header.template_id);
    uint64_t code;

    INVARIANT(frame->header.block_length <= FRAME_LENGTH_MAX - FRAME_HEADER_SIZE);
    memcpy(block, frame->block, frame->header.block_length);
    code = kind == FRAME_SESSION ? (uint64_t)framing_check_session(frame, block) : framing_check(frame, block);
    if (kind == FRAME_UNKNOWN || kind == FRAME_INTERNAL)
        INVARIANT(code == REJECT_CODE_UNKNOWN_TEMPLATE);
    if (kind == FRAME_REQUEST || kind == FRAME_ADMIN || kind == FRAME_QUERY)
        INVARIANT(orders_block_length(frame->header.template_id) <= LOG_BLOCK_MAX);
    if (framing_query_account_offset(frame->header.template_id) >= 0)
        INVARIANT(kind == FRAME_QUERY);
    decision->mix = (decision->mix ^ frame->header.template_id ^ code << 16) * UINT64_C(0x9E3779B97F4A7C15);
}

/* The stream that is cut. Only what is pending may be touched: what has not arrived and what has been cut is poisoned, so that
 * the address sanitizer sees every byte read too many, before and behind. It poisons to the byte because a frame starts at a
 * multiple of 8. */
static _Alignas(8) uint8_t window[STREAM_MAX + FRAME_LENGTH_MAX];
_Static_assert(FRAME_ALIGNMENT == 8, "the sanitizer cannot poison the first bytes of a word alone");

/* Cut a stream that arrives in pieces of `piece` bytes. */
static decision_t cut(const uint8_t *data, size_t size, size_t piece)
{
    decision_t decision = {.status = FRAMING_PARTIAL};
    size_t arrived = 0;

    INVARIANT(size <= STREAM_MAX);
    ASAN_UNPOISON_MEMORY_REGION(window, size);
    memcpy(window, data, size);
    ASAN_POISON_MEMORY_REGION(window, sizeof(window));
    for (;;) {
        size_t pending = arrived - decision.offset;
        frame_t frame;
        int length = framing_next(window + decision.offset, pending, &frame);
        if (length > 0) {
            INVARIANT((size_t)length <= pending);
            INVARIANT(length >= (int)FRAME_LENGTH_MIN && length <= (int)FRAME_LENGTH_MAX);
            judge(&frame, &decision);
            ASAN_POISON_MEMORY_REGION(window + decision.offset, (size_t)length);
            decision.frames++;
            decision.offset += (size_t)length;
            continue;
        }
        if (length == FRAMING_MALFORMED) {
            decision.status = FRAMING_MALFORMED;
            return decision;
        }
        INVARIANT(length == FRAMING_PARTIAL);
        if (arrived == size)
            return decision;
        INVARIANT(pending < FRAME_LENGTH_MAX); /* a whole frame is never held back */
        size_t more = size - arrived < piece ? size - arrived : piece;
        ASAN_UNPOISON_MEMORY_REGION(window + arrived, more);
        arrived += more;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decision_t whole = cut(data, size, size == 0 ? 1 : size);
    size_t pieces[] = {1, 5, 31, 33, 100};

    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        decision_t piecemeal = cut(data, size, pieces[i]);
        INVARIANT(piecemeal.status == whole.status);
        INVARIANT(piecemeal.offset == whole.offset);
        INVARIANT(piecemeal.frames == whole.frames);
        INVARIANT(piecemeal.mix == whole.mix);
    }
    return 0;
}

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static size_t valid_frame(uint8_t *target)
{
    static const uint16_t templates[] = {1, 4, 7, 9, 12, 100, 101, 102, 103, 104, 105, 106, 107, 330, 336, 400, 402, 407, 300, 999};
    uint16_t template_id = templates[random_next() % (sizeof(templates) / sizeof(templates[0]))];
    uint16_t length = orders_block_length(template_id) == 0 ? 8 : orders_block_length(template_id);
    frame_header_t header = {
        .message_length = FRAME_HEADER_SIZE + length,
        .encoding_type = SOFH_ENCODING_TYPE,
        .block_length = length,
        .template_id = template_id,
        .schema_id = ORDERS_SCHEMA_ID,
        .version = ORDERS_SCHEMA_VERSION,
        .flags = random_next() % 4 == 0 ? FRAME_FLAG_POSS_RESEND : 0,
        .seq_num = random_next() % 3,
    };
    memcpy(target, &header, sizeof(header));
    for (uint16_t i = 0; i < length; i++)
        target[FRAME_HEADER_SIZE + i] = random_next() % 2 == 0 ? 0 : (uint8_t)random_next();
    return FRAME_HEADER_SIZE + length;
}

static void mutate(uint8_t *stream, size_t *size)
{
    size_t at = random_next() % *size;

    switch (random_next() % 5) {
    case 0:
        stream[at] ^= (uint8_t)(1u << random_next() % 8);
        break;
    case 1:
        stream[at] = (uint8_t)random_next();
        break;
    case 2: /* a piece is lost */
        memmove(stream + at, stream + at + 1, *size - at - 1);
        --*size;
        break;
    case 3: /* the start of a header gets an edge value */
        stream[at - at % 8] = random_next() % 2 == 0 ? 0xff : 0;
        break;
    default:
        *size = at + 1;
        break;
    }
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

typedef struct tally {
    unsigned long executions, frames, malformed;
} tally_t;

static void say(const tally_t *tally, double seconds)
{
    printf("%lu executions, %lu frames cut, %lu streams malformed, %.1f s\n", tally->executions, tally->frames, tally->malformed,
           seconds);
    fflush(stdout);
}

static void run_one(tally_t *tally)
{
    uint8_t stream[STREAM_MAX];
    size_t size = 0, wanted = 1 + random_next() % 4;

    for (size_t i = 0; i < wanted && size + FRAME_LENGTH_MAX <= sizeof(stream); i++)
        size += valid_frame(stream + size);
    decision_t before = cut(stream, size, size);
    INVARIANT(before.status == FRAMING_PARTIAL);
    INVARIANT(before.offset == size);
    for (uint64_t changes = random_next() % 4; changes > 0 && size > 1; changes--)
        mutate(stream, &size);
    LLVMFuzzerTestOneInput(stream, size);
    decision_t after = cut(stream, size, size);
    tally->executions++;
    tally->malformed += after.status == FRAMING_MALFORMED;
    tally->frames += after.frames;
}

int main(int count, char **arguments)
{
    uint64_t seed = count > 1 ? strtoull(arguments[1], NULL, 0) : UINT64_C(20261123);
    unsigned long runs = count > 2 ? strtoul(arguments[2], NULL, 0) : getenv("BULLRING_QUICK") != NULL ? RUNS_QUICK : RUNS_DEFAULT;
    tally_t tally = {0};
    struct timespec start;
    double next = PROGRESS_S;

    printf("seed %llu, %lu runs\n", (unsigned long long)seed, runs);
    clock_gettime(CLOCK_MONOTONIC, &start);
    random_state = seed == 0 ? 1 : seed;
    while (tally.executions < runs) {
        run_one(&tally);
        if (tally.executions % PROGRESS_RUNS == 0 && seconds_since(&start) >= next) {
            say(&tally, seconds_since(&start));
            next = seconds_since(&start) + PROGRESS_S;
        }
    }
    printf("done: ");
    say(&tally, seconds_since(&start));
    INVARIANT(tally.malformed > 0);
    INVARIANT(tally.frames > 0);
    return 0;
}
