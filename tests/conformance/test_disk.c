/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every back end of diskrpc/disk.h must do, asked of the simulated disk and of the O_DIRECT
 * disk on a file, with and without AIO. What only the simulation can do on demand (fail, land in
 * part) is asked of it alone, at the end.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/io.h"
#include "diskrpc/disk.h"
#include "diskrpc/uv_disk.h"
#include "support/sim_disk.h"
#include "support/temp_lun.h"
#include "support/test.h"

#define DISK_SIZE (4u << 20)
#define BLOCK     4096u

struct rig {
    struct disk *disk;
    struct sim_disk *sim; /* one of the two */
    struct uv_disk *real;
    uv_loop_t loop;
    char path[TEMP_LUN_PATH_SIZE];
    int fd;
    bool closed;
};

static bool rig_open_sim(struct rig *rig)
{
    *rig = (struct rig){.sim = sim_disk_new(DISK_SIZE, 42), .fd = -1};
    rig->disk = sim_disk_disk(rig->sim);
    return true;
}

static bool rig_open_real(struct rig *rig, bool threads_alone)
{
    *rig = (struct rig){.fd = -1};
    rig->fd = temp_lun_open(DISK_SIZE, rig->path);
    if (rig->fd < 0)
        return false;
    uv_loop_init(&rig->loop);
    if (uv_disk_open(&rig->loop, rig->path, 3, &rig->real, NULL) < 0)
        abort();
    if (threads_alone)
        uv_disk_use_threads_alone(rig->real);
    rig->disk = uv_disk_disk(rig->real);
    return true;
}

static void run_one(struct rig *rig)
{
    if (rig->sim)
        sim_disk_run_one(rig->sim);
    else
        uv_run(&rig->loop, UV_RUN_ONCE);
}

static void on_closed(void *data)
{
    ((struct rig *)data)->closed = true;
}

/* True if nothing was left behind. */
static bool rig_close(struct rig *rig)
{
    if (rig->sim) {
        sim_disk_free(rig->sim);
        return true;
    }
    uv_disk_close(rig->real, on_closed, rig);
    bool inline_call = rig->closed;
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    temp_lun_close(rig->fd, rig->path);
    return uv_loop_close(&rig->loop) == 0 && rig->closed && !inline_call;
}

struct request {
    struct disk_op op;
    uint8_t *buffer;
    int called;
    int status;
    struct request *then; /* submitted from the callback */
    struct rig *rig;
};

static void on_done(struct disk_op *op, int status)
{
    struct request *r = op->data;

    r->called++;
    r->status = status;
    if (r->then)
        disk_submit(r->rig->disk, &r->then->op);
}

static struct request *request_new(struct rig *rig, bool write, uint64_t offset, uint32_t len,
                                   int fill)
{
    struct request *r = calloc(1, sizeof *r);

    r->buffer = io_alloc(len);
    memset(r->buffer, fill, len);
    r->rig = rig;
    r->op = (struct disk_op){.write = write,
                             .buffer = r->buffer,
                             .len = len,
                             .offset = offset,
                             .done = on_done,
                             .data = r};
    return r;
}

static void request_free(struct request *r)
{
    free(r->buffer);
    free(r);
}

static void wait_for(struct rig *rig, const struct request *r)
{
    while (!r->called)
        run_one(rig);
}

static int run_alone(struct rig *rig, bool write, uint64_t offset, uint32_t len, int fill)
{
    struct request *r = request_new(rig, write, offset, len, fill);
    disk_submit(rig->disk, &r->op);
    wait_for(rig, r);
    int status = r->called == 1 ? r->status : -EINVAL;
    request_free(r);
    return status;
}

static bool holds(const uint8_t *bytes, uint32_t len, int value)
{
    for (uint32_t i = 0; i < len; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

static bool reads_as(struct rig *rig, uint64_t offset, uint32_t len, int value)
{
    struct request *r = request_new(rig, false, offset, len, 0xff);
    disk_submit(rig->disk, &r->op);
    wait_for(rig, r);
    bool ok = r->status == 0 && holds(r->buffer, len, value);
    request_free(r);
    return ok;
}

/* --- the suite: each case gets a fresh disk and returns NULL or what is wrong --- */

static const char *what_was_written_is_read(struct rig *rig)
{
    if (!reads_as(rig, 0, BLOCK, 0))
        return "a fresh disk is not zero";
    if (run_alone(rig, true, 3 * BLOCK, 2 * BLOCK, 'a') != 0)
        return "the write failed";
    if (!reads_as(rig, 3 * BLOCK, 2 * BLOCK, 'a'))
        return "other bytes came back";
    return reads_as(rig, 2 * BLOCK, BLOCK, 0) && reads_as(rig, 5 * BLOCK, BLOCK, 0)
               ? NULL
               : "the neighbours were touched";
}

static const char *submitting_never_calls_back_inline(struct rig *rig)
{
    struct request *r = request_new(rig, true, 0, BLOCK, 'b');
    disk_submit(rig->disk, &r->op);
    int early = r->called;
    wait_for(rig, r);
    request_free(r);
    return early ? "it called back inline" : NULL;
}

static const char *many_at_once_each_call_back_once(struct rig *rig)
{
    enum { N = 1000 };
    struct request *all[N];
    const char *wrong = NULL;

    for (int i = 0; i < N; i++) {
        all[i] = request_new(rig, true, (uint64_t)i * BLOCK, BLOCK, i % 256);
        disk_submit(rig->disk, &all[i]->op);
    }
    for (int i = 0; i < N; i++) {
        wait_for(rig, all[i]);
        if (all[i]->status != 0)
            wrong = "one failed";
    }
    for (int i = 0; i < N; i++) {
        if (all[i]->called != 1)
            wrong = "one called back more than once";
        if (!reads_as(rig, (uint64_t)i * BLOCK, BLOCK, i % 256))
            wrong = "one wrote other bytes";
        request_free(all[i]);
    }
    return wrong;
}

static const char *a_callback_may_submit(struct rig *rig)
{
    struct request *first = request_new(rig, true, 0, BLOCK, 'c');
    struct request *second = request_new(rig, false, 0, BLOCK, 0);
    first->then = second;
    disk_submit(rig->disk, &first->op);
    wait_for(rig, second);
    bool ok = first->called == 1 && second->status == 0 && holds(second->buffer, BLOCK, 'c');
    request_free(first);
    request_free(second);
    return ok ? NULL : "the read submitted by the write's callback did not see it";
}

static const char *an_operation_may_be_submitted_again_from_its_end(struct rig *rig)
{
    struct request *r = request_new(rig, true, BLOCK, BLOCK, 'd');
    for (int i = 0; i < 3; i++) {
        r->called = 0;
        disk_submit(rig->disk, &r->op);
        wait_for(rig, r);
    }
    bool ok = r->called == 1 && r->status == 0;
    request_free(r);
    return ok ? NULL : "the third use went wrong";
}

static const char *behind_the_end_is_an_error_and_writes_nothing(struct rig *rig)
{
    if (run_alone(rig, false, DISK_SIZE, BLOCK, 0) != -EIO)
        return "a read behind the end did not fail";
    if (run_alone(rig, false, DISK_SIZE - BLOCK, 2 * BLOCK, 0) != -EIO)
        return "a read over the end did not fail";
    if (run_alone(rig, true, DISK_SIZE - BLOCK, 2 * BLOCK, 'e') != -ENOSPC)
        return "a write over the end did not fail";
    if (run_alone(rig, true, UINT64_MAX / BLOCK * BLOCK, BLOCK, 'e') != -ENOSPC)
        return "a write far behind the end did not fail";
    return reads_as(rig, DISK_SIZE - BLOCK, BLOCK, 0) ? NULL : "a part of it was written";
}

/* What AIO takes and what the threads take meet in one file; both sides of the limit between them.
 */
static const char *small_and_large_ones_mix(struct rig *rig)
{
    enum { N = 40 };
    struct request *all[N];
    const char *wrong = NULL;
    uint64_t offset = 0;

    for (int i = 0; i < N; i++) {
        uint32_t len = (i % 3 == 0 ? 1 : i % 3 == 1 ? 16 : 17) * BLOCK;
        all[i] = request_new(rig, true, offset, len, i + 1);
        disk_submit(rig->disk, &all[i]->op);
        offset += len;
    }
    for (int i = 0; i < N; i++) {
        wait_for(rig, all[i]);
        if (all[i]->status != 0 || all[i]->called != 1)
            wrong = "one failed or came twice";
    }
    for (int i = 0; i < N; i++) {
        if (!reads_as(rig, all[i]->op.offset, all[i]->op.len, i + 1))
            wrong = "one wrote other bytes";
        request_free(all[i]);
    }
    return wrong;
}

static const char *a_megabyte_goes_in_one_piece(struct rig *rig)
{
    if (run_alone(rig, true, 0, 1u << 20, 'f') != 0)
        return "the write failed";
    return reads_as(rig, 0, 1u << 20, 'f') ? NULL : "other bytes came back";
}

static void on_all(const char *(*check)(struct rig *rig))
{
    struct rig rig;
    CHECK(rig_open_sim(&rig));
    const char *wrong = check(&rig);
    CHECK(rig_close(&rig));
    CHECK_STR(wrong ? wrong : "", "");
    for (int threads_alone = 0; threads_alone < 2; threads_alone++) {
        if (!rig_open_real(&rig, threads_alone))
            SKIP("no O_DIRECT here");
        wrong = check(&rig);
        CHECK(rig_close(&rig));
        CHECK_STR(wrong ? wrong : "", "");
    }
}

#define CASE(name)                                                                                 \
    static void all_##name(void)                                                                   \
    {                                                                                              \
        on_all(name);                                                                              \
    }
CASE(what_was_written_is_read)
CASE(submitting_never_calls_back_inline)
CASE(many_at_once_each_call_back_once)
CASE(a_callback_may_submit)
CASE(an_operation_may_be_submitted_again_from_its_end)
CASE(behind_the_end_is_an_error_and_writes_nothing)
CASE(small_and_large_ones_mix)
CASE(a_megabyte_goes_in_one_piece)

/* --- each alone --- */

static void closing_waits(bool threads_alone)
{
    struct rig rig;
    if (!rig_open_real(&rig, threads_alone))
        SKIP("no O_DIRECT here");
    struct request *all[20];
    for (int i = 0; i < 20; i++) {
        all[i] = request_new(&rig, true, (uint64_t)i * BLOCK, BLOCK, 'g');
        disk_submit(rig.disk, &all[i]->op);
    }
    CHECK(rig_close(&rig));
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(all[i]->called, 1);
        CHECK_EQ(all[i]->status, 0);
        request_free(all[i]);
    }
}

static void closing_the_real_disk_waits_for_what_is_in_flight(void)
{
    closing_waits(false);
    closing_waits(true);
}

static void a_device_that_is_not_there_is_refused(void)
{
    uv_loop_t loop;
    struct uv_disk *disk;
    struct error err = ERROR_INIT;
    uv_loop_init(&loop);
    CHECK_EQ(uv_disk_open(&loop, "/nonexistent/lun", 1, &disk, &err), -ENOENT);
    CHECK(strstr(err.text, "/nonexistent/lun") != NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_EQ(uv_loop_close(&loop), 0);
}

static void a_simulated_failure_lands_as_much_as_it_was_told(void)
{
    struct rig rig;
    CHECK(rig_open_sim(&rig));
    sim_disk_fail(rig.sim, 2, 512);
    CHECK_EQ(run_alone(&rig, true, 0, BLOCK, 'h'), 0);
    CHECK_EQ(run_alone(&rig, true, BLOCK, BLOCK, 'i'), -EIO);
    struct request *r = request_new(&rig, false, BLOCK, BLOCK, 0xff);
    disk_submit(rig.disk, &r->op);
    wait_for(&rig, r);
    CHECK(holds(r->buffer, 512, 'i') && holds(r->buffer + 512, BLOCK - 512, 0));
    request_free(r);
    CHECK(rig_close(&rig));
}

static void close_disk(struct disk_op *op, int status)
{
    struct rig *rig = op->data;
    (void)status;
    uv_disk_close(rig->real, on_closed, rig);
}

static void the_last_operations_callback_may_close_the_disk(void)
{
    for (int threads_alone = 0; threads_alone < 2; threads_alone++) {
        struct rig rig;
        if (!rig_open_real(&rig, threads_alone))
            SKIP("no O_DIRECT here");
        struct disk_op op = {
            .buffer = io_alloc(BLOCK), .len = BLOCK, .done = close_disk, .data = &rig};
        disk_submit(rig.disk, &op);
        uv_run(&rig.loop, UV_RUN_DEFAULT);
        free(op.buffer);
        temp_lun_close(rig.fd, rig.path);
        CHECK(rig.closed);
        CHECK_EQ(uv_loop_close(&rig.loop), 0);
    }
}

TEST_MAIN(TEST(the_last_operations_callback_may_close_the_disk), TEST(all_what_was_written_is_read),
          TEST(all_submitting_never_calls_back_inline), TEST(all_many_at_once_each_call_back_once),
          TEST(all_a_callback_may_submit),
          TEST(all_an_operation_may_be_submitted_again_from_its_end),
          TEST(all_behind_the_end_is_an_error_and_writes_nothing),
          TEST(all_small_and_large_ones_mix), TEST(all_a_megabyte_goes_in_one_piece),
          TEST(closing_the_real_disk_waits_for_what_is_in_flight),
          TEST(a_device_that_is_not_there_is_refused),
          TEST(a_simulated_failure_lands_as_much_as_it_was_told))
