/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sanlock's records as bytes: what src/fencing/leases.c decodes. The test of the engine holds them
 * against the records of a real sanlock in tests/golden.
 */
#include <string.h>

#include "base/crc32c.h"
#include "base/le.h"
#include "sim/sanlock_model.h"

#define MAGIC_DELTA    0x12212010u
#define MAGIC_LEADER   0x06152010u
#define VERSION_DELTA  0x00030004u
#define VERSION_LEADER 0x00060004u
#define HOSTS_MAX      2000u /* 512-byte sectors in 1 MiB */

static void put_name(uint8_t *at, const char *name)
{
    size_t len = strlen(name);
    memcpy(at, name, len < LEASES_NAME_SIZE - 1 ? len : LEASES_NAME_SIZE - 1);
}

static void common_out(uint8_t *sector, uint32_t magic, uint32_t version, const char *space,
                       const char *name)
{
    memset(sector, 0, LUN_SECTOR);
    le32_put(sector, magic);
    le32_put(sector + 4, version);
    le32_put(sector + 8, 0x10);
    le32_put(sector + 12, LUN_SECTOR);
    put_name(sector + 56, space);
    put_name(sector + 104, name);
}

static void checksum_out(uint8_t *sector)
{
    le32_put(sector + 168, ~crc32c_more(1, sector, 168));
}

void delta_lease_out(uint8_t sector[LUN_SECTOR], const char *space, const struct model_host *host,
                     uint32_t io_timeout_s)
{
    common_out(sector, MAGIC_DELTA, VERSION_DELTA, space, host->name);
    le64_put(sector + 24, 1);
    le64_put(sector + 32, host->owner_id);
    le64_put(sector + 40, host->generation);
    le64_put(sector + 152, host->timestamp);
    checksum_out(sector);
    le16_put(sector + 174, (uint16_t)io_timeout_s);
}

void leader_record_out(uint8_t sector[LUN_SECTOR], const char *space, const char *resource,
                       const struct model_lease *lease, uint64_t written_s)
{
    common_out(sector, MAGIC_LEADER, VERSION_LEADER, space, resource);
    le64_put(sector + 16, HOSTS_MAX);
    le64_put(sector + 24, HOSTS_MAX);
    le64_put(sector + 32, lease->owner_id);
    le64_put(sector + 40, lease->owner_generation);
    le64_put(sector + 48, lease->lver);
    le64_put(sector + 152, lease->timestamp);
    checksum_out(sector);
    le64_put(sector + 176, lease->owner_id);
    le64_put(sector + 184, lease->owner_generation);
    le64_put(sector + 192, written_s);
}

void model_write_host(uint32_t host_id)
{
    char space[48];
    uint8_t sector[LUN_SECTOR];
    pool_lockspace(&model_sb.pool_id, space);
    delta_lease_out(sector, space, &model_hosts[host_id], model_sb.io_timeout_s);
    lun_poke(model_sb.layout.lockspace + (uint64_t)(host_id - 1) * LUN_SECTOR, sector,
             sizeof sector);
}

static void write_resource(uint32_t index, const char *name, const struct model_lease *lease,
                           uint64_t written_s)
{
    char space[48];
    uint8_t sector[LUN_SECTOR];
    pool_lockspace(&model_sb.pool_id, space);
    leader_record_out(sector, space, name, lease, written_s);
    lun_poke(layout_resource(&model_sb.layout, index), sector, sizeof sector);
}

void model_write_lease(uint64_t written_s)
{
    write_resource(LAYOUT_RESOURCE_COORDINATOR, "coordinator", &model_lease, written_s);
}

void model_format(void)
{
    static const struct model_lease never;
    for (uint32_t h = 1; h <= model_sb.layout.max_nodes; h++)
        model_write_host(h);
    write_resource(LAYOUT_RESOURCE_COORDINATOR, "coordinator", &never, 0);
    write_resource(LAYOUT_RESOURCE_MEMBER, "member", &never, 0);
}
