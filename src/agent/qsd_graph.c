/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node graph of one QSD, built over QMP step by step, so that every refusal comes with its
 * words.
 *
 * Happy path: for each layer, leaf first, a host_device and a QCOW2 node without a backing; the
 * leaf's header is checked; one command gives every node its backing; a leaf that is smaller than
 * the volume (it was expanded meanwhile) is grown; throttle node t0; the VDUSE export e0. Failure
 * modes: a layer that does not open, whose QCOW2 header says a larger size, an external data file
 * or damage: an error before anything is exported; the caller kills the daemon.
 *
 * Why the backings come at the end: a node that is opened over a chain renders the names of all of
 * it, which made 201 layers take 2.3 s instead of 1 s; and the leaf is looked at while the daemon
 * has no more nodes than its two, since the same look at the chain of 201 takes 2 s and answers 2.8
 * MB (measured with 10.0.13; 256 layers come up as well, in 80 MB, and are read through).
 */
#include "agent/qsd_graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A command opens devices on the LUN: as long as a path failover may take. */
#define GRAPH_DEADLINE_MS 30000
/* One: the daemon's one thread serves all queues, so more of them bring nothing. It is a constant
 * because a daemon that takes over a VDUSE device must offer what the first one did. */
#define EXPORT_QUEUES 1
/* Layers, from the leaf on, that are read by Linux AIO. Opening one costs about 30 ms, for QEMU
 * tries it out and the kernel lets go of that try slowly; with threads it costs 1 ms, and I/O waits
 * while a chain is opened for a daemon that died. */
#define NATIVE_LAYERS 16u

static int run(struct qmp *qmp, const char *command, json_t *arguments, struct error *err)
{
    if (!arguments)
        return error_set(err, LUNAR_E_INVALID, "%s: arguments are not UTF-8", command);
    return qmp_execute(qmp, command, arguments, NULL, GRAPH_DEADLINE_MS, err);
}

/* The QCOW2 header names no other file: backing strings are never followed, but a layer that has
 * one, or an external data file, was not made by lunar (SAFETY 16). */
static int check_leaf(const json_t *node, uint64_t size, uint64_t *ret_size, struct error *err)
{
    const json_t *image = json_object_get(node, "image");
    const json_t *details = json_object_get(json_object_get(image, "format-specific"), "data");

    *ret_size = (uint64_t)json_integer_value(json_object_get(image, "virtual-size"));
    if (*ret_size == 0 || *ret_size > size)
        return error_set(err, LUNAR_E_METADATA,
                         "the QCOW2 leaf says %" PRIu64 " bytes, the catalogue %" PRIu64
                         ": it is not the volume's leaf",
                         *ret_size, size);
    if (json_object_get(details, "data-file"))
        return error_set(err, LUNAR_E_CORRUPT, "the leaf names an external data file");
    if (json_is_true(json_object_get(details, "corrupt")))
        return error_set(err, LUNAR_E_CORRUPT,
                         "the leaf's QCOW2 header is marked corrupt: run `qemu-img check` on it");
    return 0;
}

static int look_at_leaf(struct qmp *qmp, const struct qsd_config *config, uint64_t *ret_size,
                        struct error *err)
{
    char leaf[QSD_NODE_SIZE];
    json_t *nodes = NULL, *node;
    size_t i;
    int rc = qmp_execute(qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &nodes,
                         GRAPH_DEADLINE_MS, err);

    if (rc < 0)
        return rc;
    qsd_layer_node('v', &config->layers[0], leaf);
    rc = error_set(err, LUNAR_E_QMP, "the daemon does not list the leaf");
    json_array_foreach(nodes, i, node)
    {
        const char *name = json_string_value(json_object_get(node, "node-name"));
        if (name && strcmp(name, leaf) == 0)
            rc = check_leaf(node, config->size, ret_size, err);
    }
    json_decref(nodes);
    return rc;
}

char *qsd_node_name(char kind, uint64_t volume_short, uint32_t index, char ret[QSD_NODE_SIZE])
{
    snprintf(ret, QSD_NODE_SIZE, "%c-%016" PRIx64 ".%" PRIu32, kind, volume_short, index);
    return ret;
}

char *qsd_layer_node(char kind, const struct qsd_layer *layer, char ret[QSD_NODE_SIZE])
{
    /* 'p' and 'v', or the letters behind them */
    return qsd_node_name((char)(kind + layer->second), layer->volume_short, layer->index, ret);
}

bool qsd_graph_is_native(uint32_t i)
{
    return i < NATIVE_LAYERS;
}

/* What QCOW2 frees it keeps for itself: the LUN hears of no discard, nor does it have to be fit for
 * one. */
json_t *qsd_graph_device(const struct qsd_layer *layer, bool read_only, bool native)
{
    char p[QSD_NODE_SIZE];

    qsd_layer_node('p', layer, p);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:{s:b}}", "driver", "host_device",
                     "node-name", p, "filename", layer->path, "aio", native ? "native" : "threads",
                     "discard", "ignore", "read-only", read_only, "cache", "direct", 1);
}

json_t *qsd_graph_image(const struct qsd_layer *layer, const struct qsd_layer *below,
                        bool read_only)
{
    char p[QSD_NODE_SIZE], v[QSD_NODE_SIZE], backing[QSD_NODE_SIZE];

    qsd_layer_node('p', layer, p);
    qsd_layer_node('v', layer, v);
    if (below)
        qsd_layer_node('v', below, backing);
    return json_pack("{s:s, s:s, s:s, s:o, s:s, s:b, s:{s:b}}", "driver", "qcow2", "node-name", v,
                     "file", p, "backing", below ? json_string(backing) : json_null(), "discard",
                     "unmap", "read-only", read_only, "cache", "direct", 1);
}

/* All but one are read-only: whoever else uses them must never see them change (SAFETY 15). */
static int add_layers(struct qmp *qmp, const struct qsd_config *config, uint64_t *ret_size,
                      struct error *err)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < config->n_layers; i++) {
        const struct qsd_layer *layer = &config->layers[i];
        bool read_only = i != config->writable;
        rc = run(qmp, "blockdev-add", qsd_graph_device(layer, read_only, qsd_graph_is_native(i)),
                 err);
        if (rc == 0)
            rc = run(qmp, "blockdev-add", qsd_graph_image(layer, NULL, read_only), err);
        if (rc < 0)
            error_prefix(err, "layer %" PRIu32 " (%s)", i, layer->path);
        if (rc == 0 && i == 0)
            rc = look_at_leaf(qmp, config, ret_size, err);
    }
    return rc;
}

static int link_layers(struct qmp *qmp, const struct qsd_config *config, struct error *err)
{
    json_t *options = json_array();

    for (uint32_t i = 0; i + 1 < config->n_layers; i++)
        json_array_append_new(options, qsd_graph_image(&config->layers[i], &config->layers[i + 1],
                                                       i != config->writable));
    if (json_array_size(options) == 0) {
        json_decref(options);
        return 0;
    }
    return run(qmp, "blockdev-reopen", json_pack("{s:o}", "options", options), err);
}

/* After the backings: what a larger layer below has behind the leaf's end must not show. */
static int grow_leaf(struct qmp *qmp, const char *leaf, uint64_t size, struct error *err)
{
    return run(qmp, "block_resize",
               json_pack("{s:s, s:I}", "node-name", leaf, "size", (json_int_t)size), err);
}

/* Without "unmap" here, too, a discard would end in this node, with success. */
static int add_throttle(struct qmp *qmp, const char *over, struct error *err)
{
    int rc = run(qmp, "object-add",
                 json_pack("{s:s, s:s}", "qom-type", "throttle-group", "id", "tg0"), err);

    if (rc < 0)
        return rc;
    return run(qmp, "blockdev-add",
               json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "throttle", "node-name", "t0",
                         "throttle-group", "tg0", "file", over, "discard", "unmap"),
               err);
}

/* writethrough: a write is answered only when QCOW2's tables that lead to it are on the LUN.
 * Without it a daemon that is killed takes answered writes with it, and the guest's next flush,
 * answered by its successor, would not tell. */
static int add_export(struct qmp *qmp, const char *name, struct error *err)
{
    return run(qmp, "block-export-add",
               json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:i, s:i}", "type", "vduse-blk", "id",
                         "e0", "node-name", "t0", "name", name, "serial", name, "writable", 1,
                         "writethrough", 1, "num-queues", EXPORT_QUEUES, "logical-block-size", 512),
               err);
}

int qsd_graph_build(struct qmp *qmp, const struct qsd_config *config, struct error *err)
{
    char leaf[QSD_NODE_SIZE];
    uint64_t size = 0;

    qsd_layer_node('v', &config->layers[0], leaf);
    int rc = add_layers(qmp, config, &size, err);
    if (rc == 0)
        rc = link_layers(qmp, config, err);
    if (rc == 0 && size < config->size)
        rc = grow_leaf(qmp, leaf, config->size, err);
    if (rc == 0)
        rc = add_throttle(qmp, leaf, err);
    if (rc == 0)
        rc = add_export(qmp, config->name, err);
    return rc;
}

int qsd_graph_build_chain(struct qmp *qmp, const struct qsd_config *config, struct error *err)
{
    uint64_t size;
    int rc = add_layers(qmp, config, &size, err);

    return rc < 0 ? rc : link_layers(qmp, config, err);
}

/* null-co alone would acknowledge writes; blkdebug above it fails every read, write, discard and
 * flush. */
int qsd_graph_build_failing(struct qmp *qmp, const struct qsd_config *config, struct error *err)
{
    int rc = run(qmp, "blockdev-add",
                 json_pack("{s:s, s:s, s:I}", "driver", "null-co", "node-name", "nothing", "size",
                           (json_int_t)config->size),
                 err);

    if (rc == 0)
        rc = run(qmp, "blockdev-add",
                 json_pack("{s:s, s:s, s:s, s:[{s:s, s:i}]}", "driver", "blkdebug", "node-name",
                           "failing", "image", "nothing", "inject-error", "event", "none", "errno",
                           5),
                 err);
    if (rc == 0)
        rc = add_throttle(qmp, "failing", err);
    if (rc == 0)
        rc = add_export(qmp, config->name, err);
    return rc;
}
