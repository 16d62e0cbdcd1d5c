/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM's label, and the device that has a certain one; see pv.h.
 *
 * The label: one of the first four 512-byte sectors, with LVM's CRC; it points at the PV header:
 * the uuid, the device's size, data areas, metadata areas (each list ends with a zero entry), and
 * then an extension that says whether the PV is in a group. Failure modes: all of it is taken as
 * hostile; a device that cannot be opened or read is passed over, since another one may be what is
 * sought.
 */
#include "diskrpc/pv.h"

#include <dirent.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/le.h"
#include "base/size.h"
#include "diskrpc/wwid.h"

#define SECTOR        512u
#define LABEL_SECTORS 4u
#define EXT_USED      1u

/* CRC-32 with LVM's own start value and without the final inversion, which ISA-L's form adds on
 * both ends. */
static uint32_t label_crc(const uint8_t *bytes, size_t len)
{
    return ~crc32_gzip_refl(~0xf597a6cfu, bytes, len);
}

/* label: 0 magic, 8 its sector, 16 CRC of the sector from 20 on, 20 offset of the PV header, 24
 * type */
static const uint8_t *find_label(const uint8_t *sectors)
{
    for (unsigned i = 0; i < LABEL_SECTORS; i++) {
        const uint8_t *p = sectors + i * SECTOR;
        if (memcmp(p, "LABELONE", 8) == 0 && memcmp(p + 24, "LVM2 001", 8) == 0 &&
            le64_get(p + 8) == i && le32_get(p + 16) == label_crc(p + 20, SECTOR - 20))
            return p;
    }
    return NULL;
}

/* As LVM prints it: groups of 6, 4, 4, 4, 4, 4 and 6. */
static bool format_uuid(const uint8_t *from, char ret[PV_UUID_SIZE])
{
    static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#";
    size_t at = 0;
    for (int i = 0; i < 32; i++) {
        if (!from[i] || !strchr(plain, from[i]))
            return false;
        if (i >= 6 && (i - 6) % 4 == 0 && i <= 26)
            ret[at++] = '-';
        ret[at++] = (char)from[i];
    }
    ret[at] = 0;
    return true;
}

/* PV header: 0 uuid, 32 device size, 40 pairs (offset, size): data areas, zero pair, metadata
 * areas, zero pair; then the extension: 0 version, 4 flags. */
static bool parse_label(const uint8_t *label, struct pv_label *ret)
{
    uint32_t at = le32_get(label + 20);
    int list = 0;

    if (at < 32 || at > SECTOR - 40 || !format_uuid(label + at, ret->uuid))
        return false;
    for (at += 40; list < 2; at += 16) {
        if (at + 16 > SECTOR)
            return false;
        bool last = le64_get(label + at) == 0;
        list += last;
        ret->n_areas += list == 1 && !last;
    }
    ret->used =
        at + 8 <= SECTOR && le32_get(label + at) >= 1 && le32_get(label + at + 4) & EXT_USED;
    return true;
}

int pv_label_read(int fd, struct pv_label *ret, struct error *err)
{
    uint8_t *sectors = io_alloc(IO_ALIGN);
    int rc = io_read(fd, sectors, IO_ALIGN, 0, err);

    memset(ret, 0, sizeof *ret);
    if (rc == 0) {
        const uint8_t *label = find_label(sectors);
        if (!label || !parse_label(label, ret))
            rc = error_set(err, LUNAR_E_CORRUPT, "it has no LVM label");
    }
    free(sectors);
    return rc;
}

static bool has_label(int fd, const char *uuid)
{
    struct pv_label label;
    return pv_label_read(fd, &label, NULL) == 0 && strcmp(label.uuid, uuid) == 0;
}

/* A name like /dev/sdc may mean another LUN than it did. */
bool pv_is_at(const char *path, const char *uuid)
{
    char wwid[WWID_SIZE];
    int fd = path[0] ? io_open(path, 0, NULL) : -1;

    if (fd < 0)
        return false;
    wwid_read(fd, wwid);
    bool found = pv_uuid_fits(uuid, wwid) && has_label(fd, uuid);
    close(fd);
    return found;
}

/* "8:16" */
static bool device_number(const char *name, unsigned *ret_major, unsigned *ret_minor)
{
    char path[PV_PATH_SIZE + 32];
    snprintf(path, sizeof path, "/sys/class/block/%s/dev", name);
    FILE *f = fopen(path, "re");
    bool found = f && fscanf(f, "%u:%u", ret_major, ret_minor) == 2;
    if (f)
        fclose(f);
    return found;
}

static bool is_it(const char *name, const char *uuid, char ret[PV_PATH_SIZE])
{
    char wwid[WWID_SIZE];
    unsigned major_number, minor_number;

    if (!device_number(name, &major_number, &minor_number))
        return false;
    wwid_of_device(major_number, minor_number, wwid);
    if (!pv_uuid_fits(uuid, wwid)) /* before anything of it is opened or read */
        return false;
    snprintf(ret, PV_PATH_SIZE, "/dev/%s", name);
    for (char *p = ret + 5; *p; p++)
        if (*p == '!') /* sysfs' way to write a slash */
            *p = '/';
    return pv_is_at(ret, uuid);
}

int pv_find(const char *uuid, char ret[PV_PATH_SIZE], struct error *err)
{
    const struct dirent *entry;
    bool found = false;
    DIR *dir = opendir("/sys/class/block");

    while (!found && dir && (entry = readdir(dir)))
        found = entry->d_name[0] != '.' && is_it(entry->d_name, uuid, ret);
    if (dir)
        closedir(dir);
    if (found)
        return 0;
    return error_set(
        err, LUNAR_E_NOT_FOUND,
        "this node has no LUN with the LVM uuid %s: have it presented to the node, and "
        "the node look for it (a copy that an array has made is not taken)",
        uuid);
}

int pv_too_small(const char *path, uint64_t have, uint64_t want, struct error *err)
{
    char have_text[SIZE_TEXT_SIZE], want_text[SIZE_TEXT_SIZE];
    return error_set(err, LUNAR_E_NOT_FOUND,
                     "%s has %s on this node, but %s elsewhere: have the node look again (echo 1 > "
                     "/sys/block/DISK/device/rescan; with multipath also multipathd resize map)",
                     path, size_format(have, have_text), size_format(want, want_text));
}

int pv_check_size(int fd, const char *path, uint64_t bytes, struct error *err)
{
    uint64_t have;
    uint32_t sector;
    int rc = io_geometry(fd, &have, &sector, err);
    return rc < 0 || have >= bytes ? rc : pv_too_small(path, have, bytes, err);
}
