/* SPDX-License-Identifier: Apache-2.0 */
/* What a node of leader_world.h has mapped of an attachment, as a table's entry. */
#ifndef LUNAR_TESTS_SUPPORT_MAPPED_CHAIN_H
#define LUNAR_TESTS_SUPPORT_MAPPED_CHAIN_H

#include <assert.h>

#include "coordinator/leader.h"

static inline void map_chain(struct table_entry *mapped, Lunar__Layer **layers, size_t n)
{
    mapped->n_layers = (uint16_t)n;
    for (size_t i = 0; i < n; i++)
        mapped->layers[i] = (struct table_layer){layers[i]->volume_short, layers[i]->index, 1};
}

/* What is dropped is held by the layer below it, whose segments are those of now. */
static inline void check_dropped(const struct catalogue *c, const struct table_entry *mapped,
                                 const Lunar__Relink *m)
{
    size_t k = 0;
    for (uint32_t i = 0; i < mapped->n_layers; i++) {
        const struct table_layer *t = &mapped->layers[i];
        const struct catalogue_layer *layer = catalogue_layer_by_id(c, t->volume_short, t->index);
        if (k < m->n_layers && m->layers[k]->volume_short == t->volume_short &&
            m->layers[k]->index == t->index) {
            uint64_t bytes = 0;
            for (size_t s = 0; s < m->layers[k]->n_segments; s++)
                bytes += m->layers[k]->segments[s]->length;
            assert(layer && bytes == layer->size);
            k++;
        } else {
            assert(layer && layer->merged && i > 0 && i + 1u < mapped->n_layers);
        }
    }
    assert(k == m->n_layers && k > 0);
}

/* SAFETY 14: what a node has mapped its grant names, and no LV of it is removed. `e` is NULL for
 * one that is proved dead. */
static inline void check_mapped(const struct catalogue *c, const struct table_entry *mapped,
                                const struct table_entry *e)
{
    for (uint32_t k = 0; e && k < mapped->n_layers; k++) {
        const struct table_layer *layer = &mapped->layers[k];
        bool named = false;
        for (uint32_t m = 0; m < e->n_layers; m++)
            named |= e->layers[m].volume_short == layer->volume_short &&
                     e->layers[m].index == layer->index;
        assert(named);
        assert(catalogue_layer_by_id(c, layer->volume_short, layer->index));
    }
}

#endif
