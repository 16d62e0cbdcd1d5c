/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation for blocking code that never runs on the renew, watchdog or fence path: it succeeds or
 * the process ends. */
#ifndef LUNAR_COORDINATOR_MEM_H
#define LUNAR_COORDINATOR_MEM_H

#include <stdlib.h>
#include <string.h>

static inline void *mem_must(void *p)
{
    if (!p)
        abort();
    return p;
}

/* Zeroed; n may be 0. */
static inline void *mem_array(size_t n, size_t size)
{
    return mem_must(calloc(n ? n : 1, size));
}

static inline char *mem_strdup(const char *text)
{
    return (char *)mem_must(strdup(text));
}

/* Room for one more element in an array of n that doubles: grows at 0 and at each power of two. */
static inline void *mem_grow(void *array, size_t n, size_t size)
{
    if (n & (n - 1))
        return array;
    return mem_must(reallocarray(array, n ? 2 * n : 1, size));
}

#endif
