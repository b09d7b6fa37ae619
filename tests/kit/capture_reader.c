/* Gives the C client a recorded stream of the server in pieces of odd sizes; prints template and number of each frame it hands
 * over. capture_reader FILE */
#include <inttypes.h>
#include <stdio.h>

#include "bullring_client.h"

static void on_frame(void *context, const frame_header_t *header, const void *block)
{
    (void)context;
    (void)block;
    printf("%u %" PRIu64 "\n", header->template_id, header->seq_num);
}

int main(int count, char **arguments)
{
    static bullring_client_t client;
    uint8_t piece[113];
    int ends[2], status = 0;
    size_t size;

    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (file == NULL || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        return 66;
    bullring_init(&client, 2, on_frame, NULL);
    client.fd = ends[0];
    while (status >= 0 && (size = fread(piece, 1, sizeof(piece), file)) > 0) {
        if (write(ends[1], piece, size) != (ssize_t)size)
            return 74;
        status = bullring_poll(&client);
    }
    return status < 0 && status != BULLRING_REFUSED; /* the last frame is a Terminate */
}
