/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See still.h. Happy path: every lease moves, and the list has at most what sanlock shows late.
 * Failure modes: none; a host that sanlock does not name keeps what was seen of it last.
 */
#include "coordinator/still.h"

#include <stdlib.h>
#include <string.h>

struct seen {
    uint64_t generation, timestamp; /* timestamp 0: no lease was seen */
    uint64_t since_ms;
    uint64_t over; /* generations up to this one need no entry */
};

struct still {
    uint32_t max_nodes;
    struct seen seen[]; /* [host id] */
};

struct still *still_new(uint32_t max_nodes)
{
    struct still *s = calloc(1, sizeof *s + (max_nodes + 1) * sizeof s->seen[0]);
    if (!s)
        abort();
    s->max_nodes = max_nodes;
    return s;
}

void still_free(struct still *still)
{
    free(still);
}

void still_look(struct still *s, const struct host_status *hosts, int n, uint64_t now_ms)
{
    for (int i = 0; i < n; i++) {
        const struct host_status *h = &hosts[i];
        if (h->host_id < 1 || h->host_id > s->max_nodes)
            continue;
        struct seen *seen = &s->seen[h->host_id];
        if (seen->generation != h->generation || seen->timestamp != h->timestamp)
            *seen = (struct seen){h->generation, h->timestamp, now_ms, seen->over};
    }
}

void still_over(struct still *s, uint32_t host_id, uint64_t generation)
{
    s->seen[host_id].over = generation;
}

/* Into the list, which is sorted by `since`, and out of it whoever has no place any more. */
static void insert(struct beat *beat, uint64_t *since, uint32_t host_id, const struct seen *seen)
{
    uint32_t at = beat->n_still;
    while (at > 0 && since[at - 1] > seen->since_ms)
        at--;
    if (at == BEAT_STILL_MAX)
        return;
    uint32_t last = beat->n_still < BEAT_STILL_MAX ? beat->n_still++ : BEAT_STILL_MAX - 1;
    memmove(&since[at + 1], &since[at], (last - at) * sizeof *since);
    memmove(&beat->still[at + 1], &beat->still[at], (last - at) * sizeof *beat->still);
    since[at] = seen->since_ms;
    beat->still[at] = (struct beat_still){host_id, seen->generation, seen->timestamp};
}

void still_list(const struct still *s, uint64_t limit_ms, uint64_t now_ms, struct beat *beat)
{
    uint64_t since[BEAT_STILL_MAX];

    beat->n_still = 0;
    for (uint32_t h = 1; h <= s->max_nodes; h++) {
        const struct seen *seen = &s->seen[h];
        if (seen->timestamp != 0 && seen->generation > seen->over &&
            now_ms - seen->since_ms >= limit_ms)
            insert(beat, since, h, seen);
    }
}
