/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sanlock's records: delta leases and leader records. The input is one byte of options and up to
 * eight sectors of 512 bytes; bit 0 puts the right magic and checksum into each (the magic of a
 * delta lease, or with bit 1 of a leader record).
 *
 * What must hold beyond "no crash": names end within their 48 bytes; leases_choose, on the leases
 * that were accepted, never takes an id under another running name, nor one to be avoided, and says
 * "same name" exactly when the chosen lease runs under our name.
 */
#include "base/crc32c.h"
#include "base/le.h"
#include "fencing/leases.h"
#include "fuzz/fuzz.h"

#define SECTOR  512u
#define SECTORS 8u

static void seal(uint8_t *sector, bool leader)
{
    le32_put(sector, leader ? 0x06152010u : 0x12212010u);
    le32_put(sector + 168, ~crc32c_more(1, sector, 168));
}

static void check_leader(const uint8_t *sector)
{
    struct leader_record record;
    struct error err = ERROR_INIT;
    int rc = leader_record_in(sector, NULL, &record, &err);
    MUST(rc == 0 || (err.code == rc && err.text[0]), "a refusal says why");
    if (rc == 0)
        MUST(strlen(record.space) <= 48 && strlen(record.resource) <= 48, "names end");
}

static void choose(const struct delta_lease *leases, uint32_t n)
{
    bool avoid[SECTORS] = {[0] = true}, same;
    uint32_t chosen;

    if (leases_choose(leases, n, "lunar-me", avoid, &chosen, &same, NULL) < 0)
        return;
    MUST(chosen >= 1 && chosen <= SECTORS && chosen != leases[0].host_id, "none to be avoided");
    for (uint32_t i = 0; i < n; i++) {
        if (leases[i].host_id != chosen)
            continue;
        bool ours = strcmp(leases[i].owner_name, "lunar-me") == 0;
        MUST(ours || leases[i].timestamp == 0, "nobody else's running lease");
        MUST(same == (ours && leases[i].timestamp != 0), "a running namesake is told");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = {data, size};
    struct delta_lease leases[SECTORS];
    struct error err = ERROR_INIT;
    uint8_t options = feed_u8(&f);
    uint32_t n = 0;

    for (uint32_t i = 0; i < SECTORS && f.left > 0; i++) {
        uint8_t sector[SECTOR] = {0};
        const uint8_t *bytes;
        /* 176 bytes hold all the fields: the rest of a sector is not read. */
        size_t len = feed_bytes(&f, options & 4 ? 176 : SECTOR, &bytes);
        memcpy(sector, bytes, len);
        if (options & 1)
            seal(sector, (options & 2) != 0);
        check_leader(sector);
        int rc = delta_lease_in(sector, i + 1, options & 8 ? "lunar-test" : NULL, &leases[n], &err);
        MUST(rc == 0 || (err.code == rc && err.text[0]), "a refusal says why");
        if (rc < 0)
            continue;
        MUST(strlen(leases[n].space) <= 48 && strlen(leases[n].owner_name) <= 48, "names end");
        n++;
    }
    if (n > 0)
        choose(leases, n);
    return 0;
}
