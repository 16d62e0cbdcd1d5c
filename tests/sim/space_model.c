/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writers that come near the end of a thin leaf: agent/agent_space.c without daemons. Each time a
 * stack is watched it needs space at most twice, at times of chance, whatever it was given.
 */
#include <stdlib.h>

#include "agent/agent_internal.h"
#include "sim/ghost.h"

#define NEEDS_MAX 3u /* below this */
#define NEED_US   (15 * SIM_S)

struct space_watch {
    LIST_ENTRY(space_watch) link;
    struct agent *a;
    struct stack *stack;
    uint32_t needs;
    uv_timer_t timer;
};

static void on_need(uv_timer_t *timer);

static void choose(struct space_watch *w)
{
    if (w->needs-- > 0)
        uv_timer_start(&w->timer, on_need, sim_random(STREAM_WORLD, NEED_US) / SIM_MS, 0);
}

static void on_need(uv_timer_t *timer)
{
    struct space_watch *w = timer->data;

    sim_trace("space needed volume=%016llx",
              (unsigned long long)uuid_short(&w->stack->spec.volume_id));
    choose(w);
    node_space_needed(w->a->node, w->stack, uv_now(w->a->loop));
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void agent_space(struct agent *a, struct stack *stack, uint64_t volume_short, uint32_t index,
                 uint64_t threshold)
{
    struct space_watch *w;

    (void)volume_short;
    (void)index;
    LIST_FOREACH(w, &a->spaces, link)
    if (w->stack == stack)
        break;
    if (w) {
        LIST_REMOVE(w, link);
        uv_close((uv_handle_t *)&w->timer, on_closed);
    }
    if (threshold == 0)
        return;
    w = calloc(1, sizeof *w);
    w->a = a;
    w->stack = stack;
    w->needs = (uint32_t)sim_random(STREAM_WORLD, NEEDS_MAX);
    uv_timer_init(a->loop, &w->timer);
    w->timer.data = w;
    LIST_INSERT_HEAD(&a->spaces, w, link);
    choose(w);
}

void agent_space_run(struct agent *a, struct node_task *task,
                     void (*run)(struct agent *a, struct node_task *task))
{
    run(a, task);
}
