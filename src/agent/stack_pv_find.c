/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A LUN's device on this node, as a table needs it.
 *
 * Happy path: where it was found last, the label still says so; else all devices are looked
 * through. Failure modes: it is not there, or has another WWID, or is too small for what is wanted:
 * refused with what to do, before the kernel would refuse it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/stack_pv.h"
#include "base/io.h"

static char last_paths[STACK_PVS_MAX][PV_PATH_SIZE]; /* by number - 1; "": never found */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int find_path(uint32_t number, char ret[PV_PATH_SIZE], struct error *err)
{
    const struct stack_pv *pv = stack_pv_get(number);

    if (!pv)
        return error_set(err, LUNAR_E_INVALID, "a LUN that nobody has named");
    pthread_mutex_lock(&lock);
    snprintf(ret, PV_PATH_SIZE, "%s", last_paths[number - 1]);
    pthread_mutex_unlock(&lock);
    if (pv_is_at(ret, pv->uuid))
        return 0;
    int rc = pv_find(pv->uuid, ret, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&lock);
    snprintf(last_paths[number - 1], PV_PATH_SIZE, "%s", ret);
    pthread_mutex_unlock(&lock);
    return 0;
}

static int measure(struct stack_pv_device *device, struct error *err)
{
    struct stat st;
    uint32_t sector;
    int fd = io_open(device->path, 0, err);

    if (fd < 0)
        return fd;
    int rc = io_geometry(fd, &device->bytes, &sector, err);
    if (rc == 0 && fstat(fd, &st) < 0)
        rc = error_set(err, -errno, "%s: %s", device->path, strerror(errno));
    if (rc == 0 && !S_ISBLK(st.st_mode))
        rc = error_set(err, LUNAR_E_INVALID, "%s is no block device", device->path);
    close(fd);
    if (rc == 0)
        snprintf(device->number, sizeof device->number, "%u:%u", major(st.st_rdev),
                 minor(st.st_rdev));
    return rc;
}

int stack_pv_find(uint32_t number, const char *first, struct stack_pv_device *ret,
                  struct error *err)
{
    int rc = 0;

    if (number == 0)
        snprintf(ret->path, sizeof ret->path, "%s", first);
    else
        rc = find_path(number, ret->path, err);
    return rc < 0 ? rc : measure(ret, err);
}

int stack_pv_check_end(const struct stack_pv_device *device, uint64_t end, struct error *err)
{
    return device->bytes >= end ? 0 : pv_too_small(device->path, device->bytes, end, err);
}
