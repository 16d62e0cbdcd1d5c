/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.json: the whole spec and the daemon's identity, so that an agent that starts can adopt what
 * its predecessor built.
 *
 * Happy path: {"crc32c": N, "state": {...}}, the checksum over the state's compact text with sorted
 * keys, written to a temporary name, synced, renamed. Failure modes: a file that is torn, damaged,
 * of another attachment or of a later version is LUNAR_E_CORRUPT and then says nothing at all: what
 * stands in the kernel is found by its names instead. The file tells names and sizes only; segments
 * from it are never mapped, a map always comes from the coordinator.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/stack_internal.h"
#include "agent/stack_pv.h"
#include "base/crc32c.h"

#define STATE_VERSION 2
/* 256 layers of 4096 segments of two 20-digit numbers come to 44 MiB; real ones to some KiB. */
#define STATE_BYTES_MAX (64u << 20)

/* ---- writing ---- */

/* What lies on another than the first LUN says on which. */
static json_t *segment_to_json(const struct stack_segment *s)
{
    const struct stack_pv *pv = stack_pv_get(s->pv);
    json_t *json = json_pack("[I, I]", (json_int_t)s->lun_offset, (json_int_t)s->length);

    if (pv)
        json_array_append_new(json, json_string(pv->uuid));
    return json;
}

static json_t *layer_to_json(const struct stack_layer *layer)
{
    char volume[17];
    json_t *segments = json_array();

    for (uint32_t i = 0; i < layer->n_segments; i++)
        json_array_append_new(segments, segment_to_json(&layer->segments[i]));
    snprintf(volume, sizeof volume, "%016" PRIx64, layer->volume_short);
    return json_pack("{s:s, s:I, s:I, s:I, s:b, s:o}", "volume", volume, "index",
                     (json_int_t)layer->index, "map_generation", (json_int_t)layer->map_generation,
                     "max_size", (json_int_t)layer->max_size, "second", layer->second, "segments",
                     segments);
}

/* NULL when a text is not UTF-8. */
static json_t *state_to_json(const struct stack *stack)
{
    const struct stack_spec *spec = &stack->spec;
    char pool_id[UUID_TEXT_SIZE], volume[UUID_TEXT_SIZE], attachment[UUID_TEXT_SIZE];
    json_t *layers = json_array();

    for (uint32_t i = 0; i < spec->n_layers; i++)
        json_array_append_new(layers, layer_to_json(&spec->layers[i]));
    return json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:b, s:o, s:{s:I, s:I}, s:I}",
        "version", STATE_VERSION, "pool", spec->pool, "pool_id",
        uuid_format(&spec->pool_id, pool_id), "device", spec->device, "volume_id",
        uuid_format(&spec->volume_id, volume), "attachment_id",
        uuid_format(&spec->attachment_id, attachment), "name", spec->name, "size",
        (json_int_t)spec->size, "thick", spec->thick, "switching", stack->switching, "relinking",
        stack->relinking, "layers", layers, "qsd", "pid", (json_int_t)stack->qsd.pid, "start_time",
        (json_int_t)stack->qsd.start_time, "restarts", (json_int_t)stack->qsd_restarts);
}

static uint32_t state_crc(const json_t *state)
{
    char *text = json_dumps(state, JSON_COMPACT | JSON_SORT_KEYS);

    if (!text)
        abort();
    uint32_t crc = crc32c(text, strlen(text));
    free(text);
    return crc;
}

static int write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

static int write_file(const char *folder, const char *text, struct error *err)
{
    char path[STACK_PATH_SIZE + 16], tmp[STACK_PATH_SIZE + 32];

    snprintf(path, sizeof path, "%s/state.json", folder);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(err, -errno, "cannot make %s: %s", tmp, strerror(errno));
    int rc = write_all(fd, text, strlen(text));
    if (rc == 0 && fsync(fd) < 0)
        rc = -errno;
    close(fd);
    if (rc == 0 && rename(tmp, path) < 0)
        rc = -errno;
    return rc < 0 ? error_set(err, rc, "cannot write %s: %s", path, strerror(-rc)) : 0;
}

/* Makes `path` and what leads to it. */
static int make_folders(const char *path, struct error *err)
{
    char part[STACK_PATH_SIZE];

    for (const char *p = strchr(path + 1, '/');; p = strchr(p + 1, '/')) {
        size_t len = p ? (size_t)(p - path) : strlen(path);
        snprintf(part, sizeof part, "%.*s", (int)len, path);
        if (mkdir(part, 0700) < 0 && errno != EEXIST)
            return error_set(err, -errno, "cannot make the folder %s: %s", part, strerror(errno));
        if (!p)
            return 0;
    }
}

int stack_run_dir_make(const char *root, const struct uuid *attachment, struct error *err)
{
    char folder[STACK_PATH_SIZE];

    stack_run_dir(root, attachment, folder);
    return make_folders(folder, err);
}

int stack_state_save(const char *root, const struct stack *stack, struct error *err)
{
    char folder[STACK_PATH_SIZE];

    stack_run_dir(root, &stack->spec.attachment_id, folder);
    int rc = make_folders(folder, err);
    if (rc < 0)
        return rc;
    json_t *state = state_to_json(stack);
    if (!state)
        return error_set(err, LUNAR_E_INVALID, "a name of the volume is not UTF-8");
    json_t *file = json_pack("{s:I, s:o}", "crc32c", (json_int_t)state_crc(state), "state", state);
    char *text = json_dumps(file, JSON_INDENT(1) | JSON_SORT_KEYS);
    json_decref(file);
    if (!text)
        abort();
    rc = write_file(folder, text, err);
    free(text);
    return rc;
}

/* ---- reading ---- */

static bool get_text(const json_t *from, const char *key, char *ret, size_t size)
{
    const char *text = json_string_value(json_object_get(from, key));

    if (!text || strlen(text) >= size)
        return false;
    memcpy(ret, text, strlen(text) + 1);
    return true;
}

static bool get_number(const json_t *value, uint64_t max, uint64_t *ret)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(value);
    return *ret <= max;
}

static bool get_uint32(const json_t *from, const char *key, uint32_t *ret)
{
    uint64_t n;

    if (!get_number(json_object_get(from, key), UINT32_MAX, &n))
        return false;
    *ret = (uint32_t)n;
    return true;
}

static bool get_uuid(const json_t *from, const char *key, struct uuid *ret)
{
    const char *text = json_string_value(json_object_get(from, key));

    return text && uuid_parse(text, ret) == 0;
}

static bool segment_from_json(const json_t *from, struct stack_segment *ret)
{
    const char *uuid = json_string_value(json_array_get(from, 2));

    if (!get_number(json_array_get(from, 0), INT64_MAX, &ret->lun_offset) ||
        !get_number(json_array_get(from, 1), INT64_MAX, &ret->length))
        return false;
    if (json_array_size(from) == 2)
        return true;
    ret->pv = uuid ? stack_pv_number(uuid) : 0;
    return ret->pv != 0;
}

static bool layer_from_json(const json_t *from, struct stack_layer *ret)
{
    const json_t *segments = json_object_get(from, "segments"), *segment;
    const char *volume = json_string_value(json_object_get(from, "volume"));
    size_t i, n = json_array_size(segments);
    char *end;

    if (!volume || strlen(volume) != 16 || n == 0 || n > STACK_SEGMENTS_MAX)
        return false;
    ret->volume_short = strtoull(volume, &end, 16);
    if (*end != '\0' || !get_uint32(from, "index", &ret->index) ||
        !get_uint32(from, "map_generation", &ret->map_generation) ||
        !get_number(json_object_get(from, "max_size"), INT64_MAX, &ret->max_size))
        return false;
    ret->second = json_is_true(json_object_get(from, "second"));
    ret->segments = calloc(n, sizeof *ret->segments);
    if (!ret->segments)
        abort();
    ret->n_segments = (uint32_t)n;
    json_array_foreach(segments, i, segment)
    {
        if (!segment_from_json(segment, &ret->segments[i]))
            return false;
    }
    return true;
}

static bool layers_from_json(const json_t *layers, struct stack_spec *spec)
{
    size_t n = json_array_size(layers);

    if (n == 0 || n > STACK_LAYERS_MAX)
        return false;
    spec->layers = calloc(n, sizeof *spec->layers);
    if (!spec->layers)
        abort();
    spec->n_layers = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        if (!layer_from_json(json_array_get(layers, i), &spec->layers[i]))
            return false;
    return true;
}

static bool state_from_json(const json_t *state, struct stack *ret)
{
    struct stack_spec *spec = &ret->spec;
    const json_t *qsd = json_object_get(state, "qsd");
    uint64_t pid;

    if (json_integer_value(json_object_get(state, "version")) != STATE_VERSION)
        return false;
    if (!get_text(state, "pool", spec->pool, sizeof spec->pool) ||
        !get_text(state, "device", spec->device, sizeof spec->device) ||
        !get_text(state, "name", spec->name, sizeof spec->name))
        return false;
    if (!get_uuid(state, "pool_id", &spec->pool_id) ||
        !get_uuid(state, "volume_id", &spec->volume_id) ||
        !get_uuid(state, "attachment_id", &spec->attachment_id))
        return false;
    if (!get_number(json_object_get(state, "size"), INT64_MAX, &spec->size) ||
        !get_number(json_object_get(qsd, "pid"), INT32_MAX, &pid) ||
        !get_number(json_object_get(qsd, "start_time"), INT64_MAX, &ret->qsd.start_time) ||
        !get_uint32(state, "restarts", &ret->qsd_restarts))
        return false;
    ret->qsd.pid = (pid_t)pid;
    spec->thick = json_is_true(json_object_get(state, "thick"));
    ret->switching = json_is_true(json_object_get(state, "switching"));
    ret->relinking = json_is_true(json_object_get(state, "relinking"));
    return layers_from_json(json_object_get(state, "layers"), spec);
}

static int read_file(const char *path, char **ret, size_t *ret_len, struct error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_set(err, errno == ENOENT ? LUNAR_E_NOT_FOUND : -errno, "cannot open %s: %s",
                         path, strerror(errno));
    if (fstat(fd, &st) < 0 || st.st_size > STATE_BYTES_MAX) {
        close(fd);
        return error_set(err, LUNAR_E_CORRUPT, "%s is too large to be lunar's", path);
    }
    *ret = malloc((size_t)st.st_size + 1);
    if (!*ret)
        abort();
    ssize_t n = read(fd, *ret, (size_t)st.st_size);
    close(fd);
    if (n == st.st_size) {
        *ret_len = (size_t)n;
        return 0;
    }
    free(*ret);
    return error_set(err, n < 0 ? -errno : LUNAR_E_CORRUPT, "cannot read %s whole", path);
}

static bool file_from_text(const char *text, size_t len, const struct uuid *attachment,
                           struct stack *ret)
{
    json_t *file = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *state = json_object_get(file, "state");
    const json_t *crc = json_object_get(file, "crc32c");

    bool good = json_is_object(state) && json_is_integer(crc) &&
                json_integer_value(crc) == (json_int_t)state_crc(state) &&
                state_from_json(state, ret) && uuid_equal(&ret->spec.attachment_id, attachment) &&
                stack_spec_check(&ret->spec, NULL) == 0;
    json_decref(file);
    return good;
}

int stack_state_load(const char *root, const struct uuid *attachment, struct stack *ret,
                     struct error *err)
{
    char path[STACK_PATH_SIZE];
    char *text = NULL;
    size_t len = 0;

    memset(ret, 0, sizeof *ret);
    ret->qsd.pidfd = -1;
    stack_run_dir(root, attachment, path);
    strncat(path, "/state.json", sizeof path - strlen(path) - 1);
    int rc = read_file(path, &text, &len, err);
    if (rc < 0)
        return rc;
    bool good = file_from_text(text, len, attachment, ret);
    free(text);
    if (good)
        return 0;
    stack_spec_free(&ret->spec);
    return error_set(err, LUNAR_E_CORRUPT, "%s is damaged or of another version", path);
}

int stack_state_remove(const char *root, const struct uuid *attachment, struct error *err)
{
    char folder[STACK_PATH_SIZE];
    struct dirent *entry;

    stack_run_dir(root, attachment, folder);
    DIR *dir = opendir(folder);
    if (!dir)
        return errno == ENOENT ? 0 : error_set(err, -errno, "%s: %s", folder, strerror(errno));
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    if (rmdir(folder) < 0 && errno != ENOENT)
        return error_set(err, -errno, "cannot remove %s: %s", folder, strerror(errno));
    return 0;
}
