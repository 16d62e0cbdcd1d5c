/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The invariants: state that the code under test cannot see, fed by hooks and by the models. Each
 * breach ends the run with the invariant's name (docs/ARCHITECTURE.md lists them).
 */
#ifndef LUNAR_TESTS_SIM_GHOST_H
#define LUNAR_TESTS_SIM_GHOST_H

#include "sim/world.h"

void ghost_start(void);
void ghost_faults_ended(void); /* from now on who beats is left alone */

/* --- who leads (ghost.c) --- */
/* Fails the run if p may not act as coordinator now; `what` names the act. */
void ghost_acts(const struct process *p, const char *what);
void ghost_commit_begins(const struct process *p); /* or a restore */
/* The same for lvm that is about to write. */
void ghost_commits(const struct process *p);
uint64_t ghost_term_of(const struct process *p); /* given by sanlock; 0: none */
uint64_t ghost_term(void);                       /* the highest that was ever given */
struct process *ghost_leader(void);              /* whom; it may have died */

/* How long the machine has been up with its LUN and an agent that runs, in all. */
uint64_t ghost_agent_ran_us(const struct machine *m);

/* --- metadata (ghost_metadata.c) --- */
/* lvm made `text` out of `base` (NULL: out of nothing). */
void ghost_metadata_built(const struct process *p, const char *base, const char *text);
/* A restore of `want` made `text`. */
void ghost_metadata_restored(const struct process *p, const char *want, const char *text);
/* The coordinator took `text` for the truth: its copy is in the reserved area. */
void ghost_metadata_accepted(const struct process *p, const char *text);
/* Something new is mapped: are its extents the layers' in the truth? */
void ghost_metadata_mapped(void);
/* The machine is about to map that longer layer. */
void ghost_layer_grown(const struct machine *m, const struct stack_layer *layer);
/* The LV's tags in the accepted truth. */
enum ghost_volume {
    GHOST_VOLUME_ABSENT,
    GHOST_VOLUME_NEW,
    GHOST_VOLUME_READY,
    GHOST_VOLUME_DELETING
};
enum ghost_volume ghost_volume_state(const struct uuid *volume);
/* Since when a volume of that name is ready without a break, of one id; UINT64_MAX: it is not. */
uint64_t ghost_ready_since(const char *name);
/* In the accepted truth a snapshot, or what others stand upon: nobody may write it (SAFETY 16). */
bool ghost_is_frozen(uint64_t offset);
/* A snapshot of that id is ready in the accepted truth. */
bool ghost_snapshot_is_ready(const struct uuid *snapshot);
/* Nothing half-made is left, and nothing at all if `empty`. */
bool ghost_metadata_is_settled(bool empty, char *why, size_t size);

/* --- what is open (ghost_grants.c) --- */
enum ghost_use { GHOST_ATTACH, GHOST_FORMAT, GHOST_MERGE, GHOST_MEASURE };
void ghost_mapping(const struct machine *m, const struct stack_spec *spec, enum ghost_use use);
/* By the tables of the leader of now. */
bool ghost_is_granted(uint32_t host, uint64_t generation, const struct uuid *attachment);
void ghost_mapped(void); /* something new is mapped: checks for two writers */
/* Nothing of a layer is mapped whose LV is not in the accepted truth (SAFETY 14). */
void ghost_layers_are_there(const struct catalogue *c);
void ghost_detached(const struct machine *m, const struct stack_spec *spec, uint64_t mapped_us);
void ghost_formatted(const struct stack_spec *spec);
bool ghost_is_formatted(uint64_t volume_short, uint32_t index);
/* When a table first gave it, at the latest at the last takeover but one; 0: none did. */
uint64_t ghost_given_us(uint32_t host, const struct uuid *attachment);
bool ghost_nothing_granted(char *why, size_t size);
void ghost_grants_submitted(struct process *p, uint32_t host, const uint8_t *bytes, uint32_t len);

/* --- what layers show (ghost_content.c) --- */
void ghost_content_formatted(const struct stack_layer *layer);
void ghost_content_merging(const struct stack_spec *spec); /* its first layer into its second */
void ghost_content_merged(const struct stack_spec *spec);  /* all of it */
void ghost_content_check(const struct catalogue *c);       /* the accepted truth */

/* --- space that is given back (ghost_space.c) --- */
void ghost_space_written(uint64_t offset); /* a sector, through a map that has it by right */
/* Where what was written to the layer ends. */
uint64_t ghost_space_end(const struct stack_layer *layer);
struct fake_lvm;
/* The truth is about to change. */
void ghost_space_moved(const struct fake_lvm *before, const struct fake_lvm *after);
void ghost_space_check(const struct fake_lvm *truth);

/* --- who writes (ghost_writers.c) --- */
/* A map that reaches the LUN is about to be made: its number, from 1. */
uint64_t ghost_writer_mapped(const struct machine *m, const struct stack_spec *spec);
/* That map is a merge's: it may write what is frozen; who else has it is ghost_mapped's to judge.
 */
void ghost_writer_merges(uint64_t map);
/* The machine writes another layer through it from now on. */
void ghost_writer_moved(uint64_t map, const struct stack_layer *leaf);
/* A write through that map lands. False: it is a stray one that is excused, and has no effect. */
bool ghost_writer_landed(uint64_t map, uint64_t offset);
/* The machine stood still as a whole and goes on. */
void ghost_machine_thawed(struct machine *m, bool clock_stopped);
/* That life of the machine stood still until others could prove it dead: it may do what it likes,
 * for a while. */
bool ghost_is_excused(const struct machine *m, uint32_t host, uint64_t generation);

/* --- the order of writes (ghost_order.c) --- */
void ghost_order_landed(uint64_t offset); /* bytes of a write have reached the LUN there */
void ghost_order_elected(uint64_t term);
/* The coordinator `p` of `term` is about to send it. */
void ghost_order_command(const struct process *p, uint32_t host, uint64_t term,
                         const Lunar__Command *c);
void ghost_order_mapping(const struct machine *m, uint32_t host, const struct uuid *attachment);
/* When the present leader was elected, or when it had read them, the host's report or the newer
 * copy of its grants named it. */
bool ghost_order_was_named(uint32_t host, const struct uuid *attachment);
/* `first`: of the present leader, about to be written; true for its first one of that host, which
 * alone is looked at. */
bool ghost_order_grants(const struct process *p, uint32_t host, struct table *first);

/* That copy of its grants as it lies on the LUN now; false: damaged or none. */
bool ghost_order_read(uint32_t host, int copy, struct table *ret);

/* --- lives that are over (ghost_dead.c) --- */
void ghost_dead_landed(uint32_t host, int copy, const struct table *t);
/* The leader is about to write it; `first` of that host. */
void ghost_dead_grants(const struct process *p, uint32_t host, const struct table *t, bool first);
/* It gives this to that host; what others were given after `since_us` counts. */
void ghost_dead_moved(const struct process *p, uint32_t to, const struct table_entry *e,
                      uint64_t term, uint64_t since_us);

/* --- spill slots (ghost_spills.c) --- */
void ghost_spill_submitted(const struct process *p, bool up, uint32_t host, const uint8_t *bytes,
                           uint32_t len);
void ghost_spill_landed(const struct process *p, uint64_t offset, uint32_t len);
void ghost_spill_named(const struct process *p, bool up, const struct page *page);

/* --- messages (ghost_messages.c) --- */
void ghost_messages_check(void); /* after each event: cheap */

/* --- requests (workload.c) --- */
bool ghost_delete_requested(const struct uuid *volume);
bool ghost_unsnap_requested(const struct uuid *snapshot);
bool ghost_unsnap_answered(const struct uuid *snapshot); /* it is gone, a client was told */
/* A detach that names it was answered with success. */
bool ghost_detach_answered(const struct uuid *attachment);
/* A detach that names it is under way, or was until after `since_us`. */
bool ghost_detach_wanted(const struct uuid *attachment, uint64_t since_us);

#endif
