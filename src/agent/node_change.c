/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes an open volume while it is in use: a new leaf (Overlay), a new size (Resize), fewer
 * layers (Relink).
 *
 * Happy path: the command's chain is compared with what is held -> the report names all of either,
 * while the volume stays open -> a task outside reads term and grant from the LUN and changes the
 * stack (SAFETY 2, as for an attach) -> the held spec is the new one -> result. It is beside the
 * volume's own step, which stays HELD_OPEN: what else comes meanwhile (its QSD exits, a detach)
 * waits for the task.
 *
 * Failure modes: a chain that is not one new leaf on what is held, or not all of what is held but
 * some between the leaf and the bottom, an older map, a smaller size:
 * refused before anything is reported; the report cannot be written, or the volume is not open any
 * more when it is: the error is the result, and nothing was done; the task fails: the error is the
 * result, the report goes on naming the longer chain, for the stack may have it, and the same
 * command again finds out; the same command while it is under way joins it.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "agent/stack_internal.h"
#include "base/log.h"

static void answer(struct node *n, struct held *h, int code, const char *words)
{
    held_send_result(n, &h->change.command_id, code, words, code == 0 ? h->stack->link : "");
    memset(&h->change.command_id, 0, sizeof h->change.command_id);
}

bool change_runs(const struct held *h)
{
    return h->change.step == CHANGE_TASK;
}

void change_free(struct held *h)
{
    stack_spec_free(&h->change.spec);
}

/* What may be open, for the report: the longer chain, once it was going to be. */
const struct stack_spec *change_reported(const struct held *h)
{
    return h->change.spec.n_layers > h->spec.n_layers ? &h->change.spec : &h->spec;
}

/* ---- what is asked for ---- */

/* `more` layers in front of what is held, which must be there unchanged. */
static bool is_behind(const struct stack_spec *have, const struct stack_spec *want, uint32_t more)
{
    if (want->n_layers != have->n_layers + more)
        return false;
    for (uint32_t i = 0; i < have->n_layers; i++)
        if (!stack_layer_same(&have->layers[i], &want->layers[i + more]) ||
            want->layers[i + more].map_generation < have->layers[i].map_generation)
            return false;
    return true;
}

static bool contains(const struct stack_spec *have, const struct stack_layer *layer)
{
    for (uint32_t i = 0; i < have->n_layers; i++)
        if (stack_layer_same(&have->layers[i], layer))
            return true;
    return false;
}

/* The leaf and the bottom of what is held, and some of what is between them. */
static bool is_within(const struct stack_spec *have, const struct stack_spec *want)
{
    uint32_t k = 0;

    if (!stack_layer_same(&have->layers[0], &want->layers[0]))
        return false;
    for (uint32_t i = 0; i < want->n_layers; i++, k++) {
        while (k < have->n_layers && !stack_layer_same(&have->layers[k], &want->layers[i]))
            k++;
        if (k >= have->n_layers || want->layers[i].map_generation < have->layers[k].map_generation)
            return false;
    }
    return k == have->n_layers;
}

static int check_wanted(const struct held *h, enum node_task_kind kind,
                        const struct stack_spec *want, struct error *err)
{
    bool stands = is_behind(&h->spec, want, 0);

    if (kind == NODE_TASK_RESIZE && want->size < h->spec.size)
        return error_set(err, LUNAR_E_INVALID,
                         "%" PRIu64 " bytes are fewer than the %" PRIu64 " it has", want->size,
                         h->spec.size);
    if (kind == NODE_TASK_OVERLAY && want->thick)
        return error_set(err, LUNAR_E_INVALID, "a thick volume has no layers");
    if (want->n_layers > TABLE_LAYERS_MAX)
        return error_set(err, LUNAR_E_FULL, "a chain of %" PRIu32 " layers", want->n_layers);
    if (kind == NODE_TASK_RELINK && is_within(&h->spec, want))
        return 0;
    if (stands || (kind == NODE_TASK_OVERLAY && is_behind(&h->spec, want, 1) &&
                   !contains(&h->spec, &want->layers[0])))
        return 0;
    return error_set(err, LUNAR_E_STALE, "the chain does not fit the one that is open here");
}

static int take_layers(Lunar__Layer *const *layers, size_t n, const struct named_pvs *pvs,
                       struct stack_spec *spec, struct error *err)
{
    int rc = n > 0 && n <= STACK_LAYERS_MAX
                 ? 0
                 : error_set(err, LUNAR_E_INVALID, "a chain of %zu layers", n);

    stack_spec_free(spec);
    if (rc == 0 && !(spec->layers = calloc(n, sizeof *spec->layers)))
        abort();
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = held_take_layer(layers[i], pvs, &spec->layers[i], err);
        spec->n_layers++;
    }
    return rc;
}

/* Below the leaf that is open the chain stays as it was opened here: of layers that were merged
 * since, a command does not tell any more, and what is below never changes in what it shows. */
static void keep_opened(const struct held *h, struct stack_spec *want)
{
    struct stack_spec mine;
    uint32_t more = 0;

    while (more < want->n_layers && more < 2 &&
           !stack_layer_same(&want->layers[more], &h->spec.layers[0]))
        more++;
    for (uint32_t i = more + 1; i < want->n_layers; i++)
        if (stack_layer_same(&want->layers[i], &h->spec.layers[0]))
            return; /* twice in one chain: nonsense */
    if (more >= want->n_layers || more == 2 ||
        want->layers[more].map_generation < h->spec.layers[0].map_generation)
        return; /* another chain: refused by check_wanted */
    stack_spec_copy(&mine, &h->spec);
    for (uint32_t i = more + 1; i < want->n_layers; i++)
        free(want->layers[i].segments);
    want->n_layers = more + h->spec.n_layers;
    want->layers = reallocarray(want->layers, want->n_layers, sizeof *want->layers);
    if (!want->layers)
        abort();
    for (uint32_t i = 1; i < mine.n_layers; i++)
        want->layers[more + i] = mine.layers[i];
    free(mine.layers[0].segments);
    free(mine.layers);
}

/* What is asked for, as a whole spec; stack_spec_free(ret) whatever comes of it. */
static int take_wanted(const struct held *h, const Lunar__Command *command, struct stack_spec *ret,
                       struct error *err)
{
    int rc;

    stack_spec_copy(ret, &h->spec);
    if (command->op_case == LUNAR__COMMAND__OP_RELINK)
        return take_layers(command->relink->layers, command->relink->n_layers,
                           &(struct named_pvs){command->relink->pvs, command->relink->n_pvs}, ret,
                           err);
    if (command->op_case == LUNAR__COMMAND__OP_OVERLAY) {
        rc = take_layers(command->overlay->layers, command->overlay->n_layers,
                         &(struct named_pvs){command->overlay->pvs, command->overlay->n_pvs}, ret,
                         err);
    } else {
        ret->size = command->resize->size;
        if (ret->size == 0 || ret->size % DM_SECTOR || ret->size > (uint64_t)INT64_MAX)
            return error_set(err, LUNAR_E_INVALID, "a bad size");
        rc = take_layers(command->resize->layers, command->resize->n_layers,
                         &(struct named_pvs){command->resize->pvs, command->resize->n_pvs}, ret,
                         err);
    }
    if (rc == 0)
        keep_opened(h, ret);
    return rc;
}

/* ---- the steps ---- */

static void begin(struct node *n, struct held *h, uint64_t term, enum node_task_kind kind,
                  const struct uuid *command_id, struct stack_spec *want)
{
    struct change *c = &h->change;

    stack_spec_free(&c->spec);
    c->spec = *want;
    c->kind = kind;
    c->term = term;
    c->command_id = *command_id;
    c->step = CHANGE_REPORT;
    c->token = node_write_report(n);
}

/* A thick volume's layer is zeroed behind its size as far as it reaches: one that reaches farther
 * is another change (SAFETY 17). */
static bool same_change(const struct change *c, enum node_task_kind kind,
                        const struct stack_spec *want)
{
    return c->kind == kind && c->spec.size == want->size && is_behind(&c->spec, want, 0) &&
           (!want->thick ||
            stack_layer_bytes(&c->spec.layers[0]) == stack_layer_bytes(&want->layers[0]));
}

/* Is the volume in a state to be changed? */
int held_check_open(const struct node *n, const struct held *h, struct error *err)
{
    if (!h || h->mode != TABLE_MODE_ATTACH)
        return error_set(err, LUNAR_E_NOT_FOUND, "it is not attached here");
    if (h->step != HELD_OPEN || h->close_wanted || n->leaving)
        return error_set(err, LUNAR_E_BUSY,
                         "it is being opened, restarted or detached here; try again");
    return 0;
}

/* Its end is then told as the end of what was begun with that suspension. */
static bool may_join(const struct change *c, const struct uuid *hold)
{
    return uuid_is_zero(hold) || uuid_equal(&c->hold, hold);
}

/* Its consumers must stand still, if the command says so; and a size is not changed while they do,
 * for that would resume them. */
static int check_hold(const struct held *h, const struct uuid *hold, bool overlay,
                      struct error *err)
{
    if (!uuid_is_zero(hold) && !hold_stands(h, hold))
        return error_set(err, LUNAR_E_STALE, "its suspension has ended before");
    if (!overlay && hold_runs(h))
        return error_set(err, LUNAR_E_BUSY, "it is suspended for a snapshot; try again");
    return 0;
}

static enum node_task_kind take_kind(const Lunar__Command *command, struct uuid *ret_attachment)
{
    if (command->op_case == LUNAR__COMMAND__OP_OVERLAY) {
        *ret_attachment = uuid_from_pb(command->overlay->attachment_id);
        return NODE_TASK_OVERLAY;
    }
    if (command->op_case == LUNAR__COMMAND__OP_RELINK) {
        *ret_attachment = uuid_from_pb(command->relink->attachment_id);
        return NODE_TASK_RELINK;
    }
    *ret_attachment = uuid_from_pb(command->resize->attachment_id);
    return NODE_TASK_RESIZE;
}

void change_command(struct node *n, uint64_t term, const struct uuid *command_id,
                    const Lunar__Command *command)
{
    struct uuid attachment_id;
    enum node_task_kind kind = take_kind(command, &attachment_id);
    struct held *h = held_by_attachment(n, &attachment_id);
    struct stack_spec want = {0};
    struct uuid hold = {{0}};
    struct error err = ERROR_INIT;

    bool overlay = kind == NODE_TASK_OVERLAY;
    if (overlay)
        hold = uuid_from_pb(command->overlay->hold);
    int rc = held_check_open(n, h, &err);
    if (rc == 0)
        rc = check_hold(h, &hold, overlay, &err);
    if (rc == 0 && kind == NODE_TASK_RELINK && space_is_awaited(h))
        rc = error_set(&err, LUNAR_E_BUSY, "it is being given space; try again");
    if (rc == 0)
        rc = take_wanted(h, command, &want, &err);
    if (rc == 0 && h->change.step != CHANGE_NONE) {
        if (same_change(&h->change, kind, &want) && may_join(&h->change, &hold))
            h->change.command_id = *command_id;
        else
            rc = error_set(&err, LUNAR_E_BUSY, "another change of it is under way here");
    } else if (rc == 0) {
        rc = check_wanted(h, kind, &want, &err);
        if (rc == 0) {
            begin(n, h, term, kind, command_id, &want);
            h->change.hold = hold;
            return; /* the spec is the change's */
        }
    }
    stack_spec_free(&want);
    if (rc < 0)
        held_send_result(n, command_id, rc, err.text, "");
}

void change_report_done(struct node *n, struct held *h, int rc, const struct error *err)
{
    struct change *c = &h->change;

    assert(c->step == CHANGE_REPORT);
    c->step = CHANGE_NONE;
    c->token = 0;
    if (rc < 0 || h->step != HELD_OPEN) {
        answer(n, h, rc < 0 ? rc : LUNAR_E_BUSY,
               rc < 0 ? err->text : "it is being restarted or detached here; try again");
        return;
    }
    c->step = CHANGE_TASK;
    c->token = n->next_token++;
    c->task = (struct node_task){
        .kind = c->kind, .token = c->token, .term = c->term, .spec = &c->spec, .stack = h->stack};
    n->tasks_out++;
    n->io->run(n->data, &c->task);
}

/* The held spec is the new one; what grew meanwhile the stack knows better. */
static void changed(struct node *n, struct held *h)
{
    stack_spec_free(&h->spec);
    h->spec = h->change.spec;
    h->change.spec = (struct stack_spec){0};
    n->io->watch(n->data, h->stack, true);
}

void change_task_done(struct node *n, struct held *h, int rc, const struct error *err)
{
    struct change *c = &h->change;

    assert(c->step == CHANGE_TASK);
    c->step = CHANGE_NONE;
    c->token = 0;
    if (n->fenced)
        return;
    bool late = !uuid_is_zero(&c->hold) && !hold_stands(h, &c->hold);
    if (rc == LUNAR_E_NOT_FOUND) /* to the coordinator that says: nothing of it stands here */
        rc = LUNAR_E_INDETERMINATE;
    if (rc == 0) {
        bool fewer = h->change.spec.n_layers < h->spec.n_layers;
        changed(n, h);
        if (fewer)
            node_write_report(n); /* nobody waits for it: naming more is no harm */
    }
    space_leaf(n, h);
    if (rc == 0 && late)
        answer(n, h, LUNAR_E_STALE, "its suspension ended before it was done");
    else
        answer(n, h, rc, rc < 0 ? err->text : "");
    if (!uuid_is_zero(&c->hold))
        hold_end(n, h); /* of success and of failure: nothing more is to come */
    held_go_on(n, h);
}
