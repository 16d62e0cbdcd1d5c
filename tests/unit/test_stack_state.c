/* SPDX-License-Identifier: Apache-2.0 */
/* The stack's state file, its names, and the check of specs: all that needs no kernel. */
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/stack_internal.h"
#include "agent/stack_pv.h"
#include "support/test.h"

#define MIB (1024ull * 1024)

static char root[64], file[STACK_PATH_SIZE];
static struct stack_segment leaf_segments[2] = {{129 * MIB, 128 * MIB, 0}, {1ull << 50, 4096, 0}};
static struct stack_segment base_segments[1] = {{512 * MIB, 64 * MIB, 0}};
static struct stack_layer layers[2];
static struct stack sample;

static void set_up(void)
{
    struct stack_spec *spec = &sample.spec;

    layers[0] =
        (struct stack_layer){0x0123456789abcdef, 3, 7, 2, leaf_segments, 66ull << 40, false};
    layers[1] = (struct stack_layer){0xfedcba9876543210, 0, 1, 1, base_segments, 0, true};
    sample = (struct stack){.qsd = {.pid = 4711, .start_time = 123456789, .pidfd = -1},
                            .qsd_restarts = 2,
                            .switching = true,
                            .relinking = true};
    *spec = (struct stack_spec){.pool = "p\xc3\xb6ol",
                                .device = "/dev/mapper/mpatha",
                                .name = "pvc \"1\"/\xe2\x98\x83",
                                .size = 10 << 20,
                                .layers = layers,
                                .n_layers = 2};
    uuid_parse("01234567-89ab-4def-8000-000000000001", &spec->volume_id);
    uuid_parse("a7000000-0000-4000-8000-000000000001", &spec->attachment_id);
    uuid_parse("7e57f001-0000-4000-8000-000000000001", &spec->pool_id);
    strcpy(root, "/tmp/test_stack.XXXXXX");
    char *made = mkdtemp(root);
    assert(made);
    snprintf(file, sizeof file, "%s/a7000000-0000-4000-8000-000000000001/state.json", root);
}

static void tear_down(void)
{
    int rc = stack_state_remove(root, &sample.spec.attachment_id, NULL);
    assert(rc == 0);
    rmdir(root);
}

static int load(struct stack *ret)
{
    return stack_state_load(root, &sample.spec.attachment_id, ret, NULL);
}

static bool same_layer(const struct stack_layer *a, const struct stack_layer *b)
{
    return a->volume_short == b->volume_short && a->index == b->index &&
           a->map_generation == b->map_generation && a->max_size == b->max_size &&
           a->second == b->second && a->n_segments == b->n_segments &&
           memcmp(a->segments, b->segments, a->n_segments * sizeof *a->segments) == 0;
}

static bool same(const struct stack *a, const struct stack *b)
{
    const struct stack_spec *x = &a->spec, *y = &b->spec;

    if (strcmp(x->pool, y->pool) != 0 || strcmp(x->device, y->device) != 0 ||
        strcmp(x->name, y->name) != 0 || x->size != y->size || x->thick != y->thick ||
        !uuid_equal(&x->pool_id, &y->pool_id) || !uuid_equal(&x->volume_id, &y->volume_id) ||
        !uuid_equal(&x->attachment_id, &y->attachment_id) || x->n_layers != y->n_layers)
        return false;
    for (uint32_t i = 0; i < x->n_layers; i++)
        if (!same_layer(&x->layers[i], &y->layers[i]))
            return false;
    return a->qsd.pid == b->qsd.pid && a->qsd.start_time == b->qsd.start_time &&
           a->qsd_restarts == b->qsd_restarts && a->switching == b->switching &&
           a->relinking == b->relinking;
}

static char *read_state(size_t *ret_len)
{
    struct stat st;
    int fd = open(file, O_RDONLY);
    int rc = fstat(fd, &st);
    assert(rc == 0);
    char *text = malloc((size_t)st.st_size + 1);
    ssize_t n = read(fd, text, (size_t)st.st_size);
    assert(n == st.st_size);
    close(fd);
    *ret_len = (size_t)n;
    return text;
}

static void write_state(const char *text, size_t len)
{
    int fd = open(file, O_WRONLY | O_TRUNC | O_CREAT, 0600);
    ssize_t n = write(fd, text, len);
    assert(n == (ssize_t)len);
    close(fd);
}

/* ---- the file ---- */

static void what_is_saved_is_loaded(void)
{
    struct stack got;
    struct stat st;

    set_up();
    int saved = stack_state_save(root, &sample, NULL);
    int again = stack_state_save(root, &sample, NULL); /* over an old one */
    int rc = load(&got);
    bool equal = rc == 0 && same(&got, &sample) && got.qsd.pidfd == -1;
    int private = stat(file, &st) == 0 && (st.st_mode & 0777) == 0600;
    stack_spec_free(&got.spec);
    tear_down();
    CHECK_EQ(saved, 0);
    CHECK_EQ(again, 0);
    CHECK_EQ(rc, 0);
    CHECK(equal);
    CHECK(private);
}

static void a_segment_on_another_lun_comes_back_on_that_lun(void)
{
    struct stack got;
    uint32_t pv = stack_pv_number("LUNAR1-bbbb-cccc-dddd-eeee-ffff-000001");

    set_up();
    leaf_segments[1].pv = pv;
    stack_state_save(root, &sample, NULL);
    int rc = load(&got);
    uint32_t back = rc == 0 ? got.spec.layers[0].segments[1].pv : 0;
    bool others = rc == 0 && got.spec.layers[0].segments[0].pv == 0;
    stack_spec_free(&got.spec);
    leaf_segments[1].pv = 0;
    tear_down();
    CHECK(pv > 0);
    CHECK_EQ(rc, 0);
    CHECK_EQ(back, pv);
    CHECK(others);
}

static void a_lun_has_one_number_and_nonsense_has_none(void)
{
    uint32_t a = stack_pv_number("LUNAR1-bbbb-cccc-dddd-eeee-ffff-000002");
    CHECK(a > 0);
    CHECK_EQ(stack_pv_number("LUNAR1-bbbb-cccc-dddd-eeee-ffff-000002"), a);
    CHECK(stack_pv_number("LUNAR1-bbbb-cccc-dddd-eeee-ffff-000003") != a);
    CHECK_STR(stack_pv_get(a)->uuid, "LUNAR1-bbbb-cccc-dddd-eeee-ffff-000002");
    CHECK_EQ(stack_pv_number(""), 0);
    CHECK_EQ(stack_pv_number("aaaaaa-bbbb-cccc-dddd-eeee-ffff-000002"), 0);
    CHECK(!stack_pv_get(0) && !stack_pv_get(STACK_PVS_MAX + 1));
}

static void without_a_file_there_is_no_state(void)
{
    struct stack got;

    set_up();
    int rc = load(&got);
    tear_down();
    CHECK_EQ(rc, LUNAR_E_NOT_FOUND);
}

static void a_file_cut_anywhere_is_damaged(void)
{
    struct stack got;
    size_t len, bad = 0;

    set_up();
    stack_state_save(root, &sample, NULL);
    char *text = read_state(&len);
    for (size_t cut = 0; cut < len; cut++) {
        write_state(text, cut);
        bad += load(&got) != LUNAR_E_CORRUPT;
    }
    free(text);
    tear_down();
    CHECK(len > 200);
    CHECK_EQ(bad, 0);
}

/* Every bit of every byte; a flip that changes only white space leaves the same state and may be
 * taken. */
static void a_file_with_any_bit_flipped_is_damaged(void)
{
    struct stack got;
    size_t len, bad = 0, taken = 0;

    set_up();
    stack_state_save(root, &sample, NULL);
    char *text = read_state(&len);
    for (size_t at = 0; at < 8 * len; at++) {
        text[at / 8] = (char)(text[at / 8] ^ (1 << at % 8));
        write_state(text, len);
        int rc = load(&got);
        taken += rc == 0;
        bad += rc == 0 ? !same(&got, &sample) : rc != LUNAR_E_CORRUPT;
        stack_spec_free(&got.spec);
        text[at / 8] = (char)(text[at / 8] ^ (1 << at % 8));
    }
    free(text);
    tear_down();
    CHECK_EQ(bad, 0);
    CHECK(taken < len / 4);
}

static void another_attachments_file_is_refused(void)
{
    struct stack got;
    struct uuid other;
    char path[STACK_PATH_SIZE];

    set_up();
    stack_state_save(root, &sample, NULL);
    uuid_parse("b7000000-0000-4000-8000-000000000001", &other);
    stack_run_dir(root, &other, path);
    mkdir(path, 0700);
    strncat(path, "/state.json", sizeof path - strlen(path) - 1);
    int moved = rename(file, path);
    int rc = stack_state_load(root, &other, &got, NULL);
    stack_state_remove(root, &other, NULL);
    tear_down();
    CHECK_EQ(moved, 0);
    CHECK_EQ(rc, LUNAR_E_CORRUPT);
}

static void a_name_that_is_not_utf8_is_refused_and_leaves_no_file(void)
{
    struct stack got;

    set_up();
    strcpy(sample.spec.name, "\xff\xfe");
    int saved = stack_state_save(root, &sample, NULL);
    int rc = load(&got);
    tear_down();
    CHECK_EQ(saved, LUNAR_E_INVALID);
    CHECK_EQ(rc, LUNAR_E_NOT_FOUND);
}

static void a_copy_of_a_spec_is_its_own(void)
{
    struct stack copy = {0};

    set_up();
    copy = sample;
    stack_spec_copy(&copy.spec, &sample.spec);
    bool equal = same(&copy, &sample);
    copy.spec.layers[0].segments[0].length = 4096;
    bool own = layers[0].segments[0].length == 128 * MIB;
    stack_spec_free(&copy.spec);
    tear_down();
    CHECK(equal);
    CHECK(own);
}

/* ---- what is refused before anything is mapped ---- */

static void a_spec_that_cannot_be_mapped_is_refused(void)
{
    struct stack_spec spec;
    uint64_t length = leaf_segments[0].length, offset = leaf_segments[0].lun_offset;

    set_up();
    tear_down();
    CHECK_EQ(stack_spec_check(&sample.spec, NULL), 0);
    spec = sample.spec;
    spec.size = 0;
    CHECK_EQ(stack_spec_check(&spec, NULL), LUNAR_E_INVALID);
    spec.size = 1000;
    CHECK_EQ(stack_spec_check(&spec, NULL), LUNAR_E_INVALID);
    spec = sample.spec;
    spec.n_layers = 0;
    CHECK_EQ(stack_spec_check(&spec, NULL), LUNAR_E_INVALID);
    spec.n_layers = STACK_LAYERS_MAX + 1;
    CHECK_EQ(stack_spec_check(&spec, NULL), LUNAR_E_INVALID);
    spec = sample.spec;
    spec.thick = true; /* with two layers */
    CHECK_EQ(stack_spec_check(&spec, NULL), LUNAR_E_INVALID);
    spec.n_layers = 1; /* but one that grows on demand */
    CHECK_EQ(stack_spec_check(&spec, NULL), LUNAR_E_INVALID);
    layers[0].max_size = 0;
    CHECK_EQ(stack_spec_check(&spec, NULL), 0);
    layers[0].max_size = length; /* of two segments */
    CHECK_EQ(stack_spec_check(&sample.spec, NULL), LUNAR_E_INVALID);
    layers[0].max_size = (66ull << 40) + 512;
    CHECK_EQ(stack_spec_check(&sample.spec, NULL), LUNAR_E_INVALID);
    layers[0].max_size = 0;
    spec.size = 1 << 30; /* more than its segments */
    CHECK_EQ(stack_spec_check(&spec, NULL), LUNAR_E_INVALID);
    leaf_segments[0].length = 0;
    CHECK_EQ(stack_spec_check(&sample.spec, NULL), LUNAR_E_INVALID);
    leaf_segments[0].length = length + 512; /* not in 4 KiB steps */
    CHECK_EQ(stack_spec_check(&sample.spec, NULL), LUNAR_E_INVALID);
    leaf_segments[0].length = length;
    leaf_segments[0].lun_offset = UINT64_MAX - 4095; /* wraps */
    CHECK_EQ(stack_spec_check(&sample.spec, NULL), LUNAR_E_INVALID);
    leaf_segments[0].lun_offset = offset;
}

/* ---- names ---- */

static const char *link_of(const char *pool, const char *name, char ret[STACK_LINK_SIZE])
{
    struct stack_spec spec = {0};

    snprintf(spec.pool, sizeof spec.pool, "%s", pool);
    snprintf(spec.name, sizeof spec.name, "%s", name);
    uuid_parse("01234567-89ab-4def-8000-000000000001", &spec.volume_id);
    return stack_link_name(&spec, ret);
}

static void a_users_name_cannot_leave_its_folder(void)
{
    char link[STACK_LINK_SIZE];

    CHECK_STR(link_of("gold", "pvc-1", link), "/dev/lunar/gold/pvc-1");
    CHECK_STR(link_of("gold", "../../sda", link), "/dev/lunar/gold/%2E.%2F..%2Fsda");
    CHECK_STR(link_of("..", "a/b", link), "/dev/lunar/%2E./a%2Fb");
    CHECK_STR(link_of("gold", "50%\n", link), "/dev/lunar/gold/50%25%0A");
    CHECK_STR(link_of("gold", "sch\xc3\xb6n.x", link), "/dev/lunar/gold/sch\xc3\xb6n.x");
}

static void a_name_too_long_for_a_file_is_cut_and_marked(void)
{
    char name[132], pool[40], link[STACK_LINK_SIZE];

    memset(name, '/', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    memset(pool, '%', sizeof pool - 1);
    pool[sizeof pool - 1] = '\0';
    link_of(pool, name, link);
    const char *last = strrchr(link, '/') + 1;
    CHECK(strlen(last) <= 255);
    CHECK(strlen(last) > 200);
    CHECK_STR(last + strlen(last) - 18, "~v0123456789ab4def");
    CHECK_EQ(strlen(link), strlen("/dev/lunar/") + 3 * 39 + 1 + strlen(last));
}

static void names_fit_what_carries_them(void)
{
    char vduse[STACK_VDUSE_SIZE], name[DM_NAME_SIZE], uuid[DM_UUID_SIZE];
    struct stack_device device;

    set_up();
    tear_down();
    layers[1].index = UINT32_MAX;
    stack_vduse_name(&sample.spec, vduse);
    CHECK_STR(vduse, "v0123456789ab4def");
    CHECK(strlen(vduse) <= 20); /* a virtio serial */
    stack_layer_name(&sample.spec, 1, name);
    CHECK_STR(name, "lunar-v0123456789ab4def-l4294967295-vfedcba9876543210");
    stack_dm_uuid(&sample.spec, 'L', name, uuid);
    CHECK(strlen(uuid) < 129); /* the kernel's limit with its NUL */
    CHECK(stack_device_parse(name, uuid, &device));
    CHECK_EQ(device.kind, 'L');
    CHECK(device.pool_short == uuid_short(&sample.spec.pool_id));
    CHECK(uuid_equal(&device.attachment, &sample.spec.attachment_id));
    CHECK_STR(device.name, name);
}

static void a_foreign_device_is_not_taken_for_ours(void)
{
    static const char *const uuids[] = {
        "LVM-abc",
        "LUNAR-",
        "LUNAR-L-x",
        "LUNAR-X-7e57f00100004000-a7000000-0000-4000-8000-000000000001-n",
        "LUNAR-L-7e57f0010000400-a7000000-0000-4000-8000-000000000001-n",
        "LUNAR-L-7e57f00100004000-a7000000-0000-4000-8000-00000000000-n",
        "LUNAR-L-7e57f00100004000-a7000000-0000-4000-8000-000000000001-other",
        "LUNAR-L-7e57f00100004000-a7000000-0000-4000-8000-000000000001"};
    struct stack_device device;

    CHECK(stack_device_parse("n", "LUNAR-L-7e57f00100004000-a7000000-0000-4000-8000-000000000001-n",
                             &device));
    for (size_t i = 0; i < sizeof uuids / sizeof *uuids; i++)
        CHECK(!stack_device_parse("n", uuids[i], &device));
}

TEST_MAIN(TEST(what_is_saved_is_loaded), TEST(a_segment_on_another_lun_comes_back_on_that_lun),
          TEST(a_lun_has_one_number_and_nonsense_has_none), TEST(without_a_file_there_is_no_state),
          TEST(a_file_cut_anywhere_is_damaged), TEST(a_file_with_any_bit_flipped_is_damaged),
          TEST(another_attachments_file_is_refused),
          TEST(a_name_that_is_not_utf8_is_refused_and_leaves_no_file),
          TEST(a_copy_of_a_spec_is_its_own), TEST(a_spec_that_cannot_be_mapped_is_refused),
          TEST(a_users_name_cannot_leave_its_folder),
          TEST(a_name_too_long_for_a_file_is_cut_and_marked), TEST(names_fit_what_carries_them),
          TEST(a_foreign_device_is_not_taken_for_ours))
