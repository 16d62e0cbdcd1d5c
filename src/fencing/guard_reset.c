/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reset of this machine; see guard_reset.h.
 *
 * Happy path: one byte, 'b', into /proc/sysrq-trigger. The kernel restarts within that write: no
 * sync, no unmount, no notifier, no driver's shutdown, nothing that could wait for the I/O because
 * of which we are here. Writing there needs no kernel.sysrq setting, which is about keyboards. It
 * is opened at the start, so that no path is walked later.
 *
 * The other way is reboot(2). It comes second, because the kernel shuts its devices down first, and
 * a disk's cache flush into a LUN that hangs may take for ever. It is no way at all in a pid
 * namespace of a container's own: there it ends the container, and the guard with it, and the
 * machine runs on. So it is taken only where the namespace is the machine's.
 *
 * Failure modes: /proc is mounted read-only (a container that is not privileged), the kernel has no
 * sysrq, the capability is not there: said at the start (`no_reset`), when somebody can still do
 * something about it. The node is guarded all the same: where the lease is lost, the watchdog is
 * there. Both fail: the caller logs it and comes again.
 */
#include "fencing/guard_reset.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/log.h"

/* The machine's own pid namespace has this number on every kernel (PROC_PID_INIT_INO). */
#define INIT_PID_NAMESPACE "pid:[4026531836]"

static int trigger_fd = -1, kmsg_fd = -1;
static bool by_reboot;
static char words[512]; /* locked with the rest of the program */

static bool is_in_init_namespace(void)
{
    char name[64] = "";
    ssize_t n = readlink("/proc/self/ns/pid", name, sizeof name - 1);
    return n > 0 && strcmp(name, INIT_PID_NAMESPACE) == 0;
}

static bool may_reboot(void)
{
    char line[128];
    uint64_t effective = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "CapEff: %" SCNx64, &effective) == 1)
            break;
    if (f)
        fclose(f);
    return effective >> CAP_SYS_BOOT & 1;
}

void guard_reset_prepare(void)
{
    trigger_fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    kmsg_fd = open("/dev/kmsg", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    by_reboot = is_in_init_namespace() && may_reboot();
    if (trigger_fd >= 0 || by_reboot)
        log_info("reset_ways sysrq=%d reboot=%d", trigger_fd >= 0, by_reboot);
    else
        log_error(
            "no_reset text=\"neither /proc/sysrq-trigger nor reboot(2) is to be had: without a "
            "watchdog that is due, a fence without a proof hangs for ever; a container needs "
            "to be privileged, with the machine's pids\"");
}

/* Into the kernel's log, which a console or pstore may keep: ours is gone with the run directory.
 */
static void leave_word(const char *why)
{
    int n =
        snprintf(words, sizeof words,
                 "<2>lunar-guard: I/O on the LUN does not end, resetting this machine: %s\n", why);
    ssize_t written = write(kmsg_fd, words, (size_t)n < sizeof words ? (size_t)n : sizeof words);
    (void)written; /* nobody waits for a word */
}

void guard_reset_now(const char *why)
{
    leave_word(why);
    ssize_t n = write(trigger_fd, "b", 1);
    (void)n; /* whatever it says, we are still here */
    if (by_reboot)
        reboot(RB_AUTOBOOT);
}
