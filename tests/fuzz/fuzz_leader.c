/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A coordinator's leader against hostile nodes and clients: the input is a script of requests,
 * results, raw messages, node pages and sanlock states, with LVM, grants and honest nodes played by
 * support/leader_world.h, whose parts fail when the script says so, and with takeovers in between.
 * Messages are made by fuzz/pb_writer.h (or are the input's own bytes) and go the way of the
 * daemon: envelope_unpack, then leader_request or leader_result.
 *
 * What must hold beyond "no assert is reachable": everything that the leader sends, to clients and
 * to nodes, passes envelope_unpack on the other side; a node is sent an attach or a job only while
 * its grant stands on the LUN; after every step no volume stands in the grants of two nodes; no
 * request is answered twice; memory is given back.
 */
#define WORLD_QUEUE_MAX 128
#define WORLD_HELD_MAX  1024
#include "support/leader_world.h"

#include "fuzz/fuzz.h"
#include "fuzz/pb_writer.h"

/* The fake LVM keeps 320 LVs, and asserts that it does: the VG is full before. */
#define EXTENTS 60u

static struct feed *input;
static uint8_t wire[FRAME_MAX];

/* Which id a byte means: of a volume, an attachment, a command that is out, or somebody's. */
static struct uuid world_id(const char *field, uint8_t which)
{
    if (which >= 200)
        return fuzz_uuid(which); /* drawn already, or to be drawn some day */
    if (strcmp(field, "volume_id") == 0 || strcmp(field, "source_volume_id") == 0) {
        struct catalogue *c = fake_lvm_catalogue(&w.lvm);
        struct uuid id = c->n_volumes ? c->volumes[which % c->n_volumes].id : fuzz_uuid(which);
        catalogue_free(c);
        free(c);
        return id;
    }
    if (strstr(field, "snapshot_id")) {
        struct catalogue *c = fake_lvm_catalogue(&w.lvm);
        struct uuid id =
            c->n_snapshots ? c->snapshots[which % c->n_snapshots].id : fuzz_uuid(which);
        catalogue_free(c);
        free(c);
        return id;
    }
    if (strcmp(field, "attachment_id") == 0) {
        uint32_t n = 0;
        for (uint32_t h = 1; h <= MAX_NODES; h++)
            for (uint32_t i = 0; i < w.grants[h].n_entries; i++)
                if (n++ == which % 16u)
                    return w.grants[h].entries[i].attachment_id;
    }
    for (int i = 0, n = 0; i < w.n_queue; i++)
        if (w.queue[i].kind == P_COMMAND && n++ == which % 16)
            return uuid_from_pb(w.queue[i].envelope->command->id);
    return fuzz_uuid(1000u + which % 8u); /* few, so that requests are repeated */
}

static void deliver(const uint8_t *bytes, uint32_t len, uint32_t host)
{
    Lunar__Envelope *e;

    if (envelope_unpack(bytes, len, &e, NULL) < 0)
        return;
    if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST) {
        struct waiter from = {.host_id = host, .request_id = uuid_from_pb(e->request->id)};
        int before = w.n_answers;
        leader_request(w.leader, &from, e->request, w.now);
        MUST(w.n_answers <= before + 1, "one answer at most");
    } else if (e->body_case == LUNAR__ENVELOPE__BODY_RESULT) {
        leader_result(w.leader, host, e->result, w.now);
    }
    envelope_free(e);
}

static void message(const char *body)
{
    struct pb_writer pb = {.bytes = wire, .room = sizeof wire, .feed = input, .id = world_id};
    uint32_t host = feed_u8(input) % (MAX_NODES + 1);
    if (host == 0 && strcmp(body, "result") == 0)
        host = 1; /* results come from nodes alone */
    pb_write_body(&pb, &lunar__envelope__descriptor, body);
    deliver(wire, pb.len, host);
}

static void raw_message(void)
{
    uint32_t host = feed_u8(input) % MAX_NODES + 1;
    const uint8_t *bytes;
    size_t n = feed_bytes(input, feed_u8(input), &bytes);
    deliver(bytes, (uint32_t)n, host);
}

/* A page of a node: its name is any 255 bytes that end. */
static void node_page(void)
{
    uint8_t how = feed_u8(input);
    uint32_t host = how % MAX_NODES + 1;
    struct channel_stats s = {.peer = {host, 1 + (how >> 4 & 1), 1 + (how >> 5 & 1)},
                              .peer_flags = how >> 6 == 3 ? PAGE_FLAG_LEAVING : 0,
                              .last_heard_ms = w.now};
    if (how & 8) {
        const uint8_t *bytes;
        uint8_t len = feed_u8(input);
        size_t n = feed_bytes(input, len, &bytes);
        memset(s.peer_name, 'n', len);
        if (n > 0)
            memcpy(s.peer_name, bytes, n);
    } else {
        snprintf(s.peer_name, sizeof s.peer_name, "node%u", host);
    }
    w.generation[host] = s.peer.generation;
    leader_node(w.leader, host, &s, w.now);
}

static void host_state(void)
{
    static const enum host_state states[] = {HOST_STATE_LIVE, HOST_STATE_FAIL, HOST_STATE_DEAD,
                                             HOST_STATE_FREE, HOST_STATE_UNKNOWN};
    uint8_t how = feed_u8(input);
    struct host_status status = {.host_id = feed_u8(input) % (MAX_NODES + 3),
                                 .generation = 1 + (how >> 4 & 1),
                                 .state = states[(how & 15) % 5],
                                 .timestamp = how >> 5 & 1,
                                 .look = (how >> 6) % 3};
    leader_hosts(w.leader, &status, 1, (how & 15) < 13, w.now, w.now);
}

static void trouble(void)
{
    static const int codes[] = {0,
                                -5,
                                LUNAR_E_INDETERMINATE,
                                LUNAR_E_STALE,
                                LUNAR_E_NOT_JOINED,
                                LUNAR_E_BUSY,
                                LUNAR_E_IN_USE,
                                LUNAR_E_NO_SPACE};
    uint8_t how = feed_u8(input);
    int code = codes[how & 7];

    switch (how >> 4 & 3) {
    case 0:
        w.node_error = code;
        break;
    case 1:
        w.grants_fail = code;
        break;
    case 2:
        w.lvm.fail_with = code;
        w.lvm.fail_after = (how & 8) != 0;
        break;
    default:
        w.nodes_silent = how & 1;
        w.send_fail = how & 2 ? LUNAR_E_FULL : 0;
    }
}

static void pass_time(void)
{
    w.now += feed_u16(input) * 4u;
    for (uint32_t h = 1; h <= 3; h++)
        leader_heard(w.leader, h, w.now);
    leader_tick(w.leader, w.now);
}

/* A job on a volume that another node has attached is on its next layer. */
static void check_pair(const struct table_entry *e, const struct table *others)
{
    for (uint32_t i = 0; i < others->n_entries; i++)
        MUST(others->entries[i].mode != e->mode ||
                 !uuid_equal(&others->entries[i].volume_id, &e->volume_id),
             "no volume is granted to two nodes");
}

static void check_grants(void)
{
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        for (uint32_t i = 0; i < w.grants[h].n_entries; i++)
            for (uint32_t k = h + 1; k <= MAX_NODES; k++)
                check_pair(&w.grants[h].entries[i], &w.grants[k]);
}

static void plain_snapshot_request(const struct waiter *from, uint8_t how,
                                   const struct uuid *volume, const struct uuid *snapshot)
{
    switch (how & 7) {
    case 0:
        ask_unsnap(from, snapshot);
        break;
    case 1:
        ask_rollback(from, volume, snapshot);
        break;
    case 2:
        ask_clone(from, how & 8 ? "clone" : "copy", 0, snapshot, NULL);
        break;
    case 3:
        ask_clone(from, how & 8 ? "clone" : "copy", 0, NULL, volume);
        break;
    default:
        ask_snapshot(from, volume, how & 8 ? "s" : how & 16 ? "t" : "u");
    }
}

/* Sound requests for the volumes that there are, so that scripts get far. */
static void plain_request(uint8_t what)
{
    const struct waiter from = {.host_id = 2, .request_id = fuzz_uuid(what)};
    struct uuid volume = world_id("volume_id", what >> 4);
    uint8_t how = feed_u8(input);

    struct uuid snapshot = world_id("snapshot_id", what >> 4);
    if (how >= 128) {
        plain_snapshot_request(&from, how, &volume, &snapshot);
        return;
    }
    switch (how & 7) {
    case 0:
        ask_delete(&from, &volume);
        break;
    case 1:
    case 2:
        ask_detach(&from, &volume);
        break;
    case 3:
        ask_create(&from, how & 8 ? "disk" : "vol", 1u << 20, (how & 16) != 0);
        break;
    default:
        ask_attach(&from, &volume, how & 8 ? "node1" : how & 16 ? "node2" : "node3");
    }
}

static void one(uint8_t what)
{
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        message("request");
        break;
    case 3:
        message("result");
        break;
    case 4:
        raw_message();
        break;
    case 5:
    case 6:
        settle();
        break;
    case 7:
    case 8:
        outside_step();
        break;
    case 9:
        node_page();
        break;
    case 10:
        host_state();
        break;
    case 11:
        trouble();
        break;
    case 12:
    case 13:
        pass_time();
        break;
    case 14:
        if (what >> 4 == 0)
            elect();
        break;
    default:
        plain_request(what);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = {data, size};
    input = &f;
    fuzz_uuid_reset();
    world_reset();
    w.hostile = true;
    w.lvm.vg_size = EXTENTS * FAKE_EXTENT;
    elect(); /* with the VG's size */
    while (f.left > 0) {
        one(feed_u8(&f));
        check_grants();
        if (w.n_queue > WORLD_QUEUE_MAX / 4)
            settle();
    }
    settle();
    check_grants();
    return 0;
}
