/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's hand on device-mapper against a kernel of our own: a few devices with live and
 * inactive tables, suspension and I/O in flight, behind the same ioctls.
 */
#include "fencing/guard_dm.h"

#include <errno.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/helper.h"
#include "support/test.h"

#define DEVICES 20000

enum table { TABLE_NONE, TABLE_ERROR, TABLE_LINEAR };

struct device {
    char uuid[DM_UUID_LEN];
    enum table live, inactive;
    bool suspended;
    uint64_t sectors;
    uint32_t targets; /* 0: two */
    int resumes;
    const struct device *behind; /* I/O of ours is held up in that one while it is suspended */
};

/* What somebody else does, once, when the guard makes its `at`th call of that kind. */
struct meddling {
    unsigned long request;
    int at;
    void (*run)(void);
};

static struct {
    struct device devices[DEVICES];
    int n;
    pthread_mutex_t lock;
    pthread_cond_t io_ended;
    bool io_hangs; /* of the first device */
    int waiting;
    struct meddling meddling;
    int calls;
    int errors[DEVICES]; /* of loads into the device of that number */
    bool old;            /* 4.14: no uuids in the list, no prefix */
    int last;            /* found: devices are mostly asked for in their order */
    uint32_t list_item;  /* so many bytes at least for each item of a list */
    uint64_t copied;     /* bytes that were offered: what a kernel allocates and copies */
} kernel;

static struct guard_dm dm;
static struct uuid pool = {{0x0a, 0x4d, 0xa5, 0x65, 0x73, 0x6f, 0xc7, 0x28, 1, 2, 3}};

static struct device *add(const char *uuid, enum table live)
{
    struct device *device = &kernel.devices[kernel.n++];
    *device = (struct device){.live = live, .sectors = 2048};
    snprintf(device->uuid, sizeof device->uuid, "%s", uuid);
    return device;
}

static struct device *add_ours(char kind, enum table live)
{
    char uuid[DM_UUID_LEN];
    snprintf(uuid, sizeof uuid,
             "LUNAR-%c-0a4da565736fc728-00000000-0000-4000-8000-0000000%05d-lunar-v-l0", kind,
             kernel.n);
    return add(uuid, live);
}

static bool is_meant(const struct dm_ioctl *io, int i)
{
    return io->uuid[0] ? strcmp(kernel.devices[i].uuid, io->uuid) == 0 : io->dev == (uint64_t)i + 1;
}

static struct device *find(struct dm_ioctl *io)
{
    for (int k = 0; k < kernel.n; k++) {
        int i = (kernel.last + k) % kernel.n;
        if (!is_meant(io, i))
            continue;
        kernel.last = i;
        return kernel.devices[i].uuid[0] ? &kernel.devices[i] : NULL;
    }
    return NULL;
}

/* One item; returns its size, or 0 if it does not fit. */
static uint32_t list_one(struct dm_ioctl *io, uint32_t at, int i)
{
    struct dm_name_list item = {.dev = (uint64_t)i + 1};
    const char *uuid = kernel.devices[i].uuid;
    uint32_t numbers[2] = {1, !(io->flags & DM_UUID_FLAG) || kernel.old ? 0
                              : uuid[0]                                 ? DM_NAME_LIST_FLAG_HAS_UUID
                                        : DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID};
    uint32_t name = at + (uint32_t)offsetof(struct dm_name_list, name);
    uint32_t end = ((name + 16 + 7) & ~7u) + 8 + DM_UUID_LEN, size;
    if (end > io->data_size || at + kernel.list_item > io->data_size)
        return 0;
    memcpy((char *)io + at, &item, sizeof item);
    snprintf((char *)io + name, 16, "name%d", i);
    uint32_t after = (name + (uint32_t)strlen((char *)io + name) + 1 + 7) & ~7u;
    memcpy((char *)io + after, numbers, sizeof numbers);
    if (numbers[1] & DM_NAME_LIST_FLAG_HAS_UUID)
        strcpy((char *)io + after + 8, uuid);
    size = ((end + 7) & ~7u) - at;
    return size > kernel.list_item ? size : kernel.list_item;
}

/* Of an empty list the kernel copies nothing back but the header. */
static int answer_list(struct dm_ioctl *io)
{
    char prefix[DM_UUID_LEN];
    uint32_t at = io->data_start, before = 0, size;
    snprintf(prefix, sizeof prefix, "%s", kernel.old ? "" : io->uuid);
    for (int i = 0; i < kernel.n; i++) {
        if (strncmp(kernel.devices[i].uuid, prefix, strlen(prefix)) != 0)
            continue;
        if (before) {
            uint32_t next = at - before;
            memcpy((char *)io + before + offsetof(struct dm_name_list, next), &next, sizeof next);
        }
        size = list_one(io, at, i);
        if (size == 0) {
            io->flags |= DM_BUFFER_FULL_FLAG;
            return 0;
        }
        before = at;
        at += size;
    }
    return 0;
}

static int answer_status(struct dm_ioctl *io, const struct device *device)
{
    uint32_t targets = device->targets ? device->targets : 2;
    io->flags = (device->suspended ? DM_SUSPEND_FLAG : 0) |
                (device->inactive != TABLE_NONE ? DM_INACTIVE_PRESENT_FLAG : 0);
    io->target_count = device->live == TABLE_NONE ? 0 : targets;
    if (io->data_start + io->target_count * 48 > io->data_size) {
        io->flags |= DM_BUFFER_FULL_FLAG;
        return 0;
    }
    for (uint32_t i = 0; i < io->target_count; i++) {
        struct dm_target_spec spec = {.sector_start = i * device->sectors / targets,
                                      .length = device->sectors / targets,
                                      .next = (i + 1) * 48};
        /* A table of error targets and a linear one at the end is no error table. */
        bool linear = device->live == TABLE_LINEAR && i == targets - 1;
        strcpy(spec.target_type, linear ? "linear" : "error");
        memcpy((char *)io + io->data_start + (size_t)i * 48, &spec, sizeof spec);
    }
    return 0;
}

static int answer_load(struct dm_ioctl *io, struct device *device)
{
    struct dm_target_spec spec;
    int rv = kernel.errors[device - kernel.devices];
    if (rv < 0)
        return rv;
    memcpy(&spec, (char *)io + io->data_start, sizeof spec);
    device->inactive = strcmp(spec.target_type, "error") == 0 ? TABLE_ERROR : TABLE_LINEAR;
    device->sectors = spec.length;
    device->targets = 0;
    return 0;
}

static int answer_resume(struct device *device)
{
    kernel.waiting++;
    while ((kernel.io_hangs && device == kernel.devices) ||
           (device->behind && device->behind->suspended))
        pthread_cond_wait(&kernel.io_ended, &kernel.lock);
    kernel.waiting--;
    device->resumes++;
    device->suspended = false;
    pthread_cond_broadcast(&kernel.io_ended);
    if (device->inactive != TABLE_NONE) {
        device->live = device->inactive;
        device->inactive = TABLE_NONE;
    }
    return 0;
}

static int answer(unsigned long request, struct dm_ioctl *io)
{
    struct meddling *m = &kernel.meddling;
    kernel.copied += io->data_size;
    io->version[0] = 4;
    io->version[1] = kernel.old ? 0 : 48;
    if (m->run && m->request == request && kernel.calls++ == m->at)
        m->run();
    if (request == DM_LIST_DEVICES)
        return answer_list(io);
    struct device *device = find(io);
    if (!device)
        return -ENXIO;
    if (request == DM_DEV_STATUS) {
        strcpy(io->uuid, device->uuid);
        return 0;
    }
    if (request == DM_TABLE_STATUS)
        return answer_status(io, device);
    return request == DM_TABLE_LOAD ? answer_load(io, device) : answer_resume(device);
}

static int call(void *data, unsigned long request, struct dm_ioctl *io)
{
    (void)data;
    pthread_mutex_lock(&kernel.lock);
    int rv = answer(request, io);
    pthread_mutex_unlock(&kernel.lock);
    return rv;
}

static void begin(void)
{
    static bool started;
    memset(&kernel, 0, sizeof kernel);
    pthread_mutex_init(&kernel.lock, NULL);
    pthread_cond_init(&kernel.io_ended, NULL);
    dm.call = call;
    dm.data = &kernel;
    if (!started && guard_dm_start(&dm, &pool, NULL) < 0)
        printf("# no threads\n");
    started = true;
}

static void no_device_is_a_proof(void)
{
    begin();
    CHECK(guard_dm_wipe(&dm));
    CHECK_EQ(guard_dm_count(&dm), 0);
}

static void safety_10_every_map_of_the_pool_gets_an_error_table_of_its_size(void)
{
    begin();
    for (int i = 0; i < 140; i++) /* more than there are threads */
        add_ours("LJ"[i % 2], TABLE_LINEAR);
    CHECK_EQ(guard_dm_count(&dm), 140);
    CHECK(guard_dm_wipe(&dm));
    for (int i = 0; i < 140; i++) {
        CHECK_EQ(kernel.devices[i].live, TABLE_ERROR);
        CHECK_EQ(kernel.devices[i].resumes, 1);
        CHECK_EQ(kernel.devices[i].sectors, 2048);
    }
}

static void what_is_not_the_pools_is_not_touched(void)
{
    for (int old = 0; old < 2; old++) {
        begin();
        kernel.old = old;
        add("LUNAR-P-0a4da565736fc728-x", TABLE_LINEAR);
        add("LUNAR-H-0a4da565736fc728-x", TABLE_LINEAR);
        add("LUNAR-L-ffffffffffffffff-x", TABLE_LINEAR);
        add("LVM-abcdef", TABLE_LINEAR);
        add("", TABLE_LINEAR);
        CHECK_EQ(guard_dm_count(&dm), 0);
        CHECK(guard_dm_wipe(&dm));
        for (int i = 0; i < kernel.n; i++)
            CHECK_EQ(kernel.devices[i].resumes, 0);
        struct device *ours = add_ours('J', TABLE_LINEAR);
        CHECK_EQ(guard_dm_count(&dm), 1);
        CHECK(guard_dm_wipe(&dm));
        CHECK_EQ(ours->live, TABLE_ERROR);
    }
}

/* Deep chains: a node full of volumes, and whatever else it has. */
static void thousands_of_maps_are_wiped_in_one_round_with_small_buffers(void)
{
    begin();
    for (int i = 0; i < 14000; i++)
        i % 3 == 2 ? add("LUNAR-P-0a4da565736fc728-x", TABLE_LINEAR)
                   : add_ours("LJ"[i % 2], TABLE_LINEAR);
    int64_t start = clock_ms();
    CHECK_EQ(guard_dm_count(&dm), 14000 - 4666);
    CHECK(guard_dm_wipe(&dm));
    printf("# %u maps wiped in %d ms, %llu KiB offered to the kernel\n", dm.n,
           (int)(clock_ms() - start), (unsigned long long)kernel.copied >> 10);
    CHECK_EQ(dm.n, 14000 - 4666);
    /* Two looks, a load and a resume each, lists on top: no megabyte for each of them. */
    CHECK(kernel.copied / dm.n < 16384);
    for (int i = 0; i < kernel.n; i++)
        CHECK_EQ(kernel.devices[i].live,
                 kernel.devices[i].uuid[6] == 'P' ? TABLE_LINEAR : TABLE_ERROR);
}

static void more_maps_than_a_round_holds_are_no_proof_before_the_last_is_wiped(void)
{
    begin();
    for (uint32_t i = 0; i < GUARD_DM_QUEUE + 100; i++)
        add_ours('L', TABLE_LINEAR);
    CHECK(!guard_dm_wipe(&dm));
    CHECK(strstr(dm.reason, "not an error table alone") != NULL);
    CHECK(guard_dm_wipe(&dm));
    for (int i = 0; i < kernel.n; i++)
        CHECK_EQ(kernel.devices[i].live, TABLE_ERROR);
}

/* An old kernel lists everything that the node has. */
static void a_list_that_does_not_fit_is_no_proof(void)
{
    begin();
    kernel.old = true;
    for (int i = 0; i < DEVICES; i++)
        kernel.devices[i] = (struct device){.uuid = "LVM-x", .live = TABLE_LINEAR};
    kernel.n = DEVICES;
    bool fits = guard_dm_wipe(&dm);
    CHECK(fits); /* 20,000 with short names */
    kernel.list_item = 400;
    CHECK(!guard_dm_wipe(&dm));
    CHECK(strstr(dm.reason, "cannot list") != NULL);
    CHECK_EQ(guard_dm_count(&dm), -ENOBUFS);
}

static void a_map_of_thousands_of_stretches_is_wiped_as_a_whole(void)
{
    begin();
    struct device *device = add_ours('L', TABLE_LINEAR);
    device->targets = 4100;
    device->sectors = 4100 * 8;
    CHECK(guard_dm_wipe(&dm));
    CHECK_EQ(device->live, TABLE_ERROR);
    CHECK_EQ(device->sectors, 4100 * 8);
}

/* All writers of a full pool wait: more than there are threads to wait for them. */
static void tails_that_wait_let_go_before_the_maps_above_them(void)
{
    enum { WRITERS = 3 * GUARD_DM_SWAPPERS };
    begin();
    for (int i = 0; i < 2 * WRITERS; i++) /* half of them in the middle of a growth */
        add_ours("LT"[i % 2], TABLE_LINEAR);
    for (int i = 0; i < WRITERS; i++) {
        struct device *tail = add_ours('T', TABLE_ERROR);
        tail->suspended = true;
        kernel.devices[2 * i].behind = kernel.devices[2 * i + 1].behind = tail;
    }
    CHECK_EQ(guard_dm_count(&dm), 3 * WRITERS);
    CHECK(guard_dm_wipe(&dm));
    for (int i = 0; i < kernel.n; i++) {
        CHECK_EQ(kernel.devices[i].live, TABLE_ERROR);
        CHECK(!kernel.devices[i].suspended);
    }
}

static void a_suspended_map_is_swapped_and_let_go(void)
{
    begin();
    struct device *device = add_ours('L', TABLE_LINEAR);
    device->suspended = true;
    CHECK(guard_dm_wipe(&dm));
    CHECK_EQ(device->live, TABLE_ERROR);
    CHECK(!device->suspended);
}

static void a_table_loaded_and_not_put_in_is_replaced(void)
{
    begin();
    struct device *swapping = add_ours('L', TABLE_ERROR), *fresh = add_ours('J', TABLE_NONE);
    swapping->inactive = fresh->inactive = TABLE_LINEAR;
    CHECK(guard_dm_wipe(&dm));
    CHECK_EQ(swapping->live, TABLE_ERROR);
    CHECK_EQ(swapping->inactive, TABLE_NONE);
    CHECK_EQ(fresh->live, TABLE_ERROR);
}

static void a_map_without_any_table_gets_one_too(void)
{
    begin();
    struct device *fresh = add_ours('L', TABLE_NONE);
    CHECK(guard_dm_wipe(&dm));
    CHECK_EQ(fresh->live, TABLE_ERROR);
}

static void a_map_that_is_clear_already_is_left_alone(void)
{
    begin();
    struct device *device = add_ours('L', TABLE_ERROR);
    CHECK(guard_dm_wipe(&dm));
    CHECK_EQ(device->resumes, 0);
}

static void remove_first(void)
{
    kernel.devices[0].uuid[0] = '\0';
}

static void a_map_that_vanishes_at_any_moment_is_no_obstacle(void)
{
    const unsigned long requests[] = {DM_DEV_STATUS, DM_TABLE_STATUS, DM_TABLE_LOAD,
                                      DM_DEV_SUSPEND};
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        begin();
        kernel.old = i == 0;
        add_ours('L', TABLE_LINEAR);
        struct device *other = add_ours('L', TABLE_LINEAR);
        kernel.meddling = (struct meddling){requests[i], 0, remove_first};
        CHECK(guard_dm_wipe(&dm));
        CHECK_EQ(other->live, TABLE_ERROR);
    }
}

static void make_another(void)
{
    add_ours('L', TABLE_LINEAR);
}

static void safety_10_a_map_that_appears_after_the_first_list_is_no_proof(void)
{
    begin();
    add_ours('L', TABLE_LINEAR);
    kernel.meddling = (struct meddling){DM_TABLE_LOAD, 0, make_another};
    CHECK(!guard_dm_wipe(&dm));
    CHECK(strstr(dm.reason, "not an error table alone") != NULL);
    CHECK(guard_dm_wipe(&dm));
    CHECK_EQ(kernel.devices[1].live, TABLE_ERROR);
}

/* Somebody who had a linear table in hand puts it in after the error table. */
static void put_linear_back(void)
{
    kernel.devices[0].live = TABLE_LINEAR;
}

static void safety_10_a_table_that_somebody_swaps_back_is_no_proof(void)
{
    begin();
    add_ours('L', TABLE_LINEAR);
    kernel.meddling = (struct meddling){DM_TABLE_STATUS, 1, put_linear_back};
    CHECK(!guard_dm_wipe(&dm));
    CHECK(guard_dm_wipe(&dm));
}

static void suspend_first(void)
{
    kernel.devices[0].suspended = true;
}

static void a_map_suspended_meanwhile_is_no_proof(void)
{
    begin();
    add_ours('L', TABLE_LINEAR);
    kernel.meddling = (struct meddling){DM_TABLE_STATUS, 1, suspend_first};
    CHECK(!guard_dm_wipe(&dm));
    CHECK(guard_dm_wipe(&dm));
}

static void a_map_that_takes_no_error_table_is_no_proof_and_is_not_resumed(void)
{
    begin();
    struct device *device = add_ours('L', TABLE_LINEAR), *other = add_ours('L', TABLE_LINEAR);
    device->suspended = true;
    kernel.errors[0] = -ENOMEM;
    CHECK(!guard_dm_wipe(&dm));
    CHECK(strstr(dm.reason, "cannot load an error table") != NULL);
    CHECK(device->suspended); /* its I/O waits, and goes on waiting */
    CHECK_EQ(other->live, TABLE_ERROR);
}

static void *wipe_beside(void *ret)
{
    *(bool *)ret = guard_dm_wipe(&dm);
    return NULL;
}

/* With the lock held. */
static bool all_but_the_first_are_drained(void)
{
    for (int i = 1; i < kernel.n; i++)
        if (kernel.devices[i].live != TABLE_ERROR)
            return false;
    return kernel.waiting == 1;
}

/* Polls with the lock held, which it gives back meanwhile. */
static bool comes_true(bool (*condition)(void))
{
    for (int ms = 0; !condition() && ms < 10000; ms++) {
        pthread_mutex_unlock(&kernel.lock);
        usleep(1000);
        pthread_mutex_lock(&kernel.lock);
    }
    return condition();
}

static void end_io(void)
{
    kernel.io_hangs = false;
    pthread_cond_broadcast(&kernel.io_ended);
}

static void io_that_hangs_holds_the_proof_but_no_other_maps_drain(void)
{
    begin();
    pthread_t thread;
    bool proven = false;
    for (int i = 0; i < 140; i++)
        add_ours('L', TABLE_LINEAR);
    kernel.io_hangs = true;
    pthread_create(&thread, NULL, wipe_beside, &proven);
    pthread_mutex_lock(&kernel.lock);
    bool drained = comes_true(all_but_the_first_are_drained);
    bool first_waits = kernel.devices[0].live == TABLE_LINEAR;
    end_io();
    pthread_mutex_unlock(&kernel.lock);
    pthread_join(thread, NULL);
    CHECK(drained);
    CHECK(first_waits);
    CHECK(proven);
}

/* Before the permits are free: every map is stopped, whatever hangs, and nobody waits. */
static void a_stop_waits_for_no_io_and_a_map_made_behind_it_is_met_by_the_round(void)
{
    begin();
    pthread_t thread;
    bool proven = true;
    for (int i = 0; i < 140; i++)
        add_ours('L', TABLE_LINEAR);
    kernel.io_hangs = true;
    guard_dm_stop(&dm); /* or this test hangs */
    pthread_mutex_lock(&kernel.lock);
    bool drained = comes_true(all_but_the_first_are_drained);
    struct device *late = add_ours('L', TABLE_LINEAR);
    pthread_mutex_unlock(&kernel.lock);

    pthread_create(&thread, NULL, wipe_beside, &proven);
    pthread_mutex_lock(&kernel.lock);
    bool too = comes_true(all_but_the_first_are_drained);
    int waiting = kernel.waiting; /* the first one's resume is not asked for twice */
    end_io();
    pthread_mutex_unlock(&kernel.lock);
    pthread_join(thread, NULL);
    CHECK(drained && too);
    CHECK_EQ(waiting, 1);
    CHECK_EQ(late->live, TABLE_ERROR);
    CHECK_EQ(kernel.devices[0].resumes, 1);
    CHECK(proven);
}

TEST_MAIN(TEST(no_device_is_a_proof),
          TEST(safety_10_every_map_of_the_pool_gets_an_error_table_of_its_size),
          TEST(what_is_not_the_pools_is_not_touched),
          TEST(thousands_of_maps_are_wiped_in_one_round_with_small_buffers),
          TEST(more_maps_than_a_round_holds_are_no_proof_before_the_last_is_wiped),
          TEST(a_list_that_does_not_fit_is_no_proof),
          TEST(a_map_of_thousands_of_stretches_is_wiped_as_a_whole),
          TEST(tails_that_wait_let_go_before_the_maps_above_them),
          TEST(a_suspended_map_is_swapped_and_let_go),
          TEST(a_table_loaded_and_not_put_in_is_replaced),
          TEST(a_map_without_any_table_gets_one_too),
          TEST(a_map_that_is_clear_already_is_left_alone),
          TEST(a_map_that_vanishes_at_any_moment_is_no_obstacle),
          TEST(safety_10_a_map_that_appears_after_the_first_list_is_no_proof),
          TEST(safety_10_a_table_that_somebody_swaps_back_is_no_proof),
          TEST(a_map_suspended_meanwhile_is_no_proof),
          TEST(a_map_that_takes_no_error_table_is_no_proof_and_is_not_resumed),
          TEST(io_that_hangs_holds_the_proof_but_no_other_maps_drain),
          TEST(a_stop_waits_for_no_io_and_a_map_made_behind_it_is_met_by_the_round))
