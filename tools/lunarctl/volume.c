/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl volume ...`. A name is resolved once, to the volume's UUID (and, for a detach, the
 * attachment's), and only these travel in what changes something: a request that is carried out
 * late cannot hit a volume that was made anew under the same name, or a second attachment (SAFETY
 * 6).
 */
#include "output.h"
#include "volume.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "coordinator/catalogue.h"
#include "diskrpc/message.h"

static void attached_text(const json_t *volume, char *ret, size_t size)
{
    size_t i, at = 0;
    json_t *a;
    ret[0] = '\0';
    json_array_foreach(json_object_get(volume, "attachments"), i, a)
    {
        int n = snprintf(ret + at, size - at, "%s%s", i ? "," : "", js_get_text(a, "node"));
        if (n < 0 || (size_t)n >= size - at)
            return;
        at += (size_t)n;
    }
}

static void print_volumes(const json_t *doc)
{
    static const char *const headers[] = {"NAME",  ">SIZE",    ">ALLOCATED", "KIND",
                                          "STATE", "ATTACHED", "ID"};
    struct text_table *t = text_table_new(headers, 7);
    size_t i;
    json_t *v;

    json_array_foreach(json_object_get(doc, "volumes"), i, v)
    {
        char size[SIZE_TEXT_SIZE], allocated[SIZE_TEXT_SIZE], attached[512];
        attached_text(v, attached, sizeof attached);
        size_format(js_get_u64(v, "size"), size);
        size_format(js_get_u64(v, "allocated"), allocated);
        text_table_row(t, (const char *[]){js_get_text(v, "name"), size, allocated,
                                           js_get_bool(v, "thick") ? "thick" : "thin",
                                           *js_get_text(v, "condition")
                                               ? "waiting" /* volume show says why */
                                               : js_get_text(v, "state"),
                                           attached, js_get_text(v, "volume_id")});
    }
    text_table_print(t, 0);
}

void volume_print(const json_t *v)
{
    char size[SIZE_TEXT_SIZE], allocated[SIZE_TEXT_SIZE];
    size_t i;
    json_t *a;

    printf("name       %s\n", js_get_text(v, "name"));
    printf("id         %s\n", js_get_text(v, "volume_id"));
    printf("size       %s, %s allocated in %" PRIu64 " layer(s)\n",
           size_format(js_get_u64(v, "size"), size),
           size_format(js_get_u64(v, "allocated"), allocated), js_get_u64(v, "layers"));
    printf("kind       %s\n", js_get_bool(v, "thick") ? "thick" : "thin");
    printf("state      %s\n", js_get_text(v, "state"));
    if (*js_get_text(v, "condition"))
        printf("condition  %s\n", js_get_text(v, "condition"));
    if (json_array_size(json_object_get(v, "attachments")) == 0)
        printf("attached   nowhere\n");
    json_array_foreach(json_object_get(v, "attachments"), i, a)
        printf("attached   %s (host %" PRIu64 "), %s, attachment %s\n", js_get_text(a, "node"),
               js_get_u64(a, "host_id"), js_get_text(a, "state"), js_get_text(a, "attachment_id"));
}

static void print_device(const json_t *v)
{
    printf("%s\n", js_get_text(v, "device"));
}

static void print_detached(const json_t *v)
{
    printf("detached %s\n", js_get_text(v, "name"));
}

static void print_deleted(const json_t *v)
{
    printf("deleted %s\n", js_get_text(v, "name"));
}

int volume_get(const struct cli *cli, struct client *client, const char *name,
               Lunar__Envelope **ret)
{
    struct uuid id;
    struct error err = ERROR_INIT;
    Lunar__VolumeGet get = LUNAR__VOLUME_GET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    request.op_case = LUNAR__REQUEST__OP_VOLUME_GET;
    request.volume_get = &get;
    if (uuid_parse(name, &id) == 0)
        get.volume_id = uuid_to_pb(&id);
    else if (volume_name_check(name, &err) < 0)
        return cli_usage(cli, "%s", err.text);
    else
        get.name = (char *)(uintptr_t)name;
    return request_call(cli, client, &request, LUNAR__RESPONSE__OP_VOLUME, ret);
}

/* Connects and resolves the command's NAME; on failure nothing is left open. */
static int open_volume(const struct cli *cli, struct client **ret_client, Lunar__Envelope **ret)
{
    int rc = request_open(cli, "agent", ret_client);
    if (rc != CLI_OK)
        return rc;
    rc = volume_get(cli, *ret_client, cli->args[0], ret);
    if (rc != CLI_OK)
        client_close(*ret_client);
    return rc;
}

/* Of a clone; *ret holds what `create` then points into. */
static int find_source(const struct cli *cli, struct client *client, const char *snapshot,
                       const char *volume, Lunar__VolumeCreate *create, Lunar__Envelope **ret)
{
    int rc = CLI_OK;

    if (snapshot)
        rc = snapshot_get(cli, client, snapshot, ret);
    else if (volume)
        rc = volume_get(cli, client, volume, ret);
    if (rc == CLI_OK && snapshot)
        create->source_snapshot_id = (*ret)->response->snapshots->snapshots[0]->snapshot_id;
    else if (rc == CLI_OK && volume)
        create->source_volume_id = (*ret)->response->volume->volume_id;
    return rc;
}

int cmd_volume_create(struct cli *cli, int argc, char **argv)
{
    uint64_t size = 0;
    bool thick = false;
    const char *snapshot = NULL, *volume = NULL;
    const struct cli_option options[] = {
        {"size", 's', CLI_SIZE, &size, VOLUME_SIZE_MIN, VOLUME_SIZE_MAX, "SIZE",
         "virtual size, as 10GiB (required, but for a clone)"},
        {"thick", 0, CLI_FLAG, &thick, 0, 0, NULL, "allocate and zero all of it now"},
        {"from-snapshot", 0, CLI_TEXT, &snapshot, 0, 0, "SNAPSHOT", "a clone of that snapshot"},
        {"from-volume", 0, CLI_TEXT, &volume, 0, 0, "VOLUME",
         "a clone of that volume as it is now"},
    };
    struct client *client;
    struct error err = ERROR_INIT;
    Lunar__Envelope *answer = NULL, *source = NULL;
    Lunar__VolumeCreate create = LUNAR__VOLUME_CREATE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, options, 4, 1, 1, argc, argv))
        return cli->exit_code;
    if (snapshot && volume)
        return cli_usage(cli, "a clone has one source");
    if (size == 0 && !snapshot && !volume)
        return cli_usage(cli, "--size is missing");
    if (volume_name_check(cli->args[0], &err) < 0 || (size && volume_size_check(size, &err) < 0))
        return cli_usage(cli, "%s", err.text);
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    create.name = cli->args[0];
    create.size = size;
    create.thick = thick;
    request.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
    request.volume_create = &create;
    rc = find_source(cli, client, snapshot, volume, &create, &source);
    if (rc == CLI_OK)
        rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_VOLUME, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->volume->base), volume_print);
    envelope_free(answer);
    envelope_free(source);
    client_close(client);
    return rc;
}

/* Asks for one page and appends it; *more says that another follows `after`. */
static int list_page(const struct cli *cli, struct client *client, char *after, size_t after_size,
                     json_t *volumes, bool *more)
{
    Lunar__Envelope *answer = NULL;
    Lunar__VolumeList list = LUNAR__VOLUME_LIST__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    list.after = after;
    request.op_case = LUNAR__REQUEST__OP_VOLUME_LIST;
    request.volume_list = &list;
    int rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_VOLUMES, &answer);
    if (rc != CLI_OK)
        return rc;
    const Lunar__Volumes *page = answer->response->volumes;
    for (size_t i = 0; i < page->n_volumes; i++)
        js_append(volumes, js_proto(&page->volumes[i]->base));
    /* An empty page that promises more, or one that does not move on, would be asked for again for
     * ever. */
    *more = page->more && page->n_volumes > 0;
    if (page->n_volumes > 0) {
        const char *last = page->volumes[page->n_volumes - 1]->name;
        if (strcmp(last, after) <= 0)
            *more = false;
        snprintf(after, after_size, "%s", last);
    }
    envelope_free(answer);
    return CLI_OK;
}

int cmd_volume_list(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    char after[MESSAGE_NAME_MAX + 1] = "";
    bool more = true;

    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    json_t *doc = json_object(), *volumes = json_array();
    js_set(doc, "volumes", volumes);
    while (more && rc == CLI_OK)
        rc = list_page(cli, client, after, sizeof after, volumes, &more);
    client_close(client);
    if (rc == CLI_OK)
        return output_emit(cli, doc, print_volumes);
    json_decref(doc);
    return rc;
}

int cmd_volume_show(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *found;

    if (!cli_parse(cli, NULL, 0, 1, 1, argc, argv))
        return cli->exit_code;
    int rc = open_volume(cli, &client, &found);
    if (rc != CLI_OK)
        return rc;
    rc = output_emit(cli, js_proto(&found->response->volume->base), volume_print);
    envelope_free(found);
    client_close(client);
    return rc;
}

int cmd_volume_attach(struct cli *cli, int argc, char **argv)
{
    const char *node = "";
    const struct cli_option options[] = {
        {"node", 0, CLI_TEXT, &node, 0, 0, "NODE", "attach it there (default: this node)"},
    };
    struct client *client;
    Lunar__Envelope *found, *answer = NULL;
    Lunar__VolumeAttach attach = LUNAR__VOLUME_ATTACH__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, options, 1, 1, 1, argc, argv))
        return cli->exit_code;
    int rc = open_volume(cli, &client, &found);
    if (rc != CLI_OK)
        return rc;
    attach.volume_id = found->response->volume->volume_id;
    attach.node = (char *)(uintptr_t)node;
    request.op_case = LUNAR__REQUEST__OP_VOLUME_ATTACH;
    request.volume_attach = &attach;
    rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_VOLUME, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->volume->base), print_device);
    envelope_free(answer);
    envelope_free(found);
    client_close(client);
    return rc;
}

/* Which attachment a detach means: the one named, else the volume's only one, else none (zero; the
 * coordinator then says what it thinks of detaching a volume that is not attached). */
static int choose_attachment(const struct cli *cli, const Lunar__Volume *v, const char *text,
                             struct uuid *ret)
{
    memset(ret, 0, sizeof *ret);
    if (text && uuid_parse(text, ret) < 0)
        return cli_usage(cli, "--attachment takes a UUID");
    for (size_t i = 0; text && i < v->n_attachments; i++) {
        struct uuid one = uuid_from_pb(v->attachments[i]->attachment_id);
        if (uuid_equal(&one, ret))
            return CLI_OK;
    }
    if (text && v->n_attachments > 0) {
        struct error err = ERROR_INIT;
        error_set(&err, LUNAR_E_NOT_FOUND, "%s has no attachment %s; it is attached to node '%s'",
                  v->name, text, v->attachments[0]->node);
        return cli_fail(cli, err.code, &err);
    }
    if (text)
        return CLI_OK; /* not attached at all: that is what was asked for */
    if (v->n_attachments > 1)
        return cli_usage(
            cli, "%s has %zu attachments: choose one with --attachment (volume show lists them)",
            v->name, v->n_attachments);
    if (v->n_attachments == 1)
        *ret = uuid_from_pb(v->attachments[0]->attachment_id);
    return CLI_OK;
}

int cmd_volume_detach(struct cli *cli, int argc, char **argv)
{
    const char *attachment = NULL;
    const struct cli_option options[] = {
        {"attachment", 0, CLI_TEXT, &attachment, 0, 0, "UUID",
         "which attachment (default: the volume's only one)"},
    };
    struct client *client;
    struct uuid attachment_id;
    Lunar__Envelope *found, *answer = NULL;
    Lunar__VolumeDetach detach = LUNAR__VOLUME_DETACH__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, options, 1, 1, 1, argc, argv))
        return cli->exit_code;
    int rc = open_volume(cli, &client, &found);
    if (rc != CLI_OK)
        return rc;
    rc = choose_attachment(cli, found->response->volume, attachment, &attachment_id);
    detach.volume_id = found->response->volume->volume_id;
    detach.attachment_id = uuid_to_pb(&attachment_id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_DETACH;
    request.volume_detach = &detach;
    if (rc == CLI_OK)
        rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP__NOT_SET, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&found->response->volume->base), print_detached);
    envelope_free(answer);
    envelope_free(found);
    client_close(client);
    return rc;
}

int cmd_volume_expand(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    struct error err = ERROR_INIT;
    Lunar__Envelope *found, *answer = NULL;
    Lunar__VolumeExpand expand = LUNAR__VOLUME_EXPAND__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 2, 2, argc, argv))
        return cli->exit_code;
    if (size_parse(cli->args[1], &expand.size, &err) < 0 ||
        volume_size_check(expand.size, &err) < 0)
        return cli_usage(cli, "%s", err.text);
    int rc = open_volume(cli, &client, &found);
    if (rc != CLI_OK)
        return rc;
    expand.volume_id = found->response->volume->volume_id;
    request.op_case = LUNAR__REQUEST__OP_VOLUME_EXPAND;
    request.volume_expand = &expand;
    rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_VOLUME, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&answer->response->volume->base), volume_print);
    envelope_free(answer);
    envelope_free(found);
    client_close(client);
    return rc;
}

static void print_trimmed(const json_t *v)
{
    char freed[SIZE_TEXT_SIZE], allocated[SIZE_TEXT_SIZE];

    printf("trimmed %s: %s given back, %s allocated\n", js_get_text(v, "name"),
           size_format(js_get_u64(v, "freed"), freed),
           size_format(js_get_u64(v, "allocated"), allocated));
}

int cmd_volume_trim(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *found, *answer = NULL;
    Lunar__VolumeTrim trim = LUNAR__VOLUME_TRIM__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 1, 1, argc, argv))
        return cli->exit_code;
    int rc = open_volume(cli, &client, &found);
    if (rc != CLI_OK)
        return rc;
    uint64_t before = found->response->volume->allocated;
    trim.volume_id = found->response->volume->volume_id;
    request.op_case = LUNAR__REQUEST__OP_VOLUME_TRIM;
    request.volume_trim = &trim;
    rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_VOLUME, &answer);
    if (rc == CLI_OK) {
        uint64_t after = answer->response->volume->allocated;
        json_t *doc = js_proto(&answer->response->volume->base);
        js_set(doc, "freed", js_u64(before > after ? before - after : 0));
        rc = output_emit(cli, doc, print_trimmed);
    }
    envelope_free(answer);
    envelope_free(found);
    client_close(client);
    return rc;
}

int cmd_volume_delete(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    Lunar__Envelope *found, *answer = NULL;
    Lunar__VolumeDelete delete_op = LUNAR__VOLUME_DELETE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    if (!cli_parse(cli, NULL, 0, 1, 1, argc, argv))
        return cli->exit_code;
    int rc = open_volume(cli, &client, &found);
    if (rc != CLI_OK)
        return rc;
    delete_op.volume_id = found->response->volume->volume_id;
    request.op_case = LUNAR__REQUEST__OP_VOLUME_DELETE;
    request.volume_delete = &delete_op;
    rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP__NOT_SET, &answer);
    if (rc == CLI_OK)
        rc = output_emit(cli, js_proto(&found->response->volume->base), print_deleted);
    envelope_free(answer);
    envelope_free(found);
    client_close(client);
    return rc;
}
