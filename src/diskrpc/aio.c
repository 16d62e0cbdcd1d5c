/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Native AIO by its raw system calls; see aio.h.
 *
 * Happy path: io_submit hands the operation to the device and returns; its end counts up an eventfd
 * that the loop polls, io_getevents fetches the result. RWF_NOWAIT goes with each: whatever would
 * make io_submit wait (a full queue, a path that is being failed over, a hole in a test's file)
 * comes back as EAGAIN instead, so a LUN that hangs cannot hang the loop. Failure modes: everything
 * but "all bytes went over" is reported as not done, and uv_disk.c repeats it in a thread, which
 * waits as long as it takes and finds the right error; a repeated write writes the same bytes to
 * the same place, nobody has been told about the first. A descriptor whose driver does not know
 * RWF_NOWAIT is not tried again.
 *
 * Why not libaio: the names of its shared object differ between the distributions that one binary
 * is to run on, and four system calls need no library.
 *
 * Why not io_uring: SAFETY 1 and 5 lean on a process's exit waiting for its writes. The kernel's
 * exit path tears the address space down before it closes descriptors, and with it (exit_aio) waits
 * for every AIO operation in flight; only then do the files close, among them the lock file and the
 * sanlock socket, by which others learn that we are gone. io_uring cancels or abandons instead: a
 * write that the device has already taken may land after the process has vanished. (Who holds the
 * address space for a moment, as a reader of our /proc files does, can take over that wait. So what
 * must not land late in any case, LVM metadata, is written by pwrite in a thread or by a child;
 * what goes through here are pages and spills, which bear it: SAFETY 3.)
 */
#include "diskrpc/aio.h"

#include <assert.h>
#include <errno.h>
#include <linux/aio_abi.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define AIO_MAGIC 0x4c41494fu
/* In flight at most; what is more goes to the threads. The system has 65536 of these by default,
 * and a coordinator of 2000 busy nodes is the only one who uses more than two. */
#define AIO_EVENTS 512
#define AIO_BATCH  64

struct aio {
    uint32_t magic;
    int fd;
    int event_fd;
    aio_context_t context;
    uv_poll_t poll;
    uint32_t in_flight;
    bool useless; /* this descriptor does not do it */
    aio_done_fn done;
    void *data;
    void (*closed)(void *data);
    void *closed_data;
};

static void event_out(struct aio *aio, const struct io_event *event)
{
    struct disk_op *op = (struct disk_op *)(uintptr_t)event->data;
    int64_t res = event->res;

    assert(aio->in_flight > 0);
    aio->in_flight--;
    if (res == -EOPNOTSUPP || res == -EINVAL)
        aio->useless = true;
    aio->done(aio->data, op, res == (int64_t)op->len);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct aio *aio = poll->data;
    struct io_event list[AIO_BATCH];
    struct timespec no_time = {0, 0};
    uint64_t count;
    long n;

    (void)events;
    assert(aio->magic == AIO_MAGIC && status == 0);
    if (read(aio->event_fd, &count, sizeof count) < 0)
        return;
    do {
        n = syscall(SYS_io_getevents, aio->context, 0L, (long)AIO_BATCH, list, &no_time);
        assert(n >= 0 || errno == EINTR);
        for (long i = 0; i < n; i++)
            event_out(aio, &list[i]);
    } while (n == AIO_BATCH || n < 0);
}

struct aio *aio_open(uv_loop_t *loop, int fd, aio_done_fn done, void *data)
{
    aio_context_t context = 0;

    if (syscall(SYS_io_setup, AIO_EVENTS, &context) < 0)
        return NULL;
    struct aio *aio = calloc(1, sizeof *aio);
    if (!aio)
        abort();
    aio->magic = AIO_MAGIC;
    aio->fd = fd;
    aio->context = context;
    aio->done = done;
    aio->data = data;
    aio->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (aio->event_fd < 0 || uv_poll_init(loop, &aio->poll, aio->event_fd) < 0)
        abort();
    aio->poll.data = aio;
    if (uv_poll_start(&aio->poll, UV_READABLE, on_readable) < 0)
        abort();
    return aio;
}

bool aio_submit(struct aio *aio, struct disk_op *op)
{
    assert(aio->magic == AIO_MAGIC);
    if (aio->useless || aio->in_flight == AIO_EVENTS)
        return false;
    struct iocb iocb = {
        .aio_data = (uint64_t)(uintptr_t)op,
        .aio_rw_flags = RWF_NOWAIT,
        .aio_lio_opcode = op->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
        .aio_fildes = (uint32_t)aio->fd,
        .aio_buf = (uint64_t)(uintptr_t)op->buffer,
        .aio_nbytes = op->len,
        .aio_offset = (int64_t)op->offset,
        .aio_flags = IOCB_FLAG_RESFD,
        .aio_resfd = (uint32_t)aio->event_fd,
    };
    struct iocb *list[1] = {&iocb}; /* the kernel copies it */
    if (syscall(SYS_io_submit, aio->context, 1L, list) != 1) {
        aio->useless = errno == EOPNOTSUPP || errno == EINVAL;
        return false;
    }
    aio->in_flight++;
    return true;
}

static void on_closed(uv_handle_t *handle)
{
    struct aio *aio = handle->data;
    void (*closed)(void *data) = aio->closed;
    void *data = aio->closed_data;

    syscall(SYS_io_destroy, aio->context);
    close(aio->event_fd);
    aio->magic = 0;
    free(aio);
    closed(data);
}

void aio_close(struct aio *aio, void (*closed)(void *data), void *data)
{
    assert(aio->magic == AIO_MAGIC && aio->in_flight == 0);
    aio->closed = closed;
    aio->closed_data = data;
    uv_close((uv_handle_t *)&aio->poll, on_closed);
}
