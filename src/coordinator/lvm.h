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
#include "diskrpc/pv.h"
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
 * malloc'ed. An argument LVM_PV_ARG and a PV's uuid stands for its device on this machine, which
 * lvm sees from then on. */
#define LVM_PV_ARG "pv:"
/* The first bytes of lvreduce's option about file systems. Since 2.03.17 lvm reduces what is not
 * active with it alone, before it knows no such option: then the argument is left out. */
#define LVM_FS_ARG "--fs="
int lvm_run(struct lvm *lvm, const char *const *args, char **ret_stdout, struct error *err);
/* Borrowed, as long as `lvm`: the VG's name, the private directory below state_dir, the device. */
const char *lvm_vg_name(const struct lvm *lvm);
const char *lvm_directory(const struct lvm *lvm);
const char *lvm_device(const struct lvm *lvm);
/* Shows lvm the LUNs that were added to the VG of that text, wherever they are on this machine now.
 * LUNAR_E_NOT_FOUND: one is not here. Then nothing may be run that writes: lvm would go on without
 * it and mark it as missing, for good. */
int lvm_see_pvs(struct lvm *lvm, const char *text, struct error *err);
/* A killed child of ours still hangs in its I/O: nothing can be run, and it may yet write. */
bool lvm_is_stuck(struct lvm *lvm);
/* Instead of LVM_TIMEOUT_S, for tests. */
void lvm_set_timeout(struct lvm *lvm, int timeout_ms);

struct lvm_segment {
    uint64_t lun_offset; /* bytes, on its PV */
    uint64_t length;     /* bytes */
    uint32_t pv;         /* lvm_pv.index */
};
/* One LUN of the pool. The first one has the reserved area and the only metadata areas. */
#define LVM_PVS_MAX 32u
struct lvm_pv {
    char uuid[PV_UUID_SIZE];
    uint32_t index; /* 0: the first; the others in order of their uuids. Of this report alone: what
                       stays is the uuid */
    uint64_t size;  /* of its extents; the bytes that volumes can have */
    uint64_t free;
    uint64_t pe_start;
    uint64_t device_size; /* of the device, as this machine sees it now */
};
struct lvm_lv {
    char *name;
    char *uuid;
    uint64_t size;
    char **tags;
    uint32_t n_tags;
    bool linear; /* all of it linear on the pool's PVs; else there are no segments */
    struct lvm_segment *segments; /* in order of the LV; neighbours on one PV are joined */
    uint32_t n_segments;
};
struct lvm_report {
    uint64_t vg_size, vg_free, extent_size;
    uint64_t seqno;
    char **vg_tags;
    uint32_t n_vg_tags;
    struct lvm_pv *pvs; /* the first one first */
    uint32_t n_pvs;
    struct lvm_lv *lvs;
    uint32_t n_lvs;
};
/* What a text of the VG's metadata says, as LVM writes it to the LUN; no process is run. Fields are
 * checked; no byte of a LUN may belong to two LVs. An LV that is not linear is reported as such,
 * for the catalogue to name as foreign. A PV that this machine does not see is LUNAR_E_NOT_FOUND,
 * and there is no report: volumes on it are neither gone nor anybody else's, so nobody may act on a
 * catalogue without them. Opens the LUNs for their sizes. Free with lvm_report_free. */
int lvm_report(struct lvm *lvm, const char *text, struct lvm_report *ret, struct error *err);
/* The parser alone, which knows devices' sizes of the text only: a hostile text gives
 * LUNAR_E_CORRUPT and an empty report. */
int lvm_report_parse(const char *text, struct lvm_report *ret, struct error *err);
void lvm_report_free(struct lvm_report *report);

/* Creates PV and VG for `lun format` (two metadata areas, bootloader area of the layout's size,
 * system id, no autoactivation); checks that the bootloader area lies where the layout says.
 * Blocking, no lease held yet. What an earlier, killed format of the same pool id left is
 * completed; a PV or VG of anybody else is refused with LUNAR_E_FOREIGN, and nothing is forced: the
 * caller wipes what the operator allowed to be wiped. */
int lvm_format(const char *device, const char *state_dir, const struct superblock *superblock,
               struct error *err);

/* `pool extend`: makes an orphan PV with that uuid on a device that is blank, without metadata
 * areas. Blocking. */
int lvm_make_pv(const char *device, const char *state_dir, const struct superblock *superblock,
                const char *uuid, struct error *err);

#endif
