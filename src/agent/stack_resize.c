/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running stack gets a larger virtual size; never a smaller one.
 *
 * Happy path, thin: the state file says the new size, so that a daemon that is started from here on
 * brings the leaf to it; the running one is told (block_resize of t0: QCOW2 and disk follow); the
 * disk in the kernel has the new size once the driver has read its configuration; then P and H get
 * longer tables, from below. Thick, with the size that it has and a longer layer: L gets the longer
 * table, and all of it behind the size, which nobody can reach yet, is zeroed. Thick, with a larger
 * size: P and H get longer tables. The catalogue gets the new size between these two, so that no
 * byte that was written behind the former size can ever be zeroed or lost from sight.
 *
 * Failure modes: killed at any point: the same call goes on, each step looks at what stands; the
 * daemon is down: LUNAR_E_BUSY, its successor has the new size; I/O that waits for space: a table
 * is not exchanged under it, LUNAR_E_TIMEOUT and the table as before; the zeroing fails: nobody
 * sees the new bytes, and the same call zeroes again.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/stack_internal.h"
#include "base/helper.h"
#include "base/log.h"
#include "fencing/guard.h"

/* The driver reads the disk's size when it is told; it takes some milliseconds. */
#define CAPACITY_DEADLINE_MS 10000
#define CAPACITY_POLL_MS     5

/* How long new I/O may be held up; some of it may wait for space, and then the exchange can wait.
 */
#define EXCHANGE_DEADLINE_MS 1000

static int exchange(const char *name, const struct dm_segment *table, uint32_t n, struct error *err)
{
    int rc = dm_load(name, table, n, false, err);

    if (rc < 0)
        return rc;
    rc = dm_suspend_within(name, true, EXCHANGE_DEADLINE_MS, err);
    if (rc < 0)
        dm_clear(name, NULL);
    return rc < 0 ? rc : dm_resume(name, err);
}

static int grow_handle(const struct stack_spec *spec, char kind, const char *over, uint64_t size,
                       struct error *err)
{
    char name[DM_NAME_SIZE];
    struct dm_info_short info;
    struct dm_segment table = {.length = size};

    stack_handle_name(spec, kind, name);
    int rc = dm_info(name, &info, err);
    if (rc == 0 && !info.exists)
        rc = error_set(err, LUNAR_E_NOT_FOUND, "there is no device-mapper device %s", name);
    if (rc < 0 || info.size >= size)
        return rc;
    rc = stack_device_number(over, table.device, sizeof table.device, err);
    return rc < 0 ? rc : exchange(name, &table, 1, err);
}

static int grow_handles(const struct stack_spec *spec, const char *disk, uint64_t size,
                        struct error *err)
{
    char name[DM_NAME_SIZE], path[32];

    int rc = grow_handle(spec, 'P', disk, size, err);
    stack_handle_name(spec, 'P', name);
    if (rc == 0)
        rc = dm_path(name, path, err);
    return rc < 0 ? rc : grow_handle(spec, 'H', path, size, err);
}

/* ---- thin ---- */

static uint64_t capacity(const char *disk)
{
    char path[128], text[32] = "";

    snprintf(path, sizeof path, "/sys/block/%s/size", disk + strlen("/dev/"));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? strtoull(text, NULL, 10) * DM_SECTOR : 0;
}

static int await_capacity(const char *disk, uint64_t size, struct error *err)
{
    int64_t deadline = clock_ms() + CAPACITY_DEADLINE_MS;

    while (capacity(disk) < size) {
        if (clock_left(deadline) == 0)
            return error_set(err, LUNAR_E_TIMEOUT, "%s does not take its new size", disk);
        poll(NULL, 0, CAPACITY_POLL_MS);
    }
    return 0;
}

static int resize_disk(const char *root, struct stack *stack, char ret_disk[64], struct error *err)
{
    struct stack_qsd_config config;
    char vduse[STACK_VDUSE_SIZE];

    if (!qsd_alive(&stack->qsd))
        return error_set(err, LUNAR_E_BUSY,
                         "the storage daemon is down: it is being started again");
    stack_qsd_config(root, &stack->spec, &config);
    stack_vduse_name(&stack->spec, vduse);
    int rc = vdpa_find(vduse, ret_disk, err);
    if (rc == 0)
        rc = qsd_resize(&config.config, err);
    return rc < 0 ? rc : await_capacity(ret_disk, config.config.size, err);
}

/* ---- thick ---- */

/* L as long as its layer says. */
static int grow_layer(const struct stack_life *life, const struct stack_spec *spec,
                      const char *name, struct error *err)
{
    struct dm_info_short info;
    struct dm_segment *table;
    uint32_t n;
    int permit;

    int rc = dm_info(name, &info, err);
    if (rc == 0 && !info.linear)
        rc = error_set(err, LUNAR_E_FENCED, "its maps were torn down half-way: detach it");
    if (rc < 0 || info.size >= stack_layer_bytes(&spec->layers[0]))
        return rc;
    rc = stack_layer_table(spec, &spec->layers[0], 0, &table, &n, err);
    if (rc < 0)
        return rc;
    rc =
        guard_permit_take(life->run_dir, spec->pool, life->host_id, life->generation, &permit, err);
    if (rc == 0) {
        rc = exchange(name, table, n, err);
        guard_permit_give_back(permit);
    }
    free(table);
    return rc;
}

/* A consumer reaches `size` bytes: what is behind them is nobody's. */
static int prepare_thick(const struct stack_life *life, const struct stack_spec *spec, bool zero,
                         char ret_path[64], struct error *err)
{
    char name[DM_NAME_SIZE], path[32];

    stack_layer_name(spec, 0, name);
    int rc = grow_layer(life, spec, name, err);
    if (rc == 0)
        rc = dm_path(name, path, err);
    if (rc < 0)
        return rc;
    snprintf(ret_path, 64, "%s", path);
    return zero ? stack_zero(path, spec->size, stack_layer_bytes(&spec->layers[0]), err) : 0;
}

/* ---- both ---- */

static int check(const struct stack_spec *have, const struct stack_spec *want, struct error *err)
{
    if (want->size < have->size || want->size % DM_SECTOR || want->size > INT64_MAX)
        return error_set(err, LUNAR_E_INVALID, "%" PRIu64 " bytes instead of %" PRIu64, want->size,
                         have->size);
    if (!have->thick)
        return 0;
    if (want->n_layers != 1 || stack_layer_bytes(&want->layers[0]) < want->size)
        return error_set(err, LUNAR_E_INVALID, "a thick volume on fewer bytes than it has");
    return stack_layer_check_longer(&have->layers[0], &want->layers[0], err);
}

/* *ret_same: the size is what it was. */
static int begin(const char *root, struct stack *stack, const struct stack_spec *want,
                 bool *ret_same, struct error *err)
{
    uint64_t bytes, before;

    int rc = want->n_layers ? stack_layer_check(&want->layers[0], 0, &bytes, err)
                            : error_set(err, LUNAR_E_INVALID, "no layers");
    pthread_mutex_lock(&stack->lock);
    before = stack->spec.size;
    *ret_same = want->size == before;
    if (rc == 0)
        rc = check(&stack->spec, want, err);
    if (rc == 0 && stack->spec.thick)
        stack_layer_take_map(&stack->spec.layers[0], &want->layers[0]);
    if (rc == 0) {
        stack->spec.size = want->size;
        rc = stack_state_save(root, stack, err);
        if (rc < 0)
            stack->spec.size = before; /* the file is as it was */
    }
    pthread_mutex_unlock(&stack->lock);
    return rc;
}

int stack_resize(const char *root, const struct stack_life *life, struct stack *stack,
                 const struct stack_spec *want, struct error *err)
{
    int64_t started = clock_ms();
    char disk[64];
    bool same;

    dm_setup();
    int rc = begin(root, stack, want, &same, err);
    if (rc == 0)
        rc = stack->spec.thick ? prepare_thick(life, &stack->spec, same, disk, err)
                               : resize_disk(root, stack, disk, err);
    if (rc == 0)
        rc = grow_handles(&stack->spec, disk, want->size, err);
    if (rc < 0)
        error_prefix(err, "resize %s", stack->spec.name);
    else
        log_info("stack_resized volume=%s bytes=%" PRIu64 " ms=%d", stack->spec.name, want->size,
                 (int)(clock_ms() - started));
    return rc;
}
