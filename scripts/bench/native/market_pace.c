/* The other side of `bullring bench publisher`: a real matcher that fills a market ring at a fixed rate.
 *   market_pace RING OPERATIONS INSTRUMENTS: prints "ready", answers each line "RATE MILLISECONDS" with one line "EVENTS NANOSECONDS"
 *   a burst (events published so far, and when, CLOCK_MONOTONIC) and then "end". Sleeps between bursts, as a matcher that parks. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "market_stream.h"

#define BURST_US 500
#define BURSTS_MAX 1000000u
#define PRICE_RANGE 300
#define AIMED_AT 20000u

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void *map(const char *name)
{
    struct stat facts;
    int fd = shm_open(name, O_RDWR, 0);
    if (fd < 0 || fstat(fd, &facts) != 0)
        return NULL;
    void *memory = mmap(NULL, (size_t)facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

int main(int argc, char **argv)
{
    static market_stream_t stream;
    static struct { uint64_t events, at_ns; } bursts[BURSTS_MAX];
    ring_t market;
    char line[64];
    void *memory = argc == 4 ? map(argv[1]) : NULL;
    if (memory == NULL)
        return 1;
    ring_attach(&market, memory, NULL);
    market_stream_random(&stream, 1, (uint64_t)atoll(argv[2]), PRICE_RANGE, AIMED_AT);
    market_stream_start(&stream, (uint32_t)atoi(argv[3]), 0, &market);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        char *rest;
        uint64_t per_s = strtoull(line, &rest, 10), length_ns = strtoull(rest, NULL, 10) * 1000000u;
        uint64_t first = (uint64_t)ring_published(&market), began = now_ns(), count = 0;
        for (uint64_t spent = 0; spent < length_ns && count < BURSTS_MAX; spent = now_ns() - began) {
            while ((uint64_t)ring_published(&market) - first < spent * per_s / 1000000000u)
                if (!market_stream_step(&stream))
                    return 2; /* too few operations for what was asked */
            bursts[count].events = (uint64_t)ring_published(&market);
            bursts[count++].at_ns = now_ns();
            usleep(BURST_US);
        }
        for (uint64_t i = 0; i < count; i++)
            printf("%" PRIu64 " %" PRIu64 "\n", bursts[i].events, bursts[i].at_ns);
        printf("end\n");
        fflush(stdout);
    }
    return 0;
}
