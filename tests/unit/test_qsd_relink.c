/* SPDX-License-Identifier: Apache-2.0 */
/* What is said to a daemon when layers leave its chain: a thread plays the daemon, keeps the list
 * of its nodes and who stands upon whom, and notes the commands in their order. */
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/qsd.h"
#include "support/test.h"

#define NODES_MAX 32

struct fake_node {
    char name[QSD_NODE_SIZE], file[QSD_NODE_SIZE], backing[QSD_NODE_SIZE];
};

static struct {
    char folder[64], path[96];
    int listener;
    pthread_t thread;
    struct fake_node nodes[NODES_MAX];
    int n_nodes;
    const char *leaf; /* that t0 is on */
    int dies_at;      /* hangs up instead of answering this command, from 1; 0: never */
    int commands;
    char said[4096]; /* commands, each with a space behind it */
    char reopened[4096];
} w;

static struct fake_node *find(const char *name)
{
    for (int i = 0; i < w.n_nodes; i++)
        if (name && strcmp(w.nodes[i].name, name) == 0)
            return &w.nodes[i];
    return NULL;
}

static void add_node(const char *name, const char *file, const char *backing)
{
    assert(w.n_nodes < NODES_MAX && !find(name));
    struct fake_node *n = &w.nodes[w.n_nodes++];
    memset(n, 0, sizeof *n);
    snprintf(n->name, sizeof n->name, "%s", name);
    snprintf(n->file, sizeof n->file, "%s", file ? file : "");
    snprintf(n->backing, sizeof n->backing, "%s", backing ? backing : "");
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static bool is_read(const char *name)
{
    for (int i = 0; i < w.n_nodes; i++)
        if (strcmp(w.nodes[i].file, name) == 0 || strcmp(w.nodes[i].backing, name) == 0)
            return true;
    return false;
}

/* NULL: done; else QEMU's words. */
static const char *change(const char *command, const json_t *arguments)
{
    const char *name = text_of(arguments, "node-name");
    const json_t *one;
    size_t i;

    if (strcmp(command, "blockdev-add") == 0) {
        const char *file = text_of(arguments, "file"), *backing = text_of(arguments, "backing");
        if (find(name) || (file && !find(file)) || (backing && !find(backing)))
            return "duplicate or missing node";
        add_node(name, file, backing);
    } else if (strcmp(command, "blockdev-reopen") == 0) {
        json_array_foreach(json_object_get(arguments, "options"), i, one)
        {
            struct fake_node *n = find(text_of(one, "node-name"));
            const char *backing = text_of(one, "backing");
            if (!n || (backing && !find(backing)))
                return "no such node";
            snprintf(n->backing, sizeof n->backing, "%s", backing ? backing : "");
            snprintf(w.reopened + strlen(w.reopened), sizeof w.reopened - strlen(w.reopened),
                     "%s=%s%s ", n->name, backing,
                     json_is_true(json_object_get(one, "read-only")) ? "" : "(rw)");
        }
    } else if (strcmp(command, "blockdev-del") == 0) {
        struct fake_node *n = find(name);
        if (!n || is_read(name))
            return "node is used";
        *n = w.nodes[--w.n_nodes];
    }
    return NULL;
}

static json_t *statistics(void)
{
    json_t *list = json_pack("[{s:s, s:{s:s}}]", "node-name", "t0", "parent", "node-name", w.leaf);
    for (int i = 0; i < w.n_nodes; i++)
        json_array_append_new(list, json_pack("{s:s}", "node-name", w.nodes[i].name));
    return list;
}

static void send_json(int fd, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    ssize_t n = send(fd, text, strlen(text), MSG_NOSIGNAL);
    n += send(fd, "\r\n", 2, MSG_NOSIGNAL);
    free(text);
    json_decref(json);
}

static void note(const char *command, const json_t *arguments)
{
    const char *name = text_of(arguments, "node-name");
    bool deletes = strcmp(command, "blockdev-del") == 0;

    snprintf(w.said + strlen(w.said), sizeof w.said - strlen(w.said), "%s%s%s ",
             deletes                                ? "-"
             : strcmp(command, "blockdev-add") == 0 ? "+"
                                                    : "",
             name ? name : command, "");
}

/* False: it hangs up. */
static bool act(int fd, const json_t *line)
{
    const char *command = text_of(line, "execute"), *why = NULL;
    const json_t *arguments = json_object_get(line, "arguments");
    json_int_t id = json_integer_value(json_object_get(line, "id"));

    if (strcmp(command, "qmp_capabilities") != 0) {
        note(command, arguments);
        why = change(command, arguments);
        if (++w.commands == w.dies_at)
            return false; /* it has done it, and nobody hears of it */
    }
    if (why)
        send_json(fd, json_pack("{s:{s:s}, s:I}", "error", "desc", why, "id", id));
    else if (strcmp(command, "query-blockstats") == 0)
        send_json(fd, json_pack("{s:o, s:I}", "return", statistics(), "id", id));
    else
        send_json(fd, json_pack("{s:{}, s:I}", "return", "id", id));
    return true;
}

static void *serve(void *data)
{
    char text[8192];
    int fd = accept(w.listener, NULL, NULL);
    FILE *in = fdopen(fd, "r");
    bool goes_on = true;
    (void)data;

    send_json(fd, json_pack("{s:{}}", "QMP"));
    while (goes_on && fgets(text, sizeof text, in)) {
        json_t *line = json_loads(text, 0, NULL);
        goes_on = act(fd, line);
        json_decref(line);
    }
    fclose(in);
    return NULL;
}

#define V(i) "v-00000000000000ab." #i
#define P(i) "p-00000000000000ab." #i
#define W(i) "w-00000000000000ab." #i
#define Q(i) "q-00000000000000ab." #i

/* [4, 3, 2, 1, 0], added in an order that overlays bring about. */
static void begin(void)
{
    memset(&w, 0, sizeof w);
    w.leaf = V(4);
    static const char *const nodes[][3] = {
        {P(2), NULL, NULL}, {V(2), P(2), V(1)}, {P(1), NULL, NULL}, {V(1), P(1), V(0)},
        {P(0), NULL, NULL}, {V(0), P(0), NULL}, {P(3), NULL, NULL}, {V(3), P(3), V(2)},
        {P(4), NULL, NULL}, {V(4), P(4), V(3)}};
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        add_node(nodes[i][0], nodes[i][1], nodes[i][2]);
    strcpy(w.folder, "/tmp/test_relink.XXXXXX");
    char *made = mkdtemp(w.folder);
    assert(made);
    snprintf(w.path, sizeof w.path, "%s/qmp.sock", w.folder);
}

/* Indices of the chain, leaf first, each with a '+' behind it that has the second names. */
static int relink(const char *chain, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct qsd_layer layers[8] = {{0}};
    struct qsd_config config = {.run_dir = w.folder, .name = "v", .layers = layers};
    int pause_us;

    for (const char *p = chain; *p; p++)
        if (*p == '+')
            layers[config.n_layers - 1].second = true;
        else
            layers[config.n_layers++] =
                (struct qsd_layer){.volume_short = 0xab, .index = (uint32_t)(*p - '0')};
    memcpy(address.sun_path, w.path, strlen(w.path) + 1);
    w.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    int rc = bind(w.listener, (const struct sockaddr *)&address, sizeof address);
    assert(rc == 0 && listen(w.listener, 1) == 0);
    rc = pthread_create(&w.thread, NULL, serve, NULL);
    assert(rc == 0);
    rc = qsd_relink(&config, &pause_us, err);
    pthread_join(w.thread, NULL);
    close(w.listener);
    unlink(w.path);
    return rc;
}

static void end(void)
{
    rmdir(w.folder);
}

/* What is read through the disk now, leaf first; the nodes must be these alone, with their files.
 */
static const char *chain_now(void)
{
    static char text[256];
    int n = 0;

    text[0] = '\0';
    for (const struct fake_node *v = find(w.leaf); v; v = find(v->backing), n += 2) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%c%s", v->name[0],
                 strrchr(v->name, '.') + 1);
        if (!find(v->file) || v->file[0] != v->name[0] - 6)
            return "a node without its file";
    }
    return n == w.n_nodes ? text : "nodes are left";
}

static void the_layer_below_is_opened_anew_before_anybody_is_put_upon_it(void)
{
    struct error err = ERROR_INIT;
    begin();
    CHECK_EQ(relink("42+10", &err), 0);
    CHECK_STR(w.said, "query-blockstats +" Q(2) " +" W(2) " blockdev-reopen -" V(3) " -" V(
                          2) " -" P(3) " -" P(2) " ");
    CHECK_STR(w.reopened, V(4) "=" W(2) "(rw) ");
    CHECK_STR(chain_now(), "v4w2v1v0");
    w.said[0] = '\0';
    CHECK_EQ(relink("42+10", &err), 0); /* the same again */
    CHECK_STR(w.said, "query-blockstats ");
    w.reopened[0] = '\0';
    CHECK_EQ(relink("42+0+", &err), 0); /* a frozen layer gets another below */
    CHECK_STR(w.reopened, W(2) "=" W(0) " ");
    CHECK_STR(chain_now(), "v4w2w0");
    CHECK_EQ(relink("40", &err), 0); /* and the first names again */
    CHECK_STR(chain_now(), "v4v0");
    end();
}

static void two_gaps_are_closed_by_one_reopen(void)
{
    struct error err = ERROR_INIT;
    begin();
    CHECK_EQ(relink("42+0+", &err), 0);
    CHECK_STR(w.reopened, V(4) "=" W(2) "(rw) "); /* 2 was opened upon the new 0 */
    CHECK_STR(chain_now(), "v4w2w0");
    end();
}

/* Whoever dies at whichever command: the same again comes to the same end, and in between the disk
 * has a whole chain. */
static void a_relink_cut_short_anywhere_is_gone_on_with(void)
{
    static const char *const chains[][2] = {
        {"42+10", "v4w2v1v0"}, {"430+", "v4v3w0"}, {"42+0+", "v4w2w0"}, {"40+", "v4w0"}};

    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++)
        for (int at = 1, done = 0; !done; at++) {
            struct error err = ERROR_INIT;
            begin();
            w.dies_at = at;
            done = relink(chains[i][0], &err) == 0;
            bool whole = false;
            for (const struct fake_node *v = find(w.leaf); v; v = find(v->backing))
                whole = v->name[0] == 'v' || v->name[0] == 'w' ? v->backing[0] == '\0' : false;
            CHECK(whole);
            w.dies_at = 0;
            CHECK_EQ(relink(chains[i][0], &err), 0);
            CHECK_STR(chain_now(), chains[i][1]);
            end();
        }
}

static void another_leaf_is_not_touched(void)
{
    struct error err = ERROR_INIT;
    begin();
    CHECK_EQ(relink("32+10", &err), LUNAR_E_STALE);
    CHECK_STR(w.said, "query-blockstats ");
    end();
}

/* A node that is read by something else: it is no success. */
static void safety_14_a_layer_that_is_still_read_is_not_dropped(void)
{
    struct error err = ERROR_INIT;
    begin();
    add_node("other", V(3), NULL);
    CHECK_EQ(relink("42+10", &err), LUNAR_E_QMP);
    CHECK(find(V(3)) && find(P(3)));
    end();
}

TEST_MAIN(TEST(the_layer_below_is_opened_anew_before_anybody_is_put_upon_it),
          TEST(two_gaps_are_closed_by_one_reopen),
          TEST(a_relink_cut_short_anywhere_is_gone_on_with), TEST(another_leaf_is_not_touched),
          TEST(safety_14_a_layer_that_is_still_read_is_not_dropped))
