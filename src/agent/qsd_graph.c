/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node graph of one QSD, built over QMP from the bottom to the top, so that every refusal comes
 * with its words.
 *
 * Happy path: for each layer, root first, host_device p<i> and QCOW2 v<i> with its backing named
 * explicitly (null for the last); the leaf's header is checked; throttle node t0; the VDUSE export
 * e0. Failure modes: a layer that does not open, whose QCOW2 header says another size, a backing
 * that is not ours, an external data file or damage: an error before anything is exported; the
 * caller kills the daemon.
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

static int run(struct qmp *qmp, const char *command, json_t *arguments, struct error *err)
{
    if (!arguments)
        return error_set(err, LUNAR_E_INVALID, "%s: arguments are not UTF-8", command);
    return qmp_execute(qmp, command, arguments, NULL, GRAPH_DEADLINE_MS, err);
}

/* The QCOW2 header names no other file: backing strings are never followed, but a layer that has
 * one, or an external data file, was not made by lunar (SAFETY 16). */
static int check_leaf(const json_t *node, uint64_t size, struct error *err)
{
    const json_t *image = json_object_get(node, "image");
    const json_t *details = json_object_get(json_object_get(image, "format-specific"), "data");
    uint64_t found = (uint64_t)json_integer_value(json_object_get(image, "virtual-size"));

    if (found != size)
        return error_set(err, LUNAR_E_METADATA,
                         "the QCOW2 leaf says %" PRIu64 " bytes, the catalogue %" PRIu64
                         ": it is not the volume's leaf, or a resize was not finished",
                         found, size);
    if (json_object_get(details, "data-file"))
        return error_set(err, LUNAR_E_CORRUPT, "the leaf names an external data file");
    if (json_is_true(json_object_get(details, "corrupt")))
        return error_set(err, LUNAR_E_CORRUPT,
                         "the leaf's QCOW2 header is marked corrupt: run `qemu-img check` on it");
    return 0;
}

static int find_leaf(struct qmp *qmp, uint64_t size, struct error *err)
{
    json_t *nodes = NULL, *node;
    size_t i;
    int rc = qmp_execute(qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &nodes,
                         GRAPH_DEADLINE_MS, err);

    if (rc < 0)
        return rc;
    rc = error_set(err, LUNAR_E_QMP, "the daemon does not list the leaf");
    json_array_foreach(nodes, i, node)
    {
        const char *name = json_string_value(json_object_get(node, "node-name"));
        if (name && strcmp(name, "v0") == 0)
            rc = check_leaf(node, size, err);
    }
    json_decref(nodes);
    return rc;
}

/* Lower layers are read-only: whoever else uses them must never see them change (SAFETY 15). */
static int add_layer(struct qmp *qmp, const struct qsd_config *config, uint32_t i,
                     struct error *err)
{
    char p[16], v[16], below[16];
    bool read_only = i > 0, last = i + 1 == config->n_layers;

    snprintf(p, sizeof p, "p%" PRIu32, i);
    snprintf(v, sizeof v, "v%" PRIu32, i);
    snprintf(below, sizeof below, "v%" PRIu32, i + 1);
    int rc = run(qmp, "blockdev-add",
                 json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:{s:b}}", "driver", "host_device",
                           "node-name", p, "filename", config->layers[i], "aio", "native",
                           "discard", "unmap", "read-only", read_only, "cache", "direct", 1),
                 err);
    if (rc < 0)
        return rc;
    return run(qmp, "blockdev-add",
               json_pack("{s:s, s:s, s:s, s:o, s:s, s:b, s:{s:b}}", "driver", "qcow2", "node-name",
                         v, "file", p, "backing", last ? json_null() : json_string(below),
                         "discard", "unmap", "read-only", read_only, "cache", "direct", 1),
               err);
}

static int add_throttle(struct qmp *qmp, const char *over, struct error *err)
{
    int rc = run(qmp, "object-add",
                 json_pack("{s:s, s:s}", "qom-type", "throttle-group", "id", "tg0"), err);

    if (rc < 0)
        return rc;
    return run(qmp, "blockdev-add",
               json_pack("{s:s, s:s, s:s, s:s}", "driver", "throttle", "node-name", "t0",
                         "throttle-group", "tg0", "file", over),
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
    int rc = 0;

    for (uint32_t i = config->n_layers; rc == 0 && i-- > 0;) {
        rc = add_layer(qmp, config, i, err);
        if (rc < 0)
            return error_prefix(err, "layer %" PRIu32 " (%s)", i, config->layers[i]), rc;
    }
    if (rc == 0)
        rc = find_leaf(qmp, config->size, err);
    if (rc == 0)
        rc = add_throttle(qmp, "v0", err);
    if (rc == 0)
        rc = add_export(qmp, config->name, err);
    return rc;
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
