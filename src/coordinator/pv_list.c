/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's LUNs in protobuf; see pv_list.h. No failure modes: the report has no more PVs than
 * fit.
 */
#include "coordinator/pv_list.h"

#include <assert.h>

static char *text(const char *s)
{
    return (char *)(uintptr_t)s; /* protobuf-c's structs lack the const; packing does not write */
}

void pv_message(const struct lvm_pv *pv, Lunar__Pv *ret)
{
    lunar__pv__init(ret);
    ret->index = pv->index;
    ret->uuid = text(pv->uuid);
    ret->size = pv->size;
    ret->free = pv->free;
}

static void add(const struct lvm_pv *pv, struct pv_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->pvs[i].index == pv->index)
            return;
    assert(list->n < LVM_PVS_MAX);
    pv_message(pv, &list->pvs[list->n]);
    list->list[list->n] = &list->pvs[list->n];
    list->n++;
}

static const struct lvm_pv *by_index(const struct catalogue *c, uint32_t index)
{
    for (uint32_t i = 0; i < c->n_pvs; i++)
        if (c->pvs[i].index == index)
            return &c->pvs[i];
    return NULL;
}

void pv_list_add(const struct catalogue *c, const struct catalogue_layer *layer,
                 struct pv_list *list)
{
    for (uint32_t i = 0; i < layer->n_segments; i++) {
        uint32_t index = layer->segments[i].pv;
        const struct lvm_pv *pv = index > 0 ? by_index(c, index) : NULL;
        if (pv)
            add(pv, list);
    }
}

void pv_list_all(const struct catalogue *c, struct pv_list *list)
{
    for (uint32_t i = 0; i < c->n_pvs; i++)
        add(&c->pvs[i], list);
}
