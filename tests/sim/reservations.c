/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual LUN's SCSI-3 persistent reservations, below fencing/reservation.c: what
 * reservation_scsi.c sends to a device, for one path per machine.
 *
 * Happy path: while the LUN is reserved "write exclusive, all registrants" (type 7), who has a key
 * writes and nobody else does; PREEMPT AND ABORT takes every registration of a key away, ends what
 * these nexuses have under way, and answers then. Failure modes (RESERVATION): a command fails; its
 * outcome is not known, and it has been done, has not, or will be; the aborting takes its time, in
 * which what was sent before may yet land, whoever asked for it has died or not. A registration is
 * the array's: it outlives processes, boots and power of its machine.
 *
 * Invariant preempted-upon-proof: nobody's key is taken whose life is not over by sanlock's
 * word or by an operator's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fencing/reservation_internal.h"
#include "sim/sanlock_model.h"

#define COMMAND_US (1 * SIM_MS)
#define STILL_US   (20 * SIM_MS)
#define HUNG_US    (10 * SIM_S) /* then the initiator gives a command up */
#define ABORT_US   (5 * SIM_MS)
#define LATE_US    (3 * SIM_S)
/* Below RESERVATION_SETTLE_MS, which is what production code takes for a bound. */
#define ABORT_SLOW_US (4500 * SIM_MS)

/* One initiator and the LUN. */
struct nexus {
    uint64_t key;       /* 0: not registered */
    uint64_t lost_us;   /* when its key was taken */
    uint64_t silent_us; /* from then on nothing that was sent before that lands any more */
    uint64_t gave_key;  /* the one that it gave up itself; 0: it was taken */
};

static struct nexus nexuses[SIM_NODES_MAX + 1];
static bool reserved;
static uint64_t sworn[LAYOUT_NODES_MAX + 1]; /* generations up to this one, by an operator */

bool lun_has_reservations(void)
{
    return model_sb.flags & SUPERBLOCK_FLAG_PR;
}

bool lun_lets_write(const struct machine *m, uint64_t sent_us)
{
    const struct nexus *n = &nexuses[m->index];
    if (!lun_has_reservations() || !reserved || n->key)
        return true;
    return sent_us < n->lost_us && sim_now_us() < n->silent_us;
}

void lun_operator_swears(uint32_t host_id, uint64_t generation)
{
    if (generation > sworn[host_id])
        sworn[host_id] = generation;
}

/* Who has lost the race for a host id may hold the key of the life that another one got: it does no
 * harm there, for nobody is a member under it. */
bool lun_has_key_of(uint32_t host_id, uint64_t generation)
{
    for (uint32_t i = 1; i <= machine_count(); i++) {
        uint32_t id;
        uint64_t g;
        if (nexuses[i].key && reservation_key_in(&model_sb.pool_id, nexuses[i].key, &id, &g) &&
            id == host_id && g <= generation && g < MODEL_LIVES &&
            model_hosts[id].lived_by[g] == machine_at(i))
            return true;
    }
    return false;
}

/* A life that gave its key up had ended the one before it: what that one sent is ended. */
static bool gave_up_a_later_one(const struct nexus *n, uint32_t host_id, uint64_t generation)
{
    uint32_t id;
    uint64_t g;
    return n->gave_key && reservation_key_in(&model_sb.pool_id, n->gave_key, &id, &g) &&
           id == host_id && g > generation;
}

bool lun_has_silenced(uint32_t host_id, uint64_t generation)
{
    for (uint64_t g = 1; g <= generation && g < MODEL_LIVES; g++) {
        const struct machine *m = model_hosts[host_id].lived_by[g];
        bool newer = m && model_hosts[host_id].generation > generation &&
                     model_hosts[host_id].lived_by[model_hosts[host_id].generation] == m;
        if (m && !newer && nexuses[m->index].key == 0 &&
            sim_now_us() < nexuses[m->index].silent_us &&
            !gave_up_a_later_one(&nexuses[m->index], host_id, generation))
            return false;
    }
    return !lun_has_key_of(host_id, generation);
}

/* --- what the array does --- */

struct command {
    struct machine *machine;
    struct pr_out out;
    uint64_t sent_us;
    uint32_t boot;
};

static void end_if_last(void)
{
    bool any = false;
    for (uint32_t i = 1; i <= machine_count(); i++)
        any |= nexuses[i].key != 0;
    reserved &= any;
}

static void check_proof(const struct machine *by, uint64_t key)
{
    uint32_t host;
    uint64_t generation;
    if (!reservation_key_in(&model_sb.pool_id, key, &host, &generation))
        return;
    if (generation > sworn[host] && !sanlock_proved_dead(host, generation))
        sim_violation("preempted-upon-proof", "%s preempts host %u generation %llu, which lives",
                      by->name, host, (unsigned long long)generation);
}

static void kill_it(void *data)
{
    process_kill(data);
}

/* The life is over once its last nexus is silent. */
static void on_silent(void *data)
{
    uint64_t key = *(uint64_t *)data, generation;
    uint32_t host;
    free(data);
    if (reservation_key_in(&model_sb.pool_id, key, &host, &generation) &&
        !lun_has_key_of(host, generation))
        sanlock_prove_dead(host, generation);
}

static int preempt(const struct command *c, uint64_t *ret_until_us)
{
    uint64_t takes_us = sim_random(STREAM_RESERVATIONS, ABORT_US), *key = malloc(sizeof *key);
    bool any = false;

    if (sim_fault(FAULT_RESERVATION, 300)) {
        takes_us = sim_fault_random(FAULT_RESERVATION, ABORT_SLOW_US);
        struct process *p = process_current();           /* NULL: of a late command */
        if (p && sim_fault_random(FAULT_RESERVATION, 2)) /* its successor finds the keys gone */
            process_at(p, sim_now_us() + SIM_MS, kill_it, p);
    }
    *ret_until_us = sim_now_us() + takes_us;
    for (uint32_t i = 1; i <= machine_count(); i++) {
        struct nexus *n = &nexuses[i];
        if (n->key != c->out.action_key)
            continue;
        check_proof(c->machine, n->key);
        *n = (struct nexus){.lost_us = sim_now_us(), .silent_us = *ret_until_us};
        sim_trace("lun: the key of %s, 0x%016llx, is preempted by %s", machine_at(i)->name,
                  (unsigned long long)c->out.action_key, c->machine->name);
        any = true;
    }
    if (!key)
        abort();
    *key = c->out.action_key;
    sim_at(*ret_until_us, on_silent, key);
    return any ? 0 : -EBADE;
}

static int take_key(const struct command *c)
{
    struct nexus *n = &nexuses[c->machine->index];
    if (c->out.action == PR_OUT_REGISTER && n->key != c->out.key)
        return -EBADE;
    if (n->key != c->out.action_key)
        sim_trace("lun: the key of %s is 0x%016llx", c->machine->name,
                  (unsigned long long)c->out.action_key);
    n->gave_key = c->out.action_key ? 0 : n->key;
    n->key = c->out.action_key;
    if (n->key == 0) /* what it has sent is not ended by that */
        n->lost_us = sim_now_us(), n->silent_us = sim_now_us() + LATE_US;
    end_if_last();
    return 0;
}

static int carry_out(const struct command *c, uint64_t *ret_until_us)
{
    const struct nexus *n = &nexuses[c->machine->index];

    *ret_until_us = sim_now_us();
    if (c->out.action == PR_OUT_REGISTER || c->out.action == PR_OUT_REGISTER_AND_IGNORE)
        return take_key(c);
    if (n->key == 0 || n->key != c->out.key)
        return -EBADE;
    if (c->out.type != PR_TYPE_WRITE_EXCLUSIVE_ALL)
        sim_violation("type-7", "%s uses reservations of type %u", c->machine->name, c->out.type);
    if (c->out.action == PR_OUT_RESERVE)
        return reserved = true, 0;
    return c->out.action == PR_OUT_PREEMPT_AND_ABORT ? preempt(c, ret_until_us)
                                                     : LUNAR_E_UNSUPPORTED;
}

/* Nobody has waited for it; unless its nexus was silenced or its machine has gone since. */
static void on_late(void *data)
{
    struct command *c = data;
    uint64_t until_us;
    if (c->machine->boot == c->boot && c->machine->state != MACHINE_OFF &&
        nexuses[c->machine->index].lost_us <= c->sent_us)
        carry_out(c, &until_us);
    free(c);
}

static void later(const struct command *c)
{
    struct command *copy = malloc(sizeof *copy);
    if (!copy)
        abort();
    *copy = *c;
    sim_at(sim_now_us() + sim_fault_random(FAULT_RESERVATION, LATE_US), on_late, copy);
}

/* --- one command on its way --- */

/* False: it did not get through. */
static bool travel(const struct machine *m)
{
    uint64_t end = sim_now_us() + HUNG_US;
    fiber_sleep(1 + sim_random(STREAM_RESERVATIONS, COMMAND_US));
    while (m->path_lost && !m->path_errors && sim_now_us() < end)
        fiber_sleep(STILL_US);
    return !m->path_lost;
}

static int fail(int rc, struct error *err)
{
    return error_set(err, rc, "PERSISTENT RESERVE: made to fail");
}

static int model_out(void *path, const struct pr_out *out, struct error *err)
{
    struct machine *m = path;
    struct command c = {m, *out, sim_now_us(), m->boot};
    uint64_t until_us;

    if (!travel(m))
        return fail(LUNAR_E_INDETERMINATE, err);
    if (sim_fault(FAULT_RESERVATION, 30))
        return fail(-EIO, err);
    bool unknown = sim_fault(FAULT_RESERVATION, 40);
    if (unknown && sim_fault_random(FAULT_RESERVATION, 3) == 0)
        return later(&c), fail(LUNAR_E_INDETERMINATE, err);
    int rc = carry_out(&c, &until_us);
    if (until_us > sim_now_us())
        fiber_sleep(until_us - sim_now_us());
    if (unknown)
        return fail(LUNAR_E_INDETERMINATE, err);
    return rc < 0 ? error_set(err, rc, "PERSISTENT RESERVE OUT: reservation conflict") : 0;
}

static void put(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static int say_keys(uint8_t *answer)
{
    uint32_t n = 0;
    for (uint32_t i = 1; i <= machine_count(); i++)
        if (nexuses[i].key)
            put(answer + 8 + 8 * (size_t)n++, nexuses[i].key, 8);
    put(answer + 4, 8 * (uint64_t)n, 4);
    return (int)(8 + 8 * n);
}

static int model_in(void *path, uint8_t action, uint8_t *answer, size_t size, struct error *err)
{
    memset(answer, 0, size);
    if (!travel(path) || sim_fault(FAULT_RESERVATION, 20))
        return fail(-EIO, err);
    if (action == PR_IN_READ_KEYS)
        return say_keys(answer);
    if (action == PR_IN_READ_RESERVATION) {
        put(answer + 4, reserved ? 16 : 0, 4);
        answer[21] = reserved ? PR_TYPE_WRITE_EXCLUSIVE_ALL : 0;
        return reserved ? 24 : 8;
    }
    put(answer, 8, 2);
    answer[2] = 0x01;
    answer[3] = answer[4] = 0x80; /* it says which types it has: the seventh */
    return 8;
}

static int model_paths(const char *device, char ret[RESERVATION_PATHS_MAX][RESERVATION_NAME_SIZE],
                       struct error *err)
{
    (void)device;
    (void)err;
    strcpy(ret[0], "lun");
    return 1;
}

static int model_open(const char *name, void **ret_path, struct error *err)
{
    (void)name;
    (void)err;
    *ret_path = process_current()->machine;
    return 0;
}

static void model_close(void *path)
{
    (void)path;
}

static void model_pause(int ms)
{
    fiber_sleep((uint64_t)ms * SIM_MS);
}

const struct reservation_ops reservation_scsi_ops = {
    .find_paths = model_paths,
    .open_path = model_open,
    .close_path = model_close,
    .in = model_in,
    .out = model_out,
    .pause_ms = model_pause,
};

void reservations_reset(void)
{
    memset(nexuses, 0, sizeof nexuses);
    memset(sworn, 0, sizeof sworn);
    reserved = false;
}
