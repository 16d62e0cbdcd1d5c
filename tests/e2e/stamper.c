/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stamping writer of test_faults.py, run in a node: who wrote a sector last, and when, can be
 * read off the disk.
 *
 * usage: stamper DEVICE --id N [--bytes B] [--once] [--depth D]
 *
 * Happy path: the first B bytes of DEVICE (4 MiB by default) are written block by block (4 KiB) in
 * a ring, with O_DIRECT and D (8) writes in the kernel at a time, at least 4 of them even while one
 * is being made anew. Every sector carries {magic, N, its number, the write's sequence, wall time,
 * boot time, a check sum}. With --once each block is written once and the exit status says whether
 * all of them were acknowledged. Every 100 ms a thread of its own, which a stuck submission does
 * not hold up, prints a line:
 *
 *     at=BOOT_S issued=N acked=N flying=N least=N errors=N slowest_ms=N oldest_ms=N
 *
 * flying: in the kernel now; least: the fewest since the last line; slowest: of the acknowledged
 * since the last line; oldest: how long the oldest unanswered write has waited.
 *
 * Failure modes: a failed write is counted and the ring goes on, a little slower, as the most
 * stubborn consumer would; the first failure is printed. A device that cannot be opened: exit
 * status 2.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, SECTOR = 512, DEPTH_MAX = 64, FLYING_MIN = 4, REPORT_MS = 100 };

/* stamps.py reads it: little-endian, as the nodes are. */
struct stamp {
    char magic[8];
    uint32_t id, sector;
    uint64_t seq, wall_ns, boot_ns, check;
};
_Static_assert(sizeof(struct stamp) == 48, "stamps.py knows the layout");

struct slot {
    struct iocb cb;
    uint8_t *buffer;
    _Atomic uint64_t since_ns; /* submitted then; 0: idle */
};

struct stamper {
    int fd;
    aio_context_t aio;
    uint32_t id, depth;
    uint64_t blocks, limit; /* limit: how many writes in all; 0: no end */
    struct slot slots[DEPTH_MAX];
    _Atomic uint64_t issued, acked, errors, slowest_ns;
    _Atomic uint32_t flying, least;
};

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void stamp_block(const struct stamper *s, uint8_t *buffer, uint64_t seq)
{
    struct stamp stamp = {.magic = "LUNSTAMP", .id = s->id, .seq = seq};

    stamp.wall_ns = now_ns(CLOCK_REALTIME);
    stamp.boot_ns = now_ns(CLOCK_BOOTTIME);
    for (uint32_t i = 0; i < BLOCK / SECTOR; i++) {
        stamp.sector = (uint32_t)(seq % s->blocks) * (BLOCK / SECTOR) + i;
        stamp.check =
            stamp.id ^ ((uint64_t)stamp.sector << 32) ^ seq ^ stamp.wall_ns ^ stamp.boot_ns;
        memcpy(buffer + i * SECTOR, &stamp, sizeof stamp);
    }
}

static void submit(struct stamper *s, struct slot *slot)
{
    uint64_t seq = atomic_fetch_add(&s->issued, 1);
    struct iocb *cb = &slot->cb;

    stamp_block(s, slot->buffer, seq);
    *cb = (struct iocb){.aio_lio_opcode = IOCB_CMD_PWRITE,
                        .aio_fildes = (uint32_t)s->fd,
                        .aio_buf = (uintptr_t)slot->buffer,
                        .aio_nbytes = BLOCK,
                        .aio_offset = (int64_t)(seq % s->blocks * BLOCK),
                        .aio_data = (uintptr_t)slot};
    atomic_store(&slot->since_ns, now_ns(CLOCK_BOOTTIME));
    atomic_fetch_add(&s->flying, 1);
    while (syscall(SYS_io_submit, s->aio, 1, &cb) != 1) {
        if (errno != EAGAIN && errno != EINTR) {
            printf("submit: %s\n", strerror(errno));
            exit(2);
        }
        usleep(1000);
    }
}

static void reap(struct stamper *s, const struct io_event *event)
{
    struct slot *slot = (struct slot *)(uintptr_t)event->data;
    uint64_t took = now_ns(CLOCK_BOOTTIME) - atomic_exchange(&slot->since_ns, 0);

    if (took > atomic_load(&s->slowest_ns))
        atomic_store(&s->slowest_ns, took);
    if (event->res == BLOCK) {
        atomic_fetch_add(&s->acked, 1);
        return;
    }
    if (atomic_fetch_add(&s->errors, 1) == 0)
        printf("first error: %s\n", event->res < 0 ? strerror((int)-event->res) : "short write");
    usleep(2000); /* an EIO comes back at once: this is not meant to be a busy loop */
}

static bool more(struct stamper *s)
{
    return s->limit == 0 || atomic_load(&s->issued) < s->limit;
}

static void write_ring(struct stamper *s)
{
    struct io_event events[DEPTH_MAX];

    for (uint32_t i = 0; i < s->depth && more(s); i++)
        submit(s, &s->slots[i]);
    while (atomic_load(&s->flying) > 0) {
        long n = syscall(SYS_io_getevents, s->aio, 1, s->depth - FLYING_MIN, events, NULL);
        for (long i = 0; i < n; i++)
            reap(s, &events[i]);
        uint32_t left = n > 0 ? atomic_fetch_sub(&s->flying, (uint32_t)n) - (uint32_t)n : s->depth;
        if (left < atomic_load(&s->least))
            atomic_store(&s->least, left);
        for (long i = 0; i < n && more(s); i++)
            submit(s, (struct slot *)(uintptr_t)events[i].data);
    }
}

static void report(struct stamper *s)
{
    uint64_t now = now_ns(CLOCK_BOOTTIME), oldest = 0;

    for (uint32_t i = 0; i < s->depth; i++) {
        uint64_t since = atomic_load(&s->slots[i].since_ns);
        if (since && since < now && now - since > oldest)
            oldest = now - since;
    }
    uint64_t slowest = atomic_exchange(&s->slowest_ns, 0);
    uint32_t least = atomic_exchange(&s->least, s->depth);
    printf(
        "at=%.3f issued=%lu acked=%lu flying=%u least=%u errors=%lu slowest_ms=%lu oldest_ms=%lu\n",
        (double)now / 1e9, atomic_load(&s->issued), atomic_load(&s->acked), atomic_load(&s->flying),
        least, atomic_load(&s->errors), slowest / 1000000, oldest / 1000000);
}

static void *report_for_ever(void *arg)
{
    for (;;) {
        usleep(REPORT_MS * 1000);
        report(arg);
    }
    return NULL;
}

static bool prepare(struct stamper *s, const char *device)
{
    s->fd = open(device, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (s->fd < 0 || syscall(SYS_io_setup, s->depth, &s->aio) < 0) {
        printf("%s: %s\n", device, strerror(errno));
        return false;
    }
    for (uint32_t i = 0; i < s->depth; i++) {
        s->slots[i].buffer = aligned_alloc(BLOCK, BLOCK);
        memset(s->slots[i].buffer, 0, BLOCK);
    }
    return true;
}

static bool parse(struct stamper *s, int argc, char **argv)
{
    static const struct option options[] = {{"id", required_argument, NULL, 'i'},
                                            {"bytes", required_argument, NULL, 'b'},
                                            {"depth", required_argument, NULL, 'd'},
                                            {"once", no_argument, NULL, 'o'},
                                            {NULL, 0, NULL, 0}};
    bool once = false;

    s->depth = 8;
    s->blocks = 1024;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == '?')
            return false;
        once = once || c == 'o';
        unsigned long value = optarg ? strtoul(optarg, NULL, 10) : 0;
        if (c == 'i')
            s->id = (uint32_t)value;
        if (c == 'b')
            s->blocks = value / BLOCK;
        if (c == 'd')
            s->depth = (uint32_t)value;
    }
    s->limit = once ? s->blocks : 0;
    return optind == argc - 1 && s->id > 0 && s->depth > FLYING_MIN && s->depth <= DEPTH_MAX &&
           s->blocks > s->depth;
}

int main(int argc, char **argv)
{
    static struct stamper s;
    pthread_t reporter;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!parse(&s, argc, argv)) {
        fprintf(stderr, "usage: stamper DEVICE --id N [--bytes B] [--once] [--depth D]\n");
        return 2;
    }
    if (!prepare(&s, argv[optind]))
        return 2;
    s.least = s.depth;
    pthread_create(&reporter, NULL, report_for_ever, &s);
    write_ring(&s);
    report(&s);
    return atomic_load(&s.errors) == 0 ? 0 : 1;
}
