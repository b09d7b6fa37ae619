/* A disk that fails, hangs and loses power on command: put before the C library of a process by LD_PRELOAD.
 *
 * Only files below BULLRING_DISK_FOLDER are touched. BULLRING_DISK_CONTROL is a file of one page, mapped by the drill and here:
 * the drill sets, the shim counts. BULLRING_DISK_SHADOW is a folder where the shim keeps what the strictest disk would hold
 * after a power loss: a file's content as of its last successful sync (inodes/<number>), and the names as of the last
 * successful sync of their folder (names). What was written and not synced is not in it. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct control {
    _Atomic uint64_t syncs;        /* so far, of files and of the folder */
    _Atomic uint64_t fail_at;      /* the sync with this number fails; 0 = none */
    _Atomic uint64_t error;        /* its errno */
    _Atomic uint64_t lie;          /* 1: the failed sync says that it went well; 2: every sync does, and does nothing */
    _Atomic uint64_t delay_ns;     /* what each sync takes more ... */
    _Atomic uint64_t delay_count;  /* ... for so many syncs */
    _Atomic uint64_t delaying;     /* such a sync is going on */
    _Atomic uint64_t failed_at_ns; /* CLOCK_MONOTONIC of the failure, 0 = not yet */
    _Atomic uint64_t after;        /* syncs begun by the thread that saw the failure, afterwards */
} control_t;

static control_t *control;
static const char *folder;
static const char *shadow;
static pthread_mutex_t shadow_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local int saw_failure;

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("BULLRING_DISK_CONTROL");

    folder = getenv("BULLRING_DISK_FOLDER");
    shadow = getenv("BULLRING_DISK_SHADOW");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    control = memory == MAP_FAILED ? NULL : memory;
    close(fd);
}

static int watched(int fd, char path[PATH_MAX])
{
    char link[64];

    if (control == NULL || folder == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static void give_up(const char *what)
{
    fprintf(stderr, "disk_shim: %s: %s\n", what, strerror(errno));
    abort();
}

static void copy_file(const char *path, const char *to)
{
    static uint8_t buffer[1 << 16];
    char draft[PATH_MAX + 8];

    snprintf(draft, sizeof draft, "%s.new", to);
    int from = open(path, O_RDONLY | O_CLOEXEC);
    int out = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0)
        give_up(draft);
    for (ssize_t got; from >= 0 && (got = read(from, buffer, sizeof buffer)) > 0;)
        if (write(out, buffer, (size_t)got) != got)
            give_up(draft);
    if (from >= 0)
        close(from);
    close(out);
    if (rename(draft, to) != 0)
        give_up(to);
}

/* The names of the folder and what they stand for. */
static void copy_names(const char *path)
{
    char draft[PATH_MAX];
    char to[PATH_MAX];

    snprintf(draft, sizeof draft, "%s/names.new", shadow);
    snprintf(to, sizeof to, "%s/names", shadow);
    FILE *out = fopen(draft, "we");
    DIR *listing = opendir(path);
    if (out == NULL || listing == NULL)
        give_up(draft);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;)
        if (entry->d_type == DT_REG)
            fprintf(out, "%llu %s\n", (unsigned long long)entry->d_ino, entry->d_name);
    closedir(listing);
    if (fclose(out) != 0 || rename(draft, to) != 0)
        give_up(to);
}

static void remember(int fd, const char *path)
{
    struct stat status;
    char self[64];
    char to[PATH_MAX];

    if (shadow == NULL || fstat(fd, &status) != 0)
        return;
    pthread_mutex_lock(&shadow_lock);
    if (S_ISDIR(status.st_mode)) {
        copy_names(path);
    } else {
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        snprintf(to, sizeof to, "%s/inodes/%llu", shadow, (unsigned long long)status.st_ino);
        copy_file(self, to);
    }
    pthread_mutex_unlock(&shadow_lock);
}

static void delay(void)
{
    uint64_t left = atomic_load(&control->delay_count);

    while (left > 0 && !atomic_compare_exchange_weak(&control->delay_count, &left, left - 1))
        ;
    if (left == 0)
        return;
    uint64_t ns = atomic_load(&control->delay_ns);
    atomic_fetch_add(&control->delaying, 1);
    nanosleep(&(struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)}, NULL);
    atomic_fetch_sub(&control->delaying, 1);
}

static int sync_by(long call, int fd)
{
    char path[PATH_MAX];

    if (!watched(fd, path))
        return (int)syscall(call, fd);
    atomic_fetch_add(&control->after, (uint64_t)saw_failure);
    uint64_t number = atomic_fetch_add(&control->syncs, 1) + 1;
    uint64_t lie = atomic_load(&control->lie);
    delay();
    if (lie == 2)
        return 0;
    if (number == atomic_load(&control->fail_at)) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        atomic_store(&control->failed_at_ns, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
        if (lie == 1)
            return 0;
        saw_failure = 1;
        errno = (int)atomic_load(&control->error);
        return -1;
    }
    int status = (int)syscall(call, fd);
    if (status == 0)
        remember(fd, path);
    return status;
}

int fdatasync(int fd)
{
    return sync_by(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return sync_by(SYS_fsync, fd);
}
