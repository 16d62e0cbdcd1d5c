/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator process: a candidate for one pool's lease that leads when it gets it.
 *
 * coordinator_run returns only by resigning (exit status 0) or when it could not start; a lost
 * lease ends the process at once (status 75), because nothing it knows may be acted upon any more.
 * A supervisor starts it again.
 */
#ifndef LUNAR_COORDINATOR_COORDINATOR_H
#define LUNAR_COORDINATOR_COORDINATOR_H

#include "base/error.h"
#include "diskrpc/hint_address.h"

struct coordinator_config {
    const char *device;       /* of the LUN on this node */
    const char *run_dir;      /* private state and sockets; exists */
    const char *agent_socket; /* NULL: RUN_DIR/agent-POOL.sock */
    const char *socket;       /* NULL: RUN_DIR/coordinator-POOL.sock */
    struct hint_option hint;
};

#define COORDINATOR_EXIT_DEPOSED 75

int coordinator_run(const struct coordinator_config *config, struct error *err);

#endif
