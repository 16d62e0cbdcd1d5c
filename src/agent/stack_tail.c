/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tails, and growth: what keeps a thin layer's writer from ever running out (SAFETY 20).
 *
 * The map L of a layer that grows shows max_size bytes. [0,n) lie on the LUN; behind them L leads
 * to a tail T, whose table is `error` and which is suspended: I/O there waits in the kernel,
 * whoever is dead. The table is `error` and not a linear one, because dm sends a flush to every
 * device of a table, and one to a suspended linear device would wait (DATAPATH.md).
 *
 * Happy path of a growth from n to k: a new tail T2 behind k; T gets the table [n,k) on the LUN,
 * then T2, and is resumed: what waited goes on. At once L gets a table of its own for [0,k) and T2:
 * loaded, suspended, resumed. Nothing leads to T any more, and it is removed.
 *
 * Why in this order: L cannot be suspended while something waits behind it, and something may wait
 * there at any time. After T is resumed it may again, in T2: then L's suspend runs into its
 * deadline, its new table is dropped, and L -> T -> T2 stands until the next growth. That is no
 * error: every byte is reached, by one device more.
 *
 * Failure modes: killed between any two steps: the next growth reads the kernel's tables, drops
 * what was loaded and not put in, removes tails that nothing leads to, and goes on from the tail
 * that waits. The LUN hangs: the loading of tables does not wait for it, L's suspend does up to its
 * deadline. The node is fenced: no permit, nothing is loaded. A tail that answers errors: the stack
 * was torn down half-way, and nothing is grown.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/stack_internal.h"
#include "base/helper.h"
#include "base/log.h"
#include "fencing/guard.h"

/* How long new I/O to L may be held up for a growth that is done already: a few milliseconds are
 * usual, this is what a consumer does not take amiss. The permit is held meanwhile; the guard kills
 * an agent that keeps one for a second while it fences. */
#define FLATTEN_DEADLINE_MS 500
/* Growths whose flattening failed in a row before the chain counts as a ring. */
#define CHAIN_MAX 4096u

static void tail_name(const struct stack_spec *spec, const struct stack_layer *layer,
                      uint64_t start, char ret[DM_NAME_SIZE])
{
    snprintf(ret, DM_NAME_SIZE, "lunar-v%016" PRIx64 "-t%" PRIu32 "-%" PRIx64,
             uuid_short(&spec->volume_id), layer->index, start / STACK_ALIGN);
}

static void layer_map_name(const struct stack_spec *spec, const struct stack_layer *layer,
                           char ret[DM_NAME_SIZE])
{
    struct stack_spec one = *spec;
    struct stack_layer copy = *layer;

    one.layers = &copy;
    stack_layer_name(&one, 0, ret);
}

int stack_tail_make(const struct stack_spec *spec, const struct stack_layer *layer, uint64_t start,
                    struct dm_segment *ret, struct error *err)
{
    char name[DM_NAME_SIZE], uuid[DM_UUID_SIZE];
    struct dm_info_short info;

    *ret = (struct dm_segment){.length = layer->max_size - start};
    tail_name(spec, layer, start, name);
    stack_dm_uuid(spec, 'T', name, uuid);
    /* It reaches no LUN: no permit. Nothing leads to it before it is suspended. */
    int rc = dm_create(name, uuid, &(struct dm_segment){.length = ret->length}, 1, false, err);
    if (rc == 0)
        rc = dm_suspend(name, false, err);
    if (rc == 0)
        rc = dm_info(name, &info, err);
    if (rc == 0)
        snprintf(ret->device, sizeof ret->device, "%u:%u", info.major, info.minor);
    return rc;
}

/* ---- what stands ---- */

struct tail {
    char name[DM_NAME_SIZE];
    char device[64]; /* "major:minor" */
    bool suspended;
    uint32_t open_count;
};

/* The tails of one layer that stand, and where its map leads. */
struct chain {
    struct tail *tails;
    uint32_t n;
    uint64_t mapped;         /* bytes in front of `last` that lead to the LUN */
    const struct tail *last; /* that waits; NULL: the map ends with its segments */
    uint32_t hops;           /* tails that it takes to come to `last` */
    bool broken;             /* it ends in a tail that answers errors */
};

static int add_tail(struct chain *chain, const char *name, struct error *err)
{
    struct dm_info_short info;
    int rc = dm_info(name, &info, err);

    if (rc < 0 || !info.exists)
        return rc;
    chain->tails = reallocarray(chain->tails, chain->n + 1, sizeof *chain->tails);
    if (!chain->tails)
        abort();
    struct tail *t = &chain->tails[chain->n++];
    *t = (struct tail){.suspended = info.suspended, .open_count = info.open_count};
    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(t->device, sizeof t->device, "%u:%u", info.major, info.minor);
    return 0;
}

static bool is_tail_of(const struct stack_device *device, const struct stack_spec *spec,
                       const struct stack_layer *layer)
{
    char prefix[DM_NAME_SIZE];

    snprintf(prefix, sizeof prefix, "lunar-v%016" PRIx64 "-t%" PRIu32 "-",
             uuid_short(&spec->volume_id), layer->index);
    return device->kind == 'T' && uuid_equal(&device->attachment, &spec->attachment_id) &&
           strncmp(device->name, prefix, strlen(prefix)) == 0;
}

static int collect_tails(const struct stack_spec *spec, const struct stack_layer *layer,
                         struct chain *chain, struct error *err)
{
    struct stack_device *devices;
    size_t n;
    int rc = stack_scan(&devices, &n, err);

    for (size_t i = 0; rc == 0 && i < n; i++)
        if (is_tail_of(&devices[i], spec, layer))
            rc = add_tail(chain, devices[i].name, err);
    free(devices);
    return rc;
}

static const struct tail *tail_by_device(const struct chain *chain, const char *device)
{
    for (uint32_t i = 0; i < chain->n; i++)
        if (device[0] != '\0' && strcmp(chain->tails[i].device, device) == 0)
            return &chain->tails[i];
    return NULL;
}

/* Follows one table: adds what it maps; *ret_next is the tail that it ends in, if it does. */
static int follow_table(struct chain *chain, const char *name, const struct tail **ret_next,
                        bool *ret_error, struct error *err)
{
    struct dm_segment *table;
    uint32_t n;
    int rc = dm_table(name, &table, &n, err);

    *ret_next = NULL;
    *ret_error = false;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        if (i + 1 == n)
            *ret_next = tail_by_device(chain, table[i].device);
        *ret_error |= table[i].device[0] == '\0';
        if (!*ret_next)
            chain->mapped += *ret_error ? 0 : table[i].length;
    }
    free(table);
    return rc;
}

static int follow(const struct stack_spec *spec, const struct stack_layer *layer,
                  struct chain *chain, struct error *err)
{
    char name[DM_NAME_SIZE];
    const struct tail *next;
    bool is_error;

    layer_map_name(spec, layer, name);
    int rc = follow_table(chain, name, &next, &is_error, err);
    while (rc == 0 && next && !is_error && chain->hops < CHAIN_MAX) {
        const struct tail *t = next;
        chain->hops++;
        rc = follow_table(chain, t->name, &next, &is_error, err);
        if (rc == 0 && is_error && t->suspended)
            chain->last = t;
    }
    chain->broken = (is_error && !chain->last) || chain->hops >= CHAIN_MAX;
    return rc;
}

static int chain_look(const struct stack_spec *spec, const struct stack_layer *layer,
                      struct chain *chain, struct error *err)
{
    *chain = (struct chain){0};
    int rc = collect_tails(spec, layer, chain, err);
    return rc < 0 ? rc : follow(spec, layer, chain, err);
}

int stack_tail_is_sound(const struct stack_spec *spec, uint32_t i, bool *ret_sound,
                        struct error *err)
{
    const struct stack_layer *layer = &spec->layers[i];
    struct chain chain;

    *ret_sound = true;
    if (layer->max_size == 0)
        return 0;
    int rc = chain_look(spec, layer, &chain, err);
    if (rc == LUNAR_E_NOT_FOUND) { /* a map without a table */
        *ret_sound = false;
        rc = 0;
    } else if (rc == 0) {
        *ret_sound = !chain.broken && (chain.last || chain.mapped >= layer->max_size);
    }
    free(chain.tails);
    return rc;
}

/* ---- growth ---- */

struct growth {
    const struct stack_life *life;
    const struct stack_spec *spec;
    const struct stack_layer *layer; /* the new map */
    char map[DM_NAME_SIZE];          /* L */
    struct chain chain;
    struct dm_segment tail; /* that waits behind the new map; length 0: none is left to wait for */
};

/* What a predecessor loaded and did not put in is dropped; what it suspended goes on. A tail is
 * suspended for good. */
static int settle(const struct growth *g, struct error *err)
{
    struct dm_info_short info;
    int rc = dm_info(g->map, &info, err);

    if (rc == 0 && info.exists && info.inactive_table)
        rc = dm_clear(g->map, err);
    if (rc == 0 && info.exists && info.suspended)
        rc = dm_resume(g->map, err);
    for (uint32_t i = 0; rc == 0 && i < g->chain.n; i++)
        rc = dm_clear(g->chain.tails[i].name, err);
    return rc;
}

/* Tails that nothing leads to. */
static int remove_unused(const struct stack_spec *spec, const struct stack_layer *layer,
                         struct error *err)
{
    struct chain chain = {0};
    int rc = collect_tails(spec, layer, &chain, err);

    for (uint32_t i = 0; rc == 0 && i < chain.n; i++)
        if (chain.tails[i].open_count == 0)
            rc = dm_remove(chain.tails[i].name, err);
    free(chain.tails);
    return rc;
}

static int look_again(struct growth *g, struct error *err)
{
    free(g->chain.tails);
    return chain_look(g->spec, g->layer, &g->chain, err);
}

/* Straightens what stands and finds out where the growth begins. */
static int prepare(struct growth *g, struct error *err)
{
    int rc = collect_tails(g->spec, g->layer, &g->chain, err);

    if (rc == 0)
        rc = settle(g, err);
    if (rc == 0)
        rc = remove_unused(g->spec, g->layer, err);
    if (rc == 0)
        rc = look_again(g, err);
    if (rc < 0)
        return rc;
    uint64_t bytes = stack_layer_bytes(g->layer);
    if (g->chain.broken)
        return error_set(err, LUNAR_E_FENCED, "its maps were torn down half-way: detach it");
    if (g->chain.mapped > bytes)
        return error_set(err, LUNAR_E_STALE,
                         "a map of %" PRIu64 " bytes, but %" PRIu64 " are mapped already", bytes,
                         g->chain.mapped);
    if (!g->chain.last && g->chain.mapped < bytes)
        return error_set(err, LUNAR_E_INVALID, "%s has no tail: it does not grow", g->map);
    return 0;
}

/* `new bytes, then g->tail` as a table. */
static int make_table(const struct growth *g, uint64_t from, struct dm_segment **ret, uint32_t *n,
                      struct error *err)
{
    int rc = stack_layer_table(g->spec, g->layer, from, ret, n, err);

    if (rc == 0 && g->tail.length > 0)
        (*ret)[(*n)++] = g->tail;
    return rc;
}

/* What waits goes on. */
static int open_tail(struct growth *g, struct error *err)
{
    struct dm_segment *table;
    uint32_t n;
    uint64_t bytes = stack_layer_bytes(g->layer);
    const char *name = g->chain.last ? g->chain.last->name : NULL;

    if (g->chain.mapped == bytes) { /* a predecessor came as far */
        if (g->chain.last)
            g->tail = (struct dm_segment){.length = g->layer->max_size - bytes};
        if (g->chain.last)
            snprintf(g->tail.device, sizeof g->tail.device, "%s", g->chain.last->device);
        return 0;
    }
    int rc =
        bytes < g->layer->max_size ? stack_tail_make(g->spec, g->layer, bytes, &g->tail, err) : 0;
    if (rc == 0)
        rc = make_table(g, g->chain.mapped, &table, &n, err);
    if (rc < 0)
        return rc;
    rc = dm_load(name, table, n, false, err);
    free(table);
    return rc < 0 ? rc : dm_resume(name, err);
}

/* One table for L again. If I/O already waits behind the new end it stays as it is. */
static int flatten(struct growth *g, struct error *err)
{
    struct dm_segment *table;
    uint32_t n;
    struct error why = ERROR_INIT;

    int rc = make_table(g, 0, &table, &n, err);
    if (rc < 0)
        return rc;
    rc = dm_load(g->map, table, n, false, err);
    free(table);
    if (rc < 0)
        return rc;
    if (dm_suspend_within(g->map, true, FLATTEN_DEADLINE_MS, &why) == 0)
        return dm_resume(g->map, err);
    log_info("stack_not_flattened device=%s hops=%u reason=\"%s\"", g->map, g->chain.hops + 1,
             why.text);
    return dm_clear(g->map, err);
}

/* The permit covers the resumes, too: only they put a table in (SAFETY 11). */
static int grow_permitted(struct growth *g, struct error *err)
{
    int permit;
    int rc = guard_permit_take(g->life->run_dir, g->spec->pool, g->life->host_id,
                               g->life->generation, &permit, err);

    if (rc < 0)
        return rc;
    rc = open_tail(g, err);
    if (rc == 0)
        rc = flatten(g, err);
    guard_permit_give_back(permit);
    return rc;
}

static int grow_maps(const struct stack_life *life, const struct stack_spec *spec,
                     const struct stack_layer *layer, struct error *err)
{
    struct growth g = {.life = life, .spec = spec, .layer = layer};

    layer_map_name(spec, layer, g.map);
    int rc = prepare(&g, err);
    bool flat = g.chain.mapped == stack_layer_bytes(layer) && g.chain.hops <= 1;
    if (rc == 0 && !flat)
        rc = grow_permitted(&g, err);
    if (rc == 0)
        rc = remove_unused(spec, layer, err);
    free(g.chain.tails);
    return rc;
}

/* ---- the end of growth ---- */

int stack_exchange_permitted(const struct stack_life *life, const struct stack_spec *spec,
                             const char *name, const struct dm_segment *table, uint32_t n,
                             struct error *err)
{
    int permit;
    int rc =
        guard_permit_take(life->run_dir, spec->pool, life->host_id, life->generation, &permit, err);

    if (rc < 0)
        return rc;
    rc = dm_load(name, table, n, true, err);
    if (rc == 0) {
        rc = dm_suspend_within(name, true, FLATTEN_DEADLINE_MS, err);
        if (rc == 0)
            rc = dm_resume(name, err);
        else
            dm_clear(name, NULL);
    }
    guard_permit_give_back(permit);
    return rc;
}

int stack_tail_freeze(const struct stack_life *life, const struct stack_spec *spec, uint32_t i,
                      struct error *err)
{
    const struct stack_layer *layer = &spec->layers[i];
    char name[DM_NAME_SIZE];
    struct dm_segment *table;
    struct chain chain;
    uint32_t n;

    layer_map_name(spec, layer, name);
    int rc = chain_look(spec, layer, &chain, err);
    if (rc == 0 && (chain.broken || chain.mapped != stack_layer_bytes(layer)))
        rc = error_set(err, LUNAR_E_BUSY, "%s maps %" PRIu64 " bytes, not %" PRIu64, name,
                       chain.mapped, stack_layer_bytes(layer));
    free(chain.tails);
    if (rc == 0)
        rc = stack_layer_table(spec, layer, 0, &table, &n, err);
    if (rc < 0)
        return rc;
    rc = stack_exchange_permitted(life, spec, name, table, n, err);
    free(table);
    return rc < 0 ? rc : stack_tails_remove_loose(&spec->attachment_id, err);
}

/* An overlay may have left layer i its tail. Another volume's layer may have the leaf's index: the
 * name alone does not tell. */
static int freeze_left(const struct stack_life *life, const struct stack_spec *spec, uint32_t i,
                       struct error *err)
{
    struct chain chain;
    int rc = chain_look(spec, &spec->layers[i], &chain, err);
    bool tail = chain.last;

    free(chain.tails);
    return rc == 0 && tail ? stack_tail_freeze(life, spec, i, err) : rc;
}

/* The file first: it says that the maps need not end in a tail, which is true before and after. */
static int name_frozen(const char *root, struct stack *stack, struct error *err)
{
    pthread_mutex_lock(&stack->lock);
    for (uint32_t i = 1; i < stack->spec.n_layers; i++)
        stack->spec.layers[i].max_size = 0;
    int rc = stack_state_save(root, stack, err);
    pthread_mutex_unlock(&stack->lock);
    return rc;
}

static int freeze_lower(const char *root, const struct stack_life *life, struct stack *stack,
                        struct error *err)
{
    const struct stack_spec *spec = &stack->spec;
    struct stack_device *devices;
    size_t n;
    bool named = false;
    int rc = stack_scan(&devices, &n, err);

    for (uint32_t i = 1; rc == 0 && i < spec->n_layers; i++) {
        bool any = false;
        for (size_t k = 0; k < n; k++)
            any |= is_tail_of(&devices[k], spec, &spec->layers[i]);
        if (any && !named)
            rc = name_frozen(root, stack, err);
        named |= any;
        if (any && rc == 0)
            rc = freeze_left(life, spec, i, err);
    }
    free(devices);
    return rc;
}

void stack_freeze_lower(const char *root, const struct stack_life *life, struct stack *stack)
{
    struct error err = ERROR_INIT;

    if (!qsd_alive(&stack->qsd) && freeze_lower(root, life, stack, &err) < 0)
        log_warn("stack_not_frozen volume=%s reason=\"%s\"", stack->spec.name, err.text);
}

/* ---- of the whole stack ---- */

static struct stack_layer *find_layer(const struct stack_spec *spec,
                                      const struct stack_layer *layer)
{
    for (uint32_t i = 0; i < spec->n_layers; i++)
        if (stack_layer_same(&spec->layers[i], layer))
            return &spec->layers[i];
    return NULL;
}

/* Is byte `used` of the new map's segment where the old one's segment begins? */
static bool continues(const struct stack_segment *segment, uint64_t used,
                      const struct stack_segment *old)
{
    return segment->pv == old->pv && segment->lun_offset + used == old->lun_offset;
}

/* Extents are only added behind the end while the generation is the same. */
int stack_layer_check_longer(const struct stack_layer *old, const struct stack_layer *layer,
                             struct error *err)
{
    uint64_t before = stack_layer_bytes(old);
    uint32_t k = 0;
    uint64_t used = 0; /* of the new map's segment k */

    if (layer->map_generation < old->map_generation || stack_layer_bytes(layer) < before)
        return error_set(err, LUNAR_E_STALE, "a newer or longer map of this layer is known here");
    for (uint32_t i = 0; layer->map_generation == old->map_generation && i < old->n_segments; i++) {
        struct stack_segment want = old->segments[i];
        while (want.length > 0) {
            const struct stack_segment *s = &layer->segments[k];
            uint64_t piece = s->length - used < want.length ? s->length - used : want.length;
            if (!continues(s, used, &want))
                return error_set(err, LUNAR_E_STALE,
                                 "a map of generation %" PRIu32 " that moves what stood there",
                                 layer->map_generation);
            want.lun_offset += piece;
            want.length -= piece;
            used += piece;
            if (used == s->length) {
                k++;
                used = 0;
            }
        }
    }
    return 0;
}

/* A copy to work with while others may change the stack's layers; the layer is the new one. */
static int begin(struct stack *stack, const struct stack_layer *layer, struct stack_spec *ret,
                 struct error *err)
{
    int rc;

    pthread_mutex_lock(&stack->lock);
    const struct stack_layer *old = find_layer(&stack->spec, layer);
    if (!old)
        rc = error_set(err, LUNAR_E_STALE, "layer %" PRIu32 " is not of this attachment",
                       layer->index);
    else if (old->max_size == 0)
        rc = error_set(err, LUNAR_E_INVALID, "layer %" PRIu32 " does not grow", layer->index);
    else
        rc = stack_layer_check_longer(old, layer, err);
    if (rc == 0)
        rc = stack_spec_copy(ret, &stack->spec);
    pthread_mutex_unlock(&stack->lock);
    return rc;
}

static int end(const char *root, struct stack *stack, const struct stack_layer *layer,
               struct error *err)
{
    pthread_mutex_lock(&stack->lock);
    struct stack_layer *old = find_layer(&stack->spec, layer);
    if (old)
        stack_layer_take_map(old, layer);
    int rc = stack_state_save(root, stack, err);
    pthread_mutex_unlock(&stack->lock);
    return rc;
}

static int grow(const char *root, const struct stack_life *life, struct stack *stack,
                const struct stack_layer *layer, struct error *err)
{
    int64_t started = clock_ms();
    struct stack_spec spec = {0};
    uint64_t bytes;

    dm_setup();
    int rc = stack_layer_check(layer, 0, &bytes, err);
    if (rc == 0)
        rc = begin(stack, layer, &spec, err);
    if (rc == 0) {
        struct stack_layer grown = *layer;
        grown.max_size = find_layer(&spec, layer)->max_size; /* what the map shows never changes */
        rc = bytes > grown.max_size
                 ? error_set(err, LUNAR_E_INVALID, "%" PRIu64 " bytes for a map of %" PRIu64, bytes,
                             grown.max_size)
                 : grow_maps(life, &spec, &grown, err);
        stack_spec_free(&spec);
    }
    if (rc == 0)
        rc = end(root, stack, layer, err);
    if (rc < 0)
        error_prefix(err, "grow %s", stack->spec.name);
    else
        log_info("stack_grown volume=%s layer=%" PRIu32 " bytes=%" PRIu64 " ms=%d",
                 stack->spec.name, layer->index, bytes, (int)(clock_ms() - started));
    return rc;
}

int stack_grow(const char *root, const struct stack_life *life, struct stack *stack,
               const struct stack_layer *layer, struct error *err)
{
    pthread_mutex_lock(&stack->maps);
    int rc = grow(root, life, stack, layer, err);
    pthread_mutex_unlock(&stack->maps);
    return rc;
}

/* ---- the end of tails ---- */

/* First those that wait, since another one's I/O may be waiting in them. */
int stack_tails_wipe(const struct stack_device *devices, size_t n, struct error *err)
{
    int rc = 0;

    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; rc == 0 && i < n; i++) {
            struct dm_info_short info;
            if (devices[i].kind != 'T')
                continue;
            rc = dm_info(devices[i].name, &info, err);
            if (rc == 0 && (pass == 1 || info.suspended))
                rc = dm_wipe(devices[i].name, err);
        }
    return rc;
}

/* Removes those that nothing leads to; *ret_left names one of the others, "" if there is none. */
static int remove_loose(const struct uuid *attachment, bool *ret_any, char ret_left[DM_NAME_SIZE],
                        struct error *err)
{
    struct stack_device *devices;
    struct dm_info_short info;
    size_t n;
    int rc = stack_scan(&devices, &n, err);

    *ret_any = false;
    ret_left[0] = '\0';
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if (devices[i].kind != 'T' || !uuid_equal(&devices[i].attachment, attachment))
            continue;
        rc = dm_info(devices[i].name, &info, err);
        if (rc == 0 && info.exists && info.open_count > 0)
            snprintf(ret_left, DM_NAME_SIZE, "%s", devices[i].name);
        else if (rc == 0)
            rc = dm_remove(devices[i].name, err);
        *ret_any |= info.open_count == 0;
    }
    free(devices);
    return rc;
}

/* One may lead to another, so each round removes some. One that is open when nothing is removed any
 * more is looked at by somebody: dm_remove gives that a moment. */
static int remove_all_loose(const struct uuid *attachment, char ret_left[DM_NAME_SIZE],
                            struct error *err)
{
    bool any;
    int rc;

    do
        rc = remove_loose(attachment, &any, ret_left, err);
    while (rc == 0 && any && ret_left[0]);
    return rc;
}

int stack_tails_remove_loose(const struct uuid *attachment, struct error *err)
{
    char left[DM_NAME_SIZE];

    return remove_all_loose(attachment, left, err);
}

int stack_tails_remove(const struct uuid *attachment, struct error *err)
{
    char left[DM_NAME_SIZE];
    int rc = remove_all_loose(attachment, left, err);

    if (rc == 0 && left[0])
        rc = dm_remove(left, err);
    return rc == 0 && left[0] ? stack_tails_remove(attachment, err) : rc;
}
