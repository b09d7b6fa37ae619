#include "fanout.h"

#include <errno.h>
#include <sys/socket.h>

int64_t fanout_send_one(int32_t socket, const void *frame, uint64_t size)
{
    ssize_t sent = send(socket, frame, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent >= 0 ? sent : errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

int32_t fanout_send(const int32_t *sockets, int32_t count, const uint8_t *clear, const void *frame, uint64_t size,
                    int32_t *failed, int64_t *sent)
{
    int32_t failures = 0;
    for (int32_t i = 0; i < count; i++) {
        if (!clear[sockets[i]])
            continue;
        int64_t got = fanout_send_one(sockets[i], frame, size);
        if (got == (int64_t)size)
            continue;
        failed[failures] = i;
        sent[failures++] = got;
    }
    return failures;
}
