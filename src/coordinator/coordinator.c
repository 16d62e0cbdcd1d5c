/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator's process: LUN, folders, socket and signals; its life is coordinator_life.c.
 *
 * Failure modes: no LUN, a LUN that is not a READY pool's or is a copy of one (SAFETY 22), a socket
 * that somebody listens on: it does not start, and says why.
 */
#include "coordinator/coordinator.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/log.h"
#include "coordinator/coordinator_internal.h"
#include "diskrpc/wwid.h"

static void on_signal(uv_signal_t *handle, int signum)
{
    (void)signum;
    coordinator_resign(handle->data);
}

static int setup(struct coordinator *c, const struct coordinator_config *config, struct error *err)
{
    c->loop = uv_default_loop();
    c->device = config->device;
    c->hint_option = config->hint;
    c->fd = io_open(config->device, 1, err);
    if (c->fd < 0)
        return c->fd;
    int rc = superblock_read(c->fd, &c->sb, err);
    if (rc < 0)
        return rc;
    if (c->sb.state != SUPERBLOCK_READY)
        return error_set(err, LUNAR_E_VERSION,
                         "%s: an interrupted format; run `lunarctl lun format` again",
                         config->device);
    rc = wwid_check(c->fd, config->device, &c->sb, err);
    if (rc < 0)
        return rc;
    if (mkdir(config->run_dir, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make %s: %s", config->run_dir, strerror(errno));
    snprintf(c->state_dir, sizeof c->state_dir, "%s/coordinator-%s", config->run_dir,
             c->sb.pool_name);
    if (mkdir(c->state_dir, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make %s: %s", c->state_dir, strerror(errno));
    snprintf(c->socket, sizeof c->socket, "%s/coordinator-%s.sock", config->run_dir,
             c->sb.pool_name);
    snprintf(c->agent_socket, sizeof c->agent_socket, "%s/agent-%s.sock", config->run_dir,
             c->sb.pool_name);
    if (config->socket)
        snprintf(c->socket, sizeof c->socket, "%s", config->socket);
    if (config->agent_socket)
        snprintf(c->agent_socket, sizeof c->agent_socket, "%s", config->agent_socket);
    LIST_INIT(&c->relays);
    c->trace = trace_new(TRACE_RECORDS, c->sb.layout.max_nodes);
    return local_open(c->loop, c->socket, &coordinator_local_callbacks, c, &c->local, err);
}

int coordinator_run(const struct coordinator_config *config, struct error *err)
{
    static struct coordinator coordinator; /* one per process, as long as the process */
    struct coordinator *c = &coordinator;

    int rc = setup(c, config, err);
    if (rc < 0)
        return rc;
    uv_signal_init(c->loop, &c->sigterm);
    uv_signal_init(c->loop, &c->sigint);
    c->sigterm.data = c->sigint.data = c;
    uv_signal_start(&c->sigterm, on_signal, SIGTERM);
    uv_signal_start(&c->sigint, on_signal, SIGINT);
    coordinator_begin(c);
    log_info("candidate pool=%s device=%s socket=%s", c->sb.pool_name, c->device, c->socket);
    uv_run(c->loop, UV_RUN_DEFAULT);
    return 0;
}
