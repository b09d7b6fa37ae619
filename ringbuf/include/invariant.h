/* INVARIANT(x) stays on in every build: a broken invariant stops the process, the journal is the recovery (STYLE.md). */
#ifndef BULLRING_INVARIANT_H
#define BULLRING_INVARIANT_H

#include <stdio.h>
#include <stdlib.h>

/* Out of line and cold, so that the check costs the hot path one comparison and no more. */
static __attribute__((noinline, cold, noreturn, unused)) void invariant_broken(const char *file, int line, const char *function,
                                                                               const char *condition)
{
    fprintf(stderr, "%s:%d: invariant broken in %s: %s\n", file, line, function, condition);
    abort();
}

#define INVARIANT(condition)                                                    \
    do {                                                                        \
        if (__builtin_expect(!(condition), 0))                                  \
            invariant_broken(__FILE__, __LINE__, __func__, #condition);         \
    } while (0)

#endif
