/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Included before every production source that the simulator compiles (-include): what such code
 * calls of the C library for time, randomness and its own end goes to os.c. What is not renamed
 * here must not touch the world; a call to it would show as a run that does not repeat.
 */
#ifndef LUNAR_TESTS_SIM_LIBC_H
#define LUNAR_TESTS_SIM_LIBC_H

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

int sim_os_usleep(useconds_t us);
int sim_os_nanosleep(const struct timespec *wanted, struct timespec *ret_left);
unsigned sim_os_sleep(unsigned seconds);
int sim_os_clock_gettime(clockid_t clock, struct timespec *ret);
time_t sim_os_time(time_t *ret);
ssize_t sim_os_getrandom(void *buffer, size_t len, unsigned flags);
_Noreturn void sim_os_exit(int status);
int sim_os_close(int fd);

#define usleep(us)                sim_os_usleep(us)
#define nanosleep(wanted, left)   sim_os_nanosleep(wanted, left)
#define sleep(seconds)            sim_os_sleep(seconds)
#define clock_gettime(clock, ret) sim_os_clock_gettime(clock, ret)
#define time(ret)                 sim_os_time(ret)
#define getrandom(buffer, len, f) sim_os_getrandom(buffer, len, f)
#define exit(status)              sim_os_exit(status)
#define _exit(status)             sim_os_exit(status)
#define close(fd)                 sim_os_close(fd)

#endif
