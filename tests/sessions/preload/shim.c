/*
 * Loaded into a server with LD_PRELOAD: shifts the wall clock and delays name resolution, as a file says
 * that the tests write while the server runs. Monotonic clocks stay as they are.
 *
 * CMK_SHIM names the file: three 64-bit integers: milliseconds that getaddrinfo() sleeps, seconds that
 * the wall clock is ahead, and a real-time signal, counted from SIGRTMIN, that somebody takes at the next getaddrinfo(). It stays mapped, so reading it takes no system call and is safe anywhere.
 *
 * CMK_TAKEN_SIGNALS=FIRST,LAST: real-time signals, counted from SIGRTMIN, that somebody else in the process handles.
 *
 * It also takes memfd_secret(2) away: tests that look into a process's memory would not see what lies there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct orders {
    int64_t resolve_millis;
    int64_t ahead_seconds;
    int64_t take_signal;
};

static volatile const struct orders *orders;

static void not_yours(int signal)
{
    (void)signal;
    abort();
}

__attribute__((constructor)) static void take_signals(void)
{
    const char *taken = getenv("CMK_TAKEN_SIGNALS");
    int first, last;

    if (taken && sscanf(taken, "%d,%d", &first, &last) == 2)
        for (int i = first; i <= last && SIGRTMIN + i <= SIGRTMAX; i++)
            signal(SIGRTMIN + i, not_yours);
}

__attribute__((constructor)) static void read_orders(void)
{
    static const struct orders none;
    const char *path = getenv("CMK_SHIM");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(none), PROT_READ, MAP_SHARED, file, 0);

    orders = mapped == MAP_FAILED ? &none : mapped;
    if (file >= 0)
        close(file);
}

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long a[6];
    va_list arguments;

    if (number == SYS_memfd_secret) {
        errno = ENOSYS;
        return -1;
    }
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int64_t ahead(void)
{
    return orders ? orders->ahead_seconds : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int result = (int)syscall(SYS_clock_gettime, clock, at);

    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints,
                struct addrinfo **restrict found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");

    usleep((useconds_t)(orders->resolve_millis * 1000));
    if (orders->take_signal)
        signal(SIGRTMIN + (int)orders->take_signal, not_yours);
    return real(node, service, hints, found);
}
