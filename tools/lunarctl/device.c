/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hands on the raw device, for `lun format` alone.
 *
 * Happy path: lock, claim with O_EXCL, probe, wipe, zero. Failure modes: the device is in use (the
 * kernel's exclusive open says so; we add who, from sysfs); an array that acknowledges a "write
 * zeroes" and does something else (everything zeroed is read back, and written by hand where it
 * differs); stale pages in this node's cache of a device that another node has written (dropped
 * before probing, because libblkid reads through the cache).
 */
#include "device.h"

#include <blkid/blkid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "diskrpc/wwid.h"

#define LOCK_TRIES    50 /* udev holds its shared lock while it probes: a second or two at worst */
#define LOCK_PAUSE_MS 100
#define ZERO_CHUNK    (16 * MIB)
#define CHECK_CHUNK   MIB

static int lock_device(int fd, const char *path, struct error *err)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_set(err, -errno, "cannot lock %s: %s", path, strerror(errno));
        nanosleep(&pause, NULL);
    }
    return error_set(err, LUNAR_E_BUSY,
                     "%s is locked by another process, perhaps another format: wait for it to end",
                     path);
}

static int measure(struct device *d, struct error *err)
{
    struct stat st;
    if (fstat(d->lock_fd, &st) < 0)
        return error_set(err, -errno, "cannot stat %s: %s", d->path, strerror(errno));
    if (!S_ISBLK(st.st_mode))
        return error_set(err, LUNAR_E_INVALID,
                         "%s is not a block device (attach an image with losetup to format it)",
                         d->path);
    int rc = lock_device(d->lock_fd, d->path, err);
    if (rc == 0)
        rc = io_geometry(d->lock_fd, &d->bytes, &d->sector, err);
    wwid_read(d->lock_fd, d->wwid);
    return rc;
}

int device_open(const char *path, struct device *ret, struct error *err)
{
    struct device *d = ret;
    memset(d, 0, sizeof *d);
    d->fd = -1;
    if (!realpath(path, d->path))
        return error_set(err, -errno, "cannot find %s: %s", path, strerror(errno));
    d->lock_fd = open(d->path, O_RDONLY | O_CLOEXEC);
    if (d->lock_fd < 0)
        return error_set(err, -errno, "cannot open %s: %s", d->path, strerror(errno));
    int rc = measure(d, err);
    if (rc < 0)
        device_close(d);
    return rc;
}

/* Names of the devices that sit on top, from sysfs: "" if there are none. */
static void holders(int fd, char *ret, size_t size)
{
    struct stat st;
    char path[128];
    struct dirent *e;
    size_t at = 0;

    ret[0] = '\0';
    if (fstat(fd, &st) < 0)
        return;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/holders", major(st.st_rdev),
             minor(st.st_rdev));
    DIR *dir = opendir(path);
    while (dir && (e = readdir(dir)) && at < size) {
        if (e->d_name[0] == '.')
            continue;
        int n = snprintf(ret + at, size - at, " %s", e->d_name);
        at += n > 0 ? (size_t)n : 0;
    }
    if (dir)
        closedir(dir);
}

int device_claim(struct device *device, struct error *err)
{
    char by[256];
    device->fd = open(device->path, O_RDWR | O_DIRECT | O_EXCL | O_CLOEXEC);
    if (device->fd >= 0)
        return 0;
    if (errno != EBUSY)
        return error_set(err, -errno, "cannot open %s for writing: %s", device->path,
                         strerror(errno));
    holders(device->lock_fd, by, sizeof by);
    return error_set(
        err, LUNAR_E_IN_USE, "%s is in use on this node: %s%s", device->path,
        *by ? "it is part of" : "it is mounted, or a partition or another program holds it", by);
}

void device_release(struct device *device)
{
    if (device->fd >= 0)
        close(device->fd);
    device->fd = -1;
}

void device_close(struct device *device)
{
    device_release(device);
    if (device->lock_fd >= 0)
        close(device->lock_fd);
    device->lock_fd = -1;
}

/* A probe over a buffered descriptor of its own (*ret_fd): libblkid's reads and writes are not
 * aligned. */
static int probe_open(const struct device *device, int flags, blkid_probe *ret, int *ret_fd,
                      struct error *err)
{
    *ret_fd = open(device->path, flags | O_CLOEXEC);
    if (*ret_fd < 0)
        return error_set(err, -errno, "cannot open %s: %s", device->path, strerror(errno));
    (void)ioctl(*ret_fd, BLKFLSBUF, 0);
    *ret = blkid_new_probe();
    if (!*ret || blkid_probe_set_device(*ret, *ret_fd, 0, 0) < 0) {
        blkid_free_probe(*ret);
        close(*ret_fd);
        return error_set(err, -EIO, "libblkid cannot probe %s", device->path);
    }
    blkid_probe_enable_superblocks(*ret, 1);
    blkid_probe_set_superblocks_flags(*ret, BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_TYPE |
                                                BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL |
                                                BLKID_SUBLKS_BADCSUM);
    blkid_probe_enable_partitions(*ret, 1);
    blkid_probe_set_partitions_flags(*ret, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT);
    return 0;
}

static void add_signature(blkid_probe pr, struct signatures *s)
{
    const char *type = NULL, *label = NULL, *usage = NULL, *table = NULL;
    size_t at = strlen(s->text);

    (void)blkid_probe_lookup_value(pr, "TYPE", &type, NULL);
    (void)blkid_probe_lookup_value(pr, "USAGE", &usage, NULL);
    (void)blkid_probe_lookup_value(pr, "LABEL", &label, NULL);
    (void)blkid_probe_lookup_value(pr, "PTTYPE", &table, NULL);
    bool lvm = type && strcmp(type, "LVM2_member") == 0;
    s->only_lvm = lvm && (s->n == 0 || s->only_lvm);
    s->n++;
    if (type)
        snprintf(s->text + at, sizeof s->text - at, "%s%s%s%s%s%s", at ? ", " : "", type,
                 usage && strcmp(usage, "filesystem") == 0 ? " filesystem" : "", label ? " \"" : "",
                 label ? label : "", label ? "\"" : "");
    else
        snprintf(s->text + at, sizeof s->text - at, "%s%s partition table", at ? ", " : "",
                 table ? table : "unknown");
}

int device_probe(const struct device *device, struct signatures *ret, struct error *err)
{
    blkid_probe pr;
    int fd, found;

    memset(ret, 0, sizeof *ret);
    int rc = probe_open(device, O_RDONLY, &pr, &fd, err);
    if (rc < 0)
        return rc;
    while ((found = blkid_do_probe(pr)) == 0)
        add_signature(pr, ret);
    if (found < 0)
        rc = error_set(err, -EIO, "libblkid failed to read %s", device->path);
    blkid_free_probe(pr);
    close(fd);
    return rc;
}

int device_wipe(const struct device *device, struct error *err)
{
    blkid_probe pr;
    int fd, found;

    int rc = probe_open(device, O_RDWR, &pr, &fd, err);
    if (rc < 0)
        return rc;
    while ((found = blkid_do_probe(pr)) == 0) {
        if (blkid_do_wipe(pr, 0) != 0) {
            found = -1;
            break;
        }
    }
    if (found < 0)
        rc = error_set(err, -EIO, "cannot wipe the old signatures of %s", device->path);
    if (rc == 0 && fsync(fd) < 0)
        rc = error_set(err, -errno, "cannot wipe the old signatures of %s: %s", device->path,
                       strerror(errno));
    (void)ioctl(fd, BLKRRPART,
                0); /* the kernel forgets partitions that are gone; nobody uses them */
    blkid_free_probe(pr);
    close(fd);
    return rc;
}

static bool is_zero(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Reads [offset, offset + len) and makes sure that it is zero, writing where it is not. */
static int check_zero(int fd, uint8_t *buffer, const uint8_t *zeroes, uint64_t offset, uint64_t len,
                      struct error *err)
{
    while (len > 0) {
        size_t n = len < CHECK_CHUNK ? (size_t)len : (size_t)CHECK_CHUNK;
        int rc = io_read(fd, buffer, n, offset, err);
        if (rc == 0 && !is_zero(buffer, n)) {
            rc = io_write(fd, zeroes, n, offset, err);
            if (rc == 0)
                rc = io_read(fd, buffer, n, offset, err);
            if (rc == 0 && !is_zero(buffer, n))
                rc = error_set(err, LUNAR_E_CORRUPT,
                               "zeroes written at byte %llu read back as "
                               "something else: the device is broken",
                               (unsigned long long)offset);
        }
        if (rc < 0)
            return rc;
        offset += n;
        len -= n;
    }
    return 0;
}

int device_zero(const struct device *device, uint64_t offset, uint64_t len, struct error *err)
{
    uint8_t *buffer = io_alloc(CHECK_CHUNK), *zeroes = io_alloc(CHECK_CHUNK);
    int rc = 0;

    while (len > 0 && rc == 0) {
        uint64_t n = len < ZERO_CHUNK ? len : ZERO_CHUNK;
        uint64_t range[2] = {offset, n};
        /* Its result does not matter: whatever it did or did not do is looked at next. */
        (void)ioctl(device->fd, BLKZEROOUT, range);
        rc = check_zero(device->fd, buffer, zeroes, offset, n, err);
        offset += n;
        len -= n;
    }
    free(buffer);
    free(zeroes);
    return rc;
}
