/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does this node see a LUN of the pool? The coordinator asks before it gives out space on it.
 *
 * Happy path: each PV that is named is there and has at least the size that the coordinator sees;
 * the result says so. Changes nothing. Failure modes: the first one that is not, with what to do,
 * is the result; one that hangs holds one thread of the pool's, and the coordinator has a deadline.
 */
#include "agent/probe.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/io.h"
#include "base/log.h"
#include "diskrpc/pv.h"

#define PROBE_PVS_MAX 32u

struct wanted {
    uint32_t index;
    char uuid[PV_UUID_SIZE];
    uint64_t size;
};

struct probe {
    uv_work_t work;
    struct agent *a;
    struct uuid command_id;
    struct wanted pvs[PROBE_PVS_MAX];
    uint32_t n_pvs;
    int rc;
    struct error err;
};

/* --- in the pool's thread --- */

/* The first one by the path that was given: it is what all else of this agent uses. */
static int look_at(const struct probe *p, const struct wanted *pv, struct error *err)
{
    char path[PV_PATH_SIZE];
    int rc = 0;

    if (pv->index == 0)
        snprintf(path, sizeof path, "%s", p->a->device);
    else
        rc = pv_find(pv->uuid, path, err);
    int fd = rc < 0 ? rc : io_open(path, 0, err);
    if (fd < 0)
        return fd;
    rc = pv_check_size(fd, path, pv->size, err);
    close(fd);
    return rc;
}

static void on_look(uv_work_t *work)
{
    struct probe *p = work->data;
    for (uint32_t i = 0; p->rc == 0 && i < p->n_pvs; i++)
        p->rc = look_at(p, &p->pvs[i], &p->err);
}

/* --- on the loop --- */

static void send_result(const struct probe *p)
{
    static char nothing[] = "";
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    uint8_t *bytes;
    uint32_t len;

    error.code = p->rc;
    error.text = p->rc < 0 ? (char *)(uintptr_t)p->err.text : nothing;
    result.id = uuid_to_pb(&p->command_id);
    result.error = &error;
    e.body_case = LUNAR__ENVELOPE__BODY_RESULT;
    e.result = &result;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return;
    if (agent_io.send(p->a, bytes, len) < 0)
        log_warn("result_not_sent text=\"nobody hears what was looked at\"");
    free(bytes);
}

static void on_looked(uv_work_t *work, int status)
{
    struct probe *p = work->data;
    assert(status == 0); /* never cancelled */
    if (p->rc < 0)
        log_warn("pv_not_seen code=%s text=\"%s\"", error_name(p->rc), p->err.text);
    send_result(p);
    free(p);
}

static void take_pv(struct probe *p, const Lunar__Pv *m)
{
    struct wanted *pv = &p->pvs[p->n_pvs++];
    pv->index = m->index;
    pv->size = m->size;
    snprintf(pv->uuid, sizeof pv->uuid, "%s", m->uuid);
}

void probe_command(void *data, const struct uuid *command_id, const Lunar__ProbePv *m)
{
    struct probe *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->a = data;
    p->command_id = *command_id;
    if (m->n_pvs > PROBE_PVS_MAX)
        p->rc = error_set(&p->err, LUNAR_E_INVALID, "%zu PVs at once", m->n_pvs);
    for (size_t i = 0; p->rc == 0 && i < m->n_pvs; i++)
        take_pv(p, m->pvs[i]);
    p->work.data = p;
    if (uv_queue_work(p->a->loop, &p->work, on_look, on_looked) != 0)
        abort();
}
