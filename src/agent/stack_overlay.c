/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running stack gets a new leaf: the node's step of a snapshot.
 *
 * Happy path, X being the leaf and Y the new one: Y is mapped, with a tail if it grows; the state
 * file gets the chain [Y, X, ...]; the daemon is switched (qsd_overlay.c: this is the only moment
 * at which the consumer's requests stand still); X's map loses its tail and becomes read-only, as
 * the next attach would make it.
 *
 * Why in this order. A daemon that is started again opens the chain of the state file. Before it
 * names Y nothing was ever written to Y; from then on a daemon may write there, whether it was
 * switched or started anew, and since Y was empty both read the same. So at no point is there a
 * chain on disk that lacks a byte that was answered. The map comes before the file, because a stack
 * whose named maps do not all stand is torn down under its consumer.
 *
 * Failure modes: killed before the file names Y: its map is a stray, which the next agent or the
 * next call removes; killed later: the same call finds out by the daemon what is left to do. Until
 * the daemon has said that it writes to Y, `switching` stands in the file, for it may be X that
 * runs out of space: the switch waits for its writes, and they may wait for growth. A chain that is
 * not one new leaf on what stands is refused before anything is done. X's map cannot be
 * straightened (a growth is under way or was cut short): it stays as it is, which costs a map.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/stack_internal.h"
#include "base/helper.h"
#include "base/log.h"

const struct stack_layer *stack_written_layer(const struct stack *stack)
{
    return &stack->spec.layers[stack->switching && stack->spec.n_layers > 1 ? 1 : 0];
}

/* ---- strays ---- */

static bool is_named(const struct stack_spec *spec, const char *map)
{
    char name[DM_NAME_SIZE];

    for (uint32_t i = 0; i < spec->n_layers; i++) {
        stack_layer_name(spec, i, name);
        if (strcmp(name, map) == 0)
            return true;
    }
    return false;
}

int stack_remove_strays(const struct stack_spec *spec, struct error *err)
{
    struct stack_device *devices;
    size_t n;
    int rc = stack_scan(&devices, &n, err);

    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (devices[i].kind != 'L' || !uuid_equal(&devices[i].attachment, &spec->attachment_id) ||
            is_named(spec, devices[i].name))
            continue;
        rc = dm_remove(devices[i].name, err);
    }
    free(devices);
    /* Also with no stray map: whoever was killed may have come no further than its tail. */
    return rc < 0 ? rc : stack_tails_remove_loose(&spec->attachment_id, err);
}

/* ---- the new chain ---- */

/* Is it one new leaf on what stands, or what stands? It may tell of layers between that do not
 * stand any more: a relink that was cut short has dropped them here, and nobody else knows yet. */
static int compare(const struct stack_spec *have, const struct stack_layer *layers, uint32_t n,
                   bool *ret_stands, struct error *err)
{
    uint32_t fresh = n > 0 && !stack_layer_same(&layers[0], &have->layers[0]) ? 1 : 0;
    uint32_t k = fresh;

    *ret_stands = !fresh;
    if (have->thick || n > STACK_LAYERS_MAX || n < 2 || n < have->n_layers + fresh)
        return error_set(err, LUNAR_E_STALE, "a chain of %" PRIu32 " layers over one of %" PRIu32,
                         n, have->n_layers);
    for (uint32_t i = 0; i < have->n_layers; i++, k++) {
        const struct stack_layer *mine = &have->layers[i];
        while (i > 0 && k < n && !stack_layer_same(mine, &layers[k]))
            k++;
        if (k >= n || !stack_layer_same(mine, &layers[k]) ||
            layers[k].map_generation < mine->map_generation)
            return error_set(err, LUNAR_E_STALE,
                             "layer %" PRIu32 " of what stands is not in the chain", i);
        if (fresh && stack_layer_same(mine, &layers[0]))
            return error_set(err, LUNAR_E_STALE, "the new leaf is in the chain already");
    }
    return k == n ? 0 : error_set(err, LUNAR_E_STALE, "a chain that goes on below what stands");
}

/* Puts the leaf in front. What stands keeps its own segments: a growth may be ahead of whoever made
 * the list. */
static void push_leaf(struct stack_spec *spec, const struct stack_layer *leaf)
{
    spec->layers = reallocarray(spec->layers, spec->n_layers + 1, sizeof *spec->layers);
    if (!spec->layers)
        abort();
    memmove(spec->layers + 1, spec->layers, spec->n_layers * sizeof *spec->layers);
    stack_layer_copy(&spec->layers[0], leaf);
    spec->n_layers++;
}

static void pop_leaf(struct stack_spec *spec)
{
    free(spec->layers[0].segments);
    memmove(spec->layers, spec->layers + 1, --spec->n_layers * sizeof *spec->layers);
}

static int map_leaf(const struct stack_life *life, struct stack *stack,
                    const struct stack_layer *leaf, struct error *err)
{
    struct stack_spec spec;
    char name[DM_NAME_SIZE];

    pthread_mutex_lock(&stack->lock);
    stack_spec_copy(&spec, &stack->spec);
    pthread_mutex_unlock(&stack->lock);
    pthread_mutex_lock(&stack->maps);
    int rc = stack_remove_strays(&spec, err);
    if (rc == 0) {
        push_leaf(&spec, leaf);
        stack_layer_name(&spec, 0, name);
        rc = stack_map_layer(life, &spec, 0, 'L', name, false, err);
    }
    pthread_mutex_unlock(&stack->maps);
    stack_spec_free(&spec);
    return rc;
}

/* From here on a daemon that is started opens the new leaf. */
static int name_leaf(const char *root, struct stack *stack, const struct stack_layer *leaf,
                     struct error *err)
{
    pthread_mutex_lock(&stack->lock);
    push_leaf(&stack->spec, leaf);
    stack->switching = true;
    int rc = stack_state_save(root, stack, err);
    if (rc < 0) { /* the file is as it was: it is replaced whole */
        pop_leaf(&stack->spec);
        stack->switching = false;
    }
    pthread_mutex_unlock(&stack->lock);
    return rc;
}

/* ---- the switch ---- */

/* `fresh`: the file did not name the leaf before this call, so no daemon has heard of it. */
static int switch_daemon(const char *root, struct stack *stack, bool fresh, int *ret_pause_us,
                         struct error *err)
{
    struct stack_qsd_config config;
    struct qsd_layer overlay, below;

    if (!qsd_alive(&stack->qsd))
        return error_set(err, LUNAR_E_BUSY,
                         "the storage daemon is down: it is being started again");
    int rc = stack_qsd_layer(&stack->spec, 0, &overlay, err);
    if (rc == 0)
        rc = stack_qsd_layer(&stack->spec, 1, &below, err);
    if (rc < 0)
        return rc;
    stack_qsd_config(root, &stack->spec, &config);
    return qsd_overlay(&config.config, &overlay, &below, fresh, ret_pause_us, err);
}

static int switched(const char *root, struct stack *stack, struct error *err)
{
    pthread_mutex_lock(&stack->lock);
    bool was = stack->switching;
    stack->switching = false;
    int rc = was ? stack_state_save(root, stack, err) : 0;
    if (rc < 0)
        stack->switching = was;
    pthread_mutex_unlock(&stack->lock);
    return rc;
}

/* ---- the former leaf ---- */

/* The file first: it says that the map need not end in a tail, which is true before and after. */
static int freeze(const char *root, const struct stack_life *life, struct stack *stack,
                  struct error *err)
{
    struct stack_spec spec;

    pthread_mutex_lock(&stack->lock);
    stack->spec.layers[1].max_size = 0;
    int rc = stack_state_save(root, stack, err);
    stack_spec_copy(&spec, &stack->spec);
    pthread_mutex_unlock(&stack->lock);
    if (rc == 0)
        rc = stack_tail_freeze(life, &spec, 1, err);
    stack_spec_free(&spec);
    return rc;
}

static void freeze_former(const char *root, const struct stack_life *life, struct stack *stack)
{
    struct error err = ERROR_INIT;

    if (stack->spec.layers[1].max_size == 0 || pthread_mutex_trylock(&stack->maps) != 0)
        return;
    if (freeze(root, life, stack, &err) < 0)
        log_warn("stack_not_frozen volume=%s reason=\"%s\"", stack->spec.name, err.text);
    pthread_mutex_unlock(&stack->maps);
}

int stack_overlay(const char *root, const struct stack_life *life, struct stack *stack,
                  const struct stack_layer *layers, uint32_t n, struct error *err)
{
    int64_t begin = clock_ms();
    uint64_t bytes;
    bool stands;
    int pause_us;

    dm_setup();
    int rc = n > 0 ? stack_layer_check(&layers[0], 0, &bytes, err)
                   : error_set(err, LUNAR_E_INVALID, "a chain of no layers");
    if (rc == 0) {
        pthread_mutex_lock(&stack->lock);
        rc = compare(&stack->spec, layers, n, &stands, err);
        pthread_mutex_unlock(&stack->lock);
    }
    if (rc == 0)
        rc = stack_relink_finish(root, stack, err); /* a relink was cut short */
    if (rc == 0 && !stands)
        rc = map_leaf(life, stack, &layers[0], err);
    if (rc == 0 && !stands)
        rc = name_leaf(root, stack, &layers[0], err);
    if (rc == 0)
        rc = switch_daemon(root, stack, !stands, &pause_us, err);
    if (rc == 0)
        rc = switched(root, stack, err);
    if (rc < 0) {
        error_prefix(err, "put a new leaf over %s", stack->spec.name);
        return rc;
    }
    freeze_former(root, life, stack);
    log_info("stack_overlaid volume=%s layer=%" PRIu32 " layers=%" PRIu32 " pause_us=%d ms=%d",
             stack->spec.name, layers[0].index, stack->spec.n_layers, pause_us,
             (int)(clock_ms() - begin));
    return 0;
}
