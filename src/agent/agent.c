/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening an agent: its LUN, its lock, its socket; its life is agent_life.c.
 *
 * Happy path: agent_open listens at once (its status can be asked from the first second) and the
 * life begins with the join. Failure modes: no LUN, a LUN that is not a READY pool's or is a copy
 * of one, a pool given twice, a socket that somebody listens on: refused with the reason. SIGTERM:
 * the process ends, volumes go on, the next agent adopts them.
 */
#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/io.h"
#include "base/log.h"
#include "diskrpc/wwid.h"

static unsigned pools_served; /* of this process */

bool agent_was_last(void)
{
    return --pools_served == 0;
}

#define AGENT_POOLS_MAX 16u /* of one process */
static struct uuid opened[AGENT_POOLS_MAX];
static uint32_t pools_opened;

/* One agent per pool and node: waits for a predecessor's exit, whose writes have all landed then
 * (SAFETY 5). */
static int take_lock(struct agent *a, struct error *err)
{
    char path[300];
    snprintf(path, sizeof path, "%s/agent-%s.lock", a->run_dir, a->sb.pool_name);
    a->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (a->lock_fd < 0)
        return error_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    if (flock(a->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    log_info("waiting text=\"for another agent of this pool to exit\" lock=%s", path);
    if (flock(a->lock_fd, LOCK_EX) < 0)
        return error_set(err, -errno, "cannot lock %s: %s", path, strerror(errno));
    return 0;
}

static int read_lun(struct agent *a, struct error *err)
{
    a->fd = io_open(a->device, 1, err);
    if (a->fd < 0)
        return a->fd;
    int rc = superblock_read(a->fd, &a->sb, err);
    if (rc < 0)
        return error_prefix(err, "%s", a->device);
    if (a->sb.state != SUPERBLOCK_READY)
        return error_set(err, LUNAR_E_VERSION,
                         "%s: an interrupted format; run `lunarctl lun format` again", a->device);
    return wwid_check(a->fd, a->device, &a->sb, err);
}

static int prepare(struct agent *a, struct error *err)
{
    int rc = read_lun(a, err);
    if (rc < 0)
        return rc;
    snprintf(a->root, sizeof a->root, "%s/attach-%s", a->run_dir, a->sb.pool_name);
    snprintf(a->socket, sizeof a->socket, "%s/agent-%s.sock", a->run_dir, a->sb.pool_name);
    snprintf(a->coordinator_socket, sizeof a->coordinator_socket, "%s/coordinator-%s.sock",
             a->run_dir, a->sb.pool_name);
    if (mkdir(a->root, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make %s: %s", a->root, strerror(errno));
    for (uint32_t i = 0; i < pools_opened; i++)
        if (uuid_equal(&opened[i], &a->sb.pool_id))
            return error_set(err, LUNAR_E_INVALID, "%s: pool '%s' is given twice", a->device,
                             a->sb.pool_name);
    if (pools_opened == AGENT_POOLS_MAX)
        return error_set(err, LUNAR_E_FULL, "more than %u pools", AGENT_POOLS_MAX);
    opened[pools_opened++] = a->sb.pool_id;
    rc = take_lock(a, err);
    if (rc == 0)
        rc = local_open(a->loop, a->socket, &agent_local_callbacks, a, &a->local, err);
    return rc;
}

int agent_open(uv_loop_t *loop, const struct agent_config *config, struct agent **ret,
               struct error *err)
{
    struct agent *a = calloc(1, sizeof *a); /* lives as long as the process */
    if (!a)
        abort();
    a->loop = loop;
    snprintf(a->device, sizeof a->device, "%s", config->device);
    snprintf(a->node_name, sizeof a->node_name, "%s", config->node_name);
    snprintf(a->run_dir, sizeof a->run_dir, "%s", config->run_dir);
    a->hint_option = config->hint;
    int rc = prepare(a, err);
    if (rc < 0)
        return rc;
    pools_served++;
    a->trace = trace_new(TRACE_RECORDS, a->sb.layout.max_nodes);
    agent_begin(a);
    *ret = a;
    return 0;
}

static void resume(const struct stack *stack)
{
    struct error err = ERROR_INIT;

    if (stack_unhold(stack, &err) < 0)
        log_error("hold_stays name=\"%s\" text=\"%s\"", stack->spec.name, err.text);
}

void agent_resume_consumers(const struct agent *agent)
{
    if (agent->node)
        node_each_suspended(agent->node, resume);
}

const char *agent_socket(const struct agent *agent)
{
    return agent->socket;
}
