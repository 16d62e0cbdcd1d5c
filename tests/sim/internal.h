/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine's own files know of each other; the world uses sim.h alone. */
#ifndef LUNAR_TESTS_SIM_INTERNAL_H
#define LUNAR_TESTS_SIM_INTERNAL_H

#include "sim/sim.h"

/* --- engine.c --- */
/* What was held up while the machine was paused goes on now. */
void engine_unpark(struct machine *m);
/* Its clock stood still since then: its events come as much later. Before engine_unpark. */
void engine_clock_stood(struct machine *m, uint64_t stopped_us);
/* Ends the current event at once: the current process has died. Not from a fiber. */
_Noreturn void engine_abandon_event(void);
/* Puts a process in place while its code is called inside somebody else's event. */
struct process *engine_set_current(struct process *p);

/* --- chance.c, trace.c --- */
void chance_reset(const struct sim_options *given);
void trace_reset(void);
/* A line of the trace that is formatted only if somebody looks; `what` is a literal. Goes into the
 * hash; into the ring of last lines only if `keep`. */
void trace_numbers(bool keep, const char *what, uint64_t a, uint64_t b, uint64_t c);

/* --- process.c --- */
void process_reset(void);
void process_end_faults(void);
void process_io_started(struct process *p);
void process_io_ended(struct process *p); /* may make it gone */
static inline bool process_alive(const struct process *p)
{
    return !p->ending && !p->gone;
}
/* The simulated time at which the machine's clock shows `clock_us`, not before now. */
uint64_t machine_sim_time(const struct machine *m, uint64_t clock_us);
struct process *process_of_loop(const uv_loop_t *loop);
uint32_t machine_count(void);

/* --- fiber.c --- */
void fiber_reset(void);
/* The process has died: its fibers are never resumed. Does not return if called inside one. */
void fiber_forget(struct process *p);
_Noreturn void fiber_abandon(void);

/* --- fake_uv.c --- */
void fake_uv_reset(void);
void fake_uv_handle_init(uv_loop_t *loop, uv_handle_t *handle, uv_handle_type type);

/* --- fake_udp.c --- */
void fake_udp_reset(void);
void fake_udp_closed(uv_handle_t *handle);

/* --- lun.c --- */
void lun_reset(void);
void lun_machine_off(struct machine *m);
/* Another coordinator was elected: writes held back for that moment land soon. */
void lun_new_term(void);

/* --- lun_faults.c: what befalls an operation, and bit rot --- */
#define LUN_CUTS_MAX 7u
#define LUN_UNIT     4096u
#define LUN_SECTOR   512u

struct lun_plan {
    uint64_t latency_us;
    uint32_t cuts[LUN_CUTS_MAX]; /* rising offsets inside the operation; pieces are between them */
    uint32_t n_cuts;
    int status;              /* what the caller is told */
    bool lands;              /* false: it fails without effect, or in part */
    uint32_t pieces_landing; /* of a failed one */
    uint64_t late_us; /* > 0: lands whole that long after its end (again, if it ended well) */
    bool next_term;   /* the late landing waits for a new term */
};
void lun_plan(struct lun_plan *plan, const struct process *p, bool write, uint64_t offset,
              uint32_t len);
/* After a power cut: 0 nothing of it lands, 1 all, 2 each piece may; and when. */
int lun_plan_power_cut(uint64_t offset, uint32_t len, uint64_t *ret_delay_us);
/* Bytes have reached the LUN (`whole`: an entire write, in one piece or as its last one). */
void lun_rot_heal(uint64_t offset, uint32_t len, bool whole);
/* A write ended with a part of it on the LUN. */
void lun_rot_torn(uint64_t offset, uint32_t len);
/* May this late write land? See lun_bound_late. */
bool lun_late_allowed(uint64_t offset, const uint8_t *from, uint32_t len);
void lun_faults_reset(void);
uint8_t *lun_bytes(uint64_t offset, uint64_t len);
bool lun_in_flight(uint64_t offset, uint64_t len);

/* --- reservations.c --- */
void reservations_reset(void);

/* --- sanlock.c --- */
void sanlock_reset(void);
void sanlock_process_gone(struct process *p);
void sanlock_machine_off(struct machine *m);
void sanlock_machine_resumed(struct machine *m);

#endif
