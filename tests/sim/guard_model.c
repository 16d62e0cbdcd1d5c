/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunar-guard in the simulator: a process per life of a node that runs the real guard_core, with
 * the model's sanlock, maps and permit files for what the real one does by ioctls, libsanlock and
 * flock; and the agent's end of it, fencing/guard.h.
 *
 * Happy path: guard_open starts one, it sets USED, gets the member lease, opens the permits, and
 * passes on when sanlock last renewed. Killpath, the agent's word, or its own timer: error tables
 * into every map, the proof when nothing is in flight any more, USED cleared, the lease released,
 * gone. Failure modes: it is killed at any moment, and the permit file, which outlives it, tells
 * the next one how far it was; what is in flight hangs: no proof, ever, and a reset, by the
 * watchdog or by the guard; the killpath helper does not run.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "fencing/guard_core.h"
#include "sim/ghost.h"
#include "sim/guard_permits.h"
#include "sim/sanlock_model.h"

#define WIRE_US         30u
#define ACQUIRE_MIN_US  (50 * SIM_MS)
#define ACQUIRE_SPAN_US (180 * SIM_MS)
#define ACQUIRE_END_US  (30 * SIM_S)
#define RENEWAL_LOOK_US SIM_S
#define IOCTL_US        (30 * SIM_MS)
#define DRAIN_POLL_US   (5 * SIM_MS)
#define DRAIN_LOOKS     20u
#define CALL_US         (20 * SIM_MS) /* to the sanlock daemon */
#define HELPER_US       (300 * SIM_MS)
#define OPEN_LIMIT_US   (40 * SIM_S)
#define LEAVE_LIMIT_US  (20 * SIM_S)
#define WAIT_US         (10 * SIM_MS)
/* Within this after a pause, the watchdog may be right although nothing is wrong any more. */
#define STILL_US (30 * SIM_S)
#define HUNG_US  (2 * SIM_S)
#define HEARD_US (3 * SIM_S)
/* A guard's own time for the reset, on top of guard_reset_s. */
#define PATIENCE_MS 1000
/* Until another guard is there: agents are stopped for seconds, and their loops have a second's
 * tick. */
#define ORPHAN_US (5 * SIM_S)

/* --- the guard's process --- */

struct guard_life {
    struct guard_life *next;
    struct process *process;
    struct machine *machine;
    struct guard_core core;
    struct permit_file *file;
    struct guard *agent; /* who said hello last; NULL: nobody, or it has gone */
    struct sim_event *tick;
    uint64_t acquire_end_us, hung_us; /* when what is in flight hung last */
    uint32_t looks;                   /* of the drain */
    int64_t fences_ms;                /* since when, by the machine's clock; 0: it does not */
    bool resets;                      /* it has decided to */
    uint32_t patience;                /* looks after its time was over */
    int start_rc;                     /* why it gave up before it guarded */
    bool refused;                     /* the last leave */
    bool ending;                      /* started to fence at once */
    bool guarded;                     /* it came so far */
};

/* The agent's end. */
struct guard {
    struct process *process;
    struct guard_life *life; /* NULL: gone */
    int fd;
    bool closed, told_gone;
    uint32_t n;
    struct {
        enum guard_state state;
        char reason[GUARD_REASON_SIZE];
    } news[8];
};

static struct guard_life *lives; /* of processes that have not gone */
static uint32_t fences[SIM_NODES_MAX + 1];

static void step(struct guard_life *g, const struct guard_event *event);

static void happen(struct guard_life *g, enum guard_event_type type)
{
    step(g, &(struct guard_event){.type = type});
}

static struct guard_life *life_on(const struct machine *m)
{
    for (struct guard_life *g = lives; g; g = g->next)
        if (g->machine == m && !g->process->gone)
            return g;
    return NULL;
}

struct process *guard_model_process(const struct machine *m)
{
    const struct guard_life *g = life_on(m);
    return g && !g->process->ending ? g->process : NULL;
}

uint32_t guard_model_fences(const struct machine *m)
{
    return fences[m->index];
}

/* --- telling --- */

struct news {
    struct guard *to;
    enum guard_state state;
    char reason[GUARD_REASON_SIZE];
};

static void deliver(void *data)
{
    struct news *n = data;
    struct guard *to = n->to;
    if (!to->closed && to->n < sizeof to->news / sizeof *to->news) {
        to->news[to->n].state = n->state;
        snprintf(to->news[to->n++].reason, GUARD_REASON_SIZE, "%s", n->reason);
        sim_fd_ready(to->process, to->fd);
    }
    free(n);
}

static void tell(struct guard_life *g)
{
    if (!g->agent)
        return;
    struct news *n = calloc(1, sizeof *n);
    if (!n)
        abort();
    n->to = g->agent;
    n->state = g->core.state;
    snprintf(n->reason, sizeof n->reason, "%s", g->core.reason);
    process_at(g->agent->process, sim_now_us() + WIRE_US, deliver, n);
}

/* --- what the core wants done --- */

static void on_locked(void *data)
{
    happen(data, GUARD_EVENT_PERMITS_FREE);
}

static void lock_permits(struct guard_life *g)
{
    if (g->file->byte != GUARD_PERMIT_FENCED) {
        fences[g->machine->index]++;
        sim_trace("%s fences: %s", g->process->name, g->core.reason);
        chaos_guard_fences(g->process);
    }
    g->file->byte = GUARD_PERMIT_FENCED;
    if (permit_is_held(g->file))
        return;
    g->file->locked = true;
    process_at(g->process, sim_now_us(), on_locked, g);
}

static void kill_agent(struct guard_life *g)
{
    struct process *agent = machine_process(g->machine, PROCESS_AGENT);
    if (agent && !agent->ending)
        process_kill(agent);
}

/* Whom a guard has fenced knows of it soon: two looks, for it may just have been continued. */
struct heard {
    const struct machine *machine;
    uint32_t host, boot, looks;
    uint64_t generation;
};

static void on_heard(void *data)
{
    struct heard *h = data;
    const struct machine *m = h->machine;
    const struct process *p = machine_process(m, PROCESS_AGENT);
    const struct agent *a = p && !p->ending && !p->stopped ? process_agent(p) : NULL;
    bool runs = m->state == MACHINE_UP && m->boot == h->boot;
    bool deaf = runs && a && a->state == AGENT_STATE_JOINED && a->join.self.host_id == h->host &&
                a->join.self.generation == h->generation;

    if (deaf && ++h->looks < 2) {
        sim_at(sim_now_us() + HEARD_US, on_heard, h);
        return;
    }
    free(h);
    if (deaf)
        sim_violation("hears-its-guard", "%s goes on in a life that its guard has ended", p->name);
}

static void expect_heard(const struct guard_life *g)
{
    struct heard *h = malloc(sizeof *h);
    if (!h)
        abort();
    *h = (struct heard){g->machine, g->core.config.host_id, g->machine->boot, 0,
                        g->core.config.generation};
    sim_at(sim_now_us() + HEARD_US, on_heard, h);
}

static void on_drain(void *data)
{
    struct guard_life *g = data;
    if (stack_model_is_drained(g->machine)) {
        sim_trace("%s has the proof", g->process->name);
        g->file->proven = true;
        expect_heard(g);
        happen(g, GUARD_EVENT_PROVEN);
        return;
    }
    if ((g->machine->path_lost && !g->machine->path_errors) || stack_model_is_stuck(g->machine))
        g->hung_us = sim_now_us();
    if (++g->looks >= DRAIN_LOOKS) {
        happen(g, GUARD_EVENT_NOT_PROVEN);
    } else {
        process_at(g->process, sim_now_us() + DRAIN_POLL_US, on_drain, g);
    }
}

static void on_wipe(void *data)
{
    struct guard_life *g = data;
    stack_model_wipe(g->machine);
    g->looks = 0;
    on_drain(g);
}

/* Every map that stands; who loads one now is met by the wipe. */
static void on_stop(void *data)
{
    const struct guard_life *g = data;
    stack_model_wipe(g->machine);
}

static void do_reset(void *data)
{
    struct machine *m = data;
    world_power_cycle(m, 5 * SIM_S + sim_random(STREAM_WORLD, 10 * SIM_S),
                      "its guard has no proof");
}

static void on_empty_look(void *data)
{
    struct guard_life *g = data;
    bool empty = !permit_is_held(g->file) && stack_model_is_empty(g->machine);
    g->file->locked = empty;
    happen(g, empty ? GUARD_EVENT_EMPTY : GUARD_EVENT_NOT_EMPTY);
}

static void on_release(void *data)
{
    struct guard_life *g = data;
    bool ok = model_guard_release(g->process);
    happen(g, ok ? GUARD_EVENT_RELEASED : GUARD_EVENT_RELEASE_FAILED);
}

static void on_clear_used(void *data)
{
    struct guard_life *g = data;
    model_set_used(g->machine, false);
    process_at(g->process, sim_now_us() + 1 + sim_random(STREAM_WORLD, CALL_US), on_release, g);
}

static void on_exit_now(void *data)
{
    struct guard_life *g = data;
    process_kill(g->process);
}

static void in_a_while(struct guard_life *g, uint64_t span_us, void (*fn)(void *data))
{
    process_at(g->process, sim_now_us() + 1 + sim_random(STREAM_WORLD, span_us), fn, g);
}

static void perform(struct guard_life *g, unsigned todo)
{
    if (todo & GUARD_DO_RESET) {
        g->resets = true;
        if (g->file->proven)
            sim_violation("a-fence-has-an-end", "%s resets a machine that it has proved clean",
                          g->process->name);
        process_at(g->process, sim_now_us(), do_reset, g->machine);
    }
    if (todo & GUARD_DO_LOCK_PERMITS)
        lock_permits(g);
    if (todo & GUARD_DO_KILL_AGENT)
        kill_agent(g);
    if (todo & GUARD_DO_STOP)
        in_a_while(g, IOCTL_US, on_stop);
    if (todo & GUARD_DO_WIPE)
        in_a_while(g, IOCTL_US, on_wipe);
    if (todo & GUARD_DO_CHECK_EMPTY) {
        g->file->byte = GUARD_PERMIT_CLOSED;
        in_a_while(g, IOCTL_US, on_empty_look);
    }
    if (todo & GUARD_DO_OPEN_PERMITS) {
        g->file->byte = GUARD_PERMIT_OPEN;
        g->file->locked = false;
    }
    if (todo & GUARD_DO_RELEASE)
        in_a_while(g, CALL_US, on_clear_used);
    if (todo & GUARD_DO_REFUSE_LEAVE)
        g->refused = true;
    if (todo & GUARD_DO_TELL)
        tell(g);
    if (todo & GUARD_DO_EXIT)
        process_at(g->process, sim_now_us() + WIRE_US, on_exit_now, g);
}

static void on_tick(void *data)
{
    struct guard_life *g = data;
    g->tick = NULL;
    happen(g, GUARD_EVENT_TICK);
}

static uint64_t clock_ms(const struct machine *m)
{
    return machine_now_us(m) / SIM_MS;
}

/* Whatever hangs, and whether sanlock renews or not: a fence has the proof or ends in a reset. */
static void on_end_of_patience(void *data)
{
    struct guard_life *g = data;
    if (g->core.state == GUARD_STATE_FENCING && ++g->patience < 3) {
        /* Again: it may just have been continued, with more than this overdue, and gives the wipe a
         * moment first. */
        process_at(g->process, sim_now_us() + PATIENCE_MS * SIM_MS, on_end_of_patience, g);
        return;
    }
    if (g->core.state == GUARD_STATE_FENCING && !g->resets)
        sim_violation("a-fence-has-an-end", "%s has no proof after %d ms, and nobody resets %s",
                      g->process->name, (int)((int64_t)clock_ms(g->machine) - g->fences_ms),
                      g->machine->name);
}

/* A guard that was killed before its proof, and whose agent had found it: one that has just been
 * started may wait for the very I/O that hangs, or for a sanlock that is dead. */
struct orphan {
    const struct machine *machine;
    const struct process *agent;
    const struct permit_file *file;
    uint32_t boot;
};

static void on_orphan(void *data)
{
    struct orphan *o = data;
    const struct machine *m = o->machine;
    bool same = m->state == MACHINE_UP && m->boot == o->boot &&
                machine_process(m, PROCESS_AGENT) == o->agent && !o->agent->ending &&
                !o->agent->stopped;
    if (same && !o->file->proven && !life_on(m) && !stack_model_is_drained(m))
        sim_violation("a-fence-has-an-end", "%s has no proof, and no guard any more", m->name);
    free(o);
}

static void expect_successor(const struct guard_life *g)
{
    const struct process *agent = machine_process(g->machine, PROCESS_AGENT);
    if (g->core.state != GUARD_STATE_FENCING || !agent || agent->ending || !g->core.agent_connected)
        return;
    struct orphan *o = malloc(sizeof *o);
    if (!o)
        abort();
    *o = (struct orphan){g->machine, agent, g->file, g->machine->boot};
    sim_at(sim_now_us() + ORPHAN_US, on_orphan, o);
}

static void expect_end(struct guard_life *g)
{
    if (g->fences_ms || g->core.state != GUARD_STATE_FENCING)
        return;
    g->fences_ms = (int64_t)clock_ms(g->machine);
    int64_t end_ms = g->fences_ms + model_times.guard_reset_s * 1000 + PATIENCE_MS;
    process_at(g->process, machine_sim_time(g->machine, (uint64_t)end_ms * SIM_MS),
               on_end_of_patience, g);
}

static void step(struct guard_life *g, const struct guard_event *event)
{
    struct guard_event e = *event;
    e.now_ms = (int64_t)clock_ms(g->machine);
    unsigned todo = guard_core_step(&g->core, &e);
    expect_end(g);
    int64_t due = guard_core_deadline(&g->core);
    if (g->tick)
        sim_cancel(g->tick);
    g->tick = NULL;
    if (due != INT64_MAX)
        g->tick = process_at(g->process, machine_sim_time(g->machine, (uint64_t)due * SIM_MS),
                             on_tick, g);
    perform(g, todo);
}

/* --- its beginning, and what sanlock tells --- */

static void on_look_at_renewal(void *data)
{
    struct guard_life *g = data;
    uint64_t shown_us = model_shown_renewal_us(g->machine);
    if (shown_us)
        step(g, &(struct guard_event){.type = GUARD_EVENT_RENEWED,
                                      .renewed_ms = (int64_t)(shown_us / SIM_MS)});
    process_at(g->process, sim_now_us() + RENEWAL_LOOK_US, on_look_at_renewal, g);
}

static void on_acquire(void *data)
{
    struct guard_life *g = data;
    const struct guard_core_config *c = &g->core.config;
    bool joined = model_guard_may_acquire(g->machine, c->host_id, c->generation);

    if (joined)
        model_set_used(g->machine, true); /* SAFETY 9: before the lease */
    if (joined && model_guard_acquire(g->process)) {
        g->guarded = true;
        happen(g, GUARD_EVENT_ACQUIRED);
        on_look_at_renewal(g);
        return;
    }
    if (joined && sim_now_us() < g->acquire_end_us) {
        in_a_while(g, ACQUIRE_SPAN_US, on_acquire);
        return;
    }
    g->start_rc = joined ? LUNAR_E_BUSY : LUNAR_E_NOT_JOINED;
    step(g, &(struct guard_event){.type = GUARD_EVENT_START_FAILED,
                                  .flag = !joined,
                                  .reason = "the lockspace is lost"});
}

static void on_start(void *data)
{
    struct guard_life *g = data;
    enum guard_permit_byte said = g->file->byte;
    if (said == GUARD_PERMIT_NONE)
        g->file->byte = GUARD_PERMIT_CLOSED;
    if (g->ending)
        said = GUARD_PERMIT_FENCED;
    step(g, &(struct guard_event){.type = GUARD_EVENT_STARTED, .resumed = said});
    g->acquire_end_us = sim_now_us() + ACQUIRE_END_US;
    process_at(g->process,
               sim_now_us() + ACQUIRE_MIN_US + sim_random(STREAM_WORLD, ACQUIRE_SPAN_US),
               on_acquire, g);
}

static struct guard_life *start(struct machine *m, uint32_t host, uint64_t generation, bool ending)
{
    struct guard_life *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    const struct guard_core_config config = {host, generation, model_times};
    g->machine = m;
    g->ending = ending;
    g->file = permit_file_make(m, host, generation);
    guard_core_init(&g->core, &config);
    g->process = process_start(PROCESS_GUARD, m);
    g->next = lives;
    lives = g;
    process_at(g->process, sim_now_us(), on_start, g);
    return g;
}

/* --- what happens to it --- */

struct killpath {
    struct guard_life *life;
    uint32_t host;
    uint64_t generation;
};

static void on_killpath(void *data)
{
    struct killpath *k = data;
    struct guard_life *g = k->life;
    const struct guard_event e = {
        .type = GUARD_EVENT_KILLPATH, .host_id = k->host, .generation = k->generation};
    free(k);
    step(g, &e);
}

/* sanlock runs it once, by a helper that may be gone. */
void guard_model_killpath(struct machine *m)
{
    struct guard_life *g = life_on(m);
    if (!g || g->process->ending || sim_fault(FAULT_KILLPATH_LOST, 500))
        return;
    struct killpath *k = calloc(1, sizeof *k);
    if (!k)
        abort();
    *k = (struct killpath){g, sanlock_host_id(m), sanlock_generation(m)};
    process_at(g->process, sim_now_us() + sim_random(STREAM_WORLD, HELPER_US), on_killpath, k);
}

static void on_term(void *data)
{
    happen(data, GUARD_EVENT_SIGTERM);
}

void guard_model_term(struct machine *m)
{
    struct guard_life *g = life_on(m);
    if (g && !g->process->ending)
        process_at(g->process, sim_now_us() + sim_random(STREAM_WORLD, 2 * IOCTL_US), on_term, g);
}

static void on_sanlock_gone(void *data)
{
    happen(data, GUARD_EVENT_SANLOCK_GONE);
}

void guard_model_sanlock_gone(struct machine *m)
{
    struct guard_life *g = life_on(m);
    if (g && !g->process->ending)
        process_at(g->process, sim_now_us() + WIRE_US, on_sanlock_gone, g);
}

static void on_agent_gone(void *data)
{
    happen(data, GUARD_EVENT_AGENT_GONE);
}

void guard_model_process_gone(struct process *p)
{
    permits_process_gone(p);
    for (struct guard_life **at = &lives, *g; (g = *at);) {
        if (g->process == p) {
            *at = g->next; /* its memory stays: events that are dropped may name it */
            g->file->locked = false;
            expect_successor(g);
            if (g->agent) {
                g->agent->life = NULL;
                sim_fd_ready(g->agent->process, g->agent->fd);
            }
            continue;
        }
        if (g->agent && g->agent->process == p) {
            g->agent = NULL;
            if (!g->process->ending)
                process_at(g->process, sim_now_us() + WIRE_US, on_agent_gone, g);
        }
        at = &g->next;
    }
}

/* Nobody watches over a node any more that may yet write: others wait for 8N + W at most. */
void guard_model_cleared(struct machine *m)
{
    if (!stack_model_is_drained(m))
        sim_violation("cleared-upon-proof", "sanlock lets go of %s, which may still write",
                      m->name);
}

void guard_model_mapping(const struct machine *m, uint32_t host, uint64_t generation)
{
    const struct permit_file *f = permit_file_of(m, host, generation);
    if (f && f->proven)
        sim_violation("nothing-after-the-proof", "%s maps something, and was proved clean before",
                      m->name);
}

/* Where nothing was in the way, the guard has to be faster than the watchdog. */
void guard_model_reset(const struct machine *m)
{
    const struct guard_life *g = life_on(m);
    bool stood_still = sim_now_us() - m->resumed_us < STILL_US && m->resumed_us > 0;
    if (!g || g->process->ending || !g->guarded || stood_still || model_daemon(m)->dead)
        return;
    if (sim_now_us() - g->hung_us < HUNG_US)
        return; /* what is in flight hangs, or did until just now: the reset is right */
    sim_violation("fences-in-time", "the watchdog resets %s, whose guard is %s, for nothing",
                  m->name, guard_state_name(g->core.state));
}

void guard_model_machine_off(const struct machine *m)
{
    permits_machine_off(m);
}

/* --- the agent's end --- */

static void on_hello(void *data)
{
    happen(data, GUARD_EVENT_AGENT_CONNECTED);
}

static struct guard *connect_to(struct guard_life *g)
{
    struct guard *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->process = process_current();
    c->life = g;
    c->fd = sim_fd_new();
    g->agent = c;
    process_at(g->process, sim_now_us() + WIRE_US, on_hello, g);
    return c;
}

/* 1: it guards us; 0: wait, or it has gone; or an error. */
static int look_at(const struct guard_life *g, const struct guard_config *config, struct error *err)
{
    const struct guard_core_config *c = &g->core.config;
    if (g->process->ending || g->core.state == GUARD_STATE_OVER)
        return 0;
    if (c->host_id != config->host_id || c->generation != config->generation)
        return error_set(err, LUNAR_E_ALIVE, "the guard of another generation is %s still",
                         guard_state_name(g->core.state));
    if (g->core.state == GUARD_STATE_GUARDING ||
        (config->ending && g->core.state != GUARD_STATE_STARTING))
        return 1;
    return g->core.state == GUARD_STATE_STARTING
               ? 0
               : error_set(err, LUNAR_E_FENCED, "the guard of this generation is %s: %s",
                           guard_state_name(g->core.state), g->core.reason);
}

int guard_open(const struct guard_config *config, struct guard **ret, struct error *err)
{
    struct machine *m = process_current()->machine;
    struct guard_life *started = NULL;
    uint64_t end = sim_now_us() + OPEN_LIMIT_US;

    while (sim_now_us() < end) {
        struct guard_life *g = life_on(m);
        int rc = g ? look_at(g, config, err) : 0;
        if (rc < 0)
            return rc;
        if (rc == 1) {
            *ret = connect_to(g);
            return 0;
        }
        if (started && started->start_rc < 0 && started->process->ending)
            return error_set(err, started->start_rc, "lunar-guard cannot get the member lease");
        if (!g)
            started = start(m, config->host_id, config->generation, config->ending);
        fiber_sleep(WAIT_US);
    }
    return error_set(err, LUNAR_E_TIMEOUT, "lunar-guard neither guards nor gives up");
}

static void ring_again(void *data)
{
    const struct guard *guard = data;
    if (!guard->closed)
        sim_fd_ready(guard->process, guard->fd);
}

/* Asked for when a poll begins: what came before makes it fire, as a level-triggered one does. */
int guard_fd(const struct guard *guard)
{
    if (guard->n > 0 || !guard->life)
        process_at(guard->process, sim_now_us() + WIRE_US, ring_again, (void *)(uintptr_t)guard);
    return guard->fd;
}

int guard_read(struct guard *guard, enum guard_state *ret_state, char ret_reason[GUARD_REASON_SIZE],
               struct error *err)
{
    if (guard->n > 0) {
        *ret_state = guard->news[0].state;
        snprintf(ret_reason, GUARD_REASON_SIZE, "%s", guard->news[0].reason);
        memmove(guard->news, guard->news + 1, --guard->n * sizeof *guard->news);
        if (guard->n > 0 || !guard->life)
            sim_fd_ready(guard->process, guard->fd); /* as a poll that is level-triggered */
        return 1;
    }
    return guard->life ? 0 : error_set(err, -EPIPE, "the guard has gone");
}

static void on_word_fence(void *data)
{
    step(data,
         &(struct guard_event){.type = GUARD_EVENT_AGENT_FENCE, .reason = "the agent's word"});
}

static void on_word_drained(void *data)
{
    happen(data, GUARD_EVENT_DRAINED);
}

static void on_word_leave(void *data)
{
    happen(data, GUARD_EVENT_LEAVE);
}

static int say(struct guard *guard, void (*word)(void *data), struct error *err)
{
    if (!guard->life || guard->life->process->ending)
        return error_set(err, -EPIPE, "cannot tell the guard: it has gone");
    process_at(guard->life->process, sim_now_us() + WIRE_US, word, guard->life);
    return 0;
}

int guard_fence(struct guard *guard, const char *reason, struct error *err)
{
    sim_trace("the guard is told to fence: %s", reason);
    return say(guard, on_word_fence, err);
}

int guard_drained(struct guard *guard, struct error *err)
{
    return say(guard, on_word_drained, err);
}

/* 1: it has gone, having been over; 0: not yet; or why not. */
static int left(const struct guard *guard, const struct guard_life *g, struct error *err)
{
    if (g->core.state == GUARD_STATE_FENCING || g->core.state == GUARD_STATE_PROVEN)
        return error_set(err, LUNAR_E_FENCED, "the guard is fencing this node off");
    if (g->refused)
        return error_set(err, LUNAR_E_IN_USE, "the node cannot leave: maps stand");
    if (!guard->life && g->core.state != GUARD_STATE_OVER)
        return error_set(err, -EPIPE, "the guard has gone");
    return !guard->life;
}

int guard_leave(struct guard *guard, struct error *err)
{
    struct guard_life *g = guard->life;
    uint64_t end = sim_now_us() + LEAVE_LIMIT_US;

    if (g)
        g->refused = false;
    int rc = say(guard, on_word_leave, err);
    while (rc == 0) {
        fiber_sleep(WAIT_US);
        rc = left(guard, g, err);
        if (rc == 0 && sim_now_us() >= end)
            rc = error_set(err, LUNAR_E_TIMEOUT, "the guard does not answer");
    }
    if (rc < 0)
        return rc;
    guard_close(guard);
    return 0;
}

void guard_close(struct guard *guard)
{
    guard->closed = true;
    if (guard->life && guard->life->agent == guard) {
        guard->life->agent = NULL;
        process_at(guard->life->process, sim_now_us() + WIRE_US, on_agent_gone, guard->life);
    }
}
