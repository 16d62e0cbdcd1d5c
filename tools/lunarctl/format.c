/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl lun format`: makes a pool on a LUN.
 *
 * Order: look (nothing is written before every refusal had its chance) -> reservations of a dead
 * pool cleared, which would refuse our writes -> superblock FORMATTING -> old signatures wiped ->
 * reserved area zeroed -> PV and VG -> lockspace and resources -> all of it read back -> superblock
 * READY.
 *
 * FORMATTING comes first of all writes, at the place where the superblock always is, which pvcreate
 * does not touch: from the first byte that we change until the last, whoever looks at the LUN sees
 * that it is not a pool. So a kill at any point leaves one of: the LUN as it was; a LUN that says
 * FORMATTING; a finished pool. The second is started over without --force, but only if nothing was
 * put on it since: its signatures must be none, or the label of an LVM physical volume that carries
 * no volume group or one of lunar's. Anything else means that somebody gave the LUN another life,
 * in which our FORMATTING is an old stain in the middle of his data.
 *
 * Failure modes besides: the device is in use here (O_EXCL); a node elsewhere renews a lease on it
 * (never overridden, SAFETY 22); another machine formats it at the same time (each checks before
 * READY that FORMATTING is still its own; the one that wrote last wins, the other says so). The
 * exclusive claim is given up while lvm runs, because lvm claims the device itself; the lock file
 * of the device (flock) is held throughout.
 */
#include "cli.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"
#include "coordinator/commit.h"
#include "coordinator/lvm.h"
#include "coordinator/mda.h"
#include "fencing/leases.h"
#include "fencing/membership.h"
#include "format.h"
#include "output.h"

#define EXTENT_SIZE_MIN (4 * MIB)
#define EXTENT_SIZE_MAX (1024 * MIB)

struct format_options {
    const char *pool;
    uint64_t max_nodes, io_timeout_s, watchdog_timeout_s, extent_size;
    bool force, test, require_pr;
};

static int flush(const struct format *f, struct error *err)
{
    if (fsync(f->device.fd) < 0)
        return error_set(err, -errno, "cannot flush %s: %s", f->device.path, strerror(errno));
    return 0;
}

static int mark(struct format *f, enum superblock_state state, struct error *err)
{
    f->sb.state = state;
    int rc = flush(f, err); /* what the new state promises is on the LUN before the state is */
    if (rc == 0)
        rc = superblock_write(f->device.fd, &f->sb, err);
    return rc == 0 ? flush(f, err) : rc;
}

static int step_mark_formatting(struct format *f, struct error *err)
{
    int rc =
        format_clear_reserve(f, err); /* whose keys are left there must not refuse this write */
    return rc < 0 ? rc : mark(f, SUPERBLOCK_FORMATTING, err);
}

static int step_wipe(struct format *f, struct error *err)
{
    return device_wipe(&f->device, err);
}

/* All of the area but the two superblocks: pages, tables and copies of any former life are gone. */
static int step_zero(struct format *f, struct error *err)
{
    const struct layout *l = &f->sb.layout;
    uint64_t a = l->area_start, b = a + LAYOUT_SUPERBLOCK_B_OFFSET, end = a + l->area_size;
    int rc = device_zero(&f->device, a + SUPERBLOCK_SIZE, b - a - SUPERBLOCK_SIZE, err);
    effect_point("format: area zeroed up to superblock B");
    if (rc == 0)
        rc = device_zero(&f->device, b + SUPERBLOCK_SIZE, end - b - SUPERBLOCK_SIZE, err);
    return rc == 0 ? flush(f, err) : rc;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* The superblock still says FORMATTING and is ours: nobody else formats this LUN. */
static int check_still_ours(const struct format *f, struct error *err)
{
    struct superblock now;
    int rc = superblock_read(f->device.fd, &now, err);
    if (rc < 0)
        return error_prefix(err, "the superblock vanished while formatting %s", f->device.path);
    if (!uuid_equal(&now.pool_id, &f->sb.pool_id) || now.state != SUPERBLOCK_FORMATTING)
        return error_set(
            err, LUNAR_E_BUSY,
            "somebody else, on another machine, is formatting %s too; find out who, then "
            "format it again",
            f->device.path);
    return 0;
}

/* One name per device, so that a killed format's directory is found and emptied by the next one. */
static int make_state_dir(const struct format *f, char *ret, size_t size, struct error *err)
{
    snprintf(ret, size, "/run/lunar-format.%s", strrchr(f->device.path, '/') + 1);
    (void)nftw(ret, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (mkdir(ret, 0700) < 0)
        return error_set(err, -errno, "cannot make the directory %s: %s", ret, strerror(errno));
    return 0;
}

static int step_lvm(struct format *f, struct error *err)
{
    char state_dir[PATH_MAX];
    int rc = make_state_dir(f, state_dir, sizeof state_dir, err);
    if (rc < 0)
        return rc;
    device_release(&f->device); /* lvm claims it for itself */
    rc = lvm_format(f->device.path, state_dir, &f->sb, err);
    (void)nftw(state_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (rc == 0)
        rc = device_claim(&f->device, err);
    return rc == 0 ? check_still_ours(f, err) : rc;
}

static int step_leases(struct format *f, struct error *err)
{
    return membership_format(f->device.path, &f->sb, err);
}

/* What others will read must be readable: every lease free, every resource there, the VG where it
 * should be. */
static int step_verify(struct format *f, struct error *err)
{
    const struct layout *l = &f->sb.layout;
    struct delta_lease *leases = calloc(l->max_nodes, sizeof *leases);
    struct leader_record leader;
    struct mda_state state;
    char space[48];

    if (!leases)
        abort();
    pool_lockspace(&f->sb.pool_id, space);
    int rc = leases_read(f->device.fd, l, space, leases, err);
    for (uint32_t i = 0; rc == 0 && i < LAYOUT_RESOURCES; i++)
        rc = leader_read(f->device.fd, l, i, space, &leader, err);
    if (rc == 0)
        rc = mda_read(f->device.fd, &state, NULL, NULL, err);
    if (rc == 0)
        rc = check_still_ours(f, err);
    free(leases);
    return rc < 0 ? error_prefix(err, "what was written does not read back"), rc : 0;
}

static int step_mark_ready(struct format *f, struct error *err)
{
    return mark(f, SUPERBLOCK_READY, err);
}

struct step {
    const char *name; /* "while NAME" */
    int (*run)(struct format *f, struct error *err);
};

static const struct step steps[] = {
    {"marking the LUN as being formatted", step_mark_formatting},
    {"wiping old signatures", step_wipe},
    {"zeroing the reserved area", step_zero},
    {"making the volume group", step_lvm},
    {"writing lockspace and leases", step_leases},
    {"reading everything back", step_verify},
    {"marking the pool as ready", step_mark_ready},
};

static int run_steps(struct format *f, struct error *err)
{
    char point[96];
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        snprintf(point, sizeof point, "format: before %s", steps[i].name);
        effect_point(point);
        cli_progress("%s", steps[i].name);
        int rc = steps[i].run(f, err);
        if (rc < 0) {
            if (err->code != rc) /* a step that gave no sentence of its own */
                error_set(err, rc, "%s", error_text(rc));
            error_prefix(err, "while %s (the LUN is not usable; format it again)", steps[i].name);
            return rc;
        }
    }
    effect_point("format: done");
    return 0;
}

/* --- command --- */

static void print_format(const json_t *doc)
{
    char size[SIZE_TEXT_SIZE], area[SIZE_TEXT_SIZE];
    printf("pool '%s' (%s) is ready on %s\n", js_get_text(doc, "pool"), js_get_text(doc, "pool_id"),
           js_get_text(doc, "device"));
    printf("  volume group %s, lockspace %s, up to %" PRIu64 " nodes\n", js_get_text(doc, "vg"),
           js_get_text(doc, "lockspace"), js_get_u64(doc, "max_nodes"));
    printf("  %s in all, %s of them reserved; a dead node is known to be dead after %" PRIu64
           " s\n",
           size_format(js_get_u64(doc, "bytes"), size),
           size_format(js_get_u64(doc, "area_bytes"), area), js_get_u64(doc, "dead_s"));
    printf("  persistent reservations: %s\n", js_get_text(doc, "reservations"));
}

static const char *reservations(const struct format *f)
{
    if (f->sb.flags & SUPERBLOCK_FLAG_PR)
        return "required of every member";
    return f->can_reserve ? "not used (--require-pr would)" : "not possible on this device";
}

static json_t *result(const struct format *f)
{
    const struct superblock *sb = &f->sb;
    char vg[POOL_NAME_SIZE + 6], space[48];
    json_t *doc = json_object();

    pool_vg_name(sb->pool_name, vg);
    pool_lockspace(&sb->pool_id, space);
    js_set(doc, "pool", js_text(sb->pool_name));
    js_set(doc, "pool_id", js_uuid(&sb->pool_id));
    js_set(doc, "device", js_text(f->device.path));
    js_set(doc, "wwid", js_text(sb->wwid));
    js_set(doc, "vg", js_text(vg));
    js_set(doc, "lockspace", js_text(space));
    js_set(doc, "max_nodes", js_u64(sb->layout.max_nodes));
    js_set(doc, "io_timeout_s", js_u64(sb->io_timeout_s));
    js_set(doc, "watchdog_timeout_s", js_u64(sb->watchdog_fire_timeout_s));
    js_set(doc, "dead_s", js_u64((uint64_t)f->timeouts.dead_s));
    js_set(doc, "extent_size", js_u64(sb->extent_size));
    js_set(doc, "bytes", js_u64(f->device.bytes));
    js_set(doc, "sector_size", js_u64(f->device.sector));
    js_set(doc, "area_start", js_u64(sb->layout.area_start));
    js_set(doc, "area_bytes", js_u64(sb->layout.area_size));
    js_set(doc, "test", json_boolean(sb->flags & SUPERBLOCK_FLAG_TEST));
    js_set(doc, "require_pr", json_boolean(sb->flags & SUPERBLOCK_FLAG_PR));
    js_set(doc, "reservations", js_text(reservations(f)));
    return doc;
}

static int prepare(struct format *f, const struct format_options *o, struct error *err)
{
    struct superblock *sb = &f->sb;
    f->force = o->force;
    sb->flags = (o->test ? SUPERBLOCK_FLAG_TEST : 0) | (o->require_pr ? SUPERBLOCK_FLAG_PR : 0);
    sb->pool_id = uuid_random();
    snprintf(sb->pool_name, sizeof sb->pool_name, "%s", o->pool);
    sb->io_timeout_s = (uint32_t)o->io_timeout_s;
    sb->watchdog_fire_timeout_s = (uint32_t)o->watchdog_timeout_s;
    sb->created_s = (uint64_t)time(NULL);
    sb->extent_size = (uint32_t)o->extent_size;
    memcpy(sb->wwid, f->device.wwid, sizeof sb->wwid);
    return layout_compute((uint32_t)o->max_nodes, f->device.sector, &sb->layout, err);
}

static int check_options(const struct cli *cli, const struct format_options *o,
                         struct timeouts *ret)
{
    struct error err = ERROR_INIT;
    if (!o->pool)
        return cli_usage(cli, "--pool NAME is missing");
    if (pool_name_check(o->pool, &err) < 0)
        return cli_usage(cli, "%s", err.text);
    if (o->extent_size & (o->extent_size - 1))
        return cli_usage(cli, "--extent-size must be a power of two");
    if (timeouts_compute((int)o->io_timeout_s, (int)o->watchdog_timeout_s, ret, &err) < 0)
        return cli_usage(cli, "%s", err.text);
    return CLI_OK;
}

int cmd_lun_format(struct cli *cli, int argc, char **argv)
{
    struct format_options o = {
        .max_nodes = 256, .io_timeout_s = 10, .watchdog_timeout_s = 60, .extent_size = 32 * MIB};
    const struct cli_option options[] = {
        {"pool", 0, CLI_TEXT, &o.pool, 0, 0, "NAME",
         "the new pool's name: a-z, 0-9 and '-' (required)"},
        {"max-nodes", 0, CLI_NUMBER, &o.max_nodes, LAYOUT_NODES_MIN, LAYOUT_NODES_MAX, "N",
         "how many nodes can ever join (default 256)"},
        {"io-timeout", 0, CLI_NUMBER, &o.io_timeout_s, 1, 60, "SECONDS",
         "sanlock's io_timeout N (default 10)"},
        {"watchdog-timeout", 0, CLI_NUMBER, &o.watchdog_timeout_s, 10, 300, "SECONDS",
         "sanlock's watchdog_fire_timeout W (default 60)"},
        {"extent-size", 0, CLI_SIZE, &o.extent_size, EXTENT_SIZE_MIN, EXTENT_SIZE_MAX, "SIZE",
         "LVM extents, the steps in which space is given out (default 32MiB)"},
        {"force", 0, CLI_FLAG, &o.force, 0, 0, NULL,
         "destroy what the device carries (never a living pool)"},
        {"test", 0, CLI_FLAG, &o.test, 0, 0, NULL,
         "a pool for tests: nodes may join without a watchdog"},
        {"require-pr", 0, CLI_FLAG, &o.require_pr, 0, 0, NULL,
         "fence with SCSI-3 persistent reservations, too; every member must"},
    };
    struct format f = {.device = {.lock_fd = -1, .fd = -1}};
    struct error err = ERROR_INIT;

    if (!cli_parse(cli, options, sizeof options / sizeof *options, 1, 1, argc, argv))
        return cli->exit_code;
    if (!o.pool)
        o.pool = cli->pool; /* given in front of the command */
    int usage = check_options(cli, &o, &f.timeouts);
    if (usage != CLI_OK)
        return usage;
    int rc = device_open(cli->args[0], &f.device, &err);
    if (rc < 0)
        return cli_fail(cli, rc, &err);
    rc = prepare(&f, &o, &err);
    if (rc == 0)
        rc = format_look(&f, &err);
    if (rc == 0)
        rc = run_steps(&f, &err);
    device_close(&f.device);
    return rc < 0 ? cli_fail(cli, rc, &err) : output_emit(cli, result(&f), print_format);
}
