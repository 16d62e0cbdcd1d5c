/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The claim's codec. It fills the page of the id that it claims, so that a read of the up pages
 * shows pages and claims alike; its kind keeps readers of pages from believing it. Failure modes:
 * those of every unit, and a name that does not end.
 */
#include "diskrpc/claim.h"

#include <assert.h>
#include <string.h>

#include "base/le.h"
#include "diskrpc/unit.h"

enum {
    AT_NONCE = 48,
    AT_LEASE_GENERATION = 64,
    AT_NAME = PAGE_SIZE_BYTES - PAGE_NAME_SIZE, /* where an up page has it */
};

void claim_out(const struct claim *claim, uint8_t buffer[PAGE_SIZE_BYTES])
{
    assert(claim->slot >= 1);
    const struct unit unit = {
        .kind = UNIT_CLAIM,
        .header_len = CLAIM_HEADER_SIZE,
        .len = PAGE_SIZE_BYTES,
        .slot = claim->slot,
        .pool_id = claim->pool_id,
    };
    memset(buffer, 0, PAGE_SIZE_BYTES);
    unit_out(&unit, buffer);
    memcpy(buffer + AT_NONCE, claim->nonce.b, sizeof claim->nonce.b);
    le64_put(buffer + AT_LEASE_GENERATION, claim->lease_generation);
    unit_text_put(buffer + AT_NAME, claim->node_name, PAGE_NAME_SIZE - 1);
    unit_seal(buffer);
}

int claim_in(const uint8_t buffer[PAGE_SIZE_BYTES], uint32_t slot, const struct uuid *pool_id,
             struct claim *ret, struct error *err)
{
    struct unit unit;
    int rc = unit_in(buffer, PAGE_SIZE_BYTES, UNIT_CLAIM, slot, pool_id, &unit, err);
    if (rc < 0)
        return rc;
    if (unit.header_len != CLAIM_HEADER_SIZE || unit.len != PAGE_SIZE_BYTES)
        return error_set(err, LUNAR_E_CORRUPT, "header %u, length %u", unit.header_len, unit.len);
    ret->slot = slot;
    ret->pool_id = unit.pool_id;
    memcpy(ret->nonce.b, buffer + AT_NONCE, sizeof ret->nonce.b);
    ret->lease_generation = le64_get(buffer + AT_LEASE_GENERATION);
    memcpy(ret->node_name, buffer + AT_NAME, PAGE_NAME_SIZE);
    if (ret->node_name[PAGE_NAME_SIZE - 1] != '\0')
        return error_set(err, LUNAR_E_CORRUPT, "the node's name does not end");
    return 0;
}
