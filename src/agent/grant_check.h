/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's last look before it maps anything writable: does the LUN itself say that we may
 * (SAFETY 2)? */
#ifndef LUNAR_AGENT_GRANT_CHECK_H
#define LUNAR_AGENT_GRANT_CHECK_H

#include "base/error.h"
#include "base/uuid.h"
#include "diskrpc/page.h"
#include "diskrpc/superblock.h"
#include "diskrpc/table.h"

/*
 * Blocking O_DIRECT reads through `fd`. 0 if the coordinator lease's version is `term` and the
 * newest of our grant tables was written under `term` and names the attachment for our generation,
 * and that layer of it, if one is given (NULL: any).
 * LUNAR_E_STALE otherwise; -errno or LUNAR_E_CORRUPT if the LUN does not tell. Call it after the
 * report that says "opening" has been written.
 */
int grant_check(int fd, const struct superblock *sb, const struct incarnation *self, uint64_t term,
                const struct uuid *attachment_id, const struct table_layer *layer,
                struct error *err);

/*
 * The half of it that is about the term, for extents that a coordinator of `term` answered to have
 * given a layer that is open here. The answer followed its commit, and the acquire of a later
 * coordinator, which raises the lease's version before it reads the metadata, has not come yet when
 * this reads `term`: so every later coordinator reads a metadata text that has the extents in that
 * layer, and gives them to nobody else. Results as above.
 */
int grant_check_term(int fd, const struct superblock *sb, uint64_t term, struct error *err);

#endif
