/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine's tests share: a run with chosen faults, a LUN, a process that runs a function.
 */
#ifndef LUNAR_TESTS_SIM_TEST_ENGINE_H
#define LUNAR_TESTS_SIM_TEST_ENGINE_H

#include "base/io.h"
#include "sim/internal.h"
#include "support/test.h"

#define TEST_LUN_SIZE (256ull << 20)
#define ONLY(kind)    (1ull << FAULT_##kind)

static inline void test_start(uint64_t seed, uint64_t fault_mask)
{
    struct sim_options o = {.seed = seed, .fault_mask = fault_mask};
    sim_start(&o);
    lun_open(TEST_LUN_SIZE);
}

/* A seed whose weight for that kind is at least a half, with all other kinds off. */
static inline void test_start_with(enum sim_fault kind)
{
    for (uint64_t seed = 1;; seed++) {
        test_start(seed, 1ull << kind);
        if (sim_weight(kind) > 0.5)
            return;
    }
}

/* Runs fn(data) in a fiber of a new process on `m`. */
static inline struct process *test_process(struct machine *m, enum process_kind kind,
                                           void (*fn)(void *data), void *data)
{
    struct process *p = process_start(kind, m);
    fiber_start(p, "test", fn, NULL, data);
    return p;
}

#endif
