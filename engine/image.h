/* The state of sequencer and matchers as memory images: what a snapshot stores and a start loads (CORE section 9).
 *
 * An owner's state is its arena, which holds indices and never pointers, and for the sequencer a head of the few fields that stand
 * outside it. An image is taken between two records, when no operation is half done and every report below the last SETTLED mark
 * is settled and none above it: as a follower of the log stands, never a leader. Who stores images, and where, is not known here.
 *
 * `image_layout()` names what the bytes mean: images of another layout are not loaded, the log is replayed instead. */
#ifndef BULLRING_ENGINE_IMAGE_H
#define BULLRING_ENGINE_IMAGE_H

#include "matcher.h"
#include "sequencer.h"

#define IMAGE_PAGE 4096

/* Bytes [offset, offset + size) of an arena that are not all zero; whole pages. */
typedef struct image_run {
    uint64_t offset;
    uint64_t size;
} image_run_t;

/* Size of the sequencer's head. */
uint64_t image_head_size(void);
/* Two builds with the same number lay state out alike, as far as the compiler can tell. */
uint64_t image_layout(void);

/* The head as of now; false if the state is not that of a follower between two records. */
bool sequencer_image_save(const sequencer_t *sequencer, void *head);
/* Where the arena is, and its size. */
void *sequencer_image_arena(const sequencer_t *sequencer, uint64_t *size);
/* Zero the arena for runs to be copied into, of a sequencer that has applied nothing. */
void sequencer_image_clear(sequencer_t *sequencer);
/* The runs are in place: take over the head. Before any ring is attached. */
void sequencer_image_load(sequencer_t *sequencer, const void *head);

void *matcher_image_arena(const matcher_t *matcher, uint64_t *size);
void matcher_image_clear(matcher_t *matcher);

/* The next run of at most `size_max` bytes at or after `from`; false if there is none. */
bool image_next_run(const void *arena, uint64_t size, uint64_t from, uint64_t size_max, image_run_t *run);

/* A running hash over what was written: every slot of a ring with its sequence counts, their order does not. So the hash over
 * [a, c) is the sum of those over [a, b) and [b, c). Adds slots [first, end) and returns how many; fewer when the ring has lost
 * some of them meanwhile. */
int64_t image_hash_outputs(const ring_t *ring, int64_t first, int64_t end, uint64_t *hash);

#endif
