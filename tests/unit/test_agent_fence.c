/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's half of self-fencing against a fake guard and a fake outside: real node, real loop,
 * real worker. What fails or hangs is said in `w`; what happened is counted there.
 */
#include "agent/agent_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/test.h"

struct guard {
    int fd;
};

static struct {
    struct agent *a;
    int wire;        /* the guard's end */
    int fence_asked; /* of the guard */
    int drained, opened, ending, rejoined, left, torn_down, ended;
    int open_rc, check_rc, end_rc, teardown_rc;
    bool hold_mailbox;
    void (*mailbox_closed)(void *data);
    struct node_task *task;
    int n_reports;
    uint64_t report_token;
} w;

/* Worlds and guards are not taken down: what hangs on them is what the tests are about. */
static void *kept[128];
static int n_kept;

static void keep(void *memory)
{
    assert(n_kept < 128);
    kept[n_kept++] = memory;
}

/* --- the fake guard --- */

static struct guard *new_guard(void)
{
    int fds[2];
    struct guard *g = calloc(1, sizeof *g);
    if (!g || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        abort();
    keep(g);
    g->fd = fds[0];
    if (w.wire >= 0)
        close(w.wire);
    w.wire = fds[1];
    return g;
}

int guard_fd(const struct guard *guard)
{
    return guard->fd;
}

int guard_read(struct guard *guard, enum guard_state *ret_state, char ret_reason[GUARD_REASON_SIZE],
               struct error *err)
{
    uint8_t state;
    ssize_t n = recv(guard->fd, &state, 1, 0);
    if (n < 0)
        return 0;
    if (n == 0)
        return error_set(err, -EPIPE, "gone");
    *ret_state = (enum guard_state)state;
    snprintf(ret_reason, GUARD_REASON_SIZE, "killpath");
    return 1;
}

int guard_fence(struct guard *guard, const char *reason, struct error *err)
{
    (void)guard;
    (void)reason;
    (void)err;
    w.fence_asked++;
    return 0;
}

int guard_drained(struct guard *guard, struct error *err)
{
    (void)guard;
    (void)err;
    w.drained++;
    return 0;
}

void guard_close(struct guard *guard)
{
    close(guard->fd);
    free(guard);
}

static void guard_says_state(enum guard_state state)
{
    uint8_t byte = (uint8_t)state;
    if (send(w.wire, &byte, 1, 0) != 1)
        abort();
}

static void guard_dies(void)
{
    close(w.wire);
    w.wire = -1;
}

/* --- the rest of the outside --- */

int join_guard(struct agent *a, struct join *ret, struct error *err)
{
    w.opened++;
    w.ending += a->fence.ending;
    if (w.open_rc < 0)
        return error_set(err, w.open_rc, "no guard to be had");
    ret->guard = new_guard();
    return 0;
}

int membership_check(struct membership *m, struct error *err)
{
    (void)m;
    return w.check_rc < 0 ? error_set(err, w.check_rc, "the lockspace is gone") : 0;
}

int membership_end(const struct uuid *pool_id, struct error *err)
{
    (void)pool_id;
    w.ended++;
    return w.end_rc < 0 ? error_set(err, w.end_rc, "sanlock is at it still") : 0;
}

void membership_abandon(struct membership *m)
{
    (void)m;
}

int stack_recover(const char *root, const struct uuid *pool_id, bool teardown_all,
                  void (*adopted)(void *data, struct stack *stack), void *data, struct error *err)
{
    (void)root;
    (void)pool_id;
    (void)adopted;
    (void)data;
    assert(teardown_all);
    w.torn_down++;
    return w.teardown_rc < 0 ? error_set(err, w.teardown_rc, "a disk does not go") : 0;
}

void uv_disk_close(struct uv_disk *disk, void (*closed)(void *data), void *data)
{
    (void)disk;
    closed(data);
}

void agent_close_mailbox(struct agent *a, void (*closed)(void *data), void *data)
{
    a->mailbox = NULL;
    assert(data == a);
    w.mailbox_closed = closed;
    if (!w.hold_mailbox)
        closed(data);
}

void agent_rejoin(struct agent *a)
{
    a->state = AGENT_STATE_JOINING;
    w.rejoined++;
}

void agent_left(struct agent *a)
{
    a->state = AGENT_STATE_LEFT;
    w.left++;
}

/* --- the node's outside --- */

static void io_write_report(void *data, uint64_t token, const struct table *report)
{
    (void)data;
    (void)report;
    w.report_token = token;
    w.n_reports++;
}

static void io_run(void *data, struct node_task *task)
{
    (void)data;
    w.task = task;
}

static int io_send(void *data, const uint8_t *bytes, uint32_t len)
{
    (void)data;
    (void)bytes;
    (void)len;
    return 0;
}

static void io_respond(void *data, uint64_t client, const uint8_t *bytes, uint32_t len)
{
    (void)data;
    (void)client;
    (void)bytes;
    (void)len;
}

static void io_watch(void *data, struct stack *stack, bool on)
{
    (void)data;
    (void)stack;
    (void)on;
}

static void io_waiting(void *data, bool waiting)
{
    (void)data;
    (void)waiting;
}

static const struct node_io io = {.write_report = io_write_report,
                                  .run = io_run,
                                  .send = io_send,
                                  .respond = io_respond,
                                  .watch = io_watch,
                                  .waiting = io_waiting};

/* --- the frame --- */

static void start(void)
{
    struct agent *a = calloc(1, sizeof *a);
    struct node_config config = {.pool_id = uuid_random(),
                                 .pool_name = "test",
                                 .device = "/dev/lun",
                                 .node_name = "node1",
                                 .self = {1, 1, 1},
                                 .io = &io,
                                 .data = a};
    assert(a);
    keep(a);
    memset(&w, 0, sizeof w);
    w.wire = -1;
    w.a = a;
    a->loop = malloc(sizeof *a->loop);
    uv_loop_init(a->loop);
    a->join_worker = worker_open(a->loop, "join");
    uv_timer_init(a->loop, &a->timer);
    uv_timer_init(a->loop, &a->fence_timer);
    a->timer.data = a->fence_timer.data = a;
    a->join.self = config.self;
    a->node = node_new(&config);
    node_start(a->node);
    node_report_done(a->node, w.report_token, 0, NULL);
    a->fd = dup(0);
    a->hangup_fd = dup(0);
    uv_poll_init(a->loop, &a->sanlock_poll, new_guard()->fd); /* any socket; never readable */
    a->sanlock_poll.data = a;
    a->join.guard = new_guard();
    a->state = AGENT_STATE_JOINED;
    agent_watch_guard(a);
}

/* Until nothing more happens by itself: a few ticks of the fence timer. */
static void turn(int ms)
{
    uint64_t end = uv_hrtime() + (uint64_t)ms * 1000000;
    while (uv_hrtime() < end) {
        uv_run(w.a->loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
}

static void turn_until(const int *counter, int value)
{
    for (int i = 0; i < 8000 && *counter < value; i++)
        turn(1);
}

static void begin_task(void)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Attach m = LUNAR__ATTACH__INIT;
    Lunar__Layer layer = LUNAR__LAYER__INIT, *layers = &layer;
    Lunar__Segment segment = LUNAR__SEGMENT__INIT, *segments = &segment;
    struct uuid id = uuid_random(), volume = uuid_random(), attachment = uuid_random();

    segment.start = segment.length = 1 << 20;
    layer.n_segments = 1;
    layer.segments = &segments;
    m.volume_id = uuid_to_pb(&volume);
    m.attachment_id = uuid_to_pb(&attachment);
    m.name = (char *)(uintptr_t) "disk";
    m.size = 1 << 20;
    m.n_layers = 1;
    m.layers = &layers;
    c.op_case = LUNAR__COMMAND__OP_ATTACH;
    c.attach = &m;
    c.id = uuid_to_pb(&id);
    e.body_case = LUNAR__ENVELOPE__BODY_COMMAND;
    e.command = &c;
    node_message(w.a->node, 5, &e);
    node_report_done(w.a->node, w.report_token, 0, NULL);
}

/* --- tests --- */

static void the_guard_fences_and_the_agent_joins_again_by_itself(void)
{
    start();
    guard_says_state(GUARD_STATE_FENCING);
    turn(50);
    CHECK_EQ(w.a->state, AGENT_STATE_FENCED);
    CHECK(strstr(w.a->trouble, "killpath") && strstr(w.a->trouble, "proof"));
    CHECK_EQ(w.torn_down, 0); /* nothing is torn down before the proof */
    guard_says_state(GUARD_STATE_PROVEN);
    turn_until(&w.drained, 1);
    CHECK_EQ(w.torn_down, 1);
    CHECK_EQ(w.rejoined, 0);
    guard_says_state(GUARD_STATE_OVER);
    guard_dies();
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.rejoined, 1);
    CHECK_EQ(w.ended, 1);
    CHECK_EQ(w.fence_asked, 0);
    CHECK(w.a->node == NULL && w.a->join.guard == NULL);
    CHECK_EQ(w.a->fd, -1); /* the LUN is opened anew */
}

static void the_guard_of_the_next_life_is_another_one(void)
{
    start();
    guard_says_state(GUARD_STATE_OVER);
    turn_until(&w.rejoined, 1);
    w.a->join.guard = new_guard();
    w.a->state = AGENT_STATE_JOINED;
    agent_watch_guard(w.a);
    guard_says_state(GUARD_STATE_GUARDING);
    turn(50);
    CHECK(w.a->fence.connected); /* what the former one said does not count */
    CHECK_EQ(w.a->state, AGENT_STATE_JOINED);
}

static void what_the_agent_finds_out_it_tells_its_guard_once(void)
{
    start();
    agent_fence(w.a, "declared dead");
    agent_fence(w.a, "declared dead again");
    turn(50);
    CHECK_EQ(w.fence_asked, 1);
    CHECK_EQ(w.a->state, AGENT_STATE_FENCED);
    CHECK(strstr(w.a->trouble, "declared dead;"));
    guard_says_state(GUARD_STATE_FENCING);
    guard_says_state(GUARD_STATE_PROVEN);
    turn_until(&w.drained, 1);
    guard_says_state(GUARD_STATE_OVER);
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.rejoined, 1);
}

static void a_task_that_hangs_is_waited_for_and_the_proof_does_not_wait(void)
{
    struct error err = ERROR_INIT;
    start();
    begin_task();
    CHECK(w.task != NULL);
    guard_says_state(GUARD_STATE_FENCING);
    guard_says_state(GUARD_STATE_PROVEN);
    guard_says_state(GUARD_STATE_OVER); /* the guard waits only so long */
    turn(50);
    CHECK_EQ(w.torn_down, 0);
    CHECK(strstr(w.a->trouble, "operations"));
    error_set(&err, -EIO, "EIO");
    node_task_done(w.a->node, w.task, -EIO, &err);
    agent_fence_advance(w.a);
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.torn_down, 1);
    CHECK_EQ(w.rejoined, 1);
}

static void safety_3_the_next_life_waits_for_the_last_write_of_this_one(void)
{
    start();
    w.hold_mailbox = true;
    node_tend(w.a->node, true); /* a report is on its way */
    guard_says_state(GUARD_STATE_FENCING);
    guard_says_state(GUARD_STATE_PROVEN);
    guard_says_state(GUARD_STATE_OVER);
    turn_until(&w.drained, 1);
    turn(1500);
    CHECK_EQ(w.ended + w.rejoined, 0);
    node_report_done(w.a->node, w.report_token, -EIO, &(struct error){-EIO, "EIO"});
    turn(1500);
    CHECK_EQ(w.ended + w.rejoined, 0); /* the page's write is out still */
    w.mailbox_closed(w.a);
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.rejoined, 1);
}

static void a_teardown_that_fails_is_tried_again_before_the_guard_is_told(void)
{
    start();
    w.teardown_rc = -EBUSY;
    guard_says_state(GUARD_STATE_FENCING);
    guard_says_state(GUARD_STATE_PROVEN);
    turn_until(&w.torn_down, 2);
    CHECK_EQ(w.torn_down, 2);
    CHECK_EQ(w.drained, 0);
    w.teardown_rc = 0;
    turn_until(&w.drained, 1);
    CHECK_EQ(w.drained, 1);
}

static void a_lockspace_that_does_not_go_yet_is_asked_again(void)
{
    start();
    w.end_rc = -EAGAIN;
    guard_says_state(GUARD_STATE_OVER);
    turn_until(&w.ended, 2);
    CHECK_EQ(w.rejoined, 0);
    w.end_rc = 0;
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.rejoined, 1);
}

static void a_guard_that_was_killed_is_replaced_under_the_same_life(void)
{
    start();
    guard_dies();
    turn_until(&w.opened, 1);
    turn(50);
    CHECK_EQ(w.a->state, AGENT_STATE_JOINED);
    CHECK(w.a->fence.connected);
    guard_says_state(GUARD_STATE_FENCING); /* the new one is listened to */
    turn(50);
    CHECK_EQ(w.a->state, AGENT_STATE_FENCED);
}

static void another_guard_is_tried_for_until_it_comes(void)
{
    start();
    w.open_rc = -EAGAIN;
    guard_dies();
    turn_until(&w.opened, 2);
    CHECK_EQ(w.a->state, AGENT_STATE_JOINED);
    w.open_rc = 0;
    turn_until(&w.opened, 3);
    turn(50);
    CHECK(w.a->fence.connected);
}

static void a_guard_killed_with_the_lockspace_gone_means_fencing(void)
{
    start();
    w.check_rc = LUNAR_E_NOT_JOINED;
    w.open_rc = LUNAR_E_FENCED;
    guard_dies();
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.opened, 1);
    CHECK_EQ(w.ending, 1);    /* one that fences, whatever is left of the lockspace */
    CHECK_EQ(w.torn_down, 1); /* it was over before it was met: our own teardown is the rest */
    CHECK_EQ(w.ended, 1);
    CHECK_EQ(w.rejoined, 1);
}

/* Only a guard resets the node if the proof cannot be had. */
static void a_guard_killed_while_it_fences_has_a_successor(void)
{
    start();
    guard_says_state(GUARD_STATE_FENCING);
    turn(50);
    guard_dies();
    turn_until(&w.fence_asked, 1);
    guard_dies(); /* and again */
    turn_until(&w.fence_asked, 2);
    CHECK_EQ(w.opened, 2);
    CHECK_EQ(w.ending, 2);
    turn(50);
    CHECK_EQ(w.torn_down, 0); /* not before somebody has the proof */
    w.teardown_rc = -EIO;
    guard_says_state(GUARD_STATE_PROVEN);
    turn_until(&w.torn_down, 2);
    CHECK_EQ(w.ended, 0); /* USED stands until then */
    w.teardown_rc = 0;
    turn_until(&w.drained, 1);
    guard_says_state(GUARD_STATE_OVER);
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.opened, 2);
    CHECK_EQ(w.rejoined, 1);
    CHECK(!w.a->fence.ending); /* the next life's guard guards */
}

static void a_guard_killed_with_its_proof_needs_no_successor(void)
{
    start();
    guard_says_state(GUARD_STATE_FENCING);
    guard_says_state(GUARD_STATE_PROVEN);
    turn(50);
    guard_dies();
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.opened, 0);
    CHECK_EQ(w.torn_down, 1);
    CHECK_EQ(w.rejoined, 1);
}

static void a_fence_while_another_guard_is_looked_for_asks_the_new_one(void)
{
    start();
    w.open_rc = -EAGAIN;
    guard_dies();
    turn_until(&w.opened, 1);
    w.open_rc = 0;
    turn(900);
    agent_fence(w.a, "declared dead"); /* between two tries: nobody guards */
    turn_until(&w.fence_asked, 1);
    CHECK_EQ(w.opened, 2);
    CHECK_EQ(w.ending, 1);
    CHECK_EQ(w.torn_down, 0); /* not before the proof */
    guard_says_state(GUARD_STATE_PROVEN);
    turn_until(&w.drained, 1);
    guard_says_state(GUARD_STATE_OVER);
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.torn_down, 1);
    CHECK_EQ(w.rejoined, 1);
}

static void a_fence_with_no_guard_to_be_had_is_done_by_the_agent_alone(void)
{
    start();
    w.open_rc = -EAGAIN;
    guard_dies();
    turn_until(&w.opened, 1);
    agent_fence(w.a, "declared dead");
    turn_until(&w.rejoined, 1);
    CHECK_EQ(w.ending, 1);
    CHECK_EQ(w.torn_down, 1);
    CHECK_EQ(w.rejoined, 1);
}

static void a_leave_with_volumes_ends_in_the_leave(void)
{
    start();
    w.a->evicting = true;
    agent_fence(w.a, "asked to leave with its volumes");
    guard_says_state(GUARD_STATE_PROVEN);
    turn_until(&w.drained, 1);
    guard_says_state(GUARD_STATE_OVER);
    turn_until(&w.left, 1);
    CHECK_EQ(w.left, 1);
    CHECK_EQ(w.rejoined, 0);
}

TEST_MAIN(TEST(the_guard_fences_and_the_agent_joins_again_by_itself),
          TEST(the_guard_of_the_next_life_is_another_one),
          TEST(what_the_agent_finds_out_it_tells_its_guard_once),
          TEST(a_task_that_hangs_is_waited_for_and_the_proof_does_not_wait),
          TEST(safety_3_the_next_life_waits_for_the_last_write_of_this_one),
          TEST(a_teardown_that_fails_is_tried_again_before_the_guard_is_told),
          TEST(a_lockspace_that_does_not_go_yet_is_asked_again),
          TEST(a_guard_that_was_killed_is_replaced_under_the_same_life),
          TEST(another_guard_is_tried_for_until_it_comes),
          TEST(a_guard_killed_with_the_lockspace_gone_means_fencing),
          TEST(a_guard_killed_while_it_fences_has_a_successor),
          TEST(a_guard_killed_with_its_proof_needs_no_successor),
          TEST(a_fence_while_another_guard_is_looked_for_asks_the_new_one),
          TEST(a_fence_with_no_guard_to_be_had_is_done_by_the_agent_alone),
          TEST(a_leave_with_volumes_ends_in_the_leave))
