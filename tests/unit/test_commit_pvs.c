/* SPDX-License-Identifier: Apache-2.0 */
/* Commits of a pool of two LUNs: what lvm is shown, and rule 4 of SAFETY.md with both. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "coordinator/commit.h"
#include "coordinator/pv_text.h"
#include "support/lvm_lun.h"
#include "support/test.h"

#define GIB (1024 * MIB)

static struct error err;

struct pool {
    struct lvm_lun first, second;
    char uuid[PV_UUID_SIZE]; /* of the second */
    struct committer *c;
};

static int open_term(struct pool *p, uint64_t term)
{
    struct committer_config config = {
        .fd = p->first.fd, .superblock = &p->first.sb, .lvm = p->first.lvm, .term = term};
    log_set_level(LOG_LEVEL_ERROR);
    int rc = committer_open(&config, &p->c, &err);
    if (rc < 0)
        printf("# %s\n", err.text);
    return rc;
}

/* As another coordinator process begins: it knows nothing of LUNs. */
static int lvm_anew(struct pool *p)
{
    struct lvm_config config = {.device = p->first.device,
                                .state_dir = p->first.dir,
                                .superblock = &p->first.sb,
                                .inherit_fd = -1};
    lvm_close(p->first.lvm);
    return lvm_open(&config, &p->first.lvm, &err);
}

static int run(struct pool *p, const char *const *args)
{
    return committer_run(p->c, args, committer_basis(p->c), &err);
}
#define RUN(p, ...) run(p, (const char *const[]){__VA_ARGS__, NULL})

static void pool_close(struct pool *p)
{
    committer_close(p->c);
    lvm_lun_close(&p->first);
    lvm_lun_close(&p->second);
}

/* A pool with a second LUN that is not yet the VG's. */
static const char *pool_open(struct pool *p)
{
    memset(p, 0, sizeof *p);
    p->second.fd = p->second.loop = -1;
    const char *why = lvm_lun_open(&p->first, GIB, 512);
    if (!why)
        why = lvm_lun_attach(&p->second, GIB, 512);
    pv_uuid_make("", p->uuid);
    if (!why && lvm_make_pv(p->second.device, p->second.dir, &p->first.sb, p->uuid, &err) < 0)
        why = err.text;
    if (!why && open_term(p, 1) < 0)
        why = err.text;
    if (why)
        pool_close(p);
    return why;
}

static int extend(struct pool *p)
{
    char pv[PV_UUID_SIZE + 8];
    snprintf(pv, sizeof pv, LVM_PV_ARG "%s", p->uuid);
    return RUN(p, "vgextend", "-qq", "-y", "lunar-test", pv);
}

/* An LV that does not fit on the first alone. */
static int create_large(struct pool *p)
{
    return RUN(p, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "1200m", "-n", "a",
               "lunar-test");
}

static void a_second_lun_is_one_commit_and_takes_volumes(void)
{
    struct pool p;
    struct lvm_report before, r;
    const char *why = pool_open(&p);
    if (why)
        SKIP(why);
    CHECK_EQ(lvm_lun_report(&p.first, &before, &err), 0);
    uint64_t seqno = committer_seqno(p.c);
    CHECK_EQ(extend(&p), 0);
    CHECK_EQ(committer_seqno(p.c), seqno + 1);
    CHECK_EQ(create_large(&p), 0);
    CHECK_EQ(lvm_lun_report(&p.first, &r, &err), 0);
    CHECK_EQ(r.n_pvs, 2);
    CHECK_STR(r.pvs[1].uuid, p.uuid);
    CHECK_EQ(r.vg_size, before.vg_size + r.pvs[1].size);
    CHECK_EQ(r.lvs[0].n_segments, 2);
    /* lvm begins where most is free: on the second. */
    CHECK_EQ(r.lvs[0].segments[0].pv, 1);
    CHECK_EQ(r.lvs[0].segments[0].lun_offset, MIB);
    CHECK_EQ(r.lvs[0].segments[1].pv, 0);
    CHECK_EQ(r.lvs[0].segments[1].lun_offset, r.pvs[0].pe_start);
    CHECK_EQ(r.lvs[0].segments[0].length + r.lvs[0].segments[1].length, 1200 * MIB);
    lvm_report_free(&before);
    lvm_report_free(&r);
    pool_close(&p);
}

static void the_next_leader_finds_the_second_lun(void)
{
    struct pool p;
    struct lvm_report r;
    const char *why = pool_open(&p);
    if (why)
        SKIP(why);
    CHECK_EQ(extend(&p), 0);
    CHECK_EQ(create_large(&p), 0);
    committer_close(p.c);
    p.c = NULL;
    CHECK_EQ(lvm_anew(&p), 0);
    CHECK_EQ(open_term(&p, 2), 0);
    CHECK_EQ(lvm_lun_report(&p.first, &r, &err), 0);
    CHECK_EQ(r.n_pvs, 2);
    CHECK_EQ(r.n_lvs, 1);
    lvm_report_free(&r);
    pool_close(&p);
}

/* lvm would commit without it and mark it as missing for good. */
static void without_the_second_lun_nothing_is_committed(void)
{
    struct pool p;
    struct lvm_report r;
    const char *why = pool_open(&p);
    if (why)
        SKIP(why);
    CHECK_EQ(extend(&p), 0);
    uint64_t seqno = committer_seqno(p.c);
    uint8_t *label = io_alloc(IO_ALIGN), *zeros = io_alloc(IO_ALIGN);
    CHECK_EQ(io_read(p.second.fd, label, IO_ALIGN, 0, &err), 0);
    CHECK_EQ(io_write(p.second.fd, zeros, IO_ALIGN, 0, &err), 0);
    CHECK_EQ(RUN(&p, "vgchange", "-qq", "-y", "--addtag", "x", "lunar-test"), LUNAR_E_NOT_FOUND);
    CHECK(strstr(err.text, p.uuid));
    CHECK_EQ(lvm_lun_report(&p.first, &r, &err), LUNAR_E_NOT_FOUND);
    committer_close(p.c);
    p.c = NULL;
    CHECK_EQ(lvm_anew(&p), 0);
    CHECK_EQ(open_term(&p, 2), LUNAR_E_NOT_FOUND); /* nor does anybody lead without it */
    CHECK_EQ(io_write(p.second.fd, label, IO_ALIGN, 0, &err), 0);
    CHECK_EQ(open_term(&p, 2), 0);
    CHECK_EQ(committer_seqno(p.c), seqno + 1);
    CHECK_EQ(create_large(&p), 0);
    CHECK_EQ(lvm_lun_report(&p.first, &r, &err), 0);
    lvm_report_free(&r);
    free(label);
    free(zeros);
    pool_close(&p);
}

/* Label, headers and texts of the first LUN, with every depth of a restore. */
static void rule_4_a_pool_of_two_luns_is_restored(void)
{
    struct pool p;
    struct lvm_report r;
    struct mda_area areas[MDA_AREAS_MAX];
    const char *why = pool_open(&p);
    if (why)
        SKIP(why);
    CHECK_EQ(extend(&p), 0);
    CHECK_EQ(create_large(&p), 0);
    for (int depth = 0; depth < 3; depth++) {
        uint8_t *zeros = io_alloc(IO_ALIGN);
        CHECK_EQ(mda_areas(p.first.fd, areas, &err), 2);
        if (depth == 0) /* a text */
            CHECK_EQ(io_write(p.first.fd, zeros, IO_ALIGN, areas[1].start + 512 * 8, &err), 0);
        if (depth == 1) /* a header */
            CHECK_EQ(io_write(p.first.fd, zeros, IO_ALIGN, areas[1].start, &err), 0);
        if (depth == 2)
            CHECK_EQ(io_write(p.first.fd, zeros, IO_ALIGN, 0, &err), 0);
        free(zeros);
        committer_close(p.c);
        p.c = NULL;
        CHECK_EQ(lvm_anew(&p), 0);
        CHECK_EQ(open_term(&p, 2 + (uint64_t)depth), 0);
        CHECK_EQ(lvm_lun_report(&p.first, &r, &err), 0);
        CHECK_EQ(r.n_pvs, 2);
        CHECK_EQ(r.lvs[0].n_segments, 2);
        lvm_report_free(&r);
    }
    pool_close(&p);
}

/* An administrator has made the second LUN's label anew, as pvcreate does it by default. */
static void metadata_areas_on_a_second_lun_leave_no_report(void)
{
    struct pool p;
    struct lvm_report r;
    char pv[PV_UUID_SIZE + 8];
    const char *why = pool_open(&p);
    if (why)
        SKIP(why);
    CHECK_EQ(extend(&p), 0);
    CHECK_EQ(lvm_lun_report(&p.first, &r, &err), 0);
    lvm_report_free(&r);
    snprintf(pv, sizeof pv, LVM_PV_ARG "%s", p.uuid);
    const char *args[] = {"pvcreate", "-qq",  "-y", "-ff", "--norestorefile",
                          "--uuid",   p.uuid, pv,   NULL};
    CHECK_EQ(lvm_run(p.first.lvm, args, NULL, &err), 0);
    CHECK_EQ(lvm_lun_report(&p.first, &r, &err), LUNAR_E_CORRUPT);
    CHECK(strstr(err.text, p.second.device));
    pool_close(&p);
}

static void a_text_tells_its_pvs(void)
{
    struct pv_text pvs[LVM_PVS_MAX], first;
    static const char text[] =
        "lunar-t {\nid = \"cMrOKb-JlRK-xUOt-5IT5-yPHl-L8CM-AaQEDG\"\nseqno = 4\n"
        "\nphysical_volumes {\n"
        "\npv0 {\nid = \"LUNAR1-aaaa-bbbb-cccc-dddd-eeee-ffffff\"\ndev_size = 8\npe_start = "
        "2048\n}\n"
        "\npv1 {\nid = \"o6JaPP-UveL-WqcM-U1Hv-Hlgp-rYmc-apTL8u\"\ndev_size = 4194304\n}\n}\n"
        "\nlogical_volumes {\n\nx {\nid = \"nothing\"\n}\n}\n}\n";
    CHECK_EQ(pv_text_read(text, pvs, &err), 2);
    CHECK_STR(pvs[0].uuid, "LUNAR1-aaaa-bbbb-cccc-dddd-eeee-ffffff");
    CHECK_EQ(pvs[0].device_size, 4096);
    CHECK_EQ(pv_text_first(text, &first, &err), 0);
    CHECK_STR(first.uuid, "o6JaPP-UveL-WqcM-U1Hv-Hlgp-rYmc-apTL8u");
    CHECK_EQ(first.device_size, 2 * GIB);
    CHECK_EQ(pv_text_read("x {\nid = \"y\"\n}\n", pvs, &err), LUNAR_E_CORRUPT);
    CHECK_EQ(pv_text_read("x\nphysical_volumes {\npv0 {\nid = \"short\"\n}\n}\n", pvs, &err),
             LUNAR_E_CORRUPT);
    CHECK_EQ(pv_text_first("x\nphysical_volumes {\n}\n", &first, &err), LUNAR_E_CORRUPT);
    for (size_t n = 0; n < sizeof text; n++) { /* no cut of it is read beyond its end */
        char *cut = strndup(text, n);
        pv_text_read(cut, pvs, &err);
        free(cut);
    }
}

TEST_MAIN(TEST(a_text_tells_its_pvs), TEST(a_second_lun_is_one_commit_and_takes_volumes),
          TEST(the_next_leader_finds_the_second_lun),
          TEST(without_the_second_lun_nothing_is_committed),
          TEST(rule_4_a_pool_of_two_luns_is_restored),
          TEST(metadata_areas_on_a_second_lun_leave_no_report))
