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

/* What blockdev-add and blockdev-reopen take for a layer's two nodes. `below` may be NULL. */
json_t *qsd_graph_device(const struct qsd_layer *layer, bool read_only, bool native);
json_t *qsd_graph_image(const struct qsd_layer *layer, const struct qsd_layer *below,
                        bool read_only);

#endif
