/* SPDX-License-Identifier: Apache-2.0 */
/* How a coordinator's process ends. The simulator, where it is one of many, has its own. */
#include <unistd.h>

#include "base/log.h"
#include "coordinator/coordinator_internal.h"

_Noreturn void coordinator_die(const char *why, const char *text)
{
    log_error("coordinator_ends why=\"%s\" text=\"%s\"", why, text);
    /* No destructors, no flushing of anything to the LUN: the socket closes with the process and
     * frees the lease. */
    _exit(COORDINATOR_EXIT_DEPOSED);
}

_Noreturn void coordinator_exit(void)
{
    _exit(0);
}
