/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the stack share: names, the state file, the scan of what stands in the kernel,
 * the teardown.
 *
 * Names. VDUSE and serial: "v" and the volume's short id in 16 digits. Device-mapper:
 * "lunar-<vduse>-h", "-p", "-l<index>"
 * ("-l<index>-v<16 hex>" for a layer of another volume, below a clone), "-t<index>-<hex>" for the
 * tail of a layer that begins at that many 4 KiB blocks, "lunar-job-<vduse>-<index>" (and "-v<16
 * hex>" as above). Uuids: "LUNAR-<kind>-<pool short>-<attachment>-<name>", kinds L, T, P, H and J:
 * with pool and attachment in it, what stands in the kernel can be told apart and torn down without
 * any file.
 */
#ifndef LUNAR_AGENT_STACK_INTERNAL_H
#define LUNAR_AGENT_STACK_INTERNAL_H

#include "agent/stack.h"

#define STACK_VDUSE_SIZE 24
#define STACK_PATH_SIZE  512
#define STACK_ALIGN                                                                                \
    4096u /* of segments: LVM's extents are multiples of it, and no LUN has larger sectors */
#define DM_UUID_SIZE 129 /* the kernel's */

void stack_vduse_name(const struct stack_spec *spec, char ret[STACK_VDUSE_SIZE]);
/* kind 'H' or 'P' */
void stack_handle_name(const struct stack_spec *spec, char kind, char ret[DM_NAME_SIZE]);
void stack_layer_name(const struct stack_spec *spec, uint32_t i, char ret[DM_NAME_SIZE]);
void stack_job_name(const struct stack_spec *spec, uint32_t i, char ret[DM_NAME_SIZE]);
void stack_dm_uuid(const struct stack_spec *spec, char kind, const char *name,
                   char ret[DM_UUID_SIZE]);
void stack_run_dir(const char *root, const struct uuid *attachment, char ret[STACK_PATH_SIZE]);

/* ---- one device of lunar's that stands in the kernel ---- */
struct stack_device {
    char kind;
    uint64_t pool_short;
    struct uuid attachment;
    char name[DM_NAME_SIZE];
};
/* False for a uuid that is not of the form above. */
bool stack_device_parse(const char *name, const char *uuid, struct stack_device *ret);
/* All of them, of every pool; free(*ret). */
int stack_scan(struct stack_device **ret, size_t *ret_n, struct error *err);

/* ---- state.json in the attachment's folder ---- */
int stack_state_save(const char *root, const struct stack *stack, struct error *err);
/* Fills spec, qsd.pid, qsd.start_time and qsd_restarts. LUNAR_E_NOT_FOUND without a file,
 * LUNAR_E_CORRUPT for anything that was not written by stack_state_save for this attachment.
 * stack_spec_free(&ret->spec) after success. */
int stack_state_load(const char *root, const struct uuid *attachment, struct stack *ret,
                     struct error *err);
/* The folder alone, for a job. */
int stack_run_dir_make(const char *root, const struct uuid *attachment, struct error *err);
/* Removes the folder with all that is in it (flat). Absent is fine. */
int stack_state_remove(const char *root, const struct uuid *attachment, struct error *err);

/* ---- steps shared by attach, restart, recover, format ---- */
/* Maps one layer under a name, with the guard's permit; `kind` 'L' or 'J'. */
int stack_map_layer(const struct stack_life *life, const struct stack_spec *spec, uint32_t i,
                    char kind, const char *name, bool read_only, struct error *err);
/* dm_create and dm_load of what may reach the LUN, with the guard's permit. `lun` of
 * stack_layer_segments: "major:minor". */
int stack_create_permitted(const struct stack_life *life, const char *pool, const char *name,
                           const char *uuid, const struct dm_segment *segments, uint32_t n,
                           bool read_only, struct error *err);
/* The layer's bytes [from, end of its segments) as a table, with room for one line more; malloc'ed.
 */
int stack_layer_table(const struct stack_spec *spec, const struct stack_layer *layer, uint64_t from,
                      struct dm_segment **ret, uint32_t *ret_n, struct error *err);
/* With segments of its own: free() them. */
void stack_layer_copy(struct stack_layer *to, const struct stack_layer *from);
/* Segments and generation, a copy of them, in place of its own. */
void stack_layer_take_map(struct stack_layer *to, const struct stack_layer *from);
uint64_t stack_layer_bytes(const struct stack_layer *layer);
/* Can this layer, the i-th, be mapped? *ret_bytes is what its segments come to. */
int stack_layer_check(const struct stack_layer *layer, uint32_t i, uint64_t *ret_bytes,
                      struct error *err);
struct stack_qsd_config {
    struct qsd_config config;
    char run_dir[STACK_PATH_SIZE], name[STACK_VDUSE_SIZE];
};
/* Without layers: enough to find, to stop or to kill a daemon. Points into itself: not to be
 * copied. */
void stack_qsd_config(const char *root, const struct stack_spec *spec,
                      struct stack_qsd_config *ret);

/* Is the new map the old one, with more behind it or of a newer generation? LUNAR_E_STALE if not.
 */
int stack_layer_check_longer(const struct stack_layer *old, const struct stack_layer *layer,
                             struct error *err);
/* "major:minor" of a block device. */
int stack_device_number(const char *path, char *ret, size_t size, struct error *err);
/* Writes zeroes to the bytes [from, to) of a device, and flushes it. */
int stack_zero(const char *path, uint64_t from, uint64_t to, struct error *err);

/* ---- tails: stack_tail.c ---- */
/* The tail behind `start` bytes of a layer, waiting; and the line of a table that leads to it. */
int stack_tail_make(const struct stack_spec *spec, const struct stack_layer *layer, uint64_t start,
                    struct dm_segment *ret, struct error *err);
/* Does the map of layer i end where I/O waits, if it should? False after a teardown that came
 * half-way. */
int stack_tail_is_sound(const struct stack_spec *spec, uint32_t i, bool *ret_sound,
                        struct error *err);
/* Of the devices of one attachment: error tables into its tails, so that what waits in them ends;
 * and their removal, when no L map leads to them any more. */
int stack_tails_wipe(const struct stack_device *devices, size_t n, struct error *err);
int stack_tails_remove(const struct uuid *attachment, struct error *err);
/* The same for a stack in use: those that lead somewhere stay. */
int stack_tails_remove_loose(const struct uuid *attachment, struct error *err);
/* The map of layer i, to which nothing is written any more, ends with its segments and is
 * read-only, as an attach would have made it. LUNAR_E_BUSY, nothing is changed: the kernel has
 * mapped other bytes than the spec tells, as when a growth was cut short. */
int stack_tail_freeze(const struct stack_life *life, const struct stack_spec *spec, uint32_t i,
                      struct error *err);

/* A read-only map gets that table. LUNAR_E_TIMEOUT: what is on its way does not come to rest; the
 * table is as it was. */
int stack_exchange_permitted(const struct stack_life *life, const struct stack_spec *spec,
                             const char *name, const struct dm_segment *table, uint32_t n,
                             struct error *err);

/* Nothing to do unless stack->relinking: what a relink left is done, but for the removal of the
 * strays. */
int stack_relink_finish(const char *root, struct stack *stack, struct error *err);

/* The end of a job's work through the map `name`, which came to `rc`: the map is wiped and removed,
 * so that nothing of it can take effect any more. LUNAR_E_INDETERMINATE: the map stands. */
int stack_job_end(const char *name, int rc, struct error *err);

/* Layer i for the daemon; its map stands. */
int stack_qsd_layer(const struct stack_spec *spec, uint32_t i, struct qsd_layer *ret,
                    struct error *err);
/* Removes the L maps of this attachment that the spec does not name, and the tails that nothing
 * leads to: of an overlay or a growth whose agent died before the state named the map, or of
 * layers that were dropped; no daemon knows them. Not while stack->relinking. The caller holds
 * stack->maps, or nobody else knows the stack yet. */
int stack_remove_strays(const struct stack_spec *spec, struct error *err);
/* fsync of a device; system calls only, for helper_call. */
int stack_flush_device(const char *path);
int stack_make_link(const struct stack *stack, struct error *err);
/* Removes the link if it leads to this attachment's H. */
void stack_remove_link(const struct stack *stack);

#endif
