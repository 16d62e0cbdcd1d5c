/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Step (2) of SAFETY 2, from the LUN and nowhere else.
 *
 * Why this is enough: our report ("opening under t") is on the LUN before these reads. A later
 * coordinator acquires its lease, which raises lver, before it reads reports. Either we see the
 * raised lver here and give up, or it sees our report there and holds the volume for ours. Failure
 * modes: a lower or higher term, no grant, a grant of a former life, a death mark: STALE.
 */
#include "agent/grant_check.h"

#include "diskrpc/table.h"
#include "fencing/leases.h"

int grant_check_term(int fd, const struct superblock *sb, uint64_t term, struct error *err)
{
    struct leader_record record;
    char space[48];

    pool_lockspace(&sb->pool_id, space);
    int rc = leader_read(fd, &sb->layout, LAYOUT_RESOURCE_COORDINATOR, space, &record, err);
    if (rc < 0)
        return rc;
    if (record.lver != term)
        return error_set(err, LUNAR_E_STALE,
                         "granted under term %llu, but the coordinator's lease says %llu",
                         (unsigned long long)term, (unsigned long long)record.lver);
    return 0;
}

static bool names(const struct table_entry *e, const struct table_layer *layer)
{
    for (uint32_t i = 0; i < e->n_layers; i++)
        if (e->layers[i].volume_short == layer->volume_short && e->layers[i].index == layer->index)
            return true;
    return false;
}

static int check_table(int fd, const struct superblock *sb, const struct incarnation *self,
                       uint64_t term, const struct uuid *attachment_id,
                       const struct table_layer *layer, struct error *err)
{
    struct table grants = {0};
    int rc =
        table_read_newest(fd, &sb->layout, TABLE_GRANTS, self->host_id, &sb->pool_id, &grants, err);
    if (rc < 0)
        return rc == LUNAR_E_NOT_FOUND ? error_set(err, LUNAR_E_STALE, "no grant on the LUN") : rc;
    const struct table_entry *e = table_find_attachment(&grants, attachment_id);
    if (!e || grants.term != term || e->generation != self->generation)
        rc =
            error_set(err, LUNAR_E_STALE, "the LUN holds no grant of term %llu for this attachment",
                      (unsigned long long)term);
    else if (table_marks_dead(&grants, self->generation))
        rc = error_set(err, LUNAR_E_STALE, "the coordinator holds this node for dead");
    else if (layer && !names(e, layer))
        rc = error_set(err, LUNAR_E_STALE, "the grant on the LUN does not name layer %u",
                       layer->index);
    table_free(&grants);
    return rc;
}

int grant_check(int fd, const struct superblock *sb, const struct incarnation *self, uint64_t term,
                const struct uuid *attachment_id, const struct table_layer *layer,
                struct error *err)
{
    int rc = grant_check_term(fd, sb, term, err);
    return rc < 0 ? rc : check_table(fd, sb, self, term, attachment_id, layer, err);
}
