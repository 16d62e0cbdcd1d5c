/* SPDX-License-Identifier: Apache-2.0 */
/* LVM's label read without LVM, and the device that has it. Needs root, loop devices and lvm. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/stack_pv.h"
#include "base/io.h"
#include "diskrpc/pv.h"
#include "support/lvm_lun.h"
#include "support/test.h"

#define GIB (1024 * MIB)
#define NEED_LUN(lun)                                                                              \
    const char *why = lvm_lun_open(&lun, GIB, 512);                                                \
    if (why) {                                                                                     \
        lvm_lun_close(&lun);                                                                       \
        SKIP(why);                                                                                 \
    }

static struct error err;

static void the_label_says_uuid_areas_and_use(void)
{
    struct lvm_lun lun;
    struct lvm_report r;
    struct pv_label label;
    NEED_LUN(lun);
    CHECK_EQ(lvm_report(lun.lvm, &r, &err), 0);
    CHECK_EQ(pv_label_read(lun.fd, &label, &err), 0);
    CHECK_STR(label.uuid, r.pvs[0].uuid);
    CHECK_EQ(label.n_areas, 2);
    CHECK(label.used);
    lvm_report_free(&r);
    const char *remove[] = {"vgremove", "-qq", "-y", "lunar-test", NULL};
    CHECK_EQ(lvm_run(lun.lvm, remove, NULL, &err), 0);
    CHECK_EQ(pv_label_read(lun.fd, &label, &err), 0);
    CHECK(!label.used);
    lvm_lun_close(&lun);
}

static void a_damaged_label_is_none(void)
{
    struct lvm_lun lun;
    struct pv_label label;
    NEED_LUN(lun);
    uint8_t *head = io_alloc(IO_ALIGN), *damaged = io_alloc(IO_ALIGN);
    CHECK_EQ(io_read(lun.fd, head, IO_ALIGN, 0, &err), 0);
    srand(1);
    for (int i = 0; i < 200; i++) {
        memcpy(damaged, head, IO_ALIGN);
        damaged[512 + 20 + rand() % (512 - 20)] ^= (uint8_t)(1 << rand() % 8);
        CHECK_EQ(io_write(lun.fd, damaged, IO_ALIGN, 0, &err), 0);
        CHECK_EQ(pv_label_read(lun.fd, &label, &err), LUNAR_E_CORRUPT);
    }
    free(head);
    free(damaged);
    lvm_lun_close(&lun);
}

static void a_device_is_found_by_uuid_and_wwid(void)
{
    struct lvm_lun lun;
    struct pv_label label;
    char path[PV_PATH_SIZE];
    NEED_LUN(lun);
    CHECK_EQ(pv_label_read(lun.fd, &label, &err), 0);
    CHECK_EQ(pv_find(label.uuid, "", path, &err), 0);
    CHECK_STR(path, lun.device);
    /* An array's copy has the label and another WWID; so has a volume that pretends to be a LUN. */
    CHECK_EQ(pv_find(label.uuid, "naa.6001405", path, &err), LUNAR_E_NOT_FOUND);
    CHECK(strstr(err.text, label.uuid) && strstr(err.text, "naa.6001405"));
    label.uuid[0] = label.uuid[0] == 'a' ? 'b' : 'a';
    CHECK_EQ(pv_find(label.uuid, "", path, &err), LUNAR_E_NOT_FOUND);
    lvm_lun_close(&lun);
}

static void a_table_gets_the_device_and_no_range_behind_its_end(void)
{
    struct lvm_lun lun;
    struct pv_label label;
    struct stack_pv_device device;
    NEED_LUN(lun);
    CHECK_EQ(pv_label_read(lun.fd, &label, &err), 0);
    uint32_t number = stack_pv_number(label.uuid, "");
    CHECK_EQ(stack_pv_find(number, "/dev/null", &device, &err), 0);
    CHECK_STR(device.path, lun.device);
    CHECK_EQ(device.bytes, GIB);
    CHECK_EQ(stack_pv_check_end(&device, GIB, &err), 0);
    CHECK_EQ(stack_pv_check_end(&device, GIB + 512, &err), LUNAR_E_NOT_FOUND);
    CHECK(strstr(err.text, "rescan"));
    CHECK_EQ(stack_pv_find(0, lun.device, &device, &err), 0);
    CHECK_STR(device.path, lun.device);
    /* Another LUN under the name where it was found last. */
    uint8_t *zeros = io_alloc(IO_ALIGN);
    CHECK_EQ(io_write(lun.fd, zeros, IO_ALIGN, 0, &err), 0);
    free(zeros);
    CHECK_EQ(stack_pv_find(number, "/dev/null", &device, &err), LUNAR_E_NOT_FOUND);
    lvm_lun_close(&lun);
}

TEST_MAIN(TEST(the_label_says_uuid_areas_and_use), TEST(a_damaged_label_is_none),
          TEST(a_device_is_found_by_uuid_and_wwid),
          TEST(a_table_gets_the_device_and_no_range_behind_its_end))
