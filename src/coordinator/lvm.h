/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM as a child process with a private configuration: metadata only (no device-mapper, activation = 0), one device, the
 * pool's system id. The caller runs it in the one LVM worker thread, which lives as long as the process, because a child's
 * death signal is tied to the thread that forked it.
 *
 * Every child that can write gets PR_SET_PDEATHSIG(SIGKILL) and inherits the leadership's sanlock socket as its standard
 * input (lvm closes every other descriptor it does not know): an orphan dies with us, and if it cannot die the lease waits
 * for it (SAFETY 1).
 */
#ifndef LUNAR_COORDINATOR_LVM_H
#define LUNAR_COORDINATOR_LVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "diskrpc/superblock.h"

#define LVM_TIMEOUT_S 60 /* a command that runs longer is killed and its outcome is INDETERMINATE */

struct lvm;
struct lvm_config {
    const char *device;
    const char *state_dir; /* private configuration is written here */
    const struct superblock *superblock;
    int inherit_fd; /* -1: none (format, tests) */
};
int lvm_open(const struct lvm_config *config, struct lvm **ret, struct error *err);
void lvm_close(struct lvm *lvm);

/* Runs `lvm ARGS...` (NULL-terminated). 0; LUNAR_E_EXEC with lvm's own words; LUNAR_E_NO_SPACE where they mean that;
 * LUNAR_E_INDETERMINATE after a time-out. *ret_stdout (may be NULL) is malloc'ed. */
int lvm_run(struct lvm *lvm, const char *const *args, char **ret_stdout, struct error *err);

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
    struct lvm_segment *segments; /* in order of the LV */
    uint32_t n_segments;
};
struct lvm_report {
    uint64_t vg_size, vg_free, extent_size;
    uint64_t seqno;
    struct lvm_lv *lvs;
    uint32_t n_lvs;
};
/* `vgs`+`lvs --segments` in one consistent view (seqno equal before and after). Fields are checked; linear segments on
 * the pool's PVs alone are accepted. Free with lvm_report_free. */
int lvm_report(struct lvm *lvm, struct lvm_report *ret, struct error *err);
/* The parser alone: hostile JSON gives LUNAR_E_CORRUPT. `pe_start` in bytes. */
int lvm_report_parse(const char *vgs_json, const char *lvs_json, struct lvm_report *ret,
                     struct error *err);
void lvm_report_free(struct lvm_report *report);

/* Creates PV and VG for `lun format` (two metadata areas, bootloader area of the layout's size, system id, no
 * autoactivation); checks that the bootloader area lies where the layout says. Blocking, no lease held yet. */
int lvm_format(const char *device, const char *state_dir, const struct superblock *superblock,
               struct error *err);

#endif
