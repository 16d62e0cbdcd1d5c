/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemons use of libuv, in virtual time and with libuv's own types: loops that belong to
 * processes, timers on the machine's clock, close, polls and signals that fire when the world says,
 * work in fibers; and alarms and workers of src/base with their contracts.
 *
 * A handle's bookkeeping lies in its own private fields; its event is `heap_node[0]` of a timer.
 * Nothing here fails.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/alarm.h"
#include "base/worker.h"
#include "sim/internal.h"

/* Our own flags of a handle. */
enum { ACTIVE = 1, CLOSING = 2, CLOSED = 4 };

/* What a wake of a loop from another thread takes. */
#define ASYNC_US 20u

static uint64_t soon(void)
{
    return sim_now_us() + sim_random(STREAM_SCHEDULE, ASYNC_US);
}

/* --- loops and time --- */

uv_loop_t *uv_default_loop(void)
{
    assert(process_current());
    return &process_current()->loop;
}

/* A loop's callbacks are events: there is nothing to wait for. The caller must keep what its frame
 * holds. */
int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    (void)loop;
    (void)mode;
    return 0;
}

uint64_t uv_now(const uv_loop_t *loop)
{
    return machine_now_us(process_of_loop(loop)->machine) / SIM_MS;
}

void uv_update_time(uv_loop_t *loop)
{
    (void)loop; /* no time passes inside a callback */
}

uint64_t uv_hrtime(void)
{
    const struct process *p = process_current();
    return (p ? machine_now_us(p->machine) : sim_now_us()) * 1000;
}

const char *uv_strerror(int err)
{
    return strerror(-err);
}

const char *uv_err_name(int err)
{
    return strerrorname_np(-err);
}

/* --- handles --- */

void fake_uv_handle_init(uv_loop_t *loop, uv_handle_t *handle, uv_handle_type type)
{
    process_of_loop(loop); /* asserts */
    handle->loop = loop;
    handle->type = type;
    handle->close_cb = NULL;
    handle->flags = 0;
}

int uv_is_active(const uv_handle_t *handle)
{
    return (handle->flags & ACTIVE) != 0;
}

int uv_is_closing(const uv_handle_t *handle)
{
    return (handle->flags & (CLOSING | CLOSED)) != 0;
}

void uv_ref(uv_handle_t *handle)
{
    (void)handle;
}

void uv_unref(uv_handle_t *handle)
{
    (void)handle;
}

static void on_close(void *data)
{
    uv_handle_t *handle = data;
    handle->flags = CLOSED;
    if (handle->close_cb)
        handle->close_cb(handle);
}

static void watch_drop(const uv_handle_t *handle);

void uv_close(uv_handle_t *handle, uv_close_cb close_cb)
{
    assert(!uv_is_closing(handle));
    if (handle->type == UV_TIMER)
        uv_timer_stop((uv_timer_t *)handle);
    else if (handle->type == UV_POLL || handle->type == UV_SIGNAL)
        watch_drop(handle);
    else if (handle->type == UV_UDP)
        fake_udp_closed(handle);
    handle->flags = CLOSING;
    handle->close_cb = close_cb;
    process_at(process_of_loop(handle->loop), sim_now_us(), on_close, handle);
}

/* --- timers --- */

int uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    fake_uv_handle_init(loop, (uv_handle_t *)timer, UV_TIMER);
    timer->timer_cb = NULL;
    timer->heap_node[0] = NULL;
    timer->timeout = timer->repeat = 0;
    return 0;
}

static void on_timer(void *data)
{
    uv_timer_t *timer = data;
    timer->heap_node[0] = NULL;
    timer->flags &= ~(unsigned)ACTIVE;
    if (timer->repeat)
        uv_timer_again(timer);
    timer->timer_cb(timer);
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    assert(timer->type == UV_TIMER);
    if (uv_is_closing((uv_handle_t *)timer) || !cb)
        return UV_EINVAL;
    uv_timer_stop(timer);
    struct process *p = process_of_loop(timer->loop);
    timer->timer_cb = cb;
    timer->timeout = uv_now(timer->loop) + timeout;
    timer->repeat = repeat;
    timer->flags |= ACTIVE;
    uint64_t at_us = machine_sim_time(p->machine, timer->timeout * SIM_MS);
    timer->heap_node[0] = process_at(p, at_us, on_timer, timer);
    return 0;
}

int uv_timer_stop(uv_timer_t *timer)
{
    if (timer->heap_node[0])
        sim_cancel(timer->heap_node[0]);
    timer->heap_node[0] = NULL;
    timer->flags &= ~(unsigned)ACTIVE;
    return 0;
}

int uv_timer_again(uv_timer_t *timer)
{
    if (!timer->timer_cb)
        return UV_EINVAL;
    return timer->repeat ? uv_timer_start(timer, timer->timer_cb, timer->repeat, timer->repeat) : 0;
}

void uv_timer_set_repeat(uv_timer_t *timer, uint64_t repeat)
{
    timer->repeat = repeat;
}

uint64_t uv_timer_get_repeat(const uv_timer_t *timer)
{
    return timer->repeat;
}

uint64_t uv_timer_get_due_in(const uv_timer_t *timer)
{
    uint64_t now = uv_now(timer->loop);
    return timer->timeout > now ? timer->timeout - now : 0;
}

/* --- async --- */

int uv_async_init(uv_loop_t *loop, uv_async_t *async, uv_async_cb cb)
{
    fake_uv_handle_init(loop, (uv_handle_t *)async, UV_ASYNC);
    async->async_cb = cb;
    async->pending = 0;
    async->flags |= ACTIVE;
    return 0;
}

static void on_async(void *data)
{
    uv_async_t *async = data;
    async->pending = 0;
    if (!uv_is_closing((uv_handle_t *)async) && async->async_cb)
        async->async_cb(async);
}

int uv_async_send(uv_async_t *async)
{
    if (!async->pending && !uv_is_closing((uv_handle_t *)async))
        process_at(process_of_loop(async->loop), soon(), on_async, async);
    async->pending = 1;
    return 0;
}

/* --- polls and signals: both are watches that the world rings --- */

struct watch {
    SLIST_ENTRY(watch) link;
    struct process *process;
    uv_handle_t *handle;
    int number; /* descriptor or signal */
    struct sim_event *event;
};
SLIST_HEAD(watches, watch);

static struct watches watches;
static int next_fd;

/* Also what a dead process left: it may have had a handle at this address. */
static void watch_drop(const uv_handle_t *handle)
{
    struct watch *w, *next;
    for (w = SLIST_FIRST(&watches); w; w = next) {
        next = SLIST_NEXT(w, link);
        bool alive = process_alive(w->process);
        if (alive && w->handle != handle)
            continue;
        if (alive && w->event)
            sim_cancel(w->event);
        SLIST_REMOVE(&watches, w, watch, link);
        if (alive)
            free(w); /* else an event that is dropped may still name it */
    }
}

static void watch_add(uv_handle_t *handle, int number)
{
    watch_drop(handle);
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->process = process_of_loop(handle->loop);
    w->handle = handle;
    w->number = number;
    SLIST_INSERT_HEAD(&watches, w, link);
}

int uv_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd)
{
    fake_uv_handle_init(loop, (uv_handle_t *)poll, UV_POLL);
    watch_add((uv_handle_t *)poll, fd);
    return 0;
}

int uv_poll_start(uv_poll_t *poll, int events, uv_poll_cb cb)
{
    (void)events;
    poll->poll_cb = cb;
    poll->flags |= ACTIVE;
    return 0;
}

int uv_poll_stop(uv_poll_t *poll)
{
    poll->flags &= ~(unsigned)ACTIVE;
    return 0;
}

int uv_signal_init(uv_loop_t *loop, uv_signal_t *handle)
{
    fake_uv_handle_init(loop, (uv_handle_t *)handle, UV_SIGNAL);
    return 0;
}

int uv_signal_start(uv_signal_t *handle, uv_signal_cb cb, int signum)
{
    watch_add((uv_handle_t *)handle, signum);
    handle->signal_cb = cb;
    handle->signum = signum;
    handle->flags |= ACTIVE;
    return 0;
}

int uv_signal_stop(uv_signal_t *handle)
{
    handle->flags &= ~(unsigned)ACTIVE;
    return 0;
}

static void on_watch(void *data)
{
    struct watch *w = data;
    uv_handle_t *handle = w->handle;
    w->event = NULL;
    if (!(handle->flags & ACTIVE))
        return;
    if (handle->type == UV_POLL) {
        uv_poll_t *poll = (uv_poll_t *)handle;
        poll->poll_cb(poll, 0, UV_READABLE);
    } else {
        uv_signal_t *sig = (uv_signal_t *)handle;
        sig->signal_cb(sig, sig->signum);
    }
}

static void ring(struct process *p, uv_handle_type type, int number)
{
    struct watch *w;
    SLIST_FOREACH(w, &watches, link)
    {
        if (w->process == p && w->number == number && w->handle->type == type && !w->event)
            w->event = process_at(p, soon(), on_watch, w);
    }
}

int sim_fd_new(void)
{
    return next_fd++;
}

void sim_fd_ready(struct process *p, int fd)
{
    if (process_alive(p))
        ring(p, UV_POLL, fd);
}

void sim_signal(struct process *p, int signum)
{
    if (process_alive(p))
        ring(p, UV_SIGNAL, signum);
}

/* --- work in libuv's pool: a fiber per job --- */

static void work_run(void *data)
{
    uv_work_t *req = data;
    req->work_cb(req);
}

static void work_done(void *data)
{
    uv_work_t *req = data;
    if (req->after_work_cb)
        req->after_work_cb(req, 0);
}

int uv_queue_work(uv_loop_t *loop, uv_work_t *req, uv_work_cb work, uv_after_work_cb after)
{
    req->loop = loop;
    req->work_cb = work;
    req->after_work_cb = after;
    fiber_start(process_of_loop(loop), "work", work_run, work_done, req);
    return 0;
}

void fake_uv_reset(void)
{
    while (!SLIST_EMPTY(&watches)) {
        struct watch *w = SLIST_FIRST(&watches);
        SLIST_REMOVE_HEAD(&watches, link);
        free(w);
    }
    next_fd = SIM_FD_FIRST;
    fake_udp_reset();
}
