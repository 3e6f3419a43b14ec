/*
 * Loaded into a server with LD_PRELOAD: a disk that fills up. While a file names a directory, no file below that
 * grows: writes past a file's end fail with ENOSPC, as do reservations of space. What is there can be written over.
 *
 * CMK_DISK names the file. It stays mapped, so reading it takes no system call.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SIZE = 4096 };

static volatile const char *directory = "";

__attribute__((constructor)) static void read_orders(void)
{
    const char *path = getenv("CMK_DISK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, SIZE, PROT_READ, MAP_SHARED, file, 0);

    if (mapped != MAP_FAILED)
        directory = mapped;
    if (file >= 0)
        close(file);
}

/* Whether the file would be longer than it is, and may not be. */
static int is_full(int file, off_t end)
{
    char link[64], path[SIZE], full[SIZE];
    struct stat status;
    ssize_t length;
    size_t of_directory;

    if (!directory[0])
        return 0;
    memcpy(full, (const char *)directory, SIZE);
    of_directory = strnlen(full, SIZE);
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || end <= status.st_size)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    return length > (ssize_t)of_directory && memcmp(path, full, of_directory) == 0;
}

static off_t end_of(int file, off_t length)
{
    struct stat status;
    int flags = fcntl(file, F_GETFL);

    if (flags >= 0 && (flags & O_APPEND) && fstat(file, &status) == 0)
        return status.st_size + length;
    return lseek(file, 0, SEEK_CUR) + length;
}

static off_t total(const struct iovec *parts, int count)
{
    off_t sum = 0;

    for (int i = 0; i < count; i++)
        sum += (off_t)parts[i].iov_len;
    return sum;
}

/* The C library's function of this name. */
#define REAL(name)                     \
    static __typeof__(&(name)) real;   \
    if (!real)                         \
        real = (__typeof__(&(name)))dlsym(RTLD_NEXT, #name);

#define NO_SPACE(condition) \
    if (condition) {        \
        errno = ENOSPC;     \
        return -1;          \
    }

ssize_t write(int file, const void *bytes, size_t length)
{
    REAL(write)
    NO_SPACE(directory[0] && is_full(file, end_of(file, (off_t)length)))
    return real(file, bytes, length);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset)
{
    REAL(pwrite)
    NO_SPACE(is_full(file, offset + (off_t)length))
    return real(file, bytes, length, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset)
{
    return pwrite(file, bytes, length, offset);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset)
{
    REAL(pwritev)
    NO_SPACE(is_full(file, offset + total(parts, count)))
    return real(file, parts, count, offset);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t offset)
{
    return pwritev(file, parts, count, offset);
}

int posix_fallocate(int file, off_t offset, off_t length)
{
    REAL(posix_fallocate)
    return is_full(file, offset + length) ? ENOSPC : real(file, offset, length);
}

int posix_fallocate64(int file, off64_t offset, off64_t length)
{
    return posix_fallocate(file, offset, length);
}
