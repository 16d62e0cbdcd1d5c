/* SPDX-License-Identifier: Apache-2.0 */
/* The catalogue: tags to volumes, and what is foreign. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue.h"
#include "support/lvm_by_hand.h"
#include "support/test.h"

/* --- reading --- */

static void a_leaf_is_a_volume_with_all_its_facts(void)
{
    add_lv(LV_A ".0", 512 * MIB, LEAF(ID_A, "db/20one", "-") ",lunar.new");
    add_lv(LV_B ".12", 512 * MIB, LEAF(ID_B, "a", "-") ",lunar.del,somebodys.tag");
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 2);
    CHECK_EQ(c.n_foreign, 0);
    CHECK_EQ(c.seqno, 7);
    CHECK_STR(c.volumes[0].name, "a"); /* sorted */
    struct catalogue_volume *v = catalogue_by_name(&c, "db one");
    CHECK(v);
    CHECK_EQ(v->size, 10 * GIB);
    CHECK(!v->thick && catalogue_volume_is_new(v) && !catalogue_volume_is_deleting(v));
    CHECK_EQ(v->n_layers, 1);
    CHECK_STR(v->layers[0].lv_name, LV_A ".0");
    CHECK_EQ(v->layers[0].volume_short, 0x1111111111114111);
    CHECK_EQ(v->layers[0].map_generation, 3);
    CHECK_EQ(v->layers[0].n_segments, 1);
    CHECK_EQ(v->layers[0].segments[0].length, 512 * MIB);
    CHECK(catalogue_by_id(&c, &v->id) == v);
    CHECK(catalogue_volume_is_deleting(&c.volumes[0]) && !catalogue_volume_is_new(&c.volumes[0]));
    CHECK_EQ(c.volumes[0].layers[0].index, 12);
    CHECK(!catalogue_by_name(&c, "nothing"));
    catalogue_free(&c);
}

static void every_volume_is_found_by_its_id_and_no_other(void)
{
    enum { N = 300 };
    struct uuid ids[N], other = uuid_random();
    for (int i = 0; i < N; i++) {
        char id[UUID_TEXT_SIZE], name[64], tags[512];
        ids[i] = uuid_random();
        uuid_format(&ids[i], id);
        snprintf(name, sizeof name, "v%016llx.0", (unsigned long long)uuid_short(&ids[i]));
        snprintf(tags, sizeof tags,
                 "lunar.v=%s,lunar.n=n%d,lunar.s=10737418240,lunar.k=thin,lunar.r=leaf,lunar.p=-,"
                 "lunar.q=" REQ ",lunar.g=1",
                 id, i);
        add_lv(name, 512 * MIB, tags);
    }
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, N);
    for (int i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        const struct catalogue_volume *v = catalogue_by_id(&c, &ids[i]);
        CHECK(v && uuid_equal(&v->id, &ids[i]));
        CHECK_STR(v->name, name);
    }
    CHECK(!catalogue_by_id(&c, &other));
    catalogue_free(&c);
    c = build(); /* no volume at all */
    CHECK(!catalogue_by_id(&c, &other));
    catalogue_free(&c);
}

static void a_chain_follows_the_parent_tags_leaf_first(void)
{
    add_lv(LV_A ".0", MIB, FROZEN(ID_A, "-"));
    add_lv(LV_A ".1", MIB, FROZEN(ID_A, LV_A ".0"));
    add_lv(LV_A ".2", MIB, LEAF(ID_A, "a", LV_A ".1"));
    add_lv(LV_B ".0", MIB, LEAF(ID_B, "b", LV_A ".0"));
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 2);
    CHECK_EQ(c.n_foreign, 0);
    CHECK_EQ(c.volumes[0].n_layers, 3);
    CHECK_STR(c.volumes[0].layers[0].lv_name, LV_A ".2");
    CHECK_STR(c.volumes[0].layers[1].lv_name, LV_A ".1");
    CHECK_STR(c.volumes[0].layers[2].lv_name, LV_A ".0");
    CHECK_EQ(c.volumes[1].n_layers, 2); /* a clone: its lower layer is the other volume's */
    CHECK_EQ(catalogue_layer_by_name(&c, LV_A ".0")->users, 2);
    CHECK_EQ(catalogue_volume_allocated(&c.volumes[0]), 2 * MIB); /* what both use is neither's */
    CHECK_EQ(catalogue_volume_allocated(&c.volumes[1]), MIB);
    catalogue_free(&c);
}

static void another_volumes_deleted_layer_does_not_delete_its_clone(void)
{
    add_lv(LV_A ".0", MIB, FROZEN(ID_A, "-") ",lunar.del");
    add_lv(LV_B ".0", MIB, LEAF(ID_B, "b", LV_A ".0"));
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 1);
    CHECK(!catalogue_volume_is_deleting(&c.volumes[0]));
    catalogue_free(&c);
}

static void whatever_is_broken_is_foreign_and_says_why(void)
{
    static const struct {
        const char *name, *tags, *why;
    } cases[] = {
        {"home", "", "not lunar's"},
        {"home", "mine", "not lunar's"},
        {LV_A ".0", "lunar.new", "volume's id"},
        {LV_A ".0", "lunar.v=x", "volume's id"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.v=" ID_B, "volume's id"},
        {LV_B ".0", LEAF(ID_A, "a", "-"), "does not fit"},
        {LV_A, LEAF(ID_A, "a", "-"), "does not fit"},
        {LV_A ".00", LEAF(ID_A, "a", "-"), "does not fit"},
        {LV_A ".-1", LEAF(ID_A, "a", "-"), "does not fit"},
        {LV_A ".4294967296", LEAF(ID_A, "a", "-"), "does not fit"},
        {LV_A ".0", LEAF(ID_A, "", "-"), "volume's name"},
        {LV_A ".0", LEAF(ID_A, "a/0", "-"), "volume's name"},
        {LV_A ".0", LEAF(ID_A, "a/0a", "-"), "volume's name"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.n=b", "volume's name"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.s=7", "volume's size"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.k=fat", "volume's kind"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.q=1", "request"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.g=1", "map generation"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.r=leaf", "role"},
        {LV_A ".0", LEAF(ID_A, "a", ""), "parent"},
        {LV_A ".0", LEAF(ID_A, "a", LV_A ".7"), "below it is missing"},
        {LV_A ".0", LEAF(ID_A, "a", LV_A ".0"), "ring"},
        {LV_A ".0", FROZEN(ID_A, "-") ",lunar.new", "new and no leaf"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.c=" ID_A ",lunar.cv=" ID_A, "clone's source"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.c=x", "clone's source"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.fi=" ID_B, "snapshot below"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.fn=x", "snapshot below"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.ft=1", "snapshot below"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.fi=" ID_B ",lunar.ft=1,lunar.fn=/0",
         "snapshot below"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.o=" LV_A ".7", "rollback"},
        {LV_A ".0", LEAF(ID_A, "a", "-") ",lunar.rb=" ID_B, "rollback"},
        {LV_A ".4294967295", LEAF(ID_A, "a", "-"), "does not fit"},
        {LV_A ".0",
         "lunar.v=" ID_A ",lunar.n=a,lunar.s=10737418240,lunar.k=thick,lunar.r=leaf,lunar.p=-,"
         "lunar.q=" REQ ",lunar.g=1",
         "smaller"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        add_lv(cases[i].name, 512 * MIB, cases[i].tags);
        struct catalogue c = build();
        if (!is_foreign(&c, cases[i].name, cases[i].why))
            printf("# case %zu %s: %s\n", i, cases[i].why, c.n_foreign ? c.foreign[0] : "-");
        CHECK_EQ(c.n_volumes, 0);
        CHECK(is_foreign(&c, cases[i].name, cases[i].why));
        catalogue_free(&c);
    }
}

static void an_lv_that_is_not_linear_is_foreign(void)
{
    add_lv(LV_A ".0", MIB, LEAF(ID_A, "a", "-"));
    report.lvs[0].linear = false;
    struct catalogue c = build();
    CHECK(is_foreign(&c, LV_A ".0", "linear"));
    catalogue_free(&c);
}

static void two_leaves_two_names_and_rings_are_foreign(void)
{
    add_lv(LV_A ".0", MIB, LEAF(ID_A, "a", "-"));
    add_lv(LV_A ".1", MIB, LEAF(ID_A, "a", "-"));
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 0);
    CHECK(is_foreign(&c, LV_A ".0", "two leaves") && is_foreign(&c, LV_A ".1", "two leaves"));
    catalogue_free(&c);

    add_lv(LV_A ".0", MIB, LEAF(ID_A, "same", "-"));
    add_lv(LV_B ".0", MIB, LEAF(ID_B, "same", "-"));
    c = build();
    CHECK_EQ(c.n_volumes, 0);
    CHECK(is_foreign(&c, LV_A ".0", "its name") && is_foreign(&c, LV_B ".0", "its name"));
    catalogue_free(&c);

    add_lv(LV_A ".0", MIB, FROZEN(ID_A, LV_A ".1"));
    add_lv(LV_A ".1", MIB, FROZEN(ID_A, LV_A ".0"));
    add_lv(LV_A ".2", MIB, LEAF(ID_A, "a", LV_A ".0"));
    c = build();
    CHECK_EQ(c.n_volumes, 0);
    CHECK(is_foreign(&c, LV_A ".2", "broken") && is_foreign(&c, LV_A ".1", "ring"));
    CHECK_EQ(c.n_foreign, 3);
    catalogue_free(&c);
}

static void a_foreign_lv_harms_no_volume_beside_it(void)
{
    add_lv("home", MIB, "");
    add_lv(LV_A ".0", MIB, LEAF(ID_A, "a", "-"));
    add_lv(LV_B ".0", MIB, "lunar.v=" ID_B);
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 1);
    CHECK_EQ(c.n_foreign, 2);
    catalogue_free(&c);
}

/* --- names, sizes, escapes --- */

static void names_are_utf8_without_control_characters(void)
{
    char longest[VOLUME_NAME_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[VOLUME_NAME_MAX + 1] = 0;
    CHECK_EQ(volume_name_check(longest, NULL), LUNAR_E_INVALID);
    longest[VOLUME_NAME_MAX] = 0;
    CHECK_EQ(volume_name_check(longest, NULL), 0);
    static const char *const good[] = {"a",   "pvc-1", "Grüße", "\xe6\x9c\x88", "\xf0\x9f\x8c\x99",
                                       "a b", "a/b",   "\"'\\"};
    static const char *const bad[] = {"",         "a\n",          "\x7f",
                                      "\xc2\x85", "\xff",         "\xc3",
                                      "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80",
                                      "\xe6\x9c", "\x80"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_EQ(volume_name_check(good[i], NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(volume_name_check(bad[i], NULL), LUNAR_E_INVALID);
}

static void sizes_have_bounds_and_a_step(void)
{
    CHECK_EQ(volume_size_check(VOLUME_SIZE_MIN, NULL), 0);
    CHECK_EQ(volume_size_check(VOLUME_SIZE_MAX, NULL), 0);
    CHECK_EQ(volume_size_check(VOLUME_SIZE_MIN - 1, NULL), LUNAR_E_INVALID);
    CHECK_EQ(volume_size_check(VOLUME_SIZE_MAX + 4096, NULL), LUNAR_E_INVALID);
    CHECK_EQ(volume_size_check(VOLUME_SIZE_MIN + 512, NULL), LUNAR_E_INVALID);
}

static void every_name_survives_its_tag(void)
{
    char name[VOLUME_NAME_MAX + 1], tag[3 * VOLUME_NAME_MAX + 1], back[VOLUME_NAME_MAX + 1];
    for (int first = 1; first < 256; first++) {
        memset(name, first, VOLUME_NAME_MAX);
        name[VOLUME_NAME_MAX] = 0;
        tag_escape(name, tag, sizeof tag);
        CHECK_EQ(strspn(tag, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-/"),
                 strlen(tag));
        CHECK_EQ(tag_unescape(tag, back, sizeof back), 0);
        CHECK_STR(back, name);
    }
    CHECK(tag_unescape("/0", back, sizeof back) < 0);
    CHECK(tag_unescape("/", back, sizeof back) < 0);
    CHECK(tag_unescape("/00", back, sizeof back) < 0);
    CHECK(tag_unescape("/41", back, sizeof back) < 0); /* 'A' has one spelling */
    CHECK(tag_unescape("/2F", back, sizeof back) < 0);
    CHECK(tag_unescape("a b", back, sizeof back) < 0);
    CHECK(tag_unescape("abc", back, 3) < 0);
}

static void the_first_allocation_is_bounded_and_in_extents(void)
{
    const uint64_t e = 4 * MIB;
    CHECK_EQ(catalogue_initial_size(10 * GIB, false, e), 128 * MIB);
    CHECK_EQ(catalogue_initial_size(MIB, false, e), e);
    CHECK_EQ(catalogue_initial_size(100 * MIB, false, e), 104 * MIB);
    CHECK_EQ(catalogue_initial_size(MIB, true, e), e);
    CHECK_EQ(catalogue_initial_size(10 * GIB + 4096, true, e), 10 * GIB + e);
    CHECK_EQ(catalogue_initial_size(VOLUME_SIZE_MAX, true, e), VOLUME_SIZE_MAX);
}

static void a_layer_grows_to_twice_its_need_and_no_more_than_its_map(void)
{
    const uint64_t e = 4 * MIB;
    CHECK_EQ(catalogue_growth_max(MIB, e), 2 * e);       /* 4 MiB and 512 bytes */
    CHECK_EQ(catalogue_growth_max(GIB, e), 2 * GIB + e); /* 2 x (1 GiB + 256 KiB + 1 MiB) */
    CHECK_EQ(catalogue_growth_max(VOLUME_SIZE_MAX, e), CATALOGUE_THIN_MAP_SIZE);
    CHECK(catalogue_growth_max(VOLUME_SIZE_MAX, 1ull << 40) <= CATALOGUE_THIN_MAP_SIZE);
}

/* --- against lvm --- */

static uint64_t seqno(struct lvm_lun *lun, struct catalogue *ret)
{
    struct lvm_report r;
    struct error err = ERROR_INIT;
    memset(ret, 0, sizeof *ret);
    if (lvm_lun_report(lun, &r, &err) < 0) {
        printf("# %s\n", err.text);
        return 0;
    }
    catalogue_build(&r, ret, NULL);
    lvm_report_free(&r);
    return ret->seqno;
}

static int run(struct lvm_lun *lun, const struct catalogue_args *args)
{
    struct error err = ERROR_INIT;
    int rc = lvm_run(lun->lvm, args->argv, NULL, &err);
    if (rc < 0)
        printf("# %s\n", err.text);
    return rc;
}

static void create_made_extend_deleting_and_remove_are_one_commit_each(void)
{
    struct lvm_lun lun;
    struct catalogue c;
    struct catalogue_args args;
    struct uuid id = uuid_random(), request = uuid_random();
    char name[VOLUME_NAME_MAX + 1];
    const char *why = lvm_lun_open(&lun, GIB, 512);
    if (why)
        lvm_lun_close(&lun);
    if (why)
        SKIP(why);
    memset(name, 0xc3, sizeof name); /* 64 times e acute: every byte is escaped */
    for (int i = 1; i < VOLUME_NAME_MAX; i += 2)
        name[i] = (char)0xa9;
    name[VOLUME_NAME_MAX] = 0;
    CHECK_EQ(volume_name_check(name, NULL), 0);

    const struct catalogue_leaf leaf = {
        .volume_id = &id, .name = name, .size = 10 * GIB, .request_id = &request};
    catalogue_create_args("lunar-test", &leaf, 4 * MIB, &args);
    CHECK_EQ(run(&lun, &args), 0);
    CHECK_EQ(seqno(&lun, &c), 2);
    CHECK_EQ(c.n_volumes, 1);
    CHECK_STR(c.volumes[0].name, name);
    CHECK(uuid_equal(&c.volumes[0].request_id, &request) && uuid_equal(&c.volumes[0].id, &id));
    CHECK(catalogue_volume_is_new(&c.volumes[0]));
    CHECK_EQ(c.volumes[0].size, 10 * GIB);
    CHECK_EQ(c.volumes[0].layers[0].size, 128 * MIB);

    catalogue_made_args("lunar-test", &c.volumes[0].layers[0], &args);
    CHECK_EQ(run(&lun, &args), 0);
    catalogue_free(&c);
    CHECK_EQ(seqno(&lun, &c), 3);
    CHECK(!catalogue_volume_is_new(&c.volumes[0]));

    catalogue_extend_args("lunar-test", &c.volumes[0].layers[0], 256 * MIB, &args);
    CHECK_EQ(run(&lun, &args), 0);
    catalogue_free(&c);
    CHECK_EQ(seqno(&lun, &c), 4);
    CHECK_EQ(c.volumes[0].layers[0].size, 256 * MIB);
    CHECK_EQ(c.volumes[0].layers[0].map_generation, 1);

    catalogue_deleting_args("lunar-test", &c.volumes[0], &args);
    CHECK_EQ(run(&lun, &args), 0);
    catalogue_free(&c);
    CHECK_EQ(seqno(&lun, &c), 5);
    CHECK(catalogue_volume_is_deleting(&c.volumes[0]));

    const struct catalogue_layer *layer = &c.volumes[0].layers[0];
    catalogue_remove_args("lunar-test", &layer, 1, &args);
    CHECK_EQ(run(&lun, &args), 0);
    catalogue_free(&c);
    CHECK_EQ(seqno(&lun, &c), 6);
    CHECK_EQ(c.n_volumes + c.n_foreign, 0);
    CHECK_EQ(c.vg_free, c.vg_size);
    catalogue_free(&c);
    lvm_lun_close(&lun);
}

/* The first extents stay where they are, so a map of them stays right. */
static void a_layer_is_reduced_at_its_end_in_one_commit_and_its_generation_rises_in_one(void)
{
    struct lvm_lun lun;
    struct catalogue c;
    struct catalogue_args args;
    struct uuid id = uuid_random(), request = uuid_random();
    const char *why = lvm_lun_open(&lun, GIB, 512);
    if (why)
        lvm_lun_close(&lun);
    if (why)
        SKIP(why);
    const struct catalogue_leaf leaf = {
        .volume_id = &id, .name = "disk", .size = 10 * GIB, .request_id = &request};
    catalogue_create_args("lunar-test", &leaf, 4 * MIB, &args);
    CHECK_EQ(run(&lun, &args), 0);
    CHECK_EQ(seqno(&lun, &c), 2);
    uint64_t at = c.volumes[0].layers[0].segments[0].lun_offset, free_before = c.vg_free;

    catalogue_generation_args("lunar-test", &c.volumes[0].layers[0], &args);
    CHECK_EQ(run(&lun, &args), 0);
    catalogue_free(&c);
    CHECK_EQ(seqno(&lun, &c), 3);
    CHECK_EQ(c.volumes[0].layers[0].map_generation, 2);
    CHECK_EQ(c.volumes[0].layers[0].size, 128 * MIB);

    catalogue_reduce_args("lunar-test", &c.volumes[0].layers[0], 40 * MIB, &args);
    CHECK_EQ(run(&lun, &args), 0);
    catalogue_free(&c);
    CHECK_EQ(seqno(&lun, &c), 4);
    CHECK_EQ(c.volumes[0].layers[0].size, 40 * MIB);
    CHECK_EQ(c.volumes[0].layers[0].n_segments, 1);
    CHECK_EQ(c.volumes[0].layers[0].segments[0].lun_offset, at);
    CHECK_EQ(c.vg_free, free_before + 88 * MIB);
    CHECK_EQ(c.volumes[0].layers[0].map_generation, 2);
    catalogue_free(&c);
    lvm_lun_close(&lun);
}

static void settings_are_tags_of_the_vg_and_one_commit(void)
{
    struct lvm_lun lun;
    struct catalogue c;
    struct catalogue_args args;
    const char *why = lvm_lun_open(&lun, GIB, 512);
    if (why)
        lvm_lun_close(&lun);
    if (why)
        SKIP(why);
    CHECK_EQ(seqno(&lun, &c), 1);
    CHECK_EQ(c.settings.overcommit_percent, 0);
    CHECK_EQ(c.settings.warn_percent, 80);
    const struct catalogue_settings both = {400, 85}, other = {100, 85}, none = {0, 80};
    const struct catalogue_settings *const to[] = {&both, &other, &none};
    for (unsigned i = 0; i < 3; i++) {
        catalogue_settings_args("lunar-test", &c.settings, to[i], &args);
        CHECK_EQ(run(&lun, &args), 0);
        catalogue_free(&c);
        CHECK_EQ(seqno(&lun, &c), 2 + i);
        CHECK_EQ(c.settings.overcommit_percent, to[i]->overcommit_percent);
        CHECK_EQ(c.settings.warn_percent, to[i]->warn_percent);
    }
    catalogue_free(&c);
    lvm_lun_close(&lun);
}

static struct catalogue_settings settings_of(char *first, char *second)
{
    char *tags[] = {first, second};
    const struct lvm_report r = {.vg_tags = tags, .n_vg_tags = 2};
    return catalogue_read_settings(&r);
}

static void a_setting_that_makes_no_sense_is_not_set(void)
{
    char zero[] = "lunar.oc=0", one[] = "lunar.oc=1", word[] = "lunar.oc=x";
    char much[] = "lunar.warn=101", seven[] = "lunar.warn=7";
    struct catalogue_settings s = settings_of(zero, much);
    CHECK_EQ(s.overcommit_percent, 0);
    CHECK_EQ(s.warn_percent, 80);
    CHECK_EQ(settings_of(one, zero).overcommit_percent, 0); /* two of them */
    s = settings_of(word, seven);
    CHECK_EQ(s.overcommit_percent, 0);
    CHECK_EQ(s.warn_percent, 7);
}

static void removing_many_layers_is_one_commit(void)
{
    struct lvm_lun lun;
    struct catalogue c;
    struct catalogue_args args;
    char lv[40], tags[4][100];
    const char *why = lvm_lun_open(&lun, GIB, 512);
    if (why)
        lvm_lun_close(&lun);
    if (why)
        SKIP(why);
    for (int i = 0; i < CATALOGUE_REMOVE_MAX; i++) {
        bool leaf = i == CATALOGUE_REMOVE_MAX - 1;
        snprintf(lv, sizeof lv, LV_A ".%d", i);
        snprintf(tags[0], sizeof tags[0], "lunar.p=" LV_A ".%d", i - 1);
        const char *argv[] = {"lvcreate",   "-qq",
                              "-y",         "-an",
                              "-Zn",        "-Wn",
                              "-l",         "1",
                              "-n",         lv,
                              "--addtag",   "lunar.v=" ID_A,
                              "--addtag",   "lunar.g=1",
                              "--addtag",   i ? tags[0] : "lunar.p=-",
                              "--addtag",   leaf ? "lunar.r=leaf" : "lunar.r=frozen",
                              "--addtag",   "lunar.n=a",
                              "--addtag",   "lunar.s=10737418240",
                              "--addtag",   "lunar.k=thin",
                              "--addtag",   "lunar.q=" REQ,
                              "lunar-test", NULL};
        CHECK_EQ(lvm_run(lun.lvm, argv, NULL, NULL), 0);
    }
    uint64_t before = seqno(&lun, &c);
    CHECK_EQ(c.n_volumes, 1);
    CHECK_EQ(c.volumes[0].n_layers, CATALOGUE_REMOVE_MAX);
    const struct catalogue_layer *all[CATALOGUE_REMOVE_MAX];
    for (uint32_t i = 0; i < CATALOGUE_REMOVE_MAX; i++)
        all[i] = &c.volumes[0].layers[i];
    catalogue_remove_args("lunar-test", all, CATALOGUE_REMOVE_MAX, &args);
    CHECK_EQ(run(&lun, &args), 0);
    catalogue_free(&c);
    CHECK_EQ(seqno(&lun, &c), before + 1);
    CHECK_EQ(c.n_volumes + c.n_foreign, 0);
    catalogue_free(&c);
    lvm_lun_close(&lun);
}

TEST_MAIN(TEST(a_leaf_is_a_volume_with_all_its_facts),
          TEST(every_volume_is_found_by_its_id_and_no_other),
          TEST(a_chain_follows_the_parent_tags_leaf_first),
          TEST(another_volumes_deleted_layer_does_not_delete_its_clone),
          TEST(whatever_is_broken_is_foreign_and_says_why),
          TEST(an_lv_that_is_not_linear_is_foreign),
          TEST(two_leaves_two_names_and_rings_are_foreign),
          TEST(a_foreign_lv_harms_no_volume_beside_it),
          TEST(names_are_utf8_without_control_characters), TEST(sizes_have_bounds_and_a_step),
          TEST(every_name_survives_its_tag), TEST(the_first_allocation_is_bounded_and_in_extents),
          TEST(a_layer_grows_to_twice_its_need_and_no_more_than_its_map),
          TEST(create_made_extend_deleting_and_remove_are_one_commit_each),
          TEST(a_layer_is_reduced_at_its_end_in_one_commit_and_its_generation_rises_in_one),
          TEST(settings_are_tags_of_the_vg_and_one_commit),
          TEST(a_setting_that_makes_no_sense_is_not_set), TEST(removing_many_layers_is_one_commit))
