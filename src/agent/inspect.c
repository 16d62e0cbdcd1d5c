/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands on this node: the pool's device-mapper devices, and the storage daemons that run for
 * it, whatever the agent knows of them.
 *
 * Happy path: the kernel's list of devices by their uuids, each one's state, the daemons among all
 * processes by the folder in their environment; all of that in one result. Changes nothing. Failure
 * modes: device-mapper cannot be asked: the error is the result; a device or process that goes away
 * meanwhile is left out; more than a message takes is cut, and the result says so.
 */
#include "agent/inspect.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "agent/stack_internal.h"
#include "base/log.h"

/* At 80 bytes a map and 25 a daemon, 190 KB: below a message's 256 KiB, and beyond what 512 volumes
 * of a node have. */
#define MAPS_MAX 2048u
#define QSDS_MAX 1024u

struct inspection {
    uv_work_t work;
    struct agent *a;
    struct uuid command_id;
    struct stack_device *devices;
    size_t n_devices;
    Lunar__InspectedMap maps[MAPS_MAX];
    char kinds[MAPS_MAX][2];
    Lunar__InspectedQsd qsds[QSDS_MAX];
    struct uuid served[QSDS_MAX];
    size_t n_maps, n_qsds;
    bool cut;
    int rc;
    struct error err;
};

/* --- in the pool's thread --- */

static void add_map(struct inspection *in, struct stack_device *device)
{
    struct dm_info_short info;
    Lunar__InspectedMap *m = &in->maps[in->n_maps];

    if (dm_info(device->name, &info, NULL) < 0 || !info.exists)
        return;
    lunar__inspected_map__init(m);
    in->kinds[in->n_maps][0] = device->kind;
    m->kind = in->kinds[in->n_maps];
    m->attachment_id = uuid_to_pb(&device->attachment);
    m->name = device->name;
    m->linear = info.live_table && info.linear;
    m->suspended = info.suspended;
    m->open_count = info.open_count;
    in->n_maps++;
}

static int look_at_maps(struct inspection *in)
{
    int rc = stack_scan(&in->devices, &in->n_devices, &in->err);
    for (size_t i = 0; rc == 0 && i < in->n_devices; i++) {
        if (in->devices[i].pool_short != uuid_short(&in->a->sb.pool_id))
            continue;
        in->cut |= in->n_maps == MAPS_MAX;
        if (!in->cut)
            add_map(in, &in->devices[i]);
    }
    return rc;
}

static size_t read_proc(int proc, const char *pid, const char *file, char *buffer, size_t size)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", pid, file);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, buffer, size - 1);
    if (fd >= 0)
        close(fd);
    buffer[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

/* A storage daemon of ours has its attachment's folder as TMPDIR (qsd.c). */
static bool serves(int proc, const char *pid, const char *root, struct uuid *ret)
{
    static const char program[] = "qemu-storage-da"; /* the kernel keeps 15 characters */
    char text[8192];
    size_t root_len = strlen(root);

    if (!read_proc(proc, pid, "comm", text, sizeof text) ||
        strncmp(text, program, sizeof program - 1) != 0)
        return false;
    size_t n = read_proc(proc, pid, "environ", text, sizeof text);
    for (const char *p = text; p < text + n; p += strlen(p) + 1) {
        const char *folder = p + strlen("TMPDIR=");
        if (strncmp(p, "TMPDIR=", strlen("TMPDIR=")) == 0 && strncmp(folder, root, root_len) == 0 &&
            folder[root_len] == '/')
            return uuid_parse(folder + root_len + 1, ret) == 0;
    }
    return false;
}

static void look_at_daemons(struct inspection *in)
{
    struct dirent *entry;
    DIR *dir = opendir("/proc");

    while (dir && (entry = readdir(dir))) {
        struct uuid *id = &in->served[in->n_qsds];
        if (!isdigit((unsigned char)entry->d_name[0]) ||
            !serves(dirfd(dir), entry->d_name, in->a->root, id))
            continue;
        Lunar__InspectedQsd *q = &in->qsds[in->n_qsds++];
        lunar__inspected_qsd__init(q);
        q->attachment_id = uuid_to_pb(id);
        q->pid = (uint32_t)strtoul(entry->d_name, NULL, 10);
        if (in->n_qsds == QSDS_MAX) {
            in->cut = true;
            break;
        }
    }
    if (dir)
        closedir(dir);
}

static void on_look(uv_work_t *work)
{
    struct inspection *in = work->data;
    in->rc = look_at_maps(in);
    if (in->rc == 0)
        look_at_daemons(in);
}

/* --- on the loop --- */

static void send_result(struct inspection *in)
{
    static char nothing[] = "";
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__Inspection inspection = LUNAR__INSPECTION__INIT;
    Lunar__InspectedMap **maps = calloc(MAPS_MAX, sizeof *maps);
    Lunar__InspectedQsd **qsds = calloc(QSDS_MAX, sizeof *qsds);
    uint8_t *bytes;
    uint32_t len;

    if (!maps || !qsds)
        abort();
    for (size_t i = 0; i < in->n_maps; i++)
        maps[i] = &in->maps[i];
    for (size_t i = 0; i < in->n_qsds; i++)
        qsds[i] = &in->qsds[i];
    inspection.maps = maps;
    inspection.n_maps = in->n_maps;
    inspection.qsds = qsds;
    inspection.n_qsds = in->n_qsds;
    inspection.cut = in->cut;
    error.code = in->rc;
    error.text = in->rc < 0 ? in->err.text : nothing;
    result.id = uuid_to_pb(&in->command_id);
    result.error = &error;
    result.inspection = &inspection;
    e.body_case = LUNAR__ENVELOPE__BODY_RESULT;
    e.result = &result;
    if (envelope_pack(&e, &bytes, &len, NULL) == 0) {
        if (agent_io.send(in->a, bytes, len) < 0)
            log_warn("result_not_sent text=\"nobody hears what was looked at\"");
        free(bytes);
    }
    free(maps);
    free(qsds);
}

static void on_looked(uv_work_t *work, int status)
{
    struct inspection *in = work->data;
    assert(status == 0); /* never cancelled */
    send_result(in);
    free(in->devices);
    free(in);
}

void inspect_command(void *data, const struct uuid *command_id)
{
    struct inspection *in = calloc(1, sizeof *in);
    if (!in)
        abort();
    in->a = data;
    in->command_id = *command_id;
    in->work.data = in;
    if (uv_queue_work(in->a->loop, &in->work, on_look, on_looked) != 0)
        abort();
}
