/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: attach, detach, format. Each walks one held entry through its steps (node_internal.h)
 * and answers the newest command that asked.
 *
 * Happy path of an attach: "opening" reported -> stack built outside (which checks term and grant
 * on the LUN) -> "open" reported -> result. Failure modes: the report cannot be written or the task
 * fails: the entry is taken back, reported, and the error is the result; the same command again
 * joins what is under way; another attachment of the same volume is refused (but a job on its next
 * layer); a map generation lower than what is known is refused (SAFETY 14); a detach of what is not
 * here is success, once the LUN's report says so too.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "agent/stack_internal.h"
#include "agent/stack_pv.h"
#include "base/log.h"

static void send_result(struct node *n, Lunar__Result *result)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    uint8_t *bytes;
    uint32_t len;

    e.body_case = LUNAR__ENVELOPE__BODY_RESULT;
    e.result = result;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return;
    if (n->io->send(n->data, bytes, len) < 0)
        log_warn("result_not_sent text=\"the coordinator will ask again\"");
    free(bytes);
}

void held_send_result(struct node *n, const struct uuid *command_id, int code, const char *words,
                      const char *device)
{
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;

    if (uuid_is_zero(command_id))
        return;
    error.code = code;
    error.text = (char *)(uintptr_t)words;
    result.id = uuid_to_pb(command_id);
    result.error = &error;
    result.device = (char *)(uintptr_t)device;
    send_result(n, &result);
}

void held_send_progress(struct node *n, const struct held *h)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Progress progress = LUNAR__PROGRESS__INIT;
    uint8_t *bytes;
    uint32_t len;

    if (h->step != HELD_OPENING_TASK || h->task.kind != NODE_TASK_MERGE || h->job.total == 0 ||
        uuid_is_zero(&h->command_id))
        return;
    progress.id = uuid_to_pb(&h->command_id);
    progress.done = h->job.done;
    progress.total = h->job.total;
    e.body_case = LUNAR__ENVELOPE__BODY_PROGRESS;
    e.progress = &progress;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return;
    (void)n->io->send(n->data, bytes, len); /* the next one tells as much */
    free(bytes);
}

/* A measurement has succeeded. */
static void send_end(struct node *n, const struct held *h)
{
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;

    if (uuid_is_zero(&h->command_id))
        return;
    result.id = uuid_to_pb(&h->command_id);
    result.error = &error;
    result.end = h->task.end;
    send_result(n, &result);
}

void held_send_hold(struct node *n, const struct uuid *command_id, const struct uuid *hold)
{
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;

    if (uuid_is_zero(command_id))
        return;
    result.id = uuid_to_pb(command_id);
    result.error = &error;
    result.hold = uuid_to_pb(hold);
    send_result(n, &result);
}

void held_free(struct node *n, struct held *h)
{
    TAILQ_REMOVE(&n->held, h, link);
    n->n_held--;
    if (h->stack) {
        held_watch(n, h, false);
        stack_free(h->stack);
    }
    space_end(h);
    stack_spec_free(&h->spec);
    change_free(h);
    free(h);
}

void held_watch(struct node *n, struct held *h, bool on)
{
    n->io->watch(n->data, h->stack, on);
    if (n->io->space)
        n->io->space(n->data, h->stack, h->space.volume_short, h->space.index,
                     on ? growth_threshold(&h->space.growth) : 0);
}

/* Answers the command that waits, if one does, and forgets it. */
static void answer_once(struct node *n, struct held *h, int code, const char *words)
{
    held_send_result(n, &h->command_id, code, words, "");
    memset(&h->command_id, 0, sizeof h->command_id);
}

/* Answers and stands as open. */
static void opened(struct node *n, struct held *h)
{
    h->step = HELD_OPEN;
    held_send_result(n, &h->command_id, 0, "", h->stack->link);
    memset(&h->command_id, 0, sizeof h->command_id);
    held_go_on(n, h);
}

static void report(struct node *n, struct held *h, enum held_step step)
{
    h->step = step;
    h->token = node_write_report(n);
}

static void run(struct node *n, struct held *h, enum held_step step, enum node_task_kind kind)
{
    h->step = step;
    h->token = n->next_token++;
    h->task = (struct node_task){.kind = kind,
                                 .token = h->token,
                                 .term = h->term,
                                 .spec = &h->spec,
                                 .stack = h->stack,
                                 .job = &h->job};
    if (kind == NODE_TASK_DETACH)
        h->stack = NULL; /* the task's: it frees it when all is gone */
    n->tasks_out++;
    n->io->run(n->data, &h->task);
}

void held_start_restart(struct node *n, struct held *h)
{
    char id[UUID_TEXT_SIZE];
    h->qsd_exited = false;
    log_error("qsd_exited volume=%s name=\"%s\" text=\"its I/O waits; starting another\"",
              uuid_format(&h->volume_id, id), h->spec.name);
    held_watch(n, h, false);
    run(n, h, HELD_RESTART_TASK, NODE_TASK_RESTART);
}

/* The way down begins. */
static void close_held(struct node *n, struct held *h)
{
    h->close_wanted = false;
    if (h->stack)
        held_watch(n, h, false);
    space_end(h);
    report(n, h, HELD_CLOSING_REPORT);
}

/* Open, and nothing is under way beside that. */
static bool is_idle(const struct held *h)
{
    return h->step == HELD_OPEN && !change_runs(h) && !hold_runs(h) && h->space.token == 0;
}

/* A freeze that has begun writes out what its file system has, and may need a daemon for that. */
static bool may_restart(const struct held *h)
{
    return is_idle(h) ||
           (hold_freezes(h) && h->step == HELD_OPEN && !change_runs(h) && h->space.token == 0);
}

void held_go_on(struct node *n, struct held *h)
{
    if (is_idle(h) && h->close_wanted)
        close_held(n, h); /* it copes with a daemon that died */
    else if (h->qsd_exited && may_restart(h))
        held_start_restart(n, h);
    else
        space_advance(n, h);
}

void held_report_done(struct node *n, struct held *h, int rc, const struct error *err)
{
    switch (h->step) {
    case HELD_OPENING_REPORT:
        if (rc == 0) {
            run(n, h, HELD_OPENING_TASK,
                h->mode == TABLE_MODE_JOB ? h->job_kind : NODE_TASK_ATTACH);
            return;
        }
        if (h->may_stand) {
            h->step = HELD_STUCK;
            answer_once(n, h, LUNAR_E_INDETERMINATE, err->text);
            return;
        }
        held_send_result(n, &h->command_id, rc, err->text, "");
        held_free(n, h);
        return;
    case HELD_OPEN_REPORT:
        /* "opening" on the LUN holds the volume as well as "open" does: a failed write changes
         * nothing. */
        opened(n, h);
        return;
    case HELD_CLOSING_REPORT:
        /* The same: an old "open" holds it until the teardown is reported. */
        run(n, h, HELD_CLOSING_TASK, h->stack ? NODE_TASK_DETACH : NODE_TASK_TEARDOWN);
        return;
    case HELD_GONE_REPORT:
        if (rc < 0 && h->error.code == 0)
            error_set(&h->error, rc, "torn down, but the report could not be written: %s",
                      err->text);
        if (h->task.kind == NODE_TASK_MEASURE && h->error.code == 0)
            send_end(n, h);
        else
            held_send_result(n, &h->command_id, h->error.code, h->error.text, "");
        held_free(n, h);
        return;
    default:
        assert(!"a report nobody waits for");
    }
}

static void restart_done(struct node *n, struct held *h, int rc, const struct error *err)
{
    h->step = HELD_OPEN;
    if (h->close_wanted)        /* a detach came meanwhile */
        h->qsd_exited = rc < 0; /* should a consumer have it open after all */
    if (rc == 0) {
        log_info("qsd_restarted name=\"%s\" pid=%d", h->spec.name, (int)h->stack->qsd.pid);
        held_watch(n, h, true);
    }
    if (rc == 0 || h->close_wanted) {
        held_go_on(n, h);
        return;
    }
    /* I/O waits on; nothing is lost. Tried again: a restart that fails at once would spin, so the
     * glue delays tasks that failed. */
    log_error("qsd_restart_failed name=\"%s\" text=\"%s\"", h->spec.name, err->text);
    run(n, h, HELD_RESTART_TASK, NODE_TASK_RESTART);
}

void held_task_done(struct node *n, struct held *h, int rc, const struct error *err)
{
    if (h->step == HELD_RESTART_TASK) {
        restart_done(n, h, rc, err);
        return;
    }
    if (h->step == HELD_CLOSING_TASK && rc < 0)
        h->stack = h->task.stack; /* still there; NULL after a failed teardown */
    if (h->step == HELD_CLOSING_TASK && rc == LUNAR_E_IN_USE && h->stack) {
        /* A consumer has it open: nothing was touched. */
        answer_once(n, h, rc, err->text);
        space_begin(n, h);
        held_watch(n, h, true);
        report(n, h, HELD_OPEN_REPORT);
        return;
    }
    /* An attempt that failed before it came to the map of the one before says nothing about it. */
    bool half_built =
        h->step == HELD_OPENING_TASK && (rc == LUNAR_E_INDETERMINATE || (rc < 0 && h->may_stand));
    if (half_built || (h->step == HELD_CLOSING_TASK && rc < 0)) {
        /* It may still reach the LUN: held, and reported, until a detach has gone through. */
        h->step = HELD_STUCK;
        answer_once(n, h, LUNAR_E_INDETERMINATE, err->text);
        return;
    }
    if (h->step == HELD_OPENING_TASK && rc == 0 && h->mode == TABLE_MODE_ATTACH) {
        h->stack = h->task.stack;
        space_begin(n, h);
        held_watch(n, h, true);
        report(n, h, HELD_OPEN_REPORT);
        return;
    }
    if (rc < 0)
        error_set(&h->error, rc, "%s", err->text);
    report(n, h, HELD_GONE_REPORT);
}

/* --- from protobuf --- */

static int take_pv(const struct named_pvs *pvs, uint32_t index, uint32_t *ret, struct error *err)
{
    *ret = 0;
    for (size_t i = 0; index > 0 && i < pvs->n && *ret == 0; i++)
        if (pvs->list[i]->index == index)
            *ret = stack_pv_number(pvs->list[i]->uuid);
    if (index > 0 && *ret == 0)
        return error_set(err, LUNAR_E_INVALID, "a segment on LUN %u, which is not named", index);
    return 0;
}

int held_take_layer(const Lunar__Layer *m, const struct named_pvs *pvs, struct stack_layer *layer,
                    struct error *err)
{
    layer->volume_short = m->volume_short;
    layer->index = m->index;
    layer->map_generation = m->map_generation;
    layer->max_size = m->max_size;
    if (m->n_segments == 0 || m->n_segments > STACK_SEGMENTS_MAX)
        return error_set(err, LUNAR_E_INVALID, "a layer of %zu segments", m->n_segments);
    layer->segments = calloc(m->n_segments, sizeof *layer->segments);
    if (!layer->segments)
        abort();
    for (size_t i = 0; i < m->n_segments; i++) {
        const Lunar__Segment *s = m->segments[i];
        if (s->length == 0 || s->length % DM_SECTOR || s->start % DM_SECTOR ||
            s->start > (uint64_t)INT64_MAX || s->length > (uint64_t)INT64_MAX)
            return error_set(err, LUNAR_E_INVALID, "a segment of %llu bytes at %llu",
                             (unsigned long long)s->length, (unsigned long long)s->start);
        layer->segments[i] = (struct stack_segment){.lun_offset = s->start, .length = s->length};
        layer->n_segments++;
        int rc = take_pv(pvs, s->pv, &layer->segments[i].pv, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int take_spec(const struct node *n, const Lunar__Attach *m, struct stack_spec *spec,
                     struct error *err)
{
    const struct named_pvs pvs = {m->pvs, m->n_pvs};

    memset(spec, 0, sizeof *spec);
    snprintf(spec->pool, sizeof spec->pool, "%s", n->pool_name);
    snprintf(spec->device, sizeof spec->device, "%s", n->device);
    spec->pool_id = n->pool_id;
    spec->volume_id = uuid_from_pb(m->volume_id);
    spec->attachment_id = uuid_from_pb(m->attachment_id);
    spec->size = m->size;
    spec->thick = m->thick;
    if (uuid_is_zero(&spec->volume_id) || uuid_is_zero(&spec->attachment_id) || m->size == 0 ||
        m->size % DM_SECTOR || m->size > (uint64_t)INT64_MAX)
        return error_set(err, LUNAR_E_INVALID, "a command without ids or with a bad size");
    if (strlen(m->name) >= sizeof spec->name)
        return error_set(err, LUNAR_E_INVALID, "a volume name of %zu bytes", strlen(m->name));
    strcpy(spec->name, m->name);
    if (m->n_layers == 0)
        return error_set(err, LUNAR_E_INVALID, "a volume without layers");
    spec->layers = calloc(m->n_layers, sizeof *spec->layers);
    if (!spec->layers)
        abort();
    for (size_t i = 0; i < m->n_layers; i++) {
        int rc = held_take_layer(m->layers[i], &pvs, &spec->layers[i], err);
        spec->n_layers++;
        if (rc < 0)
            return rc;
    }
    return 0;
}

struct held *held_by_attachment(struct node *n, const struct uuid *id)
{
    struct held *h;
    TAILQ_FOREACH (h, &n->held, link)
        if (uuid_equal(&h->attachment_id, id))
            return h;
    return NULL;
}

static bool holds_layer(const struct held *h, const struct stack_layer *layer)
{
    for (uint32_t i = 0; i < h->spec.n_layers; i++)
        if (h->spec.layers[i].volume_short == layer->volume_short &&
            h->spec.layers[i].index == layer->index)
            return true;
    return false;
}

/* What of the volume is here already. A job is on a layer of its own: the next leaf of a volume may
 * be formatted where that is open. */
static struct held *in_the_way(struct node *n, const struct stack_spec *spec, enum table_mode mode)
{
    struct held *h;
    TAILQ_FOREACH (h, &n->held, link) {
        bool beside = mode == TABLE_MODE_JOB && h->mode == TABLE_MODE_ATTACH &&
                      !holds_layer(h, &spec->layers[0]);
        if (uuid_equal(&h->volume_id, &spec->volume_id) && !beside)
            return h;
    }
    return NULL;
}

static bool older_map(const struct held *h, const struct stack_spec *spec)
{
    return h->spec.n_layers > 0 && spec->n_layers > 0 &&
           spec->layers[0].index == h->spec.layers[0].index &&
           spec->layers[0].map_generation < h->spec.layers[0].map_generation;
}

/* What an opening command is about. */
struct opening {
    enum table_mode mode;
    enum node_task_kind job_kind;
    uint64_t speed; /* of a merge */
};

/* What a job formats or zeroes is as long as its layer. */
static bool same_work(const struct stack_spec *a, const struct stack_spec *b)
{
    return a->size == b->size && a->n_layers == b->n_layers &&
           stack_layer_bytes(&a->layers[0]) == stack_layer_bytes(&b->layers[0]);
}

/* The attachment is here already: joined, answered, or told why not. */
static void open_again(struct node *n, struct held *h, uint64_t term, const struct uuid *command_id,
                       const struct stack_spec *spec)
{
    bool opening = h->step == HELD_OPENING_REPORT || h->step == HELD_OPENING_TASK ||
                   h->step == HELD_OPEN_REPORT;
    if (h->step == HELD_STUCK && h->mode == TABLE_MODE_JOB) {
        /* Formatting again is how a half-done format is healed; the same with merges. */
        stack_spec_free(&h->spec);
        stack_spec_copy(&h->spec, spec);
        h->may_stand = true;
        h->job.cancel = false;
        h->command_id = *command_id;
        h->term = term;
        report(n, h, HELD_OPENING_REPORT);
    } else if (h->step == HELD_STUCK) {
        /* Not closed since: nobody may have asked for that. */
        close_held(n, h);
        held_send_result(n, command_id, LUNAR_E_BUSY,
                         "what an earlier attempt left is being taken down here; try again", "");
    } else if (older_map(h, spec))
        held_send_result(n, command_id, LUNAR_E_STALE,
                         "a newer segment map of this layer is known here", "");
    else if (opening && h->mode == TABLE_MODE_JOB && !same_work(&h->spec, spec))
        held_send_result(n, command_id, LUNAR_E_BUSY,
                         "a job on another size of the layer runs here; try again", "");
    else if (opening)
        h->command_id = *command_id;
    else if ((h->step == HELD_OPEN || h->step == HELD_RESTART_TASK) && !h->close_wanted)
        held_send_result(n, command_id, 0, "", h->stack->link);
    else
        held_send_result(n, command_id, LUNAR_E_BUSY, "it is being detached here; try again", "");
}

static void open_command(struct node *n, uint64_t term, const struct uuid *command_id,
                         const struct opening *o, struct stack_spec *spec)
{
    struct held *h = held_by_attachment(n, &spec->attachment_id);

    if (h) {
        open_again(n, h, term, command_id, spec);
        stack_spec_free(spec);
        return;
    }
    if (n->n_held >= TABLE_ENTRIES_MAX) {
        held_send_result(n, command_id, LUNAR_E_FULL,
                         "this node has as many volumes as its report holds", "");
        stack_spec_free(spec);
        return;
    }
    h = in_the_way(n, spec, o->mode);
    if (h || n->leaving) {
        held_send_result(n, command_id, h ? LUNAR_E_BUSY : LUNAR_E_NOT_JOINED,
                         h ? "the volume is open here under another attachment"
                           : "this node is leaving the pool",
                         "");
        stack_spec_free(spec);
        return;
    }
    h = calloc(1, sizeof *h);
    if (!h)
        abort();
    h->mode = o->mode;
    h->job_kind = o->job_kind;
    h->job.speed = o->speed;
    h->volume_id = spec->volume_id;
    h->attachment_id = spec->attachment_id;
    h->command_id = *command_id;
    h->term = term;
    h->spec = *spec;
    TAILQ_INSERT_TAIL(&n->held, h, link);
    n->n_held++;
    report(n, h, HELD_OPENING_REPORT);
}

static void attach_command(struct node *n, uint64_t term, const struct uuid *command_id,
                           const Lunar__Attach *m, const struct opening *o)
{
    struct error err = ERROR_INIT;
    struct stack_spec spec;

    if (take_spec(n, m, &spec, &err) == 0) {
        open_command(n, term, command_id, o, &spec);
        return;
    }
    stack_spec_free(&spec);
    held_send_result(n, command_id, err.code, err.text, "");
}

static void format_command(struct node *n, uint64_t term, const struct uuid *command_id,
                           const Lunar__FormatJob *m)
{
    Lunar__Attach as_attach = LUNAR__ATTACH__INIT;
    Lunar__Layer *layer = m->layer;

    as_attach.volume_id = m->volume_id;
    as_attach.attachment_id = m->attachment_id;
    as_attach.name = m->name;
    as_attach.size = m->size;
    as_attach.thick = m->thick;
    as_attach.n_layers = layer ? 1 : 0;
    as_attach.layers = &layer;
    as_attach.n_pvs = m->n_pvs;
    as_attach.pvs = m->pvs;
    attach_command(n, term, command_id, &as_attach,
                   &(struct opening){TABLE_MODE_JOB, NODE_TASK_FORMAT, 0});
}

/* A thick volume of the size that it has, on a layer that has more. */
static void zero_command(struct node *n, uint64_t term, const struct uuid *command_id,
                         const Lunar__ZeroJob *m)
{
    Lunar__Attach as_attach = LUNAR__ATTACH__INIT;
    Lunar__Layer *layer = m->layer;

    as_attach.volume_id = m->volume_id;
    as_attach.attachment_id = m->attachment_id;
    as_attach.name = m->name;
    as_attach.size = m->from;
    as_attach.thick = true;
    as_attach.n_layers = layer ? 1 : 0;
    as_attach.layers = &layer;
    as_attach.n_pvs = m->n_pvs;
    as_attach.pvs = m->pvs;
    attach_command(n, term, command_id, &as_attach,
                   &(struct opening){TABLE_MODE_JOB, NODE_TASK_ZERO, 0});
}

/* The layers alone matter; size and name are what any spec has. */
static void merge_command(struct node *n, uint64_t term, const struct uuid *command_id,
                          const Lunar__Merge *m)
{
    Lunar__Attach as_attach = LUNAR__ATTACH__INIT;

    as_attach.volume_id = m->volume_id;
    as_attach.attachment_id = m->attachment_id;
    as_attach.name = (char *)(uintptr_t) "(merge)";
    as_attach.size = DM_SECTOR;
    as_attach.n_layers = m->n_layers;
    as_attach.layers = m->layers;
    as_attach.n_pvs = m->n_pvs;
    as_attach.pvs = m->pvs;
    attach_command(n, term, command_id, &as_attach,
                   &(struct opening){TABLE_MODE_JOB, NODE_TASK_MERGE, m->speed});
}

static void measure_command(struct node *n, uint64_t term, const struct uuid *command_id,
                            const Lunar__Measure *m)
{
    Lunar__Attach as_attach = LUNAR__ATTACH__INIT;
    Lunar__Layer *layer = m->layer;

    as_attach.volume_id = m->volume_id;
    as_attach.attachment_id = m->attachment_id;
    as_attach.name = (char *)(uintptr_t) "(measure)";
    as_attach.size = DM_SECTOR;
    as_attach.n_layers = layer ? 1 : 0;
    as_attach.layers = &layer;
    as_attach.n_pvs = m->n_pvs;
    as_attach.pvs = m->pvs;
    attach_command(n, term, command_id, &as_attach,
                   &(struct opening){TABLE_MODE_JOB, NODE_TASK_MEASURE, 0});
}

static void detach_command(struct node *n, const struct uuid *command_id, const Lunar__Detach *m)
{
    struct uuid attachment_id = uuid_from_pb(m->attachment_id);
    struct held *h = held_by_attachment(n, &attachment_id);

    if (!h && n->report_failed) {
        node_tend(n, false);
        held_send_result(n, command_id, LUNAR_E_BUSY,
                         "the report is being written again; try again", "");
    } else if (!h) {
        held_send_result(n, command_id, 0, "", "");
    } else if (is_idle(h) || h->step == HELD_STUCK) {
        /* A stuck job, too: the coordinator detaches what no operation of its own stands behind. */
        h->command_id = *command_id;
        close_held(n, h);
    } else if (h->step == HELD_OPEN || h->step == HELD_RESTART_TASK) {
        h->command_id = *command_id;
        h->close_wanted = true;
    } else if (h->step == HELD_CLOSING_REPORT || h->step == HELD_CLOSING_TASK ||
               h->step == HELD_GONE_REPORT) {
        h->command_id = *command_id;
    } else {
        h->job.cancel = true; /* a merge hears it */
        held_send_result(n, command_id, LUNAR_E_BUSY, "it is being opened here; try again", "");
    }
}

static void refuse_unknown(struct node *n, const struct uuid *command_id)
{
    held_send_result(n, command_id, LUNAR_E_UNSUPPORTED, "this agent does not know the command",
                     "");
}

void held_command(struct node *n, uint64_t term, const Lunar__Command *command)
{
    struct uuid id = uuid_from_pb(command->id);

    switch (command->op_case) {
    case LUNAR__COMMAND__OP_ATTACH:
        attach_command(n, term, &id, command->attach,
                       &(struct opening){TABLE_MODE_ATTACH, NODE_TASK_ATTACH, 0});
        break;
    case LUNAR__COMMAND__OP_DETACH:
        detach_command(n, &id, command->detach);
        break;
    case LUNAR__COMMAND__OP_FORMAT_JOB:
        format_command(n, term, &id, command->format_job);
        break;
    case LUNAR__COMMAND__OP_ZERO_JOB:
        zero_command(n, term, &id, command->zero_job);
        break;
    case LUNAR__COMMAND__OP_MERGE:
        merge_command(n, term, &id, command->merge);
        break;
    case LUNAR__COMMAND__OP_MEASURE:
        measure_command(n, term, &id, command->measure);
        break;
    case LUNAR__COMMAND__OP_OVERLAY:
    case LUNAR__COMMAND__OP_RESIZE:
    case LUNAR__COMMAND__OP_RELINK:
        change_command(n, term, &id, command);
        break;
    case LUNAR__COMMAND__OP_SUSPEND:
        hold_command(n, &id, command->suspend);
        break;
    case LUNAR__COMMAND__OP_RESUME:
        hold_resume_command(n, &id, command->resume);
        break;
    case LUNAR__COMMAND__OP_INSPECT:
        if (n->io->inspect)
            n->io->inspect(n->data, &id);
        else
            refuse_unknown(n, &id);
        break;
    case LUNAR__COMMAND__OP_PROBE_PV:
        if (n->io->probe)
            n->io->probe(n->data, &id, command->probe_pv);
        else
            refuse_unknown(n, &id);
        break;
    default:
        refuse_unknown(n, &id);
    }
}
