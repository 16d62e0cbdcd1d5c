/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl pool set` and `pool show`: the settings that concern space, and what they are compared
 * with. Failure modes are request.h's; a percentage that is none is wrong usage, and nothing is
 * tried.
 */
#include "output.h"
#include "request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "diskrpc/message.h"

static double percent(uint64_t part, uint64_t of)
{
    return of ? 100.0 * (double)part / (double)of : 0.0;
}

static void print_pool(const json_t *s)
{
    char text[SIZE_TEXT_SIZE];
    uint64_t size = js_get_u64(s, "vg_size"), left = js_get_u64(s, "vg_free");
    uint64_t provisioned = js_get_u64(s, "provisioned");
    uint64_t limit = js_get_u64(s, "overcommit_limit");

    printf("pool         %s (%s)\n", js_get_text(s, "pool"), js_get_text(s, "pool_id"));
    printf("size         %s\n", size_format(size, text));
    printf("free         %s\n", size_format(left, text));
    printf("used         %.1f%%, warning from %" PRIu64 "%% on\n", percent(size - left, size),
           js_get_u64(s, "warn_percent"));
    printf("provisioned  %s, %.1f%% of the size", size_format(provisioned, text),
           percent(provisioned, size));
    if (limit)
        printf(", limit %" PRIu64 "%%\n", limit);
    else
        printf(", no limit\n");
    printf("waiting      %" PRIu64 " writer(s)\n", js_get_u64(s, "waiting"));
    if (*js_get_text(s, "space"))
        printf("condition    %s\n", js_get_text(s, "space"));
}

/* "400%" or "400". */
static bool parse_percent(const char *text, uint64_t *ret)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 9 || (text[digits] && strcmp(text + digits, "%") != 0))
        return false;
    *ret = strtoull(text, NULL, 10);
    return true;
}

static int ask(const struct cli *cli, Lunar__Request *request)
{
    struct client *client;
    Lunar__Envelope *answer = NULL;
    int rc = request_open(cli, "agent", &client);

    if (rc != CLI_OK)
        return rc;
    rc = request_call(cli, client, request, LUNAR__RESPONSE__OP_STATUS, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->status->base), print_pool);
    envelope_free(answer);
    client_close(client);
    return rc;
}

int cmd_pool_show(struct cli *cli, int argc, char **argv)
{
    Lunar__StatusGet get = LUNAR__STATUS_GET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    request.op_case = LUNAR__REQUEST__OP_STATUS_GET;
    request.status_get = &get;
    return ask(cli, &request);
}

int cmd_pool_set(struct cli *cli, int argc, char **argv)
{
    const char *overcommit = NULL, *warn = NULL;
    const struct cli_option options[] = {
        {"overcommit", 0, CLI_TEXT, &overcommit, 0, 0, "PERCENT|none",
         "all volumes together may be so large, in percent of the pool"},
        {"warn", 0, CLI_TEXT, &warn, 0, 0, "PERCENT",
         "used so far, the pool's condition warns (default: 80%)"},
    };
    Lunar__PoolSet set = LUNAR__POOL_SET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    uint64_t level = 0;

    if (!cli_parse(cli, options, 2, 0, 0, argc, argv))
        return cli->exit_code;
    if (!overcommit && !warn)
        return cli_usage(cli, "nothing to set: --overcommit or --warn");
    bool none = overcommit && strcmp(overcommit, "none") == 0;
    if (overcommit && !none &&
        (!parse_percent(overcommit, &set.overcommit_limit) || set.overcommit_limit == 0))
        return cli_usage(cli, "--overcommit takes a percentage like 400%%, or none");
    if (warn && (!parse_percent(warn, &level) || level < 1 || level > 100))
        return cli_usage(cli, "--warn takes a percentage from 1%% to 100%%");
    set.change_overcommit = overcommit != NULL;
    set.change_warn = warn != NULL;
    set.warn_percent = (uint32_t)level;
    request.op_case = LUNAR__REQUEST__OP_POOL_SET;
    request.pool_set = &set;
    return ask(cli, &request);
}
