/* SPDX-License-Identifier: Apache-2.0 */
/* LVM's label read without LVM, the uuids of LUNs that were added, and the device that has one.
 * Mostly needs root, loop devices and lvm. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/stack_pv.h"
#include "base/io.h"
#include "diskrpc/pv.h"
#include "support/lvm_lun.h"
#include "support/test.h"

#define GIB (1024 * MIB)

static struct error err;

static void a_uuid_fits_the_wwid_that_it_was_made_for_alone(void)
{
    char a[PV_UUID_SIZE], b[PV_UUID_SIZE];
    pv_uuid_make("naa.60014051234", a);
    pv_uuid_make("naa.60014051234", b);
    CHECK(strcmp(a, b) != 0);
    CHECK_EQ(strlen(a), PV_UUID_SIZE - 1);
    CHECK(pv_uuid_is_added(a) && pv_uuid_fits(a, "naa.60014051234"));
    CHECK(pv_uuid_fits(b, "naa.60014051234"));
    CHECK(!pv_uuid_fits(a, "naa.60014051235") && !pv_uuid_fits(a, ""));
    pv_uuid_make("", a);
    CHECK(pv_uuid_fits(a, "") && !pv_uuid_fits(a, "naa.60014051234"));
    CHECK(!pv_uuid_is_added("o6JaPP-UveL-WqcM-U1Hv-Hlgp-rYmc-apTL8u"));
    CHECK(!pv_uuid_fits("LUNAR1-", "") && !pv_uuid_is_added(""));
}

static void the_label_says_uuid_areas_and_use(void)
{
    struct lvm_lun lun;
    struct lvm_report r;
    struct pv_label label;
    const char *why = lvm_lun_open(&lun, GIB, 512);
    if (why) {
        lvm_lun_close(&lun);
        SKIP(why);
    }
    CHECK_EQ(lvm_lun_report(&lun, &r, &err), 0);
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

/* A LUN for a pool, on a loop device, which has no WWID. */
static const char *added_lun(struct lvm_lun *ret, const char *wwid, char uuid[PV_UUID_SIZE])
{
    const char *why = lvm_lun_attach(ret, GIB, 512);
    pv_uuid_make(wwid, uuid);
    if (!why && lvm_make_pv(ret->device, ret->dir, &ret->sb, uuid, &err) < 0)
        why = err.text;
    if (why)
        lvm_lun_close(ret);
    return why;
}

static void a_lun_that_was_made_is_an_orphan_without_areas(void)
{
    struct lvm_lun lun;
    struct pv_label label;
    char uuid[PV_UUID_SIZE];
    const char *why = added_lun(&lun, "", uuid);
    if (why)
        SKIP(why);
    CHECK_EQ(pv_label_read(lun.fd, &label, &err), 0);
    CHECK_STR(label.uuid, uuid);
    CHECK_EQ(label.n_areas, 0);
    CHECK(!label.used);
    lvm_lun_close(&lun);
}

static void a_damaged_label_is_none(void)
{
    struct lvm_lun lun;
    struct pv_label label;
    char uuid[PV_UUID_SIZE];
    const char *why = added_lun(&lun, "", uuid);
    if (why)
        SKIP(why);
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

static void a_device_is_found_by_its_uuid(void)
{
    struct lvm_lun lun;
    char uuid[PV_UUID_SIZE], other[PV_UUID_SIZE], path[PV_PATH_SIZE];
    const char *why = added_lun(&lun, "", uuid);
    if (why)
        SKIP(why);
    CHECK_EQ(pv_find(uuid, path, &err), 0);
    CHECK_STR(path, lun.device);
    pv_uuid_make("", other);
    CHECK_EQ(pv_find(other, path, &err), LUNAR_E_NOT_FOUND);
    CHECK(strstr(err.text, other));
    lvm_lun_close(&lun);
}

/* So is a volume that somebody has made look like a LUN. */
static void safety_22_a_copy_on_a_device_of_another_wwid_is_not_found(void)
{
    struct lvm_lun lun;
    char uuid[PV_UUID_SIZE], path[PV_PATH_SIZE];
    const char *why = added_lun(&lun, "naa.6001405", uuid);
    if (why)
        SKIP(why);
    CHECK_EQ(pv_find(uuid, path, &err), LUNAR_E_NOT_FOUND);
    CHECK(!pv_is_at(lun.device, uuid));
    lvm_lun_close(&lun);
}

static void a_table_gets_the_device_and_no_range_behind_its_end(void)
{
    struct lvm_lun lun;
    struct stack_pv_device device;
    char uuid[PV_UUID_SIZE];
    const char *why = added_lun(&lun, "", uuid);
    if (why)
        SKIP(why);
    uint32_t number = stack_pv_number(uuid);
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

TEST_MAIN(TEST(a_uuid_fits_the_wwid_that_it_was_made_for_alone),
          TEST(the_label_says_uuid_areas_and_use),
          TEST(a_lun_that_was_made_is_an_orphan_without_areas), TEST(a_damaged_label_is_none),
          TEST(a_device_is_found_by_its_uuid),
          TEST(safety_22_a_copy_on_a_device_of_another_wwid_is_not_found),
          TEST(a_table_gets_the_device_and_no_range_behind_its_end))
