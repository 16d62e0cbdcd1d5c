/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast is a request over the LUN? The real mailboxes in this process, the real hub in another
 * one, one file or device between them.
 *
 * Happy path: the pages' places are written once, the coordinator is forked, BENCH_NODES nodes
 * join; then the rows. "hot": one request after the other, with blocks of raw reads and writes
 * between them, so that both see the same machine. "idle": nodes that were silent for longer than
 * CHANNEL_HOT_US send at random moments, half of them with hints (UDP on the loopback device).
 * "busy": 1, 16 and 256 requests in flight, each answer sends the next one. An answer carries its
 * request's bytes, with the time of its sending in front. Failure modes: no answer for PATIENCE_S,
 * or bytes that come back changed, end the run with exit 1 and without a report; a file system
 * without O_DIRECT with exit 77.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "bench/rpc_bench.h"
#include "diskrpc/mailbox.h"
#include "diskrpc/uv_disk.h"

#define PATIENCE_S   20
#define RAW_BLOCK    50  /* raw writes, then so many raw reads, then ... */
#define HOT_BLOCK    150 /* ... so many requests */
#define HOT_WARMUP   2   /* of them, not counted: the raw block has let the channels slow down */
#define SILENCE_MS   (CHANNEL_HOT_US / 1000 + 300)
#define SILENCE_MORE 1000 /* random, at most */

struct node {
    struct agents *agents;
    struct mailbox *mailbox;
    uint32_t host_id;
    bool joined;
    bool waits; /* a request is out; only the idle rows ask */
    uv_timer_t silence;
};

struct agents {
    struct bench *bench;
    uv_loop_t loop;
    struct uv_disk *disk;
    struct hint *hint;
    uv_timer_t clock;
    bool clock_rang;
    struct node nodes[BENCH_NODES + 1];
    uint32_t n_joined, outstanding;
    uint8_t *payload;
    uint32_t payload_len;
    bool sending; /* an answer makes its node send the next request */
    bool idle_row;
    uint32_t to_send;          /* while `sending`: at most so many more */
    struct samples samples[2]; /* [1]: of nodes with hints */
    int closed;
};

static void give_up(const char *why)
{
    fprintf(stderr, "bench: %s\n", why);
    exit(1);
}

static void on_clock(uv_timer_t *timer)
{
    ((struct agents *)timer->data)->clock_rang = true;
}

/* Runs the loop for so long, or until nothing is out any more (0: as long as patience lasts). */
static void run_for(struct agents *a, uint64_t ms)
{
    a->clock_rang = false;
    uv_update_time(&a->loop);
    uv_timer_start(&a->clock, on_clock, ms ? ms : PATIENCE_S * 1000, 0);
    while (!a->clock_rang && (ms > 0 || a->outstanding > 0))
        uv_run(&a->loop, UV_RUN_ONCE);
    if (ms == 0 && a->outstanding > 0)
        give_up("an answer does not come");
}

/* --- requests --- */

static void send_one(struct node *node)
{
    struct agents *a = node->agents;
    uint64_t now = uv_hrtime();

    memcpy(a->payload, &now, sizeof now);
    int rc = mailbox_send(node->mailbox, a->payload, a->payload_len);
    if (rc < 0)
        give_up(error_text(rc));
    a->outstanding++;
}

static void on_silence(uv_timer_t *timer)
{
    struct node *node = timer->data;

    if (!node->agents->sending)
        return;
    mailbox_set_waiting(node->mailbox, true);
    send_one(node);
}

static void fall_silent(struct node *node)
{
    mailbox_set_waiting(node->mailbox, false);
    uv_timer_start(&node->silence, on_silence, SILENCE_MS + (uint64_t)(random() % SILENCE_MORE), 0);
}

static void on_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct node *node = data;
    struct agents *a = node->agents;
    uint64_t sent, now = uv_hrtime();

    if (len != a->payload_len || memcmp(bytes + 8, a->payload + 8, len - 8) != 0)
        give_up("an answer has other bytes than its request");
    memcpy(&sent, bytes, sizeof sent);
    samples_add(&a->samples[a->bench->hints[node->host_id]], now - sent);
    a->outstanding--;
    if (a->idle_row)
        fall_silent(node);
    else if (a->sending && a->to_send > 0) {
        a->to_send--;
        send_one(node);
    }
}

static void on_peer(void *data, const struct incarnation *peer)
{
    struct node *node = data;

    (void)peer;
    if (!node->joined)
        node->agents->outstanding--;
    node->joined = true;
}

static void on_wrote(void *data)
{
    struct node *node = data;
    const struct bench *bench = node->agents->bench;

    if (bench->hints[node->host_id])
        hint_send(node->agents->hint, &mailbox_stats(node->mailbox)->peer_hint, node->host_id);
}

static void on_looked(void *data, uint32_t slot)
{
    mailbox_hint(((struct agents *)data)->nodes[slot].mailbox);
}

/* --- the rows --- */

static struct row *row_add(struct report *report, const char *name, uint32_t nodes,
                           uint32_t in_flight, uint32_t payload, bool hints)
{
    struct row *row = &report->rows[report->n_rows++];

    if (report->n_rows > BENCH_ROWS_MAX)
        give_up("too many rows");
    *row = (struct row){
        .name = name, .nodes = nodes, .in_flight = in_flight, .payload = payload, .hints = hints};
    return row;
}

static void set_hints(struct agents *a, uint32_t first)
{
    for (uint32_t h = 1; h <= BENCH_NODES; h++)
        a->bench->hints[h] = h >= first;
}

static void row_begin(struct agents *a, uint32_t nodes, uint32_t payload, bool hints)
{
    set_hints(a, hints ? 1 : BENCH_NODES + 1);
    a->payload_len = payload;
    a->sending = true;
    a->to_send = UINT32_MAX;
    for (uint32_t h = 1; h <= nodes; h++)
        mailbox_set_waiting(a->nodes[h].mailbox, true);
}

static void row_end(struct agents *a, struct row *row)
{
    struct samples *samples = &a->samples[row->hints];

    for (uint32_t h = 1; h <= row->nodes; h++)
        mailbox_set_waiting(a->nodes[h].mailbox, false);
    row->summary = samples_summary(samples);
    samples_free(samples);
}

static void raw_block(int fd, void *buffer, bool write, uint64_t offset, struct samples *samples)
{
    for (int i = 0; i < RAW_BLOCK; i++) {
        uint64_t start = uv_hrtime();
        int rc = write ? io_write(fd, buffer, LAYOUT_PAGE_SIZE, offset, NULL)
                       : io_read(fd, buffer, LAYOUT_PAGE_SIZE, offset, NULL);
        if (rc < 0)
            give_up("a raw read or write fails");
        samples_add(samples, uv_hrtime() - start);
    }
}

static void hot_rows(struct agents *a, struct report *report, uint64_t ms)
{
    struct row *row = row_add(report, "hot", 1, 1, 100, false);
    struct samples writes = {0}, reads = {0};
    uint64_t offset = layout_up_spill(&a->bench->layout, BENCH_NODES); /* nobody's now */
    void *buffer = io_alloc(LAYOUT_PAGE_SIZE);
    int fd = uv_disk_fd(a->disk);
    uint64_t end = uv_hrtime() + ms * 1000000;

    row_begin(a, 1, row->payload, false);
    while (uv_hrtime() < end) {
        raw_block(fd, buffer, true, offset, &writes);
        raw_block(fd, buffer, false, offset, &reads);
        size_t before = a->samples[0].n;
        a->to_send = HOT_BLOCK - 1;
        send_one(&a->nodes[1]);
        run_for(a, 0);
        a->samples[0].n -= HOT_WARMUP;
        memmove(a->samples[0].ns + before, a->samples[0].ns + before + HOT_WARMUP,
                (HOT_BLOCK - HOT_WARMUP) * sizeof(uint64_t));
    }
    row_end(a, row);
    report->write = samples_summary(&writes);
    report->read = samples_summary(&reads);
    samples_free(&writes);
    samples_free(&reads);
    free(buffer);
}

static void idle_rows(struct agents *a, struct report *report, uint64_t ms)
{
    struct row *without = row_add(report, "idle", BENCH_NODES / 2, 1, 100, false);
    struct row *with = row_add(report, "idle", BENCH_NODES / 2, 1, 100, true);

    set_hints(a, BENCH_NODES / 2 + 1);
    a->payload_len = without->payload;
    a->idle_row = a->sending = true;
    for (uint32_t h = 1; h <= BENCH_NODES; h++)
        fall_silent(&a->nodes[h]);
    run_for(a, ms);
    a->sending = false;
    run_for(a, 0);
    for (uint32_t h = 1; h <= BENCH_NODES; h++)
        uv_timer_stop(&a->nodes[h].silence);
    a->idle_row = false;
    row_end(a, without);
    row_end(a, with);
}

/* One request each, not counted: a node that was idle until now is another row's matter. */
static void wake_up(struct agents *a, const struct row *row)
{
    a->to_send = 0;
    for (uint32_t h = 1; h <= row->nodes; h++)
        send_one(&a->nodes[h]);
    run_for(a, 0);
    a->samples[row->hints].n = 0;
    a->to_send = UINT32_MAX;
}

static void busy_row(struct agents *a, struct row *row, uint64_t ms)
{
    row_begin(a, row->nodes, row->payload, row->hints);
    wake_up(a, row);
    uint64_t start = uv_hrtime();
    for (uint32_t i = 0; i < row->in_flight; i++)
        send_one(&a->nodes[1 + i % row->nodes]);
    run_for(a, ms);
    a->sending = false;
    run_for(a, 0);
    uint64_t spent = uv_hrtime() - start;
    row_end(a, row);
    row->per_s = (double)row->summary.n * 1e9 / (double)spent;
}

static void busy_rows(struct agents *a, struct report *report, uint64_t ms)
{
    static const uint32_t payloads[] = {100, 4096, 65536};
    static const struct {
        uint32_t nodes, in_flight;
    } loads[] = {{1, 1}, {1, 16}, {16, 16}, {32, 256}};

    for (size_t l = 0; l < 4; l++)
        for (size_t p = 0; p < 3; p++)
            for (int hints = 0; hints < 2; hints++) {
                if (loads[l].nodes == 1 && loads[l].in_flight == 16 && payloads[p] == 65536)
                    continue; /* a megabyte: more than a queue holds */
                struct row *row =
                    row_add(report, "busy", loads[l].nodes, loads[l].in_flight, payloads[p], hints);
                busy_row(a, row, ms);
            }
}

/* --- setting up --- */

static void open_node(struct agents *a, uint32_t host_id)
{
    struct node *node = &a->nodes[host_id];
    const struct mailbox_config config = {
        .loop = &a->loop,
        .disk = uv_disk_disk(a->disk),
        .layout = &a->bench->layout,
        .pool_id = a->bench->pool,
        .self = {.host_id = host_id, .generation = 1, .run_or_term = 1},
        .node_name = "bench",
        .hint = hint_address(a->hint),
        .callbacks = {.message = on_message, .peer_changed = on_peer, .wrote = on_wrote},
        .data = node,
    };
    *node = (struct node){.agents = a, .host_id = host_id, .mailbox = mailbox_open(&config)};
    uv_timer_init(&a->loop, &node->silence);
    node->silence.data = node;
    a->outstanding++;
}

static void agents_open(struct agents *a, struct bench *bench)
{
    struct error err = ERROR_INIT;

    *a = (struct agents){.bench = bench, .payload = malloc(65536)};
    for (uint32_t i = 0; i < 65536; i++)
        a->payload[i] = (uint8_t)(i * 31 + i / 251);
    uv_loop_init(&a->loop);
    if (uv_disk_open(&a->loop, bench->path, 2, &a->disk, &err) < 0)
        give_up(err.text);
    uv_timer_init(&a->loop, &a->clock);
    a->clock.data = a;
    a->hint = bench_hint_open(bench, &a->loop, on_looked, a);
    for (uint32_t h = 1; h <= BENCH_NODES; h++)
        open_node(a, h);
    run_for(a, 0);
    run_for(a, CHANNEL_HOT_US / 1000); /* the newcomers' fast reads */
}

static void on_mailbox_closed(void *data)
{
    struct agents *a = data;

    if (++a->closed == BENCH_NODES)
        uv_disk_close(a->disk, NULL, NULL);
}

static void agents_close(struct agents *a)
{
    for (uint32_t h = 1; h <= BENCH_NODES; h++) {
        uv_close((uv_handle_t *)&a->nodes[h].silence, NULL);
        mailbox_close(a->nodes[h].mailbox, on_mailbox_closed, a);
    }
    uv_close((uv_handle_t *)&a->clock, NULL);
    hint_close(a->hint, NULL, NULL);
    uv_run(&a->loop, UV_RUN_DEFAULT);
    uv_loop_close(&a->loop);
    free(a->payload);
}

/* Gives the pages and spills their place on the file system: writing a hole is another thing than
 * writing a block. What the area holds must be nothing or an earlier run's. */
static void prepare(struct bench *bench, bool device, bool overwrite)
{
    struct error err = ERROR_INIT;
    const struct layout *l = &bench->layout;
    uint64_t end = l->down_spill + (uint64_t)l->max_nodes * LAYOUT_SPILL_SIZE;
    uint8_t *buffer = io_alloc(1 << 20), *zero = io_alloc(1 << 20);
    int fd = io_open(bench->path, 1, &err);

    if (fd < 0) {
        fprintf(stderr, "bench: skipped: %s\n", err.text);
        exit(77);
    }
    if (device && !overwrite)
        for (uint64_t at = 0; at < end; at += 1 << 20)
            if (io_read(fd, buffer, 1 << 20, at, &err) < 0 || memcmp(buffer, zero, 1 << 20) != 0)
                give_up("the device is too small or holds data; --overwrite destroys them");
    for (uint64_t at = l->area_start; at < end; at += 1 << 20)
        if (io_write(fd, zero, 1 << 20, at, &err) < 0)
            give_up(err.text);
    close(fd);
    free(buffer);
    free(zero);
}

static pid_t start_coordinator(struct bench *bench, int *ret_stop_fd)
{
    int stop[2];
    pid_t parent = getpid();

    if (pipe(stop) < 0)
        give_up("no pipe");
    pid_t pid = fork();
    if (pid < 0)
        give_up("cannot fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(stop[1]);
        _exit(getppid() == parent ? bench_coordinator_run(bench, stop[0]) : 1);
    }
    close(stop[0]);
    *ret_stop_fd = stop[1];
    return pid;
}

static void run_all(struct bench *bench, struct report *report, uint64_t seconds)
{
    struct agents *a = calloc(1, sizeof *a);
    uint64_t idle_ms = seconds * 300;
    int stop_fd, status;

    if (!a)
        abort();
    pid_t pid = start_coordinator(bench, &stop_fd);
    agents_open(a, bench);
    hot_rows(a, report, seconds * 150);
    busy_rows(a, report, seconds * 500 / 22);
    idle_rows(a, report, idle_ms < 5500 ? 5500 : idle_ms);
    agents_close(a);
    close(stop_fd);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        give_up("the coordinator's process failed");
    free(a);
}

static int usage(int code)
{
    fprintf(
        code ? stderr : stdout,
        "usage: tools/bench rpc [-o json] [--device FILE [--overwrite] | --dir DIR] [--seconds N]\n"
        "  -o json         JSON on standard output instead of a table\n"
        "  --device FILE   measure on this file or block device, which must hold zeroes\n"
        "  --overwrite     ... or whose data may be destroyed\n"
        "  --dir DIR       where to make the file that is measured otherwise (default /tmp)\n"
        "  --seconds N     how long to measure in all, about (default 50)\n");
    return code;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"device", required_argument, NULL, 'd'}, {"overwrite", no_argument, NULL, 'w'},
        {"dir", required_argument, NULL, 'D'},    {"seconds", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},         {0}};
    struct bench bench = {.pool = uuid_random()};
    struct report report = {0};
    const char *dir = "/tmp", *device = NULL;
    char path[256];
    bool json = false, overwrite = false;
    uint64_t seconds = 50;

    for (int c; (c = getopt_long(argc, argv, "o:h", options, NULL)) != -1;)
        switch (c) {
        case 'o':
            json = strcmp(optarg, "json") == 0;
            if (!json)
                return usage(2);
            break;
        case 'd':
            device = optarg;
            break;
        case 'w':
            overwrite = true;
            break;
        case 'D':
            dir = optarg;
            break;
        case 's':
            seconds = strtoull(optarg, NULL, 10);
            break;
        default:
            return usage(c == 'h' ? 0 : 2);
        }
    if (optind < argc || seconds < 1 || seconds > 3600)
        return usage(2);
    layout_compute(BENCH_NODES, 512, &bench.layout, NULL);
    bench.hints = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bench.hints == MAP_FAILED)
        abort();
    snprintf(path, sizeof path, "%s/lunar-bench-XXXXXX", dir);
    if (!device) {
        int fd = mkstemp(path);
        if (fd < 0 || ftruncate(fd, (off_t)(bench.layout.area_start + bench.layout.area_size)) < 0)
            give_up("cannot make a file");
        close(fd);
    }
    report.path = bench.path = device ? device : path;
    prepare(&bench, device != NULL, overwrite);
    run_all(&bench, &report, seconds);
    if (!device)
        unlink(path);
    if (json)
        report_json(&report);
    else
        report_text(&report);
    return 0;
}
