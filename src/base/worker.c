/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads; see worker.h. Two singly linked lists under one mutex: submitted and finished.
 * The async handle wakes the loop, which takes the whole finished list at once. Nothing here fails:
 * what cannot be had at start aborts.
 */
#include "base/worker.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct list {
    struct worker_job *head, **tail;
};

struct worker {
    uv_async_t async;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct list submitted, finished;
    bool stop;
    unsigned outstanding; /* loop thread only, like `ended` */
    uint64_t ended;
    char name[16];
};

static void list_init(struct list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_push(struct list *list, struct worker_job *job)
{
    job->next = NULL;
    *list->tail = job;
    list->tail = &job->next;
}

static struct worker_job *list_pop(struct list *list)
{
    struct worker_job *job = list->head;
    if (job) {
        list->head = job->next;
        if (!list->head)
            list->tail = &list->head;
    }
    return job;
}

static void *thread_main(void *data)
{
    struct worker *w = data;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        struct worker_job *job = list_pop(&w->submitted);
        if (!job && w->stop)
            break;
        if (!job) {
            pthread_cond_wait(&w->wake, &w->mutex);
            continue;
        }
        pthread_mutex_unlock(&w->mutex);
        job->run(job);
        pthread_mutex_lock(&w->mutex);
        list_push(&w->finished, job);
        uv_async_send(&w->async);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static void on_async(uv_async_t *async)
{
    struct worker *w = async->data;
    struct list ready;

    pthread_mutex_lock(&w->mutex);
    ready = w->finished;
    list_init(&w->finished);
    pthread_mutex_unlock(&w->mutex);
    for (struct worker_job *job = ready.head, *next; job; job = next) {
        next = job->next;
        w->outstanding--;
        w->ended++;
        job->done(job);
    }
}

struct worker *worker_open(uv_loop_t *loop, const char *name)
{
    struct worker *w = calloc(1, sizeof *w);
    if (!w || uv_async_init(loop, &w->async, on_async) != 0)
        abort();
    w->async.data = w;
    strncpy(w->name, name, sizeof w->name - 1);
    list_init(&w->submitted);
    list_init(&w->finished);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, NULL);
    if (pthread_create(&w->thread, NULL, thread_main, w) != 0)
        abort();
    pthread_setname_np(w->thread, w->name);
    return w;
}

void worker_submit(struct worker *worker, struct worker_job *job)
{
    assert(job->run && job->done);
    worker->outstanding++;
    pthread_mutex_lock(&worker->mutex);
    list_push(&worker->submitted, job);
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->mutex);
}

bool worker_is_idle(const struct worker *worker)
{
    return worker->outstanding == 0;
}

uint64_t worker_done_count(const struct worker *worker)
{
    return worker->ended;
}

static void on_closed(uv_handle_t *handle)
{
    struct worker *w = handle->data;
    pthread_mutex_destroy(&w->mutex);
    pthread_cond_destroy(&w->wake);
    free(w);
}

void worker_close(struct worker *worker)
{
    assert(worker->outstanding == 0);
    pthread_mutex_lock(&worker->mutex);
    worker->stop = true;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->mutex);
    pthread_join(worker->thread, NULL);
    uv_close((uv_handle_t *)&worker->async, on_closed);
}
