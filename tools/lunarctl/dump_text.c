/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lun dump` for people: from top to bottom what one asks first at 3 a.m. -- is it a pool, who
 * leads, who is a member, who has what open, which messages hang. Printed from the JSON of the
 * dump_*.c files; it decodes nothing itself.
 */
#include "dump.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/size.h"
#include "output.h"

static char *number(const json_t *o, const char *key, char buffer[24])
{
    snprintf(buffer, 24, "%" PRIu64, js_get_u64(o, key));
    return buffer;
}

static const char *damage(const json_t *o)
{
    return json_string_value(json_object_get(o, "damaged"));
}

/* The name of a host: from its up page, else from nowhere. */
static const char *node_name(const json_t *doc, uint64_t host_id)
{
    size_t i;
    json_t *page;
    json_array_foreach(json_object_get(doc, "up_pages"), i,
                       page) if (js_get_u64(page, "host_id") == host_id &&
                                 *js_get_text(page, "node")) return js_get_text(page, "node");
    return "";
}

static void print_superblock(const json_t *sb)
{
    char size[SIZE_TEXT_SIZE], area[SIZE_TEXT_SIZE], date[32] = "?";
    const json_t *layout = json_object_get(sb, "layout");
    time_t created = (time_t)js_get_u64(sb, "created_s");
    struct tm tm;

    if (gmtime_r(&created, &tm))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S UTC", &tm);
    printf("pool         %s (%s)%s\n", js_get_text(sb, "pool"), js_get_text(sb, "pool_id"),
           js_get_bool(sb, "test") ? ", TEST: nodes may join without a watchdog" : "");
    printf("made         %s, extents of %s\n", date,
           size_format(js_get_u64(sb, "extent_size"), size));
    printf("names        VG %s, lockspace %s\n", js_get_text(sb, "vg"),
           js_get_text(sb, "lockspace"));
    printf("timeouts     io %" PRIu64 " s, watchdog %" PRIu64 " s: dead after %" PRIu64 " s\n",
           js_get_u64(sb, "io_timeout_s"), js_get_u64(sb, "watchdog_timeout_s"),
           8 * js_get_u64(sb, "io_timeout_s") + js_get_u64(sb, "watchdog_timeout_s"));
    printf("area         %s at byte %" PRIu64 ", %" PRIu64 " nodes, lease sectors of %" PRIu64 "\n",
           size_format(js_get_u64(layout, "area_size"), area), js_get_u64(layout, "area_start"),
           js_get_u64(layout, "max_nodes"), js_get_u64(layout, "sector_size"));
}

static void print_superblocks(const json_t *doc)
{
    const json_t *best = NULL;
    const char *state = js_get_text(doc, "state");
    char size[SIZE_TEXT_SIZE];
    size_t i;
    json_t *sb;

    printf("device       %s, %s, sectors of %" PRIu64 "%s%s\n", js_get_text(doc, "device"),
           size_format(js_get_u64(doc, "bytes"), size), js_get_u64(doc, "sector_size"),
           *js_get_text(doc, "wwid") ? ", WWID " : "", js_get_text(doc, "wwid"));
    printf("state        %s\n",
           strcmp(state, "ready") == 0 ? "READY"
           : strcmp(state, "formatting") == 0
               ? "FORMATTING: a format was interrupted, no node may use it; run "
                 "'lunarctl lun format' again"
               : "no readable lunar superblock");
    json_array_foreach(json_object_get(doc, "superblocks"), i, sb)
    {
        printf("superblock %s ", js_get_text(sb, "copy"));
        if (damage(sb))
            printf("damaged: %s\n", damage(sb));
        else
            printf("%s, write %" PRIu64 "\n", js_get_text(sb, "state"),
                   js_get_u64(sb, "write_count"));
        if (!damage(sb) &&
            (!best || js_get_u64(sb, "write_count") > js_get_u64(best, "write_count")))
            best = sb;
    }
    if (best)
        print_superblock(best);
    if (best && !js_get_bool(doc, "wwid_matches") && *js_get_text(best, "wwid"))
        printf("WARNING      formatted on WWID %s: this is a copy, or not the device itself\n",
               js_get_text(best, "wwid"));
}

static void print_lvm(const json_t *doc)
{
    const json_t *lvm = json_object_get(doc, "lvm");
    char size[SIZE_TEXT_SIZE];
    size_t i;
    json_t *copy;

    printf("\nLVM metadata\n");
    if (damage(lvm))
        printf("  on disk    damaged: %s\n", damage(lvm));
    else
        printf("  on disk    seqno %" PRIu64 ", %s, VG %s\n", js_get_u64(lvm, "seqno"),
               size_format(js_get_u64(lvm, "text_bytes"), size), js_get_text(lvm, "vg"));
    json_array_foreach(json_object_get(doc, "metadata_copies"), i, copy)
    {
        printf("  copy %s     ", js_get_text(copy, "copy"));
        if (damage(copy))
            printf("damaged: %s\n", damage(copy));
        else
            printf("seqno %" PRIu64 ", %s, stored under term %" PRIu64 "\n",
                   js_get_u64(copy, "vg_seqno"), size_format(js_get_u64(copy, "text_bytes"), size),
                   js_get_u64(copy, "term"));
    }
    if (json_object_get(doc, "metadata_copies") &&
        json_array_size(json_object_get(doc, "metadata_copies")) == 0)
        printf("  copies     none stored yet (no coordinator has led this pool)\n");
}

static void print_lockspace(const json_t *doc)
{
    static const char *const headers[] = {">HOST", "SANLOCK NAME", "NODE",
                                          "STATE", ">GENERATION",  ">TIMESTAMP"};
    const json_t *space = json_object_get(doc, "lockspace"),
                 *leases = json_object_get(space, "leases");
    size_t i;
    json_t *l;

    printf("\nlockspace    %s: %" PRIu64 " ids free\n", js_get_text(space, "name"),
           js_get_u64(space, "free"));
    if (damage(space))
        printf("  damaged: %s\n", damage(space));
    if (json_array_size(leases) == 0)
        return;
    struct text_table *t = text_table_new(headers, 6);
    json_array_foreach(leases, i, l)
    {
        char host[24], generation[24], timestamp[24];
        number(l, "host_id", host);
        if (damage(l)) {
            text_table_row(t, (const char *[]){host, "damaged:", damage(l), "", "", ""});
            continue;
        }
        text_table_row(t, (const char *[]){host, js_get_text(l, "name"),
                                           node_name(doc, js_get_u64(l, "host_id")),
                                           js_get_bool(l, "in_use") ? "in use" : "free",
                                           number(l, "generation", generation),
                                           number(l, "timestamp_s", timestamp)});
    }
    text_table_print(t, 2);
}

static void print_resources(const json_t *doc)
{
    size_t i;
    json_t *r;

    printf("\nleases\n");
    json_array_foreach(json_object_get(doc, "resources"), i, r)
    {
        const char *use = js_get_text(r, "use");
        bool spare = strcmp(use, "spare") == 0;
        if (damage(r)) {
            printf("  %-12s damaged: %s\n", use, damage(r));
        } else if (strcmp(use, "member") == 0) {
            printf("  %-12s shared by all members, version %" PRIu64 "\n", use,
                   js_get_u64(r, "lver"));
        } else if (!spare || js_get_u64(r, "lver") != 0) {
            uint64_t owner = js_get_u64(r, "owner_id");
            const char *name = node_name(doc, owner);
            if (js_get_u64(r, "lver") == 0)
                printf("  %-12s never held\n", use);
            else
                printf("  %-12s %s host %" PRIu64 "%s%s%s, generation %" PRIu64
                       ", term (lver) %" PRIu64 "\n",
                       use, js_get_bool(r, "held") ? "held by" : "free, last held by", owner,
                       *name ? " (" : "", name, *name ? ")" : "", js_get_u64(r, "owner_generation"),
                       js_get_u64(r, "lver"));
        }
    }
}

/* "2: request volume_create, request ping" */
static void message_kinds(const json_t *messages, char *ret, size_t size)
{
    size_t i, at = (size_t)snprintf(ret, size, "%zu", json_array_size(messages));
    json_t *m;
    json_array_foreach(messages, i, m)
    {
        if (at >= size)
            return;
        int n = snprintf(ret + at, size - at, "%s%s", i ? ", " : ": ",
                         damage(m) ? "damaged" : js_get_text(m, "kind"));
        at += n > 0 ? (size_t)n : 0;
    }
}

static void print_page_details(const json_t *page)
{
    static const char *const fields[] = {"term",  "page_seq",     "ack_seq",      "first_seq",
                                         "flags", "heartbeat_ms", "payload_bytes"};
    const json_t *peer = json_object_get(page, "peer");
    size_t i;
    json_t *m;

    printf("   ");
    for (i = 0; i < sizeof fields / sizeof *fields; i++)
        printf(" %s=%" PRIu64, fields[i], js_get_u64(page, fields[i]));
    printf("\n    for host %" PRIu64 ", generation %" PRIu64 ", %s %" PRIu64 "; hints to %s\n",
           js_get_u64(peer, "host_id"), js_get_u64(peer, "generation"),
           json_object_get(peer, "run") ? "run" : "term",
           js_get_u64(peer, json_object_get(peer, "run") ? "run" : "term"),
           js_get_text(page, "hint"));
    json_array_foreach(json_object_get(page, "messages"), i, m)
    {
        char *body = json_dumps(json_object_get(m, "body"), JSON_COMPACT);
        printf("    message %" PRIu64 ", %" PRIu64 " bytes%s: %s %s\n", js_get_u64(m, "seq"),
               js_get_u64(m, "bytes"), js_get_bool(m, "spilled") ? " in the spill" : "",
               damage(m) ? "damaged:" : "",
               damage(m) ? damage(m)
               : body    ? body
                         : "");
        free(body);
    }
}

static void print_pages(const json_t *doc, const char *key, const char *title, bool details)
{
    bool up = strcmp(key, "up_pages") == 0;
    size_t i;
    json_t *p;

    printf("\n%s\n", title);
    if (json_array_size(json_object_get(doc, key)) == 0)
        printf("  none\n");
    json_array_foreach(json_object_get(doc, key), i, p)
    {
        uint64_t host = js_get_u64(p, "host_id");
        const char *name = node_name(doc, host);
        const json_t *writer = json_object_get(p, "writer");
        char kinds[512];
        printf("  host %" PRIu64 "%s%s%s: ", host, *name ? " (" : "", name, *name ? ")" : "");
        if (damage(p)) {
            printf("damaged: %s\n", damage(p));
            continue;
        }
        if (json_object_get(p, "claimed_by")) {
            printf("claimed by %s, which is joining (or died joining)\n",
                   js_get_text(p, "claimed_by"));
            continue;
        }
        message_kinds(json_object_get(p, "messages"), kinds, sizeof kinds);
        if (up)
            printf("generation %" PRIu64 ", run %" PRIu64 ", saw term %" PRIu64,
                   js_get_u64(writer, "generation"), js_get_u64(writer, "run"),
                   js_get_u64(p, "term"));
        else
            printf("from host %" PRIu64 ", term %" PRIu64, js_get_u64(writer, "host_id"),
                   js_get_u64(writer, "term"));
        printf("%s; messages %s\n", js_get_bool(p, "leaving") ? ", LEFT" : "", kinds);
        if (details)
            print_page_details(p);
    }
}

static void print_entries(const json_t *table)
{
    size_t i, k;
    json_t *e, *layer;

    json_array_foreach(json_object_get(table, "entries"), i, e)
    {
        printf("    %s %s, volume %s\n      attachment %s, generation %" PRIu64 ", term %" PRIu64
               ", layers",
               js_get_text(e, "mode"), js_get_text(e, "state"), js_get_text(e, "volume_id"),
               js_get_text(e, "attachment_id"), js_get_u64(e, "generation"), js_get_u64(e, "term"));
        json_array_foreach(json_object_get(e, "layers"), k, layer)
            printf(" %s@%" PRIu64, js_get_text(layer, "lv"), js_get_u64(layer, "map_generation"));
        printf("\n");
    }
}

static void print_tables(const json_t *doc, const char *key, const char *title)
{
    size_t i;
    json_t *t;

    printf("\n%s\n", title);
    if (json_array_size(json_object_get(doc, key)) == 0)
        printf("  none\n");
    json_array_foreach(json_object_get(doc, key), i, t)
    {
        uint64_t host = js_get_u64(t, "host_id");
        const char *name = node_name(doc, host);
        printf("  host %" PRIu64 "%s%s%s copy %s: ", host, *name ? " (" : "", name,
               *name ? ")" : "", js_get_text(t, "copy"));
        if (damage(t)) {
            printf("damaged: %s\n", damage(t));
            continue;
        }
        printf("%zu entries, seq %" PRIu64 ", term %" PRIu64,
               json_array_size(json_object_get(t, "entries")), js_get_u64(t, "seq"),
               js_get_u64(t, "term"));
        if (json_object_get(t, "dead_generation"))
            printf(", generation %" PRIu64 " was declared DEAD", js_get_u64(t, "dead_generation"));
        printf("\n");
        print_entries(t);
    }
}

/* The last that a coordinator said of itself: whether it still does shows a second look. */
static void print_beat(const json_t *doc)
{
    const json_t *b = json_object_get(doc, "beat");
    if (!b)
        return;
    if (damage(b))
        printf("  %-12s damaged: %s\n", "beat", damage(b));
    else
        printf("  %-12s number %" PRIu64 " of term %" PRIu64 ", host %" PRIu64
               " %s, %s; leases that stand still: %zu\n",
               "beat", js_get_u64(b, "count"), js_get_u64(b, "term"), js_get_u64(b, "host_id"),
               js_get_text(b, "node"), js_get_text(b, "phase"),
               json_array_size(json_object_get(b, "still")));
}

static void print_all(const json_t *doc, bool details)
{
    const json_t *area = json_object_get(doc, "area");
    print_superblocks(doc);
    print_lvm(doc);
    if (area)
        printf("\nreserved area damaged: %s\n", damage(area));
    if (!json_object_get(doc, "lockspace"))
        return;
    print_resources(doc);
    print_beat(doc);
    print_lockspace(doc);
    print_pages(doc, "up_pages", "pages of the nodes (up)", details);
    print_pages(doc, "down_pages", "pages of the coordinator (down)", details);
    print_tables(doc, "grants", "grants (what a node may have open)");
    print_tables(doc, "reports", "reports (what a node says it has open)");
}

void dump_print(const json_t *doc)
{
    print_all(doc, false);
}

void dump_print_pages(const json_t *doc)
{
    print_all(doc, true);
}
