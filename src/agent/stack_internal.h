/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the stack share: names, the state file, the scan of what stands in the kernel,
 * the teardown.
 *
 * Names. VDUSE and serial: "v" and the volume's short id in 16 digits. Device-mapper:
 * "lunar-<vduse>-h", "-p", "-l<index>"
 * ("-l<index>-v<16 hex>" for a layer of another volume, below a clone),
 * "lunar-job-<vduse>-<index>". Uuids: "LUNAR-<kind>-<pool short>-<attachment>-<name>", kinds L, P,
 * H and J: with pool and attachment in it, what stands in the kernel can be told apart and torn
 * down without any file.
 */
#ifndef LUNAR_AGENT_STACK_INTERNAL_H
#define LUNAR_AGENT_STACK_INTERNAL_H

#include "agent/stack.h"

#define STACK_VDUSE_SIZE 24
#define STACK_PATH_SIZE  512
#define DM_UUID_SIZE     129 /* the kernel's */

void stack_vduse_name(const struct stack_spec *spec, char ret[STACK_VDUSE_SIZE]);
/* kind 'H' or 'P' */
void stack_handle_name(const struct stack_spec *spec, char kind, char ret[DM_NAME_SIZE]);
void stack_layer_name(const struct stack_spec *spec, uint32_t i, char ret[DM_NAME_SIZE]);
void stack_job_name(const struct stack_spec *spec, char ret[DM_NAME_SIZE]);
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
/* Removes the folder with all that is in it (flat). Absent is fine. */
int stack_state_remove(const char *root, const struct uuid *attachment, struct error *err);

/* ---- steps shared by attach, restart, recover, format ---- */
/* Maps one layer under a name, with the guard's permit; `kind` 'L' or 'J'. */
int stack_map_layer(const struct stack_life *life, const struct stack_spec *spec, uint32_t i,
                    char kind, const char *name, bool read_only, struct error *err);
struct stack_qsd_config {
    struct qsd_config config;
    char run_dir[STACK_PATH_SIZE], name[STACK_VDUSE_SIZE];
};
/* Without layers: enough to find, to stop or to kill a daemon. Points into itself: not to be
 * copied. */
void stack_qsd_config(const char *root, const struct stack_spec *spec,
                      struct stack_qsd_config *ret);
/* fsync of a device; system calls only, for helper_call. */
int stack_flush_device(const char *path);
int stack_make_link(const struct stack *stack, struct error *err);
/* Removes the link if it leads to this attachment's H. */
void stack_remove_link(const struct stack *stack);

#endif
