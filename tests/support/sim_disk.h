/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated disk: memory behind diskrpc/disk.h, whose operations end when the test says, in an
 * order drawn from a seed. A write may be made to fail, having landed in part or not at all.
 */
#ifndef LUNAR_TESTS_SUPPORT_SIM_DISK_H
#define LUNAR_TESTS_SUPPORT_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "diskrpc/disk.h"

struct sim_disk;

struct sim_disk *sim_disk_new(uint64_t bytes, uint64_t seed);
/* Nothing may be outstanding. */
void sim_disk_free(struct sim_disk *sim);
struct disk *sim_disk_disk(struct sim_disk *sim);
/* Ends one operation and calls back; false if none is outstanding. */
bool sim_disk_run_one(struct sim_disk *sim);
/* The n-th operation to end from now on (1: the next) fails with -EIO; a write lands `land_bytes`
 * of its bytes. */
void sim_disk_fail(struct sim_disk *sim, uint32_t nth, uint32_t land_bytes);

#endif
