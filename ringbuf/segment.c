#include "segment.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "invariant.h"

/* Kernels before 5.14 lack MADV_POPULATE_*: touch each page. Reading suffices for memory that fallocate has filled. */
static void touch_pages(const segment_t *segment)
{
    const volatile uint8_t *bytes = (const volatile uint8_t *)segment->address;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    for (uint64_t offset = 0; offset < segment->size; offset += page)
        (void)bytes[offset];
}

static int settle(void *address, uint64_t size, bool writable, segment_t *segment)
{
    if (address == MAP_FAILED)
        return -errno;
    *segment = (segment_t){.address = address, .size = size};
    /* Huge pages of shared memory are the host's decision (shmem_enabled); where it says "advise" this is the advice. */
    (void)madvise(address, size, MADV_HUGEPAGE);
    if (madvise(address, size, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) != 0) {
        segment->prefault_errno = errno;
        if (errno == EINVAL) {
            touch_pages(segment);
            segment->prefault_errno = 0;
        }
    }
    segment->lock_errno = mlock(address, size) == 0 ? 0 : errno;
    return 0;
}

int segment_map(int fd, uint64_t size, bool writable, segment_t *segment)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;

    INVARIANT(size > 0);
    return settle(mmap(NULL, size, protection, MAP_SHARED, fd, 0), size, writable, segment);
}

/* Anonymous and shared all the same: a forked child of a test sees the same ring. */
int segment_map_private(uint64_t size, segment_t *segment)
{
    INVARIANT(size > 0);
    return settle(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), size, true, segment);
}

int segment_unmap(segment_t *segment)
{
    if (segment->address == NULL)
        return 0;
    int result = munmap(segment->address, segment->size) == 0 ? 0 : -errno;
    segment->address = NULL;
    return result;
}
