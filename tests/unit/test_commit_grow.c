/* SPDX-License-Identifier: Apache-2.0 */
/* Rule 4 of SAFETY.md where a LUN grows: the second metadata area stands at its end, so it moves.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "coordinator/commit.h"
#include "support/lvm_lun.h"
#include "support/test.h"

#define GIB       (1024 * MIB)
#define AREA_HEAD (64u * 1024)
#define NEED(lun)                                                                                  \
    const char *why = lvm_lun_open(&lun, GIB, 512);                                                \
    if (why) {                                                                                     \
        lvm_lun_close(&lun);                                                                       \
        SKIP(why);                                                                                 \
    }

static struct error err;

static int open_term(struct lvm_lun *lun, uint64_t term, struct committer **ret)
{
    struct committer_config config = {
        .fd = lun->fd, .superblock = &lun->sb, .lvm = lun->lvm, .term = term};
    log_set_level(LOG_LEVEL_ERROR);
    int rc = committer_open(&config, ret, &err);
    if (rc < 0)
        printf("# %s\n", err.text);
    return rc;
}

static int create(struct committer *c, const char *name)
{
    const char *args[] = {"lvcreate", "-qq", "-y", "-an", "-Zn",        "-Wn",
                          "-l",       "1",   "-n", name,  "lunar-test", NULL};
    return committer_run(c, args, committer_basis(c), &err);
}

/* As the coordinator has LVM take a LUN's new size. */
static int resize(struct lvm_lun *lun, struct committer *c)
{
    struct pv_label label;
    char pv[PV_UUID_SIZE + 8] = LVM_PV_ARG;
    const char *args[] = {"pvresize", "-qq", "-y", pv, NULL};
    if (pv_label_read(lun->fd, &label, &err) < 0)
        return -1;
    strcat(pv, label.uuid);
    return committer_run(c, args, committer_basis(c), &err);
}

/* The names of all LVs, run together; static. */
static const char *names(struct lvm_lun *lun)
{
    static char text[256];
    struct lvm_report r;
    text[0] = 0;
    if (lvm_lun_report(lun, &r, &err) < 0)
        return err.text;
    for (uint32_t i = 0; i < r.n_lvs; i++)
        strcat(text, r.lvs[i].name);
    lvm_report_free(&r);
    return text;
}

/* Where that area begins: header and the first texts. */
static uint8_t *area_bytes(struct lvm_lun *lun, int area)
{
    struct mda_area areas[MDA_AREAS_MAX];
    uint8_t *bytes = io_alloc(AREA_HEAD);
    mda_areas(lun->fd, areas, NULL);
    io_read(lun->fd, bytes, AREA_HEAD, areas[area].start, NULL);
    return bytes;
}

static bool areas_agree(struct lvm_lun *lun, uint64_t want_seqno)
{
    struct mda_area areas[MDA_AREAS_MAX];
    struct mda_state a, b;
    return mda_areas(lun->fd, areas, NULL) == 2 &&
           mda_read_area(lun->fd, &areas[0], &a, NULL, NULL, NULL) == 0 &&
           mda_read_area(lun->fd, &areas[1], &b, NULL, NULL, NULL) == 0 && a.seqno == want_seqno &&
           b.seqno == want_seqno && a.checksum == b.checksum;
}

static uint64_t copy_seqno(struct lvm_lun *lun)
{
    struct mdcopy copy;
    char *text;
    if (mdcopy_read(lun->fd, &lun->sb.layout, &lun->sb.pool_id, &copy, &text, &err) < 0)
        return 0;
    free(text);
    return copy.vg_seqno;
}

static void rule_4_a_grown_lun_has_both_areas_again_and_more_space(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct lvm_report before, after;
    struct mda_area areas[MDA_AREAS_MAX];
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(create(c, "a"), 0);
    CHECK_EQ(lvm_lun_report(&lun, &before, &err), 0);
    CHECK_EQ(before.pvs[0].device_size, GIB);
    CHECK_EQ(lvm_lun_resize(&lun, 2 * GIB), 0);
    CHECK_EQ(resize(&lun, c), 0);
    CHECK_EQ(lvm_lun_report(&lun, &after, &err), 0);
    CHECK_EQ(after.pvs[0].device_size, 2 * GIB);
    CHECK_EQ(after.vg_size, before.vg_size + GIB);
    CHECK_EQ(after.lvs[0].segments[0].lun_offset, before.lvs[0].segments[0].lun_offset);
    CHECK_EQ(mda_areas(lun.fd, areas, &err), 2);
    CHECK_EQ(areas[1].start + areas[1].size, 2 * GIB);
    CHECK(areas_agree(&lun, 4)); /* vgcreate, stamp, lvcreate, pvresize */
    CHECK_EQ(copy_seqno(&lun), 4);
    CHECK_EQ(create(c, "b"), 0);
    CHECK(areas_agree(&lun, 5));
    lvm_report_free(&before);
    lvm_report_free(&after);
    committer_close(c);
    CHECK_EQ(open_term(&lun, 2, &c), 0);
    CHECK_STR(names(&lun), "ab");
    committer_close(c);
    lvm_lun_close(&lun);
}

/* Killed between its writes: the label names the new place of an area that holds nothing yet. */
static void rule_4_a_resize_that_was_cut_short_is_undone_and_can_be_repeated(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct mda_area areas[MDA_AREAS_MAX];
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(create(c, "a"), 0);
    uint8_t *first = area_bytes(&lun, 0); /* as it was before */
    CHECK_EQ(lvm_lun_resize(&lun, 2 * GIB), 0);
    CHECK_EQ(resize(&lun, c), 0);
    committer_close(c);
    CHECK_EQ(mda_areas(lun.fd, areas, &err), 2);
    CHECK_EQ(io_write(lun.fd, first, AREA_HEAD, areas[0].start, &err), 0);
    free(first);
    void *zeros = io_alloc(AREA_HEAD);
    CHECK_EQ(io_write(lun.fd, zeros, AREA_HEAD, areas[1].start, &err), 0);
    free(zeros);
    /* Nor did it come to the copy: both slots hold what was before. */
    struct mdcopy copy;
    struct mda_state was;
    char *text, *newer;
    size_t len;
    CHECK_EQ(mda_read(lun.fd, &was, &text, &len, &err), 0);
    CHECK_EQ(was.seqno, 3);
    CHECK_EQ(mdcopy_read(lun.fd, &lun.sb.layout, &lun.sb.pool_id, &copy, &newer, &err), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(mdcopy_store(lun.fd, &lun.sb.layout, &lun.sb.pool_id, &copy, 1, was.seqno, text,
                              len, &copy, &err),
                 0);
    free(text);
    free(newer);

    CHECK_EQ(open_term(&lun, 2, &c), 0);
    CHECK_STR(names(&lun), "a");
    CHECK(areas_agree(&lun, committer_seqno(c)));
    CHECK_EQ(resize(&lun, c), 0);
    CHECK(areas_agree(&lun, committer_seqno(c)));
    CHECK_EQ(mda_areas(lun.fd, areas, &err), 2);
    CHECK_EQ(areas[1].start + areas[1].size, 2 * GIB);
    CHECK_EQ(create(c, "b"), 0);
    CHECK_STR(names(&lun), "ab");
    committer_close(c);
    lvm_lun_close(&lun);
}

/* It cannot see the second area, which proves nothing about it: nothing is repaired there. */
static void rule_4_a_leader_that_does_not_see_the_new_size_does_not_lead(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct pv_label label;
    NEED(lun);
    CHECK_EQ(lvm_lun_resize(&lun, 2 * GIB), 0);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(resize(&lun, c), 0);
    committer_close(c);
    uint8_t *before = area_bytes(&lun, 0);
    CHECK_EQ(lvm_lun_resize(&lun, GIB), 0); /* the file is cut: what was behind is lost to all */
    CHECK_EQ(open_term(&lun, 2, &c), -EIO);
    CHECK(strstr(err.text, "the device ends"));
    CHECK_EQ(pv_label_read(lun.fd, &label, &err), 0);
    CHECK_EQ(label.n_areas, 2);
    uint8_t *after = area_bytes(&lun, 0);
    CHECK(memcmp(before, after, AREA_HEAD) == 0);
    free(before);
    free(after);
    lvm_lun_close(&lun);
}

TEST_MAIN(TEST(rule_4_a_grown_lun_has_both_areas_again_and_more_space),
          TEST(rule_4_a_resize_that_was_cut_short_is_undone_and_can_be_repeated),
          TEST(rule_4_a_leader_that_does_not_see_the_new_size_does_not_lead))
