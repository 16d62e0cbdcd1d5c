/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device-mapper by libdevmapper without udev cookies (they hang on suspended devices: RWX.md trap
 * 2). All functions block and run in worker threads; each is idempotent as far as dm lets it be.
 */
#ifndef LUNAR_AGENT_DM_H
#define LUNAR_AGENT_DM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define DM_NAME_SIZE 128
#define DM_SECTOR    512u

struct dm_segment {
    uint64_t length;        /* bytes, multiple of DM_SECTOR */
    char device[64];        /* path, or "major:minor"; "" is the error target */
    uint64_t device_offset; /* bytes */
};

struct dm_info_short {
    bool exists, suspended, live_table, inactive_table;
    bool linear; /* every target of the live table is */
    uint32_t open_count;
    uint32_t major, minor;
    uint64_t size; /* bytes, of the live table */
};

/* Once per process: turns udev cookies and library fallbacks off. */
void dm_setup(void);
int dm_info(const char *name, struct dm_info_short *ret, struct error *err);
/* The live table, malloc'ed: linear targets by "major:minor", every other one as the error target.
 * LUNAR_E_NOT_FOUND without a device or a live table. */
int dm_table(const char *name, struct dm_segment **ret, uint32_t *ret_n, struct error *err);
/* "/dev/dm-N" of a device that stands: the kernel's own node. Names in /dev/mapper are for
 * consumers: udev removes one when it gets round to the end of a *former* device of that name.
 * LUNAR_E_NOT_FOUND. */
int dm_path(const char *name, char ret[32], struct error *err);
/* Creates with a table, resumed; EEXIST if there. uuid begins with "LUNAR-". */
int dm_create(const char *name, const char *uuid, const struct dm_segment *segments, uint32_t n,
              bool read_only, struct error *err);
int dm_load(const char *name, const struct dm_segment *segments, uint32_t n, bool read_only,
            struct error *err);
/* flush: wait for in-flight I/O and flush (a plain suspend); no lockfs. I/O that does not end
 * within 30 s is LUNAR_E_TIMEOUT and the device is as before; interrupted by another signal:
 * -EINTR. The same for dm_resume. */
int dm_suspend(const char *name, bool flush, struct error *err);
/* The same with a deadline of the caller's, in milliseconds. */
int dm_suspend_within(const char *name, bool flush, int deadline_ms, struct error *err);
/* And file systems that are mounted on the device are frozen before, until it is resumed, by
 * whomever. What they have to write out is written within the deadline or not: that cannot be
 * interrupted. */
int dm_freeze_within(const char *name, int deadline_ms, struct error *err);
int dm_resume(const char *name, struct error *err);
int dm_remove(const char *name,
              struct error *err); /* absent is fine; LUNAR_E_IN_USE while it is open */
/* Removed by the kernel when its last user closes it; the name is taken until then. */
int dm_remove_deferred(const char *name, struct error *err);
/* Drops a table that was loaded and never resumed. */
int dm_clear(const char *name, struct error *err);
/* Replaces the table by an error target of the same size: load, suspend without flush, resume. */
int dm_wipe(const char *name, struct error *err);
/* With nothing that anybody still has to write through it. */
int dm_wipe_and_remove(const char *name, struct error *err);
/* Names of all devices whose uuid starts with "LUNAR-" + prefix; calls back for each. */
int dm_list(const char *uuid_prefix, void (*each)(void *data, const char *name, const char *uuid),
            void *data, struct error *err);

#endif
