/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alarms and workers of src/base over the engine's events and fibers, with their contracts: an
 * alarm rings from the loop, once; a worker runs its jobs one after the other and tells their ends
 * in that order on the loop, the next one running meanwhile.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alarm.h"
#include "base/worker.h"
#include "sim/internal.h"
#if __has_include("base/parallel.h")
#include "base/parallel.h"
#endif

/* --- alarms --- */

struct alarms {
    struct process *process;
    void (*closed)(void *data);
    void *data;
};

struct alarms *alarms_open(uv_loop_t *loop)
{
    struct alarms *a = calloc(1, sizeof *a);
    if (!a)
        abort();
    a->process = process_of_loop(loop);
    return a;
}

uint64_t alarms_now_us(const struct alarms *alarms)
{
    return machine_now_us(alarms->process->machine);
}

static void on_ring(void *data)
{
    struct alarm *alarm = data;
    alarm->place = 0;
    alarm->ring(alarm);
}

/* `order` is the implementation's own: here it is the event. */
void alarm_set(struct alarms *alarms, struct alarm *alarm, uint64_t at_us)
{
    struct process *p = alarms->process;
    alarm_clear(alarms, alarm);
    alarm->at_us = at_us;
    alarm->place = 1;
    alarm->order = (uintptr_t)process_at(p, machine_sim_time(p->machine, at_us), on_ring, alarm);
}

void alarm_clear(struct alarms *alarms, struct alarm *alarm)
{
    (void)alarms;
    if (alarm->place)
        sim_cancel((struct sim_event *)(uintptr_t)alarm->order);
    alarm->place = 0;
}

static void on_alarms_closed(void *data)
{
    struct alarms *a = data;
    if (a->closed)
        a->closed(a->data);
    free(a);
}

void alarms_close(struct alarms *alarms, void (*closed)(void *data), void *data)
{
    alarms->closed = closed;
    alarms->data = data;
    process_at(alarms->process, sim_now_us(), on_alarms_closed, alarms);
}

/* --- workers --- */

/* What the wake of the loop takes. */
#define DONE_US 20u

struct job_list {
    struct worker_job *head, **tail;
};

struct worker {
    struct process *process;
    char name[16];
    struct job_list submitted, finished;
    bool busy, telling, closed;
    unsigned outstanding;
    uint64_t ended;
};

static void list_init(struct job_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_push(struct job_list *list, struct worker_job *job)
{
    job->next = NULL;
    *list->tail = job;
    list->tail = &job->next;
}

static struct worker_job *list_pop(struct job_list *list)
{
    struct worker_job *job = list->head;
    if (job) {
        list->head = job->next;
        if (!list->head)
            list->tail = &list->head;
    }
    return job;
}

struct worker *worker_open(uv_loop_t *loop, const char *name)
{
    struct worker *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->process = process_of_loop(loop);
    strncpy(w->name, name, sizeof w->name - 1);
    list_init(&w->submitted);
    list_init(&w->finished);
    return w;
}

static void tell(void *data)
{
    struct worker *w = data;
    struct worker_job *job;
    w->telling = false;
    while ((job = list_pop(&w->finished)) != NULL) {
        w->outstanding--;
        w->ended++;
        job->done(job);
    }
}

static void work(void *data)
{
    struct worker *w = data;
    struct worker_job *job;
    while ((job = list_pop(&w->submitted)) != NULL) {
        job->run(job);
        list_push(&w->finished, job);
        if (!w->telling)
            process_at(w->process, sim_now_us() + sim_random(STREAM_SCHEDULE, DONE_US), tell, w);
        w->telling = true;
    }
    w->busy = false;
}

void worker_submit(struct worker *worker, struct worker_job *job)
{
    assert(job->run && job->done && !worker->closed);
    worker->outstanding++;
    list_push(&worker->submitted, job);
    if (!worker->busy)
        fiber_start(worker->process, worker->name, work, NULL, worker);
    worker->busy = true;
}

bool worker_is_idle(const struct worker *worker)
{
    return worker->outstanding == 0;
}

uint64_t worker_done_count(const struct worker *worker)
{
    return worker->ended;
}

/* Its memory goes with the process. */
void worker_close(struct worker *worker)
{
    assert(worker->outstanding == 0);
    worker->closed = true;
}

/* --- blocking work side by side (base/parallel.h): a fiber each --- */

#if __has_include("base/parallel.h")
struct parallel {
    void (*fn)(void *data, int index);
    void *data;
    struct fiber *waiting; /* NULL: nobody yet */
    int left;
};

struct branch {
    struct parallel *all;
    int index;
};

static void branch_run(void *data)
{
    struct branch *b = data;
    b->all->fn(b->all->data, b->index);
    if (--b->all->left == 0 && b->all->waiting)
        fiber_wake(b->all->waiting);
}

void parallel_run(int n, void (*fn)(void *data, int index), void *data)
{
    struct parallel all = {.fn = fn, .data = data, .left = n};
    struct branch branches[PARALLEL_MAX];
    assert(n >= 1 && n <= PARALLEL_MAX);
    for (int i = 0; i < n; i++)
        branches[i] = (struct branch){&all, i};
    for (int i = 1; i < n; i++)
        fiber_start(process_current(), "parallel", branch_run, NULL, &branches[i]);
    branch_run(&branches[0]);
    if (all.left == 0)
        return;
    all.waiting = fiber_self();
    fiber_stop();
}
#endif
