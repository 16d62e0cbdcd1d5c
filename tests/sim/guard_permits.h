/* SPDX-License-Identifier: Apache-2.0 */
/* The guard's permit files in the simulator (guard_permits.c). */
#ifndef LUNAR_TESTS_SIM_GUARD_PERMITS_H
#define LUNAR_TESTS_SIM_GUARD_PERMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "fencing/guard_core.h"
#include "sim/sim.h"

/* They live as long as the machine's boot. */
struct permit_file {
    struct permit_file *next;
    uint32_t host;
    uint64_t generation;
    enum guard_permit_byte byte;
    bool locked; /* exclusively, by a guard that lives */
    bool proven; /* its guard has had the proof: the ghost's */
};

struct permit_file *permit_file_of(const struct machine *m, uint32_t host, uint64_t generation);
struct permit_file *permit_file_make(const struct machine *m, uint32_t host, uint64_t generation);
bool permit_is_held(const struct permit_file *f);
void permits_process_gone(const struct process *p);
void permits_machine_off(const struct machine *m);

#endif
