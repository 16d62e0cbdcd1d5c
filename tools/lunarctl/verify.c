/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl verify`: does everything that is kept in several places say the same?
 *
 * Happy path: the coordinator's status, volumes and nodes; each node's maps and daemons, by way of
 * the coordinator; grants and reports raw from the LUN; compared (verify_findings.c). What is found
 * is looked for once more after LOOK_AGAIN_S, because operations under way show as disagreements;
 * what is found twice is printed. Failure modes: no agent, no coordinator: the failure is shown, as
 * by every command; a LUN that cannot be read here: that, too; a node that does not answer: a
 * finding.
 */
#include "verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "diskrpc/message.h"
#include "diskrpc/superblock.h"
#include "fencing/leases.h"
#include "output.h"
#include "request.h"

#define ASK_AGENT_MS 10000
/* An attach takes seconds on a slow node; one that hangs longer is worth a line. */
#define LOOK_AGAIN_S 5
#define PAGES_MAX    1024

struct gathering {
    const struct cli *cli;
    struct client *client;
    int fd;
    struct superblock sb;
    struct verify_facts facts;
    Lunar__Envelope *status, *nodes;
    Lunar__Envelope *pages[PAGES_MAX]; /* of the list of volumes */
    size_t n_pages;
    Lunar__Envelope *trees[PAGES_MAX]; /* of that of layers */
    size_t n_trees;
    Lunar__Envelope **inspections; /* one per host */
};

/* --- what the coordinator says --- */

static int ask_status(struct gathering *g)
{
    Lunar__StatusGet get = LUNAR__STATUS_GET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    request.op_case = LUNAR__REQUEST__OP_STATUS_GET;
    request.status_get = &get;
    int rc = request_call(g->cli, g->client, &request, LUNAR__RESPONSE__OP_STATUS, &g->status);
    if (rc == CLI_OK)
        g->facts.status = g->status->response->status;
    return rc;
}

static int ask_nodes(struct gathering *g)
{
    Lunar__NodeList list = LUNAR__NODE_LIST__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    request.op_case = LUNAR__REQUEST__OP_NODE_LIST;
    request.node_list = &list;
    return request_call(g->cli, g->client, &request, LUNAR__RESPONSE__OP_NODES, &g->nodes);
}

static int ask_volumes(struct gathering *g)
{
    char after[MESSAGE_NAME_MAX + 1] = "";
    bool more = true;

    while (more && g->n_pages < PAGES_MAX) {
        Lunar__VolumeList list = LUNAR__VOLUME_LIST__INIT;
        Lunar__Request request = LUNAR__REQUEST__INIT;
        list.after = after;
        request.op_case = LUNAR__REQUEST__OP_VOLUME_LIST;
        request.volume_list = &list;
        Lunar__Envelope **page = &g->pages[g->n_pages];
        int rc = request_call(g->cli, g->client, &request, LUNAR__RESPONSE__OP_VOLUMES, page);
        if (rc != CLI_OK)
            return rc;
        g->n_pages++;
        const Lunar__Volumes *v = (*page)->response->volumes;
        const char *last = v->n_volumes ? v->volumes[v->n_volumes - 1]->name : "";
        more = v->more && strcmp(last, after) > 0;
        snprintf(after, sizeof after, "%s", last);
        g->facts.volumes = reallocarray(g->facts.volumes, g->facts.n_volumes + v->n_volumes + 1,
                                        sizeof(Lunar__Volume *));
        if (!g->facts.volumes)
            abort();
        for (size_t i = 0; i < v->n_volumes; i++)
            g->facts.volumes[g->facts.n_volumes++] = v->volumes[i];
    }
    return CLI_OK;
}

static int ask_layers(struct gathering *g)
{
    char after[64] = "";
    bool more = true;

    while (more && g->n_trees < PAGES_MAX) {
        Lunar__TreeGet get = LUNAR__TREE_GET__INIT;
        Lunar__Request request = LUNAR__REQUEST__INIT;
        get.after = after;
        request.op_case = LUNAR__REQUEST__OP_TREE_GET;
        request.tree_get = &get;
        Lunar__Envelope **page = &g->trees[g->n_trees];
        int rc = request_call(g->cli, g->client, &request, LUNAR__RESPONSE__OP_TREE, page);
        if (rc != CLI_OK)
            return rc;
        g->n_trees++;
        const Lunar__Tree *t = (*page)->response->tree;
        const char *last = t->n_layers ? t->layers[t->n_layers - 1]->lv_name : "";
        more = t->more && strcmp(last, after) > 0;
        snprintf(after, sizeof after, "%s", last);
        g->facts.layers = reallocarray(g->facts.layers, g->facts.n_layers + t->n_layers + 1,
                                       sizeof(Lunar__TreeLayer *));
        if (!g->facts.layers)
            abort();
        for (size_t i = 0; i < t->n_layers; i++)
            g->facts.layers[g->facts.n_layers++] = t->layers[i];
    }
    return CLI_OK;
}

/* --- what the nodes have --- */

static Lunar__Envelope *inspect(struct gathering *g, struct verify_host *h)
{
    Lunar__NodeInspect m = LUNAR__NODE_INSPECT__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Envelope *answer = NULL;
    struct error err = ERROR_INIT;

    m.host_id = h->host_id;
    request.op_case = LUNAR__REQUEST__OP_NODE_INSPECT;
    request.node_inspect = &m;
    int rc =
        request_call_quietly(g->client, &request, LUNAR__RESPONSE__OP_INSPECTION, &answer, &err);
    if (rc == 0)
        h->inspection = answer->response->inspection;
    else
        snprintf(h->why_not, sizeof h->why_not, "%s", err.text);
    return answer;
}

static const Lunar__Node *node_of(const struct gathering *g, uint32_t host_id)
{
    const Lunar__Nodes *nodes = g->nodes->response->nodes;
    for (size_t i = 0; i < nodes->n_nodes; i++)
        if (nodes->nodes[i]->host_id == host_id)
            return nodes->nodes[i];
    return NULL;
}

/* --- what the LUN says --- */

static void read_host(struct gathering *g, struct verify_host *h)
{
    for (int copy = 0; copy < 2; copy++) {
        table_init(&h->grants[copy], TABLE_GRANTS, h->host_id, &g->sb.pool_id);
        h->grants_rc[copy] = table_read(g->fd, &g->sb.layout, TABLE_GRANTS, h->host_id, copy,
                                        &g->sb.pool_id, &h->grants[copy], NULL);
    }
    h->report_rc = table_read_newest(g->fd, &g->sb.layout, TABLE_REPORTS, h->host_id,
                                     &g->sb.pool_id, &h->report, NULL);
}

/* Every host id that was ever used. */
static int read_hosts(struct gathering *g, struct error *err)
{
    char space[48];
    uint32_t max = g->sb.layout.max_nodes;
    struct delta_lease *leases = calloc(max, sizeof *leases);

    g->facts.hosts = calloc(max, sizeof *g->facts.hosts);
    g->inspections = calloc(max, sizeof(Lunar__Envelope *));
    if (!leases || !g->facts.hosts || !g->inspections)
        abort();
    pool_lockspace(&g->sb.pool_id, space);
    int rc = leases_read(g->fd, &g->sb.layout, space, leases, err);
    for (uint32_t i = 0; rc == 0 && i < max; i++) {
        struct verify_host *h = &g->facts.hosts[g->facts.n_hosts];
        if (leases[i].generation == 0)
            continue;
        *h = (struct verify_host){.host_id = i + 1, .generation = leases[i].generation};
        h->node = node_of(g, h->host_id);
        read_host(g, h);
        g->inspections[g->facts.n_hosts++] = h->node ? inspect(g, h) : NULL;
    }
    free(leases);
    return rc;
}

/* --- one round --- */

static void forget(struct gathering *g)
{
    for (size_t i = 0; i < g->facts.n_hosts; i++) {
        table_free(&g->facts.hosts[i].grants[0]);
        table_free(&g->facts.hosts[i].grants[1]);
        table_free(&g->facts.hosts[i].report);
        envelope_free(g->inspections[i]);
    }
    for (size_t i = 0; i < g->n_pages; i++)
        envelope_free(g->pages[i]);
    for (size_t i = 0; i < g->n_trees; i++)
        envelope_free(g->trees[i]);
    envelope_free(g->status);
    envelope_free(g->nodes);
    free(g->inspections);
    free(g->facts.hosts);
    free(g->facts.volumes);
    free(g->facts.layers);
}

static int look(struct gathering *g, json_t **ret)
{
    struct error err = ERROR_INIT;
    int rc = ask_status(g);
    if (rc == CLI_OK)
        rc = ask_nodes(g);
    if (rc == CLI_OK)
        rc = ask_volumes(g);
    if (rc == CLI_OK)
        rc = ask_layers(g);
    if (rc == CLI_OK && read_hosts(g, &err) < 0)
        rc = cli_fail(g->cli, err.code, &err);
    if (rc == CLI_OK)
        *ret = verify_find(&g->facts);
    return rc;
}

static int look_once(const struct cli *cli, struct client *client, int fd,
                     const struct superblock *sb, json_t **ret)
{
    struct gathering *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->cli = cli;
    g->client = client;
    g->fd = fd;
    g->sb = *sb;
    int rc = look(g, ret);
    forget(g);
    free(g);
    return rc;
}

static int look_twice(const struct cli *cli, struct client *client, int fd,
                      const struct superblock *sb, json_t **ret)
{
    json_t *first = NULL, *second = NULL;

    int rc = look_once(cli, client, fd, sb, &first);
    if (rc != CLI_OK || json_array_size(first) == 0) {
        *ret = first;
        return rc;
    }
    cli_progress("looking again in %d s, for some of it may be under way", LOOK_AGAIN_S);
    sleep(LOOK_AGAIN_S);
    rc = look_once(cli, client, fd, sb, &second);
    if (rc == CLI_OK)
        *ret = verify_persisting(first, second);
    json_decref(first);
    json_decref(second);
    return rc;
}

/* --- the command --- */

static void print_findings(const json_t *doc)
{
    size_t i;
    json_t *f;

    if (js_get_bool(doc, "clean"))
        printf("clean: catalogue, grants, reports, maps and daemons agree\n");
    json_array_foreach(json_object_get(doc, "findings"), i, f)
    {
        const char *volume = js_get_text(f, "volume"), *node = js_get_text(f, "node");
        printf("%s:", js_get_text(f, "kind"));
        if (json_object_get(f, "host_id"))
            printf(" node %s (host %" PRIu64 ")", node, js_get_u64(f, "host_id"));
        if (json_object_get(f, "volume_id"))
            printf(" volume %s", *volume ? volume : js_get_text(f, "volume_id"));
        const char *why = js_get_text(f, "why");
        printf(": %s%s%s\n    %s\n", js_get_text(f, "text"), *why ? ": " : "", why,
               js_get_text(f, "do"));
    }
}

/* The LUN that this node's agent uses. */
static int open_lun(const struct cli *cli, int *ret_fd, struct superblock *ret)
{
    struct error err = ERROR_INIT;
    Lunar__Envelope *answer = request_agent_status(cli, ASK_AGENT_MS);
    if (!answer)
        return cli_fail(cli,
                        error_set(&err, -ECONNREFUSED,
                                  "this node's agent does not answer: is lunar-agent running?"),
                        &err);
    *ret_fd = io_open(answer->response->agent_status->device, 0, &err);
    envelope_free(answer);
    if (*ret_fd < 0)
        return cli_fail(cli, *ret_fd, &err);
    int rc = superblock_read(*ret_fd, ret, &err);
    if (rc < 0)
        close(*ret_fd);
    return rc < 0 ? cli_fail(cli, rc, &err) : CLI_OK;
}

int cmd_verify(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    struct superblock sb;
    json_t *findings = NULL;
    int fd = -1;

    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = open_lun(cli, &fd, &sb);
    if (rc != CLI_OK)
        return rc;
    rc = request_open(cli, "agent", &client);
    if (rc == CLI_OK) {
        rc = look_twice(cli, client, fd, &sb, &findings);
        client_close(client);
    }
    close(fd);
    if (rc != CLI_OK)
        return rc;
    bool clean = json_array_size(findings) == 0;
    json_t *doc = json_object();
    js_set(doc, "clean", json_boolean(clean));
    js_set(doc, "findings", findings);
    rc = output_emit(cli, doc, print_findings);
    return rc == CLI_OK && !clean ? CLI_REFUSED : rc;
}
