/* SPDX-License-Identifier: Apache-2.0 */
/* A LUN for tests of the LVM side; see lvm_lun.h. Every failure is a reason to skip, and says which
 * it was. */
#include "support/lvm_lun.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/io.h"

static char reason[1100];

static const char *because(const char *what)
{
    snprintf(reason, sizeof reason, "%s: %s", what, strerror(errno));
    return reason;
}

/* Other tests take loop devices at the same time, so a free one may be gone when we come. */
static const char *configure(struct lvm_lun *lun, int file, uint32_t sector)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return because("no loop devices (not root?)");
    for (int tries = 0; tries < 100; tries++) {
        struct loop_config config = {
            .fd = (uint32_t)file, .block_size = sector, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
        snprintf(lun->device, sizeof lun->device, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
        lun->loop = open(lun->device, O_RDWR | O_CLOEXEC);
        if (lun->loop >= 0 && ioctl(lun->loop, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            return NULL;
        }
        if (lun->loop >= 0)
            close(lun->loop);
        lun->loop = -1;
    }
    close(control);
    return because("no free loop device");
}

const char *lvm_lun_attach(struct lvm_lun *lun, uint64_t size, uint32_t sector)
{
    char path[80];
    *lun = (struct lvm_lun){.loop = -1, .fd = -1};
    strcpy(lun->dir, "/tmp/lunar-test-lvm-XXXXXX");
    if (!mkdtemp(lun->dir))
        return because("no temporary directory");
    snprintf(path, sizeof path, "%s/disk", lun->dir);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, (off_t)size) < 0)
        return because("no disk file");
    const char *why = configure(lun, file, sector);
    close(file);
    lun->fd = why ? -1 : io_open(lun->device, 1, NULL);
    lun->sb = (struct superblock){.pool_id = uuid_random(), .extent_size = 4u << 20};
    strcpy(lun->sb.pool_name, "test");
    if (!why && layout_compute(2, sector, &lun->sb.layout, NULL) < 0)
        why = "no layout";
    return why;
}

const char *lvm_lun_open(struct lvm_lun *lun, uint64_t size, uint32_t sector)
{
    struct error err = ERROR_INIT;
    const char *why = lvm_lun_attach(lun, size, sector);
    struct lvm_config config = {
        .device = lun->device, .state_dir = lun->dir, .superblock = &lun->sb, .inherit_fd = -1};
    if (why)
        return why;
    if (lvm_format(lun->device, lun->dir, &lun->sb, &err) < 0 ||
        lvm_open(&config, &lun->lvm, &err) < 0) {
        snprintf(reason, sizeof reason, "%s", err.text);
        return reason;
    }
    return NULL;
}

int lvm_lun_resize(struct lvm_lun *lun, uint64_t size)
{
    char path[80];
    snprintf(path, sizeof path, "%s/disk", lun->dir);
    if (truncate(path, (off_t)size) < 0 || ioctl(lun->loop, LOOP_SET_CAPACITY, 0) < 0)
        return -errno;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void lvm_lun_close(struct lvm_lun *lun)
{
    lvm_close(lun->lvm);
    if (lun->fd >= 0)
        close(lun->fd);
    if (lun->loop >= 0)
        close(lun->loop);
    if (lun->dir[0])
        nftw(lun->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    *lun = (struct lvm_lun){.loop = -1, .fd = -1};
}
