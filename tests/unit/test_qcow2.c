/* SPDX-License-Identifier: Apache-2.0 */
/* Headers, and is an image empty? Against a file whose bytes are the format's, field by field. */
#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "agent/qcow2.h"
#include "support/test.h"

#define CLUSTER 65536u
#define SIZE    (3ull << 30)
#define L1_AT   (3u * CLUSTER) /* where qemu-img puts it */

static char path[64];
static uint8_t image[4 * CLUSTER];

static void put(size_t at, int bytes, uint64_t n)
{
    for (int i = bytes; i-- > 0; n >>= 8)
        image[at + (size_t)i] = (uint8_t)n;
}

static void fresh(void)
{
    memset(image, 0, sizeof image);
    put(0, 4, 0x514649fb);
    put(4, 4, 3);
    put(20, 4, 16);
    put(24, 8, SIZE);
    put(36, 4, SIZE >> 29);
    put(40, 8, L1_AT);
}

static int check(uint64_t *ret_size)
{
    struct error err = ERROR_INIT;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t n = write(fd, image, sizeof image);

    close(fd);
    assert(n == (ssize_t)sizeof image);
    *ret_size = 0;
    return qcow2_check_empty(path, ret_size, &err);
}

static bool has_direct_io(void)
{
    snprintf(path, sizeof path, "test_qcow2.%d", (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void an_image_in_which_nothing_is_allocated_is_empty(void)
{
    uint64_t size;
    fresh();
    image[L1_AT + (SIZE >> 29) * 8] = 1; /* behind the table */
    CHECK_EQ(check(&size), 0);
    CHECK_EQ(size, SIZE);
    put(72, 8, 1); /* dirty: the refcounts may be stale, which is about space */
    CHECK_EQ(check(&size), 0);
}

static void safety_16_one_cluster_anywhere_makes_it_not_empty(void)
{
    uint64_t size;
    for (size_t i = 0; i < (SIZE >> 29) * 8; i += 7) {
        fresh();
        image[L1_AT + i] = 1;
        CHECK_EQ(check(&size), LUNAR_E_CORRUPT);
    }
}

static void what_lunar_does_not_make_is_refused(void)
{
    static const struct {
        size_t at;
        int bytes;
        uint64_t value;
    } bad[] = {
        {0, 4, 0},         /* magic */
        {4, 4, 2},         /* version */
        {8, 8, 512},       /* a backing file */
        {20, 4, 0},        /* no clusters */
        {20, 4, 21},       /* others */
        {24, 8, 0},        /* of no size */
        {24, 8, SIZE + 1}, /* larger than its table */
        {24, 8, UINT64_MAX},
        {32, 4, 2},          /* encryption */
        {60, 4, 1},          /* internal snapshots */
        {72, 8, 2},          /* corrupt */
        {72, 8, 4},          /* external data file */
        {72, 8, 1ull << 63}, /* unknown */
        {36, 4, 0},          /* no table */
        {36, 4, 5},          /* too short */
        {36, 4, UINT32_MAX}, /* table too long */
        {40, 8, 0},          /* table in the header */
        {40, 8, 4096},       /* not on a cluster */
        {40, 8, UINT64_MAX - 65535},
    };
    uint64_t size;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fresh();
        put(bad[i].at, bad[i].bytes, bad[i].value);
        CHECK_EQ(check(&size), LUNAR_E_CORRUPT);
    }
    fresh();
    put(40, 8, 1ull << 40); /* behind the device's end */
    CHECK(check(&size) < 0);
}

/* A table may have more entries than the size needs: one that was made for more. */
static void a_header_tells_size_and_table(void)
{
    struct error err = ERROR_INIT;
    struct qcow2_header h;
    uint64_t size;

    fresh();
    image[L1_AT] = 1; /* what is allocated does not matter */
    put(24, 8, SIZE - 512);
    put(36, 4, 4000);
    CHECK_EQ(check(&size), LUNAR_E_CORRUPT);
    CHECK_EQ(qcow2_read_header(path, &h, &err), 0);
    CHECK_EQ(h.size, SIZE - 512);
    CHECK_EQ(h.l1_entries, 4000);
    CHECK_EQ(h.l1_offset, L1_AT);
    put(0, 4, 0x4d5a);
    check(&size);
    CHECK_EQ(qcow2_read_header(path, &h, &err), LUNAR_E_CORRUPT);
    CHECK(strstr(err.text, path) && strstr(err.text, "no QCOW2"));
    CHECK(qcow2_read_header("/nonexistent", &h, &err) < 0);
}

int main(void)
{
    static const struct test_case cases[] = {
        TEST(an_image_in_which_nothing_is_allocated_is_empty),
        TEST(safety_16_one_cluster_anywhere_makes_it_not_empty),
        TEST(what_lunar_does_not_make_is_refused),
        TEST(a_header_tells_size_and_table),
    };
    if (!has_direct_io()) {
        printf("# skipped: no O_DIRECT file here\n");
        return 77;
    }
    int rc = test_run_all(cases, (int)(sizeof cases / sizeof *cases));
    unlink(path);
    return rc;
}
