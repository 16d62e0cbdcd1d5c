/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An attachment's stack on this node, built and torn down step by step in a worker thread:
 *
 *     consumer -> H (dm-linear) -> P (dm-linear) -> VDUSE disk -> QSD (t0 -> qcow2 chain) -> L maps
 * (dm-linear) -> LUN thick:      H             -> P             -> L map -> LUN
 *
 * Happy path of attach: L maps, QSD, vdpa add, P, H, /dev/lunar/POOL/NAME. Detach is the reverse,
 * and refuses while H is open. Everything needed to adopt it again after an agent restart, or to
 * restart a dead QSD, is in run_dir/state.json, written before the first step and removed after the
 * last. Failure modes: any step of an attach fails: what was built is torn down again; an agent
 * that dies half-way: the next one adopts a complete stack and tears down a partial one; the QSD
 * dies: stack_restart_qsd drains the L maps (suspend, resume) and starts another under the same
 * VDUSE name, I/O waits meanwhile.
 */
#ifndef LUNAR_AGENT_STACK_H
#define LUNAR_AGENT_STACK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/dm.h"
#include "agent/qsd.h"
#include "base/error.h"
#include "base/uuid.h"

#define STACK_SEGMENTS_MAX 4096u /* of one layer */
#define STACK_LAYERS_MAX   256u
#define STACK_LINK_SIZE    400 /* 11 + 39 * 3 + 1 + 255 and the NUL, rounded */

struct stack_segment {
    uint64_t lun_offset, length; /* bytes */
    uint32_t pv;                 /* stack_pv.h; 0: the spec's device */
};
struct stack_layer {
    uint64_t volume_short;
    uint32_t index;
    uint32_t map_generation;
    uint32_t n_segments;
    struct stack_segment *segments; /* owned by the spec */
    uint64_t max_size; /* bytes that the map shows; behind the segments I/O waits (SAFETY 20). 0: it
                          ends with them */
    bool second;       /* how the daemon's nodes of it are named (qsd.h); the stack's own */
};

/* What is to be attached: copied, owned by the stack. */
struct stack_spec {
    char pool[40];
    struct uuid pool_id;
    char device[256]; /* of the LUN on this node */
    struct uuid volume_id, attachment_id;
    char name[132]; /* the user's; made safe for a path by stack_link_name */
    uint64_t size;
    bool thick;
    struct stack_layer *layers; /* leaf first; owned */
    uint32_t n_layers;
};
void stack_spec_free(struct stack_spec *spec);
/* Whatever their maps are. */
bool stack_layer_same(const struct stack_layer *a, const struct stack_layer *b);
int stack_spec_copy(struct stack_spec *to, const struct stack_spec *from);
/* LUNAR_E_INVALID with a sentence for a spec that cannot be mapped as it stands; attach and format
 * call it themselves. */
int stack_spec_check(const struct stack_spec *spec, struct error *err);
/* "/dev/lunar/POOL/NAME" with both made safe: '/', '%', control characters and a leading '.' become
 * %XX; a name that grows beyond a file name's 255 bytes is cut and ends in '~' and the volume's
 * short id. Returns `ret`. */
char *stack_link_name(const struct stack_spec *spec, char ret[STACK_LINK_SIZE]);

struct stack {
    /* Of spec.layers, switching, relinking, and of saving the state: a growth and an overlay may be
     * under way at once. */
    pthread_mutex_t lock;
    /* Of the tables of its L and T maps, held for as long as these are changed; taken before
     * `lock`. */
    pthread_mutex_t maps;
    struct stack_spec spec;
    struct qsd
        qsd; /* thick: pid 0, pidfd -1; the same on thin: it died and could not be restarted yet */
    uint32_t qsd_restarts;
    /* layers[0] is to be the leaf, but it is not known yet that the daemon writes there: until then
     * it may be layers[1] that needs space. */
    bool switching;
    /* The spec is the chain that is to be; the running daemon may have layers open that were
     * dropped from it, and their maps stand. */
    bool relinking;
    char link[STACK_LINK_SIZE]; /* /dev/lunar/POOL/NAME */
};
/* The layer that the daemon writes. Under stack->lock, or where nothing else runs. */
const struct stack_layer *stack_written_layer(const struct stack *stack);

/* Whose guard gives the permit to load a table that reaches the LUN (SAFETY 11): an incarnation's.
 * Borrowed during the call. */
struct stack_life {
    const char *run_dir; /* the agent's, where the guard of spec->pool keeps the permit */
    uint32_t host_id;
    uint64_t generation;
};

/* `root` is where state lives: /run/lunar/attach by default; one folder per attachment below it.
 * LUNAR_E_EXISTS when this attachment stands, LUNAR_E_IN_USE when another of the same volume does;
 * LUNAR_E_FENCED when the guard fences; LUNAR_E_INDETERMINATE when it failed and not all could be
 * torn down again: the node may still have the volume open, stack_recover finishes it. */
int stack_attach(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                 struct stack **ret, struct error *err);
/* LUNAR_E_IN_USE while a consumer has H open. Frees on success; after an error it may be called
 * again. */
int stack_detach(const char *root, struct stack *stack, struct error *err);
/* Ends whatever of an attachment or of a job stands, whatever state it is in; consumers get EIO.
 * The way out of an attach, a detach or a format that failed half-way. `stack` may be NULL.
 * Idempotent. */
int stack_teardown(const char *root, const struct uuid *pool_id, const struct uuid *attachment,
                   const struct stack *stack, struct error *err);
/* Nothing to do if its daemon runs. After an error call it again later: I/O goes on waiting. */
int stack_restart_qsd(const char *root, struct stack *stack, struct error *err);
/*
 * Before a restart, if no daemon runs: layers below the leaf whose maps still have a tail lose it,
 * for a growth that was under way may have kept an overlay from that. A daemon that is started
 * reads tables of a frozen layer that a merge may have put behind what is mapped here
 * (qsd_merge.c): behind a tail that would wait for ever; behind a map's end they are zeroes, which
 * is what the layer had there before. A failure is logged.
 */
void stack_freeze_lower(const char *root, const struct stack_life *life, struct stack *stack);
/*
 * Gives a layer of an attached stack more space (SAFETY 20): `layer` is the whole longer map of the
 * layer of that volume_short and index, of no lower map_generation. What waited behind the former
 * end goes on. Idempotent: it goes by the kernel's tables, whatever a predecessor came to. Not
 * beside attach, detach or restart of the same stack; beside an overlay it may run. LUNAR_E_STALE:
 * another or a shorter map than stands; LUNAR_E_FENCED; other errors: call it again.
 */
int stack_grow(const char *root, const struct stack_life *life, struct stack *stack,
               const struct stack_layer *layer, struct error *err);
/*
 * A snapshot's step on the node: layers[0], a formatted layer to which nothing was written, becomes
 * the leaf of a running thin stack, whose chain stands behind it; all n layers are named. When this
 * returns 0, nothing is written to the former leaf any more, whatever dies later. Idempotent;
 * killed at any point, it is gone on with by the same call. Not beside attach, detach or restart; a
 * growth may run beside it. LUNAR_E_STALE: not one new leaf on what stands; LUNAR_E_BUSY: the
 * daemon is down; LUNAR_E_INDETERMINATE: requests did not come to rest in time, the same call again
 * goes on.
 */
int stack_overlay(const char *root, const struct stack_life *life, struct stack *stack,
                  const struct stack_layer *layers, uint32_t n, struct error *err);
/*
 * Drops layers from a running stack that the one below each of them holds as well: the n layers are
 * the chain without them, of the same leaf, each one below a gap with its map of now. When this
 * returns 0 nothing of this attachment maps the others. Idempotent, as stack_overlay is, and beside
 * the same. LUNAR_E_STALE: no such chain; LUNAR_E_BUSY: the daemon is down, or a new leaf is being
 * put over it; LUNAR_E_INDETERMINATE: requests did not come to rest in time.
 */
int stack_relink(const char *root, const struct stack_life *life, struct stack *stack,
                 const struct stack_layer *layers, uint32_t n, struct error *err);
/*
 * A running stack gets want->size, which is not less than it has. Thick: want->layers[0] is its
 * layer with at least as many bytes; with the size that it has already, the layer gets longer and
 * all behind the size is zeroed, which comes before a larger size. Idempotent, as stack_overlay is,
 * and beside the same. LUNAR_E_BUSY: the daemon is down; LUNAR_E_TIMEOUT: I/O does not come to
 * rest.
 */
int stack_resize(const char *root, const struct stack_life *life, struct stack *stack,
                 const struct stack_spec *want, struct error *err);
/*
 * What is written to the consumer's device from now on waits there, and what was begun before has
 * ended, by when this returns 0; until stack_unhold, or the next agent's adoption. `freeze`: a file
 * system that is mounted on it is frozen before. LUNAR_E_TIMEOUT: I/O does not come to rest, and
 * goes on as before. May run beside a growth and an overlay.
 */
int stack_hold(const struct stack *stack, bool freeze, int deadline_ms, struct error *err);
/* Idempotent. */
int stack_unhold(const struct stack *stack, struct error *err);
/* Agent restart: every folder below root is adopted (complete) or torn down (partial); calls back
 * with each adopted one, which the callee owns. `teardown_all`: adopt nothing, tear down everything
 * (an agent that starts without a lockspace: SAFETY 19). */
int stack_recover(const char *root, const struct uuid *pool_id, bool teardown_all,
                  void (*adopted)(void *data, struct stack *stack), void *data, struct error *err);
void stack_free(struct stack *stack); /* memory and pidfd alone; nothing is torn down */

/* Merge: what layers[0] of the spec holds goes into layers[1]; see qsd_merge.
 * LUNAR_E_INDETERMINATE: a map of it stands still. */
int stack_merge(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                struct qsd_job *job, struct error *err);

/* Measure: where what the one layer of the spec holds ends, in bytes. LUNAR_E_CORRUPT: its image
 * has errors. LUNAR_E_INDETERMINATE: its map stands still. */
int stack_measure(const struct stack_life *life, const struct stack_spec *spec, uint64_t *ret_end,
                  struct error *err);
/* The end that a report of `qemu-img check --output=json` tells. */
int measure_read(const char *report, uint64_t *ret_end, struct error *err);

/* FormatJob: maps the layer under a job name, zeroes the head (thick: all of it), runs qemu-img
 * create, unmaps. */
int stack_format(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                 struct error *err);
/* ZeroJob: the same way, a thick volume's layer is zeroed behind spec->size; all below that stays.
 */
int stack_zero_behind(const struct stack_life *life, const struct stack_spec *spec,
                      struct error *err);

#endif
