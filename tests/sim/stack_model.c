/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nodes map: agent/stack.h on a list of attachments per machine, which survives the agent's
 * process and dies with the machine.
 *
 * A thing is *mapped* from before its first L map to after its last one is gone: in between the
 * node may write to the volume, and the ghost looks for a second writer. Happy path: each step
 * takes a while, and a killed agent leaves it where it was, for the next one's stack_recover.
 * Failure modes (STACK_FAULT): a step fails and all is torn down again; not all can be
 * (INDETERMINATE, it stays mapped); a consumer has it open (IN_USE); a step takes long. A QSD that
 * dies makes its descriptor ready.
 */
#include "agent/stack.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fencing/guard.h"
#include "sim/ghost.h"

struct mapped {
    struct mapped *next;
    const struct machine *machine;
    uint32_t host;
    uint64_t generation;
    uint64_t mapped_us;
    struct stack_spec spec;
    struct consumer *io; /* what goes through the L maps */
    bool job, merges, measures, complete;
    bool error; /* the L maps are error tables */
    bool qsd_alive;
    uint32_t qsd_pid;
    int pidfd;
    uint32_t restarts;
};

/* dm_suspend's, after which it is undone. */
#define DRAIN_LIMIT_US (30 * SIM_S)
#define DRAIN_POLL_US  (10 * SIM_MS)
#define IOCTL_US       (5 * SIM_MS)

static struct mapped *all;
static uint32_t last_pid;

static struct machine *here(void)
{
    return process_current()->machine;
}

static struct mapped *find(const struct machine *m, const struct uuid *attachment)
{
    for (struct mapped *x = all; x; x = x->next)
        if (x->machine == m && uuid_equal(&x->spec.attachment_id, attachment))
            return x;
    return NULL;
}

static void drop(struct mapped *x)
{
    struct mapped **p = &all;
    while (*p != x)
        p = &(*p)->next;
    *p = x->next;
    stack_spec_free(&x->spec);
    free(x);
}

void stack_model_machine_off(const struct machine *m)
{
    for (struct mapped *x = all, *next; x; x = next) {
        next = x->next;
        if (x->machine != m)
            continue;
        consumer_power_cut(x->io);
        drop(x);
    }
}

void stack_model_each(void (*each)(void *data, const struct mapped_view *v), void *data)
{
    for (struct mapped *x = all; x; x = x->next)
        each(data, &(struct mapped_view){.machine = x->machine,
                                         .spec = &x->spec,
                                         .host = x->host,
                                         .generation = x->generation,
                                         .job = x->job,
                                         .merges = x->merges,
                                         .measures = x->measures,
                                         .open = x->complete && !x->error,
                                         .writes = !x->error || !consumer_is_drained(x->io)});
}

/* A consumer writes while somebody serves it. */
static void let_write(struct mapped *x)
{
    consumer_run(x->io, x->complete && (x->spec.thick || x->qsd_alive));
}

static void set_qsd(struct mapped *x, bool alive)
{
    x->qsd_alive = alive;
    let_write(x);
}

static void set_complete(struct mapped *x, bool complete)
{
    x->complete = complete;
    let_write(x);
}

void stack_model_wipe(const struct machine *m)
{
    for (struct mapped *x = all; x; x = x->next) {
        if (x->machine != m || x->error)
            continue;
        x->error = true;
        consumer_error(x->io);
    }
}

bool stack_model_is_drained(const struct machine *m)
{
    for (struct mapped *x = all; x; x = x->next)
        if (x->machine == m && (!x->error || !consumer_is_drained(x->io)))
            return false;
    return true;
}

bool stack_model_is_empty(const struct machine *m)
{
    for (struct mapped *x = all; x; x = x->next)
        if (x->machine == m)
            return false;
    return true;
}

bool stack_model_stick(const struct machine *m, uint64_t until_us)
{
    for (struct mapped *x = all; x; x = x->next) {
        if (x->machine != m || !x->complete || x->error)
            continue;
        sim_trace("%s: writes to volume=%016llx stick", m->name,
                  (unsigned long long)uuid_short(&x->spec.volume_id));
        consumer_stick(x->io, until_us);
        consumer_write(x->io);
        return true;
    }
    return false;
}

bool stack_model_is_stuck(const struct machine *m)
{
    for (struct mapped *x = all; x; x = x->next)
        if (x->machine == m && consumer_is_stuck(x->io))
            return true;
    return false;
}

bool stack_model_qsd_exit(struct machine *m)
{
    for (struct mapped *x = all; x; x = x->next) {
        if (x->machine != m || !x->qsd_alive)
            continue;
        set_qsd(x, false);
        sim_trace("qsd exit %s pid=%u", m->name, x->qsd_pid);
        struct process *agent = machine_process(m, PROCESS_AGENT);
        if (agent && !agent->ending)
            sim_fd_ready(agent, x->pidfd);
        return true;
    }
    return false;
}

/* A step's time, and whether it fails. */
static int step(const char *what, struct error *err)
{
    bool fault = sim_fault(FAULT_STACK_FAULT, 60);
    uint64_t us = 2 * SIM_MS + sim_random(STREAM_WORLD, 20 * SIM_MS);

    if (fault && sim_fault_random(FAULT_STACK_FAULT, 3) == 0) {
        fiber_sleep(sim_fault_random(FAULT_STACK_FAULT, 15 * SIM_S));
        fault = false;
    }
    fiber_sleep(us);
    return fault ? error_set(err, -EIO, "%s: made to fail", what) : 0;
}

/* As dm_create of an L or J map: the permit covers the ioctl, at whose end the table is live. */
static int permitted(const struct stack_life *life, const struct stack_spec *spec, int *ret_permit,
                     struct error *err)
{
    int rc = guard_permit_take(life->run_dir, spec->pool, life->host_id, life->generation,
                               ret_permit, err);
    if (rc < 0)
        return rc;
    chaos_node_maps(here());
    bool slow = sim_fault(FAULT_STACK_FAULT, 100);
    fiber_sleep(slow ? sim_fault_random(FAULT_STACK_FAULT, 3 * SIM_S)
                     : sim_random(STREAM_WORLD, IOCTL_US));
    return 0;
}

/* What goes through the one map that is written: a merge's is its second. */
static void open_consumer(struct mapped *x)
{
    struct stack_spec written = x->spec;

    if (x->measures) {
        x->io = consumer_open_reader(here());
        return;
    }
    written.layers = &x->spec.layers[x->merges ? 1 : 0];
    written.n_layers = x->merges ? 1 : x->spec.n_layers;
    x->io = consumer_open(here(), &written);
    if (x->merges)
        consumer_merges(x->io);
}

static void make_map(const struct stack_spec *spec, enum ghost_use use, struct mapped **ret)
{
    struct mapped *x = calloc(1, sizeof *x);
    x->machine = here();
    x->host = sanlock_host_id(x->machine);
    x->generation = sanlock_generation(x->machine);
    x->mapped_us = sim_now_us();
    x->job = use != GHOST_ATTACH;
    x->merges = use == GHOST_MERGE;
    x->measures = use == GHOST_MEASURE;
    x->pidfd = -1;
    stack_spec_copy(&x->spec, spec);
    guard_model_mapping(x->machine, x->host, x->generation);
    ghost_mapping(x->machine, spec, use);
    open_consumer(x);
    x->next = all;
    all = *ret = x;
    sim_trace("map %s volume=%016llx %s", x->machine->name,
              (unsigned long long)uuid_short(&spec->volume_id),
              use == GHOST_ATTACH   ? "attach"
              : use == GHOST_FORMAT ? "job"
              : use == GHOST_MERGE  ? "merge"
                                    : "measure");
    ghost_mapped();
}

static int map(const struct stack_life *life, const struct stack_spec *spec, enum ghost_use use,
               struct mapped **ret, struct error *err)
{
    int permit;
    int rc = permitted(life, spec, &permit, err);
    if (rc < 0)
        return rc;
    make_map(spec, use, ret);
    guard_permit_give_back(permit);
    return 0;
}

/* Removing a map waits for what is in flight through it, for as long as the path hangs. */
static int unmap(struct mapped *x, struct error *err)
{
    const struct machine *m = x->machine;
    const struct uuid attachment = x->spec.attachment_id;
    uint64_t end = sim_now_us() + DRAIN_LIMIT_US;

    x->complete = false;
    consumer_run(x->io, false);
    while (!consumer_is_drained(x->io)) {
        if (sim_now_us() >= end)
            return error_set(err, LUNAR_E_INDETERMINATE, "what is in flight does not end");
        fiber_sleep(DRAIN_POLL_US);
        x = find(m, &attachment);
        if (!x)
            return 0; /* somebody else was faster */
    }
    sim_trace("unmap %s volume=%016llx", x->machine->name,
              (unsigned long long)uuid_short(&x->spec.volume_id));
    consumer_close(x->io);
    drop(x);
    return 0;
}

static void start_qsd(struct mapped *x)
{
    set_qsd(x, true);
    x->qsd_pid = ++last_pid;
    x->pidfd = sim_fd_new();
}

/* The process's own handle of what is mapped. */
static struct stack *handle(const struct mapped *x)
{
    struct stack *s = calloc(1, sizeof *s);
    stack_spec_copy(&s->spec, &x->spec);
    s->qsd = (struct qsd){.pidfd = -1};
    if (x->qsd_alive)
        s->qsd = (struct qsd){.pid = (pid_t)x->qsd_pid, .start_time = 1, .pidfd = x->pidfd};
    s->qsd_restarts = x->restarts;
    snprintf(s->link, sizeof s->link, "/dev/lunar/sim/%s", x->spec.name);
    return s;
}

void stack_free(struct stack *stack)
{
    if (!stack)
        return;
    stack_spec_free(&stack->spec);
    free(stack);
}

/* What was built is torn down again, or is not. */
static int give_up(struct mapped *x, int rc, struct error *err)
{
    fiber_sleep(5 * SIM_MS);
    if (sim_fault(FAULT_STACK_FAULT, 200))
        return error_set(err, LUNAR_E_INDETERMINATE, "failed, and not all could be torn down");
    int undone = unmap(x, err);
    return undone < 0 ? undone : rc;
}

/* What stands of the volume on this machine. */
static struct mapped *find_volume(const struct stack_spec *spec)
{
    for (struct mapped *x = all; x; x = x->next)
        if (x->machine == here() && uuid_equal(&x->spec.volume_id, &spec->volume_id))
            return x;
    return NULL;
}

int stack_attach(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                 struct stack **ret, struct error *err)
{
    (void)root;
    int rc = stack_spec_check(spec, err);
    if (rc == 0 && find(here(), &spec->attachment_id))
        rc = error_set(err, LUNAR_E_EXISTS, "this attachment stands");
    else if (rc == 0 && find_volume(spec))
        rc = error_set(err, LUNAR_E_IN_USE, "another attachment of this volume stands");
    if (rc == 0)
        chaos_node_opens();
    if (rc == 0)
        rc = step("state", err);
    struct mapped *x;
    if (rc == 0)
        rc = map(life, spec, GHOST_ATTACH, &x, err);
    if (rc < 0)
        return rc;
    rc = step("L maps", err);
    if (rc == 0) {
        if (!spec->thick)
            start_qsd(x);
        rc = step("QSD", err);
    }
    if (rc < 0)
        return give_up(x, rc, err);
    set_complete(x, true);
    chaos_node_opened(here());
    *ret = handle(x);
    return 0;
}

int stack_detach(const char *root, struct stack *stack, struct error *err)
{
    (void)root;
    struct mapped *x = find(here(), &stack->spec.attachment_id);

    if (x && x->complete && sim_fault(FAULT_STACK_FAULT, 60))
        return error_set(err, LUNAR_E_IN_USE, "a consumer has it open");
    int rc = step("H", err);
    if (rc < 0)
        return rc;
    if (x) {
        ghost_detached(x->machine, &x->spec, x->mapped_us);
        set_complete(x, false);
        rc = step("QSD", err);
        if (rc < 0)
            return rc;
        set_qsd(x, false);
        rc = step("L maps", err);
        if (rc == 0)
            rc = unmap(x, err);
        if (rc < 0)
            return rc;
    }
    stack_free(stack);
    return 0;
}

int stack_teardown(const char *root, const struct uuid *pool_id, const struct uuid *attachment,
                   const struct stack *stack, struct error *err)
{
    (void)root;
    (void)pool_id;
    (void)stack;
    struct mapped *x = find(here(), attachment);
    int rc = step("teardown", err);
    return rc == 0 && x ? unmap(x, err) : rc;
}

void stack_freeze_lower(const char *root, const struct stack_life *life, struct stack *stack)
{
    (void)root;
    (void)life;
    (void)stack;
}

int stack_restart_qsd(const char *root, struct stack *stack, struct error *err)
{
    (void)root;
    struct mapped *x = find(here(), &stack->spec.attachment_id);
    if (!x)
        return error_set(err, LUNAR_E_NOT_FOUND, "nothing stands of this attachment");
    if (!x->qsd_alive) {
        int rc = step("restart", err);
        if (rc < 0)
            return rc;
        start_qsd(x);
        x->restarts++;
    }
    stack->qsd = (struct qsd){.pid = (pid_t)x->qsd_pid, .start_time = 1, .pidfd = x->pidfd};
    stack->qsd_restarts = x->restarts;
    return 0;
}

const struct stack_layer *stack_written_layer(const struct stack *stack)
{
    return &stack->spec.layers[0];
}

static void take_segments(struct stack_spec *spec, const struct stack_layer *layer)
{
    for (uint32_t i = 0; i < spec->n_layers; i++) {
        struct stack_layer *mine = &spec->layers[i];
        if (mine->index != layer->index || mine->volume_short != layer->volume_short)
            continue;
        free(mine->segments);
        mine->segments = calloc(layer->n_segments, sizeof *mine->segments);
        memcpy(mine->segments, layer->segments, layer->n_segments * sizeof *mine->segments);
        mine->n_segments = layer->n_segments;
        mine->map_generation = layer->map_generation;
    }
}

/* What stands is the same, one layer more in front. */
static void push_layer(struct stack_spec *spec, const struct stack_layer *leaf)
{
    struct stack_spec longer = {.n_layers = spec->n_layers + 1};

    longer.layers = calloc(longer.n_layers, sizeof *longer.layers);
    longer.layers[0] =
        (struct stack_layer){.volume_short = leaf->volume_short, .index = leaf->index};
    for (uint32_t i = 0; i < spec->n_layers; i++)
        longer.layers[i + 1] = spec->layers[i];
    free(spec->layers);
    spec->layers = longer.layers;
    spec->n_layers = longer.n_layers;
    take_segments(spec, leaf);
}

static bool has_leaf(const struct stack_spec *spec, const struct stack_layer *leaf)
{
    return spec->layers[0].index == leaf->index &&
           spec->layers[0].volume_short == leaf->volume_short;
}

/* As QMP's blockdev-snapshot: what is in flight to the former leaf ends first. */
static int switch_writer(const struct uuid *attachment, const struct stack_layer *leaf,
                         struct error *err)
{
    uint64_t end = sim_now_us() + DRAIN_LIMIT_US;

    for (;;) {
        struct mapped *x = find(here(), attachment);
        if (!x || x->error)
            return error_set(err, LUNAR_E_STALE, "it was torn down meanwhile");
        if (!x->qsd_alive)
            return error_set(err, LUNAR_E_BUSY, "the storage daemon is down");
        if (has_leaf(&x->spec, leaf))
            return 0;
        consumer_run(x->io, false);
        if (consumer_is_drained(x->io)) {
            push_layer(&x->spec, leaf);
            consumer_move(x->io, &x->spec);
            let_write(x);
            ghost_mapped();
            return 0;
        }
        if (sim_now_us() >= end) {
            let_write(x);
            return error_set(err, LUNAR_E_INDETERMINATE, "what is in flight does not end");
        }
        fiber_sleep(DRAIN_POLL_US);
    }
}

int stack_overlay(const char *root, const struct stack_life *life, struct stack *stack,
                  const struct stack_layer *layers, uint32_t n, struct error *err)
{
    const struct uuid attachment = stack->spec.attachment_id;
    int permit;

    (void)root;
    struct mapped *x = find(here(), &attachment);
    if (!x || n < 2 || n > STACK_LAYERS_MAX)
        return error_set(err, LUNAR_E_STALE, "not one new leaf on what stands");
    if (!has_leaf(&x->spec, &layers[0])) {
        if (n != x->spec.n_layers + 1)
            return error_set(err, LUNAR_E_STALE, "not one new leaf on what stands");
        int rc = permitted(life, &stack->spec, &permit, err);
        if (rc < 0)
            return rc;
        guard_permit_give_back(permit); /* the leaf is mapped, and nobody writes it yet */
    }
    int rc = step("blockdev-snapshot", err);
    if (rc == 0)
        rc = switch_writer(&attachment, &layers[0], err);
    if (rc == 0 && !has_leaf(&stack->spec, &layers[0]))
        push_layer(&stack->spec, &layers[0]);
    return rc;
}

/* No world asks for these yet: nothing here writes through a device that could be suspended. */
int stack_hold(const struct stack *stack, bool freeze, int deadline_ms, struct error *err)
{
    (void)stack;
    (void)freeze;
    (void)deadline_ms;
    return step("suspend", err);
}

int stack_unhold(const struct stack *stack, struct error *err)
{
    (void)stack;
    return step("resume", err);
}

/* What is not named any more is dropped; the layer below it has the segments of now. */
static bool shorten(struct stack_spec *spec, const struct stack_layer *layers, uint32_t n)
{
    struct stack_spec shorter = {.layers = calloc(n, sizeof *spec->layers)};
    uint32_t k = 0;

    for (uint32_t i = 0; i < spec->n_layers && shorter.n_layers < n; i++)
        if (spec->layers[i].index == layers[k].index &&
            spec->layers[i].volume_short == layers[k].volume_short) {
            shorter.layers[k++] = spec->layers[i];
            shorter.n_layers++;
        }
    if (k < n) {
        free(shorter.layers);
        return false;
    }
    for (uint32_t i = 0; i < spec->n_layers; i++) {
        bool kept = false;
        for (k = 0; k < n; k++)
            kept = kept || shorter.layers[k].segments == spec->layers[i].segments;
        if (!kept)
            free(spec->layers[i].segments);
    }
    free(spec->layers);
    spec->layers = shorter.layers;
    spec->n_layers = n;
    for (uint32_t i = 1; i < n; i++)
        take_segments(spec, &layers[i]);
    return true;
}

/* Killed before the daemon is switched, it has the dropped layers mapped still. */
int stack_relink(const char *root, const struct stack_life *life, struct stack *stack,
                 const struct stack_layer *layers, uint32_t n, struct error *err)
{
    const struct uuid attachment = stack->spec.attachment_id;
    int permit;

    (void)root;
    int rc = permitted(life, &stack->spec, &permit, err);
    if (rc < 0)
        return rc;
    guard_permit_give_back(permit); /* a map is longer */
    rc = step("blockdev-reopen", err);
    struct mapped *x = find(here(), &attachment);
    if (rc == 0 && (!x || x->error))
        rc = error_set(err, LUNAR_E_STALE, "it was torn down meanwhile");
    if (rc == 0 && !x->qsd_alive)
        rc = error_set(err, LUNAR_E_BUSY, "the storage daemon is down");
    if (rc == 0 && !shorten(&x->spec, layers, n))
        rc = error_set(err, LUNAR_E_STALE, "no shorter chain of what stands");
    if (rc == 0)
        ghost_mapped();
    if (rc == 0 && !shorten(&stack->spec, layers, n))
        rc = error_set(err, LUNAR_E_STALE, "no shorter chain of what stands");
    return rc < 0 ? rc : step("state", err);
}

int stack_resize(const char *root, const struct stack_life *life, struct stack *stack,
                 const struct stack_spec *want, struct error *err)
{
    const struct uuid attachment = stack->spec.attachment_id;

    (void)root;
    (void)life;
    int rc = step("block_resize", err);
    struct mapped *x = find(here(), &attachment);
    if (rc == 0 && want->size < stack->spec.size)
        rc = error_set(err, LUNAR_E_INVALID, "smaller");
    if (rc == 0 && x)
        x->spec.size = want->size;
    if (rc == 0)
        stack->spec.size = want->size;
    return rc;
}

int stack_grow(const char *root, const struct stack_life *life, struct stack *stack,
               const struct stack_layer *layer, struct error *err)
{
    const struct uuid attachment = stack->spec.attachment_id;
    int permit;

    (void)root;
    int rc = step("new tail", err);
    if (rc == 0)
        rc = permitted(life, &stack->spec, &permit, err);
    if (rc < 0)
        return rc;
    ghost_layer_grown(here(), layer);
    struct mapped *x = find(here(), &attachment);
    if (x)
        take_segments(&x->spec, layer);
    take_segments(&stack->spec, layer);
    guard_permit_give_back(permit);
    return step("state", err);
}

/* The first of this machine's that was not looked at yet; the list changes while we sleep. */
static struct mapped *next_unseen(const struct mapped *const *seen, uint32_t n)
{
    for (struct mapped *x = all; x; x = x->next) {
        bool known = x->machine != here();
        for (uint32_t i = 0; i < n; i++)
            known |= seen[i] == x;
        if (!known)
            return x;
    }
    return NULL;
}

static int recover_one(struct mapped *x, bool teardown, struct error *err)
{
    int rc = step("recover", err);
    if (rc < 0)
        return rc;
    if (teardown)
        return unmap(x, err);
    if (!x->spec.thick && !x->qsd_alive && step("restart", NULL) == 0)
        start_qsd(x);
    return 0;
}

int stack_recover(const char *root, const struct uuid *pool_id, bool teardown_all,
                  void (*adopted)(void *data, struct stack *stack), void *data, struct error *err)
{
    const struct mapped *seen[64];
    uint32_t n = 0;
    struct mapped *x;
    int rc = 0;

    (void)root;
    (void)pool_id;
    while ((x = next_unseen(seen, n))) {
        assert(n < 64);
        bool teardown = teardown_all || !x->complete;
        struct error why = ERROR_INIT;
        int one = recover_one(x, teardown, &why);
        if (one < 0 || !teardown)
            seen[n++] = x;
        if (one == 0 && !teardown)
            adopted(data, handle(x));
        if (one < 0 && rc == 0)
            rc = error_set(err, one, "%s", why.text);
    }
    return rc;
}

/* Who has the layer here that is to be formatted: the volume may be open, for it is its next one.
 */
static struct mapped *find_layer(const struct stack_spec *spec)
{
    for (struct mapped *x = all; x; x = x->next)
        for (uint32_t i = 0; x->machine == here() && i < x->spec.n_layers; i++)
            if (x->spec.layers[i].index == spec->layers[0].index &&
                x->spec.layers[i].volume_short == spec->layers[0].volume_short)
                return x;
    return NULL;
}

int stack_format(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                 struct error *err)
{
    (void)root;
    int rc = stack_spec_check(spec, err);
    struct mapped *x = rc == 0 ? find_layer(spec) : NULL;

    if (rc < 0)
        return rc;
    if (x && !x->job)
        return error_set(err, LUNAR_E_IN_USE, "the layer is attached here");
    rc = x ? unmap(x, err) : 0; /* of an earlier job: its map is removed first */
    if (rc == 0)
        rc = map(life, spec, GHOST_FORMAT, &x, err);
    if (rc < 0)
        return rc;
    consumer_write(x->io);
    rc = step("zeroing", err);
    if (rc == 0) {
        consumer_write(x->io);
        rc = step("qemu-img", err);
    }
    if (rc < 0)
        return give_up(x, rc, err);
    ghost_formatted(spec);
    ghost_content_formatted(&spec->layers[0]);
    return unmap(x, err);
}

/* The workload expands nothing yet: no more than a map and a write under the job's grant. */
int stack_zero_behind(const struct stack_life *life, const struct stack_spec *spec,
                      struct error *err)
{
    int rc = stack_spec_check(spec, err);
    struct mapped *x = rc == 0 ? find_layer(spec) : NULL;

    if (rc == 0 && x && !x->job)
        rc = error_set(err, LUNAR_E_IN_USE, "the layer is attached here");
    if (rc == 0 && x)
        rc = unmap(x, err);
    if (rc == 0)
        rc = map(life, spec, GHOST_FORMAT, &x, err);
    if (rc < 0)
        return rc;
    consumer_write(x->io);
    rc = step("zeroing", err);
    return rc < 0 ? give_up(x, rc, err) : unmap(x, err);
}

int stack_merge(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                struct qsd_job *job, struct error *err)
{
    struct mapped *x;

    (void)root;
    int rc = stack_spec_check(spec, err);
    if (rc == 0 && (x = find(here(), &spec->attachment_id)))
        rc = unmap(x, err); /* of an attempt before */
    if (rc == 0)
        rc = map(life, spec, GHOST_MERGE, &x, err);
    if (rc < 0)
        return rc;
    ghost_content_merging(spec);
    consumer_write(x->io);
    rc = step("commit", err);
    if (rc == 0 && job->cancel)
        rc = error_set(err, LUNAR_E_BUSY, "the merge was cancelled");
    if (rc == 0)
        ghost_content_merged(spec);
    return rc < 0 ? give_up(x, rc, err) : unmap(x, err);
}

/* It takes as long as a slow LUN makes it; what is written meanwhile it does not see. */
#define MEASURE_US (4 * SIM_S)

int stack_measure(const struct stack_life *life, const struct stack_spec *spec, uint64_t *ret_end,
                  struct error *err)
{
    struct mapped *x;

    int rc = stack_spec_check(spec, err);
    if (rc == 0 && (x = find(here(), &spec->attachment_id)))
        rc = unmap(x, err); /* of an attempt before */
    if (rc == 0)
        rc = map(life, spec, GHOST_MEASURE, &x, err);
    if (rc < 0)
        return rc;
    *ret_end = ghost_space_end(&spec->layers[0]);
    fiber_sleep(sim_random(STREAM_WORLD, MEASURE_US));
    rc = step("qemu-img check", err);
    return rc < 0 ? give_up(x, rc, err) : unmap(x, err);
}
