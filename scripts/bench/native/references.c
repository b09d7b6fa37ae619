/* What the machine itself can do, measured in the same run as the exchange: a bare TCP echo over loopback (busy client, busy
 * server, the best placement a fused exchange could have) and a bare pwrite + fdatasync on an already written file.
 *
 *   references echo SECONDS SIZE            one message in flight
 *   references fdatasync SECONDS SIZE FILE
 * Prints one JSON object: samples and percentiles in ns. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLES_MAX (1 << 21)
#define SIZE_MAX_BYTES 65536
#define FILE_BYTES (64 << 20)

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "references: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void print_percentiles(const char *what, size_t size, uint64_t *samples, size_t count)
{
    if (count == 0) {
        fprintf(stderr, "references: no sample within the time given\n");
        exit(1);
    }
    qsort(samples, count, sizeof(*samples), compare);
    printf("{\"what\": \"%s\", \"size\": %zu, \"samples\": %zu, \"min_ns\": %lu, \"p50_ns\": %lu, \"p99_ns\": %lu, "
           "\"p999_ns\": %lu}\n",
           what, size, count, (unsigned long)samples[0], (unsigned long)samples[count / 2],
           (unsigned long)samples[count * 99 / 100], (unsigned long)samples[count * 999 / 1000]);
}

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    /* Best effort: with one core both ends share it, and the figure says what that costs. */
    (void)sched_setaffinity(0, sizeof(set), &set);
}

static void receive_all(int fd, char *buffer, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t part = recv(fd, buffer + got, size - got, MSG_DONTWAIT);
        if (part > 0)
            got += (size_t)part;
        else if (part == 0)
            exit(0);
        else if (errno != EAGAIN && errno != EINTR)
            fail("recv");
    }
}

static void no_delay(int fd)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
        fail("TCP_NODELAY");
}

static void serve(int listener, size_t size)
{
    static char buffer[SIZE_MAX_BYTES];
    int fd = accept(listener, NULL, NULL);

    if (fd < 0)
        fail("accept");
    no_delay(fd);
    pin(1);
    for (;;) {
        receive_all(fd, buffer, size);
        if (send(fd, buffer, size, MSG_NOSIGNAL) != (ssize_t)size)
            exit(0);
    }
}

static void echo(double seconds, size_t size, uint64_t *samples)
{
    static char buffer[SIZE_MAX_BYTES];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        fail("listen");
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener, size);
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        fail("connect");
    no_delay(fd);
    pin(0);
    size_t count = 0;
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    for (uint64_t before = now_ns(); before < end && count < SAMPLES_MAX;) {
        if (send(fd, buffer, size, MSG_NOSIGNAL) != (ssize_t)size)
            fail("send");
        receive_all(fd, buffer, size);
        uint64_t after = now_ns();
        samples[count++] = after - before;
        before = after;
    }
    close(fd);
    waitpid(child, NULL, 0);
    print_percentiles("tcp_echo", size, samples, count);
}

static void sync_file(double seconds, size_t size, const char *path, uint64_t *samples)
{
    static char buffer[SIZE_MAX_BYTES];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        fail(path);
    for (off_t at = 0; at < FILE_BYTES; at += SIZE_MAX_BYTES)
        if (pwrite(fd, buffer, SIZE_MAX_BYTES, at) != SIZE_MAX_BYTES)
            fail("pwrite");
    if (fsync(fd) != 0)
        fail("fsync");
    size_t count = 0;
    off_t at = 0;
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    for (uint64_t before = now_ns(); before < end && count < SAMPLES_MAX; before = now_ns()) {
        buffer[0]++;
        if (pwrite(fd, buffer, size, at) != (ssize_t)size || fdatasync(fd) != 0)
            fail("fdatasync");
        samples[count++] = now_ns() - before;
        at = (at + (off_t)size) % (FILE_BYTES - SIZE_MAX_BYTES);
    }
    close(fd);
    (void)unlink(path);
    print_percentiles("fdatasync", size, samples, count);
}

int main(int argc, char **argv)
{
    uint64_t *samples = malloc(sizeof(uint64_t) * SAMPLES_MAX);
    size_t size = argc > 3 ? (size_t)strtoul(argv[3], NULL, 10) : 0;

    if (samples == NULL)
        fail("memory");
    memset(samples, 0, sizeof(uint64_t) * SAMPLES_MAX);
    if (size == 0 || size > SIZE_MAX_BYTES) {
        fprintf(stderr, "usage: references echo SECONDS SIZE | fdatasync SECONDS SIZE FILE (SIZE 1..%d)\n", SIZE_MAX_BYTES);
        return 2;
    }
    if (strcmp(argv[1], "echo") == 0)
        echo(strtod(argv[2], NULL), size, samples);
    else if (strcmp(argv[1], "fdatasync") == 0 && argc > 4)
        sync_file(strtod(argv[2], NULL), size, argv[4], samples);
    else {
        fprintf(stderr, "references: unknown measurement %s\n", argv[1]);
        return 2;
    }
    return 0;
}
