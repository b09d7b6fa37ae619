/* The fuzz test must find every planted fault: an engine compiled with BOOK_FAULTS, wrong in one rule at a time. */
#define BOOK_FAULTS

#include "engine/book.c"
#include "engine/levels.c"
#include "engine/matcher.c"
#include "engine/matcher_control.c"
#include "engine/matcher_match.c"
#include "engine/matcher_orders.c"

#include "book_fuzz.h"

#define COMMANDS 20000

enum book_fault book_fault = BOOK_FAULT_NONE;
static fuzz_t fuzz;

int main(void)
{
    fuzz_run(&fuzz, 7, COMMANDS);
    if (fuzz.difference[0] != 0) {
        fprintf(stderr, "without a fault: %s\n", fuzz.difference);
        return 1;
    }
    for (int fault = BOOK_FAULT_NONE + 1; fault < BOOK_FAULTS_COUNT; fault++) {
        book_fault = (enum book_fault)fault;
        long done = fuzz_run(&fuzz, 7, COMMANDS);
        if (fuzz.difference[0] == 0) {
            fprintf(stderr, "fault %d was not found in %d commands\n", fault, COMMANDS);
            return 1;
        }
        printf("fault %d found after %ld commands: %s\n", fault, done, fuzz.difference);
    }
    return 0;
}
