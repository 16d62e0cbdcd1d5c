/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real disk: O_DIRECT, native AIO for up to 64 KiB, pread/pwrite in threads of its own for the
 * rest. Of both it holds that a process that dies with a write in flight does not vanish before the
 * write has ended (SAFETY 1, 5; aio.c says why).
 */
#ifndef LUNAR_DISKRPC_UV_DISK_H
#define LUNAR_DISKRPC_UV_DISK_H

#include <uv.h>

#include "base/error.h"
#include "diskrpc/disk.h"

struct uv_disk;

/* Opens `path` read-write, O_DIRECT; starts `n_threads` (1..16) threads. `loop` outlives it. */
int uv_disk_open(uv_loop_t *loop, const char *path, int n_threads, struct uv_disk **ret,
                 struct error *err);
struct disk *uv_disk_disk(struct uv_disk *disk);
/* As on a kernel without AIO; before the first operation. */
void uv_disk_use_threads_alone(struct uv_disk *disk);
int uv_disk_fd(const struct uv_disk *disk); /* borrowed, for blocking readers in worker threads */
/* Async: waits for what is in flight, then calls `closed` once on the loop and frees. */
void uv_disk_close(struct uv_disk *disk, void (*closed)(void *data), void *data);

#endif
