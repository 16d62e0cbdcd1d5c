/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common header of all units; see unit.h for what a reader may conclude from it.
 *
 * Happy path: fill, seal, write; read, check, decode. Failure modes: never written (zeroes), torn
 * or damaged (CRC), of a newer lunar, of another pool or place. The CRC is looked at before the
 * version: a flipped bit in the version field is damage, not the future, and the CRC's place never
 * moves.
 */
#include "diskrpc/unit.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/le.h"

/* Text tools show the name; the line ends and the 0x1a catch whoever copies the area as text. */
static const uint8_t unit_magic[8] = {'L', 'U', 'N', 'A', 'R', 0x0d, 0x0a, 0x1a};

enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_KIND = 10,
    AT_HEADER_LEN = 12,
    AT_POOL = 16,
    AT_LEN = 32,
    AT_CRC = 36,
    AT_SLOT = 40,
    AT_FLAGS = 44,
};

static uint32_t unit_crc(const uint8_t *buffer, uint32_t len)
{
    static const uint8_t zero[4];
    uint32_t crc = crc32c(buffer, AT_CRC);
    crc = crc32c_more(crc, zero, sizeof zero);
    return crc32c_more(crc, buffer + AT_SLOT, len - AT_SLOT);
}

static bool all_zero(const uint8_t *buffer, uint32_t len)
{
    /* A buffer equals itself shifted by one exactly if all its bytes are the first. */
    return buffer[0] == 0 && memcmp(buffer, buffer + 1, len - 1) == 0;
}

void unit_out(const struct unit *unit, uint8_t *buffer)
{
    assert(unit->header_len >= UNIT_HEADER_SIZE && unit->len >= unit->header_len);
    memcpy(buffer + AT_MAGIC, unit_magic, sizeof unit_magic);
    le16_put(buffer + AT_VERSION, UNIT_VERSION);
    le16_put(buffer + AT_KIND, (uint16_t)unit->kind);
    le32_put(buffer + AT_HEADER_LEN, unit->header_len);
    memcpy(buffer + AT_POOL, unit->pool_id.b, sizeof unit->pool_id.b);
    le32_put(buffer + AT_LEN, unit->len);
    le32_put(buffer + AT_CRC, 0);
    le32_put(buffer + AT_SLOT, unit->slot);
    le32_put(buffer + AT_FLAGS, unit->flags);
}

void unit_seal(uint8_t *buffer)
{
    le32_put(buffer + AT_CRC, unit_crc(buffer, le32_get(buffer + AT_LEN)));
}

uint32_t unit_claimed_len(const uint8_t *buffer)
{
    return memcmp(buffer, unit_magic, sizeof unit_magic) == 0 ? le32_get(buffer + AT_LEN) : 0;
}

/* Magic, length and CRC: are these the bytes that somebody sealed? */
static int check_whole(const uint8_t *buffer, uint32_t available, struct error *err)
{
    if (all_zero(buffer, available))
        return error_set(err, LUNAR_E_NOT_FOUND, "never written");
    if (memcmp(buffer, unit_magic, sizeof unit_magic) != 0)
        return error_set(err, LUNAR_E_FOREIGN, "no lunar magic");
    uint32_t len = le32_get(buffer + AT_LEN);
    if (len < UNIT_HEADER_SIZE || len > available)
        return error_set(err, LUNAR_E_CORRUPT, "length %u is not within 48..%u", len, available);
    uint32_t got = le32_get(buffer + AT_CRC), want = unit_crc(buffer, len);
    if (got != want)
        return error_set(err, LUNAR_E_CORRUPT, "checksum is %08x, the bytes give %08x", got, want);
    return 0;
}

int unit_in(const uint8_t *buffer, uint32_t available, enum unit_kind kind, uint32_t slot,
            const struct uuid *pool_id, struct unit *ret, struct error *err)
{
    assert(available >= UNIT_HEADER_SIZE);
    int rc = check_whole(buffer, available, err);
    if (rc < 0)
        return rc;

    uint32_t version = le16_get(buffer + AT_VERSION);
    if (version != UNIT_VERSION)
        return error_set(err, LUNAR_E_VERSION, "format version %u, this lunar knows %u", version,
                         UNIT_VERSION);
    struct unit unit = {
        .kind = kind,
        .header_len = le32_get(buffer + AT_HEADER_LEN),
        .len = le32_get(buffer + AT_LEN),
        .slot = le32_get(buffer + AT_SLOT),
        .flags = le32_get(buffer + AT_FLAGS),
    };
    memcpy(unit.pool_id.b, buffer + AT_POOL, sizeof unit.pool_id.b);
    if (le16_get(buffer + AT_KIND) != kind)
        return error_set(err, LUNAR_E_FOREIGN, "kind %u where %u belongs",
                         le16_get(buffer + AT_KIND), (unsigned)kind);
    if (unit.slot != slot)
        return error_set(err, LUNAR_E_FOREIGN, "of slot %u, found in slot %u", unit.slot, slot);
    if (pool_id && !uuid_equal(&unit.pool_id, pool_id)) {
        char text[UUID_TEXT_SIZE];
        return error_set(err, LUNAR_E_FOREIGN, "belongs to pool %s",
                         uuid_format(&unit.pool_id, text));
    }
    if (unit.header_len < UNIT_HEADER_SIZE || unit.header_len > unit.len)
        return error_set(err, LUNAR_E_CORRUPT, "header length %u", unit.header_len);
    *ret = unit;
    return 0;
}
