/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual LUN: bytes in memory, and operations that take time, reach it in pieces, and end as
 * lun_faults.c has planned.
 *
 * Happy path of a write: submitted with a checksum of its buffer, its pieces are copied from the
 * caller's buffer when they land, as a host adapter does it, somewhere between submit and end; then
 * the kernel's end (the process has one I/O less in flight), then the caller is told, late if its
 * machine is paused. Whatever changed the buffer meanwhile is a violation. Two operations at once
 * overtake each other as their times fall; one submitted after the other's end never does, but for
 * late landings, which are copies of their own.
 *
 * Failure modes: a lost path or held queue stops an operation where it is until it is back, or ends
 * it with -EIO; the power cut leaves each piece to chance.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "diskrpc/uv_disk.h"
#include "sim/internal.h"

/* How soon the initiator notices that a path is back. */
#define PATH_POLL_US 10000u
/* Held back for a new term: how long after it. */
#define STALE_US (5 * SIM_S)

struct lun_op;

struct piece {
    struct lun_op *op;
    uint32_t from, to;
    bool landed;
    bool pending; /* its time is still to come, or it stands still */
    struct sim_event *event;
};

struct lun_op {
    LIST_ENTRY(lun_op) link;
    struct process *process;
    struct machine *machine;
    bool write;
    uint8_t *buffer; /* the caller's */
    uint32_t len;
    uint64_t offset;
    uint32_t crc; /* of a write's buffer, at its submission */
    uint64_t sent_us;
    struct lun_plan plan;
    struct piece pieces[LUN_CUTS_MAX + 1];
    uint32_t n_pieces;
    struct sim_event *end;
    int status;
    struct fiber *fiber;   /* that waits, or */
    struct disk_op *asked; /* the loop's */
    struct uv_disk *disk;
};
LIST_HEAD(op_list, lun_op);

/* A write that lands once more, or at all, when nobody expects it. */
struct late {
    LIST_ENTRY(late) link;
    uint64_t offset;
    uint32_t len;
    const struct process *process;
    uint64_t sent_us;
    bool next_term;
    uint8_t bytes[];
};
LIST_HEAD(late_list, late);

/* An operation that stands still: its piece, or its end (NULL). */
struct waiter {
    STAILQ_ENTRY(waiter) link;
    struct lun_op *op;
    struct piece *piece;
};
STAILQ_HEAD(waiter_list, waiter);

static uint8_t *bytes;
static uint64_t size;
static struct op_list ops;
static struct late_list lates;
static struct waiter_list waiters;
static struct sim_event *path_poll;

/* --- the bytes --- */

void lun_open(uint64_t bytes_wanted)
{
    if (bytes)
        munmap(bytes, size);
    size = bytes_wanted;
    bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
    if (bytes == MAP_FAILED)
        abort();
}

uint64_t lun_size(void)
{
    return size;
}

uint8_t *lun_bytes(uint64_t offset, uint64_t len)
{
    assert(bytes && offset <= size && len <= size - offset);
    return bytes + offset;
}

void lun_peek(uint64_t offset, void *to, uint32_t len)
{
    memcpy(to, lun_bytes(offset, len), len);
}

void lun_poke(uint64_t offset, const void *from, uint32_t len)
{
    memcpy(lun_bytes(offset, len), from, len);
    lun_rot_heal(offset, len, true);
}

static void land(const struct process *p, uint64_t offset, const uint8_t *from, uint32_t len,
                 bool late)
{
    memcpy(lun_bytes(offset, len), from, len);
    trace_numbers(true, late ? "lands late" : "lands", p ? p->number : 0, offset, len);
    if (sim_hooks.lun_landed)
        sim_hooks.lun_landed(p, offset, from, len, late);
}

/* --- late landings --- */

static void on_late(void *data)
{
    struct late *l = data;
    LIST_REMOVE(l, link);
    bool lets = !l->process || lun_lets_write(l->process->machine, l->sent_us);
    if (lets && lun_late_allowed(l->offset, l->bytes, l->len))
        land(l->process, l->offset, l->bytes, l->len, true);
    free(l);
}

static struct late *late_new(uint64_t offset, const void *from, uint32_t len,
                             const struct process *of)
{
    struct late *l = malloc(sizeof *l + len);
    if (!l)
        abort();
    l->offset = offset;
    l->len = len;
    l->process = of;
    l->sent_us = sim_now_us();
    l->next_term = false;
    memcpy(l->bytes, from, len);
    LIST_INSERT_HEAD(&lates, l, link);
    return l;
}

void lun_land_late(uint64_t at_us, uint64_t offset, const void *from, uint32_t len,
                   const struct process *of)
{
    sim_at(at_us, on_late, late_new(offset, from, len, of));
}

void lun_new_term(void)
{
    struct late *l;
    LIST_FOREACH(l, &lates, link)
    if (l->next_term) {
        l->next_term = false;
        sim_at(sim_now_us() + sim_fault_random(FAULT_STALE_COORDINATOR, STALE_US), on_late, l);
    }
}

uint32_t lun_writes_pending(void)
{
    uint32_t n = 0;
    struct lun_op *op;
    struct late *l;
    LIST_FOREACH(op, &ops, link)
    n += op->write;
    LIST_FOREACH(l, &lates, link)
    n += !l->next_term; /* those may wait for ever */
    return n;
}

bool lun_in_flight(uint64_t offset, uint64_t len)
{
    struct lun_op *op;
    struct late *l;
    LIST_FOREACH(op, &ops, link)
    if (op->write && op->offset < offset + len && offset < op->offset + op->len)
        return true;
    LIST_FOREACH(l, &lates, link)
    if (l->offset < offset + len && offset < l->offset + l->len)
        return true;
    return false;
}

/* --- standing still --- */

static void on_piece(void *data);
static void on_end(void *data);

static bool stands_still(const struct machine *m)
{
    return m->io_held || (m->path_lost && !m->path_errors);
}

static void go_on(struct waiter *w)
{
    if (w->piece)
        w->piece->event = sim_at(sim_now_us(), on_piece, w->piece);
    else
        w->op->end = sim_at(sim_now_us(), on_end, w->op);
    free(w);
}

static void on_path_poll(void *data)
{
    struct waiter_list stay = STAILQ_HEAD_INITIALIZER(stay);
    struct waiter *w;
    (void)data;
    while ((w = STAILQ_FIRST(&waiters)) != NULL) {
        STAILQ_REMOVE_HEAD(&waiters, link);
        if (stands_still(w->op->machine))
            STAILQ_INSERT_TAIL(&stay, w, link);
        else
            go_on(w);
    }
    STAILQ_CONCAT(&waiters, &stay);
    path_poll =
        STAILQ_EMPTY(&waiters) ? NULL : sim_at(sim_now_us() + PATH_POLL_US, on_path_poll, NULL);
}

static void stand_still(struct lun_op *op, struct piece *piece)
{
    struct waiter *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->op = op;
    w->piece = piece;
    STAILQ_INSERT_TAIL(&waiters, w, link);
    if (!path_poll)
        path_poll = sim_at(sim_now_us() + PATH_POLL_US, on_path_poll, NULL);
}

/* --- an operation --- */

static void check_buffer(const struct lun_op *op)
{
    if (crc32c(op->buffer, op->len) != op->crc)
        sim_violation("buffer-untouched",
                      "%s changed the buffer of its write of %u bytes at %llu while it was in "
                      "flight",
                      op->process->name, op->len, (unsigned long long)op->offset);
}

static void on_piece(void *data)
{
    struct piece *piece = data;
    struct lun_op *op = piece->op;
    uint32_t len = piece->to - piece->from;

    piece->event = NULL;
    if (stands_still(op->machine)) {
        stand_still(op, piece);
        return;
    }
    piece->pending = false;
    if (op->machine->path_lost) { /* with errors: the end tells */
        op->status = -EIO;
        return;
    }
    if (op->write && !lun_lets_write(op->machine, op->sent_us)) {
        op->status = -EBADE; /* a reservation conflict */
        return;
    }
    piece->landed = true;
    if (op->write) {
        check_buffer(op);
        land(op->process, op->offset + piece->from, op->buffer + piece->from, len, false);
    } else {
        memcpy(op->buffer + piece->from, lun_bytes(op->offset + piece->from, len), len);
    }
}

static uint32_t count_landed(const struct lun_op *op)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < op->n_pieces; i++)
        n += op->pieces[i].landed;
    return n;
}

/* What is left of a write behind its end: a copy, late. */
static void leave_behind(const struct lun_op *op)
{
    if (op->plan.late_us == 0 && !op->plan.next_term)
        return;
    struct late *l = late_new(op->offset, op->buffer, op->len, op->process);
    l->next_term = op->plan.next_term;
    if (!l->next_term)
        sim_at(sim_now_us() + op->plan.late_us, on_late, l);
}

static void write_ended(const struct lun_op *op)
{
    uint32_t landed = count_landed(op);
    check_buffer(op);
    leave_behind(op);
    /* A late write may have come between its landing and its end. */
    bool stands = memcmp(lun_bytes(op->offset, op->len), op->buffer, op->len) == 0;
    if (landed == op->n_pieces && stands)
        lun_rot_heal(op->offset, op->len, true);
    else if (landed > 0 && landed < op->n_pieces)
        lun_rot_torn(op->offset, op->len);
}

static void tell_loop(void *data);

static void on_end(void *data)
{
    struct lun_op *op = data;
    struct process *p = op->process;

    op->end = NULL;
    if (stands_still(op->machine)) {
        stand_still(op, NULL);
        return;
    }
    for (uint32_t i = 0; i < op->n_pieces; i++)
        if (op->pieces[i].pending) { /* it still stands, though the path is back */
            op->end = sim_at(sim_now_us() + PATH_POLL_US / 4, on_end, op);
            return;
        }
    if (op->machine->path_lost)
        op->status = -EIO;
    if (op->write)
        write_ended(op);
    trace_numbers(op->status < 0, op->write ? "write ended" : "read ended", p->number, op->offset,
                  (uint64_t)-op->status);
    LIST_REMOVE(op, link);
    if (process_alive(p)) {
        if (op->fiber)
            fiber_wake(op->fiber);
        else
            process_at(p, sim_now_us(), tell_loop, op);
    } else {
        free(op);
    }
    process_io_ended(p);
}

static void schedule(struct lun_op *op)
{
    const struct lun_plan *plan = &op->plan;
    uint64_t now = sim_now_us();
    uint32_t from = 0;

    op->status = plan->status;
    op->n_pieces = plan->n_cuts + 1;
    for (uint32_t i = 0; i < op->n_pieces; i++) {
        struct piece *piece = &op->pieces[i];
        *piece = (struct piece){.op = op, .from = from};
        piece->to = from = i < plan->n_cuts ? plan->cuts[i] : op->len;
        if (!plan->lands && i >= plan->pieces_landing)
            continue;
        uint64_t at = now + 1 + sim_random(STREAM_LUN, plan->latency_us);
        piece->event = sim_at(at, on_piece, piece);
        piece->pending = true;
    }
    op->end = sim_at(now + 1 + plan->latency_us, on_end, op);
}

static struct lun_op *submit(bool write, void *buffer, uint32_t len, uint64_t offset)
{
    struct process *p = process_current();
    assert(p && len > 0 && len % LUN_UNIT == 0 && offset % LUN_UNIT == 0);
    assert((uintptr_t)buffer % IO_ALIGN == 0);
    struct lun_op *op = calloc(1, sizeof *op);
    if (!op)
        abort();
    op->process = p;
    op->machine = p->machine;
    op->write = write;
    op->buffer = buffer;
    op->len = len;
    op->offset = offset;
    op->sent_us = sim_now_us();
    process_io_started(p);
    lun_plan(&op->plan, p, write, offset, len);
    if (offset > size || len > size - offset) {
        op->plan.status = write ? -ENOSPC : -EIO;
        op->plan.lands = op->plan.next_term = false;
        op->plan.pieces_landing = 0;
        op->plan.late_us = 0;
    }
    if (write) {
        op->crc = crc32c(buffer, len);
        trace_numbers(true, "write", offset, len, op->crc);
    }
    LIST_INSERT_HEAD(&ops, op, link);
    schedule(op);
    if (write && sim_hooks.lun_submitted)
        sim_hooks.lun_submitted(p, offset, buffer, len);
    return op;
}

/* --- the power cut --- */

static void cut(struct lun_op *op)
{
    uint64_t delay_us = 0;
    int what = op->write ? lun_plan_power_cut(op->offset, op->len, &delay_us) : 0;
    for (uint32_t i = 0; i < op->n_pieces; i++) {
        struct piece *piece = &op->pieces[i];
        uint32_t len = piece->to - piece->from;
        if (piece->event)
            sim_cancel(piece->event);
        piece->event = NULL;
        bool lands = what == 1 || (what == 2 && sim_random(STREAM_LUN, 2));
        if (!piece->landed && lands)
            lun_land_late(sim_now_us() + delay_us, op->offset + piece->from,
                          op->buffer + piece->from, len, op->process);
        else if (!piece->landed && op->write && what == 2)
            lun_rot_torn(op->offset, op->len);
    }
    LIST_REMOVE(op, link);
    op->process->io_in_flight--;
    if (op->end)
        sim_cancel(op->end);
    free(op);
}

static void drop_waiters(const struct machine *m)
{
    struct waiter *w, *next;
    for (w = STAILQ_FIRST(&waiters); w; w = next) {
        next = STAILQ_NEXT(w, link);
        if (w->op->machine != m)
            continue;
        STAILQ_REMOVE(&waiters, w, waiter, link);
        free(w);
    }
}

void lun_machine_off(struct machine *m)
{
    struct lun_op *op, *next;
    drop_waiters(m);
    for (op = LIST_FIRST(&ops); op; op = next) {
        next = LIST_NEXT(op, link);
        if (op->machine == m)
            cut(op);
    }
}

/* --- blocking I/O (base/io.h), in fibers --- */

void *io_alloc(size_t len)
{
    void *p = NULL;
    len = (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    if (posix_memalign(&p, IO_ALIGN, len) != 0)
        abort();
    return memset(p, 0, len);
}

int io_open(const char *path, int read_write, struct error *err)
{
    (void)path;
    (void)read_write;
    (void)err;
    return SIM_LUN_FD;
}

static int transfer(bool write, int fd, void *buffer, size_t len, uint64_t offset)
{
    assert(fd == SIM_LUN_FD && fiber_inside() && len <= UINT32_MAX);
    struct lun_op *op = submit(write, buffer, (uint32_t)len, offset);
    op->fiber = fiber_self();
    fiber_stop();
    int status = op->status;
    free(op);
    return status;
}

int io_read(int fd, void *buffer, size_t len, uint64_t offset, struct error *err)
{
    int rc = transfer(false, fd, buffer, len, offset);
    return rc < 0 ? error_set(err, rc, "cannot read %zu bytes at %llu: %s", len,
                              (unsigned long long)offset, strerror(-rc))
                  : 0;
}

int io_write(int fd, const void *buffer, size_t len, uint64_t offset, struct error *err)
{
    int rc = transfer(true, fd, (void *)(uintptr_t)buffer, len, offset);
    return rc < 0 ? error_set(err, rc, "cannot write %zu bytes at %llu: %s", len,
                              (unsigned long long)offset, strerror(-rc))
                  : 0;
}

int io_geometry(int fd, uint64_t *ret_bytes, uint32_t *ret_sector, struct error *err)
{
    (void)err;
    assert(fd == SIM_LUN_FD);
    *ret_bytes = size;
    *ret_sector = LUN_SECTOR;
    return 0;
}

/* --- the loop's disk (diskrpc/uv_disk.h) --- */

struct uv_disk {
    struct disk disk; /* first */
    struct process *process;
    uint32_t outstanding;
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

static void on_disk_closed(void *data)
{
    struct uv_disk *disk = data;
    if (disk->closed)
        disk->closed(disk->closed_data);
    free(disk);
}

static void tell_loop(void *data)
{
    struct lun_op *op = data;
    struct uv_disk *disk = op->disk;
    struct disk_op *asked = op->asked;
    int status = op->status;

    free(op);
    disk->outstanding--;
    bool last = disk->closing && disk->outstanding == 0;
    asked->done(asked, status);
    if (last)
        process_at(disk->process, sim_now_us(), on_disk_closed, disk);
}

static void disk_submit_op(struct disk *base, struct disk_op *asked)
{
    struct uv_disk *disk = (struct uv_disk *)base;
    assert(!disk->closing && asked->done && process_current() == disk->process);
    disk->outstanding++;
    struct lun_op *op = submit(asked->write, asked->buffer, asked->len, asked->offset);
    op->asked = asked;
    op->disk = disk;
}

int uv_disk_open(uv_loop_t *loop, const char *path, int n_threads, struct uv_disk **ret,
                 struct error *err)
{
    static const struct disk_ops disk_ops = {.submit = disk_submit_op};
    (void)path;
    (void)n_threads;
    (void)err;
    struct uv_disk *disk = calloc(1, sizeof *disk);
    if (!disk)
        abort();
    disk->disk.ops = &disk_ops;
    disk->process = process_of_loop(loop);
    *ret = disk;
    return 0;
}

struct disk *uv_disk_disk(struct uv_disk *disk)
{
    return &disk->disk;
}

int uv_disk_fd(const struct uv_disk *disk)
{
    (void)disk;
    return SIM_LUN_FD;
}

void uv_disk_close(struct uv_disk *disk, void (*closed)(void *data), void *data)
{
    assert(!disk->closing);
    disk->closing = true;
    disk->closed = closed;
    disk->closed_data = data;
    if (disk->outstanding == 0)
        process_at(disk->process, sim_now_us(), on_disk_closed, disk);
}

void lun_reset(void)
{
    if (bytes)
        munmap(bytes, size);
    bytes = NULL;
    size = 0;
    LIST_INIT(&ops);
    LIST_INIT(&lates);
    STAILQ_INIT(&waiters);
    path_poll = NULL;
    lun_faults_reset();
}
