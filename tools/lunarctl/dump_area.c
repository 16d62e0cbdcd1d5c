/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of `lun dump` other than pages: superblocks, leases, the beat, tables, metadata copies,
 * LVM's own metadata. Every function returns JSON and never fails: see dump.h. Units that were
 * never written are left out.
 */
#include "dump.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "coordinator/mda.h"
#include "diskrpc/beat.h"
#include "diskrpc/mdcopy.h"
#include "diskrpc/table.h"
#include "fencing/leases.h"
#include "output.h"

json_t *dump_damaged(int code, const struct error *err)
{
    char text[sizeof err->text + 64];
    json_t *object = json_object();
    snprintf(text, sizeof text, "%s (%s)", err->text[0] ? err->text : error_text(code),
             error_name(code));
    js_set(object, "damaged", js_text(text));
    return object;
}

static json_t *layout_json(const struct layout *l)
{
    json_t *o = json_object();
    js_set(o, "max_nodes", js_u64(l->max_nodes));
    js_set(o, "sector_size", js_u64(l->sector_size));
    js_set(o, "align_size", js_u64(l->align_size));
    js_set(o, "area_start", js_u64(l->area_start));
    js_set(o, "area_size", js_u64(l->area_size));
    js_set(o, "lockspace", js_u64(l->lockspace));
    js_set(o, "resources", js_u64(l->resources));
    js_set(o, "up_pages", js_u64(l->up_pages));
    js_set(o, "down_pages", js_u64(l->down_pages));
    js_set(o, "up_spill", js_u64(l->up_spill));
    js_set(o, "down_spill", js_u64(l->down_spill));
    js_set(o, "grants_a", js_u64(l->grants_a));
    js_set(o, "grants_b", js_u64(l->grants_b));
    js_set(o, "reports_a", js_u64(l->reports_a));
    js_set(o, "reports_b", js_u64(l->reports_b));
    js_set(o, "metadata_a", js_u64(l->metadata_a));
    js_set(o, "metadata_b", js_u64(l->metadata_b));
    return o;
}

static json_t *superblock_json(const struct superblock *sb)
{
    char vg[POOL_NAME_SIZE + 6], space[48];
    json_t *o = json_object();

    pool_vg_name(sb->pool_name, vg);
    pool_lockspace(&sb->pool_id, space);
    js_set(o, "state", js_text(sb->state == SUPERBLOCK_READY ? "ready" : "formatting"));
    js_set(o, "write_count", js_u64(sb->write_count));
    js_set(o, "flags", js_u64(sb->flags));
    js_set(o, "test", json_boolean(sb->flags & SUPERBLOCK_FLAG_TEST));
    js_set(o, "require_pr", json_boolean(sb->flags & SUPERBLOCK_FLAG_PR));
    js_set(o, "pool", js_text(sb->pool_name));
    js_set(o, "pool_id", js_uuid(&sb->pool_id));
    js_set(o, "vg", js_text(vg));
    js_set(o, "lockspace", js_text(space));
    js_set(o, "io_timeout_s", js_u64(sb->io_timeout_s));
    js_set(o, "watchdog_timeout_s", js_u64(sb->watchdog_fire_timeout_s));
    js_set(o, "created_s", js_u64(sb->created_s));
    js_set(o, "extent_size", js_u64(sb->extent_size));
    js_set(o, "wwid", js_text(sb->wwid));
    js_set(o, "layout", layout_json(&sb->layout));
    return o;
}

json_t *dump_superblock_copy(int fd, int copy, struct superblock *ret, int *ret_status)
{
    uint64_t offset = LAYOUT_AREA_START + (copy ? LAYOUT_SUPERBLOCK_B_OFFSET : 0);
    uint8_t *buffer = io_alloc(SUPERBLOCK_SIZE);
    struct error err = ERROR_INIT;

    *ret_status = io_read(fd, buffer, SUPERBLOCK_SIZE, offset, &err);
    if (*ret_status == 0)
        *ret_status = superblock_in(buffer, ret, &err);
    free(buffer);
    json_t *o = *ret_status == 0 ? superblock_json(ret) : dump_damaged(*ret_status, &err);
    js_set(o, "copy", js_text(copy ? "B" : "A"));
    js_set(o, "offset", js_u64(offset));
    return o;
}

static json_t *lease_json(const struct delta_lease *l)
{
    json_t *o = json_object();
    js_set(o, "host_id", js_u64(l->host_id));
    js_set(o, "in_use", json_boolean(l->timestamp != 0));
    js_set(o, "name", js_text(l->owner_name));
    js_set(o, "owner_id", js_u64(l->owner_id));
    js_set(o, "generation", js_u64(l->generation));
    js_set(o, "lver", js_u64(l->lver));
    js_set(o, "timestamp_s", js_u64(l->timestamp));
    js_set(o, "io_timeout_s", js_u64(l->io_timeout_s));
    return o;
}

/* Leases that were ever used; "free" counts all that nobody holds now. */
json_t *dump_lockspace(int fd, const struct superblock *sb)
{
    const struct layout *l = &sb->layout;
    uint8_t *buffer = io_alloc(l->align_size);
    struct error err = ERROR_INIT;
    uint64_t n_free = 0;
    char space[48];
    json_t *o, *leases = json_array();

    pool_lockspace(&sb->pool_id, space);
    int rc = io_read(fd, buffer, l->align_size, l->lockspace, &err);
    o = rc < 0 ? dump_damaged(rc, &err) : json_object();
    for (uint32_t id = 1; rc == 0 && id <= l->max_nodes; id++) {
        struct delta_lease lease;
        int bad =
            delta_lease_in(buffer + (size_t)(id - 1) * l->sector_size, id, space, &lease, &err);
        if (bad < 0) {
            json_t *d = dump_damaged(bad, &err);
            js_set(d, "host_id", js_u64(id));
            js_append(leases, d);
            continue;
        }
        n_free += lease.timestamp == 0;
        if (lease.timestamp != 0 || lease.generation != 0)
            js_append(leases, lease_json(&lease));
    }
    free(buffer);
    js_set(o, "name", js_text(space));
    js_set(o, "free", js_u64(n_free));
    js_set(o, "leases", leases);
    return o;
}

static const char *resource_name(uint32_t index)
{
    return index == LAYOUT_RESOURCE_COORDINATOR ? "coordinator"
           : index == LAYOUT_RESOURCE_MEMBER    ? "member"
                                                : "spare";
}

json_t *dump_resources(int fd, const struct superblock *sb)
{
    json_t *list = json_array();
    char space[48];

    pool_lockspace(&sb->pool_id, space);
    for (uint32_t i = 0; i < LAYOUT_RESOURCES; i++) {
        struct leader_record r;
        struct error err = ERROR_INIT;
        int rc = leader_read(fd, &sb->layout, i, space, &r, &err);
        json_t *o = rc < 0 ? dump_damaged(rc, &err) : json_object();
        js_set(o, "index", js_u64(i));
        js_set(o, "use", js_text(resource_name(i)));
        if (rc == 0) {
            js_set(o, "name", js_text(r.resource));
            js_set(o, "held", json_boolean(r.timestamp != 0));
            js_set(o, "owner_id", js_u64(r.owner_id));
            js_set(o, "owner_generation", js_u64(r.owner_generation));
            js_set(o, "lver", js_u64(r.lver));
            js_set(o, "timestamp_s", js_u64(r.timestamp));
        }
        js_append(list, o);
    }
    return list;
}

static json_t *dump_still(const struct beat *beat)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < beat->n_still; i++) {
        json_t *o = json_object();
        js_set(o, "host_id", js_u64(beat->still[i].host_id));
        js_set(o, "generation", js_u64(beat->still[i].generation));
        js_set(o, "timestamp_s", js_u64(beat->still[i].timestamp));
        js_append(list, o);
    }
    return list;
}

json_t *dump_beat(int fd, const struct superblock *sb)
{
    struct error err = ERROR_INIT;
    struct beat beat;
    int rc = beat_read(fd, &sb->layout, &sb->pool_id, &beat, &err);
    if (rc == LUNAR_E_NOT_FOUND)
        return NULL;
    json_t *o = rc < 0 ? dump_damaged(rc, &err) : json_object();
    js_set(o, "offset", js_u64(beat_offset(&sb->layout)));
    if (rc < 0)
        return o;
    js_set(o, "host_id", js_u64(beat.writer.host_id));
    js_set(o, "generation", js_u64(beat.writer.generation));
    js_set(o, "term", js_u64(beat.writer.run_or_term));
    js_set(o, "count", js_u64(beat.count));
    js_set(o, "phase", js_text(beat_phase_name(beat.phase)));
    js_set(o, "node", js_text(beat.node_name));
    js_set(o, "still", dump_still(&beat));
    return o;
}

static const char *mode_name(enum table_mode mode)
{
    return mode == TABLE_MODE_ATTACH ? "attach" : mode == TABLE_MODE_JOB ? "job" : "?";
}

static const char *table_state_name(enum table_state state)
{
    switch (state) {
    case TABLE_STATE_OPENING:
        return "opening";
    case TABLE_STATE_OPEN:
        return "open";
    case TABLE_STATE_CLOSING:
        return "closing";
    case TABLE_STATE_GRANTED:
        return "granted";
    }
    return "?";
}

static json_t *entry_json(const struct table_entry *e)
{
    json_t *o = json_object(), *layers = json_array();
    js_set(o, "volume_id", js_uuid(&e->volume_id));
    js_set(o, "attachment_id", js_uuid(&e->attachment_id));
    js_set(o, "generation", js_u64(e->generation));
    js_set(o, "term", js_u64(e->term));
    js_set(o, "mode", js_text(mode_name(e->mode)));
    js_set(o, "state", js_text(table_state_name(e->state)));
    for (uint32_t i = 0; i < e->n_layers; i++) {
        char lv[32];
        json_t *layer = json_object();
        snprintf(lv, sizeof lv, "v%016llx.%u", (unsigned long long)e->layers[i].volume_short,
                 e->layers[i].index);
        js_set(layer, "lv", js_text(lv));
        js_set(layer, "map_generation", js_u64(e->layers[i].map_generation));
        js_append(layers, layer);
    }
    js_set(o, "layers", layers);
    return o;
}

static json_t *table_json(const struct table *t)
{
    json_t *o = json_object(), *entries = json_array();
    js_set(o, "writer_host_id", js_u64(t->writer.host_id));
    js_set(o, "writer_generation", js_u64(t->writer.generation));
    js_set(o, t->kind == TABLE_GRANTS ? "writer_term" : "writer_run",
           js_u64(t->writer.run_or_term));
    js_set(o, "term", js_u64(t->term));
    js_set(o, "seq", js_u64(t->seq));
    if (t->node_dead)
        js_set(o, "dead_generation", js_u64(t->dead_generation));
    for (uint32_t i = 0; i < t->n_entries; i++)
        js_append(entries, entry_json(&t->entries[i]));
    js_set(o, "entries", entries);
    return o;
}

json_t *dump_table(int fd, const struct superblock *sb, bool reports, uint32_t host_id, int copy)
{
    struct table table;
    struct error err = ERROR_INIT;

    int rc = table_read(fd, &sb->layout, reports ? TABLE_REPORTS : TABLE_GRANTS, host_id, copy,
                        &sb->pool_id, &table, &err);
    if (rc == LUNAR_E_NOT_FOUND)
        return NULL;
    json_t *o = rc < 0 ? dump_damaged(rc, &err) : table_json(&table);
    js_set(o, "host_id", js_u64(host_id));
    js_set(o, "copy", js_text(copy ? "B" : "A"));
    if (rc == 0)
        table_free(&table);
    return o;
}

json_t *dump_tables(int fd, const struct superblock *sb, bool reports)
{
    json_t *list = json_array();

    for (uint32_t id = 1; id <= sb->layout.max_nodes; id++) {
        for (int copy = 0; copy < 2; copy++) {
            json_t *table = dump_table(fd, sb, reports, id, copy);
            if (table)
                js_append(list, table);
        }
    }
    return list;
}

static int check_copy_text(int fd, uint64_t offset, const struct mdcopy *copy, struct error *err)
{
    if (copy->text_len > LAYOUT_METADATA_COPY_SIZE - MDCOPY_HEADER_SIZE)
        return error_set(err, LUNAR_E_CORRUPT, "the text's length %u is impossible",
                         copy->text_len);
    size_t len = ((size_t)copy->text_len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    uint8_t *text = io_alloc(len ? len : IO_ALIGN);
    int rc = io_read(fd, text, len, offset + MDCOPY_HEADER_SIZE, err);
    if (rc == 0 && crc32c(text, copy->text_len) != copy->text_crc)
        rc = error_set(err, LUNAR_E_CORRUPT, "the text does not match its CRC");
    free(text);
    return rc;
}

json_t *dump_metadata_copies(int fd, const struct superblock *sb)
{
    json_t *list = json_array();
    uint8_t *buffer = io_alloc(MDCOPY_HEADER_SIZE);

    for (int slot = 0; slot < 2; slot++) {
        uint64_t offset = slot ? sb->layout.metadata_b : sb->layout.metadata_a;
        struct mdcopy copy;
        struct error err = ERROR_INIT;
        int rc = io_read(fd, buffer, MDCOPY_HEADER_SIZE, offset, &err);
        if (rc == 0)
            rc = mdcopy_in(buffer, &sb->pool_id, &copy, &err);
        if (rc == 0)
            rc = check_copy_text(fd, offset, &copy, &err);
        if (rc == LUNAR_E_NOT_FOUND)
            continue;
        json_t *o = rc < 0 ? dump_damaged(rc, &err) : json_object();
        js_set(o, "copy", js_text(slot ? "B" : "A"));
        if (rc == 0) {
            js_set(o, "term", js_u64(copy.term));
            js_set(o, "seq", js_u64(copy.seq));
            js_set(o, "vg_seqno", js_u64(copy.vg_seqno));
            js_set(o, "text_bytes", js_u64(copy.text_len));
        }
        js_append(list, o);
    }
    free(buffer);
    return list;
}

/* The VG's name is the text's first word: "lunar-x {". */
static void vg_of(const char *text, char *ret, size_t size)
{
    size_t n = strcspn(text, " \t\n{");
    snprintf(ret, size, "%.*s", (int)(n < size ? n : size - 1), text);
}

json_t *dump_lvm(int fd)
{
    struct mda_state state;
    struct error err = ERROR_INIT;
    char *text = NULL, vg[128];
    size_t len = 0;

    int rc = mda_read(fd, &state, &text, &len, &err);
    if (rc < 0)
        return dump_damaged(rc, &err);
    json_t *o = json_object();
    vg_of(text, vg, sizeof vg);
    js_set(o, "vg", js_text(vg));
    js_set(o, "seqno", js_u64(state.seqno));
    js_set(o, "text_bytes", js_u64(len));
    js_set(o, "text_offset", js_u64(state.offset));
    free(text);
    return o;
}
