/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leader's insides, shared by its files alone: leader.c (events, queries), ops.c (the operation
 * machine), op_create.c, op_attach.c, op_delete.c, op_snapshot.c, op_rollback.c, op_unsnap.c,
 * op_garbage.c, op_expand.c, op_expand_thick.c, op_imported.c, op_merge.c (with op_merge_name.c),
 * op_relink.c (one file per operation), op_group.c (snapshots at one instant), op_job.c
 * (formatting, a part of some), op_grow.c, over.c (lives that are over, and taking their grants),
 * op_trim.c and trim_idle.c (space that is given back), node_fence.c (the operator's fence),
 * op_inspect.c, op_extend.c (the pool's LUNs), reply.c (protobuf answers).
 */
#ifndef LUNAR_COORDINATOR_LEADER_INTERNAL_H
#define LUNAR_COORDINATOR_LEADER_INTERNAL_H

#include <sys/queue.h>

#include "coordinator/leader.h"
#include "fencing/timeouts.h"

enum op_kind {
    OP_CREATE,
    OP_DELETE,
    OP_ATTACH,
    OP_DETACH,
    OP_SNAPSHOT,
    OP_ROLLBACK,
    OP_UNSNAP,  /* deletes a snapshot; its volume_id is the snapshot's id */
    OP_GARBAGE, /* its volume_id is zero */
    OP_EXPAND,
    OP_IMPORTED,
    OP_MERGE, /* its volume_id is the job's own */
    OP_TRIM,  /* so is this one's */
    OP_RELINK,
    OP_KINDS
};

/*
 * One table for all operations; op_move asserts that a move is allowed. Each state waits for one
 * outside answer.
 *   job: WAIT_NODE, GRANT, COMMAND, UNGRANT (op_job.c)
 *   create: START, COMMIT_CREATE, job, COMMIT_MADE; undone by COMMIT_REMOVE; a clone of a volume
 *     begins with WAIT_SOURCE
 *   delete: START, COMMIT_DELETING, COMMIT_REMOVE
 *   attach: START, GRANT, COMMAND; a refusal by the node: UNGRANT
 *   detach: START, COMMAND, UNGRANT
 *   snapshot: START, COMMIT_CREATE, job, CHAIN_GRANT, COMMIT_MADE, OVERLAY, COMMIT_FROZEN; of a
 *     detached volume without CHAIN_GRANT and OVERLAY; undone by COMMIT_REMOVE; one of a group
 *     waits for the others in GROUP, after the job, after COMMIT_MADE, SUSPEND and OVERLAY
 *   rollback: START, COMMIT_CREATE, job, COMMIT_MADE, COMMIT_FROZEN; undone by COMMIT_REMOVE
 *   unsnap: START, where it may wait for a merge, COMMIT_FROZEN; again if two layers have the name
 *   garbage: START, COMMIT_REMOVE
 *   expand: START, COMMIT_SIZE, RESIZE; of a detached volume without RESIZE; thick: START,
 *     COMMIT_EXPANDING, COMMIT_EXTEND, then RESIZE or a job, and so on with COMMIT_SIZE
 *   imported: START, COMMIT_MADE
 *   merge: START, COMMIT_EXTEND, WAIT_NODE, GRANT, COMMAND, UNGRANT, COMMIT_MERGED, COMMIT_NAME
 *     twice for a snapshot, COMMIT_REPARENT for each layer above
 *   trim: START, WAIT_NODE, GRANT, COMMAND, UNGRANT, COMMIT_GENERATION, COMMIT_REDUCE; the next
 *     layer from WAIT_NODE on
 *   relink: START, RELINK, CHAIN_GRANT
 */
enum op_state {
    OP_STATE_START,
    OP_STATE_WAIT_SOURCE,
    OP_STATE_COMMIT_CREATE,
    OP_STATE_WAIT_NODE,
    OP_STATE_GRANT,
    OP_STATE_COMMAND,
    OP_STATE_UNGRANT,
    OP_STATE_CHAIN_GRANT,
    OP_STATE_COMMIT_MADE,
    OP_STATE_GROUP, /* nothing is out: the others of the group are not as far */
    OP_STATE_SUSPEND,
    OP_STATE_OVERLAY,
    OP_STATE_COMMIT_FROZEN,
    OP_STATE_COMMIT_DELETING,
    OP_STATE_COMMIT_REMOVE,
    OP_STATE_COMMIT_EXPANDING,
    OP_STATE_COMMIT_SIZE,
    OP_STATE_RESIZE,
    OP_STATE_RELINK,
    OP_STATE_COMMIT_EXTEND,
    OP_STATE_COMMIT_MERGED,
    OP_STATE_COMMIT_NAME,
    OP_STATE_COMMIT_REPARENT,
    OP_STATE_COMMIT_GENERATION,
    OP_STATE_COMMIT_REDUCE,
    OP_STATE_DONE,
    OP_STATES
};

/* An agent writes its page every second (CHANNEL_HEARTBEAT_MS); one silent this long gets no work.
 */
#define NODE_SILENT_MS (10u * 1000)

struct op {
    TAILQ_ENTRY(op) link;
    enum op_kind kind;
    enum op_state state;
    uint64_t token; /* of the outside answer awaited; 0: none */
    uint64_t mark;  /* that the grant table carries whose write is awaited */
    uint64_t started_ms;
    struct uuid volume_id;
    struct uuid attachment_id;
    struct uuid command_id;
    struct uuid request_id;
    uint32_t host_id;      /* the node concerned; 0: not chosen */
    uint32_t prefers_host; /* of a job: the requester's node, or where the volume is attached */
    char name[VOLUME_NAME_MAX + 1]; /* the volume's; of a snapshot: its own */
    struct uuid source_id;          /* of a clone */
    bool source_is_volume;
    struct uuid snapshot_id; /* merge: whose name is moved */
    struct group *group;     /* that the snapshot is a member of; NULL: of none */
    struct uuid hold_id;     /* its writer's suspension; zero: none */
    char parent_lv[32]; /* that the new layer stands upon, "" for none: it must not go meanwhile */
    uint64_t size;
    bool thick;
    bool importing;
    bool resend;             /* at the next tick */
    bool refused;            /* snapshot: the node could not switch when it was asked */
    bool fresh_grant;        /* this op made the grant: a refusal by the node may erase it */
    bool elsewhere;          /* of a job: after the grant is erased, another node */
    uint32_t refused_by;     /* of a job: which would not; chosen again only if it is the last */
    uint64_t end;            /* trim: what the node measured */
    uint64_t done, total;    /* bytes that the node has copied; total 0: it has not told */
    uint32_t map_generation; /* trim: that it is to have */
    bool active;             /* trim: somebody was granted the layer since it was to be measured */
    struct table_entry *dropped; /* erased in memory; put back if the LUN's erasure failed */
    struct table_layer dropped_layers[LEADER_RELINK_LAYERS_MAX]; /* relink: leave the chain */
    uint32_t n_dropped_layers;
    struct error error; /* code 0: success so far */
    char device[512];
    struct waiter waiters[LEADER_WAITERS_MAX];
    uint32_t n_waiters;
};

/* Which lives of a node are over (over.c). All are generations. */
struct death {
    uint64_t generation; /* proved over, up to this one: latched */
    uint64_t marked;     /* ... and both copies of its grants say so and have no entries of them */
    uint64_t wanted;     /* ... must be marked even if there are no entries: a thawed agent looks */
    uint64_t dead; /* sanlock's or an operator's word, to be preempted first where that goes */
    uint64_t preempting; /* being preempted; 0: nothing */
    uint64_t token;      /* of the write that marks; 0: none is out */
    uint64_t token_mark; /* and what it marks */
    bool fencing;        /* `fencer` waits until `fence` is marked */
    uint64_t fence;
    struct waiter fencer;
};

struct node {
    bool seen; /* its up page was read in this term */
    bool leaving;
    struct incarnation self;
    char name[PAGE_NAME_SIZE];
    uint64_t last_heard_ms;
    enum host_state sanlock_state; /* 0: sanlock knows nothing */
    uint64_t sanlock_generation;
    bool has_grants;
    struct table grants;
    uint32_t grant_writes; /* out */
    bool grants_unsure;    /* the last write of them failed: write again before anything is built on
                              them */
    uint64_t first_heard_ms;
    struct uuid lun_question; /* whether it sees the LUNs that were added; zero: not asked */
    uint64_t lun_asked_ms;
    char lun_trouble[300]; /* what it said if not; "" is well */

    /* What the lease's timestamp shows, in our clock. */
    uint64_t timestamp;
    uint64_t renewed_ms; /* when it was seen to have moved; 0: never seen */
    uint64_t looked_ms;  /* the lease was read after that and had not moved since; 0: never */
    struct death over;
};

TAILQ_HEAD(op_list, op);
struct inspection;
TAILQ_HEAD(inspection_list, inspection);
enum pool_level { POOL_LEVEL_WELL, POOL_LEVEL_WARN, POOL_LEVEL_FULL, POOL_LEVEL_WAITING };
/* The one change of the pool's settings that is out. */
struct pool_change {
    uint64_t token; /* of its commit; 0: none is out */
    struct waiter waiter;
    struct catalogue_settings to;
};
struct trim_idle;
struct growth;
TAILQ_HEAD(growth_list, growth);
struct group;
TAILQ_HEAD(group_list, group);
/* What is remembered of a pair of layers whose merge failed. */
struct merge_failure {
    char upper[32], lower[32];
    uint64_t number; /* it was the n-th; 0: nothing is remembered here */
    uint64_t room;   /* what the lower one was to get; 0: it was not enough */
    bool refused;    /* for good */
};

struct leader {
    const struct superblock *sb;
    struct timeouts times;
    struct incarnation self;
    const struct leader_io *io;
    void *data;
    struct catalogue *catalogue;
    struct node *nodes; /* index is the host id; [0] unused */
    struct op_list ops;
    uint32_t n_ops;
    struct inspection_list inspections;
    uint32_t n_inspections;
    struct pool_change pool_change;
    enum pool_level pool_level;  /* that was logged last */
    struct growth_list growths;  /* in the order in which they were asked for */
    struct extension *extension; /* of the pool, under way; NULL: none */
    struct group_list groups;    /* of snapshots, under way */
    uint64_t group_token;        /* of the commit that drops a group's note; 0: none is out */
    uint64_t next_token;
    uint64_t now_ms; /* of the event being handled */
    uint64_t reconciled_ms;
    uint32_t reconcile_at; /* host id whose grants are looked at next */
    bool merges;
    uint64_t merge_speed;    /* bytes per second */
    uint32_t chain_max;      /* what a snapshot or clone may not go beyond */
    uint32_t merge_failures; /* in a row */
    struct merge_failure merge_failed[LEADER_MERGE_FAILED_MAX];
    uint64_t n_merges_failed;
    uint64_t merge_not_before_ms;
    uint64_t relink_not_before_ms;
    uint32_t relink_looks;              /* left, at all grants although no layer is merged */
    uint32_t relink_host, relink_entry; /* looked at last, for an attachment to relink */
    struct trim_idle *idle;             /* what nobody has open, as trim_idle.c saw it last */
    uint32_t n_idle;
    uint64_t trim_rest_ms; /* 0: not by itself */
    uint64_t trim_looked_ms, trim_not_before_ms;
    uint32_t trim_failures; /* in a row */
    bool garbage_waits;     /* its removal failed: not before the next reconciliation */
};

/* --- ops.c --- */
struct op *op_new(struct leader *l, enum op_kind kind, const struct uuid *volume_id);
void op_move(struct op *op, enum op_state to);
/* Answers all waiters and frees. */
void op_finish(struct leader *l, struct op *op);
/* Fails with a code and text, kept from the first failure. */
void op_fail(struct op *op, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
struct op *op_by_volume(struct leader *l, const struct uuid *volume_id);
/* The first one of that kind that is under way; NULL: none. */
struct op *op_by_kind(const struct leader *l, enum op_kind kind);
struct op *op_by_name(struct leader *l, const char *name); /* of a volume being created */
/* It waits for a node's result. */
bool op_is_at_node(const struct op *op);
/* BUSY, with what is going on and where. */
void reply_busy(struct leader *l, const struct waiter *w, const struct op *op);
void op_add_waiter(struct leader *l, struct op *op, const struct waiter *w);
/* Each hands the op's step outside and moves it. */
void op_commit(struct leader *l, struct op *op, enum op_state to,
               const struct catalogue_args *args);
void op_write_grants(struct leader *l, struct op *op, enum op_state to);
void op_send_command(struct leader *l, struct op *op); /* (again) in OP_STATE_COMMAND */

/* --- per operation: the next step after the awaited answer; `rc` and `err` are that answer's ---
 */
void create_request(struct leader *l, const struct waiter *w, const Lunar__VolumeCreate *m);
struct op *create_resume(struct leader *l, const struct catalogue_volume *v);
/* A snapshot has come to its end: clones that waited for it go on. */
void create_wake(struct leader *l, const struct op *snapshot);
void create_step(struct leader *l, struct op *op, int rc, const struct error *err);
/* --- op_job.c --- */
/* The layer that is being formatted; NULL: it is not in the metadata (any more). */
const struct catalogue_layer *job_layer(struct leader *l, const struct op *op);
void job_start(struct leader *l, struct op *op);   /* in WAIT_NODE */
void job_command(struct leader *l, struct op *op); /* (again) */
/* True: it is formatted, and no grant of the job is left. Otherwise it goes on, or has failed and
 * is undone. */
bool job_step(struct leader *l, struct op *op, int rc, const struct error *err);

void job_undo(struct leader *l, struct op *op); /* removes the new layer; op->error is set */

/* --- op_snapshot.c --- */
void snapshot_request(struct leader *l, const struct waiter *w, const Lunar__SnapshotCreate *m);
/* May the volume be snapshotted now? Says why not. */
int snapshot_check(struct leader *l, const struct catalogue_volume *v, struct error *err);
/* It may. `name` "": nobody's snapshot, the leaf is frozen for a clone. `group`: NULL, of none. */
struct op *snapshot_start(struct leader *l, const struct catalogue_volume *v, const char *name,
                          uint32_t prefers_host, struct group *group);
struct op *snapshot_op_by_name(struct leader *l, const char *name);
/* The steps of a member that its group tells it to take. */
void snapshot_flip(struct leader *l, struct op *op);
void snapshot_suspend(struct leader *l, struct op *op); /* op->hold_id stays zero: nobody writes */
void snapshot_switch(struct leader *l, struct op *op);
void snapshot_freeze(struct leader *l, struct op *op);
/* Its group has failed: it goes on by itself, and ends as nobody's snapshot. */
void snapshot_leave_group(struct leader *l, struct op *op);
/* Anybody but who was asked to switch may have the volume open. */
bool snapshot_may_be_elsewhere(const struct leader *l, const struct op *op);
void snapshot_step(struct leader *l, struct op *op, int rc, const struct error *err);
/* The life of the node that was to switch is over: it writes nothing any more. */
void snapshot_life_ended(struct leader *l, struct op *op);
/* A detach has come: a snapshot whose node cannot switch ends, and is completed after it. */
bool snapshot_gives_way(struct leader *l, struct op *op);
/* A volume that is changing and has no operation: goes on. NULL: not now. */
struct op *change_resume(struct leader *l, const struct catalogue_volume *v);

/* --- op_group.c --- */
void group_request(struct leader *l, const struct waiter *w, const Lunar__SnapshotGroup *m);
const struct uuid *group_id(const struct group *g);
bool group_freezes(const struct group *g);
/* A member is as far as the others shall come: in OP_STATE_GROUP, it goes on when they are. */
void group_arrived(struct leader *l, struct op *op);
/* It cannot be of the group's instant: the group fails as a whole. `op` itself is the caller's. */
void group_fail(struct leader *l, struct op *op, int code, const char *text);
bool group_has_failed(const struct group *g);
/* It has failed, and that member's end is not in sight: the client is told now. */
void group_give_up(struct leader *l, struct op *op);
void group_member_done(struct leader *l, struct op *op); /* the op ends */
bool group_commit_done(struct leader *l, uint64_t token, int rc, const struct error *err);
void group_tick(struct leader *l);
/* Notes that nobody needs any more are dropped. */
void group_tidy(struct leader *l);
void group_free_all(struct leader *l);

/* --- op_rollback.c --- */
void rollback_request(struct leader *l, const struct waiter *w, const Lunar__VolumeRollback *m);
void rollback_step(struct leader *l, struct op *op, int rc, const struct error *err);

/* --- op_expand.c --- */
void expand_request(struct leader *l, const struct waiter *w, const Lunar__VolumeExpand *m);
void expand_step(struct leader *l, struct op *op, int rc, const struct error *err);
/* The life of the node that was told is over. */
void expand_life_ended(struct leader *l, struct op *op);
/* The volume may be told or zeroed where it is; says why not. */
int expand_check_held(struct leader *l, const struct catalogue_volume *v, struct error *err);
/* The node that has the volume learns the size; if none has it, that is all. */
void expand_tell(struct leader *l, struct op *op);

/* --- op_expand_thick.c --- */
/* The next step towards op->size, whatever stands by now. */
void expand_thick(struct leader *l, struct op *op);
void expand_thick_step(struct leader *l, struct op *op, int rc, const struct error *err);
/* One that has begun and has no operation. */
void expand_resume(struct leader *l, const struct catalogue_volume *v);

/* --- op_imported.c --- */
void imported_request(struct leader *l, const struct waiter *w, const Lunar__VolumeImported *m);
void imported_step(struct leader *l, struct op *op, int rc, const struct error *err);

/* --- op_unsnap.c --- */
void unsnap_request(struct leader *l, const struct waiter *w, const Lunar__SnapshotDelete *m);
/* Deletions that waited for a merge to give the name to its new layer. */
void unsnap_wake(struct leader *l);
void unsnap_step(struct leader *l, struct op *op, int rc, const struct error *err);

/* --- op_garbage.c --- */
/* Removes what nobody needs, if there is any and no grant names it. */
void garbage_collect(struct leader *l);
/* An operation is about to build upon the layer. */
bool op_builds_upon(const struct leader *l, const struct catalogue_layer *layer);
void garbage_step(struct leader *l, struct op *op, int rc, const struct error *err);

void delete_request(struct leader *l, const struct waiter *w, const struct uuid *volume_id);
void delete_resume(struct leader *l, const struct catalogue_volume *v);
/* Deletions that waited for a grant to go: each tick, and when a measurement has ended. */
void delete_wake(struct leader *l);
void delete_step(struct leader *l, struct op *op, int rc, const struct error *err);
void attach_request(struct leader *l, const struct waiter *w, const Lunar__VolumeAttach *m);
void attach_step(struct leader *l, struct op *op, int rc, const struct error *err);
void detach_request(struct leader *l, const struct waiter *w, const Lunar__VolumeDetach *m);
/* A grant that nobody asked to be rid of, but that stands for nothing any more. False: its node
 * cannot be asked now. */
bool detach_resume(struct leader *l, uint32_t host, const struct table_entry *e);
void detach_step(struct leader *l, struct op *op, int rc, const struct error *err);

/* --- op_merge.c --- */
void merge_layers(struct leader *l); /* begins the next one, if there is one to be begun */
void merge_step(struct leader *l, struct op *op, int rc, const struct error *err);
/* What that layer holds is going into the one below it. */
bool merge_takes(const struct leader *l, const struct catalogue_layer *layer);

/* --- op_merge_name.c --- */
/* A commit is out that moves the snapshot's name to another layer. */
bool merge_names(const struct leader *l, const struct catalogue_snapshot *s);
/* Something is to be done about a merged layer, but to remove it. */
bool merge_is_left(const struct catalogue_layer *y);
/* ... not now: it has a name that somebody is taking away. */
bool merge_name_waits(struct leader *l, const struct catalogue_layer *y);
/* The next commit that moves the merged layer's name down; false: it has none. */
bool merge_move_name(struct leader *l, struct op *op, const struct catalogue_layer *y);

/* --- op_trim.c --- */
void trim_request(struct leader *l, const struct waiter *w, const Lunar__VolumeTrim *m);
void trim_step(struct leader *l, struct op *op, int rc, const struct error *err);
/* One layer, in the background. */
void trim_begin(struct leader *l, const struct catalogue_layer *layer);
/* A job's grant names it, so that a node can look where it ends. */
bool trim_measures(const struct leader *l, const struct catalogue_layer *layer);
/* Are extents of the layer, or of one of the volume's, being freed right now? */
bool trim_frees(const struct leader *l, const struct catalogue_volume *v);
/* By another operation than `except`. */
bool trim_frees_layer(const struct leader *l, const struct op *except,
                      const struct catalogue_layer *layer);
/* They are about to be granted to somebody, by `op`: whatever was measured of them is void. False:
 * extents of one of them are being freed, it must not be. */
bool trim_may_grant(struct leader *l, const struct op *op, const struct catalogue_layer *layers,
                    uint32_t n);

/* --- trim_idle.c --- */
void trim_layers(struct leader *l); /* begins the next one in the background, if it is time */
/* The least that it may be reduced to, whatever is in it; UINT64_MAX: it is not reduced. */
uint64_t trim_floor(struct leader *l, const struct catalogue_layer *layer);
/* Nobody has the layer, or may have it, or is about to, or frees extents of it but `asks`. */
bool trim_is_idle(struct leader *l, const struct catalogue_layer *layer, const struct op *asks);
bool trim_is_worth(uint64_t size, uint64_t to);
/* It has been open just now. */
void trim_idle_reset(struct leader *l, const struct catalogue_layer *layer);
/* It needs no look until it has been open again. */
void trim_idle_done(struct leader *l, const struct catalogue_layer *layer);

/* --- op_relink.c --- */
void relink_attached(struct leader *l); /* begins the next one, if there is one to be begun */
void relink_step(struct leader *l, struct op *op, int rc, const struct error *err);
/* Is the layer one that the op's node is to drop? */
bool relink_drops(const struct op *op, const struct table_layer *layer);
/* Something else is to be done with the volume: a relink of it ends here, and is begun again some
 * other time. */
void relink_gives_way(struct leader *l, const struct uuid *volume_id);

/* --- op_inspect.c --- */
void inspect_request(struct leader *l, const struct waiter *w, const Lunar__NodeInspect *m);
bool inspect_result(struct leader *l, uint32_t host_id, const Lunar__Result *result);
void inspect_node_changed(struct leader *l, uint32_t host_id);
void inspect_tick(struct leader *l);
void inspect_free_all(struct leader *l);

/* --- op_grow.c --- */
void grow_request(struct leader *l, const struct waiter *w, const Lunar__LayerGrow *m);
/* A token that is no operation's: true if it was of a growth. */
bool grow_commit_done(struct leader *l, uint64_t token, int rc, const struct error *err);
/* At each fresh catalogue and tick: what is parked tries again, or is dropped with its grant. */
void grow_resume(struct leader *l);
void grow_free_all(struct leader *l);
/* The growths that make no progress: their writers may wait. */
struct growth_wait {
    uint32_t n;
    uint64_t since_ms; /* of the one that has waited longest, and whose it is; borrowed */
    uint32_t host_id;
    const char *volume, *why;
};
void grow_waiting(const struct leader *l, struct growth_wait *ret);
bool grow_is_awaited(const struct leader *l, const struct uuid *attachment_id);
/* The volume's condition: why its writers wait; "" if they do not. */
void grow_condition(const struct leader *l, const struct uuid *volume_id, char *ret, size_t size);

/* --- pool.c --- */
void pool_set_request(struct leader *l, const struct waiter *w, const Lunar__PoolSet *m);
/* A token that is no operation's: true if it was of the settings. */
bool pool_commit_done(struct leader *l, uint64_t token, int rc, const struct error *err);
uint64_t pool_provisioned(const struct leader *l); /* the sum of the volumes' sizes */
/* LUNAR_E_NO_SPACE, with the numbers and what to do, if `more` bytes of volumes are too many. */
int pool_check_overcommit(const struct leader *l, uint64_t more, struct error *err);
/* The condition as far as space is concerned; "" is well. */
enum pool_level pool_space_text(struct leader *l, char *ret, size_t size);
void pool_watch(struct leader *l); /* logs each change of that */

/* --- op_extend.c --- */
void extend_request(struct leader *l, const struct waiter *w, const Lunar__PoolExtend *m);
/* False: it is not what was awaited. */
bool extend_commit_done(struct leader *l, uint64_t token, int rc, const struct error *err);
bool extend_result(struct leader *l, uint32_t host_id, const Lunar__Result *result);
void extend_node_changed(struct leader *l, uint32_t host_id);
void extend_tick(struct leader *l);
void extend_free(struct leader *l);

/* --- pv_watch.c --- */
void pv_watch_node(struct leader *l, uint32_t host_id); /* another run of its agent is there */
bool pv_watch_result(struct leader *l, uint32_t host_id, const Lunar__Result *result);
void pv_watch_tick(struct leader *l);
/* Which node does not see a LUN; left alone if none is known. */
void pv_watch_condition(const struct leader *l, char *ret, size_t size);

/* --- nodes and grants --- */
/* Not leaving, heard of late, and alive for sure: sanlock says LIVE, or its page moved in this term
 * while sanlock has no opinion yet. An old page alone is no life sign: a job given to a dead node
 * could not be taken back. */
bool node_usable(const struct leader *l, uint32_t host_id);
bool node_moves(const struct node *n); /* its page was news twice in this term: its agent runs */
/* That life of the node is over: nothing of it can write any more. */
bool life_is_over(const struct leader *l, uint32_t host_id, uint64_t generation);
const char *node_name(const struct leader *l, uint32_t host_id);
uint32_t node_by_name(const struct leader *l, const char *name); /* 0: none */
uint32_t node_for_job(const struct leader *l); /* which has the least to do; 0: none */
/* A grant that names the volume, on any node, one that is left over only if there is no other;
 * NULL: free. */
struct table_entry *grant_find(struct leader *l, const struct uuid *volume_id, uint32_t *ret_host);
/* Adds the op's entry to its node's table; false: the table is full. */
bool grant_add(struct leader *l, struct op *op, enum table_mode mode,
               const struct catalogue_layer *layers, uint32_t n);
bool grant_has_room(const struct leader *l, uint32_t host, uint32_t entries, uint32_t layers);
/* The volume's attachment that stands by right; NULL: none. */
struct table_entry *grant_find_attach(struct leader *l, const struct uuid *volume_id,
                                      uint32_t *ret_host);
/* An attachment of it is left over, on any node. A job that is, is simply done once more. */
bool grant_is_left_over(const struct leader *l, const struct uuid *volume_id);
struct table_entry *grant_find_job(struct leader *l, const struct uuid *volume_id,
                                   uint32_t *ret_host);
/* Makes `layer` the first of the entry's, in memory; false: there is no room. */
bool grant_prepend(struct leader *l, uint32_t host, struct table_entry *e,
                   const struct catalogue_layer *layer);
bool grant_names(const struct table_entry *e, const struct catalogue_layer *layer);
bool grant_any_names(const struct leader *l, const struct catalogue_layer *layer);
/* Takes the op's entry out of memory into op->dropped. */
void grant_drop(struct leader *l, struct op *op);
/* Puts it back: the LUN may still say so. */
void grant_restore(struct leader *l, struct op *op);
/* An entry of the volume that stands in the way of `host`: on another node, a job, or a second one.
 * NULL: none. */
struct table_entry *grant_conflict(struct leader *l, const struct uuid *volume_id, uint32_t host,
                                   uint32_t *ret_host);
struct table_entry *grant_by_attachment(struct leader *l, const struct uuid *volume_id,
                                        const struct uuid *attachment_id, uint32_t *ret_host);

/* --- over.c --- */
/* The node's table goes out as it stands in memory, without what is over, and marked. */
void over_write_table(struct leader *l, uint32_t host_id, uint64_t token);
/* Such a write has succeeded: what `mark` covers leaves memory, too. */
void over_marked(struct leader *l, uint32_t host_id, uint64_t mark);
/* Nothing of what is over is left in the node's table, and no mark to be written. */
bool over_is_settled(const struct leader *l, uint32_t host_id);
/* A token that is no operation's: true if it was of a write that marks. */
bool over_write_done(struct leader *l, uint64_t token, int rc);
/* Judges what sanlock says of one host. */
void over_judge(struct leader *l, const struct host_status *host, bool awake);
void over_start(struct leader *l); /* the marks that the tables brought */
void over_tick(struct leader *l);  /* tries again what failed */
/* An operator's word, already checked. */
void over_fenced(struct leader *l, uint32_t host_id, uint64_t generation);
/* The life that the op waits for is over, or its grant was taken for that: the op ends, or goes on
 * elsewhere. May free it. */
bool op_life_is_over(const struct leader *l, const struct op *op);
void op_life_ended(struct leader *l, struct op *op);
/* BUSY: that entry is being taken from the dead. */
void reply_taking(struct leader *l, const struct waiter *w, uint32_t host,
                  const struct table_entry *e);

/* --- node_fence.c --- */
void fence_request(struct leader *l, const struct waiter *w, const Lunar__NodeFence *m);
void fence_marked(struct leader *l, uint32_t host_id); /* answers who waits, if it is time */
void fence_failed(struct leader *l, uint32_t host_id, const struct error *err);

/* --- reply.c --- */
void reply_send(struct leader *l, const struct waiter *w, Lunar__Response *response);
void reply_error(struct leader *l, const struct waiter *w, int code, const char *text);
void reply_volume(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                  const char *device);
void reply_plain(struct leader *l, const struct waiter *w);
void reply_ping(struct leader *l, const struct waiter *w, const Lunar__Ping *ping);
void reply_status(struct leader *l, const struct waiter *w);
void reply_nodes(struct leader *l, const struct waiter *w);
void reply_volumes(struct leader *l, const struct waiter *w, const Lunar__VolumeList *m);
void reply_inspection(struct leader *l, const struct waiter *w, Lunar__Inspection *inspection);
void reply_grown(struct leader *l, const struct waiter *w, const struct catalogue_layer *layer);
/* --- reply_layers.c --- */
void reply_snapshot(struct leader *l, const struct waiter *w, const struct catalogue_snapshot *s);
void reply_group(struct leader *l, const struct waiter *w, const struct uuid *group);
void reply_snapshots(struct leader *l, const struct waiter *w, const Lunar__SnapshotList *m);
void reply_tree(struct leader *l, const struct waiter *w, const Lunar__TreeGet *m);

/* Commands. LUNAR_E_NOT_JOINED etc. as leader_io.send. */
int command_send(struct leader *l, const struct op *op, const struct catalogue_volume *v);
/* No answer is waited for. */
int command_resume(struct leader *l, const struct op *op);
int command_inspect(struct leader *l, uint32_t host_id, const struct uuid *command_id);
/* Whether the node sees that PV with the size that its device has here. */
int command_probe_added(struct leader *l, uint32_t host_id, const struct uuid *command_id);
int command_probe(struct leader *l, uint32_t host_id, const struct uuid *command_id,
                  const struct lvm_pv *pv);

#endif
