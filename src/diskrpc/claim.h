/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The claim of a host id: what a node that is about to join writes into the up page of a free id,
 * so that of several nodes that chose the same one all but the last writer choose again at once.
 *
 * A courtesy, never a proof: sanlock alone decides whose the id is. A claim is a unit of its own
 * kind, so no reader of up pages takes it for a page, and it carries nothing that anybody acts on
 * but other joiners. DISK-FORMAT.md has the bytes. Pure.
 */
#ifndef LUNAR_DISKRPC_CLAIM_H
#define LUNAR_DISKRPC_CLAIM_H

#include "diskrpc/page.h"

#define CLAIM_HEADER_SIZE 96u

struct claim {
    uint32_t slot; /* host id */
    struct uuid pool_id;
    struct uuid nonce;         /* of this attempt: two attempts never share one */
    uint64_t lease_generation; /* of the free lease that the claimant saw */
    char node_name[PAGE_NAME_SIZE];
};

void claim_out(const struct claim *claim, uint8_t buffer[PAGE_SIZE_BYTES]);
/* 0, or an error for everything that is not a claim of that slot and pool (as page_in's); nothing
 * of *ret may be used then. */
int claim_in(const uint8_t buffer[PAGE_SIZE_BYTES], uint32_t slot, const struct uuid *pool_id,
             struct claim *ret, struct error *err);

#endif
