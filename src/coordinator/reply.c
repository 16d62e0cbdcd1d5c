/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leader's protobuf: answers to clients and commands to nodes. Everything is built on the stack
 * or in one array, packed and sent; an answer that outgrows a message is answered by the error
 * TOO_BIG instead.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"
#include "coordinator/pv_list.h"

/* A listing's page: 200 volumes of the longest names stay below a spill slot. */
#define LIST_LIMIT      200u
#define ATTACHMENTS_MAX 4u /* of one volume: one today, two while a migration is under way */

static char *text(const char *s)
{
    return (char *)(uintptr_t)s; /* protobuf-c's structs lack the const; packing does not write */
}

void reply_send(struct leader *l, const struct waiter *w, Lunar__Response *response)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    struct error err = ERROR_INIT;
    uint8_t *bytes;
    uint32_t len;

    response->id = uuid_to_pb(&w->request_id);
    response->term = l->self.run_or_term;
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = response;
    bool packed = envelope_pack(&e, &bytes, &len, &err) == 0;
    if (!packed || len > MESSAGE_MAX) {
        log_error("response_too_big bound=%u", MESSAGE_MAX);
        if (packed)
            free(bytes);
        reply_error(l, w, LUNAR_E_TOO_BIG, "the answer does not fit into a message");
        return;
    }
    l->io->respond(l->data, w, bytes, len);
    free(bytes);
}

void reply_error(struct leader *l, const struct waiter *w, int code, const char *words)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    error.code = code;
    error.text = text(words);
    response.error = &error;
    reply_send(l, w, &response);
}

void reply_plain(struct leader *l, const struct waiter *w)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    reply_send(l, w, &response);
}

void reply_ping(struct leader *l, const struct waiter *w, const Lunar__Ping *ping)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Ping back = LUNAR__PING__INIT;
    back.payload = ping->payload;
    response.op_case = LUNAR__RESPONSE__OP_PING;
    response.ping = &back;
    reply_send(l, w, &response);
}

static const char *volume_state(const struct catalogue_volume *v)
{
    return catalogue_volume_is_deleting(v) ? "deleting"
           : catalogue_volume_is_new(v)    ? "creating"
           : v->importing                  ? "importing"
           : v->expands_to                 ? "expanding"
                                           : "ready";
}

/* Everything that one Volume message points to. */
struct volume_message {
    Lunar__Volume m;
    Lunar__Attachment attachments[ATTACHMENTS_MAX];
    Lunar__Attachment *list[ATTACHMENTS_MAX];
    char condition[256];
};

static void add_attachment(struct leader *l, uint32_t host, const struct table_entry *e,
                           struct volume_message *out)
{
    Lunar__Attachment *a = &out->attachments[out->m.n_attachments];

    lunar__attachment__init(a);
    a->attachment_id = uuid_to_pb(&e->attachment_id);
    a->host_id = host;
    a->node = text(node_name(l, host));
    a->state = text(e->mode == TABLE_MODE_JOB ? "job" : "granted");
    out->list[out->m.n_attachments++] = a;
}

/* A job on the next layer stands beside the attachment, perhaps on the same node. */
static void add_attachments(struct leader *l, const struct catalogue_volume *v,
                            struct volume_message *out)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++)
            if (uuid_equal(&n->grants.entries[i].volume_id, &v->id) &&
                out->m.n_attachments < ATTACHMENTS_MAX)
                add_attachment(l, h, &n->grants.entries[i], out);
    }
    out->m.attachments = out->list;
}

static void fill_volume(struct leader *l, const struct catalogue_volume *v,
                        struct volume_message *out)
{
    lunar__volume__init(&out->m);
    out->m.volume_id = uuid_to_pb(&v->id);
    out->m.name = text(v->name);
    out->m.size = v->size;
    out->m.allocated = catalogue_volume_allocated(v);
    out->m.thick = v->thick;
    out->m.state = text(volume_state(v));
    out->m.layers = v->n_layers;
    grow_condition(l, &v->id, out->condition, sizeof out->condition);
    out->m.condition = out->condition;
    if (!v->source_is_volume && !uuid_is_zero(&v->source_id))
        out->m.source_snapshot_id = uuid_to_pb(&v->source_id);
    add_attachments(l, v, out);
}

void reply_volume(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                  const char *device)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    struct volume_message volume;
    fill_volume(l, v, &volume);
    volume.m.device = text(device);
    response.op_case = LUNAR__RESPONSE__OP_VOLUME;
    response.volume = &volume.m;
    reply_send(l, w, &response);
}

void reply_volumes(struct leader *l, const struct waiter *w, const Lunar__VolumeList *m)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Volumes volumes = LUNAR__VOLUMES__INIT;
    uint32_t limit = m->limit && m->limit < LIST_LIMIT ? m->limit : LIST_LIMIT;
    struct volume_message *messages = calloc(limit, sizeof *messages);
    Lunar__Volume **list = calloc(limit, sizeof *list);

    if (!messages || !list)
        abort();
    for (uint32_t i = 0; i < l->catalogue->n_volumes; i++) {
        const struct catalogue_volume *v = &l->catalogue->volumes[i];
        if (m->after[0] && strcmp(v->name, m->after) <= 0)
            continue;
        if (volumes.n_volumes == limit) {
            volumes.more = true;
            break;
        }
        fill_volume(l, v, &messages[volumes.n_volumes]);
        list[volumes.n_volumes] = &messages[volumes.n_volumes].m;
        volumes.n_volumes++;
    }
    volumes.volumes = list;
    response.op_case = LUNAR__RESPONSE__OP_VOLUMES;
    response.volumes = &volumes;
    reply_send(l, w, &response);
    free(list);
    free(messages);
}

/* The life that its page names. */
static const char *node_state(const struct leader *l, uint32_t host_id)
{
    const struct node *n = &l->nodes[host_id];
    bool of_this_life = n->sanlock_generation <= n->self.generation;

    if (n->leaving)
        return "LEFT";
    if (of_this_life && n->sanlock_state != HOST_STATE_FREE &&
        life_is_over(l, host_id, n->self.generation))
        return "DEAD"; /* latched, whatever sanlock says of it now */
    if (n->sanlock_state == HOST_STATE_LIVE && l->now_ms > n->last_heard_ms + NODE_SILENT_MS)
        return "SILENT";
    return host_state_name(n->sanlock_state);
}

static uint64_t ms_since(const struct leader *l, uint64_t then_ms)
{
    return then_ms && l->now_ms > then_ms ? l->now_ms - then_ms : 0;
}

static void fill_renewal(const struct leader *l, const struct node *n, Lunar__Node *m)
{
    uint64_t dead_ms = (uint64_t)l->times.dead_s * 1000;

    m->over_generation = n->over.generation;
    m->renewed_ms = ms_since(l, n->renewed_ms);
    bool over = strcmp(m->state, "DEAD") == 0 || strcmp(m->state, "FREE") == 0 || n->leaving;
    m->dead_in_ms = over || m->renewed_ms >= dead_ms ? 0 : dead_ms - m->renewed_ms;
}

void reply_nodes(struct leader *l, const struct waiter *w)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Nodes nodes = LUNAR__NODES__INIT;
    uint32_t max = l->sb->layout.max_nodes;
    Lunar__Node *messages = calloc(max, sizeof *messages);
    Lunar__Node **list = calloc(max, sizeof *list);

    if (!messages || !list)
        abort();
    for (uint32_t h = 1; h <= max; h++) {
        const struct node *n = &l->nodes[h];
        if (!n->seen)
            continue;
        Lunar__Node *m = &messages[nodes.n_nodes];
        lunar__node__init(m);
        m->host_id = h;
        m->name = text(n->name);
        m->generation = n->self.generation;
        m->run = n->self.run_or_term;
        m->state = text(node_state(l, h));
        m->last_heard_ms = l->now_ms > n->last_heard_ms ? l->now_ms - n->last_heard_ms : 0;
        m->attachments = n->has_grants ? n->grants.n_entries : 0;
        fill_renewal(l, n, m);
        list[nodes.n_nodes++] = m;
    }
    nodes.nodes = list;
    response.op_case = LUNAR__RESPONSE__OP_NODES;
    response.nodes = &nodes;
    reply_send(l, w, &response);
    free(list);
    free(messages);
}

/* Nothing is left on them for longer than a write takes, unless the LUN refuses it, or sanlock's
 * verdict is not believed yet. */
static void count_dead(const struct leader *l, char *condition, size_t size)
{
    uint32_t nodes = 0, grants = 0;

    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        const struct node *n = &l->nodes[h];
        bool dead = n->sanlock_state == HOST_STATE_DEAD || !over_is_settled(l, h);
        if (!dead || !n->has_grants || n->grants.n_entries == 0)
            continue;
        nodes++;
        grants += n->grants.n_entries;
    }
    if (nodes > 0)
        snprintf(condition, size,
                 "%u dead node%s still hold%s %u volume%s, which are being taken (lunarctl node "
                 "list)",
                 nodes, nodes == 1 ? "" : "s", nodes == 1 ? "s" : "", grants,
                 grants == 1 ? "" : "s");
}

static void prepend(char *text, size_t size, const char *before)
{
    char rest[512];
    snprintf(rest, sizeof rest, "%s", text);
    snprintf(text, size, "%s%s%s", before, rest[0] ? "; " : "", rest);
}

/* What is to be looked into, but for space: the worst of it. */
static void add_conditions(struct leader *l, char *condition, size_t size)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes && !condition[0]; h++)
        if (l->nodes[h].seen && strcmp(node_state(l, h), "SILENT") == 0)
            snprintf(condition, size, "node '%.200s' is silent: is its lunar-agent running?",
                     node_name(l, h));
    pv_watch_condition(l, condition, size);
    count_dead(l, condition, size);
    if (l->catalogue->n_foreign > 0)
        snprintf(condition, size, "the VG holds LVs that are not lunar's; they are left alone");
}

void reply_inspection(struct leader *l, const struct waiter *w, Lunar__Inspection *inspection)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    response.op_case = LUNAR__RESPONSE__OP_INSPECTION;
    response.inspection = inspection;
    reply_send(l, w, &response);
}

void reply_status(struct leader *l, const struct waiter *w)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Status s = LUNAR__STATUS__INIT;

    s.pool = text(l->sb->pool_name);
    s.pool_id = uuid_to_pb(&l->sb->pool_id);
    s.term = l->self.run_or_term;
    s.coordinator_host_id = l->self.host_id;
    s.coordinator_node = text(node_name(l, l->self.host_id));
    s.vg_size = l->catalogue->vg_size;
    s.vg_free = l->catalogue->vg_free;
    s.vg_seqno = l->catalogue->seqno;
    s.volumes = l->catalogue->n_volumes;
    s.provisioned = pool_provisioned(l);
    s.overcommit_limit = l->catalogue->settings.overcommit_percent;
    s.warn_percent = l->catalogue->settings.warn_percent;
    s.snapshots = l->catalogue->n_snapshots;
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        s.nodes += l->nodes[h].seen && !l->nodes[h].leaving;
        s.attachments += l->nodes[h].has_grants ? l->nodes[h].grants.n_entries : 0;
    }
    char condition[1100] = "", space[512];
    add_conditions(l, condition, sizeof condition);
    pool_space_text(l, space, sizeof space);
    if (space[0]) /* above all: writers wait, or will */
        prepend(condition, sizeof condition, space);
    s.condition = condition;
    s.space = space;
    struct growth_wait wait;
    grow_waiting(l, &wait);
    s.waiting = wait.n;
    struct pv_list pvs = {.n = 0};
    pv_list_all(l->catalogue, &pvs);
    s.pvs = pvs.list;
    s.n_pvs = pvs.n;
    response.op_case = LUNAR__RESPONSE__OP_STATUS;
    response.status = &s;
    reply_send(l, w, &response);
}

/* --- commands --- */

/* A layer's message with its segments in one allocation behind it. */
static Lunar__Layer *layer_message(const struct catalogue_layer *layer)
{
    size_t n = layer->n_segments;
    Lunar__Layer *m =
        calloc(1, sizeof *m + n * (sizeof(Lunar__Segment) + sizeof(Lunar__Segment *)));
    if (!m)
        abort();
    Lunar__Segment **list = (Lunar__Segment **)(void *)(m + 1);
    Lunar__Segment *segments = (Lunar__Segment *)(void *)(list + n);
    lunar__layer__init(m);
    m->volume_short = layer->volume_short;
    m->index = layer->index;
    m->map_generation = layer->map_generation;
    for (size_t i = 0; i < n; i++) {
        lunar__segment__init(&segments[i]);
        segments[i].start = layer->segments[i].lun_offset;
        segments[i].length = layer->segments[i].length;
        segments[i].pv = layer->segments[i].pv;
        list[i] = &segments[i];
    }
    m->n_segments = n;
    m->segments = list;
    return m;
}

static int send_to_node(struct leader *l, uint32_t host_id, const struct uuid *id,
                        Lunar__Command *command)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    struct error err = ERROR_INIT;
    uint8_t *bytes;
    uint32_t len;

    command->id = uuid_to_pb(id);
    e.body_case = LUNAR__ENVELOPE__BODY_COMMAND;
    e.command = command;
    int rc = envelope_pack(&e, &bytes, &len, &err);
    if (rc < 0)
        return rc;
    rc = l->io->send(l->data, host_id, bytes, len);
    free(bytes);
    return rc;
}

static int send_command(struct leader *l, const struct op *op, Lunar__Command *command)
{
    return send_to_node(l, op->host_id, &op->command_id, command);
}

int command_inspect(struct leader *l, uint32_t host_id, const struct uuid *command_id)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Inspect m = LUNAR__INSPECT__INIT;

    command.op_case = LUNAR__COMMAND__OP_INSPECT;
    command.inspect = &m;
    return send_to_node(l, host_id, command_id, &command);
}

void reply_grown(struct leader *l, const struct waiter *w, const struct catalogue_layer *layer)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__GrownLayer m = LUNAR__GROWN_LAYER__INIT;
    struct pv_list pvs = {.n = 0};

    m.layer = layer_message(layer);
    m.layer->max_size = CATALOGUE_THIN_MAP_SIZE;
    pv_list_add(l->catalogue, layer, &pvs);
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    response.op_case = LUNAR__RESPONSE__OP_GROWN_LAYER;
    response.grown_layer = &m;
    reply_send(l, w, &response);
    free(m.layer);
}

int command_probe(struct leader *l, uint32_t host_id, const struct uuid *command_id,
                  const struct lvm_pv *pv)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__ProbePv m = LUNAR__PROBE_PV__INIT;
    Lunar__Pv one = LUNAR__PV__INIT, *list = &one;

    pv_message(pv, &one);
    one.size = pv->device_size;
    m.pvs = &list;
    m.n_pvs = 1;
    command.op_case = LUNAR__COMMAND__OP_PROBE_PV;
    command.probe_pv = &m;
    return send_to_node(l, host_id, command_id, &command);
}

int command_probe_added(struct leader *l, uint32_t host_id, const struct uuid *command_id)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__ProbePv m = LUNAR__PROBE_PV__INIT;
    struct pv_list pvs = {.n = 0};

    pv_list_all(l->catalogue, &pvs);
    for (size_t i = 0; i < pvs.n; i++)
        pvs.pvs[i].size += l->catalogue->pvs[i].pe_start; /* what is in use of the device */
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    command.op_case = LUNAR__COMMAND__OP_PROBE_PV;
    command.probe_pv = &m;
    return send_to_node(l, host_id, command_id, &command);
}

/* The whole chain, leaf first; frees with free_chain. */
static size_t chain_message(const struct leader *l, const struct catalogue_volume *v,
                            Lunar__Layer *layers[CATALOGUE_LAYERS_MAX], struct pv_list *pvs)
{
    for (uint32_t i = 0; i < v->n_layers; i++) {
        layers[i] = layer_message(&v->layers[i]);
        pv_list_add(l->catalogue, &v->layers[i], pvs);
    }
    if (!v->thick)
        layers[0]->max_size = CATALOGUE_THIN_MAP_SIZE; /* the leaf's: behind it, writers wait */
    return v->n_layers;
}

static void free_chain(Lunar__Layer **layers, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(layers[i]);
}

/* The layers that the op's grant names, but those that a relink drops. 0: one of them is gone.
 * Frees with free_chain. */
static size_t granted_message(const struct leader *l, const struct op *op,
                              Lunar__Layer *layers[CATALOGUE_LAYERS_MAX], struct pv_list *pvs)
{
    const struct table_entry *e = table_find_attachment(
        (struct table *)(uintptr_t)&l->nodes[op->host_id].grants, &op->attachment_id);
    size_t n = 0;

    for (uint32_t i = 0; e && i < e->n_layers; i++) {
        if (relink_drops(op, &e->layers[i]))
            continue;
        const struct catalogue_layer *layer =
            catalogue_layer_by_id(l->catalogue, e->layers[i].volume_short, e->layers[i].index);
        if (!layer) {
            free_chain(layers, n);
            return 0;
        }
        layers[n++] = layer_message(layer);
        pv_list_add(l->catalogue, layer, pvs);
    }
    return n;
}

static int send_attach(struct leader *l, const struct op *op, const struct catalogue_volume *v)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Attach m = LUNAR__ATTACH__INIT;
    Lunar__Layer *layers[CATALOGUE_LAYERS_MAX];
    struct pv_list pvs = {.n = 0};

    m.volume_id = uuid_to_pb(&v->id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    m.name = text(v->name);
    m.size = v->size;
    m.thick = v->thick;
    m.n_layers = chain_message(l, v, layers, &pvs);
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    m.layers = layers;
    command.op_case = LUNAR__COMMAND__OP_ATTACH;
    command.attach = &m;
    int rc = send_command(l, op, &command);
    free_chain(layers, m.n_layers);
    return rc;
}

static int send_overlay(struct leader *l, const struct op *op, const struct catalogue_volume *v)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Overlay m = LUNAR__OVERLAY__INIT;
    Lunar__Layer *layers[CATALOGUE_LAYERS_MAX];
    struct pv_list pvs = {.n = 0};

    m.volume_id = uuid_to_pb(&v->id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    m.n_layers = chain_message(l, v, layers, &pvs);
    m.layers = layers;
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    if (op->group && !group_has_failed(op->group))
        m.hold = uuid_to_pb(&op->hold_id);
    command.op_case = LUNAR__COMMAND__OP_OVERLAY;
    command.overlay = &m;
    int rc = send_command(l, op, &command);
    free_chain(layers, m.n_layers);
    return rc;
}

static int send_suspend(struct leader *l, const struct op *op)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Suspend m = LUNAR__SUSPEND__INIT;

    m.volume_id = uuid_to_pb(&op->volume_id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    m.deadline_ms = LEADER_HOLD_MS;
    m.freeze = group_freezes(op->group);
    command.op_case = LUNAR__COMMAND__OP_SUSPEND;
    command.suspend = &m;
    return send_command(l, op, &command);
}

int command_resume(struct leader *l, const struct op *op)
{
    struct uuid id = uuid_random();
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Resume m = LUNAR__RESUME__INIT;

    m.volume_id = uuid_to_pb(&op->volume_id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    command.op_case = LUNAR__COMMAND__OP_RESUME;
    command.resume = &m;
    return send_to_node(l, op->host_id, &id, &command);
}

static int send_relink(struct leader *l, const struct op *op)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Relink m = LUNAR__RELINK__INIT;
    Lunar__Layer *layers[CATALOGUE_LAYERS_MAX];
    struct pv_list pvs = {.n = 0};

    m.volume_id = uuid_to_pb(&op->volume_id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    m.n_layers = granted_message(l, op, layers, &pvs);
    if (m.n_layers > 0)
        layers[0]->max_size = CATALOGUE_THIN_MAP_SIZE; /* the leaf's */
    m.layers = layers;
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    command.op_case = LUNAR__COMMAND__OP_RELINK;
    command.relink = &m;
    int rc = m.n_layers > 0 ? send_command(l, op, &command) : LUNAR_E_NOT_FOUND;
    free_chain(layers, m.n_layers);
    return rc;
}

static int send_resize(struct leader *l, const struct op *op, const struct catalogue_volume *v)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Resize m = LUNAR__RESIZE__INIT;
    Lunar__Layer *layers[CATALOGUE_LAYERS_MAX];
    struct pv_list pvs = {.n = 0};

    m.volume_id = uuid_to_pb(&v->id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    m.size = v->size;
    m.n_layers = chain_message(l, v, layers, &pvs);
    m.layers = layers;
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    command.op_case = LUNAR__COMMAND__OP_RESIZE;
    command.resize = &m;
    int rc = send_command(l, op, &command);
    free_chain(layers, m.n_layers);
    return rc;
}

static int send_format(struct leader *l, const struct op *op, const struct catalogue_volume *v,
                       const struct catalogue_layer *layer)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__FormatJob m = LUNAR__FORMAT_JOB__INIT;
    struct pv_list pvs = {.n = 0};

    m.volume_id = uuid_to_pb(&v->id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    m.size = v->size;
    m.thick = v->thick;
    m.name = text(v->name);
    m.layer = layer_message(layer);
    pv_list_add(l->catalogue, layer, &pvs);
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    command.op_case = LUNAR__COMMAND__OP_FORMAT_JOB;
    command.format_job = &m;
    int rc = send_command(l, op, &command);
    free(m.layer);
    return rc;
}

static int send_zero(struct leader *l, const struct op *op, const struct catalogue_volume *v,
                     const struct catalogue_layer *layer)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__ZeroJob m = LUNAR__ZERO_JOB__INIT;
    struct pv_list pvs = {.n = 0};

    m.volume_id = uuid_to_pb(&v->id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    m.from = v->size; /* whatever the operation is at: all below is the volume's data */
    m.name = text(v->name);
    m.layer = layer_message(layer);
    pv_list_add(l->catalogue, layer, &pvs);
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    command.op_case = LUNAR__COMMAND__OP_ZERO_JOB;
    command.zero_job = &m;
    int rc = send_command(l, op, &command);
    free(m.layer);
    return rc;
}

static int send_detach(struct leader *l, const struct op *op)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Detach m = LUNAR__DETACH__INIT;

    m.volume_id = uuid_to_pb(&op->volume_id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    command.op_case = LUNAR__COMMAND__OP_DETACH;
    command.detach = &m;
    return send_command(l, op, &command);
}

static int send_merge(struct leader *l, const struct op *op)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Merge m = LUNAR__MERGE__INIT;
    Lunar__Layer *layers[CATALOGUE_LAYERS_MAX];
    struct pv_list pvs = {.n = 0};

    m.volume_id = uuid_to_pb(&op->volume_id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    m.n_layers = granted_message(l, op, layers, &pvs);
    m.layers = layers;
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    m.speed = l->merge_speed;
    command.op_case = LUNAR__COMMAND__OP_MERGE;
    command.merge = &m;
    int rc = m.n_layers >= 2 ? send_command(l, op, &command) : LUNAR_E_NOT_FOUND;
    free_chain(layers, m.n_layers);
    return rc;
}

static int send_measure(struct leader *l, const struct op *op)
{
    Lunar__Command command = LUNAR__COMMAND__INIT;
    Lunar__Measure m = LUNAR__MEASURE__INIT;
    Lunar__Layer *layers[CATALOGUE_LAYERS_MAX];
    struct pv_list pvs = {.n = 0};

    m.volume_id = uuid_to_pb(&op->volume_id);
    m.attachment_id = uuid_to_pb(&op->attachment_id);
    size_t n = granted_message(l, op, layers, &pvs);
    m.layer = n == 1 ? layers[0] : NULL;
    m.pvs = pvs.list;
    m.n_pvs = pvs.n;
    command.op_case = LUNAR__COMMAND__OP_MEASURE;
    command.measure = &m;
    int rc = m.layer ? send_command(l, op, &command) : LUNAR_E_NOT_FOUND;
    free_chain(layers, n);
    return rc;
}

int command_send(struct leader *l, const struct op *op, const struct catalogue_volume *v)
{
    if (op->kind == OP_DETACH)
        return send_detach(l, op);
    if (op->kind == OP_TRIM)
        return send_measure(l, op);
    if (op->kind == OP_MERGE)
        return send_merge(l, op);
    if (op->kind == OP_RELINK)
        return send_relink(l, op);
    if (!v)
        return LUNAR_E_NOT_FOUND; /* it vanished from the catalogue: nothing to be done on a node */
    if (op->state == OP_STATE_SUSPEND)
        return send_suspend(l, op);
    if (op->state == OP_STATE_OVERLAY)
        return send_overlay(l, op, v);
    if (op->state == OP_STATE_RESIZE)
        return send_resize(l, op, v);
    if (op->kind == OP_ATTACH)
        return send_attach(l, op, v);
    const struct catalogue_layer *layer = job_layer(l, op);
    if (!layer)
        return LUNAR_E_NOT_FOUND;
    return op->kind == OP_EXPAND ? send_zero(l, op, v, layer) : send_format(l, op, v, layer);
}
