/* SPDX-License-Identifier: Apache-2.0 */
/* The parser of lvm's report: what it takes, and that nothing hostile gets through or crashes it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/lvm.h"
#include "support/test.h"

#define EXTENT   4194304ull
#define PE_START 202375168ull

#define VG                                                                                         \
    "\"vg\":[{\"vg_size\":\"4022337536\",\"vg_free\":\"3921674240\",\"vg_extent_size\":"           \
    "\"4194304\","                                                                                 \
    "\"vg_seqno\":\"5\",\"pv_count\":\"1\"}]"
#define PV_UUID "aaaaaa-bbbb-cccc-dddd-eeee-ffff-00000"
#define ONE_PV(name, number, pe_start, size, areas, tags, missing)                                 \
    "{\"pv_name\":\"" name "\",\"pv_uuid\":\"" PV_UUID number "\",\"pe_start\":\"" pe_start        \
    "\",\"pv_size\":\"" size                                                                       \
    "\",\"pv_free\":\"0\",\"dev_size\":\"8589934592\",\"pv_mda_count\":\"" areas                   \
    "\",\"pv_tags\":\"" tags "\",\"pv_missing\":\"" missing "\"}"
#define FIRST_PV ONE_PV("/dev/a:b", "0", "202375168", "4022337536", "2", "", "")
#define PV       "\"pv\":[" FIRST_PV "]"
#define ROW(name, uuid, size, start, len, range)                                                   \
    "{\"lv_name\":\"" name "\",\"lv_uuid\":\"" uuid "\",\"lv_size\":\"" size                       \
    "\",\"lv_tags\":\"lunar.a=1,lunar.b\",\"segtype\":\"linear\",\"seg_start\":\"" start           \
    "\",\"seg_size\":\"" len "\",\"seg_pe_ranges\":\"/dev/a:b:" range "\"}"
#define REPORT(rows) "{\"report\":[{" VG "," PV ",\"seg\":[" rows "]}]}"

static const char sound[] = REPORT(ROW("b", "u1", "25165824", "0", "8388608", "0-1") "," ROW(
    "b", "u1", "25165824", "8388608", "16777216", "8-11") "," ROW("a", "u2", "4194304", "0",
                                                                  "4194304", "2-2"));

static int parse(const char *json)
{
    struct lvm_report r;
    struct error err = ERROR_INIT;
    int rc = lvm_report_parse(json, &r, &err);
    if (rc < 0 && (r.lvs || r.n_lvs || err.code != rc || !err.text[0]))
        return 1; /* a refusal leaves nothing and says why */
    lvm_report_free(&r);
    return rc;
}

static void a_sound_report_gives_lvs_by_name_with_their_ranges(void)
{
    struct lvm_report r;
    CHECK_EQ(lvm_report_parse(sound, &r, NULL), 0);
    CHECK_EQ(r.seqno, 5);
    CHECK_EQ(r.extent_size, EXTENT);
    CHECK_EQ(r.n_lvs, 2);
    CHECK_STR(r.lvs[0].name, "a");
    CHECK_EQ(r.lvs[0].segments[0].lun_offset, PE_START + 2 * EXTENT);
    CHECK_STR(r.lvs[1].name, "b");
    CHECK_EQ(r.lvs[1].size, 6 * EXTENT);
    CHECK_EQ(r.lvs[1].n_segments, 2);
    CHECK_EQ(r.lvs[1].segments[1].lun_offset, PE_START + 8 * EXTENT);
    CHECK_EQ(r.lvs[1].segments[1].length, 4 * EXTENT);
    CHECK_EQ(r.lvs[1].n_tags, 2);
    CHECK_STR(r.lvs[1].tags[1], "lunar.b");
    lvm_report_free(&r);
}

static void the_vgs_tags_are_its_own(void)
{
    struct lvm_report r;
    CHECK_EQ(lvm_report_parse("{\"report\":[{\"vg\":[{\"vg_size\":\"8388608\",\"vg_free\":"
                              "\"8388608\",\"vg_extent_size\":\"4194304\",\"vg_seqno\":\"5\","
                              "\"pv_count\":\"1\",\"vg_tags\":\"lunar.t=3,lunar.oc=400\"}]," PV
                              ",\"seg\":[]}]}",
                              &r, NULL),
             0);
    CHECK_EQ(r.n_vg_tags, 2);
    CHECK_STR(r.vg_tags[1], "lunar.oc=400");
    lvm_report_free(&r);
}

static void neighbouring_segments_are_joined(void)
{
    struct lvm_report r;
    const char *json = REPORT(ROW("b", "u1", "8388608", "0", "4194304", "3-3") "," ROW(
        "b", "u1", "8388608", "4194304", "4194304", "4-4"));
    CHECK_EQ(lvm_report_parse(json, &r, NULL), 0);
    CHECK_EQ(r.lvs[0].n_segments, 1);
    CHECK_EQ(r.lvs[0].segments[0].length, 2 * EXTENT);
    lvm_report_free(&r);
}

static void an_empty_vg_is_a_report(void)
{
    CHECK_EQ(parse(REPORT("")), 0);
}

static void another_kind_of_lv_is_told_apart_and_has_no_ranges(void)
{
    struct lvm_report r;
    char json[sizeof sound];
    strcpy(json, sound);
    memcpy(strstr(json, "linear"), "thin__", 6);
    CHECK_EQ(lvm_report_parse(json, &r, NULL), 0);
    CHECK(!r.lvs[1].linear && r.lvs[1].n_segments == 0);
    CHECK(r.lvs[0].linear);
    lvm_report_free(&r);
}

static void two_lvs_on_one_extent_are_refused(void)
{
    CHECK_EQ(parse(REPORT(ROW("b", "u1", "8388608", "0", "8388608",
                              "0-1") "," ROW("a", "u2", "4194304", "0", "4194304", "1-1"))),
             LUNAR_E_CORRUPT);
}

static void contradictions_are_refused(void)
{
    static const char *const bad[] = {
        /* beyond the VG's end, backwards, of another size, on another PV, no range */
        REPORT(ROW("a", "u", "4194304", "0", "4194304", "959-959")),
        REPORT(ROW("a", "u", "4194304", "0", "4194304", "5-4")),
        REPORT(ROW("a", "u", "4194304", "0", "4194304", "5-6")),
        REPORT(ROW("a", "u", "4194304", "0", "4194304", "5-5 /dev/c:0-0")),
        REPORT(ROW("a", "u", "4194304", "0", "4194304", "")),
        /* a gap at the start, in the middle, at the end; too much */
        REPORT(ROW("a", "u", "8388608", "4194304", "4194304", "5-5")),
        REPORT(ROW("a", "u", "8388608", "0", "4194304", "5-5")),
        REPORT(ROW("a", "u", "8388608", "0", "4194304", "5-5") "," ROW("b", "v", "4194304", "0",
                                                                       "4194304", "7-7")),
        REPORT(ROW("a", "u", "4194304", "0", "8388608", "5-6")),
        REPORT(ROW("a", "u", "0", "0", "0", "5-5")),
        /* numbers that are none, or wrap */
        REPORT(ROW("a", "u", "-4194304", "0", "4194304", "5-5")),
        REPORT(ROW("a", "u", "4194304", "0", "18446744073709551616", "5-5")),
        REPORT(ROW("a", "u", "4194304", "0", "4194304", "-1-5")),
        REPORT(ROW("a", "u", "4194304", "0", "4194304", "0-18446744073709551615")),
        REPORT(ROW("a", "u", "4m", "0", "4194304", "5-5")),
        /* names */
        REPORT(ROW("", "u", "4194304", "0", "4194304", "5-5")),
        REPORT(ROW("a", "u", "4194304", "0", "4194304", "5-5") "," ROW("a", "v", "4194304", "0",
                                                                       "4194304", "7-7")),
        REPORT(ROW("a", "u", "8388608", "0", "4194304",
                   "5-5") "," ROW("b", "u", "8388608", "4194304", "4194304", "6-6")),
        REPORT("7"),
        REPORT("{}"),
        REPORT("{\"lv_name\":7,\"lv_uuid\":[],\"segtype\":null}"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse(bad[i]) != LUNAR_E_CORRUPT)
            printf("# case %zu: %s\n", i, bad[i]);
        CHECK_EQ(parse(bad[i]), LUNAR_E_CORRUPT);
    }
}

static void wrong_shapes_are_refused(void)
{
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        "{\"report\":7}",
        "{\"report\":[]}",
        "{\"report\":[{}]}",
        "{\"report\":[{" VG "}]}",
        "{\"report\":[{" VG "," PV "}]}",
        "{\"report\":[{" VG "," PV ",\"seg\":{}}]}",
        "{\"report\":[{" VG ",\"pv\":[],\"seg\":[]}]}",
        "{\"report\":[{\"vg\":[{}]," PV ",\"seg\":[]}]}",
        "{\"report\":[{\"vg\":[7]," PV ",\"seg\":[]}]}",
        "{\"report\":[{" VG ",\"pv\":[" ONE_PV("/dev/a", "0", "9223372036854775807", "4022337536",
                                               "2", "", "") "],\"seg\":[]}]}",
        "{\"report\":[{\"vg\":[{\"vg_size\":\"8\",\"vg_free\":\"0\",\"vg_extent_size\":\"0\","
        "\"vg_seqno\":\"5\",\"pv_count\":\"1\"}]," PV ",\"seg\":[]}]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse(bad[i]) != LUNAR_E_CORRUPT)
            printf("# case %zu: %s\n", i, bad[i]);
        CHECK_EQ(parse(bad[i]), LUNAR_E_CORRUPT);
    }
}

#define VG_OF(n)                                                                                   \
    "\"vg\":[{\"vg_size\":\"4022337536\",\"vg_free\":\"0\",\"vg_extent_size\":\"4194304\","        \
    "\"vg_seqno\":\"5\",\"pv_count\":\"" n "\"}]"
#define REPORT_OF(n, pvs, rows) "{\"report\":[{" VG_OF(n) ",\"pv\":[" pvs "],\"seg\":[" rows "]}]}"
#define ADDED_UUID              "LUNAR1-bbbb-cccc-dddd-eeee-ffff-00000"
#define ADDED_PV(name, number, missing)                                                            \
    "{\"pv_name\":\"" name "\",\"pv_uuid\":\"" ADDED_UUID number "\",\"pe_start\":\"1048576\","    \
    "\"pv_size\":\"1069547520\",\"pv_free\":\"0\",\"dev_size\":\"8589934592\",\"pv_mda_count\":"   \
    "\"0\","                                                                                       \
    "\"pv_missing\":\"" missing "\"}"
#define SECOND_PV ADDED_PV("/dev/a", "1", "")
#define ROW_ON(name, uuid, size, start, len, range)                                                \
    "{\"lv_name\":\"" name "\",\"lv_uuid\":\"" uuid "\",\"lv_size\":\"" size                       \
    "\",\"lv_tags\":\"\",\"segtype\":\"linear\",\"seg_start\":\"" start "\",\"seg_size\":\"" len   \
    "\",\"seg_pe_ranges\":\"" range "\"}"

static void segments_are_on_the_pv_that_their_range_names(void)
{
    struct lvm_report r;
    struct error err = ERROR_INIT;
    /* The first one stands last, and the name of an added one begins like its. One extent number on
     * both is no clash. */
    const char *json =
        REPORT_OF("3", ADDED_PV("/dev/c", "2", "") "," SECOND_PV "," FIRST_PV,
                  ROW_ON("a", "u", "12582912", "0", "4194304", "/dev/a:b:7-7") "," ROW_ON(
                      "a", "u", "12582912", "4194304", "8388608", "/dev/a:7-8"));
    CHECK_EQ(lvm_report_parse(json, &r, &err), 0);
    CHECK_STR(err.text, "");
    CHECK_EQ(r.n_pvs, 3);
    CHECK_STR(r.pvs[0].uuid, PV_UUID "0");
    CHECK_STR(r.pvs[1].uuid, ADDED_UUID "1");
    CHECK_STR(r.pvs[2].uuid, ADDED_UUID "2");
    for (uint32_t i = 0; i < 3; i++)
        CHECK_EQ(r.pvs[i].index, i);
    CHECK_EQ(r.pvs[1].size, 1069547520);
    CHECK_EQ(r.pvs[1].device_size, 8589934592);
    CHECK_EQ(r.lvs[0].n_segments, 2);
    CHECK_EQ(r.lvs[0].segments[0].pv, 0);
    CHECK_EQ(r.lvs[0].segments[0].lun_offset, PE_START + 7 * EXTENT);
    CHECK_EQ(r.lvs[0].segments[1].pv, 1);
    CHECK_EQ(r.lvs[0].segments[1].lun_offset, 1048576 + 7 * EXTENT);
    lvm_report_free(&r);
}

static void pvs_that_contradict_each_other_are_refused(void)
{
    static const char *const bad[] = {
        /* fewer or more than the VG has, none, no first one, two first ones, one twice */
        REPORT_OF("2", FIRST_PV, ""),
        REPORT_OF("1", FIRST_PV "," SECOND_PV, ""),
        REPORT_OF("0", "", ""),
        REPORT_OF("1", SECOND_PV, ""),
        REPORT_OF("2", FIRST_PV "," FIRST_PV, ""),
        REPORT_OF("3", FIRST_PV "," SECOND_PV "," SECOND_PV, ""),
        /* somebody else added one */
        REPORT_OF("2", FIRST_PV "," ONE_PV("/dev/a", "1", "1048576", "1069547520", "0", "", ""),
                  ""),
        /* a segment beyond its own PV, though not beyond the other; on a PV that is none */
        REPORT_OF("2", FIRST_PV "," SECOND_PV,
                  ROW_ON("a", "u", "4194304", "0", "4194304", "/dev/a:255-255")),
        REPORT_OF("2", FIRST_PV "," SECOND_PV,
                  ROW_ON("a", "u", "4194304", "0", "4194304", "/dev/b:1-1")),
        /* two LVs on one extent of the second */
        REPORT_OF("2", FIRST_PV "," SECOND_PV,
                  ROW_ON("a", "u", "4194304", "0", "4194304", "/dev/a:1-1") "," ROW_ON(
                      "b", "v", "4194304", "0", "4194304", "/dev/a:1-1")),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse(bad[i]) != LUNAR_E_CORRUPT)
            printf("# case %zu: %s\n", i, bad[i]);
        CHECK_EQ(parse(bad[i]), LUNAR_E_CORRUPT);
    }
}

static void a_pv_that_is_not_on_this_machine_leaves_no_report(void)
{
    CHECK_EQ(parse(REPORT_OF("2", FIRST_PV "," ADDED_PV("[unknown]", "1", "missing"), "")),
             LUNAR_E_NOT_FOUND);
}

static void every_truncation_is_refused(void)
{
    char json[sizeof sound];
    for (size_t n = 0; n + 1 < sizeof sound; n++) {
        memcpy(json, sound, n);
        json[n] = 0;
        CHECK_EQ(parse(json), LUNAR_E_CORRUPT);
    }
}

static void no_changed_byte_crashes_it(void)
{
    char json[sizeof sound];
    int taken = 0, refused = 0;
    srand(1);
    for (int i = 0; i < 20000; i++) {
        memcpy(json, sound, sizeof sound);
        for (int k = rand() % 3; k >= 0; k--)
            json[(size_t)rand() % (sizeof sound - 1)] = (char)(rand() % 255 + 1);
        int rc = parse(json);
        CHECK(rc == 0 || rc == LUNAR_E_CORRUPT || rc == LUNAR_E_NOT_FOUND);
        taken += rc == 0;
        refused += rc != 0;
    }
    CHECK(taken > 0 && refused > 0);
}

static void deep_nesting_is_refused(void)
{
    char *json = malloc(2000001);
    memset(json, '[', 2000000);
    json[2000000] = 0;
    CHECK_EQ(parse(json), LUNAR_E_CORRUPT);
    free(json);
}

static void four_thousand_lvs_parse_in_well_under_a_second(void)
{
    struct lvm_report r;
    char *json = NULL;
    size_t size;
    struct timespec from, to;
    FILE *f = open_memstream(&json, &size);
    fputs("{\"report\":[{\"vg\":[{\"vg_size\":\"41943040000\",\"vg_free\":\"0\",\"vg_extent_size\":"
          "\"4194304\",\"vg_seqno\":\"5\",\"pv_count\":\"1\"}],\"pv\":[" ONE_PV(
              "/dev/a:b", "0", "202375168", "41943040000", "2", "", "") "],\"seg\":[",
          f);
    for (int i = 0; i < 4000; i++)
        fprintf(
            f,
            "%s{\"lv_name\":\"v%016x.0\",\"lv_uuid\":\"u%d\",\"lv_size\":\"8388608\",\"lv_tags\":"
            "\"lunar.a=1,lunar.b=2,lunar.c=3,lunar.d=4,lunar.e=5,lunar.f=6,lunar.g=7\",\"segtype\":"
            "\"linear\",\"seg_start\":\"0\",\"seg_size\":\"8388608\",\"seg_pe_ranges\":"
            "\"/dev/a:b:%d-%d\"}",
            i ? "," : "", (unsigned)i, i, 2 * i, 2 * i + 1);
    fputs("]}]}", f);
    fclose(f);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    CHECK_EQ(lvm_report_parse(json, &r, NULL), 0);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    long ms = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
    printf("# %ld ms\n", ms);
    CHECK_EQ(r.n_lvs, 4000);
    CHECK(ms < 500);
    lvm_report_free(&r);
    free(json);
}

TEST_MAIN(TEST(a_sound_report_gives_lvs_by_name_with_their_ranges), TEST(the_vgs_tags_are_its_own),
          TEST(neighbouring_segments_are_joined), TEST(an_empty_vg_is_a_report),
          TEST(another_kind_of_lv_is_told_apart_and_has_no_ranges),
          TEST(two_lvs_on_one_extent_are_refused), TEST(contradictions_are_refused),
          TEST(wrong_shapes_are_refused), TEST(segments_are_on_the_pv_that_their_range_names),
          TEST(pvs_that_contradict_each_other_are_refused),
          TEST(a_pv_that_is_not_on_this_machine_leaves_no_report),
          TEST(every_truncation_is_refused), TEST(no_changed_byte_crashes_it),
          TEST(deep_nesting_is_refused), TEST(four_thousand_lvs_parse_in_well_under_a_second))
