/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator's engine: virtual time, machines, processes, fibers, randomness, faults, trace.
 *
 * One run is one operating-system process with one thread. Everything that happens is an event in
 * one queue, ordered by (time, number); whoever wants randomness draws from a named stream of the
 * seed; nothing looks at the real clock, at addresses or at the environment. So a seed and its
 * options give the same trace, byte for byte.
 *
 * Production code runs in it unchanged. What it calls for the outside is defined a second time
 * here, with the same headers: libuv's loop, timers and close (fake_uv.c), alarms and workers
 * (fake_uv.c), blocking I/O and the loop's disk (lun.c), membership and leadership (sanlock.c),
 * LVM, the stack, local sockets (the world's files). A worker's job runs in a fiber, so that
 * blocking code is interrupted at every I/O, and other things happen meanwhile.
 *
 * Failure modes: a breached invariant ends the run (sim_violation), an assert of the production
 * code too (the runner sees the signal); both name the seed.
 */
#ifndef LUNAR_TESTS_SIM_SIM_H
#define LUNAR_TESTS_SIM_SIM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define SIM_MS        UINT64_C(1000)
#define SIM_S         (1000 * SIM_MS)
#define SIM_NODES_MAX 8u

/* Each kind of fault has a weight of its own per seed (none at all in some seeds), its own stream
 * of randomness and a counter, so that leaving one out changes nothing about the others' draws. */
#define SIM_FAULTS(X)                                                                              \
    X(LATENCY_TAIL, "an I/O takes long")                                                           \
    X(TORN_WRITE, "a write lands in pieces with time between them, cut at 512 bytes")              \
    X(TORN_READ, "a read sees half of a write")                                                    \
    X(EIO, "an I/O fails without effect")                                                          \
    X(LATE_LANDING, "a write fails and lands later all the same")                                  \
    X(DUPLICATE, "a write that ended well lands a second time later")                              \
    X(BIT_ROT, "bits on the LUN flip")                                                             \
    X(GUARD_KILL, "kill -9 of a guard, at any moment or while it fences")                          \
    X(GUARD_TERM, "a guard is told to fence, by a SIGTERM, also while a table is loaded")          \
    X(KILLPATH_LOST, "sanlock's helper does not run the killpath")                                 \
    X(SANLOCK_KILL, "kill -9 of a node's sanlock daemon; nobody starts it again")                  \
    X(PROCESS_KILL, "kill -9 of an agent or a coordinator, restarted later")                       \
    X(NODE_PAUSE, "a node stands still and goes on; its queued I/O may go on meanwhile")           \
    X(CLOCK_STOP, "a node stands still, its clock and its I/O with it, and knows nothing of it")   \
    X(NODE_RESET, "a node's power is cut; its queued I/O may land later; it boots again")          \
    X(PATH_LOSS, "a node loses the LUN: I/O hangs or fails, and comes back")                       \
    X(CLOCK_DRIFT, "a node's clock runs faster or slower, within a bound")                         \
    X(COORDINATOR_CHANGE, "the leader is killed or resigns at an interesting moment")              \
    X(STALE_COORDINATOR, "writes of a deposed leader land after the takeover")                     \
    X(LVM_FAULT, "an LVM command fails, hangs, or is killed half-way")                             \
    X(STACK_FAULT, "a stack operation on a node fails, takes long, or is left half-done")          \
    X(QSD_EXIT, "a volume's QSD dies")                                                             \
    X(HINT_LOST, "a hint is lost or late")                                                         \
    X(HINT_FORGED, "hints that nobody sent")                                                       \
    X(FORGED_PAGE, "a page of another pool, incarnation, term or with a bad CRC lies on the LUN")  \
    X(PROCESS_STOP, "a coordinator is stopped; it goes on later, or never")                        \
    X(OPERATOR, "an operator fences a node by hand, switched off before or not")                   \
    X(RESERVATION, "a reservation command fails, is late, or its outcome is not known")            \
    X(STUCK_WRITE, "one map's writes stick while its node's lease is well, and it fences")         \
    X(TWIN, "a second machine comes under the name of one that is there")

enum sim_fault {
#define X(name, text) FAULT_##name,
    SIM_FAULTS(X)
#undef X
        SIM_FAULT_KINDS
};

struct sim_options {
    uint64_t seed;
    bool trace;            /* print each line; else only its hash and the last lines of a failure */
    uint64_t fault_mask;   /* bit per kind; ~0: as the seed says */
    uint64_t chaos_us;     /* how long faults go on; 0: as the seed says */
    uint32_t nodes;        /* 0: as the seed says, 2..5 */
    uint32_t requests;     /* clients' requests; 0: as the seed says */
    uint32_t reservations; /* 1: the pool has them, 2: it has none; 0: as the seed says */
};

/* --- randomness --- */
enum sim_stream {
    STREAM_CONFIG,
    STREAM_LUN,
    STREAM_SCHEDULE,
    STREAM_CLIENTS,
    STREAM_UUID,
    STREAM_WORLD,
    STREAM_HINTS,
    STREAM_DATA,
    STREAM_RESERVATIONS,
    SIM_STREAMS
};
uint64_t sim_random(enum sim_stream stream, uint64_t below); /* below > 0 */
/* True with probability weight(kind) * per_mille_at_full_weight / 1000, while faults go on; counts
 * a hit. Draws from the kind's own stream. */
bool sim_fault(enum sim_fault kind, uint32_t per_mille_at_full_weight);
uint64_t sim_fault_random(enum sim_fault kind, uint64_t below);
/* For faults that are planned rather than drawn per operation. */
double sim_weight(enum sim_fault kind); /* 0..1; 0 after the faults have ended */
void sim_count_fault(enum sim_fault kind);

/* --- time --- */
uint64_t sim_now_us(void);
struct sim_event;
struct sim_event *sim_at(uint64_t at_us, void (*fn)(void *data), void *data);
void sim_cancel(struct sim_event *event); /* not once it has fired */
/* An event of a machine's own: dropped when the machine goes off, late while it is paused. */
struct machine;
struct sim_event *machine_event(struct machine *m, uint64_t at_us, void (*fn)(void *data),
                                void *data);
/* Runs until `until_us`, or with UINT64_MAX until nothing is left; calls the hook after each event.
 */
void sim_run(uint64_t until_us);
/* Forgets an earlier run of this process, its hooks too. */
void sim_start(const struct sim_options *options);
void sim_end_faults(void); /* from now on no fault is drawn; lost paths heal, paused nodes go on */
bool sim_faults_ended(void);

/* --- machines and processes --- */
enum machine_state { MACHINE_UP, MACHINE_PAUSED, MACHINE_OFF };

struct machine {
    uint32_t index;     /* from 1 */
    char name[16];      /* "node1" */
    char node_name[16]; /* what its agent is called by, and its identity: unique but for a twin's */
    uint32_t identity;
    enum machine_state state;
    uint32_t boot; /* counts power-ons */
    int64_t clock_offset_us;
    int32_t drift_ppm; /* +-200 at most: sanlock and the kernel bear that */
    bool path_lost;    /* lun.c: I/O of this machine waits (or fails, path_errors) */
    bool path_errors;
    bool io_held;     /* while paused: its queued I/O stands still too */
    bool clock_stops; /* while paused: its clock too */
    uint64_t paused_at_us, resumed_us;
};
struct machine *machine_new(void); /* up, booted */
struct machine *machine_at(uint32_t index);
void machine_pause(struct machine *m, bool io_goes_on);
/* As a virtual machine that its hypervisor has stopped: it will not know that it was away. */
void machine_stop_clock(struct machine *m);
void machine_resume(struct machine *m);
/* All processes end at once, without waiting for their I/O, which may land later or never. */
void machine_off(struct machine *m);
void machine_on(struct machine *m);
uint64_t machine_now_us(const struct machine *m); /* its monotonic clock: offset and drift */

enum process_kind { PROCESS_AGENT, PROCESS_COORDINATOR, PROCESS_CLIENT, PROCESS_GUARD };

struct process {
    uint32_t number; /* from 1, never used again */
    enum process_kind kind;
    struct machine *machine;
    char name[32]; /* "agent2#5" */
    bool ending;   /* killed; its I/O in flight is waited for */
    bool gone;
    bool stopped;                     /* SIGSTOP: nothing of it runs; its I/O in flight goes on */
    uint64_t stopped_at_us, stood_us; /* since when; for how long it was, before that */
    uv_loop_t loop;                   /* loop.data is the process */
    uint32_t io_in_flight;
    void *data;    /* the world's */
    void *sanlock; /* sanlock.c's */
    void *uv;      /* fake_uv.c's */
    void *fibers;  /* fiber.c's */
};
struct process *process_start(enum process_kind kind, struct machine *machine);
/* SIGKILL: no code of it runs any more. It is gone when its I/O in flight has ended, as in the
 * kernel: then `sim_hooks.process_gone`. Does not return when it is the current one. */
void process_kill(struct process *p);
/* Until process_continue, or its death. Not the current one. */
void process_stop(struct process *p);
void process_continue(struct process *p);
uint64_t process_stood_us(const struct process *p); /* in all, until now */
struct process *process_current(void);              /* NULL: the world itself */
/* Every process that has not gone, by number; `after` NULL: the first; NULL: no more. */
struct process *process_next(const struct process *after);
/* As sim_at, in the process's context: dropped when it dies, late while its machine is paused. */
struct sim_event *process_at(struct process *p, uint64_t at_us, void (*fn)(void *data), void *data);

/* --- fibers: blocking code of a process --- */
/* Runs fn(data) in a fiber of the process; `done` is called in the process's context afterwards. */
void fiber_start(struct process *p, const char *name, void (*fn)(void *data),
                 void (*done)(void *data), void *data);
bool fiber_inside(void);
void fiber_sleep(uint64_t us);
/* Stops until fiber_wake; the handle is good for one wake. */
struct fiber;
struct fiber *fiber_self(void);
void fiber_stop(void);
void fiber_wake(struct fiber *fiber);

/* --- descriptors and signals, which uv_poll and uv_signal watch (fake_uv.c) --- */
/* The descriptor is readable or hung up: calls the polls of the process that watch it. For pidfds
 * of QSDs and the like; `fd` is any number >= SIM_FD_FIRST that the world chose (sim_fd_new). */
#define SIM_FD_FIRST 2000
int sim_fd_new(void);
void sim_fd_ready(struct process *p, int fd);
void sim_signal(struct process *p, int signum);

/* --- what the world hangs into the engine --- */
struct sim_hooks {
    void (*after_event)(void); /* all invariants */
    void (*process_gone)(struct process *p);
    /* A write: as it was submitted, and each time that bytes of it reach the LUN. */
    void (*lun_submitted)(struct process *p, uint64_t offset, const uint8_t *bytes, uint32_t len);
    void (*lun_landed)(const struct process *p, uint64_t offset, const uint8_t *bytes, uint32_t len,
                       bool late);
    void (*elected)(struct process *p, uint64_t term); /* sanlock gave it the lease */
    void (*lease_lost)(struct process *p, uint64_t term);
    void (*thawed)(struct machine *m, bool clock_stood); /* before anything of it runs */
    void (*killpath)(struct machine *m);   /* sanlock runs it, once per lost lockspace */
    void (*forced_out)(struct process *p); /* its sanlock kills it on a standby's request */
    void (*sanlock_gone)(struct machine *m);
    void (*cleared)(struct machine *m);                 /* sanlock watches over it no more */
    void (*watchdog)(struct machine *m);                /* sanlock's time is up: reset it now */
    void (*joins)(struct machine *m, uint32_t host_id); /* its lease is about to be written */
};
extern struct sim_hooks sim_hooks;

/* --- trace and end --- */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t sim_trace_hash(void);
uint64_t sim_trace_lines(void);
/* Names the invariant, the seed and the options that replay it, prints the trace's last lines,
 * ends the run with exit code 1. */
_Noreturn void sim_violation(const char *invariant, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const struct sim_options *sim_options(void); /* zeros filled in as the seed says */
uint64_t sim_fault_count(enum sim_fault kind);

/* --- lun.c --- */
#define SIM_LUN_FD 1000 /* what io_open gives; io_read and io_write work inside fibers alone */
/* A LUN of `size` bytes, zero. */
void lun_open(uint64_t size);
/* The world's own look and touch: instant, no faults, no trace. */
void lun_peek(uint64_t offset, void *bytes, uint32_t len);
void lun_poke(uint64_t offset, const void *bytes, uint32_t len);
uint64_t lun_size(void);
/* A copy of a write lands at a later time as if it had been under way all along. */
void lun_land_late(uint64_t at_us, uint64_t offset, const void *bytes, uint32_t len,
                   const struct process *of);
uint32_t lun_writes_pending(void); /* late ones and those in flight */
/* Where BIT_ROT may strike: of the regions of one group (> 0) only one is damaged at a time, until
 * it was rewritten whole from its start; a region of group 0 stands alone. `len` is what is in use.
 */
void lun_rot_region(uint32_t group, uint64_t offset, uint32_t len);
/* Late writes damage at most `max` regions of this group at a time, whatever else may; those to
 * other groups are not bounded. */
void lun_bound_late(uint32_t group, uint32_t max);
/* From now on none at all, or as before. */
void lun_hold_late(uint32_t group, bool held);

/* --- reservations.c: the LUN's SCSI-3 persistent reservations (SAFETY 13) --- */
bool lun_has_reservations(void);
/* May a write of that machine, sent then, land now? */
bool lun_lets_write(const struct machine *m, uint64_t sent_us);
/* Any key of that host id is registered, of a generation up to this one. */
bool lun_has_key_of(uint32_t host_id, uint64_t generation);
/* Nothing of the lives up to this one is written any more, whatever they do. */
bool lun_has_silenced(uint32_t host_id, uint64_t generation);
/* It may be preempted though it lives. */
void lun_operator_swears(uint32_t host_id, uint64_t generation);

/* --- sanlock.c: implements fencing/membership.h, and writes true lease records to the LUN --- */
struct superblock;
struct sanlock_timing {
    uint32_t io_timeout_s, watchdog_s;
};
void sanlock_start(const struct superblock *sb); /* once, after lun_open */
void sanlock_kill(struct machine *m);            /* its daemon; until the machine's next boot */
/* The host id that the machine holds in its present boot; 0: none. */
uint32_t sanlock_host_id(const struct machine *m);
uint64_t sanlock_generation(const struct machine *m);
uint64_t sanlock_term(void);          /* lver of the coordinator resource as it stands */
struct process *sanlock_leader(void); /* who holds it; NULL: free */
/*
 * True if the lease of (host id, generation) is superseded, or has not moved for 8N + W of true
 * time when this is asked, or some host has looked at it and found it free or unmoved for so long.
 * Stays true. Stricter than what a sanlock daemon answers: that counts until now, not until its
 * last look, so a node that has just been thawed takes everybody for dead until it looks again.
 */
bool sanlock_proved_dead(uint32_t host_id, uint64_t generation);
/* That life has given its lease back. */
bool sanlock_is_free(uint32_t host_id, uint64_t generation);
/* As that machine's daemon sees it, and the lease on the LUN has not moved since. */
bool sanlock_sees_dead(const struct machine *m, uint32_t host_id);
/* When its lease was last written, and by which life of it; 0: never. */
uint64_t sanlock_written_us(uint32_t host_id, uint64_t *ret_generation);
/* It is, by other means than sanlock's. */
void sanlock_prove_dead(uint32_t host_id, uint64_t generation);
/* For how long that life has renewed without a break, up to now; 0: it does not. */
uint64_t sanlock_renews_us(uint32_t host_id, uint64_t generation);
/* Proved dead, and frozen or just thawed: its watchdog resets it within 0.3 s of its waking, which
 * came too late to be reset before. What it has mapped was taken from it meanwhile; that it may yet
 * write for so long is the limit without reservations (docs/FAILURES.md). */
bool sanlock_doomed(const struct machine *m);

#endif
