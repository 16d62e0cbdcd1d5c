/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl lun dump`: the whole reserved area, decoded read-only, for the hour when nothing else
 * runs.
 *
 * It opens the device O_RDONLY and takes no lock, so it may run beside living daemons; then it sees
 * each unit at its own moment. Failure modes: each unit that cannot be read or decoded says so
 * where it stands, and the rest goes on. Only without any readable superblock nothing else can be
 * found but LVM's own metadata; then the exit code is 1.
 */
#include "dump.h"

#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "cli.h"
#include "diskrpc/wwid.h"
#include "dump_watch.h"
#include "output.h"

#define INTERVAL_MAX_S 3600u

/* The better of two valid copies, as superblock_read chooses; NULL if there is none. */
static const struct superblock *choose(const struct superblock sb[2], const int status[2])
{
    if (status[0] == 0 && status[1] == 0)
        return sb[1].write_count > sb[0].write_count ? &sb[1] : &sb[0];
    return status[0] == 0 ? &sb[0] : status[1] == 0 ? &sb[1] : NULL;
}

static const char *state_name(const struct superblock *sb)
{
    return !sb ? "unknown" : sb->state == SUPERBLOCK_READY ? "ready" : "formatting";
}

static void add_area(json_t *doc, int fd, const struct superblock *sb)
{
    js_set(doc, "lockspace", dump_lockspace(fd, sb));
    js_set(doc, "resources", dump_resources(fd, sb));
    json_t *beat = dump_beat(fd, sb);
    if (beat)
        js_set(doc, "beat", beat);
    js_set(doc, "up_pages", dump_pages(fd, sb, PAGE_UP));
    js_set(doc, "down_pages", dump_pages(fd, sb, PAGE_DOWN));
    js_set(doc, "grants", dump_tables(fd, sb, false));
    js_set(doc, "reports", dump_tables(fd, sb, true));
    js_set(doc, "metadata_copies", dump_metadata_copies(fd, sb));
}

/* *ret_pool: whether a superblock could be read. */
static json_t *collect(int fd, const char *path, uint64_t bytes, uint32_t sector, bool *ret_pool)
{
    struct superblock sb[2];
    int status[2];
    struct error err = ERROR_INIT;
    char wwid[WWID_SIZE];
    json_t *doc = json_object(), *copies = json_array();

    wwid_read(fd, wwid);
    for (int i = 0; i < 2; i++)
        js_append(copies, dump_superblock_copy(fd, i, &sb[i], &status[i]));
    const struct superblock *best = choose(sb, status);
    js_set(doc, "device", js_text(path));
    js_set(doc, "bytes", js_u64(bytes));
    js_set(doc, "sector_size", js_u64(sector));
    js_set(doc, "wwid", js_text(wwid));
    js_set(doc, "state", js_text(state_name(best)));
    js_set(doc, "superblocks", copies);
    js_set(doc, "lvm", dump_lvm(fd));
    *ret_pool = best != NULL;
    if (!best)
        return doc;
    js_set(doc, "wwid_matches", json_boolean(strcmp(wwid, best->wwid) == 0));
    int rc = layout_check(&best->layout, bytes, &err);
    if (rc < 0)
        js_set(doc, "area", dump_damaged(rc, &err));
    else
        add_area(doc, fd, best);
    return doc;
}

static int watch(const struct cli *cli, int fd, uint64_t bytes, uint64_t interval_s, bool all)
{
    struct superblock sb;
    struct error err = ERROR_INIT;

    int rc = superblock_read(fd, &sb, &err);
    if (rc == 0)
        rc = layout_check(&sb.layout, bytes, &err);
    return rc < 0 ? cli_fail(cli, rc, &err) : dump_watch(cli, fd, &sb, interval_s, all);
}

int cmd_lun_dump(struct cli *cli, int argc, char **argv)
{
    bool pages = false, watched = false, is_pool;
    uint64_t interval_s = 1;
    const struct cli_option options[] = {
        {"pages", 0, CLI_FLAG, &pages, 0, 0, NULL,
         "show every header field and message of the pages (JSON has them always)"},
        {"watch", 'w', CLI_FLAG, &watched, 0, 0, NULL, "show what changes, until Ctrl-C"},
        {"interval", 'i', CLI_NUMBER, &interval_s, 1, INTERVAL_MAX_S, "SECONDS",
         "between two looks with --watch (default 1)"},
    };
    struct error err = ERROR_INIT;
    uint64_t bytes;
    uint32_t sector;

    if (!cli_parse(cli, options, 3, 1, 1, argc, argv))
        return cli->exit_code;
    int fd = io_open(cli->args[0], 0, &err);
    if (fd < 0)
        return cli_fail(cli, fd, &err);
    int rc = io_geometry(fd, &bytes, &sector, &err);
    if (rc < 0 || watched) {
        rc = rc < 0 ? cli_fail(cli, rc, &err) : watch(cli, fd, bytes, interval_s, pages);
        close(fd);
        return rc;
    }
    json_t *doc = collect(fd, cli->args[0], bytes, sector, &is_pool);
    close(fd);
    rc = output_emit(cli, doc, pages ? dump_print_pages : dump_print);
    return rc == CLI_OK && !is_pool ? CLI_REFUSED : rc;
}
