/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers are dropped from a running stack, each of which the layer below it holds as well: the
 * node's step of relinking, after which nothing keeps a merged layer's space.
 *
 * Happy path, [Z, Y, X, W] with Y merged into X, becoming [Z, X, W]: X's map gets the segments that
 * the merge gave it (loaded, suspended, resumed: milliseconds, which only reads of X notice); the
 * state file gets the new chain; the daemon is switched (qsd_relink.c: X is opened anew, Z put upon
 * it, Y and the former X are closed); Y's map, which nobody has open any more, is removed.
 *
 * Why every read gives what was answered, at every moment. X holds all of Y since before the
 * catalogue says so, and a relink is asked for only then: so [Z, Y, X, W] and [Z, X, W] read the
 * same, but for one trap: who opened X before the merge has cached what it was, and must have Y in
 * front of it. The running daemon has until it is switched, and then reads X by a node that was
 * opened after the merge. A daemon that is started opens everything anew: by the file either the
 * former chain or the new one, and both are whole, because X's map was made longer first and Y's is
 * removed last. Nobody writes to any of these but to the leaf, which stays the leaf: one daemon at
 * a time has it open, as ever (a second is started only when the first one's pidfd has ended, and
 * after a drain).
 *
 * Failure modes: killed before the file names the new chain: a longer map of X, which shows what it
 * showed, and the same call does all; killed later: `relinking` stands in the file, the daemon may
 * have Y open still, and the same call goes on where its graph stands; so does an overlay first.
 * The daemon dies: its successor has the new chain, and Y's map is a stray. A write waits for space
 * in the leaf: the switch waits for it, up to its deadline (LUNAR_E_INDETERMINATE), while a growth
 * may run beside; the same call again finds out. X's map cannot be exchanged in time: nothing was
 * changed. A detach or a teardown goes by what stands in the kernel, Y's map included.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/stack_internal.h"
#include "base/helper.h"
#include "base/log.h"

/* Where each layer of the new chain stands in the one that is. */
struct plan {
    uint32_t n;
    uint32_t at[STACK_LAYERS_MAX];
    const struct stack_layer *layers; /* the new chain, as it was asked for */
};

static bool stands_already(const struct plan *plan, const struct stack_spec *have)
{
    return plan->n == have->n_layers;
}

/* Layers above it are dropped: it holds them, too, and has changed for it. */
static bool is_renewed(const struct plan *plan, uint32_t i)
{
    return i > 0 && plan->at[i] > plan->at[i - 1] + 1;
}

/* ---- is it such a chain? ---- */

static int check_layer(const struct plan *plan, uint32_t i, const struct stack_spec *have,
                       struct error *err)
{
    const struct stack_layer *old = &have->layers[plan->at[i]], *layer = &plan->layers[i];
    uint64_t bytes;

    if (layer->map_generation < old->map_generation)
        return error_set(err, LUNAR_E_STALE, "a newer map of layer %" PRIu32 " is known here", i);
    if (!is_renewed(plan, i))
        return 0;
    int rc = stack_layer_check(layer, i, &bytes, err);
    return rc < 0 ? rc : stack_layer_check_longer(old, layer, err);
}

static int make_plan(const struct stack_spec *have, const struct stack_layer *layers, uint32_t n,
                     struct plan *ret, struct error *err)
{
    uint32_t k = 0;

    *ret = (struct plan){.n = n, .layers = layers};
    if (n == 0 || n > have->n_layers)
        return error_set(err, LUNAR_E_STALE, "a chain of %" PRIu32 " layers out of one of %" PRIu32,
                         n, have->n_layers);
    for (uint32_t i = 0; i < n; i++, k++) {
        while (k < have->n_layers && !stack_layer_same(&have->layers[k], &layers[i]))
            k++;
        /* What is dropped must have one below that holds it, and the leaf never is. */
        if (k >= have->n_layers || (i == 0 && k > 0) || (i + 1 == n && k + 1 < have->n_layers))
            return error_set(err, LUNAR_E_STALE, "it is no shorter chain of the one that stands");
        ret->at[i] = k;
        int rc = check_layer(ret, i, have, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- the map of a layer that got longer ---- */

static bool same_table(const struct dm_segment *a, uint32_t n_a, const struct dm_segment *b,
                       uint32_t n_b)
{
    for (uint32_t i = 0; n_a == n_b && i < n_a; i++)
        if (a[i].length != b[i].length || a[i].device_offset != b[i].device_offset ||
            strcmp(a[i].device, b[i].device) != 0)
            return false;
    return n_a == n_b;
}

/* It gets a table of its segments alone. If it was to have a tail, the file first says that it need
 * not, which is true before and after. */
static int forget_tail(const char *root, struct stack *stack, uint32_t at, struct error *err)
{
    pthread_mutex_lock(&stack->lock);
    struct stack_layer *layer = &stack->spec.layers[at];
    uint64_t before = layer->max_size;
    layer->max_size = 0;
    int rc = before ? stack_state_save(root, stack, err) : 0;
    if (rc < 0)
        layer->max_size = before;
    pthread_mutex_unlock(&stack->lock);
    return rc;
}

static int lengthen_one(const struct stack_life *life, const struct stack_spec *spec,
                        const char *name, const struct stack_layer *layer, struct error *err)
{
    struct dm_segment *want, *have;
    struct dm_info_short info;
    uint32_t n, n_have;

    int rc = dm_info(name, &info, err);
    if (rc == 0 && !info.linear)
        return error_set(err, LUNAR_E_FENCED, "its maps were torn down half-way: detach it");
    if (rc == 0 && info.inactive_table) /* a predecessor's */
        rc = dm_clear(name, err);
    if (rc == 0)
        rc = stack_layer_table(spec, layer, 0, &want, &n, err);
    if (rc < 0)
        return rc;
    rc = dm_table(name, &have, &n_have, err);
    if (rc == 0 && (info.suspended || !same_table(want, n, have, n_have)))
        rc = stack_exchange_permitted(life, spec, name, want, n, err);
    free(have);
    free(want);
    return rc;
}

/* The caller holds stack->maps. */
static int lengthen(const char *root, const struct stack_life *life, struct stack *stack,
                    const struct stack_spec *spec, const struct plan *plan, struct error *err)
{
    char name[DM_NAME_SIZE];
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < plan->n; i++) {
        if (!is_renewed(plan, i))
            continue;
        rc = forget_tail(root, stack, plan->at[i], err);
        stack_layer_name(spec, plan->at[i], name);
        if (rc == 0)
            rc = lengthen_one(life, spec, name, &plan->layers[i], err);
    }
    return rc;
}

/* ---- the new chain ---- */

/* What is not renewed keeps its own segments: a growth may be ahead of whoever made the list. */
static void shorten(struct stack_spec *spec, const struct plan *plan)
{
    struct stack_layer *kept = calloc(plan->n, sizeof *kept);

    if (!kept)
        abort();
    for (uint32_t i = 0; i < plan->n; i++) {
        kept[i] = spec->layers[plan->at[i]];
        spec->layers[plan->at[i]].segments = NULL;
        if (!is_renewed(plan, i))
            continue;
        stack_layer_take_map(&kept[i], &plan->layers[i]);
        kept[i].second = !kept[i].second;
    }
    stack_spec_free(spec);
    spec->layers = kept;
    spec->n_layers = plan->n;
}

/* From here on a daemon that is started opens the new chain. */
static int name_chain(const char *root, struct stack *stack, const struct plan *plan,
                      struct error *err)
{
    struct stack_spec before;

    pthread_mutex_lock(&stack->lock);
    stack_spec_copy(&before, &stack->spec);
    shorten(&stack->spec, plan);
    stack->relinking = true;
    int rc = stack_state_save(root, stack, err);
    if (rc < 0) { /* the file is as it was: it is replaced whole */
        struct stack_spec failed = stack->spec;
        stack->spec = before;
        before = failed;
        stack->relinking = false;
    }
    pthread_mutex_unlock(&stack->lock);
    stack_spec_free(&before);
    return rc;
}

/* ---- the switch ---- */

static int switch_daemon(const char *root, const struct stack *stack, struct error *err)
{
    struct stack_qsd_config config;
    struct qsd_layer *layers = calloc(stack->spec.n_layers, sizeof *layers);
    int rc = 0, pause_us;

    if (!layers)
        abort();
    for (uint32_t i = 0; rc == 0 && i < stack->spec.n_layers; i++)
        rc = stack_qsd_layer(&stack->spec, i, &layers[i], err);
    stack_qsd_config(root, &stack->spec, &config);
    config.config.layers = layers;
    config.config.n_layers = stack->spec.n_layers;
    if (rc == 0)
        rc = qsd_relink(&config.config, &pause_us, err);
    free(layers);
    if (rc == 0)
        log_info("stack_switched volume=%s layers=%" PRIu32 " pause_us=%d", stack->spec.name,
                 stack->spec.n_layers, pause_us);
    return rc;
}

int stack_relink_finish(const char *root, struct stack *stack, struct error *err)
{
    if (!stack->relinking)
        return 0;
    if (!qsd_alive(&stack->qsd))
        return error_set(err, LUNAR_E_BUSY,
                         "the storage daemon is down: it is being started again");
    int rc = switch_daemon(root, stack, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&stack->lock);
    stack->relinking = false;
    rc = stack_state_save(root, stack, err);
    stack->relinking = rc < 0;
    pthread_mutex_unlock(&stack->lock);
    return rc;
}

/* ---- all of it ---- */

static int shorten_chain(const char *root, const struct stack_life *life, struct stack *stack,
                         const struct stack_spec *have, const struct plan *plan, struct error *err)
{
    if (stack->switching)
        return error_set(err, LUNAR_E_BUSY, "a new leaf is being put over it");
    pthread_mutex_lock(&stack->maps);
    int rc = lengthen(root, life, stack, have, plan, err);
    pthread_mutex_unlock(&stack->maps);
    if (rc == 0)
        rc = name_chain(root, stack, plan, err);
    return rc < 0 ? rc : stack_relink_finish(root, stack, err);
}

static int remove_strays(struct stack *stack, struct error *err)
{
    struct stack_spec spec;

    pthread_mutex_lock(&stack->lock);
    stack_spec_copy(&spec, &stack->spec);
    pthread_mutex_unlock(&stack->lock);
    pthread_mutex_lock(&stack->maps);
    int rc = stack_remove_strays(&spec, err);
    pthread_mutex_unlock(&stack->maps);
    stack_spec_free(&spec);
    return rc;
}

int stack_relink(const char *root, const struct stack_life *life, struct stack *stack,
                 const struct stack_layer *layers, uint32_t n, struct error *err)
{
    int64_t begin = clock_ms();
    struct stack_spec have;
    struct plan plan;

    dm_setup();
    pthread_mutex_lock(&stack->lock);
    stack_spec_copy(&have, &stack->spec);
    pthread_mutex_unlock(&stack->lock);
    int rc = make_plan(&have, layers, n, &plan, err);
    if (rc == 0)
        rc = stack_relink_finish(root, stack, err); /* of a call before */
    if (rc == 0 && !stands_already(&plan, &have))
        rc = shorten_chain(root, life, stack, &have, &plan, err);
    if (rc == 0)
        rc = remove_strays(stack, err);
    if (rc < 0)
        error_prefix(err, "drop layers of %s", stack->spec.name);
    else
        log_info("stack_relinked volume=%s layers=%" PRIu32 " before=%" PRIu32 " ms=%d",
                 stack->spec.name, n, have.n_layers, (int)(clock_ms() - begin));
    stack_spec_free(&have);
    return rc;
}
