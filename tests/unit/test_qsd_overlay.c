/* SPDX-License-Identifier: Apache-2.0 */
/* What is said to a daemon when its disk gets another leaf: a thread plays the daemon, notes the
 * commands in their order, and refuses one where a test says so. */
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/qsd.h"
#include "support/test.h"

#define SIZE (1ull << 30)

static struct {
    char folder[64], path[96], image[96];
    int listener;
    pthread_t thread;
    const char *leaf;    /* that t0 is on */
    const char *present; /* nodes that are there already */
    const char *refuse;  /* a command; NULL: none */
    bool fresh;          /* the daemon cannot have heard of the overlay */
    char said[4096];     /* commands, each with a space behind it */
    char last[4096];     /* the last line */
} w;

static void send_text(int fd, const char *text)
{
    ssize_t n = send(fd, text, strlen(text), MSG_NOSIGNAL);
    (void)n;
}

static void answer(int fd, const char *command, long long id)
{
    char text[1024];

    if (w.refuse && strcmp(command, w.refuse) == 0)
        snprintf(text, sizeof text, "{\"error\": {\"desc\": \"no\"}, \"id\": %lld}\r\n", id);
    else if (strcmp(command, "query-blockstats") == 0)
        snprintf(text, sizeof text,
                 "{\"return\": [{\"node-name\": \"t0\", \"parent\": {\"node-name\": \"%s\"}}%s], "
                 "\"id\": %lld}\r\n",
                 w.leaf, w.present, id);
    else
        snprintf(text, sizeof text, "{\"return\": {}, \"id\": %lld}\r\n", id);
    send_text(fd, text);
}

static void *serve(void *data)
{
    int fd = accept(w.listener, NULL, NULL);
    FILE *in = fdopen(fd, "r");
    (void)data;

    send_text(fd, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
    while (fgets(w.last, sizeof w.last, in)) {
        json_t *line = json_loads(w.last, 0, NULL);
        const char *command = json_string_value(json_object_get(line, "execute"));
        assert(command);
        if (strcmp(command, "qmp_capabilities") != 0) {
            strcat(w.said, command);
            strcat(w.said, " ");
        }
        answer(fd, command, json_integer_value(json_object_get(line, "id")));
        json_decref(line);
    }
    fclose(in);
    return NULL;
}

static void begin(const char *leaf)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(&w, 0, sizeof w);
    w.leaf = leaf;
    w.present = "";
    strcpy(w.folder, "/tmp/test_overlay.XXXXXX");
    assert(mkdtemp(w.folder));
    snprintf(w.path, sizeof w.path, "%s/qmp.sock", w.folder);
    snprintf(w.image, sizeof w.image, "image.%d", (int)getpid());
    memcpy(address.sun_path, w.path, strlen(w.path) + 1);
    w.listener = socket(AF_UNIX, SOCK_STREAM, 0);
    int rc = bind(w.listener, (const struct sockaddr *)&address, sizeof address);
    assert(rc == 0 && listen(w.listener, 1) == 0);
    rc = pthread_create(&w.thread, NULL, serve, NULL);
    assert(rc == 0);
}

static void put(uint8_t *at, int bytes, uint64_t n)
{
    for (int i = bytes; i-- > 0; n >>= 8)
        at[i] = (uint8_t)n;
}

/* An empty image of `size`, as a format job makes it. */
static void make_image(uint64_t size)
{
    static uint8_t image[4 * 65536];
    int fd = open(w.image, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    memset(image, 0, sizeof image);
    put(image, 4, 0x514649fb);
    put(image + 4, 4, 3);
    put(image + 20, 4, 16);
    put(image + 24, 8, size);
    put(image + 36, 4, 4);
    put(image + 40, 8, 3 * 65536);
    ssize_t n = write(fd, image, sizeof image);
    assert(n == (ssize_t)sizeof image);
    close(fd);
}

static int overlay(struct error *err)
{
    struct qsd_layer over = {.volume_short = 0xab, .index = 1}, below = {.volume_short = 0xab};
    struct qsd_config config = {.run_dir = w.folder, .name = "v", .size = SIZE};
    int pause_us;

    snprintf(over.path, sizeof over.path, "%s", w.image);
    strcpy(below.path, "/dev/dm-7");
    int rc = qsd_overlay(&config, &over, &below, w.fresh, &pause_us, err);
    pthread_join(w.thread, NULL);
    close(w.listener);
    unlink(w.path);
    unlink(w.image);
    rmdir(w.folder);
    return rc;
}

#define OVER  "v-00000000000000ab.1"
#define BELOW "v-00000000000000ab.0"

static void the_former_leaf_is_closed_for_writing_last(void)
{
    struct error err = ERROR_INIT;
    begin(BELOW);
    make_image(SIZE);
    CHECK_EQ(overlay(&err), 0);
    CHECK_STR(w.said,
              "query-blockstats blockdev-add blockdev-add blockdev-snapshot blockdev-reopen ");
    CHECK(strstr(w.last, "\"read-only\":true"));
    CHECK(strstr(w.last, "p-00000000000000ab.0") && strstr(w.last, "/dev/dm-7"));
}

static void what_it_cannot_have_heard_of_it_is_not_asked_for(void)
{
    struct error err = ERROR_INIT;
    begin(BELOW);
    make_image(SIZE);
    w.fresh = true;
    CHECK_EQ(overlay(&err), 0);
    CHECK_STR(w.said, "blockdev-add blockdev-add blockdev-snapshot blockdev-reopen ");
}

static void a_smaller_overlay_is_grown_before_it_is_put_over(void)
{
    struct error err = ERROR_INIT;
    begin(BELOW);
    make_image(SIZE / 2);
    CHECK_EQ(overlay(&err), 0);
    CHECK_STR(w.said, "query-blockstats blockdev-add blockdev-add block_resize blockdev-snapshot "
                      "blockdev-reopen ");
    begin(BELOW);
    make_image(2 * SIZE);
    CHECK_EQ(overlay(&err), LUNAR_E_METADATA);
    CHECK_STR(w.said, "query-blockstats ");
}

static void what_stands_is_only_proved_and_not_read(void)
{
    struct error err = ERROR_INIT;
    begin(OVER); /* the image has data by now */
    CHECK_EQ(overlay(&err), 0);
    CHECK_STR(w.said, "query-blockstats blockdev-reopen ");
}

static void nodes_of_an_attempt_that_was_cut_short_are_used(void)
{
    struct error err = ERROR_INIT;
    begin(BELOW);
    make_image(SIZE);
    w.present = ", {\"node-name\": \"p-00000000000000ab.1\"}";
    CHECK_EQ(overlay(&err), 0);
    CHECK_STR(w.said, "query-blockstats blockdev-add blockdev-snapshot blockdev-reopen ");
    begin(BELOW);
    make_image(SIZE);
    w.present = ", {\"node-name\": \"p-00000000000000ab.1\"}, {\"node-name\": \"" OVER "\"}";
    CHECK_EQ(overlay(&err), 0);
    CHECK_STR(w.said, "query-blockstats blockdev-snapshot blockdev-reopen ");
}

static void safety_16_nothing_is_put_over_a_third_leaf_or_by_an_image_in_use(void)
{
    struct error err = ERROR_INIT;
    begin("v-00000000000000ab.9");
    make_image(SIZE);
    CHECK_EQ(overlay(&err), LUNAR_E_STALE);
    CHECK_STR(w.said, "query-blockstats ");
    begin(BELOW);
    make_image(SIZE);
    int fd = open(w.image, O_WRONLY);
    ssize_t n = pwrite(fd, "x", 1, 3 * 65536 + 9);
    close(fd);
    CHECK_EQ(n, 1);
    CHECK_EQ(overlay(&err), LUNAR_E_CORRUPT);
    CHECK_STR(w.said, "query-blockstats ");
}

static void safety_15_a_former_leaf_that_may_be_written_is_no_success(void)
{
    struct error err = ERROR_INIT;
    begin(BELOW);
    make_image(SIZE);
    w.refuse = "blockdev-reopen";
    CHECK_EQ(overlay(&err), LUNAR_E_QMP);
    begin(BELOW);
    make_image(SIZE);
    w.refuse = "blockdev-snapshot";
    CHECK_EQ(overlay(&err), LUNAR_E_QMP);
    CHECK_STR(w.said, "query-blockstats blockdev-add blockdev-add blockdev-snapshot ");
}

int main(void)
{
    static const struct test_case cases[] = {
        TEST(the_former_leaf_is_closed_for_writing_last),
        TEST(what_it_cannot_have_heard_of_it_is_not_asked_for),
        TEST(a_smaller_overlay_is_grown_before_it_is_put_over),
        TEST(what_stands_is_only_proved_and_not_read),
        TEST(nodes_of_an_attempt_that_was_cut_short_are_used),
        TEST(safety_16_nothing_is_put_over_a_third_leaf_or_by_an_image_in_use),
        TEST(safety_15_a_former_leaf_that_may_be_written_is_no_success),
    };
    int fd = open("test_qsd_overlay.direct", O_RDWR | O_CREAT | O_DIRECT, 0600);

    unlink("test_qsd_overlay.direct");
    if (fd < 0) {
        printf("# skipped: no O_DIRECT file here\n");
        return 77;
    }
    close(fd);
    return test_run_all(cases, (int)(sizeof cases / sizeof *cases));
}
