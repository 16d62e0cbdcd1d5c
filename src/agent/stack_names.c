/* SPDX-License-Identifier: Apache-2.0 */
/* Names of everything below an attachment, and the scan that finds it again by them; see
 * stack_internal.h for the scheme. Nothing fails but the scan's ioctls; a foreign uuid is skipped,
 * never interpreted. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/stack_internal.h"

void stack_vduse_name(const struct stack_spec *spec, char ret[STACK_VDUSE_SIZE])
{
    snprintf(ret, STACK_VDUSE_SIZE, "v%016" PRIx64, uuid_short(&spec->volume_id));
}

void stack_handle_name(const struct stack_spec *spec, char kind, char ret[DM_NAME_SIZE])
{
    snprintf(ret, DM_NAME_SIZE, "lunar-v%016" PRIx64 "-%c", uuid_short(&spec->volume_id),
             kind == 'H' ? 'h' : 'p');
}

void stack_layer_name(const struct stack_spec *spec, uint32_t i, char ret[DM_NAME_SIZE])
{
    const struct stack_layer *layer = &spec->layers[i];
    uint64_t own = uuid_short(&spec->volume_id);

    if (layer->volume_short == own)
        snprintf(ret, DM_NAME_SIZE, "lunar-v%016" PRIx64 "-l%" PRIu32, own, layer->index);
    else
        snprintf(ret, DM_NAME_SIZE, "lunar-v%016" PRIx64 "-l%" PRIu32 "-v%016" PRIx64, own,
                 layer->index, layer->volume_short);
}

void stack_job_name(const struct stack_spec *spec, uint32_t i, char ret[DM_NAME_SIZE])
{
    const struct stack_layer *layer = &spec->layers[i];
    uint64_t own = uuid_short(&spec->volume_id);
    int n = snprintf(ret, DM_NAME_SIZE, "lunar-job-v%016" PRIx64 "-%" PRIu32, own, layer->index);

    if (layer->volume_short != own)
        snprintf(ret + n, DM_NAME_SIZE - (size_t)n, "-v%016" PRIx64, layer->volume_short);
}

void stack_dm_uuid(const struct stack_spec *spec, char kind, const char *name,
                   char ret[DM_UUID_SIZE])
{
    char attachment[UUID_TEXT_SIZE];

    snprintf(ret, DM_UUID_SIZE, "LUNAR-%c-%016" PRIx64 "-%s-%s", kind, uuid_short(&spec->pool_id),
             uuid_format(&spec->attachment_id, attachment), name);
}

void stack_run_dir(const char *root, const struct uuid *attachment, char ret[STACK_PATH_SIZE])
{
    char text[UUID_TEXT_SIZE];

    snprintf(ret, STACK_PATH_SIZE, "%s/%s", root, uuid_format(attachment, text));
}

/* Writes the safe form of `name`, at most 255 bytes (a file name's limit); what does not fit is cut
 * and marked with the id. */
static void escape(const char *name, uint64_t id, char ret[256])
{
    size_t n = 0, fits = 255 - 18; /* room for '~' and 17 bytes of id stays free */
    bool cut = false;

    for (const char *p = name; *p && !cut; p++) {
        unsigned char c = (unsigned char)*p;
        bool unsafe = c < ' ' || c == 0x7f || c == '/' || c == '%' || (c == '.' && p == name);
        char text[4];
        snprintf(text, sizeof text, unsafe ? "%%%02X" : "%c", c);
        cut = n + strlen(text) > fits;
        if (!cut)
            n += (size_t)snprintf(ret + n, 256 - n, "%s", text);
    }
    ret[n] = '\0';
    if (cut)
        snprintf(ret + n, 256 - n, "~v%016" PRIx64, id);
}

char *stack_link_name(const struct stack_spec *spec, char ret[STACK_LINK_SIZE])
{
    char pool[256], name[256];

    escape(spec->pool, uuid_short(&spec->pool_id), pool);
    escape(spec->name, uuid_short(&spec->volume_id), name);
    snprintf(ret, STACK_LINK_SIZE, "/dev/lunar/%s/%s", pool, name);
    return ret;
}

bool stack_device_parse(const char *name, const char *uuid, struct stack_device *ret)
{
    char pool[17] = "", attachment[UUID_TEXT_SIZE] = "";
    int end = 0;

    memset(ret, 0, sizeof *ret);
    if (sscanf(uuid, "LUNAR-%c-%16[0-9a-f]-%36[0-9a-f-]-%n", &ret->kind, pool, attachment, &end) !=
        3)
        return false;
    if (end == 0 || strcmp(uuid + end, name) != 0 || !strchr("LTPHJ", ret->kind))
        return false;
    if (strlen(pool) != 16 || uuid_parse(attachment, &ret->attachment) < 0)
        return false;
    ret->pool_short = strtoull(pool, NULL, 16);
    snprintf(ret->name, sizeof ret->name, "%s", name);
    return true;
}

struct scan {
    struct stack_device *devices;
    size_t n, room;
};

static void scan_one(void *data, const char *name, const char *uuid)
{
    struct scan *scan = data;
    struct stack_device device;

    if (!stack_device_parse(name, uuid, &device))
        return;
    if (scan->n == scan->room) {
        scan->room = scan->room ? 2 * scan->room : 64;
        scan->devices = reallocarray(scan->devices, scan->room, sizeof *scan->devices);
        if (!scan->devices)
            abort();
    }
    scan->devices[scan->n++] = device;
}

int stack_scan(struct stack_device **ret, size_t *ret_n, struct error *err)
{
    struct scan scan = {0};
    int rc = dm_list("", scan_one, &scan, err);

    if (rc < 0) {
        free(scan.devices);
        scan = (struct scan){0};
    }
    *ret = scan.devices;
    *ret_n = scan.n;
    return rc;
}
