/* SPDX-License-Identifier: Apache-2.0 */
/* A growing list of durations and what is said about it. */
#ifndef LUNAR_TESTS_BENCH_SAMPLES_H
#define LUNAR_TESTS_BENCH_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct samples {
    uint64_t *ns;
    size_t n, room;
};

struct summary {
    size_t n;
    double p10_us, p50_us, p90_us, p99_us, mean_us; /* all 0 if n is */
};

void samples_add(struct samples *samples, uint64_t ns);
/* Sorts them. */
struct summary samples_summary(struct samples *samples);
void samples_free(struct samples *samples);

#endif
