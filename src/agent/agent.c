/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of an agent: open, join, serve, leave.
 *
 * Happy path: agent_open listens at once (its status can be asked from the first second), join.c
 * runs in a thread, the node is made with what was adopted, the first report is written, the
 * mailbox opens. Failure modes: a join that fails is told in the status and tried again; the
 * sanlock daemon or the lockspace is lost: no command is taken any more, and since USED stands the
 * watchdog ends the node (the orderly self-fence is the guard's work); SIGTERM: the process ends,
 * volumes go on, the next agent adopts them.
 */
#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/hangup.h"
#include "base/io.h"
#include "base/log.h"
#include "diskrpc/wwid.h"

static void start_join(struct agent *a);

static const char *state_name(enum agent_state state)
{
    static const char *const names[] = {"joining", "joined", "leaving", "left", "lost"};
    return names[state];
}

/* --- serving --- */

static void on_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct agent *a = data;
    struct error err = ERROR_INIT;
    Lunar__Envelope *e;

    if (a->state == AGENT_STATE_LOST)
        return;
    if (envelope_unpack(bytes, len, &e, &err) < 0) {
        log_warn("message_refused text=\"%s\"", err.text);
        return;
    }
    node_message(a->node, mailbox_stats(a->mailbox)->peer.run_or_term, e);
    envelope_free(e);
}

static void on_peer_changed(void *data, const struct incarnation *peer)
{
    struct agent *a = data;
    log_info("coordinator_changed term=%llu host_id=%u", (unsigned long long)peer->run_or_term,
             peer->host_id);
    node_coordinator_changed(a->node);
}

static void on_mailbox_gone(void *data)
{
    (void)data;
}

static void lost(struct agent *a, const char *why)
{
    if (a->state == AGENT_STATE_LOST)
        return;
    a->state = AGENT_STATE_LOST;
    snprintf(a->trouble, sizeof a->trouble,
             "the lockspace is lost: %s; the watchdog will reset this node", why);
    log_error("lost pool=%s text=\"%s\"", a->sb.pool_name, a->trouble);
    /* The page falls silent, so that the coordinator gives this node nothing any more. */
    mailbox_close(a->mailbox, on_mailbox_gone, NULL);
    a->mailbox = NULL;
}

static void on_sanlock(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    uv_poll_stop(poll);
    lost(poll->data, "the sanlock daemon is gone");
}

static void check_run(struct worker_job *job)
{
    struct agent *a = job->data;
    a->check_rc = membership_check(a->join.membership, &a->check_err);
}

static void check_done(struct worker_job *job)
{
    struct agent *a = job->data;
    a->check_busy = false;
    if (a->check_rc == LUNAR_E_NOT_JOINED && a->state == AGENT_STATE_JOINED)
        lost(a, a->check_err.text);
    else if (a->check_rc < 0)
        log_warn("membership_in_doubt pool=%s code=%s text=\"%s\"", a->sb.pool_name,
                 error_name(a->check_rc), a->check_err.text);
}

static void on_timer(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    if (a->state == AGENT_STATE_JOINING) {
        start_join(a);
    } else if (a->state == AGENT_STATE_JOINED && !a->check_busy) {
        a->check_busy = true;
        a->check_job = (struct worker_job){.run = check_run, .done = check_done, .data = a};
        worker_submit(a->join_worker, &a->check_job);
    }
}

/* --- joining --- */

static void join_job_run(struct worker_job *job)
{
    struct agent *a = job->data;
    memset(&a->join_err, 0, sizeof a->join_err);
    a->join_rc = join_run(a, &a->join, &a->join_err);
}

static int serve(struct agent *a, struct error *err)
{
    struct node_config node = {.pool_id = a->sb.pool_id,
                               .pool_name = a->sb.pool_name,
                               .device = a->device,
                               .node_name = a->node_name,
                               .self = a->join.self,
                               .io = &agent_io,
                               .data = a};
    int rc = uv_disk_open(a->loop, a->device, 2, &a->disk, err);
    if (rc < 0)
        return rc;
    a->node = node_new(&node);
    for (uint32_t i = 0; i < a->join.n_stacks; i++)
        node_adopt(a->node, a->join.stacks[i]);
    node_start(a->node);
    struct mailbox_config mailbox = {
        .loop = a->loop,
        .disk = uv_disk_disk(a->disk),
        .layout = &a->sb.layout,
        .pool_id = a->sb.pool_id,
        .self = a->join.self,
        .node_name = a->node_name,
        .page_seq_min = a->join.page_seq,
        .callbacks = {.message = on_message, .peer_changed = on_peer_changed},
        .data = a,
    };
    a->mailbox = mailbox_open(&mailbox);
    a->hangup_fd = hangup_fd(membership_fd(a->join.membership));
    if (a->hangup_fd < 0 || uv_poll_init(a->loop, &a->sanlock_poll, a->hangup_fd) != 0)
        abort();
    a->sanlock_poll.data = a;
    uv_poll_start(&a->sanlock_poll, UV_READABLE, on_sanlock);
    return 0;
}

static void join_job_done(struct worker_job *job)
{
    struct agent *a = job->data;

    if (a->join_rc == 0) {
        a->join_rc = serve(a, &a->join_err);
        if (a->join_rc < 0)
            join_undo(&a->join);
    }
    if (a->join_rc < 0) {
        snprintf(a->trouble, sizeof a->trouble, "%s", a->join_err.text);
        log_error("join_failed pool=%s code=%s text=\"%s\"", a->sb.pool_name,
                  error_name(a->join_rc), a->join_err.text);
        uv_timer_start(&a->timer, on_timer, AGENT_JOIN_RETRY_MS, 0);
        return;
    }
    a->state = AGENT_STATE_JOINED;
    a->trouble[0] = '\0';
    log_info("joined pool=%s host_id=%u generation=%llu run=%llu adopted=%u", a->sb.pool_name,
             a->join.self.host_id, (unsigned long long)a->join.self.generation,
             (unsigned long long)a->join.self.run_or_term, a->join.n_stacks);
    uv_timer_start(&a->timer, on_timer, AGENT_CHECK_MS, AGENT_CHECK_MS);
}

static void start_join(struct agent *a)
{
    a->join_job = (struct worker_job){.run = join_job_run, .done = join_job_done, .data = a};
    worker_submit(a->join_worker, &a->join_job);
}

static unsigned pools_served; /* of this process */

bool agent_was_last(void)
{
    return --pools_served == 0;
}

void agent_rejoin(struct agent *a)
{
    uv_timer_stop(&a->timer); /* one join at a time: the next tick would begin another */
    a->state = AGENT_STATE_JOINING;
    start_join(a);
}

/* --- local clients --- */

static void send_response(struct agent *a, uint64_t client, Lunar__Response *response)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    struct uuid zero = {{0}}; /* local requests carry no id */
    uint8_t *bytes;
    uint32_t len;

    if (response->id.len == 0)
        response->id = uuid_to_pb(&zero);
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = response;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return;
    local_send(a->local, client, bytes, len);
    free(bytes);
}

void agent_answer(struct agent *a, uint64_t client, int code, const char *words)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    error.code = code;
    error.text = (char *)(uintptr_t)words;
    response.error = &error;
    send_response(a, client, &response);
}

struct volume_list {
    Lunar__AgentVolume messages[TABLE_ENTRIES_MAX];
    Lunar__AgentVolume *list[TABLE_ENTRIES_MAX];
    struct uuid ids[TABLE_ENTRIES_MAX][2];
    size_t n;
};

static void add_volume(void *data, const struct node_volume *v)
{
    struct volume_list *l = data;
    if (l->n == TABLE_ENTRIES_MAX)
        return;
    Lunar__AgentVolume *m = &l->messages[l->n];
    lunar__agent_volume__init(m);
    l->ids[l->n][0] = v->volume_id;
    l->ids[l->n][1] = v->attachment_id;
    m->volume_id = uuid_to_pb(&l->ids[l->n][0]);
    m->attachment_id = uuid_to_pb(&l->ids[l->n][1]);
    m->name = (char *)(uintptr_t)v->name;
    m->state = (char *)(uintptr_t)v->state;
    m->device = (char *)(uintptr_t)v->device;
    m->qsd_pid = v->qsd_pid;
    m->qsd_restarts = v->qsd_restarts;
    l->list[l->n++] = m;
}

static void answer_status(struct agent *a, uint64_t client)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__AgentStatus s = LUNAR__AGENT_STATUS__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    struct volume_list *volumes = calloc(1, sizeof *volumes);

    if (!volumes)
        abort();
    s.pool = a->sb.pool_name;
    s.pool_id = uuid_to_pb(&a->sb.pool_id);
    s.device = a->device;
    s.node = a->node_name;
    s.host_id = a->join.self.host_id;
    s.generation = a->join.self.generation;
    s.run = a->join.self.run_or_term;
    s.state = (char *)(uintptr_t)state_name(a->state);
    if (a->mailbox) {
        const struct channel_stats *stats = mailbox_stats(a->mailbox);
        s.term = stats->term;
        s.coordinator_host_id = stats->peer.host_id;
        s.last_heard_ms = stats->last_heard_ms ? uv_now(a->loop) - stats->last_heard_ms : 0;
        node_each(a->node, add_volume, volumes);
    }
    s.condition = a->trouble;
    s.volumes = volumes->list;
    s.n_volumes = volumes->n;
    error.text = a->trouble; /* code 0: the status itself is fine */
    response.error = &error;
    response.op_case = LUNAR__RESPONSE__OP_AGENT_STATUS;
    response.agent_status = &s;
    send_response(a, client, &response);
    free(volumes);
}

/* A client's request before there is a node to relay it. */
static void refuse_request(struct agent *a, uint64_t client, const Lunar__Request *request)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    char text[700];

    snprintf(text, sizeof text, "this node has not joined pool '%s'%s%s", a->sb.pool_name,
             a->trouble[0] ? ": " : " yet", a->trouble);
    error.code = LUNAR_E_NOT_JOINED;
    error.text = text;
    response.id = request->id;
    response.error = &error;
    send_response(a, client, &response);
}

static void on_local_message(void *data, uint64_t client, const Lunar__Envelope *e,
                             const uint8_t *bytes, uint32_t len)
{
    struct agent *a = data;
    (void)bytes;
    (void)len;

    if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST && a->state == AGENT_STATE_JOINED)
        node_request(a->node, client, e);
    else if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST)
        refuse_request(a, client, e->request);
    else if (e->body_case != LUNAR__ENVELOPE__BODY_LOCAL_REQUEST)
        agent_answer(a, client, LUNAR_E_INVALID, "neither a request nor a local request");
    else if (e->local_request->op_case == LUNAR__LOCAL_REQUEST__OP_AGENT_STATUS)
        answer_status(a, client);
    else if (e->local_request->op_case == LUNAR__LOCAL_REQUEST__OP_LEAVE)
        agent_leave(a, client);
    else
        agent_answer(a, client, LUNAR_E_UNSUPPORTED, "this agent does not know the local request");
}

static void on_local_gone(void *data, uint64_t client)
{
    struct agent *a = data;
    if (a->node)
        node_client_gone(a->node, client);
}

/* --- opening --- */

#define AGENT_POOLS_MAX 16u /* of one process */
static struct uuid opened[AGENT_POOLS_MAX];
static uint32_t pools_opened;

/* One agent per pool and node: waits for a predecessor's exit, whose writes have all landed then
 * (SAFETY 5). */
static int take_lock(struct agent *a, struct error *err)
{
    char path[300];
    snprintf(path, sizeof path, "%s/agent-%s.lock", a->run_dir, a->sb.pool_name);
    a->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (a->lock_fd < 0)
        return error_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    if (flock(a->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    log_info("waiting text=\"for another agent of this pool to exit\" lock=%s", path);
    if (flock(a->lock_fd, LOCK_EX) < 0)
        return error_set(err, -errno, "cannot lock %s: %s", path, strerror(errno));
    return 0;
}

static int read_lun(struct agent *a, struct error *err)
{
    a->fd = io_open(a->device, 1, err);
    if (a->fd < 0)
        return a->fd;
    int rc = superblock_read(a->fd, &a->sb, err);
    if (rc < 0)
        return error_prefix(err, "%s", a->device);
    if (a->sb.state != SUPERBLOCK_READY)
        return error_set(err, LUNAR_E_VERSION,
                         "%s: an interrupted format; run `lunarctl lun format` again", a->device);
    return wwid_check(a->fd, a->device, &a->sb, err);
}

static int prepare(struct agent *a, struct error *err)
{
    static const struct local_callbacks callbacks = {.message = on_local_message,
                                                     .gone = on_local_gone};
    int rc = read_lun(a, err);
    if (rc < 0)
        return rc;
    snprintf(a->root, sizeof a->root, "%s/attach-%s", a->run_dir, a->sb.pool_name);
    snprintf(a->socket, sizeof a->socket, "%s/agent-%s.sock", a->run_dir, a->sb.pool_name);
    snprintf(a->coordinator_socket, sizeof a->coordinator_socket, "%s/coordinator-%s.sock",
             a->run_dir, a->sb.pool_name);
    if (mkdir(a->root, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make %s: %s", a->root, strerror(errno));
    for (uint32_t i = 0; i < pools_opened; i++)
        if (uuid_equal(&opened[i], &a->sb.pool_id))
            return error_set(err, LUNAR_E_INVALID, "%s: pool '%s' is given twice", a->device,
                             a->sb.pool_name);
    if (pools_opened == AGENT_POOLS_MAX)
        return error_set(err, LUNAR_E_FULL, "more than %u pools", AGENT_POOLS_MAX);
    opened[pools_opened++] = a->sb.pool_id;
    rc = take_lock(a, err);
    if (rc == 0)
        rc = local_open(a->loop, a->socket, &callbacks, a, &a->local, err);
    return rc;
}

int agent_open(uv_loop_t *loop, const struct agent_config *config, struct agent **ret,
               struct error *err)
{
    struct agent *a = calloc(1, sizeof *a); /* lives as long as the process */
    if (!a)
        abort();
    a->loop = loop;
    snprintf(a->device, sizeof a->device, "%s", config->device);
    snprintf(a->node_name, sizeof a->node_name, "%s", config->node_name);
    snprintf(a->run_dir, sizeof a->run_dir, "%s", config->run_dir);
    LIST_INIT(&a->watches);
    int rc = prepare(a, err);
    if (rc < 0)
        return rc;
    a->join_worker = worker_open(loop, "join");
    a->report_worker = worker_open(loop, "report");
    uv_timer_init(loop, &a->timer);
    uv_timer_init(loop, &a->leave_timer);
    a->timer.data = a->leave_timer.data = a;
    pools_served++;
    start_join(a);
    *ret = a;
    return 0;
}

const char *agent_socket(const struct agent *agent)
{
    return agent->socket;
}
