/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signals and the pause of commands that go on.
 *
 * Happy path: sleep, look, sleep. A signal ends the sleep, or is seen at the next one. Failure
 * mode: a signal between the check and the sleep would be slept through, so the signals are blocked
 * but for the wait itself (ppoll).
 */
#include "watch.h"

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
#define N_SIGNALS (sizeof signals / sizeof *signals)

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

void watch_start(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

    stopped = 0;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < N_SIGNALS; i++)
        sigaction(signals[i], &action, NULL);
}

bool watch_sleep(uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000L};
    sigset_t block, before;

    sigemptyset(&block);
    for (size_t i = 0; i < N_SIGNALS; i++)
        sigaddset(&block, signals[i]);
    sigprocmask(SIG_BLOCK, &block, &before);
    if (!stopped)
        ppoll(NULL, 0, &t, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return !stopped;
}
