/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunar-sim: runs seeds, each in a process of its own, and says what they did.
 *
 * Happy path: a seed's world is made, faults strike for a while, then they end, everything pending
 * completes, the finale empties the pool; the child hands its counters over a pipe. Failure modes:
 * a breached invariant (exit 1, it has named itself), an assert or a crash (a signal), a run that
 * is still not done after its bound (the violation says what is stuck): each is printed with the
 * command that replays it, and the exit status is 1.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim/ghost.h"

/*
 * After the faults: the longest single wait is an lvm that was just begun and hangs until its
 * time-out, 60 s, followed by a takeover; a node that was just reset or fenced is back and joined
 * after 40 s + 15 s off + 26 s until its old lease is dead; an operation that waits for it is told
 * so by its deadline of 120 s; and what was half-made is taken up every 10 s. The sum is an upper
 * bound of any chain of them.
 */
#define SETTLE_US (300 * SIM_S)
/* Two dozen requests, none of which waits for anything but itself. */
#define FINALE_US (240 * SIM_S)
#define JOBS_MAX  16

struct result {
    uint64_t hash, lines, virtual_us;
    uint64_t completed[CLIENT_OPS];
    uint64_t faults[SIM_FAULT_KINDS];
};

struct totals {
    uint64_t seeds, failed, lines, virtual_us;
    uint64_t completed[CLIENT_OPS];
    uint64_t faults[SIM_FAULT_KINDS], seeds_hit[SIM_FAULT_KINDS];
};

struct settings {
    struct sim_options sim;
    uint64_t from, count;
    int jobs;
    bool coverage, determinism, choice;
};

static const char *const fault_names[] = {
#define X(name, text) #name,
    SIM_FAULTS(X)
#undef X
};

/* --- one seed --- */

static void stuck(const char *what, const char *why)
{
    sim_violation("no-livelock", "%s: %s", what, why);
}

/* Until `done` says so, in steps of a tenth of a second. */
static void run_until(bool (*done)(char *why, size_t size), uint64_t limit_us, const char *what)
{
    uint64_t end = sim_now_us() + limit_us;
    char why[512] = "";
    while (!done(why, sizeof why)) {
        if (sim_now_us() >= end)
            stuck(what, why);
        sim_run(sim_now_us() + 100 * SIM_MS);
    }
}

static bool settled(char *why, size_t size)
{
    return clients_done(why, size) && world_is_whole(why, size) &&
           ghost_metadata_is_settled(false, why, size);
}

static bool emptied(char *why, size_t size)
{
    return clients_done(why, size) && ghost_metadata_is_settled(true, why, size) &&
           ghost_nothing_granted(why, size);
}

static void run_seed(const struct sim_options *options, struct result *ret)
{
    sim_start(options);
    const struct sim_options *o = sim_options();
    ghost_start();
    world_start(o->nodes, o->nodes < 3 ? o->nodes : 3);
    clients_start(2 + (uint32_t)sim_random(STREAM_CONFIG, 5), o->requests);
    chaos_start(o->chaos_us);
    sim_run(o->chaos_us);
    sim_end_faults();
    chaos_end();
    ghost_faults_ended();
    clients_stop_requesting();
    run_until(settled, SETTLE_US, "after the faults");
    clients_begin_finale();
    run_until(emptied, FINALE_US, "the finale");
    ret->hash = sim_trace_hash();
    ret->lines = sim_trace_lines();
    ret->virtual_us = sim_now_us();
    for (int i = 0; i < CLIENT_OPS; i++)
        ret->completed[i] = clients_completed((enum client_op)i);
    for (int i = 0; i < SIM_FAULT_KINDS; i++)
        ret->faults[i] = sim_fault_count((enum sim_fault)i);
}

/* What the seed chooses, as options; the kinds of faults as bits. */
static void print_choice(const struct sim_options *options)
{
    uint64_t mask = 0;
    sim_start(options);
    const struct sim_options *o = sim_options();
    for (int i = 0; i < SIM_FAULT_KINDS; i++)
        mask |= (uint64_t)(sim_weight((enum sim_fault)i) > 0) << i;
    printf("--seed %" PRIu64 " --nodes %u --requests %u --chaos-ms %" PRIu64 " --mask 0x%" PRIx64
           "\n",
           o->seed, o->nodes, o->requests, o->chaos_us / SIM_MS, mask);
}

/* --- seeds in children --- */

struct job {
    pid_t pid;
    int fd;
    uint64_t seed;
};

static struct job start_job(const struct settings *s, uint64_t seed)
{
    int fds[2];
    if (pipe(fds) < 0)
        abort();
    fflush(NULL);
    struct job job = {.pid = fork(), .fd = fds[0], .seed = seed};
    if (job.pid < 0)
        abort();
    if (job.pid == 0) {
        struct sim_options options = s->sim;
        struct result result = {0};
        close(fds[0]);
        options.seed = seed;
        run_seed(&options, &result);
        bool sent = write(fds[1], &result, sizeof result) == sizeof result;
        fflush(NULL);
        _exit(sent ? 0 : 2);
    }
    close(fds[1]);
    return job;
}

static void print_replay(const struct settings *s, uint64_t seed)
{
    printf("  replay: tools/sim --seed %" PRIu64, seed);
    if (s->sim.nodes)
        printf(" --nodes %u", s->sim.nodes);
    if (s->sim.requests)
        printf(" --requests %u", s->sim.requests);
    if (s->sim.reservations)
        printf(" --reservations %s", s->sim.reservations == 1 ? "on" : "off");
    if (s->sim.chaos_us)
        printf(" --chaos-ms %" PRIu64, s->sim.chaos_us / SIM_MS);
    if (s->sim.fault_mask != UINT64_MAX)
        printf(" --mask 0x%" PRIx64, s->sim.fault_mask);
    printf(" --trace\n");
}

/* Waits for the job; false if its seed failed. */
static bool end_job(const struct settings *s, struct job *job, struct result *ret)
{
    int status;
    ssize_t n = read(job->fd, ret, sizeof *ret);
    close(job->fd);
    while (waitpid(job->pid, &status, 0) < 0 && errno == EINTR)
        ;
    job->pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && n == (ssize_t)sizeof *ret)
        return true;
    printf("seed %" PRIu64 " FAILED: %s %d\n", job->seed,
           WIFSIGNALED(status) ? "signal" : "exit status",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    print_replay(s, job->seed);
    fflush(stdout);
    return false;
}

static void add_result(struct totals *t, const struct result *r)
{
    t->lines += r->lines;
    t->virtual_us += r->virtual_us;
    for (int i = 0; i < CLIENT_OPS; i++)
        t->completed[i] += r->completed[i];
    for (int i = 0; i < SIM_FAULT_KINDS; i++) {
        t->faults[i] += r->faults[i];
        t->seeds_hit[i] += r->faults[i] > 0;
    }
}

/* Two runs of one seed leave one trace. */
static bool runs_alike(const struct settings *s, uint64_t seed, const struct result *first)
{
    struct result second;
    struct job job = start_job(s, seed);
    if (!end_job(s, &job, &second))
        return false;
    if (first->hash == second.hash && first->lines == second.lines)
        return true;
    printf("seed %" PRIu64 " FAILED: two runs have the traces %016" PRIx64 " and %016" PRIx64 "\n",
           seed, first->hash, second.hash);
    return false;
}

/* Waits until one of the jobs has something to say. */
static int wait_any(struct job *jobs, int n)
{
    struct pollfd fds[JOBS_MAX];
    for (int i = 0; i < n; i++)
        fds[i] = (struct pollfd){.fd = jobs[i].pid ? jobs[i].fd : -1, .events = POLLIN};
    while (poll(fds, (nfds_t)n, -1) < 0 && errno == EINTR)
        ;
    for (int i = 0; i < n; i++)
        if (fds[i].revents)
            return i;
    return 0;
}

static void take_job(const struct settings *s, struct job *job, struct totals *t)
{
    struct result result = {0};
    uint64_t seed = job->seed;
    t->seeds++;
    if (!end_job(s, job, &result) || (s->determinism && !runs_alike(s, seed, &result))) {
        t->failed++;
        return;
    }
    add_result(t, &result);
    if (s->count == 1)
        printf("seed %" PRIu64 " trace %016" PRIx64 "\n", seed, result.hash);
}

static void run_all(const struct settings *s, struct totals *t)
{
    struct job jobs[JOBS_MAX] = {{0}};
    int running = 0;
    for (uint64_t next = s->from; next < s->from + s->count || running > 0;) {
        int i = 0;
        while (i < s->jobs && jobs[i].pid)
            i++;
        if (i < s->jobs && next < s->from + s->count) {
            jobs[i] = start_job(s, next++);
            running++;
            continue;
        }
        take_job(s, &jobs[wait_any(jobs, s->jobs)], t);
        running--;
    }
}

/* --- the summary --- */

/* What a run of many seeds must at least have done, per seed, to prove anything. */
static const double least_per_seed[CLIENT_OPS] = {1.0, 1.0, 0.2, 1.0,  0.5, 0.3, 0.5,
                                                  0.3, 0.2, 0.2, 0.05, 0.5, 0.2};

static bool is_vacuous(const struct settings *s, const struct totals *t)
{
    bool vacuous = false;
    for (int i = 0; i < SIM_FAULT_KINDS; i++)
        if (t->seeds_hit[i] == 0 && s->sim.fault_mask >> i & 1) {
            printf("NOT COVERED: no seed was hit by %s\n", fault_names[i]);
            vacuous = true;
        }
    for (int i = 0; i < CLIENT_OPS; i++)
        if ((double)t->completed[i] < least_per_seed[i] * (double)t->seeds) {
            printf("NOT COVERED: %" PRIu64 " of %s, less than %.1f per seed\n", t->completed[i],
                   client_op_name((enum client_op)i), least_per_seed[i]);
            vacuous = true;
        }
    return vacuous;
}

static void print_totals(const struct totals *t, double wall_s)
{
    printf("%" PRIu64 " seeds, %" PRIu64 " failed; %.0f s of virtual time in %.1f s; %" PRIu64
           " trace lines\n",
           t->seeds, t->failed, (double)t->virtual_us / 1e6, wall_s, t->lines);
    printf("completed:");
    for (int i = 0; i < CLIENT_OPS; i++)
        printf(" %s %" PRIu64, client_op_name((enum client_op)i), t->completed[i]);
    printf("\nfaults (hits/seeds):");
    for (int i = 0; i < SIM_FAULT_KINDS; i++)
        printf("%s %s %" PRIu64 "/%" PRIu64, i % 4 ? "" : "\n ", fault_names[i], t->faults[i],
               t->seeds_hit[i]);
    printf("\n");
}

/* --- options --- */

static const char usage[] =
    "usage: lunar-sim [options]\n"
    "\n"
    "Runs the daemons' own code in a world of virtual time, LUN, sanlock, LVM and nodes, under\n"
    "faults, and checks invariants after every event. A seed decides everything.\n"
    "\n"
    "      --seeds N        run N seeds (default 100)\n"
    "      --from S         the first of them (default 1)\n"
    "      --seed S         run this one alone\n"
    "  -j, --jobs N         at a time (default 2)\n"
    "      --trace          print the trace (with --seed)\n"
    "      --mask KINDS     these faults alone: names with commas, 'none', or a number of bits;\n"
    "                       with a leading '-': all but these\n"
    "      --nodes N        nodes (default: the seed's choice, 2 to 5)\n"
    "      --requests N     clients' requests (default: the seed's choice)\n"
    "      --chaos-ms N     how long faults strike (default: the seed's choice)\n"
    "      --reservations on|off  whether the pool has them (default: the seed's choice)\n"
    "      --print-choice   print what the seed chooses, as options, and run nothing\n"
    "      --check-determinism K  run K seeds twice and compare their traces\n"
    "      --assert-coverage      fail if a kind of fault or of operation was not exercised\n"
    "  -h, --help           print this\n"
    "\n"
    "Exit status: 0 all went well, 1 a seed failed or coverage was missed, 2 usage.\n"
    "Faults:\n";

static void print_usage(FILE *to)
{
    static const char *const texts[] = {
#define X(name, text) text,
        SIM_FAULTS(X)
#undef X
    };
    fputs(usage, to);
    for (int i = 0; i < SIM_FAULT_KINDS; i++)
        fprintf(to, "  %-18s %s\n", fault_names[i], texts[i]);
}

static uint64_t kind_bit(const char *name, size_t len)
{
    for (int i = 0; i < SIM_FAULT_KINDS; i++)
        if (strlen(fault_names[i]) == len && strncasecmp(fault_names[i], name, len) == 0)
            return 1ull << i;
    fprintf(stderr, "lunar-sim: no fault is called '%.*s' (see --help)\n", (int)len, name);
    exit(2);
}

static uint64_t parse_mask(const char *text)
{
    bool without = *text == '-';
    uint64_t mask = 0;
    text += without;
    if (strcmp(text, "none") == 0)
        return without ? UINT64_MAX : 0;
    if (*text >= '0' && *text <= '9')
        return strtoull(text, NULL, 0);
    while (*text) {
        size_t len = strcspn(text, ",");
        mask |= kind_bit(text, len);
        text += len + (text[len] == ',');
    }
    return without ? ~mask : mask;
}

enum {
    OPT_SEEDS = 256,
    OPT_FROM,
    OPT_SEED,
    OPT_TRACE,
    OPT_MASK,
    OPT_NODES,
    OPT_REQUESTS,
    OPT_CHAOS,
    OPT_RESERVATIONS,
    OPT_CHOICE,
    OPT_DETERMINISM,
    OPT_COVERAGE
};

static const struct option options[] = {
    {"seeds", required_argument, NULL, OPT_SEEDS},
    {"from", required_argument, NULL, OPT_FROM},
    {"seed", required_argument, NULL, OPT_SEED},
    {"jobs", required_argument, NULL, 'j'},
    {"trace", no_argument, NULL, OPT_TRACE},
    {"mask", required_argument, NULL, OPT_MASK},
    {"nodes", required_argument, NULL, OPT_NODES},
    {"requests", required_argument, NULL, OPT_REQUESTS},
    {"chaos-ms", required_argument, NULL, OPT_CHAOS},
    {"reservations", required_argument, NULL, OPT_RESERVATIONS},
    {"print-choice", no_argument, NULL, OPT_CHOICE},
    {"check-determinism", required_argument, NULL, OPT_DETERMINISM},
    {"assert-coverage", no_argument, NULL, OPT_COVERAGE},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void parse_option(struct settings *s, int c)
{
    uint64_t number = optarg ? strtoull(optarg, NULL, 0) : 0;
    switch (c) {
    case OPT_SEEDS:
        s->count = number;
        break;
    case OPT_FROM:
        s->from = number;
        break;
    case OPT_SEED:
        s->from = number;
        s->count = 1;
        break;
    case 'j':
        s->jobs = number < 1 ? 1 : number > JOBS_MAX ? JOBS_MAX : (int)number;
        break;
    case OPT_TRACE:
        s->sim.trace = true;
        break;
    case OPT_MASK:
        s->sim.fault_mask = parse_mask(optarg);
        break;
    case OPT_NODES:
        s->sim.nodes = (uint32_t)number;
        break;
    case OPT_REQUESTS:
        s->sim.requests = (uint32_t)number;
        break;
    case OPT_CHAOS:
        s->sim.chaos_us = number * SIM_MS;
        break;
    case OPT_RESERVATIONS:
        s->sim.reservations = strcmp(optarg, "on") == 0 ? 1 : 2;
        break;
    case OPT_CHOICE:
        s->choice = true;
        break;
    case OPT_DETERMINISM:
        s->determinism = true;
        s->count = number;
        break;
    case OPT_COVERAGE:
        s->coverage = true;
        break;
    case 'h':
        print_usage(stdout);
        exit(0);
    default:
        fprintf(stderr, "lunar-sim: see --help\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct settings s = {.sim = {.fault_mask = UINT64_MAX}, .from = 1, .count = 100, .jobs = 2};
    struct totals totals = {0};
    struct timespec begin, end;
    int c;

    unsetenv("LUNAR_MERGE");
    setenv("LUNAR_TRIM", "2", 1); /* seconds: nobody rests for long here */
    while ((c = getopt_long(argc, argv, "j:h", options, NULL)) != -1)
        parse_option(&s, c);
    if (optind != argc || (s.sim.trace && s.count != 1) || s.sim.nodes > SIM_NODES_MAX) {
        fprintf(stderr, "lunar-sim: --trace goes with --seed, and there are at most %u nodes\n",
                SIM_NODES_MAX);
        return 2;
    }
    if (s.choice) {
        s.sim.seed = s.from;
        print_choice(&s.sim);
        return 0;
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    run_all(&s, &totals);
    clock_gettime(CLOCK_MONOTONIC, &end);
    print_totals(&totals,
                 (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    bool vacuous = s.coverage && is_vacuous(&s, &totals);
    return totals.failed > 0 || vacuous;
}
