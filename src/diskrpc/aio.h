/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's native asynchronous I/O on one descriptor: what uv_disk.c uses for small operations,
 * because it costs the loop neither a thread's wake-up nor one back. All on the loop thread.
 * Internal to src/diskrpc.
 */
#ifndef LUNAR_DISKRPC_AIO_H
#define LUNAR_DISKRPC_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "diskrpc/disk.h"

struct aio;

/* `whole`: all bytes went over. Otherwise whatever happened must be found out by doing it again the
 * slow way: its bytes may have gone over in part. Called from the loop, never inline. */
typedef void (*aio_done_fn)(void *data, struct disk_op *op, bool whole);

/* NULL: this kernel or its limits (fs.aio-max-nr) give us none. `fd` is borrowed. */
struct aio *aio_open(uv_loop_t *loop, int fd, aio_done_fn done, void *data);
/* False: not taken, do it another way. Never blocks. */
bool aio_submit(struct aio *aio, struct disk_op *op);
/* Nothing may be in flight. Async: `closed` is called from the loop. */
void aio_close(struct aio *aio, void (*closed)(void *data), void *data);

#endif
