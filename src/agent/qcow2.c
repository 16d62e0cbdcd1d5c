/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image is empty when its first-level table is all zeroes: then no cluster of it is allocated,
 * and every read goes to what is below. That is why the leaf under a running disk may be replaced
 * by it without moving a byte (SAFETY 16), so it is read from the LUN before each switch.
 *
 * Happy path: the header's first 104 bytes, then the table it names. Failure modes: no QCOW2 of
 * version 3, one with a backing string, a data file, internal snapshots, encryption or a feature
 * that lunar does not use, a table that is too long or used: LUNAR_E_CORRUPT; a read that fails:
 * the system's error.
 */
#include "agent/qcow2.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

#define MAGIC   0x514649fbu
#define VERSION 3u
/* QEMU's own bound of the first-level table: 32 MiB, for 2 EiB of 64 KiB clusters. */
#define L1_BYTES_MAX (32u << 20)
/* Of the incompatible features, "dirty" alone (refcounts may be stale) says nothing about data. */
#define FEATURE_DIRTY 1u

static uint64_t big_endian(const uint8_t *p, int bytes)
{
    uint64_t n = 0;

    for (int i = 0; i < bytes; i++)
        n = n << 8 | p[i];
    return n;
}

/* What the format calls them; all big-endian. */
struct header {
    uint64_t backing_offset, size, l1_offset, incompatible;
    uint32_t magic, version, crypt, l1_entries, snapshots;
};

static void header_in(const uint8_t *p, struct header *ret)
{
    *ret = (struct header){
        .magic = (uint32_t)big_endian(p, 4),
        .version = (uint32_t)big_endian(p + 4, 4),
        .backing_offset = big_endian(p + 8, 8),
        .size = big_endian(p + 24, 8),
        .crypt = (uint32_t)big_endian(p + 32, 4),
        .l1_entries = (uint32_t)big_endian(p + 36, 4),
        .l1_offset = big_endian(p + 40, 8),
        .snapshots = (uint32_t)big_endian(p + 60, 4),
        .incompatible = big_endian(p + 72, 8),
    };
}

static int check_header(const struct header *h, const char *path, struct error *err)
{
    const char *why = NULL;

    if (h->magic != MAGIC || h->version != VERSION)
        why = "no QCOW2 of version 3";
    else if (h->backing_offset != 0)
        why = "it names a backing file";
    else if (h->crypt != 0 || h->snapshots != 0)
        why = "it is encrypted or has snapshots inside";
    else if (h->incompatible & ~(uint64_t)FEATURE_DIRTY)
        why = "it is marked corrupt or uses a feature that lunar does not";
    else if (h->l1_offset == 0 || h->l1_offset % IO_ALIGN || h->l1_offset > INT64_MAX ||
             h->l1_entries > L1_BYTES_MAX / 8)
        why = "its first-level table is out of bounds";
    return why ? error_set(err, LUNAR_E_CORRUPT, "%s: %s", path, why) : 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

static int check_table(int fd, const struct header *h, const char *path, struct error *err)
{
    size_t bytes = (size_t)h->l1_entries * 8;
    size_t len = (bytes + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;

    if (bytes == 0)
        return 0;
    uint8_t *table = io_alloc(len);
    int rc = io_read(fd, table, len, h->l1_offset, err);
    if (rc == 0 && !all_zero(table, bytes))
        rc = error_set(err, LUNAR_E_CORRUPT, "%s: the image is not empty", path);
    free(table);
    return rc;
}

int qcow2_check_empty(const char *path, uint64_t *ret_size, struct error *err)
{
    struct header h;
    int fd = io_open(path, 0, err);

    if (fd < 0)
        return fd;
    uint8_t *head = io_alloc(IO_ALIGN);
    int rc = io_read(fd, head, IO_ALIGN, 0, err);
    if (rc == 0) {
        header_in(head, &h);
        rc = check_header(&h, path, err);
    }
    if (rc == 0)
        rc = check_table(fd, &h, path, err);
    if (rc == 0)
        *ret_size = h.size;
    free(head);
    close(fd);
    return rc;
}
