/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alarms; see alarm.h. A binary heap of pointers, each alarm knowing its place in it, over one
 * timerfd.
 *
 * Happy path: the earliest alarm's time is what the timerfd is armed for; it becomes readable, and
 * what is due rings in the order of the times, those of one time in the order in which they were
 * set. The timerfd is set anew only for a time earlier than the one it is armed for: an alarm that
 * is cleared or put off, which is what becomes of nearly all of them, costs no system call then,
 * and one wake-up later that finds nothing due. Nor does one that is FAR_US away: a timer of the
 * loop's own, which the loop keeps without system calls, wakes us a little before it. Failure
 * modes: an alarm that sets itself anew in the past would ring forever; so whatever is set while
 * others ring waits for the next turn.
 */
#include "base/alarm.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define ALARMS_MAGIC 0x4c414c41u
#define NOT_ARMED    UINT64_MAX
#define FAR_US       8000u
/* So much earlier the loop's timer is set: it counts whole milliseconds, from the beginning of the
 * loop's turn. */
#define FAR_EARLY_US 3000u

struct alarms {
    uint32_t magic;
    int fd;
    uv_poll_t poll;
    uv_timer_t far;
    uint64_t far_us;     /* what it is set to ring for; NOT_ARMED: it is not */
    struct alarm **heap; /* [1..n], the earliest first */
    uint32_t n, room;
    uint64_t order;    /* of the alarm set last */
    uint64_t armed_us; /* what the timerfd is set to */
    bool ringing;      /* it is set once, when all have rung */
    uint64_t turn_us;  /* while ringing: nothing is due before this any more */
    int open_handles;  /* while closing */
    void (*closed)(void *data);
    void *closed_data;
};

uint64_t alarms_now_us(const struct alarms *alarms)
{
    struct timespec now;

    assert(alarms->magic == ALARMS_MAGIC);
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static bool before(const struct alarm *a, const struct alarm *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

static void put(struct alarms *alarms, uint32_t place, struct alarm *alarm)
{
    alarms->heap[place] = alarm;
    alarm->place = place;
}

static void sift_up(struct alarms *alarms, struct alarm *alarm, uint32_t place)
{
    for (; place > 1 && before(alarm, alarms->heap[place / 2]); place /= 2)
        put(alarms, place, alarms->heap[place / 2]);
    put(alarms, place, alarm);
}

static void sift_down(struct alarms *alarms, struct alarm *alarm, uint32_t place)
{
    for (uint32_t child = 2 * place; child <= alarms->n; child = 2 * place) {
        if (child < alarms->n && before(alarms->heap[child + 1], alarms->heap[child]))
            child++;
        if (!before(alarms->heap[child], alarm))
            break;
        put(alarms, place, alarms->heap[child]);
        place = child;
    }
    put(alarms, place, alarm);
}

static void heap_remove(struct alarms *alarms, struct alarm *alarm)
{
    uint32_t place = alarm->place;
    struct alarm *last = alarms->heap[alarms->n--];

    assert(alarms->heap[place] == alarm);
    alarm->place = 0;
    if (last == alarm)
        return;
    if (place > 1 && before(last, alarms->heap[place / 2]))
        sift_up(alarms, last, place);
    else
        sift_down(alarms, last, place);
}

static void heap_add(struct alarms *alarms, struct alarm *alarm)
{
    if (alarms->n + 1 >= alarms->room) {
        alarms->room = alarms->room ? 2 * alarms->room : 16;
        alarms->heap = realloc(alarms->heap, alarms->room * sizeof(struct alarm *));
        if (!alarms->heap)
            abort();
    }
    sift_up(alarms, alarm, ++alarms->n);
}

static void on_far(uv_timer_t *timer);

/* True if the loop's timer will look after it. */
static bool arm_far(struct alarms *alarms, uint64_t at_us)
{
    uint64_t now_us = alarms_now_us(alarms);

    if (at_us < now_us + FAR_US)
        return false;
    if (at_us >= alarms->far_us)
        return true;
    alarms->far_us = at_us;
    uv_timer_start(&alarms->far, on_far, (at_us - now_us - FAR_EARLY_US) / 1000, 0);
    return true;
}

static void arm(struct alarms *alarms)
{
    if (alarms->n == 0 || alarms->heap[1]->at_us >= alarms->armed_us)
        return;
    uint64_t at_us = alarms->heap[1]->at_us;
    if (arm_far(alarms, at_us))
        return;
    /* All zeroes would disarm it; the first nanosecond is as past as any. */
    const struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at_us / 1000000u),
                     .tv_nsec = at_us ? (long)(at_us % 1000000u * 1000u) : 1},
    };
    if (timerfd_settime(alarms->fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
        abort();
    alarms->armed_us = at_us;
}

static void on_far(uv_timer_t *timer)
{
    struct alarms *alarms = timer->data;

    alarms->far_us = NOT_ARMED;
    arm(alarms);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct alarms *alarms = poll->data;
    uint64_t expirations, last = alarms->order;

    (void)events;
    assert(alarms->magic == ALARMS_MAGIC && status == 0);
    if (read(alarms->fd, &expirations, sizeof expirations) < 0)
        return; /* it was set anew since it became readable */
    alarms->armed_us = NOT_ARMED;
    alarms->turn_us = alarms_now_us(alarms);
    alarms->ringing = true;
    while (alarms->n > 0 && alarms->heap[1]->at_us <= alarms->turn_us &&
           alarms->heap[1]->order <= last) {
        struct alarm *alarm = alarms->heap[1];
        heap_remove(alarms, alarm);
        alarm->ring(alarm); /* may free it, set and clear others */
    }
    alarms->ringing = false;
    arm(alarms);
}

struct alarms *alarms_open(uv_loop_t *loop)
{
    struct alarms *alarms = calloc(1, sizeof *alarms);

    if (!alarms)
        abort();
    alarms->magic = ALARMS_MAGIC;
    alarms->armed_us = alarms->far_us = NOT_ARMED;
    alarms->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (alarms->fd < 0 || uv_poll_init(loop, &alarms->poll, alarms->fd) < 0)
        abort();
    alarms->poll.data = alarms->far.data = alarms;
    uv_timer_init(loop, &alarms->far);
    if (uv_poll_start(&alarms->poll, UV_READABLE, on_readable) < 0)
        abort();
    return alarms;
}

void alarm_set(struct alarms *alarms, struct alarm *alarm, uint64_t at_us)
{
    assert(alarms->magic == ALARMS_MAGIC && !alarms->closed && alarm->ring);
    if (alarm->place)
        heap_remove(alarms, alarm);
    /* Behind all that are due in this turn, or it would keep them from being seen. */
    alarm->at_us = alarms->ringing && at_us < alarms->turn_us ? alarms->turn_us : at_us;
    alarm->order = ++alarms->order;
    heap_add(alarms, alarm);
    if (!alarms->ringing)
        arm(alarms);
}

void alarm_clear(struct alarms *alarms, struct alarm *alarm)
{
    assert(alarms->magic == ALARMS_MAGIC);
    if (alarm->place)
        heap_remove(alarms, alarm);
}

static void on_closed(uv_handle_t *handle)
{
    struct alarms *alarms = handle->data;

    if (--alarms->open_handles > 0)
        return;
    void (*closed)(void *data) = alarms->closed;
    void *data = alarms->closed_data;

    close(alarms->fd);
    free(alarms->heap);
    alarms->magic = 0;
    free(alarms);
    if (closed)
        closed(data);
}

void alarms_close(struct alarms *alarms, void (*closed)(void *data), void *data)
{
    assert(alarms->magic == ALARMS_MAGIC && alarms->n == 0);
    alarms->closed = closed;
    alarms->closed_data = data;
    alarms->open_handles = 2;
    uv_close((uv_handle_t *)&alarms->poll, on_closed);
    uv_close((uv_handle_t *)&alarms->far, on_closed);
}
