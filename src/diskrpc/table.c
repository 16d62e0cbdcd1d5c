/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grant and report tables in memory and as bytes; table_io.c reads and writes the copies on the
 * LUN.
 *
 * Happy path: table_init, table_add, table_out; table_in gives the same table back. Failure modes:
 * table_out refuses what outgrows LAYOUT_TABLE_SIZE; table_in refuses everything that a careless or
 * damaged writer could have left: counts, modes and states out of range, entries beyond the end.
 */
#include "diskrpc/table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "diskrpc/unit.h"

#define TABLE_FLAG_NODE_DEAD 1u

enum {
    AT_WRITER_HOST = 48,
    AT_ENTRIES = 52,
    AT_WRITER_GENERATION = 56,
    AT_WRITER_RUN = 64,
    AT_TERM = 72,
    AT_SEQ = 80,
    AT_DEAD_GENERATION = 88,
    HEADER_LEN = 128,
    /* within an entry */
    ENTRY_VOLUME = 0,
    ENTRY_ATTACHMENT = 16,
    ENTRY_GENERATION = 32,
    ENTRY_TERM = 40,
    ENTRY_MODE = 48,
    ENTRY_STATE = 50,
    ENTRY_LAYERS = 52,
    ENTRY_LEN = 56,
    /* within a layer */
    LAYER_VOLUME = 0,
    LAYER_INDEX = 8,
    LAYER_GENERATION = 12,
    LAYER_LEN = 16,
};

static enum unit_kind unit_kind_of(enum table_kind kind)
{
    return kind == TABLE_GRANTS ? UNIT_GRANTS : UNIT_REPORTS;
}

void table_init(struct table *table, enum table_kind kind, uint32_t slot,
                const struct uuid *pool_id)
{
    *table = (struct table){.kind = kind, .slot = slot, .pool_id = *pool_id};
}

void table_free(struct table *table)
{
    free(table->entries);
    table->entries = NULL;
    table->n_entries = table->n_allocated = 0;
}

static void reserve(struct table *table, uint32_t n)
{
    if (n <= table->n_allocated)
        return;
    uint32_t wanted = table->n_allocated ? table->n_allocated * 2 : 4;
    wanted = wanted < n ? n : wanted;
    table->entries = reallocarray(table->entries, wanted, sizeof *table->entries);
    if (!table->entries)
        abort();
    table->n_allocated = wanted;
}

struct table_entry *table_add(struct table *table)
{
    if (table->n_entries == TABLE_ENTRIES_MAX)
        return NULL;
    reserve(table, table->n_entries + 1);
    struct table_entry *entry = &table->entries[table->n_entries++];
    memset(entry, 0, sizeof *entry);
    return entry;
}

void table_remove(struct table *table, uint32_t index)
{
    assert(index < table->n_entries);
    struct table_entry *entry = &table->entries[index];
    memmove(entry, entry + 1, (table->n_entries - index - 1) * sizeof *entry);
    table->n_entries--;
}

struct table_entry *table_find_attachment(struct table *table, const struct uuid *attachment_id)
{
    for (uint32_t i = 0; i < table->n_entries; i++)
        if (uuid_equal(&table->entries[i].attachment_id, attachment_id))
            return &table->entries[i];
    return NULL;
}

struct table_entry *table_find_volume(struct table *table, const struct uuid *volume_id)
{
    for (uint32_t i = 0; i < table->n_entries; i++)
        if (uuid_equal(&table->entries[i].volume_id, volume_id))
            return &table->entries[i];
    return NULL;
}

bool table_marks_dead(const struct table *grants, uint64_t generation)
{
    return grants->node_dead && generation <= grants->dead_generation;
}

int table_copy(struct table *to, const struct table *from)
{
    struct table copy = *from;

    copy.entries = NULL;
    copy.n_allocated = 0;
    if (from->n_entries) {
        reserve(&copy, from->n_entries);
        memcpy(copy.entries, from->entries, from->n_entries * sizeof *from->entries);
    }
    table_free(to);
    *to = copy;
    return 0;
}

static uint64_t bytes_used(const struct table *table)
{
    uint64_t size = HEADER_LEN;

    for (uint32_t i = 0; i < table->n_entries; i++)
        size += ENTRY_LEN + (uint64_t)table->entries[i].n_layers * LAYER_LEN;
    return size;
}

uint32_t table_size(const struct table *table)
{
    uint64_t size = bytes_used(table);

    size = (size + LAYOUT_PAGE_SIZE - 1) / LAYOUT_PAGE_SIZE * LAYOUT_PAGE_SIZE;
    return size <= LAYOUT_TABLE_SIZE ? (uint32_t)size : 0;
}

bool table_has_room(const struct table *table, uint32_t entries, uint32_t layers)
{
    return table->n_entries + entries <= TABLE_ENTRIES_MAX &&
           bytes_used(table) + (uint64_t)entries * ENTRY_LEN + (uint64_t)layers * LAYER_LEN <=
               LAYOUT_TABLE_SIZE;
}

/* A coordinator grants; a node reports what it does with a grant. One in the other's table makes no
 * sense. */
static bool state_fits(enum table_kind kind, unsigned state)
{
    if (kind == TABLE_GRANTS)
        return state == TABLE_STATE_GRANTED;
    return state == TABLE_STATE_OPENING || state == TABLE_STATE_OPEN ||
           state == TABLE_STATE_CLOSING;
}

static bool mode_fits(unsigned mode)
{
    return mode == TABLE_MODE_ATTACH || mode == TABLE_MODE_JOB;
}

static uint8_t *entry_out(enum table_kind kind, const struct table_entry *entry, uint8_t *p)
{
    assert(entry->n_layers <= TABLE_LAYERS_MAX);
    assert(mode_fits(entry->mode) && state_fits(kind, entry->state));
    memcpy(p + ENTRY_VOLUME, entry->volume_id.b, 16);
    memcpy(p + ENTRY_ATTACHMENT, entry->attachment_id.b, 16);
    le64_put(p + ENTRY_GENERATION, entry->generation);
    le64_put(p + ENTRY_TERM, entry->term);
    le16_put(p + ENTRY_MODE, (uint16_t)entry->mode);
    le16_put(p + ENTRY_STATE, (uint16_t)entry->state);
    le16_put(p + ENTRY_LAYERS, entry->n_layers);
    p += ENTRY_LEN;
    for (uint32_t i = 0; i < entry->n_layers; i++, p += LAYER_LEN) {
        le64_put(p + LAYER_VOLUME, entry->layers[i].volume_short);
        le32_put(p + LAYER_INDEX, entry->layers[i].index);
        le32_put(p + LAYER_GENERATION, entry->layers[i].map_generation);
    }
    return p;
}

int table_out(const struct table *table, uint8_t *buffer, uint32_t len, struct error *err)
{
    uint32_t size = table_size(table);

    if (size == 0)
        return error_set(err, LUNAR_E_TOO_BIG, "%u entries exceed the %u bytes of host %u's table",
                         table->n_entries, LAYOUT_TABLE_SIZE, table->slot);
    assert(len == size && table->n_entries <= TABLE_ENTRIES_MAX);
    const struct unit unit = {
        .kind = unit_kind_of(table->kind),
        .header_len = HEADER_LEN,
        .len = size,
        .slot = table->slot,
        .flags = table->node_dead ? TABLE_FLAG_NODE_DEAD : 0,
        .pool_id = table->pool_id,
    };
    memset(buffer, 0, size);
    unit_out(&unit, buffer);
    le32_put(buffer + AT_WRITER_HOST, table->writer.host_id);
    le32_put(buffer + AT_ENTRIES, table->n_entries);
    le64_put(buffer + AT_WRITER_GENERATION, table->writer.generation);
    le64_put(buffer + AT_WRITER_RUN, table->writer.run_or_term);
    le64_put(buffer + AT_TERM, table->term);
    le64_put(buffer + AT_SEQ, table->seq);
    le64_put(buffer + AT_DEAD_GENERATION, table->dead_generation);
    uint8_t *p = buffer + HEADER_LEN;
    for (uint32_t i = 0; i < table->n_entries; i++)
        p = entry_out(table->kind, &table->entries[i], p);
    assert(p <= buffer + size);
    unit_seal(buffer);
    return 0;
}

/* Decodes one entry from at most `room` bytes; returns the bytes taken, 0 if it is unsound. */
static uint32_t entry_in(enum table_kind kind, const uint8_t *p, uint32_t room,
                         struct table_entry *entry)
{
    if (room < ENTRY_LEN)
        return 0;
    unsigned mode = le16_get(p + ENTRY_MODE), state = le16_get(p + ENTRY_STATE);
    uint32_t n_layers = le16_get(p + ENTRY_LAYERS), taken = ENTRY_LEN + n_layers * LAYER_LEN;
    if (!mode_fits(mode) || !state_fits(kind, state) || n_layers > TABLE_LAYERS_MAX || taken > room)
        return 0;
    memcpy(entry->volume_id.b, p + ENTRY_VOLUME, 16);
    memcpy(entry->attachment_id.b, p + ENTRY_ATTACHMENT, 16);
    entry->generation = le64_get(p + ENTRY_GENERATION);
    entry->term = le64_get(p + ENTRY_TERM);
    entry->mode = (enum table_mode)mode;
    entry->state = (enum table_state)state;
    entry->n_layers = (uint16_t)n_layers;
    p += ENTRY_LEN;
    for (uint32_t i = 0; i < n_layers; i++, p += LAYER_LEN)
        entry->layers[i] = (struct table_layer){
            .volume_short = le64_get(p + LAYER_VOLUME),
            .index = le32_get(p + LAYER_INDEX),
            .map_generation = le32_get(p + LAYER_GENERATION),
        };
    return taken;
}

static int entries_in(const uint8_t *buffer, uint32_t len, uint32_t n, struct table *table,
                      struct error *err)
{
    uint32_t at = HEADER_LEN;

    if (n > TABLE_ENTRIES_MAX)
        return error_set(err, LUNAR_E_CORRUPT, "%u entries, more than %u", n, TABLE_ENTRIES_MAX);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t taken = entry_in(table->kind, buffer + at, len - at, table_add(table));
        if (taken == 0)
            return error_set(err, LUNAR_E_CORRUPT, "entry %u of %u is unsound", i, n);
        at += taken;
    }
    return 0;
}

int table_in(const uint8_t *buffer, uint32_t len, enum table_kind kind, uint32_t slot,
             const struct uuid *pool_id, struct table *ret, struct error *err)
{
    struct table table;
    struct unit unit;

    int rc = unit_in(buffer, len, unit_kind_of(kind), slot, pool_id, &unit, err);
    if (rc < 0)
        return rc;
    if (unit.header_len != HEADER_LEN || unit.len % LAYOUT_PAGE_SIZE != 0)
        return error_set(err, LUNAR_E_CORRUPT, "header %u, length %u", unit.header_len, unit.len);
    table_init(&table, kind, slot, &unit.pool_id);
    table.node_dead = (unit.flags & TABLE_FLAG_NODE_DEAD) != 0;
    table.writer.host_id = le32_get(buffer + AT_WRITER_HOST);
    table.writer.generation = le64_get(buffer + AT_WRITER_GENERATION);
    table.writer.run_or_term = le64_get(buffer + AT_WRITER_RUN);
    table.term = le64_get(buffer + AT_TERM);
    table.seq = le64_get(buffer + AT_SEQ);
    table.dead_generation = le64_get(buffer + AT_DEAD_GENERATION);
    rc = entries_in(buffer, unit.len, le32_get(buffer + AT_ENTRIES), &table, err);
    if (rc < 0)
        return table_free(&table), rc;
    *ret = table;
    return 0;
}

uint32_t table_wanted(const uint8_t page[LAYOUT_PAGE_SIZE])
{
    uint32_t len = unit_claimed_len(page);
    bool sound = len >= LAYOUT_PAGE_SIZE && len <= LAYOUT_TABLE_SIZE && len % LAYOUT_PAGE_SIZE == 0;
    return sound ? len : LAYOUT_PAGE_SIZE;
}

static int compare(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

bool table_newer(const struct table *a, const struct table *b)
{
    assert(a->kind == b->kind);
    int order;
    if (a->kind == TABLE_GRANTS) {
        order = compare(a->term, b->term);
    } else {
        order = compare(a->writer.generation, b->writer.generation);
        order = order ? order : compare(a->writer.run_or_term, b->writer.run_or_term);
    }
    return (order ? order : compare(a->seq, b->seq)) > 0;
}
