/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space for the leaf of an open volume: asked for before it ends, taken when it is there.
 *
 * Happy path: writes pass the threshold (node_space_needed) -> LayerGrow to the coordinator, kept
 * until it is answered, sent again to each new one -> the answer is the layer's longer map -> a
 * task gives it to the stack, beside whatever else the volume is doing -> the threshold stands
 * further back. growth.h says when and how much.
 *
 * Failure modes: an answer of a coordinator that has a successor: the task finds that out from the
 * LUN (grant_check.h) and it is asked again; an error for an answer, or an answer that is of
 * another layer, of an older generation or no longer: said in the log and asked again after a pause
 * that grows; a writer that comes to the end meanwhile waits in the kernel, which is no error
 * (SAFETY 20). The pool is full: the answer comes when there is space. The task fails: the same map
 * is tried again after a pause, for the coordinator has given it. The QSD dies: a task of growth
 * ends before its restart begins, a growth whose answer comes meanwhile waits for the restart; the
 * ask stands through both. A detach waits for the task, then all of it is forgotten: the next
 * attach is told the map as it is then. A snapshot gives the volume another leaf: the former one
 * may grow until that is done, and then needs nothing more.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "agent/stack_internal.h"
#include "base/log.h"

/* Between two tries, doubled each time. */
#define RETRY_MIN_MS 1000u
#define RETRY_MAX_MS 30000u
/* For so long the answer is polled for fast; one that takes longer waits for space, and a second
 * more does not matter to it. */
#define HOT_MS 10000u
/* How often a job's progress is told: people look at it. */
#define PROGRESS_EVERY_MS 2000u

static void layer_free(struct stack_layer *layer)
{
    if (layer)
        free(layer->segments);
    free(layer);
}

static void forget_ask(struct held *h)
{
    free(h->space.ask);
    h->space.ask = NULL;
    memset(&h->space.ask_id, 0, sizeof h->space.ask_id);
}

static void retry_later(struct node *n, struct held *h)
{
    uint64_t pause = RETRY_MIN_MS << (h->space.failures < 5 ? h->space.failures : 5);
    h->space.failures++;
    h->space.retry_ms = n->now_ms + (pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS);
}

/* --- asking --- */

static void send_ask(struct node *n, struct held *h)
{
    if (h->space.ask && !h->space.sent && n->io->send(n->data, h->space.ask, h->space.ask_len) == 0)
        h->space.sent = true;
}

static void ask(struct node *n, struct held *h)
{
    struct space *s = &h->space;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__LayerGrow grow = LUNAR__LAYER_GROW__INIT;

    s->wanted = false;
    grow.size = growth_ask(&s->growth, n->now_ms);
    if (grow.size == 0)
        return;
    s->ask_id = uuid_random();
    grow.volume_id = uuid_to_pb(&h->volume_id);
    grow.attachment_id = uuid_to_pb(&h->attachment_id);
    grow.volume_short = s->volume_short;
    grow.index = s->index;
    request.id = uuid_to_pb(&s->ask_id);
    request.op_case = LUNAR__REQUEST__OP_LAYER_GROW;
    request.layer_grow = &grow;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    if (envelope_pack(&e, &s->ask, &s->ask_len, NULL) < 0)
        abort(); /* a hundred bytes */
    s->sent = false;
    s->asked_ms = n->now_ms;
    log_info("space_asked name=\"%s\" layer=%u from=%" PRIu64 " to=%" PRIu64, h->spec.name,
             s->index, s->growth.size, grow.size);
    send_ask(n, h);
    relay_set_waiting(n);
}

bool space_asks(const struct node *n)
{
    const struct held *h;
    if (n->fenced)
        return false;
    TAILQ_FOREACH (h, &n->held, link)
        if (h->space.ask && n->now_ms - h->space.asked_ms < HOT_MS)
            return true;
    return false;
}

/* --- growing --- */

/* Its stack stands, and nothing is done to it that a growth may not be beside. */
static bool may_grow(const struct held *h)
{
    return h->step == HELD_OPEN || h->step == HELD_OPEN_REPORT;
}

static bool may_ask(const struct held *h)
{
    return may_grow(h) || h->step == HELD_RESTART_TASK;
}

static void run_grow(struct node *n, struct held *h)
{
    struct space *s = &h->space;
    struct growth then = s->growth;

    growth_grown(&then, stack_layer_bytes(s->grown), n->now_ms);
    s->token = n->next_token++;
    s->task = (struct node_task){.kind = NODE_TASK_GROW,
                                 .token = s->token,
                                 .term = s->term,
                                 .spec = &h->spec,
                                 .stack = h->stack,
                                 .layer = s->grown,
                                 .threshold = growth_threshold(&then)};
    n->tasks_out++;
    n->io->run(n->data, &s->task);
}

void space_advance(struct node *n, struct held *h)
{
    struct space *s = &h->space;

    if (n->fenced || !h->stack || s->token)
        return;
    if (s->ask)
        send_ask(n, h);
    else if (s->retry_ms > n->now_ms)
        return;
    else if (s->grown && may_grow(h))
        run_grow(n, h);
    else if (!s->grown && s->wanted && may_ask(h))
        ask(n, h);
}

/* The map of a held volume's report and of its next commands. */
static void take_map(struct held *h, struct stack_layer *grown)
{
    for (uint32_t i = 0; i < h->spec.n_layers; i++) {
        struct stack_layer *layer = &h->spec.layers[i];
        if (layer->volume_short != grown->volume_short || layer->index != grown->index)
            continue;
        free(layer->segments);
        layer->segments = grown->segments;
        layer->n_segments = grown->n_segments;
        layer->map_generation = grown->map_generation;
        grown->segments = NULL;
    }
}

static void grown(struct node *n, struct held *h)
{
    struct space *s = &h->space;
    uint64_t bytes = stack_layer_bytes(s->grown);

    log_info("space_grown name=\"%s\" layer=%u from=%" PRIu64 " to=%" PRIu64 " threshold=%" PRIu64,
             h->spec.name, s->index, s->growth.size, bytes, s->task.threshold);
    growth_grown(&s->growth, bytes, n->now_ms);
    take_map(h, s->grown);
    layer_free(s->grown);
    s->grown = NULL;
    s->failures = 0;
}

bool space_task_done(struct node *n, struct node_task *task, int rc)
{
    struct held *h;

    TAILQ_FOREACH (h, &n->held, link)
        if (h->space.token == task->token)
            break;
    if (!h)
        return false;
    h->space.token = 0;
    if (rc == 0) {
        grown(n, h);
    } else if (rc == LUNAR_E_STALE) { /* the next ask begins with the map as it is */
        layer_free(h->space.grown);
        h->space.grown = NULL;
        h->space.growth.asked = 0;
        h->space.wanted = true;
    }
    if (rc < 0)
        retry_later(n, h);
    if (n->fenced)
        return true;
    if (h->space.leaf_changed)
        space_leaf(n, h);
    held_go_on(n, h);
    return true;
}

bool space_is_awaited(const struct held *h)
{
    const struct space *s = &h->space;
    return s->ask || s->grown || s->token;
}

/* --- answers --- */

/* Why it cannot be the answer; NULL: it is. */
static const char *check_answer(const struct held *h, const struct stack_layer *layer)
{
    const struct space *s = &h->space;

    if (layer->volume_short != s->volume_short || layer->index != s->index)
        return "it is of another layer";
    if (layer->max_size != s->growth.max)
        return "its map has another size";
    if (layer->map_generation < s->map_generation)
        return "it is older than the map that stands";
    if (stack_layer_bytes(layer) <= s->growth.size)
        return "it is no longer than the map that stands";
    return NULL;
}

static void take_answer(struct node *n, struct held *h, const Lunar__Response *response)
{
    struct error err = ERROR_INIT;
    struct stack_layer *layer = calloc(1, sizeof *layer);
    const Lunar__GrownLayer *m =
        response->op_case == LUNAR__RESPONSE__OP_GROWN_LAYER ? response->grown_layer : NULL;
    const struct named_pvs pvs = {m ? m->pvs : NULL, m ? m->n_pvs : 0};
    const char *why = NULL;
    uint64_t bytes;

    if (!layer)
        abort();
    if (response->error && response->error->code < 0)
        why = response->error->text;
    else if (!m || !m->layer)
        why = "it has no layer";
    else if (held_take_layer(m->layer, &pvs, layer, &err) < 0 ||
             stack_layer_check(layer, 0, &bytes, &err) < 0)
        why = err.text;
    else
        why = check_answer(h, layer);
    forget_ask(h);
    if (!why) {
        h->space.grown = layer;
        h->space.term = response->term;
        return;
    }
    log_warn("space_refused name=\"%s\" layer=%u code=%s text=\"%s\"", h->spec.name, h->space.index,
             error_name(response->error ? response->error->code : 0), why);
    layer_free(layer);
    h->space.growth.asked = 0;
    h->space.wanted = true;
    retry_later(n, h);
}

bool space_answer(struct node *n, const struct uuid *id, const Lunar__Response *response)
{
    struct held *h;

    TAILQ_FOREACH (h, &n->held, link)
        if (h->space.ask && uuid_equal(&h->space.ask_id, id))
            break;
    if (!h)
        return false;
    take_answer(n, h, response);
    space_advance(n, h);
    relay_set_waiting(n);
    return true;
}

/* --- the beginning and the end --- */

/* The layer that is written, as the stack knows it; nothing else is done to it now. */
static const struct stack_layer *written(const struct held *h)
{
    return h->stack->spec.n_layers > 0 ? stack_written_layer(h->stack) : &h->spec.layers[0];
}

void space_begin(struct node *n, struct held *h)
{
    const struct stack_spec *spec = &h->spec;
    const struct stack_layer *leaf = written(h);
    struct space *s = &h->space;

    assert(!s->token);
    memset(s, 0, sizeof *s);
    s->volume_short = leaf->volume_short;
    s->index = leaf->index;
    s->map_generation = leaf->map_generation;
    growth_begin(&s->growth, stack_layer_bytes(leaf), spec->thick ? 0 : leaf->max_size, spec->size,
                 n->now_ms);
}

void space_end(struct held *h)
{
    struct space *s = &h->space;

    assert(!s->token);
    forget_ask(h);
    layer_free(s->grown);
    memset(s, 0, sizeof *s);
}

void space_leaf(struct node *n, struct held *h)
{
    struct space *s = &h->space;

    s->leaf_changed = s->token != 0;
    if (s->token || change_runs(h))
        return; /* when it has ended */
    const struct stack_layer *leaf = written(h);
    if (s->volume_short == leaf->volume_short && s->index == leaf->index) {
        growth_resized(&s->growth, h->spec.size);
        return;
    }
    space_end(h);
    space_begin(n, h);
    if (n->io->space)
        n->io->space(n->data, h->stack, s->volume_short, s->index, growth_threshold(&s->growth));
}

void node_space_needed(struct node *node, const struct stack *stack, uint64_t now_ms)
{
    struct held *h;

    node->now_ms = now_ms;
    TAILQ_FOREACH (h, &node->held, link)
        if (h->stack == stack)
            break;
    if (!h || h->space.growth.max == 0 || node->fenced)
        return;
    if (h->space.ask || (h->space.grown && h->space.token == 0))
        return; /* it is on its way; its threshold was not given yet */
    h->space.wanted = true;
    space_advance(node, h);
}

void node_tick(struct node *node, uint64_t now_ms)
{
    struct held *h;

    node->now_ms = now_ms;
    if (node->fenced)
        return;
    TAILQ_FOREACH (h, &node->held, link) {
        hold_tick(node, h);
        space_advance(node, h);
        if (now_ms - h->told_ms >= PROGRESS_EVERY_MS) {
            h->told_ms = now_ms;
            held_send_progress(node, h);
        }
    }
    relay_set_waiting(node);
}

void space_send(struct node *n, bool again)
{
    struct held *h;

    TAILQ_FOREACH (h, &n->held, link) {
        if (again)
            h->space.sent = false;
        send_ask(n, h);
    }
}
