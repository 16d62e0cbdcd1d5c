/* SPDX-License-Identifier: Apache-2.0 */
/* Durations and their percentiles, by sorting; see samples.h. Aborts without memory. */
#include "bench/samples.h"

#include <stdlib.h>

void samples_add(struct samples *samples, uint64_t ns)
{
    if (samples->n == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 4096;
        samples->ns = realloc(samples->ns, samples->room * sizeof *samples->ns);
        if (!samples->ns)
            abort();
    }
    samples->ns[samples->n++] = ns;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_us(const struct samples *samples, size_t percent)
{
    return (double)samples->ns[(samples->n - 1) * percent / 100] / 1000;
}

struct summary samples_summary(struct samples *samples)
{
    double sum = 0;

    if (samples->n == 0)
        return (struct summary){0};
    qsort(samples->ns, samples->n, sizeof *samples->ns, by_value);
    for (size_t i = 0; i < samples->n; i++)
        sum += (double)samples->ns[i] / 1000;
    return (struct summary){
        .n = samples->n,
        .p10_us = percentile_us(samples, 10),
        .p50_us = percentile_us(samples, 50),
        .p90_us = percentile_us(samples, 90),
        .p99_us = percentile_us(samples, 99),
        .mean_us = sum / (double)samples->n,
    };
}

void samples_free(struct samples *samples)
{
    free(samples->ns);
    *samples = (struct samples){0};
}
