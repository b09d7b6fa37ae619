/* INVARIANT(x) stays on in every build: a broken invariant stops the process, the journal is the recovery (STYLE.md). */
#ifndef BULLRING_INVARIANT_H
#define BULLRING_INVARIANT_H

#include <stdio.h>
#include <stdlib.h>

#define INVARIANT(condition)                                                                                    \
    do {                                                                                                        \
        if (__builtin_expect(!(condition), 0)) {                                                                \
            fprintf(stderr, "%s:%d: invariant broken in %s: %s\n", __FILE__, __LINE__, __func__, #condition);   \
            abort();                                                                                            \
        }                                                                                                       \
    } while (0)

#endif
