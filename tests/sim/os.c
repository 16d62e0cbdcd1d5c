/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operating system below the production code: logs go into the trace, sleep is a fiber's,
 * clocks are the machine's, randomness is a stream of the seed, exit ends the process and no more.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hangup.h"
#include "base/log.h"
#include "diskrpc/wwid.h"
#include "fencing/leases.h"
#include "sim/internal.h"
#include "sim/libc.h"

/* Seconds since the epoch at the start of every run: any fixed date. */
#define EPOCH_S 1800000000

#define LOG_SIZE 384

void log_set_level(enum log_level level)
{
    (void)level;
}

void log_set_tag(const char *tag)
{
    (void)tag; /* the trace names the process */
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char line[LOG_SIZE];
    va_list args;
    if (level == LOG_LEVEL_DEBUG)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    sim_trace("%s %s", names[level], line);
}

int sim_os_usleep(useconds_t us)
{
    fiber_sleep(us);
    return 0;
}

int sim_os_nanosleep(const struct timespec *wanted, struct timespec *ret_left)
{
    (void)ret_left;
    fiber_sleep((uint64_t)wanted->tv_sec * SIM_S + (uint64_t)wanted->tv_nsec / 1000);
    return 0;
}

unsigned sim_os_sleep(unsigned seconds)
{
    fiber_sleep(seconds * SIM_S);
    return 0;
}

int sim_os_clock_gettime(clockid_t clock, struct timespec *ret)
{
    const struct process *p = process_current();
    uint64_t us =
        clock == CLOCK_MONOTONIC && p ? machine_now_us(p->machine) : sim_now_us() + EPOCH_S * SIM_S;
    ret->tv_sec = (time_t)(us / SIM_S);
    ret->tv_nsec = (long)(us % SIM_S * 1000);
    return 0;
}

time_t sim_os_time(time_t *ret)
{
    time_t now = (time_t)(EPOCH_S + sim_now_us() / SIM_S);
    if (ret)
        *ret = now;
    return now;
}

ssize_t sim_os_getrandom(void *buffer, size_t len, unsigned flags)
{
    uint8_t *bytes = buffer;
    (void)flags;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)sim_random(STREAM_UUID, 256);
    return (ssize_t)len;
}

void sim_os_exit(int status)
{
    struct process *p = process_current();
    assert(p);
    sim_trace("%s exits with %d", p->name, status);
    process_kill(p);
    abort(); /* it does not return */
}

int sim_os_close(int fd)
{
    assert(fd >= SIM_LUN_FD); /* nothing of the world is open here */
    return 0;
}

int hangup_fd(int socket_fd)
{
    return socket_fd; /* uv_poll watches it itself; sim_fd_ready rings */
}

void wwid_read(int fd, char ret[WWID_SIZE])
{
    (void)fd;
    ret[0] = '\0';
}

int wwid_check(int fd, const char *device, const struct superblock *sb, struct error *err)
{
    (void)fd;
    (void)device;
    (void)sb;
    (void)err;
    return 0;
}

int leases_machine_id(char *ret, unsigned ret_size, struct error *err)
{
    (void)err;
    assert(process_current());
    snprintf(ret, ret_size, "machine-%u", process_current()->machine->identity);
    return 0;
}

/* A run leaves the memory of its dead processes behind on purpose. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}
