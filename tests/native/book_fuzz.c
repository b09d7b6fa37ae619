/* book_fuzz [seed [commands]]: the engine against the model of book_fuzz.h. */
#include "book_fuzz.h"

#define COMMANDS 1000000
#define COMMANDS_QUICK 100000

static fuzz_t fuzz;

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    long commands = argc > 2 ? atol(argv[2]) : getenv("BULLRING_QUICK") != NULL ? COMMANDS_QUICK : COMMANDS;

    long done = fuzz_run(&fuzz, seed, commands);

    if (fuzz.difference[0] != 0) {
        fprintf(stderr, "seed %llu, command %ld: %s\n", (unsigned long long)seed, done, fuzz.difference);
        return 1;
    }
    printf("book_fuzz: seed %llu, %ld commands, no difference\n", (unsigned long long)seed, done);
    return 0;
}
