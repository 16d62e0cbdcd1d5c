/* SPDX-License-Identifier: Apache-2.0 */
/* `lunarctl node fence` and `node list` against a fake agent: what they ask, what they print, and
 * that nothing is sent without the operator's oath. */
#include "support/test.h"

#include "../../tools/lunarctl/client.c"
#include "../../tools/lunarctl/node.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/request.c"

#include "support/fake_agent.h"

#define OATH "--i-have-powered-it-off"

static bool answer_nodes(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static char names[][8] = {"one", "two", "twice", "twice", "gone"};
    static char states[][8] = {"LIVE", "DEAD", "FREE", "LIVE", "LEFT"};
    Lunar__Node nodes[5], *list[5];
    Lunar__Nodes all = LUNAR__NODES__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;

    (void)a;
    for (uint32_t i = 0; i < 5; i++) {
        lunar__node__init(&nodes[i]);
        nodes[i].host_id = 10 + i;
        nodes[i].generation = 3 + i;
        nodes[i].name = names[i];
        nodes[i].state = states[i];
        nodes[i].renewed_ms = 2500;
        nodes[i].dead_in_ms = i == 0 || i == 3 ? 23500 : 0;
        nodes[i].attachments = 4;
        list[i] = &nodes[i];
    }
    all.n_nodes = 5;
    all.nodes = list;
    if (e->request->op_case == LUNAR__REQUEST__OP_NODE_LIST) {
        r.op_case = LUNAR__RESPONSE__OP_NODES;
        r.nodes = &all;
    }
    respond(fd, e->request->id, &r); /* a fence is answered plainly */
    return true;
}

static void safety_8_a_fence_needs_an_oath(void)
{
    struct agent a;
    agent_start(&a, answer_nodes);
    int rc = RUN(&a, "5", cmd_node_fence, "one");
    agent_stop(&a);
    CHECK_EQ(rc, CLI_USAGE);
    CHECK_EQ(a.requests, 0);
    agent_free(&a);
}

static void a_fence_names_host_id_and_generation_and_says_what_it_means(void)
{
    struct agent a;
    agent_start(&a, answer_nodes);
    int rc = RUN(&a, "5", cmd_node_fence, "two", OATH);
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(a.requests, 2);
    CHECK_EQ(a.last->request->op_case, LUNAR__REQUEST__OP_NODE_FENCE);
    CHECK_EQ(a.last->request->node_fence->host_id, 11);
    CHECK_EQ(a.last->request->node_fence->generation, 4);
    CHECK_STR(a.last->request->node_fence->name, "two");
    CHECK(strstr(out, "node 'two' (host id 11, generation 4)") != NULL);
    CHECK(strstr(out, "whatever it still writes is lost") != NULL);
    agent_free(&a);
}

static void a_name_of_two_host_ids_needs_a_choice_and_an_unknown_one_is_refused(void)
{
    struct agent a;
    agent_start(&a, answer_nodes);
    CHECK_EQ(RUN(&a, "5", cmd_node_fence, "twice", OATH), CLI_USAGE);
    CHECK_EQ(RUN(&a, "5", cmd_node_fence, "nobody", OATH), CLI_REFUSED);
    CHECK_EQ(a.requests, 2); /* two listings, no fence */
    CHECK_EQ(RUN(&a, "5", cmd_node_fence, "twice", OATH, "--host-id", "13"), CLI_OK);
    agent_stop(&a);
    CHECK_EQ(a.last->request->node_fence->host_id, 13);
    agent_free(&a);
}

static void the_list_says_when_each_node_is_dead(void)
{
    struct agent a;
    agent_start(&a, answer_nodes);
    int rc = RUN(&a, "5", cmd_node_list);
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK(strstr(out, "RENEWED") && strstr(out, "DEAD IN"));
    CHECK(strstr(out, "2.5 s") && strstr(out, "23.5 s"));
    CHECK(strstr(out, " dead ") != NULL); /* two */
    CHECK(strstr(out, " - ") != NULL);    /* who has left */
}

TEST_MAIN(TEST(safety_8_a_fence_needs_an_oath),
          TEST(a_fence_names_host_id_and_generation_and_says_what_it_means),
          TEST(a_name_of_two_host_ids_needs_a_choice_and_an_unknown_one_is_refused),
          TEST(the_list_says_when_each_node_is_dead))
