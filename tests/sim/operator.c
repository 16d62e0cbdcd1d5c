/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator: `lunarctl node fence NAME --i-have-powered-it-off`, again and again until it is
 * done.
 *
 * Happy path: he cuts a node's power, asks for the fence of the life that it had, through any agent
 * or coordinator's socket, is told to wait while the lease is young, and has his answer when that
 * life is marked in both copies of its grants. Failure modes: every other operator errs: he has
 * switched off nothing, and asks for a node that runs, has just been reset or stands still. As long
 * as that node renews its lease he must be refused. Where it does not, nothing can know better than
 * he, so his word is made true at the very moment at which it is taken: the node goes off.
 *
 * Invariant fenced-while-it-renews: his word is taken only for a life whose lease stands still, or
 * that the LUN itself has shut out (SAFETY 8, 13).
 */
#include <stdio.h>
#include <stdlib.h>

#include "coordinator/leader_internal.h"
#include "sim/ghost.h"

#define ASK_EVERY_US (2 * SIM_S)
#define TRIES_MAX    30u
#define OFF_MIN_US   (15 * SIM_S)
#define OFF_SPAN_US  (40 * SIM_S)
/* Without a doubt it renews: as often as it should, for long enough that no look at its lease,
 * however slow, is older than all of that. */
#define RENEWS_US (30 * SIM_S)

static struct {
    struct machine *node;
    uint32_t host;
    uint64_t generation;
    struct uuid request;
    uint32_t tries; /* 0: he does nothing */
    struct local_conn *conn;
} order;

/* --- his word is taken --- */

/* What was in flight is lost with the node: he would have waited for that. */
static void make_true(uint32_t host_id, uint64_t generation)
{
    sanlock_prove_dead(host_id, generation);
    for (uint32_t i = 1; i <= world_all_machines(); i++) {
        struct machine *m = machine_at(i);
        if (sanlock_host_id(m) == host_id && sanlock_generation(m) == generation)
            world_vanish(m, "as the operator has sworn");
    }
}

void __real_over_fenced(struct leader *l, uint32_t host_id, uint64_t generation);
void __wrap_over_fenced(struct leader *l, uint32_t host_id, uint64_t generation);
void __wrap_over_fenced(struct leader *l, uint32_t host_id, uint64_t generation)
{
    if (!l->io->preempt) {
        uint64_t renews_us = sanlock_renews_us(host_id, generation);
        if (renews_us > RENEWS_US)
            sim_violation("fenced-while-it-renews",
                          "%s takes an operator's word against host %u generation %llu, which has "
                          "renewed its lease for %llu s without a break",
                          process_current()->name, host_id, (unsigned long long)generation,
                          (unsigned long long)(renews_us / SIM_S));
        make_true(host_id, generation);
    }
    lun_operator_swears(host_id, generation);
    __real_over_fenced(l, host_id, generation);
}

/* --- asking --- */

static void pack(uint8_t **ret, uint32_t *ret_len)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Request m = LUNAR__REQUEST__INIT;
    Lunar__NodeFence fence = LUNAR__NODE_FENCE__INIT;

    fence.host_id = order.host;
    fence.generation = order.generation;
    fence.name = order.node->name;
    m.id = uuid_to_pb(&order.request);
    m.op_case = LUNAR__REQUEST__OP_NODE_FENCE;
    m.node_fence = &fence;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &m;
    if (envelope_pack(&e, ret, ret_len, NULL) < 0)
        abort();
}

static void give_up(void)
{
    if (order.conn)
        local_model_close(order.conn);
    order.conn = NULL;
    order.tries = 0;
}

static void on_response(const Lunar__Response *response)
{
    int code = response->error ? response->error->code : 0;

    sim_trace("operator got fence %s: %s", order.node->name, code ? response->error->text : "OK");
    if (code == 0 && !sanlock_proved_dead(order.host, order.generation))
        sim_violation("answers-match-requests", "%s is fenced, says the answer, but it lives",
                      order.node->name);
    bool again = error_retryable(code) || code == LUNAR_E_ALIVE || code == LUNAR_E_NOT_FOUND;
    if (!again && code != 0 && code > -4096)
        again = true; /* the LUN */
    if (!again)
        give_up();
}

static void on_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct error err = ERROR_INIT;
    Lunar__Envelope *e;

    (void)data;
    if (envelope_unpack(bytes, len, &e, &err) < 0)
        sim_violation("answers-match-requests", "the operator got no envelope: %s", err.text);
    struct uuid id = e->response ? uuid_from_pb(e->response->id) : order.request;
    if (order.tries && e->body_case == LUNAR__ENVELOPE__BODY_RESPONSE &&
        uuid_equal(&id, &order.request))
        on_response(e->response);
    envelope_free(e);
}

static void on_gone(void *data)
{
    (void)data;
    order.conn = NULL;
}

/* Each time anew, through whatever machine runs. */
static void ask(void *data)
{
    static const struct local_conn_callbacks callbacks = {on_message, on_gone};
    uint8_t *bytes;
    uint32_t len;

    (void)data;
    if (order.tries == 0)
        return;
    if (order.tries++ > TRIES_MAX || sim_faults_ended()) {
        give_up();
        return;
    }
    sim_at(sim_now_us() + ASK_EVERY_US, ask, NULL);
    if (order.conn && sim_fault_random(FAULT_OPERATOR, 3))
        local_model_close(order.conn), order.conn = NULL;
    struct machine *via =
        machine_at(1 + (uint32_t)sim_fault_random(FAULT_OPERATOR, world_machines()));
    bool coordinator = sim_fault_random(FAULT_OPERATOR, 3) == 0;
    if (!order.conn && via->state == MACHINE_UP)
        order.conn = local_model_connect(
            via, coordinator ? WORLD_COORDINATOR_SOCKET : WORLD_AGENT_SOCKET, &callbacks, NULL);
    if (!order.conn)
        return;
    pack(&bytes, &len);
    local_model_send(order.conn, bytes, len);
    free(bytes);
}

void operator_fences(void)
{
    struct machine *m =
        machine_at(1 + (uint32_t)sim_fault_random(FAULT_OPERATOR, world_machines()));
    bool errs = sim_fault_random(FAULT_OPERATOR, 2);

    if (order.tries > 0 || !sanlock_host_id(m) || m->state == MACHINE_OFF)
        return;
    if (!errs && m->state == MACHINE_UP && !chaos_may_strike(m))
        return;
    order.node = m;
    order.host = sanlock_host_id(m);
    order.generation = sanlock_generation(m);
    order.request = uuid_random();
    order.tries = 1;
    sim_count_fault(FAULT_OPERATOR);
    sim_trace("operator fences %s, host %u generation %llu%s", m->name, order.host,
              (unsigned long long)order.generation, errs ? ", and errs" : "");
    if (!errs)
        world_power_cycle(m, OFF_MIN_US + sim_fault_random(FAULT_OPERATOR, OFF_SPAN_US),
                          "by the operator");
    sim_at(sim_now_us() + sim_fault_random(FAULT_OPERATOR, ASK_EVERY_US), ask, NULL);
}
