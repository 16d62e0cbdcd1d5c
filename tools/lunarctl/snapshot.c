/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl snapshot ...` and `lunarctl volume rollback`. As in volume.c, names are resolved once
 * and only ids travel in what changes something (SAFETY 6). More than one snapshot, or one of a
 * file system that is frozen, is a group: one request, whose snapshots are of one instant.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "coordinator/catalogue.h"
#include "diskrpc/message.h"
#include "output.h"
#include "volume.h"

static void print_snapshots(const json_t *doc)
{
    static const char *const headers[] = {"NAME",  "VOLUME",  ">SIZE", ">ALLOCATED",
                                          "STATE", "CREATED", "ID"};
    struct text_table *t = text_table_new(headers, 7);
    size_t i;
    json_t *s;

    json_array_foreach(json_object_get(doc, "snapshots"), i, s)
    {
        char size[SIZE_TEXT_SIZE], allocated[SIZE_TEXT_SIZE], created[40];
        text_timestamp(js_get_u64(s, "created_s") * 1000000, created);
        created[strcspn(created, ".")] = 0; /* whole seconds; UTC */
        text_table_row(t, (const char *[]){js_get_text(s, "name"), js_get_text(s, "volume"),
                                           size_format(js_get_u64(s, "size"), size),
                                           size_format(js_get_u64(s, "allocated"), allocated),
                                           js_get_text(s, "state"), created,
                                           js_get_text(s, "snapshot_id")});
    }
    text_table_print(t, 0);
}

static void print_snapshot_id(const json_t *s)
{
    printf("%s\n", js_get_text(s, "snapshot_id"));
}

static void print_unsnapped(const json_t *s)
{
    printf("deleted %s\n", js_get_text(s, "name"));
}

static int name_check(const struct cli *cli, const char *name)
{
    struct error err = ERROR_INIT;
    return volume_name_check(name, &err) < 0 ? cli_usage(cli, "%s", err.text) : CLI_OK;
}

int snapshot_get(const struct cli *cli, struct client *client, const char *name,
                 Lunar__Envelope **ret)
{
    struct uuid id;
    struct error err = ERROR_INIT;
    Lunar__SnapshotList list = LUNAR__SNAPSHOT_LIST__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    request.op_case = LUNAR__REQUEST__OP_SNAPSHOT_LIST;
    request.snapshot_list = &list;
    if (uuid_parse(name, &id) == 0)
        list.snapshot_id = uuid_to_pb(&id);
    else if (name_check(cli, name) != CLI_OK)
        return CLI_USAGE;
    else
        list.name = (char *)(uintptr_t)name;
    int rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_SNAPSHOTS, ret);
    if (rc != CLI_OK || (*ret)->response->snapshots->n_snapshots == 1)
        return rc;
    envelope_free(*ret);
    *ret = NULL;
    error_set(&err, LUNAR_E_NOT_FOUND, "no snapshot '%s'", name);
    return cli_fail(cli, err.code, &err);
}

/* --- one --- */

static int create_one(struct cli *cli, struct client *client)
{
    Lunar__Envelope *found = NULL, *answer = NULL;
    Lunar__SnapshotCreate create = LUNAR__SNAPSHOT_CREATE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    int rc = volume_get(cli, client, cli->args[0], &found);

    if (rc == CLI_OK) {
        create.volume_id = found->response->volume->volume_id;
        create.name = cli->args[1];
        request.op_case = LUNAR__REQUEST__OP_SNAPSHOT_CREATE;
        request.snapshot_create = &create;
        rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_SNAPSHOT, &answer);
    }
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->snapshot->base), print_snapshot_id);
    envelope_free(answer);
    envelope_free(found);
    return rc;
}

/* --- several at one instant --- */

/* The coordinator's bound is a lower one; it says so itself. */
#define PAIRS_MAX 128

static void print_group(const json_t *doc)
{
    size_t i;
    json_t *s;

    json_array_foreach(json_object_get(doc, "snapshots"), i, s) print_snapshot_id(s);
}

static int create_group(struct cli *cli, struct client *client, bool freeze)
{
    Lunar__Envelope *found[PAIRS_MAX] = {NULL}, *answer = NULL;
    Lunar__SnapshotCreate members[PAIRS_MAX], *list[PAIRS_MAX];
    Lunar__SnapshotGroup group = LUNAR__SNAPSHOT_GROUP__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    int n = cli->n_args / 2, rc = CLI_OK;

    for (int i = 0; i < n && rc == CLI_OK; i++) {
        rc = volume_get(cli, client, cli->args[2 * i], &found[i]);
        if (rc != CLI_OK)
            break;
        lunar__snapshot_create__init(&members[i]);
        members[i].volume_id = found[i]->response->volume->volume_id;
        members[i].name = cli->args[2 * i + 1];
        list[i] = &members[i];
    }
    group.n_members = (size_t)n;
    group.members = list;
    group.freeze = freeze;
    request.op_case = LUNAR__REQUEST__OP_SNAPSHOT_GROUP;
    request.snapshot_group = &group;
    if (rc == CLI_OK)
        rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_SNAPSHOTS, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->snapshots->base), print_group);
    envelope_free(answer);
    for (int i = 0; i < n; i++)
        envelope_free(found[i]);
    return rc;
}

int cmd_snapshot_create(struct cli *cli, int argc, char **argv)
{
    bool freeze = false;
    const struct cli_option options[] = {
        {"freeze", 0, CLI_FLAG, &freeze, 0, 0, NULL,
         "freeze file systems that are mounted on the volumes meanwhile"},
    };
    struct client *client;

    if (!cli_parse(cli, options, 1, 2, 2 * PAIRS_MAX, argc, argv))
        return cli->exit_code;
    if (cli->n_args % 2)
        return cli_usage(cli, "volume '%s' without a name for its snapshot",
                         cli->args[cli->n_args - 1]);
    for (int i = 1; i < cli->n_args; i += 2)
        if (name_check(cli, cli->args[i]) != CLI_OK)
            return CLI_USAGE;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    rc = freeze || cli->n_args > 2 ? create_group(cli, client, freeze) : create_one(cli, client);
    client_close(client);
    return rc;
}

int cmd_snapshot_delete(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *found = NULL, *answer = NULL;
    Lunar__SnapshotDelete delete_op = LUNAR__SNAPSHOT_DELETE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 1, 1, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    rc = snapshot_get(cli, client, cli->args[0], &found);
    if (rc == CLI_OK) {
        delete_op.snapshot_id = found->response->snapshots->snapshots[0]->snapshot_id;
        request.op_case = LUNAR__REQUEST__OP_SNAPSHOT_DELETE;
        request.snapshot_delete = &delete_op;
        rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP__NOT_SET, &answer);
    }
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&found->response->snapshots->snapshots[0]->base),
                         print_unsnapped);
    envelope_free(answer);
    envelope_free(found);
    client_close(client);
    return rc;
}

/* Asks for one page and appends it; *more says that another follows `after`. */
static int snapshots_page(const struct cli *cli, struct client *client, Lunar__SnapshotList *list,
                          char *after, size_t after_size, json_t *snapshots, bool *more)
{
    Lunar__Envelope *answer = NULL;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    list->after = after;
    request.op_case = LUNAR__REQUEST__OP_SNAPSHOT_LIST;
    request.snapshot_list = list;
    int rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_SNAPSHOTS, &answer);
    if (rc != CLI_OK)
        return rc;
    const Lunar__Snapshots *page = answer->response->snapshots;
    for (size_t i = 0; i < page->n_snapshots; i++)
        js_append(snapshots, js_proto(&page->snapshots[i]->base));
    /* One that does not move on would be asked for again for ever. */
    *more = page->more && page->n_snapshots > 0 &&
            strcmp(page->snapshots[page->n_snapshots - 1]->name, after) > 0;
    if (page->n_snapshots > 0)
        snprintf(after, after_size, "%s", page->snapshots[page->n_snapshots - 1]->name);
    envelope_free(answer);
    return CLI_OK;
}

int cmd_snapshot_list(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *found = NULL;
    Lunar__SnapshotList list = LUNAR__SNAPSHOT_LIST__INIT;
    char after[MESSAGE_NAME_MAX + 1] = "";
    bool more = true;

    if (!cli_parse(cli, NULL, 0, 0, 1, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    if (cli->n_args == 1)
        rc = volume_get(cli, client, cli->args[0], &found);
    if (found)
        list.volume_id = found->response->volume->volume_id;
    json_t *doc = json_object(), *snapshots = json_array();
    js_set(doc, "snapshots", snapshots);
    while (more && rc == CLI_OK)
        rc = snapshots_page(cli, client, &list, after, sizeof after, snapshots, &more);
    client_close(client);
    envelope_free(found);
    if (rc == CLI_OK)
        return output_emit(cli, doc, print_snapshots);
    json_decref(doc);
    return rc;
}

int cmd_volume_rollback(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *volume = NULL, *snapshot = NULL, *answer = NULL;
    Lunar__VolumeRollback rollback = LUNAR__VOLUME_ROLLBACK__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 2, 2, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    rc = volume_get(cli, client, cli->args[0], &volume);
    if (rc == CLI_OK)
        rc = snapshot_get(cli, client, cli->args[1], &snapshot);
    if (rc == CLI_OK) {
        rollback.volume_id = volume->response->volume->volume_id;
        rollback.snapshot_id = snapshot->response->snapshots->snapshots[0]->snapshot_id;
        request.op_case = LUNAR__REQUEST__OP_VOLUME_ROLLBACK;
        request.volume_rollback = &rollback;
        rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_VOLUME, &answer);
    }
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->volume->base), volume_print);
    envelope_free(answer);
    envelope_free(snapshot);
    envelope_free(volume);
    client_close(client);
    return rc;
}
