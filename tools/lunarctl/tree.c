/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lunarctl volume tree`: which layer stands on which, whose they are, and who has them open. As
 * text the bottom of each chain comes first and what stands on it below it; it is indented only
 * where more than one stands on the same layer. As dot an arrow leads from a layer to the one that
 * it stands on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "diskrpc/message.h"
#include "output.h"
#include "request.h"

/* Of a chain's length, so that layers that name each other in a ring end, too. */
#define DEPTH_MAX 300u

/* Sorted by parent, then by LV name: the children of one are neighbours. */
struct forest {
    const json_t **layers;
    size_t n;
};

static int by_parent(const void *a, const void *b)
{
    const json_t *one = *(const json_t *const *)a, *two = *(const json_t *const *)b;
    int order = strcmp(js_get_text(one, "parent"), js_get_text(two, "parent"));
    return order ? order : strcmp(js_get_text(one, "lv_name"), js_get_text(two, "lv_name"));
}

static struct forest forest_new(const json_t *doc)
{
    const json_t *list = json_object_get(doc, "layers");
    struct forest f = {calloc(json_array_size(list) + 1, sizeof *f.layers), json_array_size(list)};

    if (!f.layers)
        abort();
    for (size_t i = 0; i < f.n; i++)
        f.layers[i] = json_array_get(list, i);
    qsort(f.layers, f.n, sizeof *f.layers, by_parent);
    return f;
}

/* The first of the children, and their number. */
static size_t children(const struct forest *f, const char *parent, size_t *ret_first)
{
    size_t low = 0, high = f->n, n = 0;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(js_get_text(f->layers[middle], "parent"), parent) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_first = low;
    while (low + n < f->n && strcmp(js_get_text(f->layers[low + n], "parent"), parent) == 0)
        n++;
    return n;
}

/* "volume db", "snapshot before" or "frozen". */
static void what_it_is(const json_t *layer, char ret[300])
{
    const char *volume = js_get_text(layer, "volume"), *snapshot = js_get_text(layer, "snapshot");
    if (*volume)
        snprintf(ret, 300, "volume %s", volume);
    else if (*snapshot)
        snprintf(ret, 300, "snapshot %s", snapshot);
    else
        snprintf(ret, 300, "%s", js_get_text(layer, "role"));
}

/* "  43 %" of what is being copied. */
static void print_progress(const json_t *layer)
{
    uint64_t total = js_get_u64(layer, "total");

    if (total > 0)
        printf("  %u %%", (unsigned)((double)js_get_u64(layer, "done") / (double)total * 100));
}

static void print_layer(const json_t *layer, const char *prefix)
{
    char what[300], size[SIZE_TEXT_SIZE];
    const char *state = js_get_text(layer, "state");
    bool into = strcmp(state, "merging") == 0 || strcmp(state, "merged") == 0;
    size_t i;
    json_t *a;

    what_it_is(layer, what);
    printf("%s%s  %s  %s%s%s%s%s", prefix, what, size_format(js_get_u64(layer, "allocated"), size),
           js_get_text(layer, "lv_name"), *state ? "  " : "", state, into ? " into " : "",
           into ? js_get_text(layer, "parent") : "");
    print_progress(layer);
    json_array_foreach(json_object_get(layer, "attachments"), i, a)
        printf("  on %s", js_get_text(a, "node"));
    printf("\n");
}

/* The layer and all that stand on it. `prefix` goes before its own line, `rest` before the others'.
 */
static void print_tree(const struct forest *f, const json_t *layer, const char *prefix,
                       const char *rest, unsigned depth)
{
    size_t first, n = 1;
    char own[1400];

    snprintf(own, sizeof own, "%s", prefix);
    for (; depth < DEPTH_MAX; depth++) {
        print_layer(layer, own);
        snprintf(own, sizeof own, "%s", rest);
        n = children(f, js_get_text(layer, "lv_name"), &first);
        if (n != 1)
            break;
        layer = f->layers[first];
    }
    for (size_t i = 0; n > 1 && i < n && depth < DEPTH_MAX; i++) {
        char branch[1400], below[1400];
        bool last = i + 1 == n;
        snprintf(branch, sizeof branch, "%.1300s%s", rest, last ? "└─ " : "├─ ");
        snprintf(below, sizeof below, "%.1300s%s", rest, last ? "   " : "│  ");
        print_tree(f, f->layers[first + i], branch, below, depth + 1);
    }
}

static void print_text(const json_t *doc)
{
    struct forest f = forest_new(doc);
    size_t first, n = children(&f, "", &first);

    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            printf("\n");
        print_tree(&f, f.layers[first + i], "", "", 0);
    }
    free(f.layers);
}

/* As dot quotes it: js_text has made everything printable, so these two are what is left. */
static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void print_dot_layer(const json_t *layer)
{
    char what[300], label[700], size[SIZE_TEXT_SIZE];
    const char *role = js_get_text(layer, "role");
    const json_t *a = json_array_get(json_object_get(layer, "attachments"), 0);

    what_it_is(layer, what);
    snprintf(label, sizeof label, "%s, %s%s%s", what,
             size_format(js_get_u64(layer, "allocated"), size), a ? ", on " : "",
             a ? js_get_text(a, "node") : "");
    printf("  ");
    print_quoted(js_get_text(layer, "lv_name"));
    printf(" [shape=%s, label=", strcmp(role, "leaf") == 0       ? "box"
                                 : strcmp(role, "snapshot") == 0 ? "ellipse"
                                                                 : "plain");
    print_quoted(label);
    printf("];\n");
    if (!*js_get_text(layer, "parent"))
        return;
    printf("  ");
    print_quoted(js_get_text(layer, "lv_name"));
    printf(" -> ");
    print_quoted(js_get_text(layer, "parent"));
    printf(";\n");
}

static void print_dot(const json_t *doc)
{
    size_t i;
    json_t *layer;

    printf("digraph layers {\n  rankdir=BT;\n");
    json_array_foreach(json_object_get(doc, "layers"), i, layer) print_dot_layer(layer);
    printf("}\n");
}

static int get_page(const struct cli *cli, struct client *client, char after[64], json_t *layers,
                    bool *more)
{
    Lunar__Envelope *answer = NULL;
    Lunar__TreeGet get = LUNAR__TREE_GET__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;

    get.after = after;
    request.op_case = LUNAR__REQUEST__OP_TREE_GET;
    request.tree_get = &get;
    int rc = request_call(cli, client, &request, LUNAR__RESPONSE__OP_TREE, &answer);
    if (rc != CLI_OK)
        return rc;
    const Lunar__Tree *page = answer->response->tree;
    for (size_t i = 0; i < page->n_layers; i++)
        js_append(layers, js_proto(&page->layers[i]->base));
    /* One that does not move on would be asked for again for ever. */
    *more = page->more && page->n_layers > 0 &&
            strcmp(page->layers[page->n_layers - 1]->lv_name, after) > 0;
    if (page->n_layers > 0)
        snprintf(after, 64, "%s", page->layers[page->n_layers - 1]->lv_name);
    envelope_free(answer);
    return CLI_OK;
}

int cmd_volume_tree(struct cli *cli, int argc, char **argv)
{
    struct client *client;
    char after[64] = "";
    bool more = true;

    cli->dot = true;
    if (!cli_parse(cli, NULL, 0, 0, 0, argc, argv))
        return cli->exit_code;
    int rc = request_open(cli, "agent", &client);
    if (rc != CLI_OK)
        return rc;
    json_t *doc = json_object(), *layers = json_array();
    js_set(doc, "layers", layers);
    while (more && rc == CLI_OK)
        rc = get_page(cli, client, after, layers, &more);
    client_close(client);
    if (rc == CLI_OK)
        return output_emit(cli, doc, strcmp(cli->format, "dot") == 0 ? print_dot : print_text);
    json_decref(doc);
    return rc;
}
