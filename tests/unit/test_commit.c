/* SPDX-License-Identifier: Apache-2.0 */
/* Rule 4 of SAFETY.md: LVM metadata has no compare-and-swap, so late writes are seen and undone.
 * And the kill points. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "coordinator/commit.h"
#include "support/lvm_lun.h"
#include "support/test.h"

#define GIB (1024 * MIB)
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

static int create_without_committer(struct lvm_lun *lun, const char *name)
{
    const char *args[] = {"lvcreate", "-qq", "-y", "-an", "-Zn",        "-Wn",
                          "-l",       "1",   "-n", name,  "lunar-test", NULL};
    return lvm_run(lun->lvm, args, NULL, NULL);
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

/* What a late write of a deposed coordinator puts back: both metadata areas as they once were. */
struct raw {
    struct mda_area areas[MDA_AREAS_MAX];
    uint8_t *bytes[2];
};
#define RAW_SIZE (64 * 1024)

static void save(struct lvm_lun *lun, struct raw *raw)
{
    mda_areas(lun->fd, raw->areas, NULL);
    for (int i = 0; i < 2; i++) {
        raw->bytes[i] = io_alloc(RAW_SIZE);
        io_read(lun->fd, raw->bytes[i], RAW_SIZE, raw->areas[i].start, NULL);
    }
}

static void put_back(struct lvm_lun *lun, struct raw *raw, int from, int to)
{
    for (int i = from; i < to; i++)
        io_write(lun->fd, raw->bytes[i], RAW_SIZE, raw->areas[i].start, NULL);
}

static void drop(struct raw *raw)
{
    free(raw->bytes[0]);
    free(raw->bytes[1]);
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

static void a_commit_is_done_and_its_copy_stored(void)
{
    struct lvm_lun lun;
    struct committer *c;
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(committer_seqno(c), 2); /* vgcreate, and the stamp of our term */
    CHECK_EQ(create(c, "a"), 0);
    CHECK_EQ(create(c, "b"), 0);
    CHECK_EQ(committer_seqno(c), 4);
    CHECK_EQ(copy_seqno(&lun), 4);
    CHECK_STR(names(&lun), "ab");
    committer_close(c);
    CHECK_EQ(open_term(&lun, 1, &c), 0); /* the same term again: nothing to stamp */
    CHECK_EQ(committer_seqno(c), 4);
    committer_close(c);
    lvm_lun_close(&lun);
}

static void a_failed_command_changes_nothing_and_the_next_one_works(void)
{
    struct lvm_lun lun;
    struct committer *c;
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(create(c, "a"), 0);
    CHECK_EQ(create(c, "a"), LUNAR_E_EXEC);
    CHECK(strstr(err.text, "already exists"));
    CHECK_EQ(committer_seqno(c), 3);
    CHECK_EQ(create(c, "b"), 0);
    CHECK_EQ(copy_seqno(&lun), 4);
    committer_close(c);
    lvm_lun_close(&lun);
}

/* Both areas, the first alone, the second alone. */
static void rule_4_a_late_write_is_refused_and_undone(void)
{
    static const int ranges[3][2] = {{0, 2}, {0, 1}, {1, 2}};
    for (int i = 0; i < 3; i++) {
        struct lvm_lun lun;
        struct committer *c;
        struct raw raw;
        NEED(lun);
        CHECK_EQ(open_term(&lun, 1, &c), 0);
        CHECK_EQ(create(c, "a"), 0);
        save(&lun, &raw);
        CHECK_EQ(create(c, "b"), 0);
        put_back(&lun, &raw, ranges[i][0], ranges[i][1]);
        CHECK_EQ(create(c, "c"), LUNAR_E_METADATA);
        CHECK(strstr(err.text, "restored"));
        CHECK_STR(names(&lun), "ab");
        CHECK_EQ(committer_seqno(c), 5);
        CHECK(areas_agree(&lun, 5));
        CHECK_EQ(copy_seqno(&lun), 5);
        CHECK_EQ(create(c, "c"), 0);
        CHECK_STR(names(&lun), "abc");
        committer_close(c);
        drop(&raw);
        lvm_lun_close(&lun);
    }
}

static void rule_4_takeover_restores_older_metadata_from_the_copy(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct raw raw;
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(create(c, "a"), 0);
    save(&lun, &raw);
    CHECK_EQ(create(c, "b"), 0);
    CHECK_EQ(create(c, "c"), 0);
    committer_close(c);
    put_back(&lun, &raw, 0, 2);
    CHECK_STR(names(&lun), "a");
    CHECK_EQ(open_term(&lun, 2, &c), 0);
    CHECK_STR(names(&lun), "abc");
    CHECK(areas_agree(&lun, committer_seqno(c)));
    CHECK_EQ(copy_seqno(&lun), committer_seqno(c));
    committer_close(c);
    drop(&raw);
    lvm_lun_close(&lun);
}

static void rule_4_takeover_adopts_what_the_predecessor_could_not_copy(void)
{
    struct lvm_lun lun;
    struct committer *c;
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(create(c, "a"), 0);
    committer_close(c);
    CHECK_EQ(create_without_committer(&lun, "b"), 0); /* carries term 1 */
    CHECK_EQ(copy_seqno(&lun), 3);
    CHECK_EQ(open_term(&lun, 2, &c), 0);
    CHECK_STR(names(&lun), "ab");
    CHECK_EQ(committer_seqno(c), 5); /* adopted 4, stamped */
    CHECK_EQ(copy_seqno(&lun), 5);
    committer_close(c);
    lvm_lun_close(&lun);
}

static void rule_4_takeover_undoes_a_late_write_that_looks_newer(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct raw before, late;
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(create(c, "a"), 0);
    committer_close(c);
    /* Term 1's writes of these hang on their way while term 2 takes over without having seen them.
     */
    save(&lun, &before);
    CHECK_EQ(create_without_committer(&lun, "b"), 0);
    CHECK_EQ(create_without_committer(&lun, "c"), 0);
    CHECK_EQ(create_without_committer(&lun, "d"), 0);
    save(&lun, &late);
    put_back(&lun, &before, 0, 2);
    CHECK_EQ(open_term(&lun, 2, &c), 0);
    CHECK_STR(names(&lun), "a");
    CHECK_EQ(copy_seqno(&lun), 4);
    committer_close(c);
    put_back(&lun, &late, 0, 2); /* now they land: seqno 6 against 4 */
    CHECK_STR(names(&lun), "abcd");
    CHECK_EQ(open_term(&lun, 3, &c), 0);
    CHECK_STR(names(&lun), "a");
    committer_close(c);
    drop(&before);
    drop(&late);
    lvm_lun_close(&lun);
}

/* Both slots of the copy are lost, and one area holds what a deposed term-1 lvm wrote late, with
 * the same seqno as term 2's text or a higher one: the term decides, not the seqno. */
static void rule_4_a_late_write_in_one_area_does_not_win_by_its_seqno(void)
{
    for (int round = 0; round < 4; round++) {
        int area = round % 2;
        struct lvm_lun lun;
        struct committer *c;
        struct raw before, late;
        uint8_t *zeroes = io_alloc(IO_ALIGN);
        NEED(lun);
        const struct layout *layout = &lun.sb.layout;
        CHECK_EQ(open_term(&lun, 1, &c), 0);
        CHECK_EQ(create(c, "a"), 0);
        committer_close(c);
        save(&lun, &before);
        CHECK_EQ(create_without_committer(&lun, "b"), 0);
        if (round >= 2)
            CHECK_EQ(create_without_committer(&lun, "c"), 0);
        save(&lun, &late); /* seqno 4 or 5 */
        put_back(&lun, &before, 0, 2);
        CHECK_EQ(open_term(&lun, 2, &c), 0);
        CHECK_EQ(committer_seqno(c), 4);
        committer_close(c);
        put_back(&lun, &late, area, area + 1);
        CHECK_EQ(io_write(lun.fd, zeroes, IO_ALIGN, layout->metadata_a, NULL), 0);
        CHECK_EQ(io_write(lun.fd, zeroes, IO_ALIGN, layout->metadata_b, NULL), 0);
        CHECK_EQ(open_term(&lun, 3, &c), 0);
        CHECK_STR(names(&lun), "a");
        CHECK(areas_agree(&lun, committer_seqno(c)));
        committer_close(c);
        free(zeroes);
        drop(&before);
        drop(&late);
        lvm_lun_close(&lun);
    }
}

static void rule_4_takeover_levels_areas_between_which_the_predecessor_died(void)
{
    for (int area = 0; area < 2; area++) {
        struct lvm_lun lun;
        struct committer *c;
        struct raw raw;
        NEED(lun);
        CHECK_EQ(open_term(&lun, 1, &c), 0);
        save(&lun, &raw);
        CHECK_EQ(create_without_committer(&lun, "a"), 0);
        put_back(&lun, &raw, area, area + 1);
        committer_close(c);
        CHECK_EQ(open_term(&lun, 2, &c), 0);
        CHECK_STR(names(&lun), "a");
        CHECK(areas_agree(&lun, committer_seqno(c)));
        committer_close(c);
        drop(&raw);
        lvm_lun_close(&lun);
    }
}

/* Places that no restore may touch: both ends of the reserved area, the first extent, the last
 * bytes before the second metadata area. The middle of the area holds the copy itself. */
static void guarded(const struct lvm_lun *lun, uint64_t ret[4])
{
    struct mda_area areas[MDA_AREAS_MAX];
    mda_areas(lun->fd, areas, NULL);
    ret[0] = lun->sb.layout.area_start;
    ret[1] = lun->sb.layout.area_start + lun->sb.layout.area_size - 4096;
    ret[2] = lun->sb.layout.area_start + lun->sb.layout.area_size;
    ret[3] = areas[1].start - 4096;
}

static void mark(struct lvm_lun *lun)
{
    uint64_t at[4];
    uint8_t *page = io_alloc(4096);
    memset(page, 0xa7, 4096);
    guarded(lun, at);
    for (int i = 0; i < 4; i++)
        io_write(lun->fd, page, 4096, at[i], NULL);
    free(page);
}

static bool untouched(struct lvm_lun *lun)
{
    uint64_t at[4];
    uint8_t *page = io_alloc(4096);
    bool same = true;
    guarded(lun, at);
    for (int i = 0; i < 4; i++) {
        same &= io_read(lun->fd, page, 4096, at[i], NULL) == 0;
        for (int k = 0; k < 4096; k++)
            same &= page[k] == 0xa7;
    }
    free(page);
    return same;
}

/* One area's header, both, the label too. */
static void rule_4_garbage_is_replaced_by_the_copy(void)
{
    for (int i = 0; i < 3; i++) {
        struct lvm_lun lun;
        struct committer *c;
        struct raw raw;
        struct mda_area areas[MDA_AREAS_MAX];
        NEED(lun);
        CHECK_EQ(open_term(&lun, 1, &c), 0);
        CHECK_EQ(create(c, "a"), 0);
        mark(&lun);
        save(&lun, &raw);
        memset(raw.bytes[0], 0x5a, RAW_SIZE);
        memset(raw.bytes[1], 0x5a, RAW_SIZE);
        put_back(&lun, &raw, 0, i == 0 ? 1 : 2);
        if (i == 2)
            CHECK_EQ(io_write(lun.fd, raw.bytes[0], 4096, 0, NULL), 0);
        int rc = create(c, "b");
        if (rc != LUNAR_E_METADATA)
            printf("# garbage %d: %s\n", i, err.text);
        CHECK_EQ(rc, LUNAR_E_METADATA);
        CHECK(strstr(err.text, "was restored"));
        CHECK_STR(names(&lun), "a");
        CHECK(areas_agree(&lun, committer_seqno(c)));
        CHECK_EQ(mda_areas(lun.fd, areas, NULL), 2);
        CHECK_EQ(areas[0].size, raw.areas[0].size); /* the same places as format made */
        CHECK_EQ(areas[1].start, raw.areas[1].start);
        CHECK(untouched(&lun));
        CHECK_EQ(create(c, "b"), 0);
        committer_close(c);
        CHECK_EQ(open_term(&lun, 2, &c), 0);
        CHECK_STR(names(&lun), "ab");
        committer_close(c);
        drop(&raw);
        lvm_lun_close(&lun);
    }
}

static void a_lower_term_than_the_metadata_carries_is_stale(void)
{
    struct lvm_lun lun;
    struct committer *c;
    NEED(lun);
    CHECK_EQ(open_term(&lun, 5, &c), 0);
    committer_close(c);
    CHECK_EQ(open_term(&lun, 4, &c), LUNAR_E_STALE);
    lvm_lun_close(&lun);
}

static void damaged_metadata_without_a_copy_is_an_error(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct raw raw;
    NEED(lun);
    save(&lun, &raw);
    memset(raw.bytes[0], 0, RAW_SIZE);
    memset(raw.bytes[1], 0, RAW_SIZE);
    put_back(&lun, &raw, 0, 2);
    CHECK_EQ(open_term(&lun, 1, &c), LUNAR_E_METADATA);
    CHECK(strstr(err.text, "no copy"));
    drop(&raw);
    lvm_lun_close(&lun);
}

static void another_vg_on_the_lun_is_foreign_and_left_alone(void)
{
    struct lvm_lun lun;
    struct committer *c, *d;
    char *text;
    size_t len;
    struct mda_state state;
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    const char *remove_vg[] = {"vgremove", "-qq", "-y", "lunar-test", NULL};
    const char *create_vg[] = {"vgcreate", "-qq", "-y", "lunar-test", lun.device, NULL};
    CHECK_EQ(lvm_run(lun.lvm, remove_vg, NULL, NULL), 0);
    CHECK_EQ(lvm_run(lun.lvm, create_vg, NULL, NULL), 0);
    CHECK_EQ(create(c, "a"), LUNAR_E_FOREIGN);
    CHECK_EQ(open_term(&lun, 2, &d), LUNAR_E_FOREIGN);
    CHECK_EQ(mda_read(lun.fd, &state, &text, &len, NULL), 0);
    CHECK_EQ(state.seqno, 1);
    free(text);
    committer_close(c);
    lvm_lun_close(&lun);
}

/* lvm that commits and then hangs: killed after its time, but the commit is there. */
static void a_time_out_is_indeterminate_and_what_it_did_is_adopted(void)
{
    struct lvm_lun lun;
    struct committer *c;
    char path[128];
    NEED(lun);
    snprintf(path, sizeof path, "%s/slow", lun.dir);
    FILE *f = fopen(path, "w");
    fputs("#!/bin/sh\n/sbin/lvm \"$@\"; rc=$?; case $* in *stall*) exec sleep 1000;; esac; exit "
          "$rc\n",
          f);
    fclose(f);
    chmod(path, 0700);
    setenv("LUNAR_LVM_PATH", path, 1);
    struct lvm_config config = {
        .device = lun.device, .state_dir = lun.dir, .superblock = &lun.sb, .inherit_fd = -1};
    lvm_close(lun.lvm);
    CHECK_EQ(lvm_open(&config, &lun.lvm, NULL), 0);
    unsetenv("LUNAR_LVM_PATH");
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    lvm_set_timeout(lun.lvm, 3000);
    CHECK_EQ(create(c, "stall"), LUNAR_E_INDETERMINATE);
    CHECK_EQ(committer_seqno(c), 3);
    CHECK_EQ(copy_seqno(&lun), 3);
    /* What was decided before anybody had seen that it took effect is refused. */
    const char *args[] = {"lvcreate", "-qq", "-y", "-an", "-Zn",        "-Wn",
                          "-l",       "1",   "-n", "old", "lunar-test", NULL};
    CHECK_EQ(committer_run(c, args, committer_basis(c) - 1, &err), LUNAR_E_METADATA);
    CHECK_EQ(create(c, "b"), 0);
    CHECK_STR(names(&lun), "bstall");
    committer_close(c);
    lvm_lun_close(&lun);
}

/* lvm fails, its client is told so, the leader dies, and then what lvm had written lands. */
static void rule_4_a_failed_command_that_lands_later_is_not_adopted(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct raw before, late;
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(create(c, "a"), 0);
    save(&lun, &before);
    CHECK_EQ(create_without_committer(&lun, "late"), 0); /* the same term, the next seqno */
    save(&lun, &late);
    put_back(&lun, &before, 0, 2);
    CHECK_EQ(create(c, "a"), LUNAR_E_EXEC); /* it exists: as good a failure as any */
    CHECK_EQ(committer_settle(c, &err), 0);
    CHECK_EQ(committer_seqno(c), 4);
    CHECK_EQ(copy_seqno(&lun), 4);
    committer_close(c);
    put_back(&lun, &late, 0, 2);
    CHECK_EQ(open_term(&lun, 2, &c), 0);
    CHECK_STR(names(&lun), "a");
    committer_close(c);
    drop(&before);
    drop(&late);
    lvm_lun_close(&lun);
}

static void rule_4_damage_is_repaired_while_nothing_is_committed(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct raw raw;
    uint8_t *zeroes = io_alloc(IO_ALIGN);
    NEED(lun);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    save(&lun, &raw);
    CHECK_EQ(create(c, "a"), 0);
    CHECK_EQ(committer_tend(c, &err), 0);
    CHECK_EQ(committer_seqno(c), 3); /* all is well: nothing is written */
    put_back(&lun, &raw, 1, 2);
    CHECK_EQ(committer_tend(c, &err), 0);
    put_back(&lun, &raw, 0, 1);
    CHECK_EQ(committer_tend(c, &err), 0);
    CHECK(areas_agree(&lun, committer_seqno(c)));
    CHECK_STR(names(&lun), "a");
    for (int slot = 0; slot < 2; slot++)
        io_write(lun.fd, zeroes, IO_ALIGN,
                 slot ? lun.sb.layout.metadata_b : lun.sb.layout.metadata_a, NULL);
    CHECK_EQ(copy_seqno(&lun), 0);
    CHECK_EQ(committer_tend(c, &err), 0);
    CHECK_EQ(copy_seqno(&lun), committer_seqno(c));
    committer_close(c);
    free(zeroes);
    drop(&raw);
    lvm_lun_close(&lun);
}

/* The slots' headers say what was stored where: damage to the newest is repaired in its own slot.
 */
static void rule_4_a_damaged_copy_is_replaced_and_the_older_one_left_alone(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct mdcopy newest, older, got;
    char *text;
    uint8_t *zeroes = io_alloc(IO_ALIGN), *before = io_alloc(IO_ALIGN), *after = io_alloc(IO_ALIGN);
    NEED(lun);
    const struct layout *layout = &lun.sb.layout;
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    const uint64_t slots[] = {layout->metadata_a, layout->metadata_b};
    for (int round = 0; round < 2; round++) { /* the newest one is in either slot once */
        CHECK_EQ(create(c, round ? "b" : "a"), 0);
        CHECK_EQ(mdcopy_read(lun.fd, layout, &lun.sb.pool_id, &newest, &text, &err), 0);
        free(text);
        CHECK_EQ(io_write(lun.fd, zeroes, IO_ALIGN, slots[newest.slot], NULL), 0);
        CHECK_EQ(mdcopy_read(lun.fd, layout, &lun.sb.pool_id, &older, &text, &err), 0);
        free(text);
        CHECK(older.slot != newest.slot && older.seq < newest.seq);
        CHECK_EQ(io_read(lun.fd, before, IO_ALIGN, slots[older.slot], NULL), 0);
        CHECK_EQ(committer_tend(c, &err), 0);
        CHECK_EQ(io_read(lun.fd, after, IO_ALIGN, slots[older.slot], NULL), 0);
        CHECK_EQ(memcmp(before, after, IO_ALIGN), 0);
        CHECK_EQ(mdcopy_read(lun.fd, layout, &lun.sb.pool_id, &got, &text, &err), 0);
        free(text);
        CHECK_EQ(got.slot, newest.slot);
        CHECK_EQ(got.vg_seqno, committer_seqno(c));
    }
    committer_close(c);
    free(zeroes);
    free(before);
    free(after);
    lvm_lun_close(&lun);
}

/* A leader stood still behind its look at the lease, while its successor stored a copy. */
static void rule_4_the_copy_of_a_higher_term_is_never_overwritten(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct mdcopy ours, theirs, got;
    struct raw raw;
    char *text;
    uint8_t *zeroes = io_alloc(IO_ALIGN);
    NEED(lun);
    const struct layout *layout = &lun.sb.layout;
    const struct uuid *pool = &lun.sb.pool_id;
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(create(c, "a"), 0);
    save(&lun, &raw);
    CHECK_EQ(mdcopy_read(lun.fd, layout, pool, &ours, &text, &err), 0);
    CHECK_EQ(mdcopy_store(lun.fd, layout, pool, &ours, 2, 9, "x", 1, &theirs, &err), 0);
    CHECK_EQ(committer_tend(c, &err), LUNAR_E_STALE);
    for (int i = 0; i < 2; i++) /* so that headers must be made anew, for which the copy is read */
        io_write(lun.fd, zeroes, IO_ALIGN, raw.areas[i].start, NULL);
    CHECK_EQ(create(c, "b"), LUNAR_E_STALE);
    free(text);
    CHECK_EQ(mdcopy_read(lun.fd, layout, pool, &got, &text, &err), 0);
    CHECK_EQ(got.seq, theirs.seq);
    CHECK_EQ(got.term, 2);
    free(text);
    committer_close(c);
    CHECK_EQ(open_term(&lun, 1, &c), LUNAR_E_STALE);
    free(zeroes);
    drop(&raw);
    lvm_lun_close(&lun);
}

static void a_copy_of_an_earlier_pool_is_no_copy(void)
{
    struct lvm_lun lun;
    struct committer *c;
    struct mdcopy stored;
    struct uuid other = uuid_random();
    NEED(lun);
    CHECK_EQ(mdcopy_store(lun.fd, &lun.sb.layout, &other, NULL, 1, 9, "x", 1, &stored, &err), 0);
    CHECK_EQ(open_term(&lun, 1, &c), 0);
    CHECK_EQ(copy_seqno(&lun), 2);
    committer_close(c);
    lvm_lun_close(&lun);
}

/* --- kill points: counted from the process's start, so each run is this very program started anew
 * --- */

/* "DEVICE DIR UUID": a run takes over under term 1 and creates "a". */
__attribute__((constructor)) static void run_as_a_coordinator(void)
{
    const char *how = getenv("TEST_COMMIT_RUN");
    char id[UUID_TEXT_SIZE];
    struct lvm_lun lun = {.loop = -1, .sb = {.extent_size = 4u << 20, .pool_name = "test"}};
    struct lvm_config config = {
        .device = lun.device, .state_dir = lun.dir, .superblock = &lun.sb, .inherit_fd = -1};
    struct committer *c;

    if (!how)
        return;
    bool sound =
        sscanf(how, "%31s %63s %36s", lun.device, lun.dir, id) == 3 &&
        uuid_parse(id, &lun.sb.pool_id) == 0 && layout_compute(2, 512, &lun.sb.layout, NULL) == 0 &&
        (lun.fd = io_open(lun.device, 1, NULL)) >= 0 && lvm_open(&config, &lun.lvm, NULL) == 0;
    _exit(sound && open_term(&lun, 1, &c) == 0 && create(c, "a") == 0 ? 0 : 1);
}

static int run_killed_at(struct lvm_lun *lun, int point, const char *trace)
{
    char number[16], how[200], id[UUID_TEXT_SIZE];
    int status = 0;
    snprintf(number, sizeof number, "%d", point);
    snprintf(how, sizeof how, "%s %s %s", lun->device, lun->dir, uuid_format(&lun->sb.pool_id, id));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("LUNAR_KILL_AT", number, 1);
        setenv("LUNAR_KILL_TRACE", trace, 1);
        setenv("TEST_COMMIT_RUN", how, 1);
        execl("/proc/self/exe", "test_commit", NULL);
        _exit(2);
    }
    waitpid(pid, &status, 0);
    return status;
}

static int lines(const char *path, char *last)
{
    char line[200];
    int n = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        n++;
        strcpy(last, line);
    }
    if (f)
        fclose(f);
    return n;
}

static void every_kill_point_of_a_commit_leaves_a_pool_that_the_next_leader_takes(void)
{
    struct lvm_lun lun;
    struct committer *c;
    char trace[128], last[200];
    int points = 6; /* replaced by the trace of the first, unharmed run */
    for (int at = 0; at <= points; at++) {
        NEED(lun);
        snprintf(trace, sizeof trace, "%s/trace", lun.dir);
        int status = run_killed_at(&lun, at, trace);
        if (at == 0) {
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            points = lines(trace, last);
            CHECK(points >= 6);
            CHECK_STR(last + 2, "commit lvcreate copied\n");
        } else {
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            CHECK_EQ(lines(trace, last), at);
        }
        CHECK_EQ(open_term(&lun, 2, &c), 0);
        const char *have = names(&lun);
        /* The second half of the points are those of lvcreate; it is there once its command has
         * run. */
        CHECK_STR(have, at == 0 || at > points - 2 ? "a" : "");
        CHECK(areas_agree(&lun, committer_seqno(c)));
        CHECK_EQ(copy_seqno(&lun), committer_seqno(c));
        CHECK_EQ(create(c, "b"), 0);
        committer_close(c);
        lvm_lun_close(&lun);
    }
}

TEST_MAIN(TEST(a_commit_is_done_and_its_copy_stored),
          TEST(a_failed_command_changes_nothing_and_the_next_one_works),
          TEST(rule_4_a_late_write_is_refused_and_undone),
          TEST(rule_4_takeover_restores_older_metadata_from_the_copy),
          TEST(rule_4_takeover_adopts_what_the_predecessor_could_not_copy),
          TEST(rule_4_takeover_undoes_a_late_write_that_looks_newer),
          TEST(rule_4_a_late_write_in_one_area_does_not_win_by_its_seqno),
          TEST(rule_4_takeover_levels_areas_between_which_the_predecessor_died),
          TEST(rule_4_garbage_is_replaced_by_the_copy),
          TEST(a_lower_term_than_the_metadata_carries_is_stale),
          TEST(damaged_metadata_without_a_copy_is_an_error),
          TEST(another_vg_on_the_lun_is_foreign_and_left_alone),
          TEST(a_time_out_is_indeterminate_and_what_it_did_is_adopted),
          TEST(rule_4_a_failed_command_that_lands_later_is_not_adopted),
          TEST(rule_4_damage_is_repaired_while_nothing_is_committed),
          TEST(rule_4_a_damaged_copy_is_replaced_and_the_older_one_left_alone),
          TEST(rule_4_the_copy_of_a_higher_term_is_never_overwritten),
          TEST(a_copy_of_an_earlier_pool_is_no_copy),
          TEST(every_kill_point_of_a_commit_leaves_a_pool_that_the_next_leader_takes))
