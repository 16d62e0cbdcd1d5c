/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lun dump --watch`: what changes in the reserved area, look by look, read-only.
 *
 * Happy path: each look reads the page tables in large chunks, the tables of the nodes that have
 * pages, and the leases, into one object by unit; the units that differ from the look before are
 * the changes. What changes between two looks and back is not seen. Failure modes: a unit that is
 * damaged may have been read in the middle of its write, so it counts as changed only if the next
 * look finds it damaged too; a device that cannot be read is damage of every unit. A page that only
 * says that its writer lives (page_seq, heartbeat) and a lease that is only renewed are no changes
 * unless asked for.
 */
#include "dump.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dump_watch.h"
#include "output.h"
#include "watch.h"

/* --- one look --- */

/* Puts the unit under "kind id"; takes it over. */
static void add_unit(json_t *look, const char *kind, const char *id, json_t *unit)
{
    char key[96];

    snprintf(key, sizeof key, "%s %s", kind, id);
    js_set(unit, "unit", js_text(kind));
    js_set(look, key, unit);
}

static void add_units(json_t *look, const char *kind, const char *id_key, json_t *list)
{
    json_t *unit;
    size_t i;

    json_array_foreach(list, i, unit)
    {
        char id[24];
        snprintf(id, sizeof id, "%" PRIu64, js_get_u64(unit, id_key));
        add_unit(look, kind, id, json_incref(unit));
    }
    json_decref(list);
}

static void add_tables(json_t *look, int fd, const struct superblock *sb, uint32_t host_id)
{
    for (int copy = 0; copy < 4; copy++) {
        json_t *table = dump_table(fd, sb, copy >= 2, host_id, copy % 2);
        char id[24];
        snprintf(id, sizeof id, "%u %c", host_id, 'A' + copy % 2);
        if (table)
            add_unit(look, copy >= 2 ? "report" : "grants", id, table);
    }
}

json_t *dump_watch_look(int fd, const struct superblock *sb)
{
    json_t *look = json_object(), *space = dump_lockspace(fd, sb);
    char key[32];

    add_units(look, "up", "host_id", dump_pages(fd, sb, PAGE_UP));
    add_units(look, "down", "host_id", dump_pages(fd, sb, PAGE_DOWN));
    for (uint32_t id = 1; id <= sb->layout.max_nodes; id++) {
        snprintf(key, sizeof key, "up %u", id);
        if (json_object_get(look, key))
            add_tables(look, fd, sb, id);
    }
    add_units(look, "lease", "index", dump_resources(fd, sb));
    add_units(look, "member", "host_id", json_incref(json_object_get(space, "leases")));
    json_decref(space);
    return look;
}

/* --- what differs --- */

/* The unit without what changes while nothing happens. */
static json_t *essence(const json_t *unit, bool all)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)unit);

    json_object_del(copy, "suspect");
    if (!all) {
        json_object_del(copy, "timestamp_s");
        json_object_del(copy, "page_seq");
        json_object_del(copy, "heartbeat_ms");
    }
    return copy;
}

static bool same(const json_t *before, const json_t *now, bool all)
{
    json_t *a = essence(before, all), *b = essence(now, all);
    bool equal = json_equal(a, b) != 0;

    json_decref(a);
    json_decref(b);
    return equal;
}

static bool is_damaged(const json_t *unit)
{
    return json_object_get(unit, "damaged") != NULL;
}

/* A unit damaged for the first time keeps what it was, under suspicion. */
static void suspect(const json_t *before, json_t *now)
{
    const char *key;
    json_t *unit;
    void *next;

    json_object_foreach_safe(now, next, key, unit)
    {
        const json_t *old = json_object_get(before, key);
        if (!old || !is_damaged(unit) || is_damaged(old) || js_get_bool(old, "suspect"))
            continue;
        json_t *kept = json_copy((json_t *)(uintptr_t)old);
        js_set(kept, "suspect", json_true());
        js_set(now, key, kept);
    }
}

/* The name that the node gives itself in its up page. */
static const char *node_name(const json_t *look, uint64_t host_id)
{
    char key[32];

    snprintf(key, sizeof key, "up %" PRIu64, host_id);
    return js_get_text(json_object_get(look, key), "node");
}

static json_t *change(uint64_t wall_us, const json_t *look, const json_t *before, const json_t *now)
{
    const json_t *one = now ? now : before;
    json_t *o = json_object();
    char time[40];

    js_set(o, "time", js_text(text_timestamp(wall_us, time)));
    js_set(o, "wall_us", js_u64(wall_us));
    js_set(o, "unit", js_text(js_get_text(one, "unit")));
    js_set(o, "host_id", js_u64(js_get_u64(one, "host_id")));
    js_set(o, "node", js_text(node_name(look, js_get_u64(one, "host_id"))));
    js_set(o, "before", before ? json_incref((json_t *)(uintptr_t)before) : json_null());
    js_set(o, "now", now ? json_incref((json_t *)(uintptr_t)now) : json_null());
    return o;
}

json_t *dump_watch_changes(const json_t *before, json_t *now, uint64_t wall_us, bool all)
{
    json_t *changes = json_array(), *unit;
    const char *key;

    suspect(before, now);
    json_object_foreach(now, key, unit)
    {
        const json_t *old = json_object_get(before, key);
        if (!old || !same(old, unit, all))
            js_append(changes, change(wall_us, now, old, unit));
    }
    json_object_foreach((json_t *)(uintptr_t)before, key, unit)
    {
        if (!json_object_get(now, key))
            js_append(changes, change(wall_us, before, unit, NULL));
    }
    return changes;
}

/* --- text --- */

/* The id of a decoded message: of whichever body it has. */
static const char *id_of(const json_t *message)
{
    json_t *body;
    const char *key;

    json_object_foreach(json_object_get(message, "body"), key, body)
    {
        return js_get_text(body, "id");
    }
    return "";
}

static void print_page(const json_t *now, bool up)
{
    const json_t *writer = json_object_get(now, "writer");
    json_t *m;
    size_t i;

    if (up)
        printf("run %" PRIu64 ", saw term %" PRIu64, js_get_u64(writer, "run"),
               js_get_u64(now, "term"));
    else
        printf("from host %" PRIu64 ", term %" PRIu64, js_get_u64(writer, "host_id"),
               js_get_u64(writer, "term"));
    printf(", page %" PRIu64 ", acknowledges %" PRIu64 "%s", js_get_u64(now, "page_seq"),
           js_get_u64(now, "ack_seq"), js_get_bool(now, "leaving") ? ", LEFT" : "");
    json_array_foreach(json_object_get(now, "messages"), i, m)
    {
        printf("%s %" PRIu64 " %s", i ? "," : ";", js_get_u64(m, "seq"),
               is_damaged(m) ? "(damaged)" : js_get_text(m, "kind"));
        if (*id_of(m))
            printf(" %.8s", id_of(m));
    }
    printf("\n");
}

static const json_t *find_entry(const json_t *table, const char *attachment)
{
    json_t *e;
    size_t i;

    json_array_foreach(json_object_get(table, "entries"), i, e)
    {
        if (strcmp(js_get_text(e, "attachment_id"), attachment) == 0)
            return e;
    }
    return NULL;
}

static void print_entry(const json_t *e, const char *sign, const char *was)
{
    printf("    %s %s %s%s%s  volume %.8s  attachment %.8s  generation %" PRIu64 " term %" PRIu64
           "\n",
           sign, js_get_text(e, "mode"), was, *was ? " -> " : "", js_get_text(e, "state"),
           js_get_text(e, "volume_id"), js_get_text(e, "attachment_id"),
           js_get_u64(e, "generation"), js_get_u64(e, "term"));
}

static void print_table(const json_t *before, const json_t *now)
{
    json_t *e;
    size_t i;

    printf("copy %s, seq %" PRIu64 ", term %" PRIu64 ", %zu entries", js_get_text(now, "copy"),
           js_get_u64(now, "seq"), js_get_u64(now, "term"),
           json_array_size(json_object_get(now, "entries")));
    if (json_object_get(now, "dead_generation"))
        printf(", generation %" PRIu64 " was declared DEAD", js_get_u64(now, "dead_generation"));
    printf("\n");
    json_array_foreach(json_object_get(now, "entries"), i, e)
    {
        const json_t *old = find_entry(before, js_get_text(e, "attachment_id"));
        if (!old)
            print_entry(e, "+", "");
        else if (!json_equal((json_t *)(uintptr_t)old, e))
            print_entry(e, "~", js_get_text(old, "state"));
    }
    json_array_foreach(json_object_get(before, "entries"), i, e)
    {
        if (!find_entry(now, js_get_text(e, "attachment_id")))
            print_entry(e, "-", "");
    }
}

static void print_lease(const json_t *now)
{
    printf("%s %s host %" PRIu64 ", generation %" PRIu64 ", term (lver) %" PRIu64 "\n",
           js_get_text(now, "use"), js_get_bool(now, "held") ? "held by" : "free, last held by",
           js_get_u64(now, "owner_id"), js_get_u64(now, "owner_generation"),
           js_get_u64(now, "lver"));
}

void dump_watch_print(const json_t *change)
{
    const json_t *before = json_object_get(change, "before"), *now = json_object_get(change, "now");
    const char *unit = js_get_text(change, "unit");
    char clock[40], who[300] = "";

    if (js_get_u64(change, "host_id"))
        snprintf(who, sizeof who, "host %" PRIu64 "%s%s", js_get_u64(change, "host_id"),
                 *js_get_text(change, "node") ? " " : "", js_get_text(change, "node"));
    printf("%s  %-6s  %-16s  ", text_clock(js_get_u64(change, "wall_us"), clock), unit, who);
    if (json_is_null(now))
        printf("is gone\n");
    else if (is_damaged(now))
        printf("damaged: %s\n", js_get_text(now, "damaged"));
    else if (json_object_get(now, "claimed_by"))
        printf("claimed by %s\n", js_get_text(now, "claimed_by"));
    else if (strcmp(unit, "up") == 0 || strcmp(unit, "down") == 0)
        print_page(now, *unit == 'u');
    else if (strcmp(unit, "grants") == 0 || strcmp(unit, "report") == 0)
        print_table(before, now);
    else if (strcmp(unit, "lease") == 0)
        print_lease(now);
    else
        printf("%s, generation %" PRIu64 ", as %s\n",
               js_get_bool(now, "in_use") ? "in use" : "free", js_get_u64(now, "generation"),
               js_get_text(now, "name"));
}

static int print_changes(const struct cli *cli, json_t *changes)
{
    int rc = CLI_OK;
    json_t *c;
    size_t i;

    json_array_foreach(changes, i, c)
    {
        if (rc == CLI_OK)
            rc = output_line(cli, json_incref(c), dump_watch_print);
    }
    json_decref(changes);
    return rc;
}

int dump_watch(const struct cli *cli, int fd, const struct superblock *sb, uint64_t interval_s,
               bool all)
{
    json_t *before = dump_watch_look(fd, sb);
    int rc = CLI_OK;

    cli_progress("watching pool '%s'; Ctrl-C ends it", sb->pool_name);
    watch_start();
    while (rc == CLI_OK && watch_sleep(interval_s * 1000)) {
        json_t *now = dump_watch_look(fd, sb);
        rc = print_changes(cli, dump_watch_changes(before, now, wall_clock_us(), all));
        json_decref(before);
        before = now;
    }
    json_decref(before);
    return rc;
}
