/* SPDX-License-Identifier: Apache-2.0 */
/* The catalogue's trees: which layer is the leaf while a snapshot or a rollback is under way, what
 * snapshots there are, what is garbage, and what is nobody's intent. */
#include <inttypes.h>
#include <stdio.h>

#include "support/lvm_by_hand.h"
#include "support/test.h"

#define SNAP     "44444444-4444-4444-8444-444444444444"
#define SNAP_TWO "55555555-5555-4555-8555-555555555555"
/* The layer below becomes a snapshot of that id and name. */
#define OVER(id, name) ",lunar.fi=" id ",lunar.fn=" name ",lunar.ft=1700000000"
#define INSTEAD(lv)    ",lunar.o=" lv ",lunar.rb=" SNAP_TWO
#define SNAPSHOT(id, parent, si, name)                                                             \
    "lunar.v=" id ",lunar.r=snap,lunar.p=" parent ",lunar.g=1,lunar.si=" si ",lunar.sn=" name      \
    ",lunar.st=1700000000,lunar.s=10737418240"

static const struct catalogue_layer *layer(struct catalogue *c, const char *name)
{
    static const struct catalogue_layer none = {.index = UINT32_MAX};
    const struct catalogue_layer *found = catalogue_layer_by_name(c, name);
    return found ? found : &none;
}

static void a_new_overlay_leaves_the_leaf_the_leaf(void)
{
    add_lv(LV_A ".0", MIB, LEAF(ID_A, "a", "-"));
    add_lv(LV_A ".1", MIB, LEAF(ID_A, "a", LV_A ".0") OVER(SNAP, "before/20it") ",lunar.new");
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 1);
    CHECK_EQ(c.n_foreign, 0);
    const struct catalogue_volume *v = &c.volumes[0];
    CHECK_EQ(v->n_layers, 1);
    CHECK_STR(v->layers[0].lv_name, LV_A ".0");
    CHECK(!catalogue_volume_is_new(v) && catalogue_volume_is_changing(v));
    CHECK(v->overlay && !v->overlay->replaces && !v->former);
    CHECK_STR(v->overlay->layer.lv_name, LV_A ".1");
    CHECK_EQ(v->next_index, 2);
    const struct catalogue_snapshot *s = catalogue_snapshot_by_name(&c, "before it");
    CHECK(s && !s->ready && catalogue_snapshot_by_id(&c, &s->id) == s);
    CHECK_STR(c.layers[s->layer].lv_name, LV_A ".0");
    CHECK_EQ(s->created_s, 1700000000);
    CHECK_EQ(layer(&c, LV_A ".0")->users, 1);
    catalogue_free(&c);
}

static void safety_16_dropping_new_is_the_flip(void)
{
    add_lv(LV_A ".0", MIB, LEAF(ID_A, "a", "-"));
    add_lv(LV_A ".1", MIB, LEAF(ID_A, "a", LV_A ".0") OVER(SNAP, "s"));
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 1);
    const struct catalogue_volume *v = &c.volumes[0];
    CHECK_EQ(v->n_layers, 2);
    CHECK_STR(v->layers[0].lv_name, LV_A ".1");
    CHECK(v->former && !v->overlay);
    CHECK_EQ(v->former->layer.role, CATALOGUE_FREEZING);
    CHECK(c.n_snapshots == 1 && !c.snapshots[0].ready); /* it may be written yet */
    struct catalogue_args args;
    catalogue_frozen_args("vg", v, &args);
    CHECK_STR(args.argv[0], "lvchange");
    CHECK_STR(args.argv[args.n - 1], "vg/" LV_A ".0");
    catalogue_free(&c);

    add_lv(LV_A ".0", MIB, SNAPSHOT(ID_A, "-", SNAP, "s"));
    add_lv(LV_A ".1", MIB, LEAF(ID_A, "a", LV_A ".0") OVER(SNAP, "s"));
    c = build();
    CHECK(c.n_volumes == 1 && !catalogue_volume_is_changing(&c.volumes[0]));
    CHECK(c.n_snapshots == 1 && c.snapshots[0].ready);
    CHECK_EQ(c.snapshots[0].size, 10 * GIB);
    catalogue_free(&c);
}

static void nobody_builds_on_what_may_be_written(void)
{
    add_lv(LV_A ".0", MIB, LEAF(ID_A, "a", "-"));
    add_lv(LV_A ".1", MIB, LEAF(ID_A, "a", LV_A ".0") OVER(SNAP, "s"));
    add_lv(LV_B ".0", MIB, LEAF(ID_B, "b", LV_A ".0"));
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 1);
    CHECK(is_foreign(&c, LV_B ".0", "leaf itself"));
    catalogue_free(&c);
}

static void a_rollback_takes_the_leafs_place_and_leaves_it_as_garbage(void)
{
    add_lv(LV_A ".0", MIB, SNAPSHOT(ID_A, "-", SNAP, "s"));
    add_lv(LV_A ".1", MIB, LEAF(ID_A, "a", LV_A ".0"));
    add_lv(LV_A ".2", MIB, LEAF(ID_A, "a", LV_A ".0") INSTEAD(LV_A ".1") ",lunar.new");
    struct catalogue c = build();
    CHECK(c.n_volumes == 1 && c.n_foreign == 0);
    CHECK_STR(c.volumes[0].layers[0].lv_name, LV_A ".1");
    CHECK(c.volumes[0].overlay && c.volumes[0].overlay->replaces);
    CHECK(!layer(&c, LV_A ".1")->garbage);
    catalogue_free(&c);

    add_lv(LV_A ".0", MIB, SNAPSHOT(ID_A, "-", SNAP, "s"));
    add_lv(LV_A ".1", MIB, LEAF(ID_A, "a", LV_A ".0"));
    add_lv(LV_A ".2", MIB, LEAF(ID_A, "a", LV_A ".0") INSTEAD(LV_A ".1"));
    c = build();
    CHECK(c.n_volumes == 1 && c.n_foreign == 0);
    CHECK_STR(c.volumes[0].layers[0].lv_name, LV_A ".2");
    CHECK(c.volumes[0].former && c.volumes[0].former->layer.role == CATALOGUE_REPLACED);
    CHECK(layer(&c, LV_A ".1")->garbage && !layer(&c, LV_A ".0")->garbage);
    CHECK(!uuid_is_zero(&c.volumes[0].rollback_id));
    catalogue_free(&c);

    add_lv(LV_A ".0", MIB, SNAPSHOT(ID_A, "-", SNAP, "s"));
    add_lv(LV_A ".2", MIB, LEAF(ID_A, "a", LV_A ".0") INSTEAD(LV_A ".1"));
    c = build(); /* it is gone: its name in the tag says nothing any more */
    CHECK(c.n_volumes == 1 && c.n_foreign == 0 && !c.volumes[0].former);
    catalogue_free(&c);
}

static void roles_that_nobody_intended_are_foreign(void)
{
    static const struct {
        const char *tags[3], *why;
    } cases[] = {
        {{LEAF(ID_A, "a", "-"), LEAF(ID_A, "a", "-")}, "two leaves"},
        {{LEAF(ID_A, "a", "-") ",lunar.new", LEAF(ID_A, "a", "-") ",lunar.new"}, "two new layers"},
        {{LEAF(ID_A, "a", LV_A ".1"), LEAF(ID_A, "a", LV_A ".0")}, "no leaf"},
        /* new, and not for the leaf */
        {{LEAF(ID_A, "a", "-"), LEAF(ID_A, "a", "-") ",lunar.new"}, "not for its volume's leaf"},
        {{LEAF(ID_A, "a", "-"), LEAF(ID_A, "a", LV_A ".0") ",lunar.new"},
         "not for its volume's leaf"},
        /* succeeded, and nobody says what it is now */
        {{LEAF(ID_A, "a", "-"), LEAF(ID_A, "a", LV_A ".0")}, "no leaf any more"},
        /* a second snapshot before the first was ready */
        {{LEAF(ID_A, "a", "-"), LEAF(ID_A, "a", LV_A ".0") OVER(SNAP, "s"),
          LEAF(ID_A, "a", LV_A ".1") OVER(SNAP_TWO, "t")},
         "no leaf any more"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool found = false;
        char name[32];
        for (int k = 0; k < 3 && cases[i].tags[k]; k++) {
            snprintf(name, sizeof name, LV_A ".%d", k);
            add_lv(name, MIB, cases[i].tags[k]);
        }
        struct catalogue c = build();
        for (uint32_t k = 0; k < c.n_foreign; k++)
            found |= strstr(c.foreign[k], cases[i].why) != NULL;
        if (!found)
            printf("# case %zu: %s\n", i, c.n_foreign ? c.foreign[0] : "-");
        CHECK(found && c.broken);
        catalogue_free(&c);
    }
}

static void what_neither_leaf_nor_snapshot_needs_is_garbage(void)
{
    add_lv(LV_A ".0", MIB, FROZEN(ID_A, "-"));
    add_lv(LV_A ".1", MIB, SNAPSHOT(ID_A, LV_A ".0", SNAP, "s"));
    add_lv(LV_A ".2", MIB, FROZEN(ID_A, LV_A ".1"));
    add_lv(LV_A ".3", MIB, FROZEN(ID_A, LV_A ".2"));
    add_lv(LV_B ".0", MIB, FROZEN(ID_B, "-"));
    add_lv("home", MIB, "");
    struct catalogue c = build();
    CHECK_EQ(c.n_foreign, 1); /* "home" is nobody's business and stops nothing */
    CHECK(!c.broken);
    CHECK(!layer(&c, LV_A ".0")->garbage && !layer(&c, LV_A ".1")->garbage);
    CHECK(layer(&c, LV_A ".2")->garbage && layer(&c, LV_A ".3")->garbage);
    CHECK(layer(&c, LV_B ".0")->garbage);
    CHECK_EQ(layer(&c, LV_A ".3")->depth, 4);
    catalogue_free(&c);
}

/* Its tags may be mended one day, and what it stands upon must be there then. */
static void nothing_is_garbage_while_anything_of_lunars_is_broken(void)
{
    add_lv(LV_A ".0", MIB, FROZEN(ID_A, "-"));
    add_lv(LV_A ".1", MIB, "lunar.v=" ID_A ",lunar.p=" LV_A ".0");
    add_lv(LV_B ".0", MIB, FROZEN(ID_B, "-"));
    struct catalogue c = build();
    CHECK(c.broken && !layer(&c, LV_A ".0")->garbage && !layer(&c, LV_B ".0")->garbage);
    catalogue_free(&c);

    add_lv(LV_A ".0", MIB, "lunar.v=" ID_A ",lunar.r=snap,lunar.p=-,lunar.g=1");
    add_lv(LV_B ".0", MIB, FROZEN(ID_B, "-"));
    c = build(); /* a snapshot without its tags: its layer stays */
    CHECK(c.broken && !layer(&c, LV_A ".0")->garbage && !layer(&c, LV_B ".0")->garbage);
    CHECK(is_foreign(&c, LV_A ".0", "snapshot's id"));
    catalogue_free(&c);
}

static void two_snapshots_of_one_name_or_id_are_none_but_their_chains_stand(void)
{
    add_lv(LV_A ".0", MIB, SNAPSHOT(ID_A, "-", SNAP, "s"));
    add_lv(LV_A ".1", MIB, LEAF(ID_A, "a", LV_A ".0"));
    add_lv(LV_B ".0", MIB, SNAPSHOT(ID_B, "-", SNAP_TWO, "s"));
    struct catalogue c = build();
    CHECK_EQ(c.n_snapshots, 0);
    CHECK_EQ(c.n_volumes, 1);
    CHECK(is_foreign(&c, LV_A ".0", "its name") && is_foreign(&c, LV_B ".0", "its name"));
    CHECK(c.broken && !layer(&c, LV_B ".0")->garbage);
    catalogue_free(&c);

    add_lv(LV_A ".0", MIB, SNAPSHOT(ID_A, "-", SNAP, "s"));
    add_lv(LV_B ".0", MIB, SNAPSHOT(ID_B, "-", SNAP, "t"));
    c = build();
    CHECK_EQ(c.n_snapshots, 0);
    CHECK(is_foreign(&c, LV_A ".0", "its id") && is_foreign(&c, LV_B ".0", "its id"));
    catalogue_free(&c);
}

/* Two layers of one id are one snapshot if the upper one was merged into the other, and both are
 * the same in every tag. */
static void a_merged_snapshot_is_the_layer_below_once_that_has_its_tags(void)
{
    static const struct {
        const char *lower, *upper, *is;
        bool merged, sheds, foreign;
    } cases[] = {
        {"lunar.v=" ID_A ",lunar.r=frozen,lunar.p=-,lunar.g=1",
         SNAPSHOT(ID_A, LV_A ".0", SNAP, "s") ",lunar.m", LV_A ".1", true, false, false},
        {SNAPSHOT(ID_A, "-", SNAP, "s"), SNAPSHOT(ID_A, LV_A ".0", SNAP, "s") ",lunar.m", LV_A ".0",
         true, true, false},
        {SNAPSHOT(ID_A, "-", SNAP, "s") ",lunar.sg=" REQ,
         SNAPSHOT(ID_A, LV_A ".0", SNAP, "s") ",lunar.m,lunar.sg=" REQ, LV_A ".0", true, true,
         false},
        {SNAPSHOT(ID_A, "-", SNAP, "s") ",lunar.sv=" ID_A,
         SNAPSHOT(ID_A, LV_A ".0", SNAP, "s") ",lunar.m", LV_A ".0", true, true, false},
        {SNAPSHOT(ID_A, "-", SNAP, "s"), SNAPSHOT(ID_A, LV_A ".0", SNAP, "s"), NULL, false, false,
         true},
        {SNAPSHOT(ID_A, "-", SNAP, "t"), SNAPSHOT(ID_A, LV_A ".0", SNAP, "s") ",lunar.m", NULL,
         false, false, true},
        {SNAPSHOT(ID_A, "-", SNAP, "s") ",lunar.sg=" REQ,
         SNAPSHOT(ID_A, LV_A ".0", SNAP, "s") ",lunar.m", NULL, false, false, true},
        {SNAPSHOT(ID_A, "-", SNAP, "s") ",lunar.sv=" ID_B,
         SNAPSHOT(ID_A, LV_A ".0", SNAP, "s") ",lunar.m", NULL, false, false, true},
        {SNAPSHOT(ID_A, "-", SNAP_TWO, "t"), SNAPSHOT(ID_A, LV_A ".0", SNAP, "s") ",lunar.m",
         LV_A ".1", false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        add_lv(LV_A ".0", MIB, cases[i].lower);
        add_lv(LV_A ".1", MIB, cases[i].upper);
        add_lv(LV_A ".2", MIB, LEAF(ID_A, "a", LV_A ".1"));
        struct catalogue c = build();
        const struct catalogue_snapshot *s = catalogue_snapshot_by_name(&c, "s");
        const struct catalogue_layer *upper = layer(&c, LV_A ".1");
        CHECK_EQ(c.n_foreign > 0, cases[i].foreign);
        CHECK_EQ(c.broken, cases[i].foreign);
        CHECK_EQ(upper->merged, cases[i].merged);
        CHECK_EQ(upper->sheds_name, cases[i].sheds);
        CHECK_STR(s ? c.layers[s->layer].lv_name : "none", cases[i].is ? cases[i].is : "none");
        CHECK_EQ(c.volumes[0].n_layers, 3);
        if (cases[i].sheds) {
            CHECK(catalogue_sheds_name(&c, s) == upper && upper->role == CATALOGUE_FROZEN);
            CHECK(catalogue_snapshot_of(&c, &c.layers[s->layer]) == s);
        }
        catalogue_free(&c);
    }
    /* Nobody stands upon it: it goes when it has lost the name, and not before. */
    add_lv(LV_A ".0", MIB, cases[1].lower);
    add_lv(LV_A ".1", MIB, cases[1].upper);
    struct catalogue c = build();
    CHECK(!layer(&c, LV_A ".1")->garbage && !layer(&c, LV_A ".0")->garbage);
    catalogue_free(&c);
}

static void snapshots_outlive_their_volume_and_are_sorted(void)
{
    add_lv(LV_A ".0", MIB, SNAPSHOT(ID_A, "-", SNAP, "z"));
    add_lv(LV_A ".1", MIB, SNAPSHOT(ID_A, LV_A ".0", SNAP_TWO, "b"));
    struct catalogue c = build();
    CHECK(c.n_volumes == 0 && c.n_foreign == 0 && c.n_snapshots == 2);
    CHECK_STR(c.snapshots[0].name, "b");
    CHECK(!catalogue_by_id(&c, &c.snapshots[0].volume_id));
    CHECK(!catalogue_snapshot_by_name(&c, "c") && catalogue_snapshot_by_name(&c, "z"));
    catalogue_free(&c);
}

static void chains_of_256_layers_stand_and_one_more_does_not(void)
{
    for (int over = 0; over < 2; over++) {
        int n = CATALOGUE_LAYERS_MAX + over;
        for (int i = 0; i < n; i++) {
            char name[32], tags[512];
            snprintf(name, sizeof name, LV_A ".%d", i);
            snprintf(tags, sizeof tags,
                     i + 1 < n ? "lunar.v=" ID_A ",lunar.r=frozen,lunar.g=1"
                               : "lunar.v=" ID_A ",lunar.n=a,lunar.s=10737418240"
                                 ",lunar.k=thin,lunar.r=leaf,lunar.q=" REQ ",lunar.g=3");
            snprintf(tags + strlen(tags), sizeof tags - strlen(tags),
                     i ? ",lunar.p=" LV_A ".%d" : ",lunar.p=-", i - 1);
            add_lv(name, MIB, tags);
        }
        struct catalogue c = build();
        CHECK_EQ(c.n_volumes, over ? 0 : 1);
        CHECK_EQ(c.n_foreign, over);
        if (!over) {
            CHECK_EQ(c.volumes[0].n_layers, CATALOGUE_LAYERS_MAX);
            CHECK_EQ(c.volumes[0].next_index, CATALOGUE_LAYERS_MAX);
        }
        catalogue_free(&c);
    }
}

/* An LV whose tags are broken has its name all the same. */
static void the_next_index_is_free_whatever_is_broken(void)
{
    add_lv(LV_A ".0", MIB, LEAF(ID_A, "a", "-"));
    add_lv(LV_A ".7", MIB, "lunar.v=x");
    struct catalogue c = build();
    CHECK_EQ(c.n_volumes, 1);
    CHECK_EQ(c.volumes[0].next_index, 8);
    catalogue_free(&c);
}

/* --- against lvm --- */

static struct lvm_lun lun;
static bool steps_are_commits;

static struct catalogue look(void)
{
    struct lvm_report r;
    struct error err = ERROR_INIT;
    struct catalogue c = {0};
    if (lvm_lun_report(&lun, &r, &err) < 0) {
        printf("# %s\n", err.text);
        return c;
    }
    catalogue_build(&r, &c, NULL);
    lvm_report_free(&r);
    return c;
}

static struct catalogue ran(struct catalogue *before, const struct catalogue_args *args)
{
    struct error err = ERROR_INIT;
    uint64_t seqno = before->seqno;
    if (lvm_run(lun.lvm, args->argv, NULL, &err) < 0)
        printf("# %s\n", err.text);
    catalogue_free(before);
    struct catalogue c = look();
    if (c.seqno != seqno + 1 || c.n_foreign != 0)
        printf("# %s: seqno %" PRIu64 " -> %" PRIu64 ", %u foreign\n", args->argv[0], seqno,
               c.seqno, c.n_foreign);
    steps_are_commits &= c.seqno == seqno + 1 && c.n_foreign == 0;
    return c;
}

/* Of a volume with one snapshot. */
static struct catalogue roll_back(struct catalogue c, struct catalogue_leaf *leaf)
{
    struct catalogue_args args;
    char old[32];

    leaf->index = c.volumes[0].next_index;
    leaf->below = NULL;
    snprintf(old, sizeof old, "%s", c.volumes[0].layers[0].lv_name);
    leaf->replaces = old;
    leaf->rollback_id = leaf->request_id;
    catalogue_create_args("lunar-test", leaf, 4 * MIB, &args);
    c = ran(&c, &args);
    steps_are_commits &= c.volumes[0].overlay && c.volumes[0].overlay->replaces;
    catalogue_made_args("lunar-test", &c.volumes[0].overlay->layer, &args);
    c = ran(&c, &args);
    steps_are_commits &= c.volumes[0].former != NULL;
    catalogue_frozen_args("lunar-test", &c.volumes[0], &args);
    c = ran(&c, &args);
    const struct catalogue_layer *garbage = catalogue_layer_by_name(&c, old);
    steps_are_commits &= garbage && garbage->garbage && !c.volumes[0].former;
    catalogue_remove_args("lunar-test", &garbage, 1, &args);
    return ran(&c, &args);
}

static void every_step_of_a_snapshots_life_is_one_commit(void)
{
    struct uuid id = uuid_random(), request = uuid_random(), source = uuid_random();
    char name[VOLUME_NAME_MAX + 1], parent[32];
    struct catalogue_below below = {.snapshot_id = uuid_random(), .created_s = 1700000000};
    struct catalogue_args args;
    const char *why = lvm_lun_open(&lun, 2 * GIB, 512);
    if (why)
        lvm_lun_close(&lun);
    if (why)
        SKIP(why);
    steps_are_commits = true;
    memset(name, '!', VOLUME_NAME_MAX); /* every byte is escaped: the longest command lines */
    name[VOLUME_NAME_MAX] = 0;
    memcpy(below.name, name, sizeof name);
    struct catalogue_leaf leaf = {
        .volume_id = &id, .name = name, .size = GIB, .request_id = &request, .source_id = &source};
    struct catalogue c = look();
    uint64_t vg_free = c.vg_free;
    catalogue_create_args("lunar-test", &leaf, 4 * MIB, &args);
    c = ran(&c, &args);
    catalogue_made_args("lunar-test", &c.volumes[0].layers[0], &args);
    c = ran(&c, &args);
    CHECK(uuid_equal(&c.volumes[0].source_id, &source) && !c.volumes[0].source_is_volume);

    snprintf(parent, sizeof parent, "%s", c.volumes[0].layers[0].lv_name);
    leaf.parent = parent;
    leaf.index = c.volumes[0].next_index;
    leaf.below = &below;
    catalogue_create_args("lunar-test", &leaf, 4 * MIB, &args);
    c = ran(&c, &args);
    CHECK(c.volumes[0].overlay);
    catalogue_made_args("lunar-test", &c.volumes[0].overlay->layer, &args);
    c = ran(&c, &args);
    CHECK(c.volumes[0].former);
    catalogue_frozen_args("lunar-test", &c.volumes[0], &args);
    c = ran(&c, &args);
    CHECK(c.n_snapshots == 1 && c.snapshots[0].ready);
    CHECK_STR(c.snapshots[0].name, name);
    CHECK_EQ(c.snapshots[0].size, GIB);

    const struct catalogue_snapshot s = c.snapshots[0];
    c = roll_back(c, &leaf);
    catalogue_unsnap_args("lunar-test", &c.layers[c.snapshots[0].layer], &c.snapshots[0], &args);
    c = ran(&c, &args);
    CHECK_EQ(c.n_snapshots, 0);
    CHECK_EQ(c.volumes[0].n_layers, 2);
    CHECK_EQ(c.volumes[0].layers[1].role, CATALOGUE_FROZEN);
    catalogue_snap_args("lunar-test", &c.volumes[0].layers[1], &s, &args);
    c = ran(&c, &args);
    CHECK(c.n_snapshots == 1 && c.n_foreign == 0 && uuid_equal(&c.snapshots[0].id, &s.id));
    CHECK_STR(c.snapshots[0].name, name);
    CHECK_EQ(c.snapshots[0].size, GIB);
    catalogue_unsnap_args("lunar-test", &c.volumes[0].layers[1], &s, &args);
    c = ran(&c, &args);
    CHECK_EQ(c.n_snapshots, 0);
    const struct catalogue_layer *all[] = {&c.volumes[0].layers[0], &c.volumes[0].layers[1]};
    catalogue_remove_args("lunar-test", all, 2, &args);
    c = ran(&c, &args);
    CHECK(steps_are_commits);
    CHECK_EQ(c.vg_free, vg_free);
    catalogue_free(&c);
    lvm_lun_close(&lun);
}

TEST_MAIN(TEST(a_new_overlay_leaves_the_leaf_the_leaf), TEST(safety_16_dropping_new_is_the_flip),
          TEST(nobody_builds_on_what_may_be_written),
          TEST(a_rollback_takes_the_leafs_place_and_leaves_it_as_garbage),
          TEST(roles_that_nobody_intended_are_foreign),
          TEST(what_neither_leaf_nor_snapshot_needs_is_garbage),
          TEST(nothing_is_garbage_while_anything_of_lunars_is_broken),
          TEST(two_snapshots_of_one_name_or_id_are_none_but_their_chains_stand),
          TEST(a_merged_snapshot_is_the_layer_below_once_that_has_its_tags),
          TEST(snapshots_outlive_their_volume_and_are_sorted),
          TEST(chains_of_256_layers_stand_and_one_more_does_not),
          TEST(the_next_index_is_free_whatever_is_broken),
          TEST(every_step_of_a_snapshots_life_is_one_commit))
