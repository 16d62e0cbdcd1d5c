/* SPDX-License-Identifier: Apache-2.0 */
/* A LUN's WWID from sysfs; see wwid.h. No id is not an error: loop devices and some test disks have
 * none. */
#include "diskrpc/wwid.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Reads one trimmed line of a sysfs file; false if there is none or it is empty. */
static bool read_line(const char *path, char ret[WWID_SIZE])
{
    FILE *f = fopen(path, "re");
    bool found = f && fgets(ret, WWID_SIZE, f);
    if (f)
        fclose(f);
    if (!found)
        return false;
    size_t n = strlen(ret);
    while (n > 0 && (unsigned char)ret[n - 1] <= ' ')
        ret[--n] = '\0';
    return n > 0;
}

void wwid_of_device(unsigned int major_number, unsigned int minor_number, char ret[WWID_SIZE])
{
    /* NVMe namespace; SCSI disk; virtio-blk; device-mapper (multipath's UUID ends with the WWID);
     * then the same of the whole disk, where the device is a partition. */
    static const char *const places[] = {"wwid",    "device/wwid",    "serial",   "dm/uuid",
                                         "../wwid", "../device/wwid", "../serial"};

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major_number, minor_number,
                 places[i]);
        if (read_line(path, ret))
            return;
    }
    ret[0] = '\0';
}

void wwid_read(int fd, char ret[WWID_SIZE])
{
    struct stat st;

    ret[0] = '\0';
    if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode))
        wwid_of_device(major(st.st_rdev), minor(st.st_rdev), ret);
}

int wwid_check(int fd, const char *device, const struct superblock *sb, struct error *err)
{
    char wwid[WWID_SIZE];

    wwid_read(fd, wwid);
    if (!sb->wwid[0] || !wwid[0] || strcmp(sb->wwid, wwid) == 0)
        return 0;
    return error_set(
        err, LUNAR_E_FOREIGN,
        "%s is not the LUN that pool '%s' was made on (WWID %s, expected %s): a copy made by the "
        "array must not be used",
        device, sb->pool_name, wwid, sb->wwid);
}
