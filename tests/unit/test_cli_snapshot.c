/* SPDX-License-Identifier: Apache-2.0 */
/* lunarctl snapshot, volume rollback, clones and volume tree, against a fake agent (see
 * test_cli_client.c). */
#include "support/test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../tools/lunarctl/client.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/request.c"
#include "../../tools/lunarctl/snapshot.c"
#include "../../tools/lunarctl/tree.c"
#include "../../tools/lunarctl/volume.c"

#include "support/fake_agent.h"

static const struct uuid volume_id = {{0xaa, 1}}, snapshot_id = {{0xcc, 3}};

static void answer_volume(int fd, const Lunar__Envelope *e)
{
    Lunar__Volume v = LUNAR__VOLUME__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    v.volume_id = uuid_to_pb(&volume_id);
    v.name = (char *)(uintptr_t) "disk";
    r.op_case = LUNAR__RESPONSE__OP_VOLUME;
    r.volume = &v;
    respond(fd, e->request->id, &r);
}

static void fill(Lunar__Snapshot *s, const char *name)
{
    lunar__snapshot__init(s);
    s->snapshot_id = uuid_to_pb(&snapshot_id);
    s->name = (char *)(uintptr_t)name;
    s->volume = (char *)(uintptr_t) "disk";
    s->state = (char *)(uintptr_t) "ready";
    s->created_s = 1700000000;
}

/* One snapshot, "before", and no other. */
static void answer_list(int fd, const Lunar__Envelope *e)
{
    const Lunar__SnapshotList *asked = e->request->snapshot_list;
    Lunar__Snapshot s, *list[] = {&s};
    Lunar__Snapshots snapshots = LUNAR__SNAPSHOTS__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    fill(&s, "before");
    snapshots.n_snapshots = !asked->name[0] || strcmp(asked->name, "before") == 0;
    snapshots.snapshots = list;
    r.op_case = LUNAR__RESPONSE__OP_SNAPSHOTS;
    r.snapshots = &snapshots;
    respond(fd, e->request->id, &r);
}

static void answer_group(int fd, const Lunar__Envelope *e)
{
    const Lunar__SnapshotGroup *asked = e->request->snapshot_group;
    Lunar__Snapshot s[2], *list[] = {&s[0], &s[1]};
    Lunar__Snapshots snapshots = LUNAR__SNAPSHOTS__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    for (size_t i = 0; i < 2 && i < asked->n_members; i++)
        fill(&s[i], asked->members[i]->name);
    snapshots.n_snapshots = asked->n_members;
    snapshots.snapshots = list;
    r.op_case = LUNAR__RESPONSE__OP_SNAPSHOTS;
    r.snapshots = &snapshots;
    respond(fd, e->request->id, &r);
}

static bool answer(struct agent *a, int fd, const Lunar__Envelope *e)
{
    Lunar__Snapshot s;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    switch (e->request->op_case) {
    case LUNAR__REQUEST__OP_SNAPSHOT_LIST:
        answer_list(fd, e);
        return true;
    case LUNAR__REQUEST__OP_SNAPSHOT_CREATE:
        fill(&s, e->request->snapshot_create->name);
        r.op_case = LUNAR__RESPONSE__OP_SNAPSHOT;
        r.snapshot = &s;
        respond(fd, e->request->id, &r);
        return true;
    case LUNAR__REQUEST__OP_SNAPSHOT_GROUP:
        answer_group(fd, e);
        return true;
    case LUNAR__REQUEST__OP_SNAPSHOT_DELETE:
        respond(fd, e->request->id, &r);
        return true;
    default:
        answer_volume(fd, e);
        return true;
    }
}

/* Pages of one: "a", then "b" for ever, as one that does not move on would. */
static bool answer_pages(struct agent *a, int fd, const Lunar__Envelope *e)
{
    Lunar__Snapshot s, *list[] = {&s};
    Lunar__Snapshots snapshots = LUNAR__SNAPSHOTS__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    fill(&s, e->request->snapshot_list->after[0] ? "b" : "a");
    snapshots.n_snapshots = 1;
    snapshots.snapshots = list;
    snapshots.more = true;
    r.op_case = LUNAR__RESPONSE__OP_SNAPSHOTS;
    r.snapshots = &snapshots;
    respond(fd, e->request->id, &r);
    return true;
}

/* A snapshot with two leaves on it, one of them attached; and beside it garbage, and what is merged
 * into that. */
static bool answer_tree(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static const char *const text[][6] = {
        /* lv_name, parent, role, volume, snapshot, state */
        {"v1.0", "", "snapshot", "", "be\"fore", ""},  {"v1.1", "v1.0", "leaf", "disk", "", ""},
        {"v2.0", "v1.0", "leaf", "clone", "", "new"},  {"v3.0", "", "frozen", "", "", "deleting"},
        {"v3.1", "v3.0", "frozen", "", "", "merging"},
    };
    Lunar__TreeLayer layers[5], *list[5];
    Lunar__Attachment attachment = LUNAR__ATTACHMENT__INIT, *attachments[] = {&attachment};
    Lunar__Tree tree = LUNAR__TREE__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    for (int i = 0; i < 5; i++) {
        char *const *t = (char *const *)(uintptr_t)text[i];
        list[i] = &layers[i];
        lunar__tree_layer__init(list[i]);
        layers[i].lv_name = t[0], layers[i].parent = t[1], layers[i].role = t[2];
        layers[i].volume = t[3], layers[i].snapshot = t[4], layers[i].state = t[5];
        layers[i].allocated = 128ull << 20;
    }
    layers[4].done = 43ull << 20, layers[4].total = 99ull << 20;
    attachment.node = (char *)(uintptr_t) "node-b";
    layers[1].attachments = attachments;
    layers[1].n_attachments = 1;
    tree.n_layers = 5;
    tree.layers = list;
    r.op_case = LUNAR__RESPONSE__OP_TREE;
    r.tree = &tree;
    respond(fd, e->request->id, &r);
    return true;
}

/* Runs a command; its last request stays in `a`. */
#define RAN(handler, command, ...)                                                                 \
    (agent_start(&a, handler), rc = RUN(&a, "5", command, __VA_ARGS__), agent_stop(&a), rc)

static void create_names_the_volume_by_its_id(void)
{
    struct agent a;
    int rc;
    CHECK_EQ(RAN(answer, cmd_snapshot_create, "disk", "before"), CLI_OK);
    struct uuid id = uuid_from_pb(a.last->request->snapshot_create->volume_id);
    CHECK(uuid_equal(&id, &volume_id));
    CHECK_STR(a.last->request->snapshot_create->name, "before");
    CHECK(strncmp(out, "cc03", 4) == 0);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_snapshot_create, "disk", ""), CLI_USAGE);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_snapshot_create, "disk"), CLI_USAGE);
    agent_free(&a);
}

static void several_are_one_request(void)
{
    struct agent a;
    int rc;
    CHECK_EQ(RAN(answer, cmd_snapshot_create, "disk", "s", "data", "t"), CLI_OK);
    const Lunar__SnapshotGroup *m = a.last->request->snapshot_group;
    CHECK_EQ(m->n_members, 2);
    CHECK_STR(m->members[1]->name, "t");
    CHECK(!m->freeze);
    struct uuid id = uuid_from_pb(m->members[1]->volume_id);
    CHECK(uuid_equal(&id, &volume_id));
    char *newline = strchr(out, '\n');
    CHECK(newline && strncmp(newline + 1, "cc03", 4) == 0); /* an id a line */
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_snapshot_create, "--freeze", "disk", "s"), CLI_OK);
    CHECK_EQ(a.last->request->snapshot_group->n_members, 1);
    CHECK(a.last->request->snapshot_group->freeze);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_snapshot_create, "disk", "s", "data"), CLI_USAGE);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_snapshot_create, "disk", "s", "data", ""), CLI_USAGE);
    agent_free(&a);
}

static void safety_6_what_changes_something_travels_by_id(void)
{
    struct agent a;
    int rc;
    CHECK_EQ(RAN(answer, cmd_snapshot_delete, "before"), CLI_OK);
    struct uuid id = uuid_from_pb(a.last->request->snapshot_delete->snapshot_id);
    CHECK(uuid_equal(&id, &snapshot_id));
    CHECK_STR(out, "deleted before\n");
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_snapshot_delete, "nothing"), CLI_REFUSED);
    CHECK_EQ(a.last->request->op_case, LUNAR__REQUEST__OP_SNAPSHOT_LIST);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_volume_rollback, "disk", "before"), CLI_OK);
    id = uuid_from_pb(a.last->request->volume_rollback->snapshot_id);
    CHECK(uuid_equal(&id, &snapshot_id));
    id = uuid_from_pb(a.last->request->volume_rollback->volume_id);
    CHECK(uuid_equal(&id, &volume_id));
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_volume_expand, "disk", "20GiB"), CLI_OK);
    id = uuid_from_pb(a.last->request->volume_expand->volume_id);
    CHECK(uuid_equal(&id, &volume_id));
    CHECK_EQ(a.last->request->volume_expand->size, 20ull << 30);
    agent_free(&a);
}

static void a_size_that_no_volume_has_is_refused_at_once(void)
{
    struct agent a;
    int rc;
    CHECK_EQ(RAN(answer, cmd_volume_expand, "disk", "+20GiB"), CLI_USAGE);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_volume_expand, "disk", "1000"), CLI_USAGE);
    agent_free(&a);
}

static void a_clone_names_its_one_source_and_needs_no_size(void)
{
    struct agent a;
    int rc;
    CHECK_EQ(RAN(answer, cmd_volume_create, "c", "--from-snapshot", "before"), CLI_OK);
    struct uuid id = uuid_from_pb(a.last->request->volume_create->source_snapshot_id);
    CHECK(uuid_equal(&id, &snapshot_id));
    CHECK_EQ(a.last->request->volume_create->size, 0);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_volume_create, "c", "--from-volume", "disk", "--size", "2GiB"),
             CLI_OK);
    id = uuid_from_pb(a.last->request->volume_create->source_volume_id);
    CHECK(uuid_equal(&id, &volume_id));
    CHECK_EQ(a.last->request->volume_create->size, 2ll << 30);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_volume_create, "c", "--from-volume", "a", "--from-snapshot", "b"),
             CLI_USAGE);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_volume_create, "c", "--from-snapshot", "nothing"), CLI_REFUSED);
    CHECK_EQ(a.last->request->op_case, LUNAR__REQUEST__OP_SNAPSHOT_LIST);
    agent_free(&a);
}

static void list_asks_for_pages_as_long_as_they_move_on(void)
{
    struct agent a;
    int rc;
    CHECK_EQ(RAN(answer_pages, cmd_snapshot_list, "-o", "json"), CLI_OK);
    CHECK_EQ(a.requests, 3);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_snapshot_list, "disk"), CLI_OK);
    struct uuid id = uuid_from_pb(a.last->request->snapshot_list->volume_id);
    CHECK(uuid_equal(&id, &volume_id));
    CHECK(strstr(out, "2023-11-14T22:13:20") != NULL);
    agent_free(&a);
}

static void the_tree_is_drawn_from_the_bottom_and_indented_where_it_forks(void)
{
    struct agent a;
    int rc;
    agent_start(&a, answer_tree);
    rc = RUN(&a, "5", cmd_volume_tree);
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK_STR(out, "snapshot be\"fore  128 MiB  v1.0\n"
                   "├─ volume disk  128 MiB  v1.1  on node-b\n"
                   "└─ volume clone  128 MiB  v2.0  new\n"
                   "\n"
                   "frozen  128 MiB  v3.0  deleting\n"
                   "frozen  128 MiB  v3.1  merging into v3.0  43 %\n");
    agent_free(&a);
}

static void the_tree_as_dot_quotes_what_people_wrote(void)
{
    struct agent a;
    int rc;
    CHECK_EQ(RAN(answer_tree, cmd_volume_tree, "-o", "dot"), CLI_OK);
    CHECK(strncmp(out, "digraph", 7) == 0);
    CHECK(strstr(out, "\"v2.0\" -> \"v1.0\";") != NULL);
    CHECK(strstr(out, "label=\"snapshot be\\\"fore, 128 MiB\"") != NULL);
    agent_free(&a);
    CHECK_EQ(RAN(answer, cmd_snapshot_list, "-o", "dot"), CLI_USAGE); /* no other takes it */
    agent_free(&a);
}

TEST_MAIN(TEST(create_names_the_volume_by_its_id), TEST(several_are_one_request),
          TEST(safety_6_what_changes_something_travels_by_id),
          TEST(a_size_that_no_volume_has_is_refused_at_once),
          TEST(a_clone_names_its_one_source_and_needs_no_size),
          TEST(list_asks_for_pages_as_long_as_they_move_on),
          TEST(the_tree_is_drawn_from_the_bottom_and_indented_where_it_forks),
          TEST(the_tree_as_dot_quotes_what_people_wrote))
