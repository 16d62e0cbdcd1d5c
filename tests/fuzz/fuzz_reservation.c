/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of an array to PERSISTENT RESERVE IN. The input is the answer, read as each of the three.
 *
 * What must hold beyond "no crash": a list of keys that is accepted is as long as the answer says
 * and no longer than the answer; the victims are keys of that list, of the host and of generations
 * that were asked for, each once; none of those that qualify is left out.
 */
#include "fencing/reservation_internal.h"
#include "fuzz/fuzz.h"

static struct reservation_keys keys;
static uint64_t victims[RESERVATION_KEYS_MAX];

static void check_victims(const struct uuid *pool, uint32_t host_id, uint64_t generation)
{
    uint32_t n = reservation_victims(&keys, pool, host_id, generation, victims), id;
    uint64_t g;

    for (uint32_t i = 0; i < n; i++) {
        MUST(reservation_keys_have(&keys, victims[i]), "a victim was among the keys");
        MUST(reservation_key_in(pool, victims[i], &id, &g) && id == host_id && g <= generation,
             "a victim is who was asked for");
        for (uint32_t k = 0; k < i; k++)
            MUST(victims[k] != victims[i], "a victim stands there once");
    }
    for (uint32_t i = 0; i < keys.n; i++) {
        bool named = false;
        if (!reservation_key_in(pool, keys.keys[i], &id, &g) || id != host_id || g > generation)
            continue;
        for (uint32_t k = 0; k < n; k++)
            named = named || victims[k] == keys.keys[i];
        MUST(named, "who qualifies is a victim");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The short id's low bits are 'AB': a key that begins with "LAB" is this pool's. */
    static const struct uuid pool = {{'B', 'A', 0, 0, 0, 0, 'A', 'B'}};
    struct reservation_holder holder;
    struct reservation_capabilities can;
    uint32_t id;
    uint64_t g, again;

    if (reservation_holder_in(data, size, &holder, NULL) == 0)
        MUST(holder.held || holder.key == 0, "no reservation has no key");
    if (reservation_capabilities_in(data, size, &can, NULL) == 0)
        MUST(size >= 8, "capabilities are eight bytes");
    if (reservation_keys_in(data, size, &keys, NULL) < 0)
        return 0;
    MUST(8 + 8 * (size_t)keys.n <= size, "every key was in the answer");
    for (uint32_t i = 0; i < keys.n; i++) {
        if (!reservation_key_in(&pool, keys.keys[i], &id, &g))
            continue;
        MUST(id == 0 ||
                 (reservation_key_out(&pool, id, g, &again, NULL) == 0 && again == keys.keys[i]),
             "a key of ours encodes again");
        if (i < 16)
            check_victims(&pool, id, g);
    }
    return 0;
}
