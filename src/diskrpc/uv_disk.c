/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real disk: a queue, a few threads that block in pread and pwrite, and the way back onto the
 * loop.
 *
 * Happy path: submit queues and wakes a thread; the thread does the I/O, puts the operation on the
 * done list and rings the loop, which calls back. Failure modes: an I/O error is the operation's
 * status; an operation that hangs keeps its thread and its caller's buffer until the kernel gives
 * it back, the others go on in the other threads; with all threads hung everything waits, which is
 * the truth about that LUN. Nothing is cancelled, also not by close.
 */
#include "diskrpc/uv_disk.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"

#define UV_DISK_MAGIC       0x4c445349u
#define UV_DISK_THREADS_MAX 16

struct op_list {
    struct disk_op *head, *tail;
};

struct uv_disk {
    uint32_t magic;
    struct disk disk; /* what the callers see */
    int fd;
    uint64_t size; /* set at open: a file must not grow by a stray write */
    uv_async_t async;
    int n_threads;
    pthread_t threads[UV_DISK_THREADS_MAX];

    pthread_mutex_t lock; /* guards the five below */
    pthread_cond_t wake;
    struct op_list todo, done;
    bool stop;

    /* The loop thread's alone. */
    uint32_t outstanding; /* submitted, not yet called back */
    bool closing;
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

static int transfer(const struct uv_disk *disk, const struct disk_op *op)
{
    if (op->offset > disk->size || op->len > disk->size - op->offset)
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

static void on_async_closed(uv_handle_t *handle)
{
    struct uv_disk *disk = handle->data;
    void (*closed)(void *data) = disk->closed;
    void *data = disk->closed_data;

    destroy(disk);
    if (closed)
        closed(data);
}

/* Called with nothing outstanding: the threads are asleep, joining them takes no time. */
static void finish_close(struct uv_disk *disk)
{
    stop_threads(disk);
    uv_close((uv_handle_t *)&disk->async, on_async_closed);
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
    while ((op = list_pop(&done)) != NULL) {
        disk->outstanding--;
        op->done(op, op->status);
    }
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
    pthread_mutex_lock(&disk->lock);
    list_push(&disk->todo, op);
    pthread_cond_signal(&disk->wake);
    pthread_mutex_unlock(&disk->lock);
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
