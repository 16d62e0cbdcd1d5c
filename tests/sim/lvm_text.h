/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume group as the simulator's LVM knows it, and the metadata text of it, in the shape of
 * LVM's own, which commit_disk.c looks at and lvm_report.c parses. Pure.
 */
#ifndef LUNAR_TESTS_SIM_LVM_TEXT_H
#define LUNAR_TESTS_SIM_LVM_TEXT_H

#include <stdbool.h>

#include "support/fake_lvm.h"

#define VG_TAGS_MAX 8
#define VG_PE_START (1ull << 30) /* where extents begin on the LUN */

struct vg {
    struct fake_lvm lvm;
    char tags[VG_TAGS_MAX][40];
    int n_tags;
};

void vg_free(struct vg *vg);
/* False: not a text of ours. The caller frees with vg_free after success. */
bool vg_in(const char *text, struct vg *ret);
char *vg_out(const struct vg *vg); /* malloc'ed */
/* One command of lunar's: vgchange, lvcreate, lvextend, lvchange, lvremove. As lvm_run; seqno
 * rises. */
int vg_run(struct vg *vg, const char *const *argv, struct error *err);
/* The same text with another seqno; malloc'ed. */
char *vg_text_with_seqno(const char *text, uint64_t seqno);
uint64_t vg_text_seqno(const char *text);

#endif
