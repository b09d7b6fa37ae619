/* A read past the end on purpose: the address sanitizer must report it. Through argc, so that no compiler sees it. */
#include <stdlib.h>

int main(int argc, char **argv)
{
    (void)argv;
    volatile char *buffer = calloc(8, 1);
    if (buffer == NULL)
        return 2;
    char beyond = buffer[8 * argc];
    free((void *)buffer);
    return beyond == 77;
}
