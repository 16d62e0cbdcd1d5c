/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way from a VDUSE device to a disk and back: the vdpa bus, by the `vdpa` tool in a child with
 * a deadline.
 *
 * Happy path: `vdpa dev add` binds the device to virtio_vdpa, whose probe (synchronous, it talks to
 * the QSD) makes /dev/vdX, found in sysfs below the device of that name. Failure modes: the modules
 * are missing: LUNAR_E_UNSUPPORTED; the tool hangs because the QSD does not answer:
 * LUNAR_E_INDETERMINATE, and vdpa_find tells later what became of it.
 *
 * A delete with nobody serving the device hangs in the kernel for good, and one under a mounted
 * file system loses the disk below it. Both are looked for first: an open of /dev/vduse/NAME
 * succeeds only when no server has it, and an exclusive open of the disk only when no mount and no
 * device-mapper table does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vduse.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/helper.h"
#include "agent/qsd.h"

#define VDPA_DEADLINE_MS 20000
#define VDPA_DEVICES     "/sys/bus/vdpa/devices"

/* First entry of `folder` that begins with `prefix`: 0, or -ENOENT. */
static int find_entry(const char *folder, const char *prefix, char *ret, size_t size)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int rc = -ENOENT;

    if (!dir)
        return -ENOENT;
    while (rc != 0 && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.' || strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(ret, size, "%s", entry->d_name);
        rc = 0;
    }
    closedir(dir);
    return rc;
}

bool vdpa_present(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, VDPA_DEVICES "/%s", name);
    return access(path, F_OK) == 0;
}

int vdpa_find(const char *name, char ret_disk[64], struct error *err)
{
    char path[512], entry[64];

    snprintf(path, sizeof path, VDPA_DEVICES "/%s", name);
    if (find_entry(path, "virtio", entry, sizeof entry) < 0)
        return error_set(err, LUNAR_E_NOT_FOUND, "%s has no disk on the vdpa bus", name);
    snprintf(path, sizeof path, VDPA_DEVICES "/%s/%s/block", name, entry);
    if (find_entry(path, "", entry, sizeof entry) < 0)
        return error_set(err, LUNAR_E_NOT_FOUND, "%s has no disk on the vdpa bus", name);
    snprintf(ret_disk, 64, "/dev/%.50s", entry);
    return 0;
}

int vduse_check(struct error *err)
{
    if (access("/dev/vduse/control", F_OK) < 0)
        return error_set(
            err, LUNAR_E_UNSUPPORTED,
            "no /dev/vduse/control: run `modprobe -a vduse virtio_vdpa` (kernel 6.6 or "
            "newer with CONFIG_VDPA_USER)");
    if (access("/sys/bus/vdpa/drivers/virtio_vdpa", F_OK) < 0)
        return error_set(err, LUNAR_E_UNSUPPORTED,
                         "no virtio_vdpa driver on the vdpa bus: run `modprobe virtio_vdpa`");
    return 0;
}

bool vduse_served(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "/dev/vduse/%s", name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == EBUSY;
    close(fd);
    return false;
}

int vdpa_add(const char *name, char ret_disk[64], struct error *err)
{
    const char *const argv[] = {"vdpa", "dev", "add", "name", name, "mgmtdev", "vduse", NULL};
    int rc = vduse_check(err);

    if (rc < 0)
        return rc;
    if (!vdpa_present(name)) {
        rc = helper_run(argv, VDPA_DEADLINE_MS, NULL, 0, err);
        if (rc < 0)
            return rc;
    }
    rc = vdpa_find(name, ret_disk, err);
    if (rc < 0)
        return error_set(
            err, LUNAR_E_UNSUPPORTED,
            "%s is on the vdpa bus but got no disk: is virtio_blk loaded, is the device "
            "bound to virtio_vdpa?",
            name);
    return 0;
}

static int check_not_open(const char *name, struct error *err)
{
    char disk[64];

    if (vdpa_find(name, disk, NULL) < 0)
        return 0;
    int fd = open(disk, O_RDONLY | O_EXCL | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    else if (errno == EBUSY)
        return error_set(err, LUNAR_E_IN_USE, "%s (%s) is mounted or held by device-mapper", name,
                         disk);
    return 0;
}

int vdpa_del(const char *name, struct error *err)
{
    const char *const argv[] = {"vdpa", "dev", "del", name, NULL};

    if (!vdpa_present(name))
        return 0;
    if (!vduse_served(name))
        return error_set(err, LUNAR_E_IN_USE,
                         "nobody serves %s: removing it now would hang in the kernel", name);
    int rc = check_not_open(name, err);
    return rc < 0 ? rc : helper_run(argv, VDPA_DEADLINE_MS, NULL, 0, err);
}

int vduse_destroy(const char *name, struct error *err)
{
    char path[128], vduse_name[VDUSE_NAME_MAX] = "";
    uint64_t version = VDUSE_API_VERSION;

    snprintf(path, sizeof path, "/dev/vduse/%s", name);
    if (access(path, F_OK) < 0)
        return 0;
    snprintf(vduse_name, sizeof vduse_name, "%s", name);
    int fd = open("/dev/vduse/control", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "cannot open /dev/vduse/control: %s", strerror(errno));
    int rc = 0;
    if (ioctl(fd, VDUSE_SET_API_VERSION, &version) < 0 || ioctl(fd, VDUSE_DESTROY_DEV, vduse_name))
        rc = error_set(err, -errno, "cannot remove the VDUSE device %s: %s", name, strerror(errno));
    close(fd);
    return rc;
}
