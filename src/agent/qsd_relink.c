/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers are dropped from a daemon that serves its disk.
 *
 * Happy path, [Z, Y, X, W] with Y merged into X: the daemon's statistics list its nodes. X was
 * changed by somebody else while it was open, so what its node has cached of it is the past, and
 * true only below Y. So X is opened once more, by the other pair of names, upon W's node; one
 * blockdev-reopen puts Z upon it (the only moment at which requests stand still); then the nodes of
 * Y and X's former ones are closed. That last step is the proof: QEMU refuses it while anybody
 * reads them.
 *
 * Why no read is wrong: until the reopen all go through Y and X's former node, as ever; behind it
 * they go to X's new node, whose metadata was read after all of Y was in X and flushed. No request
 * is under way in between, and Z's own clusters are in front of either. The leaf, if it is Z, stays
 * the same open file with the same options. If X is written again meanwhile, by a merge of Z, then
 * only where Z has clusters (qsd_merge.c), and of these X's new node is never asked.
 *
 * Failure modes: cut short anywhere, the same again goes on: what is to stand is told by the names,
 * to put Z upon the node that it stands on changes nothing, and X's former node is closed only when
 * Y's are. The disk is on another leaf: LUNAR_E_STALE, nothing is changed. No answer in time, as
 * while a write waits for space in the leaf's tail: LUNAR_E_INDETERMINATE.
 * query-named-block-nodes is not asked: see qsd_graph.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/qsd_graph.h"

#define OPEN_DEADLINE_MS   5000
#define CHANGE_DEADLINE_MS 30000

struct node {
    char name[QSD_NODE_SIZE];
    bool wanted, gone;
};

struct relinking {
    const struct qsd_config *config;
    struct node *nodes; /* of layers, as they stood at first */
    size_t n;
    char leaf[QSD_NODE_SIZE]; /* that the disk is on */
    bool *renewed;            /* layers that are opened anew by this relink */
};

static int run(struct qmp *qmp, const char *command, json_t *arguments, struct error *err)
{
    if (!arguments)
        return error_set(err, LUNAR_E_INVALID, "%s: arguments are not UTF-8", command);
    return qmp_execute(qmp, command, arguments, NULL, CHANGE_DEADLINE_MS, err);
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* ---- what stands ---- */

static bool is_layers(const char *name)
{
    return strchr("pqvw", name[0]) && name[1] == '-';
}

static void look_at_node(struct relinking *r, const json_t *json)
{
    const char *name = json_string_value(json_object_get(json, "node-name"));
    const char *child =
        json_string_value(json_object_get(json_object_get(json, "parent"), "node-name"));

    if (name && strcmp(name, "t0") == 0 && child)
        snprintf(r->leaf, sizeof r->leaf, "%s", child);
    if (name && name[0] && is_layers(name) && strlen(name) < QSD_NODE_SIZE)
        snprintf(r->nodes[r->n++].name, QSD_NODE_SIZE, "%s", name);
}

/* Images before the devices that they keep open. */
static int images_first(const void *a, const void *b)
{
    return strcmp(((const struct node *)b)->name, ((const struct node *)a)->name);
}

static int look(struct qmp *qmp, struct relinking *r, struct error *err)
{
    json_t *nodes = NULL, *node;
    size_t i;
    int rc = qmp_execute(qmp, "query-blockstats", json_pack("{s:b}", "query-nodes", 1), &nodes,
                         CHANGE_DEADLINE_MS, err);

    if (rc < 0)
        return rc;
    r->nodes = calloc(json_array_size(nodes) + 1, sizeof *r->nodes);
    if (!r->nodes)
        abort();
    json_array_foreach(nodes, i, node) look_at_node(r, node);
    json_decref(nodes);
    qsort(r->nodes, r->n, sizeof *r->nodes, images_first);
    return 0;
}

static struct node *find(const struct relinking *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->nodes[i].name, name) == 0)
            return &r->nodes[i];
    return NULL;
}

/* True if the layer's node of that kind stands; it is wanted, then. */
static bool stands(const struct relinking *r, char kind, const struct qsd_layer *layer)
{
    char name[QSD_NODE_SIZE];
    struct node *node = find(r, qsd_layer_node(kind, layer, name));

    if (node)
        node->wanted = true;
    return node != NULL;
}

static bool other_pair_stands(const struct relinking *r, const struct qsd_layer *layer)
{
    struct qsd_layer other = *layer;
    char name[QSD_NODE_SIZE];

    other.second = !layer->second;
    return find(r, qsd_layer_node('v', &other, name)) != NULL;
}

/* ---- the steps ---- */

static int open_layer(struct qmp *qmp, const struct relinking *r, uint32_t i, struct error *err)
{
    const struct qsd_layer *layer = &r->config->layers[i];
    const struct qsd_layer *below = i + 1 < r->config->n_layers ? layer + 1 : NULL;
    int rc = 0;

    if (!stands(r, 'p', layer))
        rc = run(qmp, "blockdev-add", qsd_graph_device(layer, true, qsd_graph_is_native(i)), err);
    return rc < 0 ? rc : run(qmp, "blockdev-add", qsd_graph_image(layer, below, true), err);
}

/* From the bottom, so that what one of them is to stand upon is there. */
static int open_layers(struct qmp *qmp, const struct relinking *r, struct error *err)
{
    int rc = 0;

    for (uint32_t i = r->config->n_layers; rc == 0 && i-- > 1;) {
        const struct qsd_layer *layer = &r->config->layers[i];
        bool there = stands(r, 'v', layer);
        r->renewed[i] = !there || other_pair_stands(r, layer);
        if (there)
            stands(r, 'p', layer);
        else
            rc = open_layer(qmp, r, i, err);
    }
    return rc;
}

/* Options are what the nodes have had from the beginning: whatever is not named falls back to its
 * default. */
static int put_upon(struct qmp *qmp, const struct relinking *r, int *ret_pause_us,
                    struct error *err)
{
    json_t *options = json_array();

    for (uint32_t i = 1; i < r->config->n_layers; i++)
        if (r->renewed[i] && !r->renewed[i - 1]) /* else it was opened upon it */
            json_array_append_new(
                options, qsd_graph_image(&r->config->layers[i - 1], &r->config->layers[i], i > 1));
    if (json_array_size(options) == 0) {
        json_decref(options);
        return 0;
    }
    int64_t begin = now_us();
    int rc = run(qmp, "blockdev-reopen", json_pack("{s:o}", "options", options), err);
    *ret_pause_us = (int)(now_us() - begin);
    return rc;
}

/* What stands upon another node is closed before that one: QEMU says which can be. */
static int close_others(struct qmp *qmp, const struct relinking *r, struct error *err)
{
    struct error refused = ERROR_INIT;
    bool any, left;

    do {
        any = left = false;
        for (size_t i = 0; i < r->n; i++) {
            struct node *node = &r->nodes[i];
            if (node->wanted || node->gone)
                continue;
            int rc =
                run(qmp, "blockdev-del", json_pack("{s:s}", "node-name", node->name), &refused);
            if (rc < 0 && rc != LUNAR_E_QMP)
                return error_set(err, rc, "%s", refused.text);
            node->gone = rc == 0;
            any |= rc == 0;
            left |= rc < 0;
        }
    } while (any && left);
    return left ? error_set(err, LUNAR_E_QMP, "a dropped layer is still read: %s", refused.text)
                : 0;
}

static int relink(struct qmp *qmp, struct relinking *r, int *ret_pause_us, struct error *err)
{
    const struct qsd_layer *leaf = &r->config->layers[0];
    char name[QSD_NODE_SIZE];
    int rc = look(qmp, r, err);

    if (rc < 0)
        return rc;
    if (strcmp(r->leaf, qsd_layer_node('v', leaf, name)) != 0)
        return error_set(err, LUNAR_E_STALE, "the disk is on %s, not on %s",
                         r->leaf[0] ? r->leaf : "nothing", name);
    stands(r, 'v', leaf);
    stands(r, 'p', leaf);
    rc = open_layers(qmp, r, err);
    if (rc == 0)
        rc = put_upon(qmp, r, ret_pause_us, err);
    return rc < 0 ? rc : close_others(qmp, r, err);
}

int qsd_relink(const struct qsd_config *config, int *ret_pause_us, struct error *err)
{
    struct relinking r = {.config = config};
    char path[512];
    struct qmp *qmp;

    *ret_pause_us = 0;
    qsd_socket_path(config, path, sizeof path);
    int rc = qmp_open(path, OPEN_DEADLINE_MS, &qmp, err);
    if (rc < 0)
        return rc;
    r.renewed = calloc(config->n_layers, sizeof *r.renewed);
    if (!r.renewed)
        abort();
    rc = relink(qmp, &r, ret_pause_us, err);
    qmp_close(qmp);
    free(r.renewed);
    free(r.nodes);
    return rc;
}
