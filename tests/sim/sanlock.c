/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of sanlock: a daemon per machine with its delta lease, what it has seen of the others,
 * the watchdog, and the coordinator's lease with its version, the term.
 *
 * Happy path: a daemon renews every 2N while its machine runs and reaches the LUN, and looks at the
 * other leases each time. The model's records are the truth and are written to the LUN in one
 * piece, because sanlock's sectors are atomic. Failure modes, each as measured (FENCING.md):
 *
 * 8N by its own clock without a renewal: the daemon ends its clients that hold leases and never
 * takes the lockspace up again, though it goes on renewing if the LUN returns; marked USED, the
 * node is reset by its watchdog at 8N + W, or some 2 s earlier; after a longer pause, within 0.3 s
 * of its waking. Others see FAIL and DEAD 8N and 8N + W after they last saw its timestamp move, by
 * their own clocks and *until now*: as in sanlock, a daemon that could not look for long takes the
 * others for dead.
 *
 * The coordinator's lease is free when its holder is gone with all its I/O (SAFETY 1) and its
 * daemon has written so, or its host is dead, free or of a newer generation for the one that
 * acquires, who reads the owner's delta lease anew for that.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sanlock_model.h"

/* A renewal that failed is tried again soon; so is a release. */
#define RETRY_US SIM_S
/* The reset comes W after the last feeding, which ends up to a look of wdmd before 8N. */
#define WATCHDOG_EARLY_US (2 * SIM_S)
#define WAKE_RESET_US     (300 * SIM_MS)
/* What an array may need to end the writes of a host that was reset (consumer.c). */
#define ARRAY_US   (120 * SIM_MS)
#define RELEASE_US (300 * SIM_MS)
/* What the clocks of two machines drift apart within 8N + W, at 200 ppm each. */
#define DRIFT_US (20 * SIM_MS)
/* Joining under an id that this host left cleanly, or under another one, in N. */
#define JOIN_CLEAN_US  SIM_S
#define JOIN_OTHER_2NS 5u /* halves of N */

struct superblock model_sb;
struct timeouts model_times;
struct model_host *model_hosts;
struct model_lease model_lease;
static struct model_daemon daemons[SIM_NODES_MAX + 1];

struct model_daemon *model_daemon(const struct machine *m)
{
    return &daemons[m->index];
}

bool model_reaches(const struct machine *m)
{
    return m->state == MACHINE_UP && !m->path_lost && lun_lets_write(m, sim_now_us());
}

static uint64_t clock_s(const struct machine *m)
{
    uint64_t s = machine_now_us(m) / SIM_S;
    return s > 0 ? s : 1; /* 0 means free */
}

static struct sim_event *after(struct machine *m, uint64_t clock_us, void (*fn)(void *data))
{
    return machine_event(m, machine_sim_time(m, clock_us), fn, m);
}

static void drop(struct sim_event **event)
{
    if (*event)
        sim_cancel(*event);
    *event = NULL;
}

/* --- what others see --- */

void sanlock_prove_dead(uint32_t host_id, uint64_t generation)
{
    struct model_host *host = &model_hosts[host_id];
    if (generation > host->proved_dead) {
        host->proved_dead = generation;
        sim_trace("sanlock: host %u generation %llu is proved dead", host_id,
                  (unsigned long long)generation);
    }
}

/* A look at the delta lease on the LUN. */
static void look(const struct machine *m, uint32_t host_id)
{
    const struct model_host *host = &model_hosts[host_id];
    struct model_view *view = &model_daemon(m)->views[host_id];
    uint64_t now = machine_now_us(m);

    if (!view->first_check_us)
        view->first_check_us = view->last_live_us = now;
    else if (view->generation != host->generation || view->timestamp != host->timestamp)
        view->last_live_us = now;
    view->generation = host->generation;
    view->timestamp = host->timestamp;
    if (host->timestamp == 0 || now - view->last_live_us > (uint64_t)model_times.dead_s * SIM_S)
        sanlock_prove_dead(host_id, host->generation);
}

static void look_at_all(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    for (uint32_t h = 1; h <= model_sb.layout.max_nodes; h++)
        if (h != d->host_id && model_hosts[h].generation > 0)
            look(m, h);
    d->looked = true;
}

enum host_state model_state(const struct machine *m, uint32_t host_id)
{
    const struct model_daemon *d = model_daemon(m);
    const struct model_view *view = &d->views[host_id];
    uint64_t age_us = machine_now_us(m) - view->last_live_us;

    if (host_id == d->host_id)
        return HOST_STATE_LIVE;
    if (!view->first_check_us)
        return HOST_STATE_UNKNOWN;
    if (view->timestamp == 0)
        return HOST_STATE_FREE;
    if (age_us > (uint64_t)model_times.dead_s * SIM_S)
        return HOST_STATE_DEAD;
    if (age_us > (uint64_t)model_times.fail_s * SIM_S)
        return HOST_STATE_FAIL;
    return view->first_check_us == view->last_live_us ? HOST_STATE_UNKNOWN : HOST_STATE_LIVE;
}

bool sanlock_proved_dead(uint32_t host_id, uint64_t generation)
{
    assert(host_id >= 1 && host_id <= model_sb.layout.max_nodes);
    const struct model_host *host = &model_hosts[host_id];
    /* By the true time, less what a machine's clock may gain in it. */
    if (generation == host->generation &&
        sim_now_us() - host->written_us > (uint64_t)model_times.dead_s * SIM_S - DRIFT_US)
        sanlock_prove_dead(host_id, generation);
    return generation < host->generation || generation <= host->proved_dead;
}

bool sanlock_sees_dead(const struct machine *m, uint32_t host_id)
{
    const struct model_host *host = &model_hosts[host_id];
    const struct model_view *view = &model_daemon(m)->views[host_id];
    return model_state(m, host_id) == HOST_STATE_DEAD && view->generation == host->generation &&
           view->timestamp == host->timestamp;
}

bool sanlock_is_free(uint32_t host_id, uint64_t generation)
{
    const struct model_host *host = &model_hosts[host_id];
    return host->generation == generation && host->timestamp == 0;
}

uint64_t sanlock_written_us(uint32_t host_id, uint64_t *ret_generation)
{
    const struct model_host *host = &model_hosts[host_id];
    *ret_generation = host->generation;
    return host->timestamp ? host->written_us : 0;
}

/* A renewal that takes half as long again is a break. */
static bool is_regular(const struct model_host *host)
{
    return sim_now_us() - host->written_us <= (uint64_t)model_times.renew_s * SIM_S * 3 / 2;
}

uint64_t sanlock_renews_us(uint32_t host_id, uint64_t generation)
{
    const struct model_host *host = &model_hosts[host_id];
    bool renews = host->timestamp && host->generation == generation && is_regular(host);
    return renews ? sim_now_us() - host->renews_since_us : 0;
}

/* --- renewal, failure, watchdog --- */

static void on_renew(void *data);
static void on_check(void *data);
static void on_watchdog(void *data);

static void arm_watchdog(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    if (d->doomed)
        return;
    drop(&d->watchdog);
    if (d->used || d->guard)
        d->watchdog = after(m,
                            d->renewed_us + (uint64_t)model_times.dead_s * SIM_S - ARRAY_US -
                                sim_random(STREAM_SCHEDULE, WATCHDOG_EARLY_US),
                            on_watchdog);
}

static void forget(struct model_daemon *d);

/*
 * A lockspace that is lost is given up, with the watchdog content, once everybody's lease of it is
 * released and USED is cleared: sanlock then takes the node's tables for clear, whatever they are.
 * If it can, it frees the host id on the LUN; the measured one could not, with a LUN that was away.
 */
static void clear_if_all_let_go(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    if (d->state != DAEMON_JOINED || !d->failed || d->used || d->guard || d->dead)
        return;
    if (d->leader && !d->leader->gone)
        return;
    sim_trace("sanlock: %s has cleared its lockspace", m->name);
    if (sim_hooks.cleared)
        sim_hooks.cleared(m);
    struct model_host *host = &model_hosts[d->host_id];
    if (model_reaches(m) && host->generation == d->generation && sim_random(STREAM_SCHEDULE, 2)) {
        host->timestamp = 0;
        model_write_host(d->host_id);
    }
    forget(d);
}

void model_set_used(struct machine *m, bool used)
{
    model_daemon(m)->used = used;
    if (used && model_daemon(m)->state == DAEMON_JOINED)
        arm_watchdog(m);
    clear_if_all_let_go(m);
}

bool model_guard_may_acquire(const struct machine *m, uint32_t host_id, uint64_t generation)
{
    const struct model_daemon *d = model_daemon(m);
    return d->state == DAEMON_JOINED && !d->failed && !d->dead && d->host_id == host_id &&
           d->generation == generation;
}

bool model_guard_acquire(struct process *guard)
{
    struct model_daemon *d = model_daemon(guard->machine);
    if (!model_reaches(guard->machine) || d->guard || d->dead)
        return false;
    d->guard = guard;
    arm_watchdog(guard->machine);
    return true;
}

bool model_guard_release(struct process *guard)
{
    struct model_daemon *d = model_daemon(guard->machine);
    if (d->dead)
        return false;
    if (d->guard == guard)
        d->guard = NULL;
    clear_if_all_let_go(guard->machine);
    return true;
}

uint64_t model_shown_renewal_us(const struct machine *m)
{
    const struct model_daemon *d = model_daemon(m);
    return d->state == DAEMON_JOINED && !d->dead ? d->shown_us : 0;
}

static void kill_leader(const struct machine *m)
{
    struct process *leader = model_daemon(m)->leader;
    if (leader && process_alive(leader))
        process_kill(leader);
}

/* 8N without a renewal. The guard is told, once; whoever else holds a lease is killed. */
static void fail(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    if (d->failed)
        return;
    d->failed = true;
    sim_trace("sanlock: %s has lost its lockspace", m->name);
    if (d->guard && sim_hooks.killpath)
        sim_hooks.killpath(m);
    kill_leader(m);
    clear_if_all_let_go(m);
}

void model_remove(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    if (d->state != DAEMON_JOINED || d->dead)
        return;
    d->failed = true; /* for whoever asks; nothing of it is fed or renewed any more */
    kill_leader(m);
    clear_if_all_let_go(m);
}

static uint64_t age_us(const struct machine *m)
{
    return machine_now_us(m) - model_daemon(m)->renewed_us;
}

static void on_check(void *data)
{
    struct machine *m = data;
    model_daemon(m)->check = NULL;
    fail(m);
}

static void renewed(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    struct model_host *host = &model_hosts[d->host_id];

    sanlock_proved_dead(d->host_id, host->generation); /* whoever looked a moment ago may say so */
    host->timestamp = clock_s(m);
    if (!is_regular(host))
        host->renews_since_us = sim_now_us();
    host->written_us = sim_now_us();
    model_write_host(d->host_id);
    look_at_all(m);
    if (d->failed)
        return; /* renewed, but nobody feeds the watchdog for it */
    /* Its lists are read before its own record is written: they may lag by one renewal. */
    d->shown_us = sim_random(STREAM_SCHEDULE, 2) ? d->renewed_us : machine_now_us(m);
    d->renewed_us = machine_now_us(m);
    drop(&d->check);
    d->check = after(m, d->renewed_us + (uint64_t)model_times.fail_s * SIM_S, on_check);
    arm_watchdog(m);
}

static void on_renew(void *data)
{
    struct machine *m = data;
    struct model_daemon *d = model_daemon(m);
    uint64_t now = machine_now_us(m);

    d->renew = NULL;
    /* Whether the renewal or the look at one's own age comes first after a pause is chance. */
    if (age_us(m) >= (uint64_t)model_times.fail_s * SIM_S && sim_random(STREAM_SCHEDULE, 2))
        fail(m);
    if (d->state != DAEMON_JOINED)
        return;
    bool ok = model_reaches(m) && model_hosts[d->host_id].generation == d->generation;
    if (ok)
        renewed(m);
    d->renew = after(m, now + (ok ? (uint64_t)model_times.renew_s * SIM_S : RETRY_US), on_renew);
}

static void on_watchdog(void *data)
{
    struct machine *m = data;
    struct model_daemon *d = model_daemon(m);
    d->watchdog = NULL;
    sim_trace("sanlock: the watchdog resets %s", m->name);
    if (sim_hooks.watchdog)
        sim_hooks.watchdog(m);
    else
        machine_off(m);
}

void sanlock_machine_resumed(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    if (d->state != DAEMON_JOINED || !(d->used || d->guard) || d->doomed ||
        age_us(m) < (uint64_t)model_times.dead_s * SIM_S)
        return;
    d->doomed = true;
    drop(&d->watchdog);
    d->watchdog =
        machine_event(m, sim_now_us() + sim_random(STREAM_SCHEDULE, WAKE_RESET_US), on_watchdog, m);
}

/* kill -9 of the daemon: nobody renews, nobody feeds the watchdog, its clients see a hang-up. */
void sanlock_kill(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    if (d->state != DAEMON_JOINED || d->dead)
        return;
    sim_trace("sanlock: the daemon of %s is killed", m->name);
    d->dead = true;
    drop(&d->renew);
    drop(&d->check);
    if (!d->watchdog) /* wdmd minds a lockspace that vanished, used or not */
        d->watchdog =
            after(m, d->renewed_us + (uint64_t)model_times.dead_s * SIM_S - ARRAY_US, on_watchdog);
    model_hang_up(m);
    if (sim_hooks.sanlock_gone)
        sim_hooks.sanlock_gone(m);
}

/* --- joining and leaving --- */

static void joined(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    struct model_host *host = &model_hosts[d->host_id];

    if (sim_hooks.joins)
        sim_hooks.joins(m, d->host_id);
    host->owner_id = d->host_id;
    host->timestamp = clock_s(m);
    host->written_us = host->renews_since_us = sim_now_us();
    d->generation = ++host->generation;
    assert(d->generation < MODEL_LIVES);
    host->lived_by[d->generation] = m;
    memcpy(host->name, d->name, sizeof host->name);
    model_write_host(d->host_id);
    sim_trace("sanlock: %s joins as host %u generation %llu", m->name, d->host_id,
              (unsigned long long)d->generation);
    d->state = DAEMON_JOINED;
    d->used = d->failed = d->doomed = d->looked = false;
    memset(d->views, 0, (model_sb.layout.max_nodes + 1) * sizeof *d->views);
    d->renewed_us = d->shown_us = machine_now_us(m);
    d->check = after(m, d->renewed_us + (uint64_t)model_times.fail_s * SIM_S, on_check);
    d->renew = after(m, d->renewed_us + (uint64_t)model_times.renew_s * SIM_S, on_renew);
}

static void on_join(void *data)
{
    struct machine *m = data;
    struct model_daemon *d = model_daemon(m);

    d->join = NULL;
    d->state = DAEMON_OUT;
    if (!model_reaches(m))
        d->join_rc = -ETIMEDOUT;
    else if (model_hosts[d->host_id].generation != d->generation)
        d->join_rc = LUNAR_E_BUSY;
    else
        joined(m);
}

void model_join(struct machine *m, uint32_t host_id, const char *name)
{
    struct model_daemon *d = model_daemon(m);
    const struct model_host *host = &model_hosts[host_id];
    bool clean = host->timestamp == 0 && strcmp(host->name, name) == 0;

    assert(d->state == DAEMON_OUT && !d->join);
    d->state = DAEMON_JOINING;
    d->host_id = host_id;
    d->generation = host->generation;
    d->join_rc = 0;
    snprintf(d->name, sizeof d->name, "%s", name);
    uint64_t takes = clean ? JOIN_CLEAN_US : JOIN_OTHER_2NS * model_sb.io_timeout_s * SIM_S / 2;
    d->join = after(m, machine_now_us(m) + takes, on_join);
}

static void forget(struct model_daemon *d)
{
    drop(&d->renew);
    drop(&d->check);
    drop(&d->watchdog);
    drop(&d->join);
    d->state = DAEMON_OUT;
    d->used = d->failed = d->doomed = d->dead = false;
    d->guard = d->leader = NULL;
}

void model_leave(struct machine *m)
{
    struct model_daemon *d = model_daemon(m);
    struct model_host *host = &model_hosts[d->host_id];
    assert(d->state == DAEMON_JOINED);
    if (host->generation == d->generation) {
        host->timestamp = 0;
        model_write_host(d->host_id);
        sanlock_prove_dead(d->host_id, d->generation);
    }
    sim_trace("sanlock: %s leaves, host %u", m->name, d->host_id);
    if (sim_hooks.cleared)
        sim_hooks.cleared(m);
    forget(d);
}

/* --- the coordinator's lease --- */

static void lost(struct process *p, uint64_t term)
{
    sim_trace("sanlock: %s has term %llu no more", p->name, (unsigned long long)term);
    if (sim_hooks.lease_lost)
        sim_hooks.lease_lost(p, term);
}

/* As the machine `m` may conclude after a look at the owner's delta lease. */
static bool owner_is_dead(const struct machine *m)
{
    const struct model_daemon *d = model_daemon(m);
    uint32_t owner = model_lease.owner_id;
    if (owner == d->host_id)
        return model_lease.owner_generation != d->generation;
    look(m, owner);
    return model_hosts[owner].timestamp == 0 ||
           model_hosts[owner].generation > model_lease.owner_generation ||
           model_state(m, owner) == HOST_STATE_DEAD;
}

bool model_acquire(struct process *p)
{
    struct machine *m = p->machine;
    const struct model_daemon *d = model_daemon(m);

    if (d->state != DAEMON_JOINED || d->failed || d->dead || !model_reaches(m))
        return false;
    if (model_lease.timestamp != 0 && !owner_is_dead(m))
        return false;
    if (model_lease.holder)
        lost(model_lease.holder, model_lease.lver);
    model_lease.lver++;
    model_lease.owner_id = d->host_id;
    model_lease.owner_generation = d->generation;
    model_lease.timestamp = clock_s(m);
    model_lease.holder = p;
    model_daemon(m)->leader = p;
    model_write_lease(clock_s(m));
    sim_trace("sanlock: %s has term %llu", p->name, (unsigned long long)model_lease.lver);
    if (sim_hooks.elected)
        sim_hooks.elected(p, model_lease.lver);
    lun_new_term();
    return true;
}

/* The asking daemon tells with its next renewal, the leader's looks with its own. */
static void on_forced(void *data)
{
    struct process *p = data;
    if (model_lease.holder != p || !process_alive(p) || !model_reaches(p->machine))
        return;
    sim_trace("sanlock: %s is forced out", p->name);
    if (sim_hooks.forced_out)
        sim_hooks.forced_out(p);
    process_kill(p);
}

bool model_force(const struct process *p, uint64_t term)
{
    struct process *holder = model_lease.holder;
    if (model_lease.lver > term)
        return false;
    sim_trace("sanlock: %s asks for the end of term %llu", p->name, (unsigned long long)term);
    if (holder && model_lease.timestamp != 0 && process_alive(holder))
        machine_event(holder->machine,
                      sim_now_us() + sim_random(STREAM_SCHEDULE, 5 * model_sb.io_timeout_s * SIM_S),
                      on_forced, holder);
    return true;
}

static void on_release(void *data)
{
    struct process *p = data;
    struct machine *m = p->machine;
    if (model_lease.holder != p || model_daemon(m)->dead)
        return; /* taken by another host meanwhile, or nobody is there who could free it */
    if (!model_reaches(m)) {
        machine_event(m, sim_now_us() + RETRY_US, on_release, p);
        return;
    }
    model_lease.timestamp = 0;
    model_lease.holder = NULL;
    model_write_lease(clock_s(m));
    lost(p, model_lease.lver);
}

void model_release(struct process *p)
{
    if (model_lease.holder == p)
        machine_event(p->machine, sim_now_us() + sim_random(STREAM_SCHEDULE, RELEASE_US),
                      on_release, p);
}

void sanlock_process_gone(struct process *p)
{
    struct model_daemon *d = model_daemon(p->machine);
    if (d->guard == p)
        d->guard = NULL; /* its socket is closed: the daemon frees its lease */
    if (d->leader == p)
        d->leader = NULL;
    clear_if_all_let_go(p->machine);
    if (p->machine->state != MACHINE_OFF)
        model_release(p);
}

void sanlock_machine_off(struct machine *m)
{
    forget(model_daemon(m));
}

/* --- what the world asks --- */

void sanlock_start(const struct superblock *sb)
{
    uint32_t n = sb->layout.max_nodes;
    model_sb = *sb;
    if (timeouts_compute((int)sb->io_timeout_s, (int)sb->watchdog_fire_timeout_s, &model_times,
                         NULL) < 0)
        abort();
    model_hosts = calloc(n + 1, sizeof *model_hosts);
    if (!model_hosts)
        abort();
    for (uint32_t i = 0; i <= SIM_NODES_MAX; i++) {
        daemons[i].views = calloc(n + 1, sizeof *daemons[i].views);
        if (!daemons[i].views)
            abort();
    }
    model_format();
}

uint32_t sanlock_host_id(const struct machine *m)
{
    const struct model_daemon *d = model_daemon(m);
    return d->state == DAEMON_JOINED ? d->host_id : 0;
}

uint64_t sanlock_generation(const struct machine *m)
{
    const struct model_daemon *d = model_daemon(m);
    return d->state == DAEMON_JOINED ? d->generation : 0;
}

uint64_t sanlock_term(void)
{
    return model_lease.lver;
}

struct process *sanlock_leader(void)
{
    return model_lease.holder && !model_lease.holder->gone ? model_lease.holder : NULL;
}

void sanlock_reset(void)
{
    free(model_hosts);
    model_hosts = NULL;
    for (uint32_t i = 0; i <= SIM_NODES_MAX; i++)
        free(daemons[i].views);
    memset(daemons, 0, sizeof daemons);
    memset(&model_lease, 0, sizeof model_lease);
}
