/* SPDX-License-Identifier: Apache-2.0 */
/* A LUN for tests of the LVM side: a sparse file behind a loop device, formatted by lvm_format.
 * Needs root and lvm. */
#ifndef LUNAR_TESTS_SUPPORT_LVM_LUN_H
#define LUNAR_TESTS_SUPPORT_LVM_LUN_H

#include "coordinator/lvm.h"
#include "diskrpc/superblock.h"

struct lvm_lun {
    char dir[64]; /* state directory, gone after lvm_lun_close */
    char device[32];
    int loop; /* keeps the loop device: it detaches itself when this closes, also when the test dies
               */
    int fd;   /* O_DIRECT */
    struct superblock sb;
    struct lvm *lvm;
};

/* The loop device alone; NULL, or why that does not work here. */
const char *lvm_lun_attach(struct lvm_lun *lun, uint64_t size, uint32_t sector);
/* And a formatted pool with lvm opened on it. */
const char *lvm_lun_open(struct lvm_lun *lun, uint64_t size, uint32_t sector);
/* As an array does it, and a node that has looked again. 0 or -errno. */
int lvm_lun_resize(struct lvm_lun *lun, uint64_t size);
/* lvm_report of what the device holds, which is compared with what lvm itself says of it: a
 * difference is LUNAR_E_CORRUPT. */
int lvm_lun_report(struct lvm_lun *lun, struct lvm_report *ret, struct error *err);
void lvm_lun_close(struct lvm_lun *lun);

#endif
