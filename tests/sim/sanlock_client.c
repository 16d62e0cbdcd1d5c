/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fencing/membership.h over the model of sanlock: what src/fencing/{membership,leadership,
 * hosts}.c do through libsanlock, with their results, times and failures.
 *
 * The choice of a host id is lockspace.c's own (sanlock_calls.c is below it). What the others read
 * from the LUN they read here too, by the production functions and the virtual LUN's I/O: one's own
 * generation, the leader record. All of it runs in
 * fibers, so that anything may happen between two steps. Failure modes: the LUN fails or is out of
 * reach, somebody else has the id or the lease, the daemon has lost the lockspace.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "fencing/lockspace.h"
#include "sim/sanlock_model.h"

#define POLL_US      (100 * SIM_MS)
#define TRY_MIN_US   (5 * SIM_MS)
#define TRY_SPAN_US  (60 * SIM_MS)
#define CALL_US      (2 * SIM_MS) /* a question to the daemon */
#define LEAVE_US     (500 * SIM_MS)
#define END_LIMIT_US (5 * SIM_S)

/* A client's socket to its daemon. */
struct model_socket {
    struct model_socket *next;
    struct process *process;
    int fd;
};

static struct model_socket *sockets; /* of processes that may have gone */

static int socket_open(void)
{
    struct model_socket *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    *s = (struct model_socket){sockets, process_current(), sim_fd_new()};
    sockets = s;
    return s->fd;
}

void model_hang_up(const struct machine *m)
{
    for (struct model_socket *s = sockets; s; s = s->next)
        if (s->process->machine == m && process_alive(s->process))
            sim_fd_ready(s->process, s->fd);
}

struct membership {
    struct process *process;
    int fd;
    uint32_t host_id;
    uint64_t generation;
};

struct leadership {
    struct process *process;
    int fd;
    struct superblock sb;
    uint64_t term; /* 0: not ours */
    uint64_t owner_id, owner_generation;
};

static struct machine *here(void)
{
    assert(process_current() && fiber_inside());
    return process_current()->machine;
}

static void space_of(const struct superblock *sb, char ret[48])
{
    pool_lockspace(&sb->pool_id, ret);
}

const char *host_state_name(enum host_state state)
{
    static const char *const names[] = {"?", "UNKNOWN", "FREE", "LIVE", "FAIL", "DEAD"};
    return names[state];
}

/* --- joining --- */

/* Our own delta lease, from the LUN. */
static int read_own(const struct superblock *sb, const char *name, struct delta_lease *ret,
                    struct error *err)
{
    char space[48];
    uint32_t host_id = model_daemon(here())->host_id;
    space_of(sb, space);
    int rc = lease_read(SIM_LUN_FD, &sb->layout, space, host_id, ret, err);
    if (rc == 0 && (ret->owner_id != host_id || ret->timestamp == 0 ||
                    (name && strcmp(ret->owner_name, name) != 0)))
        return error_set(err, name ? LUNAR_E_ALIVE : LUNAR_E_NOT_JOINED,
                         "on the LUN host id %" PRIu32 " belongs to '%s'", host_id,
                         ret->owner_name);
    return rc;
}

static int finish_join(struct membership *m, const struct superblock *sb, const char *name,
                       struct error *err)
{
    struct delta_lease own;
    struct model_daemon *d = model_daemon(m->process->machine);
    int rc = read_own(sb, name, &own, err);
    if (rc < 0)
        return rc;
    if (d->state != DAEMON_JOINED)
        return error_set(err, LUNAR_E_NOT_JOINED, "the lockspace was lost while joining");
    m->host_id = own.host_id;
    m->generation = own.generation;
    return 0;
}

static void undo_join(struct membership *m)
{
    struct model_daemon *d = model_daemon(m->process->machine);
    /* sanlock keeps a lockspace in which somebody has a lease already: a coordinator beside us. */
    bool held = model_lease.holder && model_lease.holder->machine == m->process->machine;
    if (d->state == DAEMON_JOINED && !d->failed && !held && model_reaches(m->process->machine))
        model_leave(m->process->machine);
}

int membership_join(const struct membership_config *config, struct membership **ret,
                    struct error *err)
{
    struct lockspace_join join = {.config = config, .timeouts = model_times};
    char id[64];
    here();
    int rc = leases_machine_id(id, sizeof id, err);
    if (rc < 0)
        return rc;
    leases_host_name(config->node_name, id, join.host_name);
    fiber_sleep(CALL_US);
    if (model_daemon(here())->dead)
        return error_set(err, -ECONNREFUSED, "the sanlock daemon is gone");
    memcpy(model_daemon(here())->host_name, join.host_name, sizeof join.host_name);
    rc = lockspace_join(&join, err);
    if (rc < 0)
        return rc;

    struct membership *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->process = process_current();
    m->fd = socket_open();
    rc = finish_join(m, config->superblock, join.host_name, err);
    if (rc < 0) {
        if (join.added)
            undo_join(m);
        free(m);
        return rc;
    }
    *ret = m;
    return 0;
}

/* --- being a member --- */

uint32_t membership_host_id(const struct membership *m)
{
    return m->host_id;
}

uint64_t membership_generation(const struct membership *m)
{
    return m->generation;
}

int membership_fd(const struct membership *m)
{
    return m->fd;
}

int membership_check(struct membership *m, struct error *err)
{
    const struct model_daemon *d = model_daemon(here());
    fiber_sleep(CALL_US);
    if (d->state != DAEMON_JOINED || d->failed || d->dead || d->host_id != m->host_id)
        return error_set(err, LUNAR_E_NOT_JOINED, "this node is not a member of the pool any more");
    return 0;
}

int membership_leave(struct membership *m, struct error *err)
{
    struct machine *machine = here();
    struct model_daemon *d = model_daemon(machine);

    fiber_sleep(LEAVE_US);
    if (d->dead)
        return error_set(err, -ECONNREFUSED, "the sanlock daemon is gone");
    if (d->state != DAEMON_JOINED) {
        free(m);
        return 0;
    }
    if (model_lease.holder && model_lease.holder->machine == machine)
        return error_set(err, LUNAR_E_IN_USE, "another process on this node still uses the pool");
    if (d->failed || !model_reaches(machine))
        return error_set(err, LUNAR_E_INDETERMINATE, "sanlock did not leave the pool");
    model_leave(machine);
    free(m);
    return 0;
}

int membership_end(const struct uuid *pool_id, struct error *err)
{
    struct machine *machine = here();
    const struct model_daemon *d = model_daemon(machine);

    (void)pool_id;
    fiber_sleep(CALL_US);
    if (d->state != DAEMON_JOINED || d->dead) /* no daemon: it holds nothing for us */
        return 0;
    model_set_used(machine, false);
    model_remove(machine);
    for (uint64_t waited = 0; d->state == DAEMON_JOINED && waited < END_LIMIT_US; waited += POLL_US)
        fiber_sleep(POLL_US);
    return d->state == DAEMON_JOINED
               ? error_set(err, -EAGAIN, "sanlock is still giving up the lockspace")
               : 0;
}

void membership_abandon(struct membership *m)
{
    free(m);
}

static bool is_among(const uint32_t *ids, uint32_t n, uint32_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* Whose lease is free is in no list. */
int membership_hosts(const struct uuid *pool_id, const uint32_t *also, uint32_t n_also,
                     struct host_status **ret, struct error *err)
{
    const struct machine *m = here();
    const struct model_daemon *d = model_daemon(m);
    uint32_t max = model_sb.layout.max_nodes;
    int n = 0;

    (void)pool_id;
    fiber_sleep(CALL_US);
    if (d->dead)
        return error_set(err, -ECONNREFUSED, "the sanlock daemon is gone");
    if (d->state != DAEMON_JOINED)
        return error_set(err, LUNAR_E_NOT_JOINED, "this node has not joined the pool");
    if (!d->looked)
        return error_set(err, -EAGAIN, "sanlock has just joined; try again");
    struct host_status *list = calloc(max, sizeof *list);
    if (!list)
        abort();
    for (uint32_t h = 1; h <= max; h++) {
        const struct model_view *view = &d->views[h];
        bool own = h == d->host_id;
        bool asked = is_among(also, n_also, h) && view->generation > 0;
        if (!own && (!view->first_check_us || (view->timestamp == 0 && !asked)))
            continue;
        list[n++] = (struct host_status){
            .host_id = h,
            .generation = own ? d->generation : view->generation,
            .state = model_state(m, h),
            .timestamp = own ? model_hosts[h].timestamp : view->timestamp,
        };
    }
    *ret = list;
    return n;
}

int membership_find(const struct uuid *pool_id, uint32_t *ret_host_id, uint64_t *ret_generation,
                    struct error *err)
{
    struct delta_lease own;
    const struct model_daemon *d = model_daemon(here());

    (void)pool_id;
    fiber_sleep(CALL_US);
    if (d->dead)
        return error_set(err, -ECONNREFUSED, "the sanlock daemon is gone");
    if (d->state != DAEMON_JOINED)
        return error_set(err, LUNAR_E_NOT_JOINED, "this node has not joined the pool");
    int rc = read_own(&model_sb, NULL, &own, err);
    if (rc < 0)
        return rc;
    *ret_host_id = own.host_id;
    *ret_generation = own.generation;
    return 0;
}

/* --- leadership --- */

int leadership_open(const char *device, const struct superblock *superblock,
                    struct leadership **ret, struct error *err)
{
    (void)device;
    (void)err;
    struct leadership *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->process = process_current();
    l->fd = socket_open();
    l->sb = *superblock;
    *ret = l;
    return 0;
}

static int read_leader(const struct leadership *l, struct leader_record *ret, struct error *err)
{
    char space[48];
    space_of(&l->sb, space);
    return leader_read(SIM_LUN_FD, &l->sb.layout, LAYOUT_RESOURCE_COORDINATOR, space, ret, err);
}

/* What the daemon gave must stand on the LUN before anybody is told of it. */
static int learn_term(struct leadership *l, uint64_t lver, struct error *err)
{
    struct leader_record leader;
    struct delta_lease own;
    int rc = read_own(&l->sb, NULL, &own, err);
    if (rc == 0)
        rc = read_leader(l, &leader, err);
    if (rc < 0)
        return rc;
    if (leader.lver != lver || leader.owner_id != own.host_id ||
        leader.owner_generation != own.generation || leader.timestamp == 0)
        return error_set(err, LUNAR_E_STALE, "term %" PRIu64 " was acquired and lost at once",
                         lver);
    l->term = lver;
    l->owner_id = leader.owner_id;
    l->owner_generation = leader.owner_generation;
    return 0;
}

int leadership_try(struct leadership *l, uint64_t *ret_term, struct error *err)
{
    const struct machine *m = here();
    assert(l->term == 0 && l->process == process_current());
    fiber_sleep(TRY_MIN_US + sim_random(STREAM_SCHEDULE, TRY_SPAN_US));
    if (model_daemon(m)->state != DAEMON_JOINED)
        return 0;
    if (m->path_lost) {
        fiber_sleep(model_sb.io_timeout_s * SIM_S);
        return error_set(err, LUNAR_E_INDETERMINATE, "the LUN did not answer sanlock in time");
    }
    if (!model_acquire(l->process))
        return 0;
    int rc = learn_term(l, model_lease.lver, err);
    if (rc < 0) {
        l->term = 0;
        model_release(l->process);
        return rc;
    }
    *ret_term = l->term;
    return 1;
}

int leadership_fd(const struct leadership *l)
{
    return l->fd;
}

int leadership_check(struct leadership *l, uint64_t term, struct error *err)
{
    struct leader_record leader;
    here();
    if (l->term == 0 || term != l->term)
        return error_set(err, LUNAR_E_STALE, "term %" PRIu64 " is not this process's", term);
    int rc = read_leader(l, &leader, err);
    if (rc < 0)
        return rc;
    if (leader.lver != term || leader.owner_id != l->owner_id ||
        leader.owner_generation != l->owner_generation || leader.timestamp == 0)
        return error_set(err, LUNAR_E_STALE, "term %" PRIu64 " is over, the LUN says %" PRIu64,
                         term, leader.lver);
    return 0;
}

int leadership_owner(struct leadership *l, struct leadership_owner *ret, struct error *err)
{
    struct leader_record leader;
    here();
    int rc = read_leader(l, &leader, err);
    if (rc < 0)
        return rc;
    *ret = (struct leadership_owner){0};
    if (leader.timestamp != 0)
        *ret = (struct leadership_owner){.host_id = (uint32_t)leader.owner_id,
                                         .generation = leader.owner_generation,
                                         .term = leader.lver};
    return 0;
}

int leadership_force(struct leadership *l, uint64_t term, struct error *err)
{
    const struct machine *m = here();
    assert(l->process == process_current());
    fiber_sleep(TRY_MIN_US + sim_random(STREAM_SCHEDULE, TRY_SPAN_US));
    if (model_daemon(m)->state != DAEMON_JOINED)
        return error_set(err, LUNAR_E_NOT_JOINED, "this node has not joined the pool");
    if (m->path_lost) {
        fiber_sleep(model_sb.io_timeout_s * SIM_S);
        return error_set(err, LUNAR_E_INDETERMINATE, "the LUN did not answer sanlock in time");
    }
    if (!model_force(l->process, term))
        return error_set(err, LUNAR_E_STALE, "term %" PRIu64 " is over already", term);
    return 0;
}

int leadership_release(struct leadership *l, struct error *err)
{
    (void)err;
    l->term = 0;
    model_release(l->process);
    return 0;
}

void leadership_close(struct leadership *l)
{
    if (!l)
        return;
    model_release(l->process);
    free(l);
}
