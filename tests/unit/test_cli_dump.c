/* SPDX-License-Identifier: Apache-2.0 */
/* `lun dump` on an image made with the codecs: what is in the pages and tables comes out, and a
 * damaged unit stays alone. */
#include "support/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../tools/lunarctl/dump_area.c"
#include "../../tools/lunarctl/dump_pages.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"

static struct superblock sb;
static int fd = -1;

/* A sparse image with a superblock and nothing else. */
static void make_image(void)
{
    char path[] = "/tmp/lunar-test-dump.XXXXXX";
    struct error err = ERROR_INIT;

    if (fd >= 0)
        close(fd);
    int plain = mkstemp(path);
    memset(&sb, 0, sizeof sb);
    sb.state = SUPERBLOCK_FORMATTING;
    sb.pool_id = uuid_random();
    strcpy(sb.pool_name, "demo");
    sb.io_timeout_s = 10;
    sb.watchdog_fire_timeout_s = 60;
    sb.extent_size = 32 << 20;
    if (layout_compute(4, 512, &sb.layout, &err) < 0 ||
        ftruncate(plain, (off_t)(sb.layout.area_start + sb.layout.area_size)) < 0)
        abort();
    fd = io_open(path, 1, &err);
    close(plain);
    unlink(path);
    if (fd >= 0 && superblock_write(fd, &sb, &err) < 0)
        abort();
}

#define NEED_IMAGE()                                                                               \
    make_image();                                                                                  \
    if (fd < 0)                                                                                    \
    SKIP("no O_DIRECT in /tmp")

static uint8_t *packed_create(const char *name, uint32_t *ret_len)
{
    static const struct uuid id = {{7}};
    Lunar__VolumeCreate create = LUNAR__VOLUME_CREATE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    uint8_t *data;
    create.name = (char *)(uintptr_t)name;
    create.size = 1 << 30;
    request.id = uuid_to_pb(&id);
    request.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
    request.volume_create = &create;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    if (envelope_pack(&e, &data, ret_len, NULL) < 0)
        abort();
    return data;
}

static void write_at(uint64_t offset, const void *data, size_t len)
{
    size_t padded = (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    uint8_t *buffer = io_alloc(padded);
    memcpy(buffer, data, len);
    if (io_write(fd, buffer, padded, offset, NULL) < 0)
        abort();
    free(buffer);
}

/* The up page of host 2: one message in the page, one garbage, one in the spill slot. */
static void write_up_page(bool break_spill)
{
    struct page *page = calloc(1, sizeof *page);
    uint8_t buffer[PAGE_SIZE_BYTES], *data;
    uint32_t len;
    page->kind = PAGE_UP;
    page->slot = 2;
    page->pool_id = sb.pool_id;
    page->writer = (struct incarnation){2, 5, 9};
    page->peer = (struct incarnation){1, 4, 14};
    page->term = 14;
    page->page_seq = 77;
    page->first_seq = 30;
    page->hint = (struct hint_address){.ip = {0x20, 0x01, 0x0d, 0xb8, [15] = 7}, .port = 4000};
    strcpy(page->node_name, "node-b");
    data = packed_create("disk", &len);
    if (!page_append(page, data, len) || !page_append(page, (const uint8_t *)"\xff\xff\xff", 3) ||
        !page_append_spilled(page, len, crc32c(data, len)))
        abort();
    page_out(page, buffer);
    write_at(layout_up_page(&sb.layout, 2), buffer, sizeof buffer);
    data[len - 1] ^= break_spill;
    write_at(layout_up_spill(&sb.layout, 2), data, len);
    free(data);
    free(page);
}

static void a_page_is_shown_with_its_messages(void)
{
    NEED_IMAGE();
    write_up_page(false);
    json_t *pages = dump_pages(fd, &sb, PAGE_UP);
    CHECK_EQ(json_array_size(pages), 1);
    const json_t *page = json_array_get(pages, 0), *messages = json_object_get(page, "messages");
    CHECK_EQ(js_get_u64(page, "host_id"), 2);
    CHECK_STR(js_get_text(page, "node"), "node-b");
    CHECK_EQ(js_get_u64(json_object_get(page, "writer"), "run"), 9);
    CHECK_EQ(js_get_u64(json_object_get(page, "peer"), "term"), 14);
    CHECK_STR(js_get_text(page, "hint"), "[2001:db8::7]:4000");
    CHECK_EQ(json_array_size(messages), 3);
    CHECK_STR(js_get_text(json_array_get(messages, 0), "kind"), "request volume_create");
    CHECK_EQ(js_get_u64(json_array_get(messages, 0), "seq"), 30);
    const json_t *body = json_object_get(json_array_get(messages, 0), "body");
    const json_t *create = json_object_get(json_object_get(body, "request"), "volume_create");
    CHECK_STR(js_get_text(create, "name"), "disk");
    CHECK_EQ(js_get_u64(create, "size"), 1 << 30);
    CHECK(json_object_get(json_array_get(messages, 1), "damaged") != NULL);
    CHECK_STR(js_get_text(json_array_get(messages, 2), "kind"), "request volume_create");
    CHECK(js_get_bool(json_array_get(messages, 2), "spilled"));
    json_decref(pages);
}

static void a_spill_slot_that_was_overwritten_is_damaged_alone(void)
{
    NEED_IMAGE();
    write_up_page(true);
    json_t *pages = dump_pages(fd, &sb, PAGE_UP);
    const json_t *messages = json_object_get(json_array_get(pages, 0), "messages");
    CHECK(json_object_get(json_array_get(messages, 0), "damaged") == NULL);
    CHECK(json_object_get(json_array_get(messages, 2), "damaged") != NULL);
    json_decref(pages);
}

static void a_claim_shows_who_is_joining(void)
{
    NEED_IMAGE();
    struct claim claim = {.slot = 3, .pool_id = sb.pool_id, .nonce = uuid_random()};
    uint8_t bytes[PAGE_SIZE_BYTES];
    strcpy(claim.node_name, "node-c");
    claim_out(&claim, bytes);
    write_at(layout_up_page(&sb.layout, 3), bytes, sizeof bytes);
    json_t *pages = dump_pages(fd, &sb, PAGE_UP);
    CHECK_EQ(json_array_size(pages), 1);
    CHECK_STR(js_get_text(json_array_get(pages, 0), "claimed_by"), "node-c");
    CHECK(json_object_get(json_array_get(pages, 0), "damaged") == NULL);
    json_decref(pages);
}

static void a_torn_page_is_damaged_and_the_next_is_shown(void)
{
    NEED_IMAGE();
    write_up_page(false);
    write_at(layout_up_page(&sb.layout, 1), "garbage", 7);
    json_t *pages = dump_pages(fd, &sb, PAGE_UP);
    CHECK_EQ(json_array_size(pages), 2);
    CHECK(json_object_get(json_array_get(pages, 0), "damaged") != NULL);
    CHECK_STR(js_get_text(json_array_get(pages, 1), "node"), "node-b");
    json_decref(pages);
}

static void grants_show_entries_layers_and_the_dead_mark(void)
{
    struct table table;
    struct error err = ERROR_INIT;
    NEED_IMAGE();
    table_init(&table, TABLE_GRANTS, 3, &sb.pool_id);
    table.writer = (struct incarnation){1, 4, 14};
    table.term = 14;
    table.seq = 6;
    table.node_dead = true;
    table.dead_generation = 2;
    struct table_entry *e = table_add(&table);
    e->volume_id = (struct uuid){{1}};
    e->attachment_id = (struct uuid){{2}};
    e->generation = 3;
    e->term = 14;
    e->mode = TABLE_MODE_ATTACH;
    e->state = TABLE_STATE_GRANTED;
    e->n_layers = 1;
    e->layers[0] = (struct table_layer){0xabcdef0123456789u, 4, 8};
    int rc = table_write(fd, &sb.layout, &table, 1, &err);
    table_free(&table);
    CHECK_EQ(rc, 0);
    json_t *grants = dump_tables(fd, &sb, false);
    CHECK_EQ(json_array_size(grants), 1);
    const json_t *t = json_array_get(grants, 0);
    const json_t *entry = json_array_get(json_object_get(t, "entries"), 0);
    const json_t *layer = json_array_get(json_object_get(entry, "layers"), 0);
    CHECK_STR(js_get_text(t, "copy"), "B");
    CHECK_EQ(js_get_u64(t, "dead_generation"), 2);
    CHECK_STR(js_get_text(entry, "state"), "granted");
    CHECK_STR(js_get_text(layer, "lv"), "vabcdef0123456789.4");
    CHECK_EQ(js_get_u64(layer, "map_generation"), 8);
    json_decref(grants);
}

static void a_metadata_copy_whose_text_changed_is_damaged(void)
{
    struct mdcopy first, second;
    struct error err = ERROR_INIT;
    NEED_IMAGE();
    CHECK_EQ(mdcopy_store(fd, &sb.layout, &sb.pool_id, NULL, 3, 10, "ten", 3, &first, &err), 0);
    CHECK_EQ(mdcopy_store(fd, &sb.layout, &sb.pool_id, &first, 3, 11, "eleven", 6, &second, &err),
             0);
    write_at(sb.layout.metadata_b + MDCOPY_HEADER_SIZE, "twelve", 6);
    json_t *copies = dump_metadata_copies(fd, &sb);
    CHECK_EQ(json_array_size(copies), 2);
    CHECK_EQ(js_get_u64(json_array_get(copies, 0), "vg_seqno"), 10);
    CHECK(json_object_get(json_array_get(copies, 1), "damaged") != NULL);
    json_decref(copies);
}

static void an_area_that_was_never_used_has_nothing_but_damaged_leases(void)
{
    NEED_IMAGE();
    json_t *pages = dump_pages(fd, &sb, PAGE_DOWN), *reports = dump_tables(fd, &sb, true);
    json_t *space = dump_lockspace(fd, &sb), *lvm = dump_lvm(fd);
    CHECK_EQ(json_array_size(pages), 0);
    CHECK_EQ(json_array_size(reports), 0);
    CHECK_EQ(json_array_size(json_object_get(space, "leases")), 4);
    CHECK(json_object_get(lvm, "damaged") != NULL);
    json_decref(pages);
    json_decref(reports);
    json_decref(space);
    json_decref(lvm);
}

TEST_MAIN(TEST(a_page_is_shown_with_its_messages),
          TEST(a_spill_slot_that_was_overwritten_is_damaged_alone),
          TEST(a_claim_shows_who_is_joining), TEST(a_torn_page_is_damaged_and_the_next_is_shown),
          TEST(grants_show_entries_layers_and_the_dead_mark),
          TEST(a_metadata_copy_whose_text_changed_is_damaged),
          TEST(an_area_that_was_never_used_has_nothing_but_damaged_leases))
