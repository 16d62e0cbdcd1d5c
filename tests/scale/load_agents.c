/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Thousands of agents in one process: as many production mailboxes on one device, one loop and one
 * disk, against a real coordinator.
 *
 * It is driven by lines on standard input; each is answered, when it is done, by one line of JSON
 * on standard output:
 *
 *   attach        every mailbox opens and has one Ping answered
 *   idle SECONDS  nothing is asked for; tells what the agents read and wrote meanwhile
 *   burst ROUNDS  all send one Ping at once; the next round begins when all are answered
 *   quit
 *
 * A request is kept as an agent keeps one (src/agent/node_relay.c): until it is answered, sent
 * again to every new coordinator. Counted is what must not be: *lost* (no answer in PATIENCE_MS),
 * *doubled* (a second answer to a request), *wrong* (an answer to nothing that was asked, to
 * another node, with other bytes, with an error, or of another term than the coordinator's).
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "diskrpc/mailbox.h"
#include "diskrpc/message.h"
#include "diskrpc/uv_disk.h"
#include "load.h"

#define PATIENCE_MS   90000 /* of one attach or round; far beyond what is tolerated */
#define ISSUED_MAX    64u   /* requests of one agent whose ids are remembered */
#define PAYLOAD_BYTES 100u
#define DISK_THREADS  8

struct agent {
    struct load *load;
    uint32_t host_id;
    struct incarnation self;
    struct mailbox *mailbox;
    uint8_t *bytes; /* the open request, packed; NULL: none is open */
    uint32_t len;
    bool sent; /* to the coordinator of now */
    uint64_t begun_ns, wait_ns;
    struct uuid issued[ISSUED_MAX]; /* a ring; the open request is issued[(n_issued - 1) % MAX] */
    uint32_t n_issued;
    uint64_t reads_before, writes_before; /* the idle window's start */
};

enum command { COMMAND_NONE, COMMAND_ATTACH, COMMAND_IDLE, COMMAND_BURST };

struct load {
    uv_loop_t loop;
    const char *device;
    struct superblock sb;
    struct load_hosts *hosts;
    struct uv_disk *disk;
    struct agent *agents;
    uint32_t n, n_open, n_mailboxes;
    uint32_t n_grants; /* of every host, written at the start; 0: no table is written */
    enum command command;
    uint32_t rounds_left;
    uint64_t begun_ns;
    uint64_t lost, doubled, wrong, answered; /* since the start */
    uv_timer_t timer;                        /* patience, or the idle window */
    uv_timer_t renew;
    uv_pipe_t input;
    char line[64], read_buffer[64];
    size_t line_len;
};

static double seconds_since(uint64_t ns)
{
    return (double)(uv_hrtime() - ns) / 1e9;
}

/* --- one request of one agent --- */

static void fill_payload(const struct agent *a, uint8_t payload[PAYLOAD_BYTES])
{
    for (uint32_t i = 0; i < PAYLOAD_BYTES; i++)
        payload[i] = (uint8_t)(a->host_id * 7 + a->n_issued * 31 + i);
    memcpy(payload, &a->host_id, sizeof a->host_id);
    memcpy(payload + sizeof a->host_id, &a->n_issued, sizeof a->n_issued);
}

static void try_send(struct agent *a)
{
    if (a->bytes && !a->sent)
        a->sent = mailbox_send(a->mailbox, a->bytes, a->len) == 0;
}

static void begin_request(struct agent *a)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Request request = LUNAR__REQUEST__INIT;
    Lunar__Ping ping = LUNAR__PING__INIT;
    uint8_t payload[PAYLOAD_BYTES];

    struct uuid *id = &a->issued[a->n_issued++ % ISSUED_MAX];
    *id = uuid_random();
    fill_payload(a, payload);
    ping.payload = (ProtobufCBinaryData){.data = payload, .len = sizeof payload};
    request.id = uuid_to_pb(id);
    request.op_case = LUNAR__REQUEST__OP_PING;
    request.ping = &ping;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &request;
    if (envelope_pack(&e, &a->bytes, &a->len, NULL) < 0)
        abort();
    a->sent = false;
    a->begun_ns = uv_hrtime();
    a->load->n_open++;
    mailbox_set_waiting(a->mailbox, true);
    try_send(a);
}

static void end_request(struct agent *a)
{
    free(a->bytes);
    a->bytes = NULL;
    a->wait_ns = uv_hrtime() - a->begun_ns;
    a->load->n_open--;
    mailbox_set_waiting(a->mailbox, false);
}

static bool issued_before(const struct agent *a, const struct uuid *id)
{
    uint32_t n = a->n_issued < ISSUED_MAX ? a->n_issued : ISSUED_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (uuid_equal(&a->issued[i], id))
            return true;
    return false;
}

static bool is_right(const struct agent *a, const Lunar__Response *r)
{
    uint8_t payload[PAYLOAD_BYTES];

    fill_payload(a, payload);
    return (!r->error || r->error->code == 0) && r->op_case == LUNAR__RESPONSE__OP_PING &&
           r->term == mailbox_stats(a->mailbox)->peer.run_or_term &&
           r->ping->payload.len == sizeof payload &&
           memcmp(r->ping->payload.data, payload, sizeof payload) == 0;
}

static void round_step(struct load *load);

static void on_response(struct agent *a, const Lunar__Response *r)
{
    struct load *load = a->load;
    struct uuid id = uuid_from_pb(r->id);
    bool is_open = a->bytes && uuid_equal(&id, &a->issued[(a->n_issued - 1) % ISSUED_MAX]);

    if (!is_open) {
        load->doubled += issued_before(a, &id);
        load->wrong += !issued_before(a, &id);
        return;
    }
    load->wrong += !is_right(a, r);
    load->answered++;
    end_request(a);
    if (load->n_open == 0)
        round_step(load);
}

/* The grants that stood in the tables at the start are of volumes that nobody knows: the leader has
 * each node confirm that nothing of them is open, and erases them. Not sent: it asks again. */
static void on_detach(struct agent *a, const Lunar__Command *command)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Error success = LUNAR__ERROR__INIT;
    uint8_t *bytes;
    uint32_t len;

    result.id = command->id;
    result.error = &success;
    e.body_case = LUNAR__ENVELOPE__BODY_RESULT;
    e.result = &result;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        abort();
    mailbox_send(a->mailbox, bytes, len);
    free(bytes);
}

static void on_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct agent *a = data;
    Lunar__Envelope *e;

    if (envelope_unpack(bytes, len, &e, NULL) < 0) {
        a->load->wrong++;
        return;
    }
    if (e->body_case == LUNAR__ENVELOPE__BODY_RESPONSE)
        on_response(a, e->response);
    else if (e->body_case == LUNAR__ENVELOPE__BODY_COMMAND &&
             e->command->op_case == LUNAR__COMMAND__OP_DETACH)
        on_detach(a, e->command);
    else
        a->load->wrong++;
    envelope_free(e);
}

static void on_peer_changed(void *data, const struct incarnation *peer)
{
    struct agent *a = data;
    (void)peer;
    a->sent = false;
    try_send(a);
}

static void open_mailbox(struct agent *a)
{
    char name[32];
    snprintf(name, sizeof name, "scale-%u", a->host_id);
    const struct mailbox_config config = {
        .loop = &a->load->loop,
        .disk = uv_disk_disk(a->load->disk),
        .layout = &a->load->sb.layout,
        .pool_id = a->load->sb.pool_id,
        .self = a->self,
        .node_name = name,
        .callbacks = {.message = on_message, .peer_changed = on_peer_changed},
        .data = a,
    };
    a->mailbox = mailbox_open(&config);
}

/* --- what is told --- */

static int compare_waits(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void tell_waits(struct load *load)
{
    uint64_t *waits = calloc(load->n, sizeof *waits);
    if (!waits)
        abort();
    for (uint32_t i = 0; i < load->n; i++)
        waits[i] = load->agents[i].wait_ns;
    qsort(waits, load->n, sizeof *waits, compare_waits);
    printf("\"min_ms\": %.3f, \"median_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f",
           (double)waits[0] / 1e6, (double)waits[load->n / 2] / 1e6,
           (double)waits[(uint64_t)load->n * 99 / 100] / 1e6, (double)waits[load->n - 1] / 1e6);
    free(waits);
}

static void tell_counts(struct load *load)
{
    uint64_t bad_pages = 0, resends = 0, pages_read = 0, pages_written = 0;

    for (uint32_t i = 0; i < load->n; i++) {
        const struct channel_stats *s = mailbox_stats(load->agents[i].mailbox);
        bad_pages += s->bad_pages;
        resends += s->resends;
        pages_read += s->pages_read;
        pages_written += s->pages_written;
    }
    printf("\"nodes\": %u, \"answered\": %llu, \"lost\": %llu, \"doubled\": %llu, \"wrong\": %llu, "
           "\"bad_pages\": %llu, \"resends\": %llu, \"pages_read\": %llu, \"pages_written\": %llu",
           load->n, (unsigned long long)load->answered, (unsigned long long)load->lost,
           (unsigned long long)load->doubled, (unsigned long long)load->wrong,
           (unsigned long long)bad_pages, (unsigned long long)resends,
           (unsigned long long)pages_read, (unsigned long long)pages_written);
}

/* --- rounds --- */

static void finish_command(struct load *load)
{
    load->command = COMMAND_NONE;
    uv_timer_stop(&load->timer);
    printf("}\n");
    fflush(stdout);
}

static void on_patience(uv_timer_t *timer)
{
    struct load *load = timer->data;

    for (uint32_t i = 0; i < load->n; i++) {
        if (!load->agents[i].bytes)
            continue;
        load->lost++;
        end_request(&load->agents[i]);
    }
    load->rounds_left = 0;
    round_step(load);
}

static void begin_round(struct load *load)
{
    load->begun_ns = uv_hrtime();
    uv_timer_start(&load->timer, on_patience, PATIENCE_MS, 0);
    for (uint32_t i = 0; i < load->n; i++)
        begin_request(&load->agents[i]);
}

/* All of a round are answered, or given up. */
static void round_step(struct load *load)
{
    if (load->command == COMMAND_BURST) {
        printf("{\"s\": %.3f, ", seconds_since(load->begun_ns));
        tell_waits(load);
        printf("}%s", load->rounds_left ? ", " : "], ");
        if (load->rounds_left > 0) {
            load->rounds_left--;
            begin_round(load);
            return;
        }
    } else {
        printf("\"s\": %.3f, ", seconds_since(load->begun_ns));
        tell_waits(load);
        printf(", ");
    }
    tell_counts(load);
    finish_command(load);
}

static void command_attach(struct load *load)
{
    load->command = COMMAND_ATTACH;
    printf("{\"command\": \"attach\", ");
    for (uint32_t i = 0; i < load->n; i++)
        open_mailbox(&load->agents[i]);
    load->n_mailboxes = load->n;
    begin_round(load);
}

static void command_burst(struct load *load, uint32_t rounds)
{
    load->command = COMMAND_BURST;
    printf("{\"command\": \"burst\", \"rounds\": [");
    load->rounds_left = rounds - 1;
    begin_round(load);
}

static void on_idle_over(uv_timer_t *timer)
{
    struct load *load = timer->data;
    double s = seconds_since(load->begun_ns);
    uint64_t reads = 0, writes = 0, reads_max = 0;

    for (uint32_t i = 0; i < load->n; i++) {
        const struct agent *a = &load->agents[i];
        uint64_t r = mailbox_stats(a->mailbox)->pages_read - a->reads_before;
        reads += r;
        writes += mailbox_stats(a->mailbox)->pages_written - a->writes_before;
        reads_max = r > reads_max ? r : reads_max;
    }
    printf("\"s\": %.3f, \"agent_reads_per_s\": %.3f, \"agent_reads_per_s_max\": %.3f, "
           "\"agent_writes_per_s\": %.3f, ",
           s, (double)reads / s / load->n, (double)reads_max / s, (double)writes / s / load->n);
    tell_counts(load);
    finish_command(load);
}

static void command_idle(struct load *load, uint32_t seconds)
{
    load->command = COMMAND_IDLE;
    load->begun_ns = uv_hrtime();
    printf("{\"command\": \"idle\", ");
    for (uint32_t i = 0; i < load->n; i++) {
        struct agent *a = &load->agents[i];
        a->reads_before = mailbox_stats(a->mailbox)->pages_read;
        a->writes_before = mailbox_stats(a->mailbox)->pages_written;
    }
    uv_timer_start(&load->timer, on_idle_over, (uint64_t)seconds * 1000, 0);
}

/* --- the end --- */

static void on_mailbox_closed(void *data)
{
    struct load *load = data;
    if (--load->n_mailboxes == 0)
        uv_disk_close(load->disk, NULL, NULL);
}

static void command_quit(struct load *load)
{
    uv_close((uv_handle_t *)&load->timer, NULL);
    uv_close((uv_handle_t *)&load->renew, NULL);
    uv_close((uv_handle_t *)&load->input, NULL);
    if (load->n_mailboxes == 0)
        uv_disk_close(load->disk, NULL, NULL);
    for (uint32_t i = 0; i < load->n && load->agents[i].mailbox; i++)
        mailbox_close(load->agents[i].mailbox, on_mailbox_closed, load);
}

/* --- commands --- */

static void on_command(struct load *load, const char *line)
{
    uint32_t n = 0;

    if (strcmp(line, "quit") == 0)
        command_quit(load);
    else if (strcmp(line, "attach") == 0 && load->n_mailboxes == 0)
        command_attach(load);
    else if (sscanf(line, "idle %u", &n) == 1 && n > 0 && load->n_mailboxes > 0)
        command_idle(load, n);
    else if (sscanf(line, "burst %u", &n) == 1 && n > 0 && load->n_mailboxes > 0)
        command_burst(load, n);
    else {
        fprintf(stderr, "load_agents: not a command now: %s\n", line);
        exit(2);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct load *load = handle->data;
    (void)suggested;
    *ret = uv_buf_init(load->read_buffer, sizeof load->read_buffer);
}

/* One command at a time: whoever drives us waits for each answer. */
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct load *load = stream->data;

    if (n < 0)
        _exit(1); /* whoever drives us is gone */
    for (ssize_t i = 0; i < n; i++) {
        char c = buffer->base[i];
        if (c != '\n' && load->line_len < sizeof load->line - 1) {
            load->line[load->line_len++] = c;
            continue;
        }
        load->line[load->line_len] = '\0';
        load->line_len = 0;
        on_command(load, load->line);
    }
}

static void on_renew(uv_timer_t *timer)
{
    struct load *load = timer->data;
    struct error err = ERROR_INIT;
    if (load_hosts_renew(load->hosts, &err) < 0)
        fprintf(stderr, "load_agents: %s\n", err.text);
}

static void choose_hosts(struct load *load)
{
    uint32_t own = load_hosts_own_id(load->hosts), host_id = 1;

    load->agents = calloc(load->n, sizeof *load->agents);
    if (!load->agents)
        abort();
    for (uint32_t i = 0; i < load->n; i++) {
        struct agent *a = &load->agents[i];
        a->load = load;
        a->host_id = i == 0 ? own : host_id == own ? ++host_id : host_id;
        host_id += i > 0;
        a->self = (struct incarnation){.host_id = a->host_id,
                                       .generation = i == 0 ? load_hosts_own_generation(load->hosts)
                                                            : LOAD_GENERATION,
                                       .run_or_term = 1};
    }
}

static int open_pool(struct load *load, struct error *err)
{
    int fd = io_open(load->device, 0, err);
    if (fd < 0)
        return fd;
    int rc = superblock_read(fd, &load->sb, err);
    close(fd);
    if (rc == 0 && !(load->sb.flags & SUPERBLOCK_FLAG_TEST))
        rc = error_set(err, LUNAR_E_INVALID, "not a test pool: nothing is written to it");
    if (rc == 0 && load->n > load->sb.layout.max_nodes)
        rc = error_set(err, LUNAR_E_INVALID, "the pool has room for %u nodes",
                       load->sb.layout.max_nodes);
    char node_name[256] = "";
    gethostname(node_name, sizeof node_name - 1);
    if (rc == 0)
        rc = load_hosts_open(load->device, &load->sb, node_name, &load->hosts, err);
    if (rc == 0 && load->n_grants > 0)
        rc = load_hosts_grant(load->hosts, &load->sb.pool_id, load->n_grants, err);
    return rc < 0 ? rc : uv_disk_open(&load->loop, load->device, DISK_THREADS, &load->disk, err);
}

static void parse(int argc, char **argv, struct load *load)
{
    static const char usage[] =
        "usage: load_agents --device DEVICE --nodes N [--grants N] <COMMANDS\n";
    static const struct option options[] = {{"device", required_argument, NULL, 'd'},
                                            {"nodes", required_argument, NULL, 'n'},
                                            {"grants", required_argument, NULL, 'g'},
                                            {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "d:n:g:", options, NULL)) != -1) {
        if (c == 'd')
            load->device = optarg;
        else if (c == 'n')
            load->n = (uint32_t)strtoul(optarg, NULL, 10);
        else if (c == 'g')
            load->n_grants = (uint32_t)strtoul(optarg, NULL, 10);
        else
            exit(2);
    }
    if (!load->device || load->n == 0 || optind != argc) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct load load;
    struct error err = ERROR_INIT;

    parse(argc, argv, &load);
    uv_loop_init(&load.loop);
    if (open_pool(&load, &err) < 0) {
        fprintf(stderr, "load_agents: %s (%s)\n", err.text, error_name(err.code));
        return 1;
    }
    choose_hosts(&load);
    uv_timer_init(&load.loop, &load.timer);
    uv_timer_init(&load.loop, &load.renew);
    uv_pipe_init(&load.loop, &load.input, 0);
    load.timer.data = load.renew.data = load.input.data = &load;
    uint64_t renew_ms = 2000ull * load.sb.io_timeout_s;
    uv_timer_start(&load.renew, on_renew, renew_ms, renew_ms);
    uv_pipe_open(&load.input, STDIN_FILENO);
    uv_read_start((uv_stream_t *)&load.input, on_alloc, on_read);
    printf("{\"command\": \"join\", \"own_host_id\": %u, \"nodes\": %u, \"max_nodes\": %u}\n",
           load_hosts_own_id(load.hosts), load.n, load.sb.layout.max_nodes);
    fflush(stdout);
    uv_run(&load.loop, UV_RUN_DEFAULT);
    uv_loop_close(&load.loop);
    load_hosts_close(load.hosts);
    for (uint32_t i = 0; i < load.n; i++)
        free(load.agents[i].bytes);
    free(load.agents);
    return 0;
}
