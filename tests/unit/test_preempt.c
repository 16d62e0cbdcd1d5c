/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SAFETY 13: whom a new leader preempts before its own first commit, with sanlock's words, the
 * looks at the leases and the reservations all scripted.
 */
#include <errno.h>
#include <stdlib.h>

#include "coordinator/coordinator_internal.h"
#include "fencing/reservation.h"
#include "support/test.h"

#define SELF   1u
#define FORMER 2u
#define OTHER  3u

static struct {
    struct coordinator c;
    enum host_state former, other;
    enum host_look look; /* of whoever sanlock calls dead */
    int hosts_fail;      /* so many questions to sanlock are answered EAGAIN */
    int looks_fail;      /* so many looks, after the first `looks_good` ones */
    int looks_good;
    bool other_has_key;
    int asked, preempted[OTHER + 1];
} w;

/* --- the outside --- */

int __wrap_membership_hosts(const struct uuid *pool_id, const uint32_t *also, uint32_t n_also,
                            struct host_status **ret, struct error *err);
enum host_look __wrap_proof_look_at(const struct coordinator *c, const struct host_status *host);
int __wrap_reservation_open(const char *const *devices, uint32_t n_devices,
                            const struct uuid *pool_id, struct reservation **ret,
                            struct error *err);
void __wrap_reservation_close(struct reservation *r);
int __wrap_reservation_adopt(struct reservation *r, uint32_t host_id, uint64_t generation,
                             struct error *err);
int __wrap_reservation_find(struct reservation *r, uint32_t host_id, uint64_t generation, bool *ret,
                            struct error *err);
int __wrap_reservation_preempt(struct reservation *r, uint32_t host_id, uint64_t generation,
                               struct error *err);

/* Whose lease is free is in the list only if it was asked for. */
int __wrap_membership_hosts(const struct uuid *pool_id, const uint32_t *also, uint32_t n_also,
                            struct host_status **ret, struct error *err)
{
    (void)pool_id;
    w.asked++;
    if (w.hosts_fail > 0) {
        w.hosts_fail--;
        return error_set(err, -EAGAIN, "sanlock has just joined; try again");
    }
    struct host_status *hosts = calloc(OTHER, sizeof *hosts);
    if (!hosts)
        abort();
    hosts[0] = (struct host_status){.host_id = SELF, .generation = 1, .state = HOST_STATE_LIVE};
    hosts[1] = (struct host_status){.host_id = OTHER, .generation = 7, .state = w.other};
    hosts[2] = (struct host_status){.host_id = FORMER, .generation = 5, .state = w.former};
    *ret = hosts;
    bool asked = n_also == 1 && also[0] == FORMER;
    return w.former != HOST_STATE_FREE || asked ? 3 : 2;
}

enum host_look __wrap_proof_look_at(const struct coordinator *c, const struct host_status *host)
{
    (void)c;
    (void)host;
    if (w.looks_good > 0)
        w.looks_good--;
    else if (w.looks_fail > 0)
        return w.looks_fail--, HOST_LOOK_NONE;
    return w.look;
}

int __wrap_reservation_open(const char *const *devices, uint32_t n_devices,
                            const struct uuid *pool_id, struct reservation **ret, struct error *err)
{
    (void)devices;
    (void)n_devices;
    (void)pool_id;
    (void)err;
    *ret = (struct reservation *)&w;
    return 0;
}

void __wrap_reservation_close(struct reservation *r)
{
    (void)r;
}

int __wrap_reservation_adopt(struct reservation *r, uint32_t host_id, uint64_t generation,
                             struct error *err)
{
    (void)r;
    (void)host_id;
    (void)generation;
    (void)err;
    return 0;
}

int __wrap_reservation_find(struct reservation *r, uint32_t host_id, uint64_t generation, bool *ret,
                            struct error *err)
{
    (void)r;
    (void)generation;
    (void)err;
    *ret = host_id == OTHER && w.other_has_key;
    return 0;
}

int __wrap_reservation_preempt(struct reservation *r, uint32_t host_id, uint64_t generation,
                               struct error *err)
{
    (void)r;
    (void)generation;
    (void)err;
    w.preempted[host_id]++;
    return 0;
}

/* --- the cases --- */

static void start(enum host_state former, enum host_state other)
{
    memset(&w, 0, sizeof w);
    w.former = former;
    w.other = other;
    w.look = HOST_LOOK_UNMOVED;
    w.c.sb.flags = SUPERBLOCK_FLAG_PR;
    w.c.sb.io_timeout_s = 2;
    w.c.sb.watchdog_fire_timeout_s = 10;
    w.c.self = (struct incarnation){SELF, 1, 9};
    w.c.former = (struct leadership_owner){.host_id = FORMER, .generation = 5, .term = 8};
}

static int take_over(void)
{
    struct error err = ERROR_INIT;
    return preempt_before_first_commit(&w.c, &err);
}

static void safety_13_a_former_leader_whose_host_is_dead_is_preempted_first(void)
{
    start(HOST_STATE_DEAD, HOST_STATE_DEAD);
    CHECK_EQ(take_over(), 0);
    CHECK_EQ(w.preempted[FORMER], 1);
    CHECK_EQ(w.preempted[OTHER], 0); /* it has no key */
    w.other_has_key = true;
    CHECK_EQ(take_over(), 0);
    CHECK_EQ(w.preempted[OTHER], 1);
}

static void safety_13_nobody_who_lives_is_preempted(void)
{
    start(HOST_STATE_LIVE, HOST_STATE_LIVE);
    w.other_has_key = true;
    CHECK_EQ(take_over(), 0);
    start(HOST_STATE_LIVE, HOST_STATE_DEAD); /* says sanlock, but it renews */
    w.other_has_key = true;
    w.look = HOST_LOOK_MOVED;
    CHECK_EQ(take_over(), 0);
    CHECK_EQ(w.preempted[FORMER] + w.preempted[OTHER], 0);
}

/* A look that fails is no look that says "alive": found by the simulator (seed 3187 of its day, in
 * a pool with reservations). */
static void safety_13_a_lease_that_cannot_be_read_is_read_again(void)
{
    for (int good = 0; good < 3; good++) {
        start(HOST_STATE_DEAD, HOST_STATE_DEAD);
        w.other_has_key = true;
        w.looks_good = good;
        w.looks_fail = 1;
        CHECK_EQ(take_over(), 0);
        CHECK_EQ(w.preempted[FORMER], 1);
        CHECK_EQ(w.preempted[OTHER], 1);
    }
}

static void a_sanlock_that_has_just_joined_is_waited_for(void)
{
    start(HOST_STATE_DEAD, HOST_STATE_LIVE);
    w.hosts_fail = 2;
    CHECK_EQ(take_over(), 0);
    CHECK_EQ(w.asked, 3);
    CHECK_EQ(w.preempted[FORMER], 1);
}

static void a_lease_that_is_damaged_holds_nobody_up(void)
{
    start(HOST_STATE_DEAD, HOST_STATE_DEAD);
    w.other_has_key = true;
    w.look = HOST_LOOK_DAMAGED;
    CHECK_EQ(take_over(), 0);
    CHECK_EQ(w.preempted[FORMER], 1);
    CHECK_EQ(w.preempted[OTHER], 1);
}

/* Zeroes over the lease of a host that may live on: it is preempted, which fences it if it does. */
static void safety_13_a_former_leader_that_only_seems_to_have_left_is_preempted(void)
{
    start(HOST_STATE_FREE, HOST_STATE_LIVE);
    w.look = HOST_LOOK_DAMAGED;
    CHECK_EQ(take_over(), 0);
    CHECK_EQ(w.preempted[FORMER], 1);
}

/* It is in sanlock's list only if it is asked for. */
static void a_former_leader_that_has_left_is_not_waited_for(void)
{
    start(HOST_STATE_FREE, HOST_STATE_LIVE);
    CHECK_EQ(take_over(), 0);
    CHECK_EQ(w.asked, 1);
    CHECK_EQ(w.preempted[FORMER], 0);
}

TEST_MAIN(TEST(safety_13_a_former_leader_whose_host_is_dead_is_preempted_first),
          TEST(safety_13_nobody_who_lives_is_preempted),
          TEST(safety_13_a_lease_that_cannot_be_read_is_read_again),
          TEST(a_sanlock_that_has_just_joined_is_waited_for),
          TEST(a_lease_that_is_damaged_holds_nobody_up),
          TEST(safety_13_a_former_leader_that_only_seems_to_have_left_is_preempted),
          TEST(a_former_leader_that_has_left_is_not_waited_for))
