/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM on the virtual LUN: lvm.h, the two readers of mda.h that commit_disk.c uses, and
 * metadata_restore.
 *
 * Two metadata areas, each a header and two slots for texts. A command runs in a fiber of its own,
 * the *child*: it reads both areas, takes the newer sound text, changes it, writes the text into
 * the free slot of each area, then each header, as LVM does. So a kill, an I/O error, a torn or a
 * late write hits it wherever it happens to be. Failure modes are LVM's: a child that takes longer
 * than LVM_TIMEOUT_S is killed, and if it sits in an I/O then it is stuck and may still write; a
 * signal ends it half-way; it refuses without effect; areas whose header is damaged are left alone.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"
#include "coordinator/commit_private.h"
#include "sim/ghost.h"
#include "sim/lvm_text.h"

#define AREAS     2
#define SLOTS     16u /* LVM's ring: a text is overwritten long after it was replaced */
#define SLOT_SIZE (64u * 1024)
#define AREA_SIZE (4096u + SLOTS * SLOT_SIZE)
#define ARGS_MAX  64

#define STUCK_GRACE_US (2 * SIM_S) /* lvm_child.c's */

static const char area_magic[8] = "SIMMDA01";
static const char label_magic[8] = "SIMLABEL";

struct child {
    struct lvm *lvm;
    char *argv[ARGS_MAX];
    char *text; /* restore: written as it is, but for seqno; else NULL */
    int rc;
    struct error err;
    char *out;
    bool ended;
    bool killed; /* it acts no more; an I/O that it is in goes on */
    bool in_io;
    int steps_left; /* dies by a signal, or hangs, when they are used up; negative: never */
    bool hangs;
    struct fiber *waiter;
    struct sim_event *timeout;
};

struct lvm {
    struct superblock sb;
    struct child *stuck; /* the last child, if it was given up */
};

struct header {
    uint32_t slot, len, crc;
    uint64_t seqno;
};

/* One area as the child finds it. */
struct area {
    bool header_ok;
    struct header header;
    char *text; /* NULL: not sound */
};

static uint64_t area_at(int area)
{
    return area == 0 ? MIB : WORLD_LUN_SIZE - 2 * MIB;
}

bool lvm_model_owns(uint64_t offset)
{
    return offset < 4096 || (offset >= area_at(0) && offset < area_at(0) + AREA_SIZE) ||
           (offset >= area_at(1) && offset < area_at(1) + AREA_SIZE);
}

void lvm_model_rot_regions(uint32_t group)
{
    for (int i = 0; i < AREAS; i++)
        lun_rot_region(group, area_at(i), AREA_SIZE);
}

/* --- codecs --- */

static void header_out(const struct header *h, uint8_t *page)
{
    memset(page, 0, IO_ALIGN);
    memcpy(page, area_magic, sizeof area_magic);
    le32_put(page + 8, h->slot);
    le32_put(page + 12, h->len);
    le32_put(page + 16, h->crc);
    le64_put(page + 24, h->seqno);
    le32_put(page + 32, crc32c(page, 32));
}

static bool header_in(const uint8_t *page, struct header *ret)
{
    if (memcmp(page, area_magic, sizeof area_magic) != 0 || le32_get(page + 32) != crc32c(page, 32))
        return false;
    *ret = (struct header){le32_get(page + 8), le32_get(page + 12), le32_get(page + 16),
                           le64_get(page + 24)};
    return ret->slot < SLOTS && ret->len <= SLOT_SIZE;
}

static uint64_t slot_at(int area, uint32_t slot)
{
    return area_at(area) + 4096 + (uint64_t)slot * SLOT_SIZE;
}

static uint32_t padded(uint32_t len)
{
    return (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
}

/* --- the world's own look --- */

static char *peek_area(int area, uint64_t *ret_seqno)
{
    uint8_t page[IO_ALIGN];
    struct header h;

    lun_peek(area_at(area), page, sizeof page);
    if (!header_in(page, &h) || h.len == 0)
        return NULL;
    char *text = calloc(1, h.len + 1);
    lun_peek(slot_at(area, h.slot), text, h.len);
    *ret_seqno = h.seqno;
    if (crc32c(text, h.len) == h.crc)
        return text;
    free(text);
    return NULL;
}

char *lvm_model_peek(void)
{
    uint64_t seqno[AREAS] = {0, 0};
    char *a = peek_area(0, &seqno[0]), *b = peek_area(1, &seqno[1]);
    bool first = a && (!b || seqno[0] >= seqno[1]);
    free(first ? b : a);
    return first ? a : b;
}

void lvm_model_format(void)
{
    struct vg vg = {.n_tags = 0};
    uint8_t page[IO_ALIGN] = {0};

    fake_lvm_init(&vg.lvm);
    char *text = vg_out(&vg);
    struct header h = {.len = (uint32_t)strlen(text), .seqno = 1};
    h.crc = crc32c(text, h.len);
    memcpy(page, label_magic, sizeof label_magic);
    lun_poke(0, page, sizeof page);
    header_out(&h, page);
    for (int i = 0; i < AREAS; i++) {
        lun_poke(slot_at(i, 0), text, h.len);
        lun_poke(area_at(i), page, sizeof page);
    }
    ghost_metadata_built(NULL, NULL, text);
    ghost_metadata_accepted(NULL, text);
    free(text);
}

/* --- mda.h --- */

int mda_areas(int fd, struct mda_area ret[MDA_AREAS_MAX], struct error *err)
{
    uint8_t *page = io_alloc(IO_ALIGN);
    int rc = io_read(fd, page, IO_ALIGN, 0, err);
    if (rc == 0 && memcmp(page, label_magic, sizeof label_magic) != 0)
        rc = error_set(err, LUNAR_E_CORRUPT, "there is no label");
    free(page);
    for (int i = 0; i < AREAS; i++)
        ret[i] = (struct mda_area){.start = area_at(i), .size = AREA_SIZE};
    return rc < 0 ? rc : AREAS;
}

static int read_area(int fd, int area, struct header *ret, char **ret_text, struct error *err)
{
    uint8_t *page = io_alloc(IO_ALIGN), *text = io_alloc(SLOT_SIZE + IO_ALIGN);

    *ret_text = NULL;
    int rc = io_read(fd, page, IO_ALIGN, area_at(area), err);
    if (rc == 0 && !header_in(page, ret))
        rc = error_set(err, LUNAR_E_CORRUPT, "a metadata area's header is damaged");
    else if (rc == 0 && ret->len == 0)
        rc = error_set(err, LUNAR_E_NOT_FOUND, "a metadata area without a text");
    if (rc == 0)
        rc = io_read(fd, text, padded(ret->len), slot_at(area, ret->slot), err);
    if (rc == 0 && crc32c(text, ret->len) != ret->crc)
        rc = error_set(err, LUNAR_E_CORRUPT, "a metadata text is damaged");
    if (rc == 0)
        *ret_text = strndup((char *)text, ret->len);
    free(page);
    free(text);
    return rc;
}

int mda_read_area(int fd, const struct mda_area *area, struct mda_state *ret, char **ret_text,
                  size_t *ret_len, struct error *err)
{
    struct header h = {0};
    char *text;
    int rc = read_area(fd, area->start == area_at(0) ? 0 : 1, &h, &text, err);
    if (rc < 0)
        return rc;
    *ret = (struct mda_state){.size = h.len, .checksum = h.crc, .seqno = vg_text_seqno(text)};
    *ret_text = text;
    *ret_len = strlen(text);
    return 0;
}

/* The model's pool has one LUN. */
int lvm_see_pvs(struct lvm *lvm, const char *text, struct error *err)
{
    (void)lvm;
    (void)text;
    (void)err;
    return 0;
}

int lvm_report(struct lvm *lvm, const char *text, struct lvm_report *ret, struct error *err)
{
    (void)lvm;
    return lvm_report_parse(text, ret, err);
}

/* --- the child: all of it runs in its own fiber --- */

/* Between two steps: false if it is no more. */
static bool child_lives(struct child *c)
{
    if (c->killed)
        return false;
    if (c->steps_left < 0)
        return true;
    if (c->steps_left-- > 0)
        return true;
    if (c->hangs) {
        fiber_sleep((LVM_TIMEOUT_S + 5) * SIM_S);
        return !c->killed;
    }
    c->killed = true;
    c->rc = error_set(&c->err, LUNAR_E_INDETERMINATE, "lvm was killed by signal 9");
    return false;
}

static void child_read(struct child *c, struct area areas[AREAS])
{
    for (int i = 0; i < AREAS && child_lives(c); i++) {
        struct error err = ERROR_INIT;
        c->in_io = true;
        int rc = read_area(SIM_LUN_FD, i, &areas[i].header, &areas[i].text, &err);
        c->in_io = false;
        areas[i].header_ok = rc == 0 || (rc == LUNAR_E_CORRUPT && strstr(err.text, "text")) ||
                             rc == LUNAR_E_NOT_FOUND;
    }
}

static int child_write(struct child *c, uint64_t offset, const void *bytes, uint32_t len)
{
    if (!child_lives(c))
        return -EINTR;
    uint8_t *buffer = io_alloc(padded(len));
    memcpy(buffer, bytes, len);
    c->in_io = true;
    int rc = io_write(SIM_LUN_FD, buffer, padded(len), offset, &c->err);
    c->in_io = false;
    free(buffer);
    return rc;
}

static uint32_t next_slot(const struct header *h)
{
    return (h->slot + 1) % SLOTS;
}

/* The same writes, kept for later; the child and who started it are no more. */
static _Noreturn void child_lost(const struct area areas[AREAS], const char *text)
{
    uint8_t page[IO_ALIGN];
    uint32_t len = (uint32_t)strlen(text);
    char *buffer = calloc(1, padded(len));

    memcpy(buffer, text, len);
    for (int i = 0; i < AREAS; i++)
        if (areas[i].header_ok)
            stale_keep(slot_at(i, next_slot(&areas[i].header)), buffer, padded(len));
    free(buffer);
    for (int i = 0; i < AREAS; i++) {
        if (!areas[i].header_ok)
            continue;
        header_out(&(struct header){next_slot(&areas[i].header), len, crc32c(text, len),
                                    vg_text_seqno(text)},
                   page);
        stale_keep(area_at(i), page, sizeof page);
    }
    stale_end(process_current());
}

/* The text into the next slot of each area, then each header, as LVM writes and commits. */
static int child_commit(struct child *c, const struct area areas[AREAS], const char *text)
{
    uint8_t page[IO_ALIGN];
    uint32_t len = (uint32_t)strlen(text);
    int written = 0, rc = 0;

    assert(len < SLOT_SIZE);
    if (stale_strikes(process_current()))
        child_lost(areas, text);
    for (int i = 0; i < AREAS && rc == 0; i++)
        if (areas[i].header_ok)
            rc = child_write(c, slot_at(i, next_slot(&areas[i].header)), text, len);
    for (int i = 0; i < AREAS && rc == 0; i++) {
        if (!areas[i].header_ok)
            continue;
        header_out(&(struct header){next_slot(&areas[i].header), len, crc32c(text, len),
                                    vg_text_seqno(text)},
                   page);
        rc = child_write(c, area_at(i), page, sizeof page);
        written++;
    }
    stale_committed(process_current());
    return rc < 0 || written > 0 ? rc : -EIO;
}

static const char *newest(const struct area areas[AREAS])
{
    const char *best = NULL;
    for (int i = 0; i < AREAS; i++)
        if (areas[i].text && (!best || vg_text_seqno(areas[i].text) > vg_text_seqno(best)))
            best = areas[i].text;
    return best;
}

static int child_change(struct child *c, const struct area areas[AREAS])
{
    const char *base = newest(areas);
    struct vg vg;

    if (!base || !vg_in(base, &vg))
        return error_set(&c->err, LUNAR_E_EXEC, "Volume group not found");
    int rc = vg_run(&vg, (const char *const *)c->argv, &c->err);
    char *text = rc == 0 ? vg_out(&vg) : NULL;
    if (text) {
        ghost_metadata_built(process_current(), base, text);
        rc = child_commit(c, areas, text);
    }
    free(text);
    vg_free(&vg);
    return rc;
}

static int child_restore(struct child *c, const struct area areas[AREAS])
{
    char *text = vg_text_with_seqno(c->text, vg_text_seqno(c->text) + 1);
    ghost_metadata_restored(process_current(), c->text, text);
    int rc = child_commit(c, areas, text);
    free(text);
    return rc;
}

static void child_end(struct child *c)
{
    struct fiber *waiter = c->waiter;
    c->ended = true;
    c->waiter = NULL;
    if (waiter)
        fiber_wake(waiter);
}

static void child_main(void *data)
{
    struct child *c = data;
    struct area areas[AREAS] = {{0}};
    int rc;

    fiber_sleep(5 * SIM_MS + sim_random(STREAM_WORLD, 30 * SIM_MS)); /* fork, exec, scan */
    child_read(c, areas);
    if (!c->killed) {
        rc = c->text ? child_restore(c, areas) : child_change(c, areas);
        if (!c->killed && rc < 0 && rc > LUNAR_E_BASE)
            rc = error_set(&c->err, LUNAR_E_EXEC, "lvm %s failed: %s", c->argv[0], c->err.text);
        if (!c->killed)
            c->rc = rc;
    }
    for (int i = 0; i < AREAS; i++)
        free(areas[i].text);
    child_end(c);
}

static void child_reap(void *data)
{
    struct child *c = data;
    if (c->lvm->stuck == c)
        c->lvm->stuck = NULL;
    for (int i = 0; i < ARGS_MAX; i++)
        free(c->argv[i]);
    free(c->text);
    /* c itself stays: lvm_run may not have looked at it yet, and the run ends soon enough. */
}

/* --- running one --- */

static void on_timeout(void *data)
{
    struct child *c = data;
    struct fiber *waiter = c->waiter;
    c->waiter = NULL;
    c->timeout = NULL;
    if (waiter)
        fiber_wake(waiter);
}

static void wait_for(struct child *c, uint64_t us)
{
    if (c->ended)
        return;
    c->waiter = fiber_self();
    c->timeout = process_at(process_current(), sim_now_us() + us, on_timeout, c);
    fiber_stop();
    if (c->timeout)
        sim_cancel(c->timeout);
    c->timeout = NULL;
}

/* What goes wrong with this one. True: it refuses at once. */
static bool draw_fault(struct child *c)
{
    c->steps_left = -1;
    if (!sim_fault(FAULT_LVM_FAULT, 150))
        return false;
    uint64_t kind = sim_fault_random(FAULT_LVM_FAULT, 4);
    sim_trace("lvm fault kind=%d command=%s", (int)kind, c->argv[0]);
    if (kind == 0)
        return true;
    if (kind == 1) {
        fiber_sleep(sim_fault_random(FAULT_LVM_FAULT, 20 * SIM_S));
        return false;
    }
    c->steps_left = (int)sim_fault_random(FAULT_LVM_FAULT, 2 * AREAS + 2);
    c->hangs = kind == 2;
    return false;
}

static int child_run(struct lvm *lvm, const char *const *args, const char *text, char **ret_stdout,
                     struct error *err)
{
    if (ret_stdout)
        *ret_stdout = NULL;
    if (lvm_is_stuck(lvm))
        return error_set(err, LUNAR_E_INDETERMINATE, "an earlier lvm hangs in its I/O");
    struct child *c = calloc(1, sizeof *c);
    c->lvm = lvm;
    for (int i = 0; args[i]; i++) {
        assert(i < ARGS_MAX - 1);
        c->argv[i] = strdup(args[i]);
    }
    c->text = text ? strdup(text) : NULL;
    if (draw_fault(c))
        return error_set(err, LUNAR_E_EXEC, "lvm %s failed (exit status 5): made to", args[0]);
    fiber_start(process_current(), "lvm", child_main, child_reap, c);
    wait_for(c, LVM_TIMEOUT_S * SIM_S);
    bool late = !c->ended;
    if (late) {
        c->killed = true;
        if (c->in_io)
            wait_for(c, STUCK_GRACE_US);
        lvm->stuck = c->in_io ? c : NULL;
        return error_set(err, LUNAR_E_INDETERMINATE, "lvm %s did not end in time", args[0]);
    }
    if (c->rc == 0 && ret_stdout)
        *ret_stdout = c->out;
    return c->rc < 0 ? error_set(err, c->rc, "%s", c->err.text) : 0;
}

/* --- lvm.h --- */

int lvm_open(const struct lvm_config *config, struct lvm **ret, struct error *err)
{
    (void)err;
    *ret = calloc(1, sizeof **ret);
    (*ret)->sb = *config->superblock;
    return 0;
}

void lvm_close(struct lvm *lvm)
{
    while (lvm && lvm_is_stuck(lvm))
        fiber_sleep(SIM_S);
    /* A child that was just reaped may still look at it: its memory goes with the run. */
}

int lvm_run(struct lvm *lvm, const char *const *args, char **ret_stdout, struct error *err)
{
    return child_run(lvm, args, NULL, ret_stdout, err);
}

const char *lvm_vg_name(const struct lvm *lvm)
{
    (void)lvm;
    return "lunar-sim";
}

const char *lvm_directory(const struct lvm *lvm)
{
    (void)lvm;
    return "/run";
}

const char *lvm_device(const struct lvm *lvm)
{
    (void)lvm;
    return "/dev/lun";
}

bool lvm_is_stuck(struct lvm *lvm)
{
    return lvm->stuck && lvm->stuck->in_io;
}

void lvm_set_timeout(struct lvm *lvm, int timeout_ms)
{
    (void)lvm;
    (void)timeout_ms;
}

/* --- restoring --- */

static int poke_headers(struct error *err)
{
    uint8_t *page = io_alloc(IO_ALIGN);
    int rc = 0;
    for (int i = 0; i < AREAS && rc == 0; i++) {
        header_out(&(struct header){0}, page);
        rc = io_write(SIM_LUN_FD, page, IO_ALIGN, area_at(i), err);
    }
    free(page);
    return rc;
}

static int remake_label(struct error *err)
{
    uint8_t *page = io_alloc(IO_ALIGN);
    memcpy(page, label_magic, sizeof label_magic);
    int rc = io_write(SIM_LUN_FD, page, IO_ALIGN, 0, err);
    free(page);
    return rc;
}

/* vgcfgrestore; before it pvcreate, which makes the headers anew; before that the label's. */
int metadata_restore(struct lvm *lvm, int fd, const char *text, enum metadata_depth depth,
                     struct error *err)
{
    static const char *const args[] = {"vgcfgrestore", NULL};
    int rc = 0;

    (void)fd;
    if (depth >= METADATA_LABEL)
        rc = remake_label(err);
    if (rc == 0 && depth >= METADATA_HEADERS)
        rc = poke_headers(err);
    return rc < 0 ? rc : child_run(lvm, args, text, NULL, err);
}
