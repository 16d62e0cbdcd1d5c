/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lockspace that looks as if thousands of hosts had joined it.
 *
 * One host is real: membership_join, the production code, against a real daemon. The others' delta
 * leases are the records that the format wrote, with owner, generation and a timestamp put in and
 * the checksum taken again, and they are moved on in one write for all. The real member's sector is
 * left out of every write, because its daemon owns it. Grant tables are written through the
 * production codec, with entries of volumes that do not exist: a takeover does not ask. Failure
 * modes: those of membership_join, and of the LUN.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"
#include "diskrpc/table.h"
#include "fencing/leases.h"

/* Offsets of a delta lease, as in src/fencing/leases.c, which only reads them. */
enum {
    OFFSET_OWNER_ID = 32,
    OFFSET_GENERATION = 40,
    OFFSET_OWNER_NAME = 104,
    OFFSET_TIMESTAMP = 152,
    OFFSET_CHECKSUM = 168,
};

struct load_hosts {
    struct membership *membership;
    struct layout layout;
    int fd;
    uint8_t *sectors; /* of all hosts, the lockspace's first bytes */
    uint64_t timestamp;
};

static void put_lease(struct load_hosts *hosts, uint32_t host_id)
{
    uint8_t *p = hosts->sectors + (size_t)(host_id - 1) * hosts->layout.sector_size;
    char name[48] = "";

    snprintf(name, sizeof name, "scale-%u", host_id);
    le64_put(p + OFFSET_OWNER_ID, host_id);
    le64_put(p + OFFSET_GENERATION, LOAD_GENERATION);
    memcpy(p + OFFSET_OWNER_NAME, name, sizeof name);
    le64_put(p + OFFSET_TIMESTAMP, hosts->timestamp);
    le32_put(p + OFFSET_CHECKSUM, ~crc32c_more(1, p, OFFSET_CHECKSUM));
}

/* Hosts first to last, in one write, from a buffer that is aligned whatever `first` is. */
static int write_range(struct load_hosts *hosts, uint32_t first, uint32_t last, struct error *err)
{
    uint32_t sector = hosts->layout.sector_size;
    if (first > last)
        return 0;
    size_t len = (size_t)(last - first + 1) * sector, skip = (size_t)(first - 1) * sector;
    uint8_t *buffer = io_alloc(len);
    memcpy(buffer, hosts->sectors + skip, len);
    int rc = io_write(hosts->fd, buffer, len, hosts->layout.lockspace + skip, err);
    free(buffer);
    return rc;
}

int load_hosts_renew(struct load_hosts *hosts, struct error *err)
{
    uint32_t own = load_hosts_own_id(hosts), max = hosts->layout.max_nodes;

    hosts->timestamp++;
    for (uint32_t h = 1; h <= max; h++)
        put_lease(hosts, h);
    int rc = write_range(hosts, 1, own - 1, err);
    return rc < 0 ? rc : write_range(hosts, own + 1, max, err);
}

static int read_sectors(struct load_hosts *hosts, struct error *err)
{
    size_t len = (size_t)hosts->layout.max_nodes * hosts->layout.sector_size;
    len = (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    hosts->sectors = io_alloc(len);
    return io_read(hosts->fd, hosts->sectors, len, hosts->layout.lockspace, err);
}

int load_hosts_open(const char *device, const struct superblock *sb, const char *node_name,
                    struct load_hosts **ret, struct error *err)
{
    const struct membership_config config = {
        .device = device, .superblock = sb, .node_name = node_name};
    struct load_hosts *hosts = calloc(1, sizeof *hosts);

    if (!hosts)
        abort();
    hosts->layout = sb->layout;
    hosts->timestamp = 1000;
    int rc = hosts->fd = io_open(device, 1, err);
    if (rc >= 0)
        rc = membership_join(&config, &hosts->membership, err);
    if (rc >= 0)
        rc = read_sectors(hosts, err);
    if (rc >= 0)
        rc = load_hosts_renew(hosts, err);
    if (rc < 0) {
        load_hosts_close(hosts);
        return rc;
    }
    *ret = hosts;
    return 0;
}

static void fill_grants(struct table *t, uint32_t n_entries)
{
    t->writer = (struct incarnation){.host_id = t->slot, .generation = 1, .run_or_term = 1};
    t->term = t->seq = 1;
    for (uint32_t i = 0; i < n_entries; i++) {
        struct table_entry *e = table_add(t);
        e->volume_id = uuid_random();
        e->attachment_id = uuid_random();
        e->generation = LOAD_GENERATION;
        e->term = 1;
        e->mode = TABLE_MODE_ATTACH;
        e->state = TABLE_STATE_GRANTED;
        e->n_layers = 1;
        e->layers[0].volume_short = uuid_short(&e->volume_id);
    }
}

int load_hosts_grant(struct load_hosts *hosts, const struct uuid *pool_id, uint32_t n_entries,
                     struct error *err)
{
    int rc = 0;

    for (uint32_t h = 1; h <= hosts->layout.max_nodes && rc == 0; h++) {
        struct table t;
        table_init(&t, TABLE_GRANTS, h, pool_id);
        fill_grants(&t, n_entries);
        for (int copy = 0; copy < 2 && rc == 0; copy++)
            rc = table_write(hosts->fd, &hosts->layout, &t, copy, err);
        table_free(&t);
    }
    return rc;
}

uint32_t load_hosts_own_id(const struct load_hosts *hosts)
{
    return membership_host_id(hosts->membership);
}

uint64_t load_hosts_own_generation(const struct load_hosts *hosts)
{
    return membership_generation(hosts->membership);
}

void load_hosts_close(struct load_hosts *hosts)
{
    if (hosts->membership)
        membership_abandon(hosts->membership);
    if (hosts->fd >= 0)
        close(hosts->fd);
    free(hosts->sectors);
    free(hosts);
}
