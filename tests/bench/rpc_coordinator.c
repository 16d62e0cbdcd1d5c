/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark's coordinator: the real hub on the real disk in a process of its own, which answers
 * each request with its own bytes, inline. Failure modes: whatever goes wrong ends the process with
 * a line on standard error, and the other one sees that nothing comes back.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/rpc_bench.h"
#include "diskrpc/mailbox.h"
#include "diskrpc/uv_disk.h"

struct coordinator {
    const struct bench *bench;
    uv_loop_t loop;
    struct uv_disk *disk;
    struct hub *hub;
    struct hint *hint;
    uv_poll_t stop;
};

struct hint *bench_hint_open(const struct bench *bench, uv_loop_t *loop,
                             void (*looked)(void *data, uint32_t slot), void *data)
{
    struct hint_config config = {
        .loop = loop,
        .pool_id = bench->pool,
        .bind = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}},
        .slot_min = 1,
        .slot_max = BENCH_NODES,
        .looked = looked,
        .data = data,
    };
    struct error err = ERROR_INIT;
    struct hint *hint;

    if (hint_open(&config, &hint, &err) < 0) {
        fprintf(stderr, "bench: %s\n", err.text);
        exit(1);
    }
    return hint;
}

static void on_message(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len)
{
    struct coordinator *c = data;
    int rc = hub_send(c->hub, host_id, bytes, len);

    if (rc < 0) {
        fprintf(stderr, "bench: cannot answer node %u: %s\n", host_id, error_text(rc));
        exit(1);
    }
}

static void on_node(void *data, uint32_t host_id, const struct channel_stats *stats)
{
    (void)data, (void)host_id, (void)stats;
}

static void on_deposed(void *data, uint64_t term)
{
    (void)data, (void)term;
    fprintf(stderr, "bench: another coordinator uses this device\n");
    exit(1);
}

static void on_wrote(void *data, uint32_t host_id)
{
    struct coordinator *c = data;

    if (c->bench->hints[host_id])
        hint_send(c->hint, &hub_stats(c->hub, host_id)->peer_hint, host_id);
}

static void on_looked(void *data, uint32_t slot)
{
    hub_hint(((struct coordinator *)data)->hub, slot);
}

static void on_hub_closed(void *data)
{
    struct coordinator *c = data;
    uv_disk_close(c->disk, NULL, NULL);
}

static void on_stop(uv_poll_t *poll, int status, int events)
{
    struct coordinator *c = poll->data;

    (void)status, (void)events;
    uv_close((uv_handle_t *)&c->stop, NULL);
    hint_close(c->hint, NULL, NULL);
    hub_close(c->hub, on_hub_closed, c);
}

int bench_coordinator_run(const struct bench *bench, int stop_fd)
{
    struct coordinator c = {.bench = bench};
    struct error err = ERROR_INIT;

    uv_loop_init(&c.loop);
    if (uv_disk_open(&c.loop, bench->path, 2, &c.disk, &err) < 0) {
        fprintf(stderr, "bench: %s\n", err.text);
        return 1;
    }
    c.hint = bench_hint_open(bench, &c.loop, on_looked, &c);
    const struct hub_config config = {
        .loop = &c.loop,
        .disk = uv_disk_disk(c.disk),
        .layout = &bench->layout,
        .pool_id = bench->pool,
        .self = {.host_id = 1, .generation = 1, .run_or_term = 1},
        .hint = hint_address(c.hint),
        .callbacks = {.message = on_message,
                      .node_changed = on_node,
                      .deposed = on_deposed,
                      .wrote = on_wrote},
        .data = &c,
    };
    c.hub = hub_open(&config);
    c.stop.data = &c;
    uv_poll_init(&c.loop, &c.stop, stop_fd);
    uv_poll_start(&c.stop, UV_READABLE, on_stop);
    uv_run(&c.loop, UV_RUN_DEFAULT);
    return uv_loop_close(&c.loop) == 0 ? 0 : 1;
}
