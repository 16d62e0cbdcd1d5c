/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image is empty when its first-level table is all zeroes: then no cluster of it is allocated,
 * and every read goes to what is below. That is why the leaf under a running disk may be replaced
 * by it without moving a byte (SAFETY 16), so it is read from the LUN before each switch.
 *
 * Happy path: the header's first 104 bytes, then the table it names. Failure modes: no QCOW2 of
 * version 3 with clusters of 64 KiB, one with a backing string, a data file, internal snapshots,
 * encryption or a feature that lunar does not use, a table that is too long, too short or used:
 * LUNAR_E_CORRUPT; a read that fails: the system's error.
 */
#include "agent/qcow2.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

#define MAGIC        0x514649fbu
#define VERSION      3u
#define CLUSTER_BITS 16u
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
struct fields {
    uint64_t backing_offset, size, l1_offset, incompatible;
    uint32_t magic, version, cluster_bits, crypt, l1_entries, snapshots;
};

static struct fields read_fields(const uint8_t *p)
{
    return (struct fields){
        .magic = (uint32_t)big_endian(p, 4),
        .version = (uint32_t)big_endian(p + 4, 4),
        .backing_offset = big_endian(p + 8, 8),
        .cluster_bits = (uint32_t)big_endian(p + 20, 4),
        .size = big_endian(p + 24, 8),
        .crypt = (uint32_t)big_endian(p + 32, 4),
        .l1_entries = (uint32_t)big_endian(p + 36, 4),
        .l1_offset = big_endian(p + 40, 8),
        .snapshots = (uint32_t)big_endian(p + 60, 4),
        .incompatible = big_endian(p + 72, 8),
    };
}

static const char *problem(const struct fields *f)
{
    if (f->magic != MAGIC || f->version != VERSION)
        return "no QCOW2 of version 3";
    if (f->backing_offset != 0)
        return "it names a backing file";
    if (f->cluster_bits != CLUSTER_BITS)
        return "its clusters are not of 64 KiB";
    if (f->crypt != 0 || f->snapshots != 0)
        return "it is encrypted or has snapshots inside";
    if (f->incompatible & ~(uint64_t)FEATURE_DIRTY)
        return "it is marked corrupt or uses a feature that lunar does not";
    if (f->l1_offset == 0 || f->l1_offset % (1u << CLUSTER_BITS) || f->l1_offset > INT64_MAX ||
        f->l1_entries > L1_BYTES_MAX / 8)
        return "its first-level table is out of bounds";
    if (f->size == 0 || f->size > f->l1_entries * QCOW2_L1_ENTRY_BYTES)
        return "its first-level table is too short for its size";
    return NULL;
}

int qcow2_header_decode(const uint8_t bytes[QCOW2_HEADER_BYTES], struct qcow2_header *ret,
                        struct error *err)
{
    struct fields f = read_fields(bytes);
    const char *why = problem(&f);

    if (why)
        return error_set(err, LUNAR_E_CORRUPT, "%s", why);
    *ret = (struct qcow2_header){f.size, f.l1_offset, f.l1_entries};
    return 0;
}

static int read_header(int fd, const char *path, struct qcow2_header *ret, struct error *err)
{
    uint8_t *head = io_alloc(IO_ALIGN);
    int rc = io_read(fd, head, IO_ALIGN, 0, err);

    if (rc == 0)
        rc = qcow2_header_decode(head, ret, err);
    free(head);
    if (rc < 0)
        error_prefix(err, "%s", path);
    return rc;
}

int qcow2_read_header(const char *path, struct qcow2_header *ret, struct error *err)
{
    int fd = io_open(path, 0, err);

    if (fd < 0)
        return fd;
    int rc = read_header(fd, path, ret, err);
    close(fd);
    return rc;
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

static int check_table(int fd, const struct qcow2_header *h, const char *path, struct error *err)
{
    size_t bytes = (size_t)h->l1_entries * 8;
    size_t len = (bytes + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;

    uint8_t *table = io_alloc(len);
    int rc = io_read(fd, table, len, h->l1_offset, err);
    if (rc == 0 && !all_zero(table, bytes))
        rc = error_set(err, LUNAR_E_CORRUPT, "%s: the image is not empty", path);
    free(table);
    return rc;
}

int qcow2_check_empty(const char *path, uint64_t *ret_size, struct error *err)
{
    struct qcow2_header h;
    int fd = io_open(path, 0, err);

    if (fd < 0)
        return fd;
    int rc = read_header(fd, path, &h, err);
    if (rc == 0)
        rc = check_table(fd, &h, path, err);
    if (rc == 0)
        *ret_size = h.size;
    close(fd);
    return rc;
}
