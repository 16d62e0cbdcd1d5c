/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When an open volume's leaf needs space: the node's eyes for that (node_space.c), on the loop.
 *
 * Happy path: the threshold is in force in the daemon (qsd_events.h); when it is passed the node is
 * told. Before a growth the next threshold is given, and the growth begins when it is in force, so
 * that nothing is written behind it unseen.
 *
 * Failure modes: a daemon that was not heard, for whatever reason, may have writes that wait in the
 * tail, and then it says nothing any more: none of them ends, none begins. So after each connect,
 * and while it does not answer (one that was killed while its writes wait cannot exit before they
 * end), the kernel is asked: if the leaf's map is without I/O in flight at any of LOOKS_MAX looks,
 * nothing waits. Else the node is told that there may be need. That is wrong for a volume that is
 * very busy at that moment, and costs it a chunk.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "agent/agent_internal.h"
#include "agent/qsd_events.h"
#include "agent/stack_internal.h"

/* What a growth waits for its threshold to be in force: usually a millisecond. */
#define ARM_PATIENCE_MS 1000u
#define LOOK_MS         100u
#define LOOKS_MAX       20u

struct space_watch {
    LIST_ENTRY(space_watch) link;
    struct agent *a;
    struct stack *stack;
    struct qsd_events *events;
    char inflight[128]; /* the file that says what is in flight through the leaf's map */
    bool sure;          /* nothing waits in the tail but what the threshold tells of */
    uint32_t looks;
    uv_timer_t look, arm;
    uint32_t handles;       /* that have not told their end */
    struct node_task *task; /* waits for the threshold to be in force; NULL: none */
    void (*run)(struct agent *a, struct node_task *task);
};

/* ---- is anything in flight? ---- */

static void find_inflight(const struct stack *stack, uint64_t volume_short, uint32_t index,
                          char *ret, size_t size)
{
    struct stack_layer layer = {.volume_short = volume_short, .index = index};
    struct stack_spec spec = {.volume_id = stack->spec.volume_id, .layers = &layer, .n_layers = 1};
    char name[DM_NAME_SIZE], path[DM_NAME_SIZE + 16];
    struct stat st;

    stack_layer_name(&spec, 0, name);
    snprintf(path, sizeof path, "/dev/mapper/%s", name);
    ret[0] = '\0';
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode))
        snprintf(ret, size, "/sys/dev/block/%u:%u/inflight", major(st.st_rdev), minor(st.st_rdev));
}

/* True where it cannot be told. sysfs does not wait for the device. */
static bool in_flight(const struct space_watch *w)
{
    unsigned reads, writes;
    FILE *f = w->inflight[0] ? fopen(w->inflight, "re") : NULL;

    if (!f)
        return true;
    bool read = fscanf(f, "%u %u", &reads, &writes) == 2;
    fclose(f);
    return !read || reads + writes > 0;
}

static void on_look(uv_timer_t *timer)
{
    struct space_watch *w = timer->data;

    if (in_flight(w) && ++w->looks < LOOKS_MAX)
        return;
    uv_timer_stop(timer);
    w->sure = true; /* or the node knows */
    if (w->looks == LOOKS_MAX)
        node_space_needed(w->a->node, w->stack, uv_now(w->a->loop));
}

static void look_into_it(struct space_watch *w)
{
    if (w->sure || uv_is_active((uv_handle_t *)&w->look))
        return;
    w->looks = 0;
    uv_timer_start(&w->look, on_look, LOOK_MS, LOOK_MS);
}

/* ---- the daemon's word ---- */

static void run_task(struct space_watch *w)
{
    struct node_task *task = w->task;

    uv_timer_stop(&w->arm);
    w->task = NULL;
    if (task)
        w->run(w->a, task);
}

static void on_event(void *data, enum qsd_events_what what)
{
    struct space_watch *w = data;

    if (what == QSD_EVENTS_LOST || what == QSD_EVENTS_SILENT)
        w->sure = false;
    run_task(w);
    if (what == QSD_EVENTS_PASSED)
        node_space_needed(w->a->node, w->stack, uv_now(w->a->loop));
    else if (what != QSD_EVENTS_LOST)
        look_into_it(w);
}

static void on_arm_timer(uv_timer_t *timer)
{
    struct space_watch *w = timer->data;

    w->sure = false;
    run_task(w);
}

static struct space_watch *find(struct agent *a, const struct stack *stack)
{
    struct space_watch *w;

    LIST_FOREACH(w, &a->spaces, link)
    if (w->stack == stack)
        break;
    return w;
}

static void arm(struct space_watch *w, uint64_t volume_short, uint32_t index, uint64_t threshold)
{
    char node[QSD_NODE_SIZE];

    qsd_events_arm(w->events, qsd_node_name('p', volume_short, index, node), threshold);
}

void agent_space_run(struct agent *a, struct node_task *task,
                     void (*run)(struct agent *a, struct node_task *task))
{
    struct space_watch *w = find(a, task->stack);

    if (!w || w->task) {
        run(a, task);
        return;
    }
    w->task = task;
    w->run = run;
    arm(w, task->layer->volume_short, task->layer->index, task->threshold);
    if (qsd_events_connected(w->events))
        uv_timer_start(&w->arm, on_arm_timer, ARM_PATIENCE_MS, 0);
    else
        on_arm_timer(&w->arm);
}

/* ---- the beginning and the end ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    struct space_watch *w = handle->data;
    if (--w->handles == 0)
        free(w);
}

static void unwatch(struct space_watch *w)
{
    run_task(w);
    LIST_REMOVE(w, link);
    qsd_events_close(w->events);
    uv_close((uv_handle_t *)&w->look, on_timer_closed);
    uv_close((uv_handle_t *)&w->arm, on_timer_closed);
}

static struct space_watch *watch(struct agent *a, struct stack *stack, uint64_t volume_short,
                                 uint32_t index)
{
    struct space_watch *w = calloc(1, sizeof *w);
    struct stack_qsd_config config;
    char path[STACK_PATH_SIZE];

    if (!w)
        abort();
    w->a = a;
    w->stack = stack;
    find_inflight(stack, volume_short, index, w->inflight, sizeof w->inflight);
    uv_timer_init(a->loop, &w->look);
    uv_timer_init(a->loop, &w->arm);
    w->look.data = w->arm.data = w;
    w->handles = 2;
    stack_qsd_config(a->root, &stack->spec, &config);
    qsd_events_path(&config.config, path, sizeof path);
    w->events = qsd_events_open(a->loop, path, on_event, w);
    LIST_INSERT_HEAD(&a->spaces, w, link);
    return w;
}

void agent_space(struct agent *a, struct stack *stack, uint64_t volume_short, uint32_t index,
                 uint64_t threshold)
{
    struct space_watch *w = find(a, stack);

    if (w)
        unwatch(w); /* another daemon may serve it by now */
    if (threshold)
        arm(watch(a, stack, volume_short, index), volume_short, index, threshold);
}
