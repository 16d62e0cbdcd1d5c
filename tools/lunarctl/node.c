/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl node ...` and `coordinator resign`: who is in the pool, what this node does, its
 * sanlock name, leaving. `node identity` needs no daemon at all, because it is asked for while
 * sanlock is being set up.
 */
#include "output.h"
#include "request.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "diskrpc/message.h"
#include "fencing/leases.h"

#define IDENTITY_TIMEOUT_MS 2000 /* asking the agent for its name is a courtesy: fall back soon */

static void print_nodes(const json_t *doc)
{
    static const char *const headers[] = {">HOST", "NODE",   "STATE",    ">GENERATION",
                                          ">RUN",  ">HEARD", ">ATTACHED"};
    struct text_table *t = text_table_new(headers, 7);
    size_t i;
    json_t *node;

    json_array_foreach(json_object_get(doc, "nodes"), i, node)
    {
        char host[24], generation[24], run[24], heard[32], attached[24];
        snprintf(host, sizeof host, "%" PRIu64, js_get_u64(node, "host_id"));
        snprintf(generation, sizeof generation, "%" PRIu64, js_get_u64(node, "generation"));
        snprintf(run, sizeof run, "%" PRIu64, js_get_u64(node, "run"));
        snprintf(attached, sizeof attached, "%" PRIu64, js_get_u64(node, "attachments"));
        text_age(js_get_u64(node, "last_heard_ms"), heard);
        text_table_row(t,
                       (const char *[]){host, js_get_text(node, "name"), js_get_text(node, "state"),
                                        generation, run, heard, attached});
    }
    text_table_print(t, 0);
}

int cmd_node_list(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *answer = NULL;
    Lunar__NodeList list = LUNAR__NODE_LIST__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    request.op_case = LUNAR__REQUEST__OP_NODE_LIST;
    request.node_list = &list;
    rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_NODES, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->nodes->base), print_nodes);
    envelope_free(answer);
    client_close(client);
    return rc;
}

static void print_agent_volumes(const json_t *volumes)
{
    static const char *const headers[] = {"VOLUME", "STATE",     "DEVICE",
                                          ">QSD",   ">RESTARTS", "ATTACHMENT"};
    struct text_table *t;
    size_t i;
    json_t *v;

    if (json_array_size(volumes) == 0)
        return;
    printf("\n");
    t = text_table_new(headers, 6);
    json_array_foreach(volumes, i, v)
    {
        char pid[24] = "", restarts[24];
        if (js_get_u64(v, "qsd_pid"))
            snprintf(pid, sizeof pid, "%" PRIu64, js_get_u64(v, "qsd_pid"));
        snprintf(restarts, sizeof restarts, "%" PRIu64, js_get_u64(v, "qsd_restarts"));
        text_table_row(t, (const char *[]){js_get_text(v, "name"), js_get_text(v, "state"),
                                           js_get_text(v, "device"), pid, restarts,
                                           js_get_text(v, "attachment_id")});
    }
    text_table_print(t, 0);
}

static void print_agent(const json_t *s)
{
    uint64_t term = js_get_u64(s, "term");
    char age[32];

    printf("node         %s (host %" PRIu64 ", generation %" PRIu64 ", run %" PRIu64 ")\n",
           js_get_text(s, "node"), js_get_u64(s, "host_id"), js_get_u64(s, "generation"),
           js_get_u64(s, "run"));
    printf("state        %s\n", js_get_text(s, "state"));
    if (*js_get_text(s, "condition"))
        printf("condition    %s\n", js_get_text(s, "condition"));
    printf("pool         %s (%s)\n", js_get_text(s, "pool"), js_get_text(s, "pool_id"));
    printf("device       %s\n", js_get_text(s, "device"));
    if (term)
        printf("coordinator  host %" PRIu64 ", term %" PRIu64 ", heard %s ago\n",
               js_get_u64(s, "coordinator_host_id"), term,
               text_age(js_get_u64(s, "last_heard_ms"), age));
    else
        printf("coordinator  none heard yet\n");
    print_agent_volumes(json_object_get(s, "volumes"));
}

/* Asks the agent (or coordinator) itself; CLI_OK and the answer, or the exit code. */
static int ask_local(const struct cli *cli, const char *daemon, Lunar__LocalRequest__OpCase op,
                     Lunar__Response__OpCase want, Lunar__Envelope **ret)
{
    struct client *client;
    Lunar__AgentStatusGet status = LUNAR__AGENT_STATUS_GET__INIT;
    Lunar__AgentLeave leave = LUNAR__AGENT_LEAVE__INIT;
    Lunar__Resign resign = LUNAR__RESIGN__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;

    request.op_case = op;
    if (op == LUNAR__LOCAL_REQUEST__OP_AGENT_STATUS)
        request.agent_status = &status;
    else if (op == LUNAR__LOCAL_REQUEST__OP_LEAVE)
        request.leave = &leave;
    else
        request.resign = &resign;
    int rc = request_open(cli, daemon, &client);
    if (rc != CLI_OK)
        return rc;
    rc = request_local(cli, client, &request, want, ret);
    client_close(client);
    return rc;
}

int cmd_node_status(struct cli *cli, int argc, char **argv)
{
    Lunar__Envelope *answer = NULL;
    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = ask_local(cli, "agent", LUNAR__LOCAL_REQUEST__OP_AGENT_STATUS,
                       LUNAR__RESPONSE__OP_AGENT_STATUS, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->agent_status->base), print_agent);
    envelope_free(answer);
    return rc;
}

/* The agent's word for this node, if there is an agent: quietly, and not for long. */
static bool ask_node_name(const struct cli *cli, char *ret, size_t size)
{
    Lunar__Envelope *answer = request_agent_status(cli, IDENTITY_TIMEOUT_MS);

    if (answer)
        snprintf(ret, size, "%s", answer->response->agent_status->node);
    bool known = answer && *ret != '\0';
    envelope_free(answer);
    return known;
}

static void print_identity(const json_t *doc)
{
    printf("%s\n", js_get_text(doc, "host_name"));
}

int cmd_node_identity(struct cli *cli, int argc, char **argv)
{
    const char *node = NULL;
    bool offline = false;
    const struct cli_option options[] = {
        {"node", 0, CLI_TEXT, &node, 0, 0, "NAME",
         "the node's name (default: what the agent says, else the host name)"},
        {"offline", 0, CLI_FLAG, &offline, 0, 0, NULL, "do not ask the agent for the node's name"},
    };
    char name[256], machine[128], host_name[LEASES_NAME_SIZE];
    struct error err = ERROR_INIT;

    if (!cli_parse(cli, options, 2, 0, 0, argc, argv))
        return cli->exit_code;
    if (node)
        snprintf(name, sizeof name, "%s", node);
    else if ((offline || !ask_node_name(cli, name, sizeof name)) &&
             gethostname(name, sizeof name) < 0)
        return cli_fail(
            cli, error_set(&err, LUNAR_E_NOT_FOUND, "this machine has no host name; use --node"),
            &err);
    name[sizeof name - 1] = '\0';
    if (!*name || strlen(name) > MESSAGE_NAME_MAX)
        return cli_usage(cli, "a node's name has 1 to %u bytes", MESSAGE_NAME_MAX);
    int rc = leases_machine_id(machine, sizeof machine, &err);
    if (rc < 0)
        return cli_fail(cli, rc, &err);
    leases_host_name(name, machine, host_name);
    json_t *doc = json_object();
    js_set(doc, "node", js_text(name));
    js_set(doc, "machine_id", js_text(machine));
    js_set(doc, "host_name", js_text(host_name));
    return output_emit(cli, doc, print_identity);
}

static void print_done(const json_t *doc)
{
    printf("%s\n", js_get_text(doc, "done"));
}

static int emit_done(const struct cli *cli, const char *text)
{
    json_t *doc = json_object();
    js_set(doc, "done", js_text(text));
    return output_emit(cli, doc, print_done);
}

int cmd_node_leave(struct cli *cli, int argc, char **argv)
{
    Lunar__Envelope *answer = NULL;
    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = ask_local(cli, "agent", LUNAR__LOCAL_REQUEST__OP_LEAVE, LUNAR__RESPONSE__OP__NOT_SET,
                       &answer);
    if (rc == CLI_OK)
        rc = emit_done(cli, "left the pool");
    envelope_free(answer);
    return rc;
}

int cmd_coordinator_resign(struct cli *cli, int argc, char **argv)
{
    Lunar__Envelope *answer = NULL;
    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = ask_local(cli, "coordinator", LUNAR__LOCAL_REQUEST__OP_RESIGN,
                       LUNAR__RESPONSE__OP__NOT_SET, &answer);
    if (rc == CLI_OK)
        rc = emit_done(cli, "the coordinator gave its lease back");
    envelope_free(answer);
    return rc;
}
