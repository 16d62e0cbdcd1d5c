/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FormatJob: makes a new layer's bytes. ZeroJob: what a thick volume's layer has behind its size.
 * Happy path: map it under a job name, zero its head (thick:
 * all of it), write the QCOW2 header with qemu-img in a child that dies with us, flush, unmap.
 * Failure modes: whatever fails, the map is wiped and removed, so that nothing can reach the layer
 * any more; the layer stays *new* in the catalogue and is formatted again or removed (SAFETY 17). A
 * job map that a dead agent left is wiped first, so the job can be repeated at any time. An outcome
 * that is unknown (qemu-img killed at its deadline) is known again once the map is gone: the wipe
 * waits for its I/O.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/helper.h"
#include "agent/stack_internal.h"
#include "base/io.h"
#include "base/log.h"

/* Covers the QCOW2 header, its first tables, and any signature another program might look for. */
#define HEAD_BYTES (1u << 20)
/* Zeroing in pieces lets a slow LUN be told from a hung one: the deadline is per piece. */
#define ZERO_PIECE_BYTES       (64u << 20)
#define ZERO_PIECE_DEADLINE_MS 120000
#define CREATE_DEADLINE_MS     120000

static int zero_head(const char *path, uint64_t bytes, struct error *err)
{
    size_t len = bytes < HEAD_BYTES ? (size_t)bytes : HEAD_BYTES;
    int fd = io_open(path, 1, err);

    if (fd < 0)
        return fd;
    void *zeroes = io_alloc(len);
    int rc = io_write(fd, zeroes, len, 0, err);
    if (rc == 0 && fsync(fd) < 0)
        rc = error_set(err, -errno, "cannot flush %s: %s", path, strerror(errno));
    free(zeroes);
    close(fd);
    return rc;
}

/* BLKZEROOUT, not discard: the kernel writes zeroes where the array cannot be trusted to return
 * them. */
int stack_zero(const char *path, uint64_t from, uint64_t to, struct error *err)
{
    int fd = io_open(path, 1, err);
    int rc = 0;

    if (fd < 0)
        return fd;
    for (uint64_t at = from; rc == 0 && at < to; at += ZERO_PIECE_BYTES) {
        uint64_t range[2] = {at, to - at < ZERO_PIECE_BYTES ? to - at : ZERO_PIECE_BYTES};
        int64_t begin = clock_ms();
        if (ioctl(fd, BLKZEROOUT, range) < 0)
            rc = error_set(err, -errno, "cannot zero %s at %" PRIu64 ": %s", path, at,
                           strerror(errno));
        else if (clock_ms() - begin > ZERO_PIECE_DEADLINE_MS)
            rc = error_set(err, LUNAR_E_TIMEOUT, "zeroing is stuck at %" PRIu64 " of %" PRIu64, at,
                           to);
    }
    if (rc == 0 && fsync(fd) < 0)
        rc = error_set(err, -errno, "cannot flush %s: %s", path, strerror(errno));
    close(fd);
    return rc;
}

/* No backing string: the chain is what the catalogue says, whatever headers hold (SAFETY 16). */
static int make_qcow2(const char *path, uint64_t size, struct error *err)
{
    char size_text[32];
    const char *const argv[] = {"qemu-img",
                                "create",
                                "-q",
                                "-f",
                                "qcow2",
                                "-o",
                                "cluster_size=64k,lazy_refcounts=off,preallocation=off",
                                path,
                                size_text,
                                NULL};

    snprintf(size_text, sizeof size_text, "%" PRIu64, size);
    int rc = helper_run(argv, CREATE_DEADLINE_MS, NULL, 0, err);
    return rc < 0 ? rc : helper_call(stack_flush_device, path, CREATE_DEADLINE_MS, err);
}

int stack_job_end(const char *name, int rc, struct error *err)
{
    struct error why = ERROR_INIT;

    if (dm_wipe_and_remove(name, &why) < 0)
        return error_set(err, LUNAR_E_INDETERMINATE, "its map %s stands: %s", name, why.text);
    if (rc == LUNAR_E_INDETERMINATE && err)
        err->code = LUNAR_E_TIMEOUT; /* the map is gone: nothing can take effect any more */
    return rc == LUNAR_E_INDETERMINATE ? LUNAR_E_TIMEOUT : rc;
}

typedef int write_bytes(const struct stack_spec *spec, const char *path, struct error *err);

static int write_layer(const struct stack_spec *spec, const char *path, struct error *err)
{
    uint64_t bytes = stack_layer_bytes(&spec->layers[0]);

    if (spec->thick)
        return stack_zero(path, 0, bytes, err);
    int rc = zero_head(path, bytes, err);
    return rc < 0 ? rc : make_qcow2(path, spec->size, err);
}

/* Neither attached nor at work here: two writers of one layer are kept apart by the coordinator's
 * grants; this is the belt. */
static int check_idle(const struct stack_spec *spec, const char *job, struct error *err)
{
    char name[DM_NAME_SIZE];
    struct dm_info_short info;

    stack_layer_name(spec, 0, name);
    int rc = dm_info(name, &info, err);
    if (rc == 0 && info.exists)
        return error_set(err, LUNAR_E_IN_USE, "the layer is attached here as %s", name);
    return rc < 0 ? rc : dm_wipe_and_remove(job, err);
}

static int zero_behind(const struct stack_spec *spec, const char *path, struct error *err)
{
    return stack_zero(path, spec->size, stack_layer_bytes(&spec->layers[0]), err);
}

static int write_mapped(const struct stack_spec *spec, const char *name, write_bytes *write,
                        struct error *err)
{
    char path[32];

    int rc = dm_path(name, path, err);
    if (rc == 0)
        rc = write(spec, path, err);
    return stack_job_end(name, rc, err);
}

static int work(const struct stack_life *life, const struct stack_spec *spec, write_bytes *write,
                const char *verb, struct error *err)
{
    char name[DM_NAME_SIZE];
    int64_t begin = clock_ms();

    dm_setup();
    int rc = stack_spec_check(spec, err);
    if (rc < 0)
        return rc;
    stack_job_name(spec, 0, name);
    rc = check_idle(spec, name, err);
    if (rc == 0)
        rc = stack_map_layer(life, spec, 0, 'J', name, false, err);
    if (rc == 0)
        rc = write_mapped(spec, name, write, err);
    if (rc < 0)
        error_prefix(err, "%s %s", verb, spec->name);
    else
        log_info("stack_%s volume=%s thick=%d ms=%d", write == write_layer ? "formatted" : "zeroed",
                 spec->name, spec->thick, (int)(clock_ms() - begin));
    return rc;
}

int stack_format(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                 struct error *err)
{
    (void)root;
    return work(life, spec, write_layer, "format", err);
}

int stack_zero_behind(const struct stack_life *life, const struct stack_spec *spec,
                      struct error *err)
{
    if (!spec->thick)
        return error_set(err, LUNAR_E_INVALID, "only a thick volume's bytes lie in their places");
    return work(life, spec, zero_behind, "zero", err);
}
