/* SPDX-License-Identifier: Apache-2.0 */
/* `lun dump --watch` on an image that the tests write with the daemons' own codecs: each change is
 * one line, and what only shows that somebody lives is none. */
#include "support/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#include "../../tools/lunarctl/dump_area.c"
#include "../../tools/lunarctl/dump_pages.c"
#include "../../tools/lunarctl/dump_watch.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/watch.c"
#include "support/temp_lun.h"

static struct superblock sb;
static char path[TEMP_LUN_PATH_SIZE];
static int fd = -1;
static struct page up;

/* An image with the up page of node 2 on it. */
static void make_image(void)
{
    struct error err = ERROR_INIT;

    temp_lun_close(fd, path);
    memset(&sb, 0, sizeof sb);
    sb.state = SUPERBLOCK_READY;
    sb.pool_id = uuid_random();
    strcpy(sb.pool_name, "demo");
    if (layout_compute(4, 512, &sb.layout, &err) < 0)
        abort();
    fd = temp_lun_open(sb.layout.area_start + sb.layout.area_size, path);
    memset(&up, 0, sizeof up);
    up.kind = PAGE_UP;
    up.slot = 2;
    up.pool_id = sb.pool_id;
    up.writer = (struct incarnation){2, 5, 9};
    up.peer = (struct incarnation){1, 4, 14};
    up.term = 14;
    up.page_seq = 77;
    up.first_seq = 30;
    strcpy(up.node_name, "node-b");
}

#define NEED_IMAGE()                                                                               \
    make_image();                                                                                  \
    if (fd < 0)                                                                                    \
        SKIP("no O_DIRECT in the temporary folder");                                               \
    write_up()

static void write_at(uint64_t offset, const void *data, size_t len)
{
    uint8_t *buffer = io_alloc(PAGE_SIZE_BYTES);
    memcpy(buffer, data, len);
    if (io_write(fd, buffer, PAGE_SIZE_BYTES, offset, NULL) < 0)
        abort();
    free(buffer);
}

static void write_up(void)
{
    uint8_t buffer[PAGE_SIZE_BYTES];
    page_out(&up, buffer);
    write_at(layout_up_page(&sb.layout, 2), buffer, sizeof buffer);
}

/* A ping request into the page. */
static void append_ping(uint8_t id_byte)
{
    struct uuid id = {{id_byte, 0xcd, 0xef, 0x01}};
    Lunar__Ping ping = LUNAR__PING__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    uint8_t *bytes;
    uint32_t len;

    request.id = uuid_to_pb(&id);
    request.op_case = LUNAR__REQUEST__OP_PING;
    request.ping = &ping;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0 || !page_append(&up, bytes, len))
        abort();
    free(bytes);
}

static void write_grant(uint64_t seq, bool with_entry, enum table_state state, bool report)
{
    struct table table;
    struct error err = ERROR_INIT;

    table_init(&table, report ? TABLE_REPORTS : TABLE_GRANTS, 2, &sb.pool_id);
    table.writer = report ? (struct incarnation){2, 5, 9} : (struct incarnation){1, 4, 14};
    table.term = 14;
    table.seq = seq;
    if (with_entry) {
        struct table_entry *e = table_add(&table);
        e->volume_id = (struct uuid){{0x11}};
        e->attachment_id = (struct uuid){{0x22}};
        e->generation = 5;
        e->term = 14;
        e->mode = TABLE_MODE_ATTACH;
        e->state = state;
    }
    if (table_write(fd, &sb.layout, &table, 0, &err) < 0)
        abort();
    table_free(&table);
}

/* The text of the changes since the look before; *look becomes this one. */
static char text[4096];
static size_t changes_since(json_t **look, bool all)
{
    json_t *now = dump_watch_look(fd, &sb), *changes, *c;
    int old = dup(1);
    FILE *file = tmpfile();
    size_t i;

    changes = dump_watch_changes(*look, now, 1700000000000000, all);
    fflush(stdout);
    dup2(fileno(file), 1);
    json_array_foreach(changes, i, c) dump_watch_print(c);
    fflush(stdout);
    dup2(old, 1);
    close(old);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    size_t n = json_array_size(changes);
    json_decref(changes);
    json_decref(*look);
    *look = now;
    return n;
}

static void an_area_at_rest_has_no_changes(void)
{
    NEED_IMAGE();
    json_t *look = dump_watch_look(fd, &sb);
    CHECK_EQ(changes_since(&look, true), 0);
    json_decref(look);
}

static void a_new_message_is_one_line_with_its_kind(void)
{
    NEED_IMAGE();
    json_t *look = dump_watch_look(fd, &sb);
    append_ping(0xab);
    up.page_seq++;
    up.ack_seq = 12;
    write_up();
    CHECK_EQ(changes_since(&look, false), 1);
    CHECK(strstr(text, "  up      host 2 node-b") != NULL);
    CHECK(
        strstr(text, "run 9, saw term 14, page 78, acknowledges 12; 30 request ping abcdef01\n") !=
        NULL);
    CHECK_EQ(changes_since(&look, false), 0);
    json_decref(look);
}

static void a_heartbeat_is_a_change_only_if_all_are_asked_for(void)
{
    NEED_IMAGE();
    json_t *look = dump_watch_look(fd, &sb);
    up.page_seq++;
    up.heartbeat_ms += 1000;
    write_up();
    CHECK_EQ(changes_since(&look, false), 0);
    up.page_seq++;
    up.heartbeat_ms += 1000;
    write_up();
    CHECK_EQ(changes_since(&look, true), 1);
    json_decref(look);
}

static void a_page_of_a_node_that_was_never_seen_is_a_change(void)
{
    struct page *down = calloc(1, sizeof *down);
    uint8_t buffer[PAGE_SIZE_BYTES];
    NEED_IMAGE();
    json_t *look = dump_watch_look(fd, &sb);
    down->kind = PAGE_DOWN;
    down->slot = 3;
    down->pool_id = sb.pool_id;
    down->writer = (struct incarnation){1, 4, 15};
    down->term = 15;
    down->page_seq = 1;
    down->first_seq = 1;
    page_out(down, buffer);
    free(down);
    write_at(layout_down_page(&sb.layout, 3), buffer, sizeof buffer);
    CHECK_EQ(changes_since(&look, false), 1);
    CHECK(strstr(text, "  down    host 3") != NULL);
    CHECK(strstr(text, "from host 1, term 15, page 1") != NULL);
    json_decref(look);
}

static void grants_and_reports_show_what_came_and_what_went(void)
{
    NEED_IMAGE();
    write_grant(1, false, TABLE_STATE_GRANTED, false);
    write_grant(1, true, TABLE_STATE_OPENING, true);
    json_t *look = dump_watch_look(fd, &sb);
    write_grant(2, true, TABLE_STATE_GRANTED, false);
    write_grant(2, true, TABLE_STATE_OPEN, true);
    CHECK_EQ(changes_since(&look, false), 2);
    CHECK(strstr(text, "  grants  host 2 node-b") != NULL);
    CHECK(
        strstr(text, "copy A, seq 2, term 14, 1 entries\n    + attach granted  volume 11000000") !=
        NULL);
    CHECK(strstr(text, "    ~ attach opening -> open  volume 11000000  attachment 22000000") !=
          NULL);
    write_grant(3, false, TABLE_STATE_GRANTED, false);
    CHECK_EQ(changes_since(&look, false), 1);
    CHECK(strstr(text, "    - attach granted  volume 11000000") != NULL);
    json_decref(look);
}

static void a_unit_damaged_in_one_look_alone_is_no_change(void)
{
    NEED_IMAGE();
    json_t *look = dump_watch_look(fd, &sb);
    write_at(layout_up_page(&sb.layout, 2), "garbage", 7);
    CHECK_EQ(changes_since(&look, false), 0);
    write_up();
    CHECK_EQ(changes_since(&look, false), 0);
    write_at(layout_up_page(&sb.layout, 2), "garbage", 7);
    CHECK_EQ(changes_since(&look, false), 0);
    CHECK_EQ(changes_since(&look, false), 1);
    CHECK(strstr(text, "damaged: ") != NULL);
    CHECK_EQ(changes_since(&look, false), 0);
    write_up();
    CHECK_EQ(changes_since(&look, false), 1); /* well again */
    json_decref(look);
}

static void a_page_that_was_wiped_is_gone(void)
{
    static const uint8_t zeroes[PAGE_SIZE_BYTES];
    NEED_IMAGE();
    json_t *look = dump_watch_look(fd, &sb);
    write_at(layout_up_page(&sb.layout, 2), zeroes, sizeof zeroes);
    CHECK_EQ(changes_since(&look, false), 1);
    CHECK(strstr(text, "is gone\n") != NULL);
    json_decref(look);
}

/* Over the command's own loop: it ends with 0 when it is told to stop, and has written nothing. */
static void the_loop_ends_cleanly_when_told_to_stop(void)
{
    struct cli cli = {.format = "json"};
    uint8_t before[4096], after[4096];
    NEED_IMAGE();
    uint8_t *buffer = io_alloc(PAGE_SIZE_BYTES);
    CHECK_EQ(io_read(fd, buffer, PAGE_SIZE_BYTES, layout_up_page(&sb.layout, 2), NULL), 0);
    memcpy(before, buffer, sizeof before);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC), old = dup(2);
    dup2(null, 2);
    struct sigaction action = {.sa_handler = on_signal}; /* the alarm stands for Ctrl-C */
    sigaction(SIGALRM, &action, NULL);
    const struct itimerval again_and_again = {{0, 100000}, {0, 100000}};
    setitimer(ITIMER_REAL, &again_and_again, NULL);
    int rc = dump_watch(&cli, fd, &sb, 60, false);
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    dup2(old, 2);
    close(old);
    close(null);
    CHECK_EQ(rc, CLI_OK);
    CHECK_EQ(io_read(fd, buffer, PAGE_SIZE_BYTES, layout_up_page(&sb.layout, 2), NULL), 0);
    memcpy(after, buffer, sizeof after);
    free(buffer);
    CHECK(memcmp(before, after, sizeof before) == 0);
    temp_lun_close(fd, path);
    fd = -1;
}

TEST_MAIN(TEST(an_area_at_rest_has_no_changes), TEST(a_new_message_is_one_line_with_its_kind),
          TEST(a_heartbeat_is_a_change_only_if_all_are_asked_for),
          TEST(a_page_of_a_node_that_was_never_seen_is_a_change),
          TEST(grants_and_reports_show_what_came_and_what_went),
          TEST(a_unit_damaged_in_one_look_alone_is_no_change), TEST(a_page_that_was_wiped_is_gone),
          TEST(the_loop_ends_cleanly_when_told_to_stop))
