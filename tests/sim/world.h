/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world around the daemons, shared by its files: daemons.c (what a supervisor does),
 * lvm_model.c (LVM on the virtual LUN), stack_model.c (what a node maps), local_model.c (local
 * sockets), clients.c (the workload), chaos.c (faults that are planned), ghost*.c (the invariants),
 * outside.c (the rest of what production code calls).
 */
#ifndef LUNAR_TESTS_SIM_WORLD_H
#define LUNAR_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/agent_internal.h"
#include "coordinator/coordinator_internal.h"
#include "sim/sim.h"

#define WORLD_MAX_NODES      8u /* host ids of the pool */
#define WORLD_METADATA_GROUP 2u /* of lun_rot_region: LVM's areas and the copy's slots */
#define WORLD_LUN_SIZE       (6ull << 30)

extern struct superblock world_sb;

/* --- daemons.c --- */
/* Formats the LUN, makes the machines and starts what runs on them. */
void world_start(uint32_t n_machines, uint32_t n_candidates);
uint32_t world_machines(void);
/* The agent or coordinator that a process is; NULL: not that kind, or not begun. */
struct agent *process_agent(const struct process *p);
struct coordinator *process_coordinator(const struct process *p);
/* The newest process of a kind on a machine, or NULL; it may be ending. */
struct process *machine_process(const struct machine *m, enum process_kind kind);
/* Cuts the power; boots again after `off_us`. */
void world_power_cycle(struct machine *m, uint64_t off_us, const char *why);
/* The same, with all that it had in flight, until it boots as after a reset. */
void world_vanish(struct machine *m, const char *why);
/* With the one that comes under another one's name; it runs an agent alone. */
uint32_t world_all_machines(void);
void world_start_agent(struct machine *m);
/* All agents have joined and one coordinator leads; else a sentence about who does not. */
bool world_is_whole(char *why, size_t size);

/* --- lvm_model.c --- */
void lvm_model_format(void);
/* The newest sound text on the LUN, by the world's own eyes; NULL: none. malloc'ed. */
char *lvm_model_peek(void);
void lvm_model_rot_regions(uint32_t group);
bool lvm_model_owns(uint64_t offset); /* one of the metadata areas or the label */

/* --- stack_model.c --- */
void stack_model_machine_off(const struct machine *m);
/* A QSD of the machine dies, if one runs there. */
bool stack_model_qsd_exit(struct machine *m);
/* Calls back for what is mapped writable, on any machine. */
struct mapped_view {
    const struct machine *machine;
    const struct stack_spec *spec;
    uint32_t host; /* and generation: as they were when it was mapped */
    uint64_t generation;
    bool job, open; /* open: complete */
    bool merges;   /* a job that writes its second layer, which others may read through the first */
    bool measures; /* a job that only reads */
    bool writes;   /* it can still reach the LUN: no error table, or not drained */
};
void stack_model_each(void (*each)(void *data, const struct mapped_view *v), void *data);

/* The guard's work: every map of the machine gets an error table; true once nothing of them is in
 * flight. */
void stack_model_wipe(const struct machine *m);
bool stack_model_is_drained(const struct machine *m);
bool stack_model_is_empty(const struct machine *m);
/* One map's writes end no sooner; false if nobody writes. */
bool stack_model_stick(const struct machine *m, uint64_t until_us);
bool stack_model_is_stuck(const struct machine *m);

/* --- guard_model.c: lunar-guard --- */
void guard_model_killpath(struct machine *m);
void guard_model_term(struct machine *m); /* SIGTERM */
void guard_model_sanlock_gone(struct machine *m);
void guard_model_process_gone(struct process *p);
void guard_model_cleared(struct machine *m); /* sanlock watches over it no more */
void guard_model_mapping(const struct machine *m, uint32_t host, uint64_t generation);
void guard_model_reset(const struct machine *m); /* by its watchdog, now */
void guard_model_machine_off(const struct machine *m);
struct process *guard_model_process(const struct machine *m); /* NULL: none lives */
/* How often guards of that machine have begun to fence. */
uint32_t guard_model_fences(const struct machine *m);

/* --- consumer.c: what writes through a map --- */
struct consumer;
struct consumer *consumer_open(struct machine *m, const struct stack_spec *spec); /* not on yet */
struct consumer *consumer_open_reader(struct machine *m); /* it writes nothing, ever */
/* What it writes is frozen by right: a merge. */
void consumer_merges(struct consumer *c);
void consumer_run(struct consumer *c, bool on);
void consumer_write(struct consumer *c); /* once */
/* It writes that leaf from now on; what it wrote before is drained. */
void consumer_move(struct consumer *c, const struct stack_spec *spec);
void consumer_error(struct consumer *c);                    /* its L map is an error table now */
void consumer_stick(struct consumer *c, uint64_t until_us); /* its writes end no sooner */
bool consumer_is_stuck(const struct consumer *c);
bool consumer_is_drained(const struct consumer *c);
void consumer_close(struct consumer *c);     /* it is drained */
void consumer_power_cut(struct consumer *c); /* frees it too */

/* --- local_model.c --- */
struct local_conn; /* of a client that is no process */
struct local_conn_callbacks {
    void (*message)(void *data, const uint8_t *bytes, uint32_t len);
    void (*gone)(void *data); /* once, unless closed from here */
};
/* NULL: nobody listens there. */
struct local_conn *local_model_connect(struct machine *m, const char *path,
                                       const struct local_conn_callbacks *callbacks, void *data);
void local_model_send(struct local_conn *c, const uint8_t *bytes, uint32_t len);
void local_model_close(struct local_conn *c);
void local_model_process_ended(struct process *p);
#define WORLD_AGENT_SOCKET       "/run/agent-sim.sock"
#define WORLD_COORDINATOR_SOCKET "/run/coordinator-sim.sock"

/* --- clients.c --- */
void clients_start(uint32_t n_clients, uint32_t n_requests);
bool clients_done(char *why, size_t size);
/* After the faults: a last round through every kind of operation, which must succeed. */
void clients_begin_finale(void);
void clients_stop_requesting(void); /* what is under way goes on */
enum client_op {
    CLIENT_PING,
    CLIENT_GET,
    CLIENT_LIST,
    CLIENT_CREATE,
    CLIENT_ATTACH,
    CLIENT_DETACH,
    CLIENT_DELETE,
    CLIENT_SNAPSHOT,
    CLIENT_UNSNAP,
    CLIENT_CLONE,
    CLIENT_ROLLBACK,
    CLIENT_SNAPSHOTS, /* lists the one of that name */
    CLIENT_TRIM,
    CLIENT_OPS
};
const char *client_op_name(enum client_op op);
uint64_t clients_completed(enum client_op op); /* answered with success */

/* --- stale.c: a dead leader's whole commit lands under its successors --- */
/* True: this commit is not to be written; it is kept (each of its writes, in order), and at the end
 * the process dies: stale_end does not return. */
bool stale_strikes(const struct process *p);
void stale_keep(uint64_t offset, const void *bytes, uint32_t len);
_Noreturn void stale_end(struct process *p);
void stale_elected(uint64_t term);
void stale_committed(const struct process *p); /* its lvm has just written a commit */
void stale_leader_gone(const struct process *p);
void stale_repaired(void); /* the metadata is whole again */

/* --- twin.c --- */
void twin_comes(void);
void twin_joins(struct machine *m, uint32_t host); /* whoever joins */
void twin_end(void);
bool twin_shares_name(const struct machine *m);

/* --- operator.c --- */
void operator_fences(void);

/* --- chaos.c --- */
/* The machine is well, and it is not the last one that is. */
bool chaos_may_strike(const struct machine *m);
void chaos_start(uint64_t chaos_us);
/* Together with sim_end_faults: stopped coordinators go on, all but the one that leads. */
void chaos_end(void);
void chaos_saw_grants(uint32_t host, const uint8_t *bytes, uint32_t len);
void chaos_node_opens(void);
void chaos_node_opened(struct machine *m);
void chaos_node_maps(struct machine *m); /* a table is about to be loaded, under a permit */
void chaos_guard_fences(struct process *guard);
/* A spill slot is about to be written, `bytes` lay there before. */
void chaos_spill_again(const struct process *p, bool up, uint32_t host, const uint8_t *bytes,
                       uint32_t len);
void chaos_leader_gone(const struct process *p);
/* A page as it was written, to be brought back when it is old. */
void chaos_saw_page(bool up, uint32_t host, const struct incarnation *writer, const uint8_t *bytes);

#endif
