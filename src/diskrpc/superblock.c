/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The superblock's codec and its two copies on the LUN; docs/DISK-FORMAT.md has the bytes.
 *
 * Happy path: both copies valid and equal. Failure modes: a format killed between the two copies
 * leaves one with the higher write_count, which counts; a damaged copy is passed over; a copy of a
 * newer lunar refuses the LUN even if the other one is ours, because somebody newer has begun to
 * own it; an unreadable LUN is never taken for a blank one.
 */
#include "diskrpc/superblock.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/le.h"
#include "diskrpc/unit.h"

enum {
    AT_STATE = 48,
    AT_IO_TIMEOUT = 52,
    AT_WATCHDOG = 56,
    AT_EXTENT_SIZE = 60,
    AT_WRITE_COUNT = 64,
    AT_CREATED = 72,
    AT_POOL_NAME = 80, /* 40 bytes */
    AT_WWID = 120,     /* 136 bytes */
    AT_MAX_NODES = 256,
    AT_SECTOR_SIZE = 260,
    AT_ALIGN_SIZE = 264,
    AT_REGIONS = 272, /* 14 offsets and sizes of 8 bytes */
    HEADER_LEN = 384,
};

/* The 64-bit fields of the layout in the order of their place in the superblock. */
/* clang-format off */
#define LAYOUT_FIELDS(X) \
    X(area_start) X(area_size) X(lockspace) X(resources) X(up_pages) \
    X(down_pages) X(up_spill) X(down_spill) X(grants_a) \
    X(grants_b) X(reports_a) X(reports_b) X(metadata_a) \
    X(metadata_b)
/* clang-format on */

static void layout_out(const struct layout *layout, uint8_t *buffer)
{
    uint8_t *p = buffer + AT_REGIONS;

    le32_put(buffer + AT_MAX_NODES, layout->max_nodes);
    le32_put(buffer + AT_SECTOR_SIZE, layout->sector_size);
    le32_put(buffer + AT_ALIGN_SIZE, layout->align_size);
#define X(field) le64_put(p, layout->field), p += 8;
    LAYOUT_FIELDS(X)
#undef X
    assert(p == buffer + HEADER_LEN);
}

static void layout_in(const uint8_t *buffer, struct layout *layout)
{
    const uint8_t *p = buffer + AT_REGIONS;

    layout->max_nodes = le32_get(buffer + AT_MAX_NODES);
    layout->sector_size = le32_get(buffer + AT_SECTOR_SIZE);
    layout->align_size = le32_get(buffer + AT_ALIGN_SIZE);
#define X(field) layout->field = le64_get(p), p += 8;
    LAYOUT_FIELDS(X)
#undef X
}

void superblock_out(const struct superblock *sb, uint8_t buffer[SUPERBLOCK_SIZE])
{
    const struct unit unit = {
        .kind = UNIT_SUPERBLOCK,
        .header_len = HEADER_LEN,
        .len = SUPERBLOCK_SIZE,
        .flags = sb->flags,
        .pool_id = sb->pool_id,
    };
    memset(buffer, 0, SUPERBLOCK_SIZE);
    unit_out(&unit, buffer);
    le32_put(buffer + AT_STATE, (uint32_t)sb->state);
    le32_put(buffer + AT_IO_TIMEOUT, sb->io_timeout_s);
    le32_put(buffer + AT_WATCHDOG, sb->watchdog_fire_timeout_s);
    le32_put(buffer + AT_EXTENT_SIZE, sb->extent_size);
    le64_put(buffer + AT_WRITE_COUNT, sb->write_count);
    le64_put(buffer + AT_CREATED, sb->created_s);
    unit_text_put(buffer + AT_POOL_NAME, sb->pool_name, POOL_NAME_SIZE - 1);
    unit_text_put(buffer + AT_WWID, sb->wwid, WWID_SIZE - 1);
    layout_out(&sb->layout, buffer);
    unit_seal(buffer);
}

static int check_fields(const struct superblock *sb, struct error *err)
{
    if (sb->state != SUPERBLOCK_FORMATTING && sb->state != SUPERBLOCK_READY)
        return error_set(err, LUNAR_E_CORRUPT, "superblock: state %d", (int)sb->state);
    if (sb->pool_name[POOL_NAME_SIZE - 1] || pool_name_check(sb->pool_name, NULL) < 0)
        return error_set(err, LUNAR_E_CORRUPT, "superblock: the pool's name is malformed");
    if (sb->wwid[WWID_SIZE - 1])
        return error_set(err, LUNAR_E_CORRUPT, "superblock: the WWID does not end");
    if (sb->io_timeout_s == 0 || sb->watchdog_fire_timeout_s == 0)
        return error_set(err, LUNAR_E_CORRUPT, "superblock: timeouts %u and %u s", sb->io_timeout_s,
                         sb->watchdog_fire_timeout_s);
    if (layout_check(&sb->layout, UINT64_MAX, err) < 0)
        return error_prefix(err, "superblock: layout"), LUNAR_E_CORRUPT;
    return 0;
}

int superblock_in(const uint8_t buffer[SUPERBLOCK_SIZE], struct superblock *ret, struct error *err)
{
    struct superblock sb;
    struct unit unit;

    memset(&sb, 0, sizeof sb);
    int rc = unit_in(buffer, SUPERBLOCK_SIZE, UNIT_SUPERBLOCK, 0, NULL, &unit, err);
    if (rc == LUNAR_E_NOT_FOUND)
        return error_set(err, LUNAR_E_FOREIGN, "superblock: no lunar magic, all zeroes");
    if (rc < 0)
        return error_prefix(err, "superblock"), rc;
    if (unit.header_len != HEADER_LEN || unit.len != SUPERBLOCK_SIZE)
        return error_set(err, LUNAR_E_CORRUPT, "superblock: header %u, length %u", unit.header_len,
                         unit.len);
    sb.flags = unit.flags;
    sb.pool_id = unit.pool_id;
    sb.state = (enum superblock_state)le32_get(buffer + AT_STATE);
    sb.io_timeout_s = le32_get(buffer + AT_IO_TIMEOUT);
    sb.watchdog_fire_timeout_s = le32_get(buffer + AT_WATCHDOG);
    sb.extent_size = le32_get(buffer + AT_EXTENT_SIZE);
    sb.write_count = le64_get(buffer + AT_WRITE_COUNT);
    sb.created_s = le64_get(buffer + AT_CREATED);
    memcpy(sb.pool_name, buffer + AT_POOL_NAME, POOL_NAME_SIZE);
    memcpy(sb.wwid, buffer + AT_WWID, WWID_SIZE);
    layout_in(buffer, &sb.layout);
    rc = check_fields(&sb, err);
    if (rc == 0)
        *ret = sb;
    return rc;
}

/* What a reader learns from one copy. */
struct copy {
    int status;
    struct superblock sb;
    struct error err;
};

static uint64_t copy_offset(int copy)
{
    return LAYOUT_AREA_START + (copy ? LAYOUT_SUPERBLOCK_B_OFFSET : 0);
}

static void read_copies(int fd, struct copy copies[2])
{
    uint8_t *buffer = io_alloc(SUPERBLOCK_SIZE);

    for (int i = 0; i < 2; i++) {
        struct copy *c = &copies[i];
        memset(c, 0, sizeof *c);
        c->status = io_read(fd, buffer, SUPERBLOCK_SIZE, copy_offset(i), &c->err);
        if (c->status == 0)
            c->status = superblock_in(buffer, &c->sb, &c->err);
    }
    free(buffer);
}

/* How much a copy's outcome says; see the file's head for why VERSION is above a valid copy. */
static int weight(int status)
{
    if (status == LUNAR_E_VERSION)
        return 4;
    if (status == 0)
        return 3;
    if (status == LUNAR_E_CORRUPT)
        return 2;
    return status == LUNAR_E_FOREIGN ? 0 : 1; /* in between: -errno */
}

static const struct copy *better(const struct copy *a, const struct copy *b)
{
    if (weight(a->status) != weight(b->status))
        return weight(a->status) > weight(b->status) ? a : b;
    return b->status == 0 && b->sb.write_count > a->sb.write_count ? b : a;
}

int superblock_read(int fd, struct superblock *ret, struct error *err)
{
    struct copy copies[2];

    read_copies(fd, copies);
    const struct copy *best = better(&copies[0], &copies[1]);
    if (best->status < 0)
        return error_set(err, best->status, "%s", best->err.text);
    *ret = best->sb;
    return 0;
}

/*
 * The new count must beat whatever lies there, also another pool's: a format over an old pool that
 * is killed between the two copies must not leave the old one as the better copy.
 */
static uint64_t highest_write_count(int fd)
{
    struct copy copies[2];
    uint64_t highest = 0;

    read_copies(fd, copies);
    for (int i = 0; i < 2; i++)
        if (copies[i].status == 0 && copies[i].sb.write_count > highest)
            highest = copies[i].sb.write_count;
    return highest;
}

static int write_copy(int fd, int copy, const uint8_t *buffer, uint8_t *back, struct error *err)
{
    int rc = io_write(fd, buffer, SUPERBLOCK_SIZE, copy_offset(copy), err);
    if (rc == 0)
        rc = io_read(fd, back, SUPERBLOCK_SIZE, copy_offset(copy), err);
    if (rc == 0 && memcmp(buffer, back, SUPERBLOCK_SIZE) != 0)
        rc = error_set(err, LUNAR_E_CORRUPT, "it reads back otherwise than written");
    if (rc < 0)
        error_prefix(err, "superblock copy %c", copy ? 'B' : 'A');
    return rc;
}

int superblock_write(int fd, struct superblock *sb, struct error *err)
{
    uint64_t highest = highest_write_count(fd);
    sb->write_count = (highest > sb->write_count ? highest : sb->write_count) + 1;
    uint8_t *buffer = io_alloc(SUPERBLOCK_SIZE), *back = io_alloc(SUPERBLOCK_SIZE);
    superblock_out(sb, buffer);
    int rc = write_copy(fd, 1, buffer, back, err);
    if (rc == 0)
        rc = write_copy(fd, 0, buffer, back, err);
    free(buffer);
    free(back);
    return rc;
}

int pool_name_check(const char *name, struct error *err)
{
    size_t len = strlen(name);

    if (len < 1 || len > POOL_NAME_SIZE - 1)
        return error_set(err, LUNAR_E_INVALID, "a pool's name has 1 to %d characters",
                         POOL_NAME_SIZE - 1);
    if (name[0] < 'a' || name[0] > 'z')
        return error_set(err, LUNAR_E_INVALID, "a pool's name begins with a letter a-z");
    if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
        return error_set(err, LUNAR_E_INVALID, "a pool's name consists of a-z, 0-9 and '-'");
    return 0;
}

void pool_vg_name(const char *pool_name, char ret[POOL_NAME_SIZE + 6])
{
    snprintf(ret, POOL_NAME_SIZE + 6, "lunar-%s", pool_name);
}

void pool_lockspace(const struct uuid *pool_id, char ret[48])
{
    snprintf(ret, 48, "lunar-%016" PRIx64, uuid_short(pool_id));
}

void pool_system_id(const struct uuid *pool_id, char ret[48])
{
    snprintf(ret, 48, "lunar-%016" PRIx64, uuid_short(pool_id));
}
