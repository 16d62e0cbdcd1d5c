/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a standby has the leader forced out: pure, stepped with each look at the lease and the beat.
 *
 * A leader that is stopped or hung keeps its lease, for its sanlock goes on renewing. It does not
 * beat. A forced change can break nothing, whoever is forced out and however wrong the judge is:
 * the leader's process is killed by its own sanlock, and the lease is free only once that process
 * and its lvm are gone (SAFETY 1). So all that the rules below protect is that somebody leads at
 * all: a leader must not be forced out that beats as well as the LUN lets it.
 */
#ifndef LUNAR_COORDINATOR_BEAT_JUDGE_H
#define LUNAR_COORDINATOR_BEAT_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Three beats of 1 s. A healthy leader writes one each second, late by what a read of the lease and
 * the write take; it would have to be late by 2 s to be taken for silent.
 *
 *    t0        the last beat; the leader stops within a second of it
 *    t0 + 0.6  at the latest a standby has seen it: it looks every 0.5 s, plus the look itself
 *    t0 + 3.0  to t0 + 4.1, depending on where its looks fall: forced
 */
#define BEAT_SILENCE_MS 3000u
/* A look that took longer shows a LUN on which a beat may take longer, too: what was seen until
 * then counts for nothing. Two small reads take 1 ms. */
#define BEAT_SLOW_LOOK_MS 500u
/* We did not look for longer than that: stopped ourselves, or paused together with the leader, who
 * then needs a moment to beat again. */
#define BEAT_BLIND_MS 2000u

struct beat_look {
    uint64_t began_ms, ended_ms; /* on one's own clock that never jumps */
    bool readable;               /* lease and beat could be read, and belong together */
    uint64_t term;               /* of whoever has the lease; 0: nobody */
    uint64_t count;              /* of the beat of that term; 0: none lies there */
};

struct beat_judge {
    uint32_t io_timeout_s;
    uint64_t term, count;
    uint64_t since_ms, looked_ms; /* end of the first look that saw this, of the last one */
    uint64_t asked_ms;
    bool watching, asked; /* a term is watched; its end was asked for already */
};

enum beat_verdict { BEAT_WAIT, BEAT_FORCE };

void beat_judge_init(struct beat_judge *judge, uint32_t io_timeout_s);
/* BEAT_FORCE: ask sanlock to end the term look->term, and say how that went. */
enum beat_verdict beat_judge_step(struct beat_judge *judge, const struct beat_look *look);
/* sanlock could not take the request: the watch begins anew. */
void beat_judge_refused(struct beat_judge *judge);

#endif
