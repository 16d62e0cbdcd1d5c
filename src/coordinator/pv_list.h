/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's LUNs in protobuf: which of them a command's segments lie on. Points into the
 * catalogue; nothing is to be freed. */
#ifndef LUNAR_COORDINATOR_PV_LIST_H
#define LUNAR_COORDINATOR_PV_LIST_H

#include "coordinator/catalogue.h"
#include "diskrpc/message.h"

struct pv_list {
    Lunar__Pv pvs[LVM_PVS_MAX], *list[LVM_PVS_MAX];
    size_t n;
};
void pv_message(const struct lvm_pv *pv, Lunar__Pv *ret);
/* Those that the layer lies on, each once; never the first, which every node knows. */
void pv_list_add(const struct catalogue *c, const struct catalogue_layer *layer,
                 struct pv_list *list);
void pv_list_all(const struct catalogue *c, struct pv_list *list);

#endif
