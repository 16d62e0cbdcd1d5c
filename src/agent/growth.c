/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy of growing; see growth.h.
 *
 * Happy path: the first chunk is the least; each ask looks at how long the last one has lasted and
 * takes the next one so that it would last for GROWTH_LASTS_MS. Failure modes: an answer that gives
 * less than was asked for (a pool that is nearly full): the threshold may lie in what is written
 * already, so that the next write asks again; the chunk does not shrink for it.
 */
#include "agent/growth.h"

#include <assert.h>
#include <string.h>

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A full volume does not come so close to the end of its room. */
#define GROWTH_SLACK (2ull << 20)

/* Tables take a 6,500th of the data in clusters of 64 KiB, and some clusters more. */
static uint64_t qcow2_full(uint64_t virtual_size)
{
    return virtual_size + virtual_size / 4096 + 2 * GROWTH_SLACK;
}

void growth_resized(struct growth *g, uint64_t virtual_size)
{
    g->need = qcow2_full(virtual_size);
}

void growth_begin(struct growth *g, uint64_t size, uint64_t max, uint64_t virtual_size,
                  uint64_t now_ms)
{
    memset(g, 0, sizeof *g);
    g->size = size;
    g->max = max > size ? max : 0;
    growth_resized(g, virtual_size);
    g->chunk = GROWTH_CHUNK_MIN;
    g->since_ms = now_ms;
}

uint64_t growth_threshold(const struct growth *g)
{
    if (g->max == 0)
        return 0;
    if (g->size >= g->need)
        return g->size - GROWTH_SLACK; /* it is not to come so far */
    return g->size - min_u64(g->chunk / 2, g->size / 2);
}

/* A chunk that was passed in `ms` should have been this large. */
static uint64_t next_chunk(uint64_t chunk, uint64_t ms)
{
    if (ms > GROWTH_SLOW_MS)
        return max_u64(chunk / 2, GROWTH_CHUNK_MIN);
    if (ms >= GROWTH_LASTS_MS)
        return chunk;
    uint64_t wanted = chunk * GROWTH_LASTS_MS / max_u64(ms, 1);
    return min_u64(min_u64(wanted, chunk * GROWTH_FASTER_MAX), GROWTH_CHUNK_MAX);
}

uint64_t growth_ask(struct growth *g, uint64_t now_ms)
{
    if (g->asked || g->max <= g->size)
        return g->asked;
    g->chunk = next_chunk(g->chunk, now_ms - g->since_ms);
    g->asked = min_u64(g->size + g->chunk, g->need);
    if (g->asked <= g->size)
        g->asked = g->size + GROWTH_CHUNK_MIN;
    g->asked = min_u64(g->asked, g->max);
    return g->asked;
}

void growth_grown(struct growth *g, uint64_t size, uint64_t now_ms)
{
    assert(size >= g->size);
    if (size > g->size)
        g->since_ms = now_ms;
    g->size = size;
    g->asked = 0;
}
