/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl pool extend [DEVICE]`: the pool gets what its LUNs have grown by, or another LUN.
 *
 * Happy path without a device: the coordinator does it. With one: what the device carries is looked
 * at as `lun format` does it, it becomes an LVM physical volume without a volume group, whose uuid
 * fits its WWID, and the coordinator is told of it: that asks every node whether it finds this
 * uuid, and makes it the pool's by one commit.
 *
 * Failure modes: the refusals of `lun format`; a pool with reservations, before anything is
 * written; the coordinator's refusals, which name the nodes. Killed or refused after the label was
 * written, the device carries one that belongs to nobody, and the same command again takes that.
 * Without a device the same command again is safe, and where nothing has grown it is success.
 */
#include "output.h"
#include "request.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/size.h"
#include "coordinator/lvm.h"
#include "diskrpc/message.h"
#include "diskrpc/pv.h"
#include "format.h"

/* The status is the pool's after it. */
static void print_extended(const json_t *s)
{
    char size[SIZE_TEXT_SIZE], free_text[SIZE_TEXT_SIZE];
    printf("pool '%s' has %s, %s free\n", js_get_text(s, "pool"),
           size_format(js_get_u64(s, "vg_size"), size),
           size_format(js_get_u64(s, "vg_free"), free_text));
}

/* --- the device --- */

/* From the first LUN, which this node's agent has. */
static int read_pool(const struct cli *cli, struct superblock *ret, struct error *err)
{
    Lunar__Envelope *status = request_agent_status(cli, cli->timeout_s * 1000);
    if (!status)
        return error_set(err, LUNAR_E_NOT_JOINED, "this node's lunar-agent does not answer");
    int fd = io_open(status->response->agent_status->device, 0, err);
    int rc = fd < 0 ? fd : superblock_read(fd, ret, err);
    if (fd >= 0)
        close(fd);
    envelope_free(status);
    return rc;
}

static int check_pool(const struct superblock *sb, const struct device *device, struct error *err)
{
    if (sb->flags & SUPERBLOCK_FLAG_PR)
        return error_set(err, LUNAR_E_UNSUPPORTED,
                         "pool '%s' fences with persistent reservations, which lunar makes on one "
                         "LUN alone as yet: have the array make that one larger",
                         sb->pool_name);
    if (!device->wwid[0] && !(sb->flags & SUPERBLOCK_FLAG_TEST))
        return error_set(err, LUNAR_E_INVALID,
                         "%s has no WWID, so that a copy of it could not be told from it: only a "
                         "test pool takes it",
                         device->path);
    return 0;
}

/* An earlier attempt came this far: its uuid goes to `ret`. */
static bool is_prepared(struct device *device, char ret[PV_UUID_SIZE])
{
    struct signatures found;
    struct pv_label label;

    if (device_claim(device, NULL) < 0)
        return false;
    bool ours = pv_label_read(device->fd, &label, NULL) == 0 && !label.used &&
                pv_uuid_fits(label.uuid, device->wwid) && device_probe(device, &found, NULL) == 0 &&
                found.only_lvm;
    device_release(device);
    if (ours)
        memcpy(ret, label.uuid, PV_UUID_SIZE);
    return ours;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int make_label(struct format *f, const char *uuid, struct error *err)
{
    char state_dir[] = "/run/lunar-extend.XXXXXX";
    if (!mkdtemp(state_dir))
        return error_set(err, -errno, "cannot make the directory %s: %s", state_dir,
                         strerror(errno));
    device_release(&f->device); /* lvm claims it for itself */
    int rc = lvm_make_pv(f->device.path, state_dir, &f->sb, uuid, err);
    (void)nftw(state_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return rc;
}

/* A pool that the device once carried is over: nobody shall find its superblocks among volumes. */
static int zero_superblocks(struct format *f, struct error *err)
{
    uint64_t a = f->sb.layout.area_start;
    int rc = device_zero(&f->device, a, SUPERBLOCK_SIZE, err);
    if (rc == 0)
        rc = device_zero(&f->device, a + LAYOUT_SUPERBLOCK_B_OFFSET, SUPERBLOCK_SIZE, err);
    return rc;
}

static int prepare(struct format *f, char ret_uuid[PV_UUID_SIZE], struct error *err)
{
    int rc = check_pool(&f->sb, &f->device, err);
    if (rc < 0 || is_prepared(&f->device, ret_uuid))
        return rc;
    rc = format_look(f, err);
    if (rc == 0)
        rc = format_clear_reserve(f, err);
    if (rc == 0)
        rc = device_wipe(&f->device, err);
    if (rc == 0)
        rc = zero_superblocks(f, err);
    pv_uuid_make(f->device.wwid, ret_uuid);
    return rc == 0 ? make_label(f, ret_uuid, err) : rc;
}

/* --- the command --- */

static int ask(struct cli *cli, Lunar__PoolExtend *extend)
{
    struct client *client;
    Lunar__Envelope *answer = NULL;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    request.op_case = LUNAR__REQUEST__OP_POOL_EXTEND;
    request.pool_extend = extend;
    rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_STATUS, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->status->base), print_extended);
    envelope_free(answer);
    client_close(client);
    return rc;
}

static int extend_by(struct cli *cli, const char *path, bool force)
{
    struct format f = {.device = {.lock_fd = -1, .fd = -1}, .force = force};
    Lunar__PoolExtend extend = LUNAR__POOL_EXTEND__INIT;
    Lunar__Pv pv = LUNAR__PV__INIT;
    struct error err = ERROR_INIT;
    char uuid[PV_UUID_SIZE];

    int rc = read_pool(cli, &f.sb, &err);
    if (rc == 0)
        rc = timeouts_compute((int)f.sb.io_timeout_s, (int)f.sb.watchdog_fire_timeout_s,
                              &f.timeouts, &err);
    if (rc == 0)
        rc = device_open(path, &f.device, &err);
    if (rc == 0)
        rc = prepare(&f, uuid, &err);
    device_close(&f.device);
    if (rc < 0)
        return cli_fail(cli, rc, &err);
    pv.uuid = uuid;
    pv.wwid = f.device.wwid;
    pv.size = f.device.bytes;
    extend.device = f.device.path;
    extend.force = force;
    extend.pv = &pv;
    return ask(cli, &extend);
}

int cmd_pool_extend(struct cli *cli, int argc, char **argv)
{
    Lunar__PoolExtend grown = LUNAR__POOL_EXTEND__INIT;
    bool force = false;
    const struct cli_option options[] = {
        {"force", 0, CLI_FLAG, &force, 0, 0, NULL,
         "destroy what DEVICE carries (never a living pool)"},
    };

    if (!cli_parse(cli, options, 1, 0, 1, argc, argv))
        return cli->exit_code;
    if (cli->n_args == 1)
        return extend_by(cli, cli->args[0], force);
    return force ? cli_usage(cli, "--force is for a DEVICE") : ask(cli, &grown);
}
