/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of LUNs; see stack_pv.h. The list only grows, so whoever has a number may look
 * without a lock. */
#include "agent/stack_pv.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static struct stack_pv known[STACK_PVS_MAX];
static atomic_uint n_known;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint32_t look_up(const char *uuid, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(known[i].uuid, uuid) == 0)
            return i + 1;
    return 0;
}

uint32_t stack_pv_number(const char *uuid)
{
    if (!pv_uuid_is_added(uuid))
        return 0;
    pthread_mutex_lock(&lock);
    uint32_t n = atomic_load(&n_known);
    uint32_t number = look_up(uuid, n);
    if (number == 0 && n < STACK_PVS_MAX) {
        strcpy(known[n].uuid, uuid);
        number = n + 1;
        atomic_store(&n_known, number);
    }
    pthread_mutex_unlock(&lock);
    return number;
}

const struct stack_pv *stack_pv_get(uint32_t number)
{
    return number > 0 && number <= atomic_load(&n_known) ? &known[number - 1] : NULL;
}
