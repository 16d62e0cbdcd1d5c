/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On which of the pool's LUNs a segment lies, told by one small number that is this process's own:
 * 0 is the first LUN, which the stack's spec names; the others are uuids, by which they are
 * found on this node whenever a table needs them.
 */
#ifndef LUNAR_AGENT_STACK_PV_H
#define LUNAR_AGENT_STACK_PV_H

#include <stdint.h>

#include "base/error.h"
#include "diskrpc/pv.h"

#define STACK_PVS_MAX 1024u /* all that one process ever meets, of all its pools */

struct stack_pv {
    char uuid[PV_UUID_SIZE];
};
/* The number of that LUN, the same for the same; 0: it is no uuid of an added LUN, or there are
 * more than anybody has. From any thread. */
uint32_t stack_pv_number(const char *uuid);
/* For ever; NULL for 0 and for a number that was never given. From any thread. */
const struct stack_pv *stack_pv_get(uint32_t number);

struct stack_pv_device {
    char path[PV_PATH_SIZE];
    char number[64]; /* "major:minor" */
    uint64_t bytes;
};
/* Blocking. `first` is the path of the pool's first LUN. LUNAR_E_NOT_FOUND, with what to do, if the
 * LUN is not on this node. */
int stack_pv_find(uint32_t number, const char *first, struct stack_pv_device *ret,
                  struct error *err);
/* LUNAR_E_NOT_FOUND, with what to do, if a range of the LUN ends behind the device. */
int stack_pv_check_end(const struct stack_pv_device *device, uint64_t end, struct error *err);

#endif
