/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark found, as a table or as JSON. The published figures of others stand in the
 * same table; they are quoted, not measured here.
 */
#include <stdio.h>
#include <string.h>

#include "bench/rpc_bench.h"

static const struct {
    const char *who, *figure;
} published[] = {
    {"oVirt, mailbox alone", "2 to 4 s; 64-byte messages, one operation"},
    {"oVirt, with its events", "0.5 to 1.0 s"},
    {"csi-sanlock-lvm", "two polls of 0 to 1 s, about 24 LVM commands; up to 4 KiB"},
};
#define N_PUBLISHED ((int)(sizeof published / sizeof *published))

static double floor_us(const struct report *report)
{
    return 2 * report->write.p50_us + 2 * report->read.p50_us;
}

static const struct row *find(const struct report *report, const char *name, uint32_t in_flight,
                              bool hints)
{
    static const struct row none;

    for (int i = 0; i < report->n_rows; i++) {
        const struct row *row = &report->rows[i];
        if (strcmp(row->name, name) == 0 && row->in_flight == in_flight && row->hints == hints &&
            row->payload == 100)
            return row;
    }
    return &none;
}

static void text_time(double us)
{
    if (us < 10000)
        printf(" %7.0f us", us);
    else
        printf(" %7.1f ms", us / 1000);
}

static void text_summary(const struct summary *s)
{
    text_time(s->p50_us);
    text_time(s->p99_us);
    text_time(s->p10_us);
    text_time(s->p90_us);
    text_time(s->mean_us);
}

static void text_raw(const char *what, const struct summary *s)
{
    printf("%-42s", what);
    text_summary(s);
    printf("  n %zu\n", s->n);
}

void report_text(const struct report *report)
{
    printf("%s; floor (2 writes + 2 reads, medians): %.0f us\n", report->path, floor_us(report));
    printf("%-42s %10s %10s %10s %10s %10s\n", "", "median", "p99", "p10", "p90", "mean");
    text_raw("raw write, 4 KiB", &report->write);
    text_raw("raw read, 4 KiB", &report->read);
    for (int i = 0; i < report->n_rows; i++) {
        const struct row *row = &report->rows[i];
        printf("%-5s %6u bytes  %3u in flight %2u nodes %s", row->name, row->payload,
               row->in_flight, row->nodes, row->hints ? "hint" : "    ");
        text_summary(&row->summary);
        printf("  n %zu", row->summary.n);
        if (row->per_s > 0)
            printf(", %.0f/s", row->per_s);
        printf("\n");
    }
    for (int i = 0; i < N_PUBLISHED; i++)
        printf("%-42s  %s (published)\n", published[i].who, published[i].figure);
}

static void json_summary(const struct summary *s)
{
    printf("\"n\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p10_us\": %.1f, \"p90_us\": %.1f, "
           "\"mean_us\": %.1f",
           s->n, s->p50_us, s->p99_us, s->p10_us, s->p90_us, s->mean_us);
}

static void json_rows(const struct report *report)
{
    for (int i = 0; i < report->n_rows; i++) {
        const struct row *row = &report->rows[i];
        printf("%s    {\"name\": \"%s\", \"payload\": %u, \"in_flight\": %u, \"nodes\": %u, "
               "\"hint\": %s, ",
               i ? ",\n" : "", row->name, row->payload, row->in_flight, row->nodes,
               row->hints ? "true" : "false");
        json_summary(&row->summary);
        printf(", \"per_s\": %.0f}", row->per_s);
    }
}

void report_json(const struct report *report)
{
    const struct summary *hot = &find(report, "hot", 1, false)->summary;

    printf("{\n  \"floor_us\": %.1f,\n  \"hot_p50_us\": %.1f,\n  \"hot_p99_us\": %.1f,\n",
           floor_us(report), hot->p50_us, hot->p99_us);
    printf(
        "  \"idle_hint_p50_us\": %.1f,\n  \"idle_mean_us\": %.1f,\n  \"requests_per_s\": %.0f,\n",
        find(report, "idle", 1, true)->summary.p50_us,
        find(report, "idle", 1, false)->summary.mean_us, find(report, "busy", 256, false)->per_s);
    printf("  \"raw_write\": {");
    json_summary(&report->write);
    printf("},\n  \"raw_read\": {");
    json_summary(&report->read);
    printf("},\n  \"rows\": [\n");
    json_rows(report);
    printf("\n  ],\n  \"published\": [\n");
    for (int i = 0; i < N_PUBLISHED; i++)
        printf("%s    {\"who\": \"%s\", \"figure\": \"%s\"}", i ? ",\n" : "", published[i].who,
               published[i].figure);
    printf("\n  ]\n}\n");
}
