/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM as a child process with a private configuration: metadata only (no device-mapper, activation
 * = 0), one device, the pool's system id. The caller runs it in the one LVM worker thread, which
 * lives as long as the process, because a child's death signal is tied to the thread that forked
 * it.
 *
 * Every child that can write gets PR_SET_PDEATHSIG(SIGKILL) and inherits the leadership's sanlock
 * socket as its standard input (lvm closes every other descriptor it does not know): an orphan dies
 * with us, and if it cannot die the lease waits for it (SAFETY 1).
 */
#ifndef LUNAR_COORDINATOR_LVM_H
#define LUNAR_COORDINATOR_LVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "diskrpc/superblock.h"

#define LVM_METADATA_COPIES "2" /* areas on the PV: behind the label and at the device's end */
#define LVM_TIMEOUT_S                                                                              \
    60 /* a command that runs longer is killed and its outcome is INDETERMINATE                    \
        */

struct lvm;
struct lvm_config {
    const char *device;
    const char *state_dir; /* private configuration is written here */
    const struct superblock *superblock;
    int inherit_fd; /* -1: none (format, tests) */
};
int lvm_open(const struct lvm_config *config, struct lvm **ret, struct error *err);
void lvm_close(struct lvm *lvm);

/* Runs `lvm ARGS...` (NULL-terminated). 0; LUNAR_E_EXEC with lvm's own words; LUNAR_E_NO_SPACE
 * where they mean that; LUNAR_E_INDETERMINATE after a time-out. *ret_stdout (may be NULL) is
 * malloc'ed. */
int lvm_run(struct lvm *lvm, const char *const *args, char **ret_stdout, struct error *err);
/* Borrowed, as long as `lvm`: the VG's name, the private directory below state_dir, the device. */
const char *lvm_vg_name(const struct lvm *lvm);
const char *lvm_directory(const struct lvm *lvm);
const char *lvm_device(const struct lvm *lvm);
/* A killed child of ours still hangs in its I/O: nothing can be run, and it may yet write. */
bool lvm_is_stuck(struct lvm *lvm);
/* Instead of LVM_TIMEOUT_S, for tests. */
void lvm_set_timeout(struct lvm *lvm, int timeout_ms);

struct lvm_segment {
    uint64_t lun_offset; /* bytes */
    uint64_t length;     /* bytes */
};
struct lvm_lv {
    char *name;
    char *uuid;
    uint64_t size;
    char **tags;
    uint32_t n_tags;
    bool linear; /* all of it linear on the pool's PV; else there are no segments */
    struct lvm_segment *segments; /* in order of the LV; neighbours on the LUN are joined */
    uint32_t n_segments;
};
struct lvm_report {
    uint64_t vg_size, vg_free, extent_size;
    uint64_t seqno;
    char **vg_tags;
    uint32_t n_vg_tags;
    struct lvm_lv *lvs;
    uint32_t n_lvs;
};
/* One `lvm fullreport`: one process that reads the metadata once, so VG and LVs are of one seqno
 * (and no slower than `lvs`). Fields are checked; no byte of the LUN may belong to two LVs. An LV
 * that is not linear is reported as such, for the catalogue to name as foreign. A VG of several PVs
 * is LUNAR_E_UNSUPPORTED as yet. Free with lvm_report_free. */
int lvm_report(struct lvm *lvm, struct lvm_report *ret, struct error *err);
/* The parser alone: hostile JSON gives LUNAR_E_CORRUPT and an empty report. */
int lvm_report_parse(const char *json, struct lvm_report *ret, struct error *err);
void lvm_report_free(struct lvm_report *report);

/* Creates PV and VG for `lun format` (two metadata areas, bootloader area of the layout's size,
 * system id, no autoactivation); checks that the bootloader area lies where the layout says.
 * Blocking, no lease held yet. What an earlier, killed format of the same pool id left is
 * completed; a PV or VG of anybody else is refused with LUNAR_E_FOREIGN, and nothing is forced: the
 * caller wipes what the operator allowed to be wiped. */
int lvm_format(const char *device, const char *state_dir, const struct superblock *superblock,
               struct error *err);

#endif
