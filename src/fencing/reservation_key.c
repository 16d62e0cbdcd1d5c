/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and answers of persistent reservations; see reservation.h. Pure.
 *
 * A key's 64 bits, highest first: 8 'L', 16 of the pool's short id, 12 host id, 28 generation. The
 * 'L' makes it never 0 and tells lunar's keys from others'; the pool's bits tell a pool that was
 * formatted over another from it.
 *
 * Failure modes: an answer that is too short, odd, or says that it was cut is an error and never
 * read as "few keys": a key that is overlooked is a node that goes on writing.
 */
#include <endian.h>
#include <inttypes.h>
#include <string.h>

#include "fencing/reservation_internal.h"

#define KEY_TAG ((uint64_t)'L' << 56)

static uint16_t be16_get(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32_get(const uint8_t *p)
{
    return (uint32_t)be16_get(p) << 16 | be16_get(p + 2);
}

static uint64_t be64_get(const uint8_t *p)
{
    return (uint64_t)be32_get(p) << 32 | be32_get(p + 4);
}

static uint64_t pool_tag(const struct uuid *pool_id)
{
    return KEY_TAG | (uuid_short(pool_id) & 0xffff) << 40;
}

int reservation_key_out(const struct uuid *pool_id, uint32_t host_id, uint64_t generation,
                        uint64_t *ret, struct error *err)
{
    if (host_id == 0 || host_id > RESERVATION_HOST_ID_MAX ||
        generation > RESERVATION_GENERATION_MAX)
        return error_set(err, LUNAR_E_TOO_BIG,
                         "host id %" PRIu32 ", generation %" PRIu64
                         " do not fit a reservation key: format the pool anew",
                         host_id, generation);
    *ret = pool_tag(pool_id) | (uint64_t)host_id << 28 | generation;
    return 0;
}

bool reservation_key_in(const struct uuid *pool_id, uint64_t key, uint32_t *ret_host_id,
                        uint64_t *ret_generation)
{
    if (key >> 40 != pool_tag(pool_id) >> 40)
        return false;
    *ret_host_id = (uint32_t)(key >> 28) & RESERVATION_HOST_ID_MAX;
    *ret_generation = key & RESERVATION_GENERATION_MAX;
    return true;
}

bool reservation_key_is_lunar(uint64_t key)
{
    return key >> 56 == KEY_TAG >> 56;
}

int reservation_keys_in(const uint8_t *answer, size_t len, struct reservation_keys *ret,
                        struct error *err)
{
    ret->n = 0;
    if (len < 8)
        return error_set(err, LUNAR_E_CORRUPT, "READ KEYS gave %zu bytes", len);
    uint32_t wanted = be32_get(answer + 4);
    if (wanted % 8 != 0)
        return error_set(err, LUNAR_E_CORRUPT, "READ KEYS says %" PRIu32 " bytes of keys", wanted);
    if (wanted > 8 * RESERVATION_KEYS_MAX)
        return error_set(err, LUNAR_E_TOO_BIG,
                         "the device has %" PRIu32 " keys, at most %u can "
                         "be read",
                         wanted / 8, RESERVATION_KEYS_MAX);
    if (wanted > len - 8)
        return error_set(err, LUNAR_E_CORRUPT,
                         "READ KEYS says %" PRIu32 " bytes of keys and gave %zu", wanted, len - 8);
    for (uint32_t i = 0; i < wanted / 8; i++)
        ret->keys[ret->n++] = be64_get(answer + 8 + 8 * (size_t)i);
    return 0;
}

bool reservation_keys_have(const struct reservation_keys *keys, uint64_t key)
{
    for (uint32_t i = 0; i < keys->n; i++)
        if (keys->keys[i] == key)
            return true;
    return false;
}

static bool among(const uint64_t *keys, uint32_t n, uint64_t key)
{
    for (uint32_t i = 0; i < n; i++)
        if (keys[i] == key)
            return true;
    return false;
}

uint32_t reservation_victims(const struct reservation_keys *keys, const struct uuid *pool_id,
                             uint32_t host_id, uint64_t generation,
                             uint64_t ret[RESERVATION_KEYS_MAX])
{
    uint32_t n = 0, id;
    uint64_t g;

    for (uint32_t i = 0; i < keys->n; i++)
        if (reservation_key_in(pool_id, keys->keys[i], &id, &g) && id == host_id &&
            g <= generation && !among(ret, n, keys->keys[i]))
            ret[n++] = keys->keys[i];
    return n;
}

int reservation_holder_in(const uint8_t *answer, size_t len, struct reservation_holder *ret,
                          struct error *err)
{
    memset(ret, 0, sizeof *ret);
    if (len < 8)
        return error_set(err, LUNAR_E_CORRUPT, "READ RESERVATION gave %zu bytes", len);
    uint32_t wanted = be32_get(answer + 4);
    if (wanted == 0)
        return 0;
    if (wanted < 16 || len < 24)
        return error_set(err, LUNAR_E_CORRUPT,
                         "READ RESERVATION says %" PRIu32 " bytes and gave %zu", wanted, len);
    ret->held = true;
    ret->key = be64_get(answer + 8);
    ret->type = answer[21] & 0x0f;
    return 0;
}

int reservation_capabilities_in(const uint8_t *answer, size_t len,
                                struct reservation_capabilities *ret, struct error *err)
{
    memset(ret, 0, sizeof *ret);
    if (len < 8 || be16_get(answer) < 8)
        return error_set(err, LUNAR_E_UNSUPPORTED, "it does not report what it can do");
    ret->persists = answer[2] & 0x01;
    /* TMV says whether the mask of types counts; bit 7 of its first byte is type 7. */
    if (!(answer[3] & 0x80))
        return error_set(err, LUNAR_E_UNSUPPORTED, "it does not report which types it has");
    if (!(answer[4] & 0x80))
        return error_set(err, LUNAR_E_UNSUPPORTED,
                         "it has no \"write exclusive, all registrants\" (type 7)");
    return 0;
}
