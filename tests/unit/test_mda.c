/* SPDX-License-Identifier: Apache-2.0 */
/* Reading LVM's metadata without LVM, against what LVM itself says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "coordinator/mda.h"
#include "support/lvm_lun.h"
#include "support/test.h"

#define GIB (1024 * MIB)
#define NEED(lun, open)                                                                            \
    const char *why = open;                                                                        \
    if (why) {                                                                                     \
        lvm_lun_close(&lun);                                                                       \
        SKIP(why);                                                                                 \
    }
#define RUN(lun, ...) lvm_run((lun)->lvm, (const char *const[]){__VA_ARGS__, NULL}, NULL, NULL)

/* LVM on a bare loop device, with a metadata area of 1 MiB, so that the ring comes round soon. */
static const char *open_small(struct lvm_lun *lun, uint32_t sector)
{
    const char *why = lvm_lun_attach(lun, GIB, sector);
    struct lvm_config config = {
        .device = lun->device, .state_dir = lun->dir, .superblock = &lun->sb, .inherit_fd = -1};
    if (!why && lvm_open(&config, &lun->lvm, NULL) < 0)
        why = "no lvm";
    if (!why && (RUN(lun, "pvcreate", "-qq", "-y", "--metadatasize", "512k", "--pvmetadatacopies",
                     "2", lun->device) < 0 ||
                 RUN(lun, "vgcreate", "-qq", "-y", "-s", "64k", "lunar-test", lun->device) < 0))
        why = "no VG";
    return why;
}

/* LVM's own text of the VG, without comments and indentation, as it stands on the disk: up to the
 * VG's end. */
static bool is_what_lvm_says(struct lvm_lun *lun, const char *text)
{
    char path[128], line[4096];
    const char *at = text;
    bool same = true, inside = false;
    snprintf(path, sizeof path, "%s/backup", lun->dir);
    remove(path);
    if (RUN(lun, "vgcfgbackup", "-qq", "-f", path, "lunar-test") < 0)
        return false;
    FILE *f = fopen(path, "r");
    while (f && same && fgets(line, sizeof line, f)) {
        inside |= strncmp(line, "lunar-test {", 12) == 0;
        char *from = line + strspn(line, "\t"), *comment = strstr(from, "\t#");
        from[comment ? strcspn(from, "\t") : strcspn(from, "\n")] = 0;
        if (!inside || !*from)
            continue;
        at += strspn(at, "\n");
        same = strncmp(at, from, strlen(from)) == 0;
        at += strlen(from);
    }
    if (f)
        fclose(f);
    return same && inside;
}

static void the_text_is_lvms_own_through_a_ring_that_wraps(void)
{
    struct lvm_lun lun;
    struct mda_state state, before = {0};
    char *text, name[32];
    size_t len;
    int wrapped = 0, rounds = 0;
    NEED(lun, open_small(&lun, 512));
    /* Long tags make a text of some 60 KiB: every commit moves on by that, about 8 fit the ring. */
    char tag[1000];
    memset(tag, 't', sizeof tag - 1);
    tag[sizeof tag - 1] = 0;
    for (int i = 0; i < 120; i++) {
        snprintf(name, sizeof name, "lunar-test/lv%d", i);
        if (i < 60)
            CHECK_EQ(RUN(&lun, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-l", "1", "-n",
                         name + 11, "--addtag", tag, "lunar-test"),
                     0);
        else
            CHECK_EQ(RUN(&lun, "vgchange", "-qq", "-y", i % 2 ? "--deltag" : "--addtag", "x",
                         "lunar-test"),
                     0);
        CHECK_EQ(mda_read(lun.fd, &state, &text, &len, NULL), 0);
        CHECK_EQ(state.seqno, (uint64_t)i + 2);
        CHECK_EQ(len, state.size - 1);
        struct mda_area areas[MDA_AREAS_MAX];
        CHECK_EQ(mda_areas(lun.fd, areas, NULL), 2);
        bool wraps = state.offset + state.size > areas[0].size;
        rounds += state.offset < before.offset;
        wrapped += wraps;
        if (wraps || i % 20 == 0)
            CHECK(is_what_lvm_says(&lun, text));
        before = state;
        free(text);
    }
    printf("# wrapped %d times in %d rounds\n", wrapped, rounds);
    CHECK(rounds >= 3 && wrapped >= 1);
    lvm_lun_close(&lun);
}

static void both_areas_hold_the_same_text(void)
{
    struct lvm_lun lun;
    struct mda_area areas[MDA_AREAS_MAX];
    struct mda_state a, b;
    char *text_a, *text_b;
    size_t len;
    NEED(lun, lvm_lun_open(&lun, GIB, 4096));
    CHECK_EQ(mda_areas(lun.fd, areas, NULL), 2);
    CHECK_EQ(areas[0].start, 4096);
    CHECK_EQ(areas[1].start + areas[1].size, GIB);
    CHECK_EQ(mda_read_area(lun.fd, &areas[0], &a, &text_a, &len, NULL), 0);
    CHECK_EQ(mda_read_area(lun.fd, &areas[1], &b, &text_b, &len, NULL), 0);
    CHECK_STR(text_a, text_b);
    CHECK(is_what_lvm_says(&lun, text_a));
    free(text_a);
    free(text_b);
    lvm_lun_close(&lun);
}

static void a_pv_without_a_vg_is_not_found(void)
{
    struct lvm_lun lun;
    struct mda_state state;
    NEED(lun, lvm_lun_open(&lun, GIB, 512));
    CHECK_EQ(RUN(&lun, "vgremove", "-qq", "-y", "lunar-test"), 0);
    CHECK_EQ(mda_read(lun.fd, &state, NULL, NULL, NULL), LUNAR_E_NOT_FOUND);
    lvm_lun_close(&lun);
}

static void every_damaged_byte_of_label_header_and_text_is_seen(void)
{
    struct lvm_lun lun;
    struct mda_state state;
    struct error err = ERROR_INIT;
    NEED(lun, lvm_lun_open(&lun, GIB, 512));
    CHECK_EQ(mda_read(lun.fd, &state, NULL, NULL, NULL), 0);
    uint8_t *sound = io_alloc(8192), *bytes = io_alloc(8192);
    CHECK_EQ(io_read(lun.fd, sound, 8192, 0, NULL), 0);
    uint64_t text_end = 4096 + state.offset + state.size;
    CHECK(text_end < 8192);
    for (uint64_t at = 512; at < text_end; at += at < 1024 || at >= 4096 ? 1 : 4096 - at) {
        bool counts = at < 1024 || (at >= 4096 && at < 4608) || at >= 4096 + state.offset;
        memcpy(bytes, sound, 8192);
        bytes[at] ^= 0x5a;
        CHECK_EQ(io_write(lun.fd, bytes, 8192, 0, NULL), 0);
        CHECK_EQ(mda_read(lun.fd, &state, NULL, NULL, &err), counts ? LUNAR_E_CORRUPT : 0);
    }
    CHECK_EQ(io_write(lun.fd, sound, 8192, 0, NULL), 0);
    CHECK_EQ(mda_read(lun.fd, &state, NULL, NULL, NULL), 0);
    free(sound);
    free(bytes);
    lvm_lun_close(&lun);
}

static void an_empty_device_has_no_label(void)
{
    struct mda_state state;
    struct error err = ERROR_INIT;
    char path[] = "/tmp/lunar-test-mda-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    unlink(path);
    CHECK_EQ(ftruncate(fd, 1 << 20), 0);
    CHECK_EQ(mda_read(fd, &state, NULL, NULL, &err), LUNAR_E_CORRUPT);
    CHECK(strstr(err.text, "label"));
    close(fd);
}

TEST_MAIN(TEST(the_text_is_lvms_own_through_a_ring_that_wraps), TEST(both_areas_hold_the_same_text),
          TEST(a_pv_without_a_vg_is_not_found),
          TEST(every_damaged_byte_of_label_header_and_text_is_seen),
          TEST(an_empty_device_has_no_label))
