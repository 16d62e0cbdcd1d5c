/* SPDX-License-Identifier: Apache-2.0 */
/* The block graph inside a QSD; see qsd.h for its shape. Private to qsd*.c. */
#ifndef LUNAR_AGENT_QSD_GRAPH_H
#define LUNAR_AGENT_QSD_GRAPH_H

#include "agent/qsd.h"

int qsd_graph_build(struct qmp *qmp, const struct qsd_config *config, struct error *err);
/* The layers alone, linked, and nothing over them. */
int qsd_graph_build_chain(struct qmp *qmp, const struct qsd_config *config, struct error *err);
/* A disk of the same size that answers everything with EIO. */
int qsd_graph_build_failing(struct qmp *qmp, const struct qsd_config *config, struct error *err);

/* The layer's node of that kind, 'p' or 'v', by the pair of names that it has. Returns `ret`. */
char *qsd_layer_node(char kind, const struct qsd_layer *layer, char ret[QSD_NODE_SIZE]);
/* Is the layer at that place of the chain read by Linux AIO? */
bool qsd_graph_is_native(uint32_t i);
/* What blockdev-add and blockdev-reopen take for a layer's two nodes. `below` may be NULL. */
json_t *qsd_graph_device(const struct qsd_layer *layer, bool read_only, bool native);
json_t *qsd_graph_image(const struct qsd_layer *layer, const struct qsd_layer *below,
                        bool read_only);

#endif
