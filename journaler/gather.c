/* Waiting for company before a sync, in a stream. A sync costs the processor as much for one record as for hundreds, and takes it
 * from whoever shares the core. A lone order, or a few at a time, never wait; neither do clients who all wait for the same
 * sync, since nothing more can come from them: the wait is given up for a while when its end brings nobody. */
#include "journal_internal.h"

#define STREAM_SLOTS 16        /* twice the largest group: more than any single request writes */
#define ENOUGH_SLOTS 1024      /* so many share a sync already: more of them gain nothing */
#define SYNCS 3                /* the longest wait, in times of the last sync: in proportion to the disk */
#define EARLY_SHARE 3          /* this part of the wait is its early one */
#define PAUSE_NS 1000000u      /* what comes later than this after a sync is no stream */
#define LATE_SHARE 4           /* a wait paid if a quarter of the batch came in its later part; of an even stream it is half */
#define SKIPS_MAX 255          /* batches that do not wait after waits that did not pay */

static int64_t pending_slots(const journaler_t *journaler)
{
    return ring_published(journaler->log) - (int64_t)journaler->position.sequence;
}

/* A plain sleep, not one on the doorbell: whoever publishes meanwhile has nobody to ring. */
static void sleep_ns(uint64_t ns)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

static int in_a_stream(const journaler_t *journaler, int64_t pending)
{
    int64_t enough = ring_capacity(journaler->log) / 4;

    if (enough > ENOUGH_SLOTS)
        enough = ENOUGH_SLOTS;
    return journaler->batch_header.count >= STREAM_SLOTS && pending < enough &&
           journal_clock(CLOCK_MONOTONIC) - journaler->sync_ended_ns <= PAUSE_NS;
}

int64_t gather(journaler_t *journaler, int64_t pending)
{
    uint64_t wait_ns = SYNCS * journaler->sync_took_ns;

    if (wait_ns > journaler->config.gather_ns)
        wait_ns = journaler->config.gather_ns;
    if (wait_ns == 0 || !journaler->config.sync || !in_a_stream(journaler, pending))
        return pending;
    if (journaler->gather_skip > 0) {
        journaler->gather_skip--;
        return pending;
    }
    journaler->stats.gathers++;
    sleep_ns(wait_ns / EARLY_SHARE);
    int64_t early = pending_slots(journaler);
    sleep_ns(wait_ns - wait_ns / EARLY_SHARE);
    pending = pending_slots(journaler);
    int paid = (pending - early) * LATE_SHARE >= pending;
    journaler->gather_backoff = paid ? 0 : journaler->gather_backoff * 2 + 1;
    if (journaler->gather_backoff > SKIPS_MAX)
        journaler->gather_backoff = SKIPS_MAX;
    journaler->gather_skip = journaler->gather_backoff;
    return pending;
}
