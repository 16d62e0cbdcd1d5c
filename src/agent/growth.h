/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a thin layer asks for more space, and for how much. Pure.
 *
 * The threshold stands half a chunk before the end of what the layer has: whoever writes past it
 * makes the agent ask for a chunk more. A chunk is chosen to last for about GROWTH_LASTS_MS at the
 * rate of late, so that an answer may take half of that before a writer comes to the end and waits
 * (SAFETY 20). Failure modes: a rate that rises faster than chunks may (GROWTH_FASTER_MAX each):
 * the writer waits for some answers, and each gives it more; one that falls: half as much each
 * time.
 */
#ifndef LUNAR_AGENT_GROWTH_H
#define LUNAR_AGENT_GROWTH_H

#include <stdint.h>

/* Of 4 MiB extents: 32. The least is what an idle volume may hold unused. */
#define GROWTH_CHUNK_MIN (128ull << 20)
/* 10 s at 400 MiB/s; above that chunks just follow each other faster. */
#define GROWTH_CHUNK_MAX (4ull << 30)
#define GROWTH_LASTS_MS  10000u
/* A chunk that has lasted for so long was too much. Between the two nothing changes. */
#define GROWTH_SLOW_MS 60000u
/* A volume that was idle, then is written at full speed, has its chunk after two growths. */
#define GROWTH_FASTER_MAX 8u

struct growth {
    uint64_t size; /* what the layer has, bytes */
    uint64_t max;  /* what its map shows: it cannot have more; 0: it does not grow at all */
    uint64_t need; /* what a QCOW2 of the volume's size takes when it is full. Not a bound: clusters
                      that a killed daemon had allocated are lost to it */
    uint64_t chunk;
    uint64_t since_ms; /* it has had this size since then */
    uint64_t asked;    /* and asks for this one; 0: for nothing */
};

/* A layer of `size` bytes that is a leaf of a volume of `virtual_size`. */
void growth_begin(struct growth *g, uint64_t size, uint64_t max, uint64_t virtual_size,
                  uint64_t now_ms);
/* The volume has another size now. */
void growth_resized(struct growth *g, uint64_t virtual_size);
/* Writes that end behind this byte make it ask. 0: none does. */
uint64_t growth_threshold(const struct growth *g);
/* The size to ask for, greater than what there is; the same again until it has grown. 0: there is
 * nothing to ask for. */
uint64_t growth_ask(struct growth *g, uint64_t now_ms);
/* It is `size` now, whether that is what was asked for or not. */
void growth_grown(struct growth *g, uint64_t size, uint64_t now_ms);

#endif
