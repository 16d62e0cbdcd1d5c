/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl volume import`: a disk image becomes a volume.
 *
 * Happy path: the image is looked at; a volume of its size is made, tagged as importing, so that
 * nobody else can attach it; it is attached here under a grant like any other (SAFETY 18), filled
 * by qemu-img, which leaves out what is zero, for a new volume reads zeroes; flushed, detached, and
 * only then the tag is dropped.
 *
 * Failure modes: qemu-img fails, or a signal comes: it is killed and waited for, the volume is
 * detached and deleted. This command is killed: qemu-img dies with it, the volume stays attached
 * here and "importing"; the operator detaches and deletes it. The end is not answered in time: the
 * same again, until it is.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "coordinator/catalogue.h"
#include "diskrpc/message.h"
#include "output.h"
#include "transfer.h"

struct importing {
    const char *format;
    bool thick, force;
    char path[PATH_MAX];
    uint64_t size;
};

static int look(const char *file, struct importing *m, struct error *err)
{
    if (!realpath(file, m->path))
        return error_set(err, -errno, "cannot find %s: %s", file, strerror(errno));
    int rc = convert_inspect(m->path, m->format, m->force, &m->size, err);
    if (rc < 0)
        return rc;
    if (m->size > VOLUME_SIZE_MAX)
        return error_set(err, LUNAR_E_INVALID, "%s has more bytes than a volume may have", file);
    m->size = (m->size + VOLUME_SIZE_STEP - 1) / VOLUME_SIZE_STEP * VOLUME_SIZE_STEP;
    if (m->size < VOLUME_SIZE_MIN)
        m->size = VOLUME_SIZE_MIN;
    return 0;
}

static int fill(const struct cli *cli, struct transfer *t, const struct importing *m,
                struct error *err)
{
    const char *const argv[] = {"qemu-img", "convert", "-n",      "-p", "-t",  "none",
                                "-W",       "-f",      m->format, "-O", "raw", "--target-is-zero",
                                m->path,    t->device, NULL};

    int rc = convert_run(cli, argv, err);
    return rc < 0 ? rc : convert_sync(t->device, err);
}

static int finish(struct transfer *t, Lunar__Envelope **ret, struct error *err)
{
    Lunar__VolumeImported imported = LUNAR__VOLUME_IMPORTED__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    int rc = transfer_detach(t, err);
    imported.volume_id = uuid_to_pb(&t->volume_id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_IMPORTED;
    request.volume_imported = &imported;
    return rc < 0 ? rc : transfer_call(t->client, &request, LUNAR__RESPONSE__OP_VOLUME, ret, err);
}

static int import(const struct cli *cli, struct transfer *t, const struct importing *m,
                  Lunar__Envelope **ret, struct error *err)
{
    Lunar__VolumeCreate create = LUNAR__VOLUME_CREATE__INIT;

    create.name = cli->args[1];
    create.size = m->size;
    create.thick = m->thick;
    create.importing = true;
    int rc = transfer_create(t, &create, err);
    if (rc == 0)
        rc = transfer_attach(t, true, err);
    if (rc == 0)
        rc = fill(cli, t, m, err);
    return rc < 0 ? rc : finish(t, ret, err);
}

/* An import whose end is not known may be whole: it is left to the operator. */
static int undo(const struct cli *cli, struct transfer *t, int rc, struct error *err)
{
    struct error why = ERROR_INIT;

    if (rc != LUNAR_E_TIMEOUT && rc != LUNAR_E_INDETERMINATE && transfer_delete(t, &why) == 0)
        return cli_fail(cli, rc, err);
    error_set(&why, err->code,
              "%s; the volume stands: if `lunarctl volume show %s` says importing, "
              "detach and delete it",
              err->text, cli->args[1]);
    return cli_fail(cli, rc, &why);
}

int cmd_volume_import(struct cli *cli, int argc, char **argv)
{
    struct importing m = {0};
    const struct cli_option options[] = {
        {"format", 'f', CLI_TEXT, &m.format, 0, 0, "FORMAT",
         "of FILE: " CONVERT_FORMATS " (required; never guessed)"},
        {"thick", 0, CLI_FLAG, &m.thick, 0, 0, NULL, "make a thick volume"},
        {"force", 0, CLI_FLAG, &m.force, 0, 0, NULL,
         "take FILE as raw although it looks like another format"},
    };
    struct transfer t = {0};
    struct error err = ERROR_INIT;
    Lunar__Envelope *answer = NULL;

    if (!cli_parse(cli, options, 3, 2, 2, argc, argv))
        return cli->exit_code;
    if (!m.format || !convert_format_known(m.format))
        return cli_usage(cli, "--format must be " CONVERT_FORMATS);
    if (volume_name_check(cli->args[1], &err) < 0)
        return cli_usage(cli, "%s", err.text);
    int rc = look(cli->args[0], &m, &err);
    if (rc < 0)
        return cli_fail(cli, rc, &err);
    rc = request_open(cli, "agent", &t.client);
    if (rc != CLI_OK)
        return rc;
    convert_hold_signals();
    rc = import(cli, &t, &m, &answer, &err);
    if (rc == 0)
        rc = output_line(cli, js_proto(&answer->response->volume->base), volume_print);
    else
        rc = undo(cli, &t, rc, &err);
    envelope_free(answer);
    client_close(t.client);
    return rc;
}
