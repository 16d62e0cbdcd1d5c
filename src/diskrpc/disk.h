/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk as the RPC sees it: asynchronous reads and writes of aligned ranges, a vtable with a
 * real (uv_disk.h) and a simulated (tests/support/sim_disk.h) version, and one conformance suite
 * for both.
 *
 * Every submitted operation calls back exactly once, later, never inline, on the loop thread. An
 * operation that takes long is not cancelled: it is indeterminate until it calls back. Buffers
 * belong to the caller and must not be touched until then. Operations of one disk may complete in
 * any order.
 */
#ifndef LUNAR_DISKRPC_DISK_H
#define LUNAR_DISKRPC_DISK_H

#include <stdbool.h>
#include <stdint.h>

struct disk_op;
typedef void (*disk_done_fn)(struct disk_op *op,
                             int status); /* 0 or -errno; all bytes or an error */

/* Caller-owned; embed it. `data` is the caller's. */
struct disk_op {
    bool write;
    void *buffer; /* IO_ALIGN-aligned */
    uint32_t len; /* multiple of 4096 */
    uint64_t offset;
    disk_done_fn done;
    void *data;
    struct disk_op *next; /* the back end's, while submitted */
    int status;           /* the back end's */
};

struct disk;
struct disk_ops {
    void (*submit)(struct disk *disk, struct disk_op *op);
};
struct disk {
    const struct disk_ops *ops;
};

static inline void disk_submit(struct disk *disk, struct disk_op *op)
{
    disk->ops->submit(disk, op);
}

#endif
