/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM in memory, for tests of the pure leader: takes the argument vectors that catalogue.h makes,
 * keeps LVs with tags and segments, and gives a catalogue. Each command is one commit.
 * `fail_with` makes the next command fail: before it takes effect, or after (an indeterminate one
 * that landed).
 */
#ifndef LUNAR_TESTS_SUPPORT_FAKE_LVM_H
#define LUNAR_TESTS_SUPPORT_FAKE_LVM_H

#include "coordinator/catalogue.h"

struct fake_lvm {
    struct lvm_lv lvs[320];
    uint32_t n_lvs;
    uint64_t seqno, vg_size;
    char *vg_tags[8];
    uint32_t n_vg_tags;
    struct lvm_pv pvs[4];
    uint32_t n_pvs;
    uint64_t new_lun_size; /* that vgextend finds; 0: none */
    uint64_t next_offset;
    int fail_with; /* code of the next command; 0: it works */
    bool fail_after;
};

#define FAKE_EXTENT  (32ull << 20)
#define FAKE_PV_UUID "FAKEPV-0000-0000-0000-0000-0000-00000" /* and one digit */

void fake_lvm_init(struct fake_lvm *f);
void fake_lvm_free(struct fake_lvm *f);
int fake_lvm_run(struct fake_lvm *f, const char *const *argv, struct error *err);
struct catalogue *fake_lvm_catalogue(struct fake_lvm *f);
uint64_t fake_lvm_free_bytes(const struct fake_lvm *f);

#endif
