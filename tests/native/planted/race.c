/* A data race on purpose: the thread sanitizer must report it, or its silence about our own code says nothing. */
#include <pthread.h>

static int shared;

static void *count(void *nothing)
{
    for (int i = 0; i < 1000; i++)
        shared++;
    return nothing;
}

int main(void)
{
    pthread_t first, second;
    if (pthread_create(&first, NULL, count, NULL) != 0 || pthread_create(&second, NULL, count, NULL) != 0)
        return 2;
    pthread_join(first, NULL);
    pthread_join(second, NULL);
    return 0;
}
