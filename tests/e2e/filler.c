/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills a device at its full speed, or reads it back, run in a node: what test_growth.py and
 * `tools/bench grow` write with.
 *
 * usage: filler write|verify DEVICE --seed N [--offset B] [--bytes B] [--depth D] [--buffered]
 *
 * Happy path: D (4) threads take blocks of 1 MiB in order, from --offset on, and write or compare
 * them, with O_DIRECT unless --buffered; every page of 4 KiB holds one number made of the seed and
 * of its place, again and again, so that a page that is missing, zero, of another place or of
 * another writer is seen. One JSON line at the end: bytes, seconds, errors, wrong, stalls (spells
 * of 0.4 s or more in which nothing was completed while something was under way) and
 * longest_stall_s. Failure modes: a block that fails is counted and the rest goes on, as a stubborn
 * consumer would; the exit status is 1 if any failed or is wrong, 2 if the device cannot be opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, PAGE = 4096, DEPTH_MAX = 16, STALL_MS = 400, LOOK_MS = 20 };

static struct {
    int fd;
    bool verify;
    uint64_t seed, offset, blocks;
    _Atomic uint64_t next, done; /* blocks taken, blocks that were answered */
    _Atomic uint64_t errors, wrong;
} job;

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* splitmix64: no two pages of one device share it, nor do two seeds. */
static uint64_t page_number(uint64_t seed, uint64_t page)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15u + page + 1;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void fill(uint64_t *block, uint64_t at)
{
    for (uint64_t page = 0; page < BLOCK / PAGE; page++) {
        uint64_t n = page_number(job.seed, at / PAGE + page);
        for (unsigned i = 0; i < PAGE / 8; i++)
            *block++ = n;
    }
}

static void one_block(uint8_t *buffer, uint8_t *want, uint64_t at)
{
    fill((uint64_t *)(void *)want, at);
    ssize_t n = job.verify ? pread(job.fd, buffer, BLOCK, (off_t)at)
                           : pwrite(job.fd, want, BLOCK, (off_t)at);
    if (n != BLOCK) {
        if (job.errors++ == 0)
            fprintf(stderr, "filler: block at %llu: %s\n", (unsigned long long)at,
                    n < 0 ? strerror(errno) : "short");
    } else if (job.verify && memcmp(buffer, want, BLOCK) != 0) {
        if (job.wrong++ == 0)
            fprintf(stderr, "filler: the block at %llu is another one\n", (unsigned long long)at);
    }
}

static void *work(void *unused)
{
    uint8_t *buffer = aligned_alloc(PAGE, BLOCK), *want = aligned_alloc(PAGE, BLOCK);
    (void)unused;
    if (!buffer || !want)
        abort();
    for (uint64_t i; (i = job.next++) < job.blocks; job.done++)
        one_block(buffer, want, job.offset + i * BLOCK);
    free(buffer);
    free(want);
    return NULL;
}

/* Watches until all is done. */
static void watch(uint64_t *ret_stalls, uint64_t *ret_longest_ms)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    uint64_t seen = 0, since = now_ms();
    bool stalled = false;

    *ret_stalls = *ret_longest_ms = 0;
    while (seen < job.blocks) {
        nanosleep(&pause, NULL);
        uint64_t still = now_ms() - since;
        if (still > *ret_longest_ms)
            *ret_longest_ms = still;
        *ret_stalls += still >= STALL_MS && !stalled;
        stalled = still >= STALL_MS;
        if (job.done == seen)
            continue;
        seen = job.done;
        since = now_ms();
        stalled = false;
    }
}

static int usage(void)
{
    fprintf(stderr,
            "usage: filler write|verify DEVICE --seed N [--offset B] [--bytes B] [--depth D] "
            "[--buffered]\n");
    return 2;
}

static bool parse(int argc, char **argv, unsigned *ret_depth, bool *ret_buffered)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},  {"offset", required_argument, NULL, 'o'},
        {"bytes", required_argument, NULL, 'b'}, {"depth", required_argument, NULL, 'd'},
        {"buffered", no_argument, NULL, 'c'},    {NULL, 0, NULL, 0}};
    uint64_t bytes = BLOCK;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        uint64_t n = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (c) {
        case 's':
            job.seed = n;
            break;
        case 'o':
            job.offset = n;
            break;
        case 'b':
            bytes = n;
            break;
        case 'd':
            *ret_depth = (unsigned)n;
            break;
        case 'c':
            *ret_buffered = true;
            break;
        default:
            return false;
        }
    }
    job.blocks = bytes / BLOCK;
    if (argc - optind != 2 || bytes % BLOCK || job.offset % BLOCK || *ret_depth < 1 ||
        *ret_depth > DEPTH_MAX)
        return false;
    job.verify = strcmp(argv[optind], "verify") == 0;
    return job.verify || strcmp(argv[optind], "write") == 0;
}

int main(int argc, char **argv)
{
    unsigned depth = 4;
    bool buffered = false;
    pthread_t threads[DEPTH_MAX];
    uint64_t stalls, longest_ms;

    if (!parse(argc, argv, &depth, &buffered))
        return usage();
    const char *device = argv[optind + 1];
    job.fd =
        open(device, (job.verify ? O_RDONLY : O_WRONLY) | (buffered ? 0 : O_DIRECT) | O_CLOEXEC);
    if (job.fd < 0) {
        fprintf(stderr, "filler: %s: %s\n", device, strerror(errno));
        return 2;
    }
    uint64_t began = now_ms();
    for (unsigned i = 0; i < depth; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            abort();
    watch(&stalls, &longest_ms);
    for (unsigned i = 0; i < depth; i++)
        pthread_join(threads[i], NULL);
    job.errors += !job.verify && fsync(job.fd) < 0;
    double s = (double)(now_ms() - began) / 1e3;
    printf(
        "{\"bytes\": %llu, \"seconds\": %.3f, \"errors\": %llu, \"wrong\": %llu, \"stalls\": %llu, "
        "\"longest_stall_s\": %.3f}\n",
        (unsigned long long)job.blocks * BLOCK, s, (unsigned long long)job.errors,
        (unsigned long long)job.wrong, (unsigned long long)stalls, (double)longest_ms / 1e3);
    return job.errors || job.wrong ? 1 : 0;
}
