/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real disk: native AIO for what is small, a few threads that block in pread and pwrite for the
 * rest, and the way back onto the loop.
 *
 * Happy path: a page or a small spill is handed to the device from the loop thread itself (aio.c)
 * and comes back by an eventfd. What is larger than AIO_LEN_MAX is queued for the threads; one of
 * them does the I/O, puts the operation on the done list and rings the loop, which calls back.
 * Failure modes: what AIO does not take, or did not do in full, a thread does from the beginning
 * and finds the status; an operation that hangs keeps its caller's buffer (and its thread, if it
 * has one) until the kernel gives it back, the others go on; with all threads hung everything that
 * needs one waits, which is the truth about that LUN. Nothing is cancelled, also not by close.
 */
#include "diskrpc/uv_disk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "diskrpc/aio.h"

#define UV_DISK_MAGIC       0x4c445349u
#define UV_DISK_THREADS_MAX 16
/* A larger operation may be split by the kernel, which RWF_NOWAIT forbids, and takes so long that a
 * thread's wake-up is nothing. */
#define AIO_LEN_MAX (64u * 1024)

struct op_list {
    struct disk_op *head, *tail;
};

struct uv_disk {
    uint32_t magic;
    struct disk disk; /* what the callers see */
    int fd;
    uint64_t size; /* set at open: a file must not grow by a stray write */
    uv_async_t async;
    struct aio *aio; /* NULL: threads do all */
    bool threads_alone;
    int n_threads;
    pthread_t threads[UV_DISK_THREADS_MAX];

    pthread_mutex_t lock; /* guards the five below */
    pthread_cond_t wake;
    struct op_list todo, done;
    bool stop;

    /* The loop thread's alone. */
    uint32_t outstanding; /* submitted, not yet called back */
    bool closing;
    int open_handles; /* while closing */
    void (*closed)(void *data);
    void *closed_data;
};

static void list_push(struct op_list *list, struct disk_op *op)
{
    op->next = NULL;
    if (list->tail)
        list->tail->next = op;
    else
        list->head = op;
    list->tail = op;
}

static struct disk_op *list_pop(struct op_list *list)
{
    struct disk_op *op = list->head;

    if (op) {
        list->head = op->next;
        if (!list->head)
            list->tail = NULL;
        op->next = NULL;
    }
    return op;
}

static bool inside(const struct uv_disk *disk, const struct disk_op *op)
{
    return op->offset <= disk->size && op->len <= disk->size - op->offset;
}

static int transfer(const struct uv_disk *disk, const struct disk_op *op)
{
    if (!inside(disk, op))
        return op->write ? -ENOSPC : -EIO;
    return op->write ? io_write(disk->fd, op->buffer, op->len, op->offset, NULL)
                     : io_read(disk->fd, op->buffer, op->len, op->offset, NULL);
}

/* Waits for work; NULL means stop. */
static struct disk_op *next_op(struct uv_disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    while (!disk->todo.head && !disk->stop)
        pthread_cond_wait(&disk->wake, &disk->lock);
    struct disk_op *op = list_pop(&disk->todo);
    pthread_mutex_unlock(&disk->lock);
    return op;
}

static void *thread_main(void *data)
{
    struct uv_disk *disk = data;

    for (struct disk_op *op = next_op(disk); op; op = next_op(disk)) {
        op->status = transfer(disk, op);
        pthread_mutex_lock(&disk->lock);
        list_push(&disk->done, op);
        pthread_mutex_unlock(&disk->lock);
        uv_async_send(&disk->async);
    }
    return NULL;
}

static void stop_threads(struct uv_disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->stop = true;
    pthread_cond_broadcast(&disk->wake);
    pthread_mutex_unlock(&disk->lock);
    for (int i = 0; i < disk->n_threads; i++)
        pthread_join(disk->threads[i], NULL);
}

static void destroy(struct uv_disk *disk)
{
    pthread_mutex_destroy(&disk->lock);
    pthread_cond_destroy(&disk->wake);
    close(disk->fd);
    disk->magic = 0;
    free(disk);
}

static void handle_closed(void *data_disk)
{
    struct uv_disk *disk = data_disk;

    if (--disk->open_handles > 0)
        return;
    void (*closed)(void *data) = disk->closed;
    void *data = disk->closed_data;

    destroy(disk);
    if (closed)
        closed(data);
}

static void on_async_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

/* Called with nothing outstanding: the threads are asleep, joining them takes no time. Called twice
 * if the last operation's own callback closes the disk. */
static void finish_close(struct uv_disk *disk)
{
    if (disk->open_handles > 0)
        return;
    stop_threads(disk);
    disk->open_handles = 1 + (disk->aio != NULL);
    if (disk->aio)
        aio_close(disk->aio, handle_closed, disk);
    uv_close((uv_handle_t *)&disk->async, on_async_closed);
}

static void to_threads(struct uv_disk *disk, struct disk_op *op)
{
    pthread_mutex_lock(&disk->lock);
    list_push(&disk->todo, op);
    pthread_cond_signal(&disk->wake);
    pthread_mutex_unlock(&disk->lock);
}

static void op_ended(struct uv_disk *disk, struct disk_op *op, int status)
{
    disk->outstanding--;
    op->done(op, status);
}

static void on_aio_done(void *data, struct disk_op *op, bool whole)
{
    struct uv_disk *disk = data;

    if (!whole) {
        to_threads(disk, op);
        return;
    }
    op_ended(disk, op, 0);
    if (disk->closing && disk->outstanding == 0)
        finish_close(disk);
}

static void on_async(uv_async_t *async)
{
    struct uv_disk *disk = async->data;
    struct disk_op *op;

    assert(disk->magic == UV_DISK_MAGIC);
    pthread_mutex_lock(&disk->lock);
    struct op_list done = disk->done;
    disk->done = (struct op_list){NULL, NULL};
    pthread_mutex_unlock(&disk->lock);

    bool any = done.head != NULL;
    while ((op = list_pop(&done)) != NULL)
        op_ended(disk, op, op->status);
    if (any && disk->closing && disk->outstanding == 0)
        finish_close(disk);
}

static void submit(struct disk *base, struct disk_op *op)
{
    struct uv_disk *disk = (struct uv_disk *)((char *)base - offsetof(struct uv_disk, disk));

    assert(disk->magic == UV_DISK_MAGIC && !disk->closing);
    assert(op->done && op->len > 0 && op->len % IO_ALIGN == 0 && op->offset % IO_ALIGN == 0);
    assert((uintptr_t)op->buffer % IO_ALIGN == 0);
    disk->outstanding++;
    bool small = op->len <= AIO_LEN_MAX && inside(disk, op);
    if (!disk->aio || disk->threads_alone || !small || !aio_submit(disk->aio, op))
        to_threads(disk, op);
}

static const struct disk_ops uv_disk_ops = {.submit = submit};

static int start_threads(struct uv_disk *disk, int n, struct error *err)
{
    for (int i = 0; i < n; i++) {
        int rc = pthread_create(&disk->threads[i], NULL, thread_main, disk);
        if (rc != 0)
            return error_set(err, -rc, "cannot start a disk thread");
        disk->n_threads++;
    }
    return 0;
}

int uv_disk_open(uv_loop_t *loop, const char *path, int n_threads, struct uv_disk **ret,
                 struct error *err)
{
    uint32_t sector;

    assert(n_threads >= 1 && n_threads <= UV_DISK_THREADS_MAX);
    int fd = io_open(path, 1, err);
    if (fd < 0)
        return fd;
    struct uv_disk *disk = calloc(1, sizeof *disk);
    if (!disk)
        abort();
    disk->magic = UV_DISK_MAGIC;
    disk->disk.ops = &uv_disk_ops;
    disk->fd = fd;
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->wake, NULL);
    int rc = io_geometry(fd, &disk->size, &sector, err);
    if (rc == 0)
        rc = uv_async_init(loop, &disk->async, on_async);
    if (rc < 0)
        return destroy(disk), error_prefix(err, "%s", path), rc;
    disk->async.data = disk;
    disk->aio = aio_open(loop, fd, on_aio_done, disk);
    rc = start_threads(disk, n_threads, err);
    if (rc < 0)
        return uv_disk_close(disk, NULL, NULL), rc;
    *ret = disk;
    return 0;
}

struct disk *uv_disk_disk(struct uv_disk *disk)
{
    return &disk->disk;
}

void uv_disk_use_threads_alone(struct uv_disk *disk)
{
    assert(disk->magic == UV_DISK_MAGIC && disk->outstanding == 0);
    disk->threads_alone = true;
}

int uv_disk_fd(const struct uv_disk *disk)
{
    return disk->fd;
}

void uv_disk_close(struct uv_disk *disk, void (*closed)(void *data), void *data)
{
    assert(disk->magic == UV_DISK_MAGIC && !disk->closing);
    disk->closing = true;
    disk->closed = closed;
    disk->closed_data = data;
    if (disk->outstanding == 0)
        finish_close(disk);
}
