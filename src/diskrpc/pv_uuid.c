/* SPDX-License-Identifier: Apache-2.0 */
/* The uuids of LUNs that were added to a pool; see pv.h. Pure but for the random bits. */
#include <stdio.h>
#include <string.h>

#include "base/uuid.h"
#include "diskrpc/pv.h"

/* LUNAR1-rrrr-rrrr-rrrr-rrrr-hhhh-hhhhhh: 95 random bits, 59 of the hash. */
#define MARK         "LUNAR1-"
#define HASH_AT      27
#define HASH_LETTERS 10

static const char letters[62] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/* FNV-1a: nobody forges a WWID here, an array's copy merely has another. */
static void hash_wwid(const char *wwid, char ret[HASH_LETTERS + 1])
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *p = wwid; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
    for (int i = 0; i < HASH_LETTERS; i++, hash /= 62)
        ret[i] = letters[hash % 62];
    ret[HASH_LETTERS] = 0;
}

/* The hash's part of a uuid, without the hyphen. */
static void hash_part(const char *uuid, char ret[HASH_LETTERS + 1])
{
    snprintf(ret, HASH_LETTERS + 1, "%.4s%.6s", uuid + HASH_AT, uuid + HASH_AT + 5);
}

void pv_uuid_make(const char *wwid, char ret[PV_UUID_SIZE])
{
    struct uuid random = uuid_random();
    char r[16], hash[HASH_LETTERS + 1];

    for (int i = 0; i < 16; i++)
        r[i] = letters[random.b[i] % 62];
    hash_wwid(wwid, hash);
    snprintf(ret, PV_UUID_SIZE, MARK "%.4s-%.4s-%.4s-%.4s-%.4s-%.6s", r, r + 4, r + 8, r + 12, hash,
             hash + 4);
}

bool pv_uuid_is_added(const char *uuid)
{
    return strlen(uuid) == PV_UUID_SIZE - 1 && strncmp(uuid, MARK, strlen(MARK)) == 0;
}

bool pv_uuid_fits(const char *uuid, const char *wwid)
{
    char want[HASH_LETTERS + 1], has[HASH_LETTERS + 1];
    if (!pv_uuid_is_added(uuid))
        return false;
    hash_wwid(wwid, want);
    hash_part(uuid, has);
    return strcmp(want, has) == 0;
}
