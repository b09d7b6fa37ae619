/* What the sequencer itself says: ring 0 (rejections, session and administration events; numbered, part of the history) and the
 * reply ring (reads and NotApplied; ephemeral). Both are written at once and released only when the log position they were
 * computed at is committed (CORE section 2): `claimed` runs ahead of `pub`. */
#include "sequencer_state.h"

#include <string.h>

#include "invariant.h"
#include "ringbuf/include/report_account.h"

#define REPORT0_WORST_CASE GROUP_SLOTS_MAX
#define REPLY_WORST_CASE (QUERY_ROWS_MAX + 1)

uint64_t report0_exec_id(const sequencer_t *sequencer)
{
    return (uint64_t)PARTITION_SEQUENCER << 56 | (uint64_t)sequencer->next_report0;
}

/* Reports below the ring's base are history that is already in the archive: they are counted, not written. */
static report_slot_t *report0_slot(sequencer_t *sequencer)
{
    static _Thread_local report_slot_t scratch;
    ring_t *ring = sequencer->reports0;

    if (sequencer->next_report0 < ring->claimed)
        return &scratch;
    INVARIANT(sequencer->next_report0 == ring->claimed);
    int64_t sequence = ring_claim(ring, 1);
    INVARIANT(sequence == sequencer->next_report0);
    return ring_slot(ring, sequence);
}

void *report0_begin(sequencer_t *sequencer, uint32_t session_id, uint16_t template_id, int64_t in_seq, bool number)
{
    report_slot_t *slot = report0_slot(sequencer);
    session_t *session = registry_session(&sequencer->registry, session_id);

    memset(slot, 0, sizeof(*slot));
    slot->session = session_id;
    slot->template_id = template_id;
    slot->partition = PARTITION_SEQUENCER;
    slot->flags = REPORT_FLAG_LAST_OF_INPUT;
    slot->in_seq = (uint64_t)in_seq;
    sequencer->report0_open = slot;
    if (number && session != NULL) {
        session->reports++;
        slot->seq_num = (uint32_t)session->reports;
        if (session->last_report != 0) {
            uint64_t distance = (uint64_t)sequencer->next_report0 + 1 - session->last_report;
            slot->distance = distance > UINT32_MAX ? UINT32_MAX : (uint32_t)distance;
        }
        session->last_report = (uint64_t)sequencer->next_report0 + 1;
    }
    return slot->block;
}

void report0_commit(sequencer_t *sequencer)
{
    report_slot_t *slot = sequencer->report0_open;
    uint32_t id = slot->seq_num == 0 ? 0 : report_account(slot);
    account_t *account = registry_account(&sequencer->registry, id);

    if (account != NULL) /* a refused request may name one that is none */
        slot->account_seq = (uint32_t)++account->reports;
    sequencer->next_report0++;
}

void *reply_begin(sequencer_t *sequencer, uint32_t session, uint16_t template_id)
{
    int64_t sequence = ring_claim(sequencer->replies, 1);
    INVARIANT(sequence >= 0);
    report_slot_t *slot = ring_slot(sequencer->replies, sequence);

    memset(slot, 0, sizeof(*slot));
    slot->session = session;
    slot->template_id = template_id;
    slot->partition = PARTITION_SEQUENCER;
    slot->in_seq = (uint64_t)sequencer->position;
    return slot->block;
}

bool answers_have_room(sequencer_t *sequencer)
{
    ring_t *replies = sequencer->replies;
    int64_t unreleased = replies->claimed - ring_published(replies);

    return ring_room(sequencer->reports0, REPORT0_WORST_CASE) >= REPORT0_WORST_CASE &&
           unreleased + REPLY_WORST_CASE <= ring_capacity(replies);
}

/* Publish the part of `ring` whose log position is visible. `inclusive`: in_seq names a record, not a position. */
static void release(ring_t *ring, int64_t visible, bool inclusive)
{
    int64_t published = ring_published(ring);
    int64_t next = published;

    while (next < ring->claimed) {
        const report_slot_t *slot = ring_slot(ring, next);
        int64_t needed = (int64_t)slot->in_seq + (inclusive ? 1 : 0);
        if (needed > visible)
            break;
        next++;
    }
    if (next != published)
        ring_publish(ring, next);
}

void answers_release(sequencer_t *sequencer)
{
    int64_t visible = ring_visible(sequencer->log);

    release(sequencer->reports0, visible, true);
    release(sequencer->replies, visible, false);
}
