/* Sequencer and matchers in one process, without waiting: for tests, replay, recovery and tools (CORE section 9). */
#ifndef BULLRING_ENGINE_COMPOSED_H
#define BULLRING_ENGINE_COMPOSED_H

#include "matcher.h"
#include "sequencer.h"

/* Live: poll everything until nobody has work. Returns the work done or a negative stage_status. */
int64_t composed_run(sequencer_t *sequencer, matcher_t **matchers, int64_t count);

/* Replay: apply log records [first, first + count) to all. Every owner keeps its own position: a matcher without room for reports
 * waits until the sequencer settles, the sequencer waits at a mark until the reports are there. Returns how far from `first` the
 * slowest has come; the caller feeds the rest again. Negative: stage_status. */
int64_t composed_feed(sequencer_t *sequencer, matcher_t **matchers, int64_t count, const log_slot_t *slots, int64_t first,
                      int64_t slot_count);

/* The same, one linked group at a time, stopping behind the first that changed a balance of `account`: then `changed` is set. */
int64_t composed_feed_watched(sequencer_t *sequencer, matcher_t **matchers, int64_t count, const log_slot_t *slots, int64_t first,
                              int64_t slot_count, uint32_t account, bool *changed);

/* The last SETTLED mark of every partition among `count` log slots, into `settled[partition]`; others stay as they are. */
void composed_scan_marks(const log_slot_t *slots, int64_t count, int64_t *settled, int64_t partitions);

#endif
