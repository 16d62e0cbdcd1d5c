/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl volume export`: a volume's or a snapshot's bytes as a disk image.
 *
 * Happy path: a clone is made, which is what the source is at one instant, in use or not; it is
 * attached here, qemu-img writes a file from it in a new folder FILE.partial-XXXXXX, which nobody
 * else can enter, that is flushed and gets its name; the clone is detached and deleted. A thick
 * volume has no clones: it is attached itself, if nobody has it.
 *
 * Failure modes: qemu-img fails, or a signal comes: the folder and the clone are removed. FILE has
 * come to be meanwhile: it is left alone without --force. This command is killed: qemu-img dies
 * with it; the folder and a volume "export-of-NAME-..." are left, the latter attached here: detach
 * and delete it. The clone cannot be deleted: FILE is whole, and the message says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert.h"
#include "coordinator/catalogue.h"
#include "diskrpc/message.h"
#include "output.h"
#include "transfer.h"

#define NAME_KEPT 96 /* bytes of the source's name in the clone's */

struct exporting {
    const char *format;
    bool snapshot, compress, force;
    char folder[PATH_MAX];
    char path[PATH_MAX + 256];
    char holder[PATH_MAX + 272];  /* FILE.partial-XXXXXX, ours alone; "": not made */
    char partial[PATH_MAX + 288]; /* in it */
    bool temporary;               /* the volume is a clone of ours */
};

/* ---- the file ---- */

static int place(const char *file, struct exporting *x, struct error *err)
{
    char copy[PATH_MAX], other[PATH_MAX];
    struct stat st;

    snprintf(copy, sizeof copy, "%s", file);
    snprintf(other, sizeof other, "%s", file);
    if (strlen(file) >= sizeof copy || !realpath(dirname(copy), x->folder))
        return error_set(err, -errno, "cannot find the folder of %s", file);
    const char *name = basename(other);
    if (strlen(name) > 240)
        return error_set(err, LUNAR_E_INVALID, "the file's name is too long");
    snprintf(x->path, sizeof x->path, "%s/%s", x->folder, name);
    if (stat(x->path, &st) == 0 && !S_ISREG(st.st_mode))
        return error_set(err, LUNAR_E_INVALID, "%s is not a file", file);
    if (!x->force && access(x->path, F_OK) == 0)
        return error_set(err, LUNAR_E_EXISTS, "%s exists; --force replaces it", file);
    return 0;
}

static int make_holder(struct exporting *x, struct error *err)
{
    snprintf(x->holder, sizeof x->holder, "%s.partial-XXXXXX", x->path);
    if (!mkdtemp(x->holder)) {
        int rc = error_set(err, -errno, "cannot make %s: %s", x->holder, strerror(errno));
        x->holder[0] = '\0';
        return rc;
    }
    snprintf(x->partial, sizeof x->partial, "%s/image", x->holder);
    return 0;
}

static void remove_holder(const struct exporting *x)
{
    if (!x->holder[0])
        return;
    unlink(x->partial);
    rmdir(x->holder);
}

/* File systems that cannot do it in one step are asked before. */
static int take_name(const struct exporting *x, struct error *err)
{
    int rc = renameat2(AT_FDCWD, x->partial, AT_FDCWD, x->path, x->force ? 0 : RENAME_NOREPLACE);

    if (rc < 0 && errno == EINVAL && (x->force || access(x->path, F_OK) < 0))
        rc = rename(x->partial, x->path);
    return rc < 0 ? error_set(err, -errno, "cannot name it %s: %s", x->path, strerror(errno)) : 0;
}

/* It gets its name when all of it is on the disk. */
static int publish(const struct exporting *x, struct error *err)
{
    int rc = convert_sync(x->partial, err);

    if (rc == 0)
        rc = take_name(x, err);
    return rc < 0 ? rc : convert_sync(x->folder, err);
}

static const char *creation_options(const struct exporting *x)
{
    if (strcmp(x->format, "vpc") == 0)
        return "subformat=dynamic,force_size=on"; /* the size as it is, not what CHS can say */
    return x->compress && strcmp(x->format, "vmdk") == 0 ? "subformat=streamOptimized" : NULL;
}

static int write_file(const struct cli *cli, const struct transfer *t, struct exporting *x,
                      struct error *err)
{
    const char *argv[20] = {"qemu-img", "convert", "-p", "-T",     "none",
                            "-f",       "raw",     "-O", x->format};
    const char *options = creation_options(x);
    size_t n = 9;

    if (x->compress)
        argv[n++] = "-c";
    if (options) {
        argv[n++] = "-o";
        argv[n++] = options;
    }
    umask(077); /* whoever may read the file may read the disk */
    int rc = make_holder(x, err);
    argv[n++] = t->device;
    argv[n] = x->partial;
    if (rc == 0)
        rc = convert_run(cli, argv, err);
    return rc < 0 ? rc : publish(x, err);
}

/* ---- the volume ---- */

static void clone_name(const char *of, char ret[VOLUME_NAME_MAX + 1])
{
    size_t n = strlen(of) < NAME_KEPT ? strlen(of) : NAME_KEPT;
    struct uuid id = uuid_random();

    while (n > 0 && n < strlen(of) && ((unsigned char)of[n] & 0xc0) == 0x80)
        n--; /* not within a character */
    snprintf(ret, VOLUME_NAME_MAX + 1, "export-of-%.*s-%08" PRIx32, (int)n, of,
             (uint32_t)(uuid_short(&id) >> 32));
}

static int clone_source(struct transfer *t, struct exporting *x, const char *of,
                        Lunar__VolumeCreate *create, struct error *err)
{
    char name[VOLUME_NAME_MAX + 1];

    clone_name(of, name);
    create->name = name;
    x->temporary = true;
    return transfer_create(t, create, err);
}

/* t has the volume to be read; CLI_OK, or the failure was shown. */
static int open_source(const struct cli *cli, struct transfer *t, struct exporting *x)
{
    struct error err = ERROR_INIT;
    Lunar__Envelope *found = NULL;
    Lunar__VolumeCreate create = LUNAR__VOLUME_CREATE__INIT;
    int rc = x->snapshot ? snapshot_get(cli, t->client, cli->args[0], &found)
                         : volume_get(cli, t->client, cli->args[0], &found);

    if (rc != CLI_OK)
        return rc;
    const Lunar__Volume *v = x->snapshot ? NULL : found->response->volume;
    if (!v) {
        const Lunar__Snapshot *s = found->response->snapshots->snapshots[0];
        create.source_snapshot_id = s->snapshot_id;
        rc = clone_source(t, x, s->name, &create, &err);
    } else if (strcmp(v->state, "ready") != 0 && strcmp(v->state, "expanding") != 0) {
        rc = error_set(&err, LUNAR_E_BUSY, "the volume is %s", v->state);
    } else if (!v->thick) {
        create.source_volume_id = v->volume_id;
        rc = clone_source(t, x, v->name, &create, &err);
    } else if (v->n_attachments > 0) {
        rc = error_set(&err, LUNAR_E_IN_USE,
                       "a thick volume has no snapshots: detach it from node '%s' first",
                       v->attachments[0]->node);
    } else {
        t->volume_id = uuid_from_pb(v->volume_id);
    }
    envelope_free(found);
    return rc < 0 ? cli_fail(cli, rc, &err) : CLI_OK;
}

static int close_source(struct transfer *t, const struct exporting *x, struct error *err)
{
    return x->temporary ? transfer_delete(t, err) : transfer_detach(t, err);
}

static int export_volume(const struct cli *cli, struct transfer *t, struct exporting *x)
{
    struct error err = ERROR_INIT, why = ERROR_INIT;

    int rc = transfer_attach(t, false, &err);
    bool attached = rc == 0 || rc == LUNAR_E_TIMEOUT || rc == LUNAR_E_INDETERMINATE;
    bool whole = false;
    if (rc == 0)
        rc = write_file(cli, t, x, &err);
    whole = rc == 0;
    int closed = x->temporary || attached ? close_source(t, x, &why) : 0;
    remove_holder(x);
    if (closed < 0 && whole)
        rc = error_set(&err, closed, "%s is whole, but %s is left: %s", x->path,
                       x->temporary ? "a volume export-of-..." : "the attachment", why.text);
    return rc < 0 ? cli_fail(cli, rc, &err) : CLI_OK;
}

static void print_file(const json_t *doc)
{
    printf("%s\n", js_get_text(doc, "file"));
}

static int result(const struct cli *cli, const struct exporting *x)
{
    json_t *doc = json_object();
    struct stat st = {0};

    (void)stat(x->path, &st);
    js_set(doc, "file", js_text(x->path));
    js_set(doc, "format", js_text(x->format));
    js_set(doc, "bytes", js_u64((uint64_t)st.st_size));
    return output_line(cli, doc, print_file);
}

static int check_options(const struct cli *cli, const struct exporting *x)
{
    if (!x->format || !convert_format_known(x->format))
        return cli_usage(cli, "--format must be " CONVERT_FORMATS);
    if (x->compress && strcmp(x->format, "qcow2") != 0 && strcmp(x->format, "vmdk") != 0)
        return cli_usage(cli, "only qcow2 and vmdk can be compressed");
    return CLI_OK;
}

int cmd_volume_export(struct cli *cli, int argc, char **argv)
{
    struct exporting x = {0};
    const struct cli_option options[] = {
        {"format", 'f', CLI_TEXT, &x.format, 0, 0, "FORMAT",
         "of FILE: " CONVERT_FORMATS " (required)"},
        {"snapshot", 0, CLI_FLAG, &x.snapshot, 0, 0, NULL, "NAME is a snapshot's"},
        {"compress", 'c', CLI_FLAG, &x.compress, 0, 0, NULL, "qcow2, vmdk: compressed"},
        {"force", 0, CLI_FLAG, &x.force, 0, 0, NULL, "replace FILE"},
    };
    struct transfer t = {0};
    struct error err = ERROR_INIT;

    if (!cli_parse(cli, options, 4, 2, 2, argc, argv))
        return cli->exit_code;
    int rc = check_options(cli, &x);
    if (rc != CLI_OK)
        return rc;
    if (place(cli->args[1], &x, &err) < 0)
        return cli_fail(cli, err.code, &err);
    rc = request_open(cli, "agent", &t.client);
    if (rc != CLI_OK)
        return rc;
    convert_hold_signals();
    rc = open_source(cli, &t, &x);
    if (rc == CLI_OK)
        rc = export_volume(cli, &t, &x);
    if (rc == CLI_OK)
        rc = result(cli, &x);
    client_close(t.client);
    return rc;
}
