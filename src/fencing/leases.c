/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sanlock's on-disk records, decoded without its daemon; see leases.h.
 *
 * A lockspace is an array of delta leases, one sector per host id, sector i - 1 for host i. A
 * resource area begins with a leader record in its first sector. Both kinds share one layout of
 * fields, measured on 3.8.5 and 3.9.5 and held by the golden files of tests/golden: little-endian,
 * a magic that tells the kind, a checksum over everything before it.
 *
 * Happy path: one O_DIRECT read of all sectors, each decoded into a struct; leases_choose picks a
 * host id from them. Failure modes: a sector that is no record, fails its checksum, or belongs to
 * another lockspace is LUNAR_E_CORRUPT and names the host id, so that the operator knows which
 * sector to look at. A sector is the unit of an atomic write, so a torn record means a broken
 * device, not a race.
 */
#include "fencing/leases.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"

#define MAGIC_DELTA_LEASE   0x12212010u
#define MAGIC_LEADER_RECORD 0x06152010u

enum {
    OFFSET_MAGIC = 0,
    OFFSET_OWNER_ID = 32,
    OFFSET_GENERATION = 40,
    OFFSET_LVER = 48,
    OFFSET_SPACE = 56,
    OFFSET_NAME = 104, /* the owner's name in a delta lease, the resource's in a leader record */
    OFFSET_TIMESTAMP = 152,
    OFFSET_CHECKSUM = 168,
    OFFSET_IO_TIMEOUT = 174,
    NAME_BYTES = 48, /* without a NUL if all 48 are used */
};

/* sanlock's checksum is the bare CRC-32C register, started at ~1 and not inverted at the end. */
static uint32_t record_checksum(const uint8_t *sector)
{
    return ~crc32c_more(1, sector, OFFSET_CHECKSUM);
}

static void name_in(const uint8_t *p, char ret[LEASES_NAME_SIZE])
{
    memcpy(ret, p, NAME_BYTES);
    ret[NAME_BYTES] = '\0';
}

/* What both kinds have in common; `what` names the record in the sentence. */
static int record_check(const uint8_t *sector, uint32_t magic, const char *space, const char *what,
                        struct error *err)
{
    uint32_t found = le32_get(sector + OFFSET_MAGIC);
    if (found != magic)
        return error_set(err, LUNAR_E_CORRUPT, "%s: magic is 0x%08x, not 0x%08x", what, found,
                         magic);

    uint32_t stored = le32_get(sector + OFFSET_CHECKSUM), computed = record_checksum(sector);
    if (stored != computed)
        return error_set(err, LUNAR_E_CORRUPT, "%s: checksum is 0x%08x, its bytes give 0x%08x",
                         what, stored, computed);

    char name[LEASES_NAME_SIZE];
    name_in(sector + OFFSET_SPACE, name);
    if (space && strcmp(name, space) != 0)
        return error_set(err, LUNAR_E_CORRUPT, "%s: belongs to lockspace '%s', not '%s'", what,
                         name, space);
    return 0;
}

int delta_lease_in(const uint8_t *sector, uint32_t host_id, const char *space,
                   struct delta_lease *ret, struct error *err)
{
    char what[48];
    snprintf(what, sizeof what, "delta lease of host %" PRIu32, host_id);
    int rv = record_check(sector, MAGIC_DELTA_LEASE, space, what, err);
    if (rv < 0)
        return rv;

    memset(ret, 0, sizeof *ret);
    ret->host_id = host_id;
    ret->owner_id = le64_get(sector + OFFSET_OWNER_ID);
    ret->generation = le64_get(sector + OFFSET_GENERATION);
    ret->lver = le64_get(sector + OFFSET_LVER);
    ret->timestamp = le64_get(sector + OFFSET_TIMESTAMP);
    ret->io_timeout_s = le16_get(sector + OFFSET_IO_TIMEOUT);
    name_in(sector + OFFSET_SPACE, ret->space);
    name_in(sector + OFFSET_NAME, ret->owner_name);
    return 0;
}

int leader_record_in(const uint8_t *sector, const char *space, struct leader_record *ret,
                     struct error *err)
{
    int rv = record_check(sector, MAGIC_LEADER_RECORD, space, "leader record", err);
    if (rv < 0)
        return rv;

    memset(ret, 0, sizeof *ret);
    ret->owner_id = le64_get(sector + OFFSET_OWNER_ID);
    ret->owner_generation = le64_get(sector + OFFSET_GENERATION);
    ret->lver = le64_get(sector + OFFSET_LVER);
    ret->timestamp = le64_get(sector + OFFSET_TIMESTAMP);
    name_in(sector + OFFSET_SPACE, ret->space);
    name_in(sector + OFFSET_NAME, ret->resource);
    return 0;
}

/* FNV-1a, 64 bits: short, endian-free, and its values are pinned by a test because they are on the
 * LUN. */
static uint64_t fnv1a(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3ull;
    return hash;
}

#define FNV1A_START 0xcbf29ce484222325ull

/*
 * A running lease under our name goes before a free one: it may be a living second machine, and
 * only watching it tells.
 */
static const struct delta_lease *find_own(const struct delta_lease *leases, uint32_t n,
                                          const char *name, const bool *avoid)
{
    const struct delta_lease *own = NULL;
    for (uint32_t i = 0; i < n; i++) {
        if ((avoid && avoid[i]) || strcmp(leases[i].owner_name, name) != 0)
            continue;
        if (leases[i].timestamp != 0)
            return &leases[i];
        if (!own)
            own = &leases[i];
    }
    return own;
}

int leases_choose(const struct delta_lease *leases, uint32_t n, const char *name, const bool *avoid,
                  uint32_t *ret_host_id, bool *ret_same_name, struct error *err)
{
    const struct delta_lease *own = find_own(leases, n, name, avoid);
    if (own) {
        *ret_host_id = own->host_id;
        *ret_same_name = own->timestamp != 0;
        return 0;
    }

    uint32_t start = (uint32_t)(fnv1a(FNV1A_START, name) % (n ? n : 1));
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = (start + k) % n;
        if (leases[i].timestamp != 0 || (avoid && avoid[i]))
            continue;
        *ret_host_id = leases[i].host_id;
        *ret_same_name = false;
        return 0;
    }
    return error_set(err, LUNAR_E_FULL,
                     "all %" PRIu32 " host ids of the pool are taken; have a node leave it "
                     "(lunarctl node leave) or format with a larger --max-nodes",
                     n);
}

int leases_read(int fd, const struct layout *layout, const char *space, struct delta_lease *leases,
                struct error *err)
{
    size_t len = (size_t)layout->max_nodes * layout->sector_size;
    len = (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    uint8_t *buffer = io_alloc(len);
    int rv = io_read(fd, buffer, len, layout->lockspace, err);
    for (uint32_t i = 0; rv == 0 && i < layout->max_nodes; i++)
        rv =
            delta_lease_in(buffer + (size_t)i * layout->sector_size, i + 1, space, &leases[i], err);
    free(buffer);
    return rv;
}

int lease_read(int fd, const struct layout *layout, const char *space, uint32_t host_id,
               struct delta_lease *ret, struct error *err)
{
    assert(host_id >= 1 && host_id <= layout->max_nodes);
    uint64_t offset = (uint64_t)(host_id - 1) * layout->sector_size;
    uint64_t start = offset / IO_ALIGN * IO_ALIGN;
    uint8_t *buffer = io_alloc(IO_ALIGN);
    int rv = io_read(fd, buffer, IO_ALIGN, layout->lockspace + start, err);
    if (rv == 0)
        rv = delta_lease_in(buffer + (offset - start), host_id, space, ret, err);
    free(buffer);
    return rv;
}

int leader_read(int fd, const struct layout *layout, uint32_t resource, const char *space,
                struct leader_record *ret, struct error *err)
{
    uint8_t *buffer = io_alloc(IO_ALIGN);
    int rv = io_read(fd, buffer, IO_ALIGN, layout_resource(layout, resource), err);
    if (rv == 0)
        rv = leader_record_in(buffer, space, ret, err);
    free(buffer);
    return rv;
}

void leases_host_name(const char *node_name, const char *machine_id, char ret[LEASES_NAME_SIZE])
{
    /* The newline between them cannot stand in either, so ("ab","c") and ("a","bc") differ. */
    uint64_t hash = fnv1a(FNV1A_START, node_name);
    hash = fnv1a(hash, "\n");
    hash = fnv1a(hash, machine_id);
    snprintf(ret, LEASES_NAME_SIZE, "lunar-%016" PRIx64, hash);
}
