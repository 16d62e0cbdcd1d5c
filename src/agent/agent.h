/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: one per pool on a node; several share a process and its loop. See agent.c for its
 * life.
 */
#ifndef LUNAR_AGENT_AGENT_H
#define LUNAR_AGENT_AGENT_H

#include <uv.h>

#include "base/error.h"
#include "diskrpc/hint_address.h"

struct agent_config {
    const char *device;
    const char *node_name;
    const char *run_dir; /* exists; sockets, locks and attachments' state live here */
    struct hint_option hint;
};

struct agent;

/* Reads the superblock, takes the lock of this pool on this node (waits for a predecessor's exit),
 * listens on RUN_DIR/agent-POOL.sock and starts to join in the background. */
int agent_open(uv_loop_t *loop, const struct agent_config *config, struct agent **ret,
               struct error *err);
const char *agent_socket(const struct agent *agent);
/* Before its process ends: nobody is to wait for a snapshot that nobody here will take any more
 * (SAFETY 21). Blocks for milliseconds. */
void agent_resume_consumers(const struct agent *agent);

#endif
