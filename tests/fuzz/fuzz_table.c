/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grant and report tables, and what a new leader makes of three of them. The input is up to three
 * tables (copy A, copy B, the node's report), each behind a u16 length and in one of the shapes of
 * fuzz_unit; a table's bytes are zero-padded to 4 KiB, or to 64 KiB if there are more.
 *
 * What must hold beyond "no crash": an accepted table encodes and decodes to the same; of the
 * merged one, that every (attachment, volume) that any of the three names is in it, unless it is
 * of a life that a copy marks as over, and nothing else, each once and as granted, with the longest
 * of the chains that were named; what was merged can be merged again (a leader that takes over
 * twice), unless it does not fit, which is an error and never a table with something left out.
 */
#include "coordinator/leader.h"
#include "diskrpc/unit.h"
#include "fuzz/fuzz.h"

#define HOST 3u

static void check_entry(const struct table_entry *a, const struct table_entry *b)
{
    MUST(uuid_equal(&a->volume_id, &b->volume_id) &&
             uuid_equal(&a->attachment_id, &b->attachment_id),
         "ids survive");
    MUST(a->generation == b->generation && a->term == b->term && a->mode == b->mode &&
             a->state == b->state && a->n_layers == b->n_layers,
         "every number of an entry survives");
    MUST(memcmp(a->layers, b->layers, a->n_layers * sizeof a->layers[0]) == 0, "layers survive");
}

static void check_again(const struct table *t)
{
    uint32_t len = table_size(t);
    uint8_t *buffer = malloc(len);
    struct table again;

    MUST(buffer && len > 0 && len <= LAYOUT_TABLE_SIZE, "what came from a slot fits a slot");
    MUST(table_out(t, buffer, len, NULL) == 0, "what was decoded encodes");
    MUST(table_wanted(buffer) == len, "the first page tells the length");
    MUST(table_in(buffer, len, t->kind, HOST, &fuzz_pool, &again, NULL) == 0, "and decodes");
    MUST(again.term == t->term && again.seq == t->seq && again.node_dead == t->node_dead &&
             again.dead_generation == t->dead_generation && again.n_entries == t->n_entries &&
             again.writer.host_id == t->writer.host_id &&
             again.writer.generation == t->writer.generation &&
             again.writer.run_or_term == t->writer.run_or_term,
         "every number survives");
    for (uint32_t i = 0; i < t->n_entries; i++)
        check_entry(&t->entries[i], &again.entries[i]);
    MUST(!table_newer(t, &again) && !table_newer(&again, t), "neither is newer");
    table_free(&again);
    free(buffer);
}

static bool take_table(struct feed *f, enum table_kind kind, struct table *ret)
{
    static uint8_t buffer[LAYOUT_TABLE_SIZE];
    struct error err = ERROR_INIT;
    const uint8_t *bytes;
    size_t n = feed_bytes(f, feed_u16(f), &bytes);
    uint32_t len = n <= LAYOUT_PAGE_SIZE ? LAYOUT_PAGE_SIZE : LAYOUT_TABLE_SIZE;
    int unit_kind = kind == TABLE_GRANTS ? UNIT_GRANTS : UNIT_REPORTS;

    fuzz_unit(bytes, n, unit_kind, 128, HOST, buffer, len);
    int rc = table_in(buffer, len, kind, HOST, &fuzz_pool, ret, &err);
    MUST(rc == 0 || (err.code == rc && err.text[0]), "a refusal says why");
    if (rc == 0)
        check_again(ret);
    return rc == 0;
}

static const struct table_entry *find(const struct table *t, const struct table_entry *e)
{
    const struct table_entry *found = NULL;
    for (uint32_t i = 0; i < t->n_entries; i++) {
        const struct table_entry *x = &t->entries[i];
        if (!uuid_equal(&x->attachment_id, &e->attachment_id) ||
            !uuid_equal(&x->volume_id, &e->volume_id))
            continue;
        MUST(!found, "an attachment of a volume stands once");
        found = x;
    }
    return found;
}

static void check_merged(const struct table *merged, const struct table *const from[3])
{
    for (int k = 0; k < 3; k++)
        for (uint32_t i = 0; from[k] && i < from[k]->n_entries; i++) {
            const struct table_entry *named = &from[k]->entries[i];
            const struct table_entry *e = find(merged, named);
            if (merged->node_dead && named->generation <= merged->dead_generation)
                continue;
            MUST(e && e->n_layers >= named->n_layers && e->generation >= named->generation,
                 "what one of them names stands");
        }
    for (int k = 0; k < 2; k++)
        MUST(!from[k] || !from[k]->node_dead ||
                 (merged->node_dead && merged->dead_generation >= from[k]->dead_generation),
             "the marks stay");
    for (uint32_t i = 0; i < merged->n_entries; i++) {
        bool named = false;
        MUST(!merged->node_dead || merged->entries[i].generation > merged->dead_generation,
             "nothing of a life that is over stands");
        for (int k = 0; k < 3 && !named; k++)
            for (uint32_t j = 0; from[k] && j < from[k]->n_entries && !named; j++)
                named = uuid_equal(&merged->entries[i].attachment_id,
                                   &from[k]->entries[j].attachment_id) &&
                        uuid_equal(&merged->entries[i].volume_id, &from[k]->entries[j].volume_id);
        MUST(named && merged->entries[i].state == TABLE_STATE_GRANTED, "nothing is made up");
    }
}

static void check_merge(const struct table *const from[3])
{
    struct table merged, twice;
    struct error err = ERROR_INIT;

    int rc = grants_merge(from[0], from[1], from[2], HOST, &fuzz_pool, &merged, &err);
    if (rc < 0) {
        MUST(rc == LUNAR_E_TOO_BIG && merged.n_entries == TABLE_ENTRIES_MAX,
             "only for want of room");
    } else {
        check_merged(&merged, from);
        MUST(grants_merge(&merged, from[1], from[2], HOST, &fuzz_pool, &twice, &err) == 0 &&
                 twice.n_entries == merged.n_entries,
             "a second takeover finds the same");
        table_free(&twice);
    }
    table_free(&merged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = {data, size};
    struct table tables[3];
    const struct table *from[3] = {NULL, NULL, NULL};

    for (int i = 0; i < 3; i++)
        if (take_table(&f, i < 2 ? TABLE_GRANTS : TABLE_REPORTS, &tables[i]))
            from[i] = &tables[i];
    check_merge(from);
    for (int i = 0; i < 3; i++)
        if (from[i])
            table_free(&tables[i]);
    return 0;
}
