/* One frame to many sockets in one call: what a bare loop of send() costs, and nothing more. */
#ifndef BULLRING_FANOUT_H
#define BULLRING_FANOUT_H

#include <stdint.h>

/* Send `frame` to sockets[i] wherever clear[sockets[i]] is set. An entry of `failed` is the index of a socket that did not take
 * all of it, with the bytes it took (0 = full, negative = -errno) in `sent`; both have room for `count`. Returns how many. */
int32_t fanout_send(const int32_t *sockets, int32_t count, const uint8_t *clear, const void *frame, uint64_t size,
                    int32_t *failed, int64_t *sent);

/* Send to one socket: the bytes it took, 0 = it is full, negative = -errno. */
int64_t fanout_send_one(int32_t socket, const void *frame, uint64_t size);

#endif
