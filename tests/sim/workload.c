/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests of the workload and what their answers must say.
 *
 * Happy path: a random operation on what is known of a random name; the answer's volume and
 * attachment become what everybody knows. What an answer of success must mean is compared with the
 * ghost (the accepted metadata, what is mapped where); an error must be one that the situation can
 * bring about. The finale empties the pool by the same operations, each until it succeeds.
 */
#include "sim/workload.h"

#include <stdio.h>
#include <stdlib.h>

#include "sim/ghost.h"

/* What everybody knows of a snapshot's name. */
static struct {
    char text[8];
    uint32_t of;            /* the volume's name */
    struct uuid id, volume; /* zero: not known */
} snapshot_names[SNAPSHOT_NAMES] = {{.text = "s0"}, {.text = "s1"}, {.text = "s2"}, {.text = "s3"}};

static struct request *all; /* newest first */
static uint32_t n_requests;
static char last_state[16]; /* of the volume in the last answer; "" if none */
static int last_code;

const struct request *request_by_id(const struct uuid *id)
{
    for (const struct request *r = all; r; r = r->next)
        if (uuid_equal(&r->id, id))
            return r;
    return NULL;
}

bool ghost_delete_requested(const struct uuid *volume)
{
    for (const struct request *r = all; r; r = r->next)
        if (r->op == CLIENT_DELETE && r->sent_us > 0 && uuid_equal(&r->volume, volume))
            return true;
    return false;
}

bool ghost_unsnap_requested(const struct uuid *snapshot)
{
    for (const struct request *r = all; r; r = r->next)
        if (r->op == CLIENT_UNSNAP && r->sent_us > 0 && uuid_equal(&r->snapshot, snapshot))
            return true;
    return false;
}

bool ghost_unsnap_answered(const struct uuid *snapshot)
{
    for (const struct request *r = all; r; r = r->next)
        if (r->op == CLIENT_UNSNAP && r->over && r->code == 0 && uuid_equal(&r->snapshot, snapshot))
            return true;
    return false;
}

bool ghost_detach_answered(const struct uuid *attachment)
{
    for (const struct request *r = all; r; r = r->next)
        if (r->op == CLIENT_DETACH && r->over && r->code == 0 &&
            uuid_equal(&r->attachment, attachment))
            return true;
    return false;
}

bool ghost_detach_wanted(const struct uuid *attachment, uint64_t since_us)
{
    for (const struct request *r = all; r; r = r->next)
        if (r->op == CLIENT_DETACH && r->sent_us > 0 && uuid_equal(&r->attachment, attachment) &&
            (!r->over || r->over_us >= since_us))
            return true;
    return false;
}

/* --- making them --- */

static struct request *request_new(enum client_op op, uint32_t name)
{
    struct request *r = calloc(1, sizeof *r);
    r->number = ++n_requests;
    r->id = uuid_random();
    r->op = op;
    r->name = name;
    r->volume = workload_names[name].volume;
    r->attachment = workload_names[name].attachment;
    r->code = 1; /* not answered */
    r->next = all;
    all = r;
    return r;
}

static struct request *attach_new(uint32_t name)
{
    struct request *r = request_new(CLIENT_ATTACH, name);
    r->node = machine_at(1 + (uint32_t)sim_random(STREAM_CLIENTS, world_machines()));
    r->named_node = true;
    return r;
}

static struct request *ping_new(void)
{
    struct request *r = request_new(CLIENT_PING, 0);
    bool big = sim_random(STREAM_CLIENTS, 2) == 0; /* it is spilled, both ways */
    r->ping_len = 8 + (uint32_t)sim_random(STREAM_CLIENTS, big ? 20000 : 200);
    return r;
}

/* Some volumes are thick; one name always means one size and kind. */
static uint64_t size_of(uint32_t name)
{
    return (4ull + 40 * name) << 20;
}

static bool is_thick(uint32_t name)
{
    return name % 2 == 1;
}

static struct request *of_snapshot(enum client_op op, uint32_t name, uint32_t snapshot)
{
    struct request *r = request_new(op, name);
    r->snapshot_name = snapshot;
    r->snapshot = snapshot_names[snapshot].id;
    return r;
}

/* Of thin volumes, to thin ones that are larger. */
static struct request *snapshot_random(void)
{
    uint32_t s = (uint32_t)sim_random(STREAM_CLIENTS, SNAPSHOT_NAMES);
    uint32_t name = 2 * (uint32_t)sim_random(STREAM_CLIENTS, (FINALE_NAME + 1) / 2);
    uint64_t dice = sim_random(STREAM_CLIENTS, 100);
    bool known = !uuid_is_zero(&snapshot_names[s].id);
    bool there = !uuid_is_zero(&workload_names[name].volume);
    struct request *r;

    if (dice < 10)
        return of_snapshot(CLIENT_SNAPSHOTS, name, s);
    if (there && (!known || dice < 35))
        return of_snapshot(CLIENT_SNAPSHOT, name, s);
    if (known && dice < 55)
        return of_snapshot(CLIENT_UNSNAP, snapshot_names[s].of, s);
    if (known && dice < 80 && snapshot_names[s].of < name)
        return of_snapshot(CLIENT_CLONE, name, s);
    if (known && dice < 90) {
        r = of_snapshot(CLIENT_ROLLBACK, snapshot_names[s].of, s);
        r->volume = snapshot_names[s].volume;
        return r;
    }
    if (there && name + 2 < FINALE_NAME) {
        r = request_new(CLIENT_CLONE, name + 2);
        r->source = workload_names[name].volume;
        return r;
    }
    return of_snapshot(CLIENT_SNAPSHOTS, name, s);
}

/* A clone, every other time, where there is something to clone. */
static struct request *create_new(uint32_t name)
{
    if (is_thick(name) || name == 0 || sim_random(STREAM_CLIENTS, 2))
        return request_new(CLIENT_CREATE, name);
    for (uint32_t s = 0; s < SNAPSHOT_NAMES; s++)
        if (!uuid_is_zero(&snapshot_names[s].id) && snapshot_names[s].of < name)
            return of_snapshot(CLIENT_CLONE, name, s);
    struct request *r = request_new(CLIENT_CLONE, name);
    r->source = workload_names[name - 2].volume;
    r->op = uuid_is_zero(&r->source) ? CLIENT_CREATE : CLIENT_CLONE;
    return r;
}

struct request *request_random(void)
{
    if (sim_random(STREAM_CLIENTS, 100) < 20)
        return snapshot_random();
    uint32_t name = (uint32_t)sim_random(STREAM_CLIENTS, FINALE_NAME);
    const struct volume_name *v = &workload_names[name];
    uint64_t dice = sim_random(STREAM_CLIENTS, 100);

    if (dice < 12)
        return ping_new();
    if (dice < 14)
        return request_new(CLIENT_LIST, name);
    if (dice < 23)
        return request_new(CLIENT_GET, name);
    if (uuid_is_zero(&v->volume) || dice < 28)
        return create_new(name);
    if (dice < 36 && uuid_is_zero(&v->attachment))
        return request_new(CLIENT_TRIM, name);
    if (!uuid_is_zero(&v->attachment) && dice < 65)
        return request_new(CLIENT_DETACH, name);
    if (dice < 80)
        return attach_new(name);
    return request_new(CLIENT_DELETE, name);
}

static uint8_t ping_byte(const struct request *r, uint32_t i)
{
    return (uint8_t)(r->number * 31 + i * 7 + (i >> 8));
}

static void pack_snapshot_op(const struct request *r, Lunar__Request *m)
{
    static Lunar__SnapshotCreate snapshot;
    static Lunar__SnapshotDelete unsnap;
    static Lunar__SnapshotList list;
    static Lunar__VolumeRollback rollback;
    static Lunar__VolumeCreate clone;

    lunar__snapshot_create__init(&snapshot);
    lunar__snapshot_delete__init(&unsnap);
    lunar__snapshot_list__init(&list);
    lunar__volume_rollback__init(&rollback);
    lunar__volume_create__init(&clone);
    switch (r->op) {
    case CLIENT_SNAPSHOT:
        snapshot.volume_id = uuid_to_pb(&r->volume);
        snapshot.name = snapshot_names[r->snapshot_name].text;
        m->op_case = LUNAR__REQUEST__OP_SNAPSHOT_CREATE;
        m->snapshot_create = &snapshot;
        break;
    case CLIENT_UNSNAP:
        unsnap.snapshot_id = uuid_to_pb(&r->snapshot);
        m->op_case = LUNAR__REQUEST__OP_SNAPSHOT_DELETE;
        m->snapshot_delete = &unsnap;
        break;
    case CLIENT_CLONE:
        clone.name = workload_names[r->name].text;
        clone.size = size_of(r->name);
        if (uuid_is_zero(&r->source))
            clone.source_snapshot_id = uuid_to_pb(&r->snapshot);
        else
            clone.source_volume_id = uuid_to_pb(&r->source);
        m->op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
        m->volume_create = &clone;
        break;
    case CLIENT_ROLLBACK:
        rollback.volume_id = uuid_to_pb(&r->volume);
        rollback.snapshot_id = uuid_to_pb(&r->snapshot);
        m->op_case = LUNAR__REQUEST__OP_VOLUME_ROLLBACK;
        m->volume_rollback = &rollback;
        break;
    default:
        list.name = snapshot_names[r->snapshot_name].text;
        m->op_case = LUNAR__REQUEST__OP_SNAPSHOT_LIST;
        m->snapshot_list = &list;
    }
}

static void pack_op(const struct request *r, Lunar__Request *m, uint8_t *payload)
{
    static Lunar__Ping ping;
    static Lunar__VolumeGet get;
    static Lunar__VolumeList list;
    static Lunar__VolumeCreate create;
    static Lunar__VolumeAttach attach;
    static Lunar__VolumeDetach detach;
    static Lunar__VolumeDelete remove_;
    static Lunar__VolumeTrim trim;
    char *name = workload_names[r->name].text;

    lunar__ping__init(&ping);
    lunar__volume_get__init(&get);
    lunar__volume_list__init(&list);
    lunar__volume_create__init(&create);
    lunar__volume_attach__init(&attach);
    lunar__volume_detach__init(&detach);
    lunar__volume_delete__init(&remove_);
    lunar__volume_trim__init(&trim);
    switch (r->op) {
    case CLIENT_PING:
        for (uint32_t i = 0; i < r->ping_len; i++)
            payload[i] = ping_byte(r, i);
        ping.payload = (ProtobufCBinaryData){r->ping_len, payload};
        m->op_case = LUNAR__REQUEST__OP_PING;
        m->ping = &ping;
        break;
    case CLIENT_GET:
        get.name = name;
        m->op_case = LUNAR__REQUEST__OP_VOLUME_GET;
        m->volume_get = &get;
        break;
    case CLIENT_LIST:
        m->op_case = LUNAR__REQUEST__OP_VOLUME_LIST;
        m->volume_list = &list;
        break;
    case CLIENT_CREATE:
        create.name = name;
        create.size = size_of(r->name);
        create.thick = is_thick(r->name);
        m->op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
        m->volume_create = &create;
        break;
    case CLIENT_ATTACH:
        attach.volume_id = uuid_to_pb(&r->volume);
        attach.node = r->node->name;
        m->op_case = LUNAR__REQUEST__OP_VOLUME_ATTACH;
        m->volume_attach = &attach;
        break;
    case CLIENT_DETACH:
        detach.volume_id = uuid_to_pb(&r->volume);
        detach.attachment_id = uuid_to_pb(&r->attachment);
        m->op_case = LUNAR__REQUEST__OP_VOLUME_DETACH;
        m->volume_detach = &detach;
        break;
    case CLIENT_TRIM:
        trim.volume_id = uuid_to_pb(&r->volume);
        m->op_case = LUNAR__REQUEST__OP_VOLUME_TRIM;
        m->volume_trim = &trim;
        break;
    case CLIENT_DELETE:
        remove_.volume_id = uuid_to_pb(&r->volume);
        m->op_case = LUNAR__REQUEST__OP_VOLUME_DELETE;
        m->volume_delete = &remove_;
        break;
    default:
        pack_snapshot_op(r, m);
    }
}

void request_pack(const struct request *r, uint8_t **ret, uint32_t *ret_len)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Request m = LUNAR__REQUEST__INIT;
    static uint8_t payload[32768];

    m.id = uuid_to_pb(&r->id);
    pack_op(r, &m, payload);
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &m;
    if (envelope_pack(&e, ret, ret_len, NULL) < 0)
        abort();
}

void request_sent(struct request *r)
{
    if (r->sent_us > 0)
        return;
    r->sent_us = sim_now_us();
    r->node_boot = r->node ? r->node->boot : 0;
    r->node_fences = r->node ? guard_model_fences(r->node) : 0;
}

/* --- judging the answers --- */

static _Noreturn void wrong(const struct request *r, const char *invariant, const char *what)
{
    char id[UUID_TEXT_SIZE];
    sim_violation(invariant, "request %u (%s %s, volume %s): %s", r->number, client_op_name(r->op),
                  workload_names[r->name].text, uuid_format(&r->volume, id), what);
}

static void check_error(const struct request *r, const Lunar__Response *response)
{
    int code = response->error->code;
    if (code > LUNAR_E_BASE || error_retryable(code) || code == LUNAR_E_METADATA ||
        code == LUNAR_E_NO_SPACE || code == LUNAR_E_IN_USE)
        return;
    /* One name may be a plain volume or a clone; volumes and snapshots come and go. */
    bool copies = r->op == CLIENT_SNAPSHOT || r->op == CLIENT_CLONE || r->op == CLIENT_ROLLBACK;
    if ((code == LUNAR_E_EXISTS && (copies || r->op == CLIENT_CREATE)) ||
        (code == LUNAR_E_NOT_FOUND && copies))
        return;
    if (r->op == CLIENT_TRIM &&
        (code == LUNAR_E_NOT_FOUND || (code == LUNAR_E_UNSUPPORTED && is_thick(r->name))))
        return;
    if (code == LUNAR_E_NOT_FOUND && (r->op == CLIENT_GET || r->op == CLIENT_ATTACH)) {
        uint64_t since = ghost_ready_since(workload_names[r->name].text);
        if (r->op == CLIENT_GET && response->term == ghost_term() && since < r->sent_us)
            wrong(r, "no-acknowledged-create-is-lost", "a volume that is ready was not found");
        return;
    }
    wrong(r, "answers-match-requests", response->error->text);
}

static void check_ping(const struct request *r, const Lunar__Response *response)
{
    if (response->op_case != LUNAR__RESPONSE__OP_PING || response->ping->payload.len != r->ping_len)
        wrong(r, "answers-match-requests", "another payload came back");
    for (uint32_t i = 0; i < r->ping_len; i++)
        if (response->ping->payload.data[i] != ping_byte(r, i))
            wrong(r, "answers-match-requests", "another payload came back");
}

static void learn(uint32_t name, const Lunar__Volume *v)
{
    struct volume_name *n = &workload_names[name];
    memset(&n->attachment, 0, sizeof n->attachment);
    n->volume = uuid_from_pb(v->volume_id);
    if (v->n_attachments > 0)
        n->attachment = uuid_from_pb(v->attachments[0]->attachment_id);
    snprintf(last_state, sizeof last_state, "%s", v->state);
}

static void check_volume(const struct request *r, const Lunar__Response *response)
{
    if (response->op_case != LUNAR__RESPONSE__OP_VOLUME ||
        strcmp(response->volume->name, workload_names[r->name].text) != 0)
        wrong(r, "answers-match-requests", "the answer is about another volume");
    struct uuid id = uuid_from_pb(response->volume->volume_id);
    if (r->op == CLIENT_ATTACH && !uuid_equal(&id, &r->volume))
        wrong(r, "answers-match-requests", "the answer has another volume's id");
    if (response->volume->size != size_of(r->name) ||
        (bool)response->volume->thick != is_thick(r->name))
        wrong(r, "answers-match-requests", "the volume has another size or kind");
}

static void check_create(const struct request *r, const Lunar__Response *response)
{
    struct uuid id = uuid_from_pb(response->volume->volume_id);
    if (ghost_volume_state(&id) != GHOST_VOLUME_READY && !ghost_delete_requested(&id) &&
        response->term == ghost_term())
        wrong(r, "no-acknowledged-create-is-lost",
              "created, says the answer, but the metadata does not have it ready");
}

struct looked_for {
    const struct request *r;
    bool open;
};

static void look_for(void *data, const struct mapped_view *v)
{
    struct looked_for *l = data;
    if (v->machine == l->r->node && v->open && uuid_equal(&v->spec->volume_id, &l->r->volume))
        l->open = true;
}

/* Else it may have fenced itself off before the request was sent, which found the operation under
 * way and its result on the LUN: nobody can know yet. */
static bool is_member(const struct machine *m)
{
    const struct process *p = machine_process(m, PROCESS_AGENT);
    const struct agent *a = p ? process_agent(p) : NULL;
    return a && a->state == AGENT_STATE_JOINED;
}

static void check_attach(const struct request *r)
{
    struct looked_for l = {r, false};
    if (r->node->state == MACHINE_OFF || r->node->boot != r->node_boot ||
        guard_model_fences(r->node) != r->node_fences || !is_member(r->node) ||
        twin_shares_name(r->node))
        return;
    for (const struct request *d = all; d; d = d->next)
        if (d->op == CLIENT_DETACH && d->sent_us > 0 && uuid_equal(&d->volume, &r->volume) &&
            (!d->over || d->over_us >= r->sent_us))
            return; /* either may have come first */
    stack_model_each(look_for, &l);
    if (!l.open)
        wrong(r, "answers-match-requests", "attached, says the answer, but it is not open there");
}

static void look_for_attachment(void *data, const struct mapped_view *v)
{
    struct looked_for *l = data;
    if (uuid_equal(&v->spec->attachment_id, &l->r->attachment) && v->writes &&
        lun_lets_write(v->machine, sim_now_us()) &&
        !ghost_is_excused(v->machine, v->host, v->generation))
        l->open = true;
}

static void check_detach(const struct request *r)
{
    struct looked_for l = {r, false};
    stack_model_each(look_for_attachment, &l);
    if (l.open)
        wrong(r, "answers-match-requests", "detached, says the answer, but it is mapped");
    memset(&workload_names[r->name].attachment, 0, sizeof workload_names[r->name].attachment);
}

static void check_delete(const struct request *r)
{
    enum ghost_volume state = ghost_volume_state(&r->volume);
    if (state == GHOST_VOLUME_NEW || state == GHOST_VOLUME_READY)
        wrong(r, "answers-match-requests", "deleted, says the answer, but the metadata has it");
    if (uuid_equal(&workload_names[r->name].volume, &r->volume))
        memset(&workload_names[r->name].volume, 0, sizeof r->volume);
    memset(&workload_names[r->name].attachment, 0, sizeof r->attachment);
}

static void learn_snapshot(uint32_t name, const Lunar__Snapshot *s)
{
    snapshot_names[name].id = uuid_from_pb(s->snapshot_id);
    snapshot_names[name].volume = uuid_from_pb(s->volume_id);
    for (uint32_t i = 0; i < WORKLOAD_NAMES; i++) /* its volume may be gone, and so its name */
        if (size_of(i) == s->size)
            snapshot_names[name].of = i;
}

static void forget_snapshot(uint32_t name)
{
    memset(&snapshot_names[name].id, 0, sizeof snapshot_names[name].id);
}

static void check_snapshot(const struct request *r, const Lunar__Response *response)
{
    if (response->op_case != LUNAR__RESPONSE__OP_SNAPSHOT ||
        strcmp(response->snapshot->name, snapshot_names[r->snapshot_name].text) != 0 ||
        strcmp(response->snapshot->state, "ready") != 0)
        wrong(r, "answers-match-requests", "no snapshot of that name that is ready came back");
    struct uuid id = uuid_from_pb(response->snapshot->snapshot_id);
    if (!ghost_snapshot_is_ready(&id) && !ghost_unsnap_requested(&id) &&
        response->term == ghost_term())
        wrong(r, "no-acknowledged-snapshot-is-lost",
              "taken, says the answer, but the metadata does not have it ready");
    learn_snapshot(r->snapshot_name, response->snapshot);
}

static void check_snapshots(const struct request *r, const Lunar__Response *response)
{
    if (response->op_case != LUNAR__RESPONSE__OP_SNAPSHOTS || response->snapshots->n_snapshots > 1)
        wrong(r, "answers-match-requests", "not one snapshot, and not none");
    forget_snapshot(r->snapshot_name);
    if (response->snapshots->n_snapshots == 1)
        learn_snapshot(r->snapshot_name, response->snapshots->snapshots[0]);
}

/* False: it is of no snapshot. */
static bool check_snapshot_op(const struct request *r, const Lunar__Response *response)
{
    switch (r->op) {
    case CLIENT_SNAPSHOT:
        check_snapshot(r, response);
        return true;
    case CLIENT_SNAPSHOTS:
        check_snapshots(r, response);
        return true;
    case CLIENT_UNSNAP:
        if (ghost_snapshot_is_ready(&r->snapshot))
            wrong(r, "answers-match-requests", "deleted, says the answer, but it is ready");
        if (uuid_equal(&snapshot_names[r->snapshot_name].id, &r->snapshot))
            forget_snapshot(r->snapshot_name);
        return true;
    default:
        return false;
    }
}

void request_check(struct request *r, const Lunar__Response *response)
{
    last_code = response->error ? response->error->code : 0;
    last_state[0] = '\0';
    if (last_code != 0) {
        check_error(r, response);
        if (last_code == LUNAR_E_NOT_FOUND && r->op == CLIENT_GET)
            memset(&workload_names[r->name].volume, 0, sizeof r->volume);
        return;
    }
    if (check_snapshot_op(r, response))
        return;
    if (r->op == CLIENT_GET || r->op == CLIENT_CREATE || r->op == CLIENT_ATTACH ||
        r->op == CLIENT_CLONE || r->op == CLIENT_TRIM) {
        check_volume(r, response);
        learn(r->name, response->volume);
    }
    switch (r->op) {
    case CLIENT_PING:
        check_ping(r, response);
        break;
    case CLIENT_LIST:
        if (response->op_case != LUNAR__RESPONSE__OP_VOLUMES)
            wrong(r, "answers-match-requests", "no list came back");
        break;
    case CLIENT_CREATE:
    case CLIENT_CLONE:
        check_create(r, response);
        break;
    case CLIENT_ATTACH:
        check_attach(r);
        break;
    case CLIENT_DETACH:
        check_detach(r);
        break;
    case CLIENT_DELETE:
        check_delete(r);
        break;
    default:
        break;
    }
}

/* --- the finale --- */

enum finale_step {
    FINALE_EMPTY,
    FINALE_UNSNAP,
    FINALE_CREATE,
    FINALE_ATTACH,
    FINALE_PING,
    FINALE_LIST,
    FINALE_CLEAN,
    FINALE_OVER
};

static enum finale_step step;
static uint32_t finale_name;
static struct request *last;

bool request_finale_over(void)
{
    return step == FINALE_OVER;
}

/* Whatever is there of the name is detached and deleted, by asking again and again. NULL: nothing
 * is. */
static struct request *empty_name(uint32_t name)
{
    const struct volume_name *v = &workload_names[name];
    if (!last || last->op != CLIENT_GET || last->name != name)
        return request_new(CLIENT_GET, name);
    if (last_code == LUNAR_E_NOT_FOUND)
        return NULL;
    if (last_code != 0 || strcmp(last_state, "ready") != 0)
        return request_new(CLIENT_GET, name);
    return request_new(uuid_is_zero(&v->attachment) ? CLIENT_DELETE : CLIENT_DETACH, name);
}

/* The same of a snapshot's name. */
static struct request *empty_snapshot(uint32_t name)
{
    bool looked = last && last->op == CLIENT_SNAPSHOTS && last->snapshot_name == name;
    if (!looked || last_code != 0)
        return of_snapshot(CLIENT_SNAPSHOTS, 0, name);
    return uuid_is_zero(&snapshot_names[name].id) ? NULL : of_snapshot(CLIENT_UNSNAP, 0, name);
}

static struct request *next_of_finale(void)
{
    bool ok = last && last_code == 0;
    struct request *r;
    char why[128];

    switch (step) {
    case FINALE_EMPTY:
        while (finale_name < FINALE_NAME) {
            if ((r = empty_name(finale_name)))
                return r;
            finale_name++;
        }
        step = FINALE_UNSNAP;
        finale_name = 0;
        return next_of_finale();
    case FINALE_UNSNAP:
        while (finale_name < SNAPSHOT_NAMES) {
            if ((r = empty_snapshot(finale_name)))
                return r;
            finale_name++;
        }
        step = FINALE_CREATE;
        return request_new(CLIENT_CREATE, FINALE_NAME);
    case FINALE_CREATE:
        if (!ok)
            return request_new(CLIENT_CREATE, FINALE_NAME);
        step = FINALE_ATTACH;
        return attach_new(FINALE_NAME);
    case FINALE_ATTACH:
        if (!ok)
            return attach_new(FINALE_NAME);
        step = FINALE_PING;
        return ping_new();
    case FINALE_PING:
        step = FINALE_LIST;
        return request_new(CLIENT_LIST, FINALE_NAME);
    case FINALE_LIST:
        step = FINALE_CLEAN;
        last = NULL;
        return empty_name(FINALE_NAME);
    case FINALE_CLEAN:
        if ((r = empty_name(FINALE_NAME)))
            return r;
        if (!ghost_metadata_is_settled(true, why, sizeof why)) {
            /* A request that was given up took effect meanwhile. */
            step = FINALE_EMPTY;
            finale_name = 0;
            return next_of_finale();
        }
        step = FINALE_OVER;
        return NULL;
    default:
        return NULL;
    }
}

struct request *request_finale(void)
{
    last = next_of_finale();
    return last;
}
