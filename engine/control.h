/* Administration in two files: control.c, and control_instruments.c for assets and instruments. Private to them. */
#ifndef BULLRING_ENGINE_CONTROL_H
#define BULLRING_ENGINE_CONTROL_H

#include "filters.h"

#define SCHEDULE_ENTRIES 8
#define CLOCK_VOLATILITY (1u << SCHEDULE_ENTRIES) /* of instrument_t.clocks, behind a bit a schedule entry */

/* 0 = the next one. */
verdict_t choose_id(uint32_t *id, uint32_t used, uint32_t max, bool exists);
/* False = no record of theirs. */
bool instrument_admit(const sequencer_t *sequencer, log_slot_t *slot, verdict_t *verdict);
/* Returns the id it made or concerns. */
uint32_t instrument_apply(sequencer_t *sequencer, uint16_t template_id, const void *block);

#endif
