/* The life of the helper threads, and the one thing the stage tells them. */
#include <errno.h>

#include "journal_internal.h"

void durable_store(journaler_t *journaler)
{
    position_mailbox_t *mailbox = &journaler->durable;
    const journal_position_t *position = &journaler->position;
    const uint64_t values[7] = {position->sequence, position->epoch,         position->batch, position->log_hash,
                                position->crc,      position->segment_first, position->offset};
    uint64_t version = atomic_load_explicit(&mailbox->version, memory_order_relaxed);

    atomic_store_explicit(&mailbox->version, version + 1, memory_order_relaxed);
    /* Release on each field: the odd version is seen no later than any of them. Pairs with the acquires in durable_load(). */
    for (int i = 0; i < 7; i++)
        atomic_store_explicit(&mailbox->field[i], values[i], memory_order_release);
    atomic_store_explicit(&mailbox->version, version + 2, memory_order_release);
}

int durable_load(journaler_t *journaler, journal_position_t *position)
{
    position_mailbox_t *mailbox = &journaler->durable;
    uint64_t value[7];
    uint64_t version = atomic_load_explicit(&mailbox->version, memory_order_acquire);

    for (int i = 0; i < 7; i++)
        value[i] = atomic_load_explicit(&mailbox->field[i], memory_order_acquire);
    if ((version & 1) != 0 || atomic_load_explicit(&mailbox->version, memory_order_relaxed) != version)
        return 0;
    *position = (journal_position_t){value[0], value[1], value[2], value[3], value[4], value[5], value[6]};
    return 1;
}

int helper_pause(journaler_t *journaler, uint64_t ns)
{
    if (atomic_load_explicit(&journaler->stop, memory_order_acquire))
        return 1;
    nanosleep(&(struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)}, NULL);
    return 0;
}

int helpers_start(journaler_t *journaler)
{
    static void *(*const mains[HELPERS])(void *) = {watch_main, keeper_main, prepare_main, audit_main};

    if (keeper_open(journaler) != 0)
        return -1;
    watch_step(journaler);
    for (int i = 0; i < HELPERS; i++) {
        int error = pthread_create(&journaler->helpers[i], NULL, mains[i], journaler);
        if (error != 0) {
            helpers_stop(journaler);
            errno = error;
            return -1;
        }
        journaler->helper_count++;
    }
    return 0;
}

void helpers_stop(journaler_t *journaler)
{
    atomic_store_explicit(&journaler->stop, 1, memory_order_release);
    for (int i = 0; i < journaler->helper_count; i++)
        pthread_join(journaler->helpers[i], NULL);
    journaler->helper_count = 0;
    keeper_close(journaler);
    prepare_close(journaler);
    audit_close(journaler);
}
