/* SPDX-License-Identifier: Apache-2.0 */
/* `lunarctl pool set` and `pool show`, and what `status` shouts, against an agent made up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../tools/lunarctl/client.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/pool.c"
#include "../../tools/lunarctl/request.c"
#include "../../tools/lunarctl/status.c"
#include "../../tools/lunarctl/who_leads.c"

#include "support/fake_agent.h"

static bool answer_status(struct agent *a, int fd, const Lunar__Envelope *e)
{
    static char pool[] = "p", space[] = "2 writers wait";
    Lunar__Status s = LUNAR__STATUS__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    (void)a;
    s.pool = pool;
    s.vg_size = 4ull << 30;
    s.vg_free = 1ull << 30;
    s.provisioned = 10ull << 30;
    s.overcommit_limit = 400;
    s.warn_percent = 70;
    s.waiting = 2;
    s.space = s.condition = space;
    r.op_case = LUNAR__RESPONSE__OP_STATUS;
    r.status = &s;
    respond(fd, e->request->id, &r);
    return true;
}

static void set_changes_what_is_named_and_nothing_else(void)
{
    struct agent a;
    agent_start(&a, answer_status);
    int rc = RUN(&a, "5", cmd_pool_set, "--overcommit", "400%");
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(a.last->request->op_case, LUNAR__REQUEST__OP_POOL_SET);
    CHECK_EQ(a.last->request->pool_set->change_overcommit, 1);
    CHECK_EQ(a.last->request->pool_set->overcommit_limit, 400);
    CHECK_EQ(a.last->request->pool_set->change_warn, 0);
    agent_free(&a);
    agent_start(&a, answer_status);
    rc = RUN(&a, "5", cmd_pool_set, "--overcommit", "none", "--warn", "85");
    agent_stop(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(a.last->request->pool_set->change_overcommit, 1);
    CHECK_EQ(a.last->request->pool_set->overcommit_limit, 0);
    CHECK_EQ(a.last->request->pool_set->warn_percent, 85);
    agent_free(&a);
}

static void show_compares_what_is_promised_with_what_is_there(void)
{
    struct agent a;
    agent_start(&a, answer_status);
    int rc = RUN(&a, "5", cmd_pool_show);
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK(strstr(out, "used         75.0%, warning from 70% on"));
    CHECK(strstr(out, "provisioned  10 GiB, 250.0% of the size, limit 400%"));
    CHECK(strstr(out, "waiting      2 writer(s)"));
}

static void status_shouts_first_when_writers_wait(void)
{
    struct agent a;
    agent_start(&a, answer_status);
    int rc = RUN(&a, "5", cmd_status);
    agent_stop(&a);
    agent_free(&a);
    CHECK_EQ(rc, CLI_OK);
    CHECK(strstr(out, "*** 2 WRITERS WAIT FOR SPACE") == out);
    CHECK(strstr(out, "10 GiB in sum (250% of the space)"));
}

static void percentages_that_are_none_are_wrong_usage(void)
{
    static const char *const bad[][2] = {
        {"--overcommit", "x"}, {"--overcommit", "0"}, {"--overcommit", "4x"},
        {"--overcommit", "%"}, {"--warn", "101%"},    {"--warn", "none"},
        {"--warn", "0"},       {"--warn", "-1"},      {"--warn", "1000000000"}};
    struct agent a;
    agent_start(&a, answer_status);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(RUN(&a, "5", cmd_pool_set, bad[i][0], bad[i][1]), CLI_USAGE);
    CHECK_EQ(RUN(&a, "5", cmd_pool_set), CLI_USAGE);
    agent_stop(&a);
    CHECK_EQ(a.requests, 0);
    agent_free(&a);
}

TEST_MAIN(TEST(set_changes_what_is_named_and_nothing_else),
          TEST(show_compares_what_is_promised_with_what_is_there),
          TEST(status_shouts_first_when_writers_wait),
          TEST(percentages_that_are_none_are_wrong_usage))
