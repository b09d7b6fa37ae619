/* A signed overflow on purpose: the undefined-behaviour sanitizer must report it. */
#include <limits.h>

int main(int argc, char **argv)
{
    (void)argv;
    volatile int big = INT_MAX;
    big = big + argc;
    return 0;
}
