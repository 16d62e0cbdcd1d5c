/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl rpc ping`: round trips from this node's agent over the LUN to the coordinator and back,
 * timed here, so that the local socket is in the figure too. One ping at a time. Failure modes: the
 * first ping that fails ends the run; a payload that comes back changed is an error of its own.
 */
#include "output.h"
#include "request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "diskrpc/message.h"

#define COUNT_MAX 1000000u
#define PAYLOAD_MAX                                                                                \
    (MESSAGE_MAX - 256u) /* the envelope around it must fit into one message too                   \
                          */
#define INTERVAL_MAX_MS 60000u

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Nearest rank: the smallest value that at least `percent` of all do not exceed. */
static double percentile_ms(const uint64_t *sorted, uint64_t n, unsigned percent)
{
    uint64_t rank = (n * percent + 99) / 100;
    return (double)sorted[rank ? rank - 1 : 0] / 1e6;
}

static void print_pings(const json_t *doc)
{
    const json_t *ms = json_object_get(doc, "ms");
    printf("%" PRIu64 " round trips of %" PRIu64
           " bytes: min %.2f  median %.2f  p99 %.2f  max %.2f ms\n",
           js_get_u64(doc, "count"), js_get_u64(doc, "bytes"),
           json_number_value(json_object_get(ms, "min")),
           json_number_value(json_object_get(ms, "median")),
           json_number_value(json_object_get(ms, "p99")),
           json_number_value(json_object_get(ms, "max")));
}

static json_t *summary(uint64_t *times, uint64_t n, uint64_t bytes)
{
    json_t *doc = json_object(), *ms = json_object();
    qsort(times, n, sizeof *times, compare);
    js_set(doc, "count", js_u64(n));
    js_set(doc, "bytes", js_u64(bytes));
    js_set(ms, "min", json_real((double)times[0] / 1e6));
    js_set(ms, "median", json_real(percentile_ms(times, n, 50)));
    js_set(ms, "p99", json_real(percentile_ms(times, n, 99)));
    js_set(ms, "max", json_real((double)times[n - 1] / 1e6));
    js_set(doc, "ms", ms);
    return doc;
}

static int ping_once(const struct cli *cli, struct client *client, ProtobufCBinaryData payload,
                     uint64_t *ret_ns)
{
    struct error err = ERROR_INIT;
    Lunar__Envelope *answer = NULL;
    Lunar__Ping ping = LUNAR__PING__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    ping.payload = payload;
    request.op_case = LUNAR__REQUEST__OP_PING;
    request.ping = &ping;
    uint64_t start = now_ns();
    int rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_PING, &answer);
    if (rc != CLI_OK)
        return rc;
    *ret_ns = now_ns() - start;
    const ProtobufCBinaryData *back = &answer->response->ping->payload;
    if (back->len != payload.len || (back->len && memcmp(back->data, payload.data, back->len) != 0))
        rc = cli_fail(cli, error_set(&err, LUNAR_E_CORRUPT, "the payload came back changed"), &err);
    envelope_free(answer);
    return rc;
}

static int ping_all(const struct cli *cli, struct client *client, uint64_t count, uint64_t bytes,
                    uint64_t interval_ms)
{
    uint64_t *times = calloc(count, sizeof *times);
    uint8_t *payload = malloc(bytes + 1);
    int rc = CLI_OK;

    if (!times || !payload)
        abort();
    for (uint64_t i = 0; i < bytes; i++)
        payload[i] = (uint8_t)(i * 31 + 7); /* not constant, so that a shifted answer is seen */
    for (uint64_t i = 0; i < count && rc == CLI_OK; i++) {
        struct timespec t = {(time_t)(interval_ms / 1000), (long)(interval_ms % 1000) * 1000000L};
        if (i > 0 && interval_ms > 0)
            nanosleep(&t, NULL);
        rc = ping_once(cli, client, (ProtobufCBinaryData){bytes, payload}, &times[i]);
    }
    if (rc == CLI_OK)
        rc = output_emit(cli, summary(times, count, bytes), print_pings);
    free(payload);
    free(times);
    return rc;
}

/* Round trips start at the local agent, whatever is asked for: another node's name is refused, not
 * ignored. */
static int check_node(const struct cli *cli, struct client *client, const char *node)
{
    struct error err = ERROR_INIT;
    Lunar__Envelope *answer = NULL;
    Lunar__AgentStatusGet get = LUNAR__AGENT_STATUS_GET__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;

    request.op_case = LUNAR__LOCAL_REQUEST__OP_AGENT_STATUS;
    request.agent_status = &get;
    int rc = request_local(cli, client, &request, LUNAR__RESPONSE__OP_AGENT_STATUS, &answer);
    if (rc != CLI_OK)
        return rc;
    const char *own = answer->response->agent_status->node;
    if (strcmp(own, node) != 0)
        rc = cli_fail(
            cli,
            error_set(&err, LUNAR_E_UNSUPPORTED,
                      "this is node %s: a ping goes from the node it is run on to the coordinator; "
                      "run it on %s",
                      own, node),
            &err);
    envelope_free(answer);
    return rc;
}

int cmd_rpc_ping(struct cli *cli, int argc, char **argv)
{
    uint64_t count = 5, bytes = 32, interval_ms = 0;
    const struct cli_option options[] = {
        {"count", 'c', CLI_NUMBER, &count, 1, COUNT_MAX, "N", "how many (default 5)"},
        {"size", 's', CLI_SIZE, &bytes, 1, PAYLOAD_MAX, "BYTES",
         "payload; above a page's room it goes through the spill (default 32)"},
        {"interval", 'i', CLI_NUMBER, &interval_ms, 0, INTERVAL_MAX_MS, "MS",
         "pause between two (default 0)"},
    };
    struct client *client;

    if (!cli_parse(cli, options, 3, 0, 1, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    if (cli->n_args == 1)
        rc = check_node(cli, client, cli->args[0]);
    if (rc == CLI_OK)
        rc = ping_all(cli, client, count, bytes, interval_ms);
    client_close(client);
    return rc;
}
