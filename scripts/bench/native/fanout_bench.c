/* The reference of `bullring bench fanout`: send() in a loop to everybody who has connected, and nothing else.
 *   fanout_bench CONNECTIONS: prints the port, accepts, answers each line "FRAMES BYTES" with the CPU time it took in ns. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0, on = 1;
    int *sockets = calloc((size_t)count + 1, sizeof(int));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (sockets == NULL || bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 1024) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        return 1;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int i = 0; i < count; i++) {
        sockets[i] = accept(listener, NULL, NULL);
        if (sockets[i] < 0)
            return 1;
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    char line[64], *frame = calloc(1, 65536);
    while (frame != NULL && fgets(line, sizeof(line), stdin) != NULL) {
        char *rest;
        long frames = strtol(line, &rest, 10), bytes = strtol(rest, NULL, 10);
        uint64_t begun = cpu_ns();
        for (long f = 0; f < frames; f++)
            for (int i = 0; i < count; i++)
                if (send(sockets[i], frame, (size_t)bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != bytes)
                    return 2;
        printf("%" PRIu64 "\n", cpu_ns() - begun);
        fflush(stdout);
    }
    return 0;
}
