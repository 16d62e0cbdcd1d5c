/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the RPC benchmark: the two processes' common ground, the coordinator's process, the
 * report.
 */
#ifndef LUNAR_TESTS_BENCH_RPC_BENCH_H
#define LUNAR_TESTS_BENCH_RPC_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/uuid.h"
#include "bench/samples.h"
#include "diskrpc/hint.h"
#include "diskrpc/layout.h"

#define BENCH_NODES    32u
#define BENCH_ROWS_MAX 32

/* What both processes know; `hints`, by host id, lies in shared memory. */
struct bench {
    const char *path;
    struct layout layout;
    struct uuid pool;
    bool *hints; /* both sides send them for this node */
};

/* The coordinator's process: a hub that sends each message back. Returns when `stop_fd` reads end
 * of file. */
int bench_coordinator_run(const struct bench *bench, int stop_fd);

/* Opens hints on the loopback device, for the slots of all nodes. Ends the process if it cannot. */
struct hint *bench_hint_open(const struct bench *bench, uv_loop_t *loop,
                             void (*looked)(void *data, uint32_t slot), void *data);

struct row {
    const char *name; /* hot: back to back; idle: a node that was silent; busy: as many as go */
    uint32_t nodes;
    uint32_t in_flight; /* on all nodes together; idle: on each */
    uint32_t payload;
    bool hints;
    struct summary summary;
    double per_s;
};

struct report {
    const char *path;
    struct summary write, read; /* raw, 4 KiB */
    struct row rows[BENCH_ROWS_MAX];
    int n_rows;
};

void report_text(const struct report *report);
void report_json(const struct report *report);

#endif
