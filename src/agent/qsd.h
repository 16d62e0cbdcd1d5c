/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One qemu-storage-daemon per attached thin volume: started in a session of its own so that it
 * outlives the agent, driven over QMP on a Unix socket, found again after an agent restart.
 * Blocking, worker threads only; one thread at a time per volume.
 *
 * The node graph: host_device "p-..." over each layer's map, qcow2 "v-..." on top, throttle t0 over
 * the leaf, one vduse-blk export of t0. Nodes are named after the layer (qsd_node_name), not after
 * its place, which a snapshot changes; "q-..." and "w-..." is the second pair of names, for a layer
 * that is opened anew while its former nodes stand. Backing is given explicitly, node by node;
 * backing strings in headers are never trusted (SAFETY 16).
 */
#ifndef LUNAR_AGENT_QSD_H
#define LUNAR_AGENT_QSD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "base/error.h"

#define QMP_LINE_MAX (1u << 20)

struct qmp;
/* Connects and negotiates; deadline_ms for the whole. */
int qmp_open(const char *socket_path, int deadline_ms, struct qmp **ret, struct error *err);
void qmp_close(struct qmp *qmp);
/* Runs one command; steals `arguments` (may be NULL). *ret (may be NULL) is the return value, a new
 * reference. A QMP error is LUNAR_E_QMP with its words; silence until the deadline
 * LUNAR_E_INDETERMINATE; a line over 1 MiB or not JSON LUNAR_E_CORRUPT. Events met on the way are
 * queued for qmp_event. */
int qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, json_t **ret,
                int deadline_ms, struct error *err);
/* Next event, waiting up to deadline_ms (0: do not wait): 1 and a new reference, 0 none, < 0 error
 * (hang-up: -EPIPE). */
int qmp_event(struct qmp *qmp, int deadline_ms, json_t **ret, struct error *err);
/* The line parser alone, for fuzzing: 0 and a new reference, or LUNAR_E_CORRUPT. */
int qmp_parse_line(const char *line, size_t len, json_t **ret, struct error *err);

/* "p-<volume's short id>.<index>" of the layer's protocol node (kind 'p'), "v-..." of its QCOW2
 * node (kind 'v'). Returns `ret`. */
#define QSD_NODE_SIZE 32 /* QEMU's, with the NUL */
char *qsd_node_name(char kind, uint64_t volume_short, uint32_t index, char ret[QSD_NODE_SIZE]);

struct qsd_layer {
    uint64_t volume_short;
    uint32_t index;
    bool second;   /* its nodes have the second pair of names: qsd_relink.c */
    char path[32]; /* of its device */
};
struct qsd_config {
    const char *run_dir;            /* per volume; socket, pid file and log live here */
    const char *name;               /* VDUSE name, at most 20 bytes (virtio serial) */
    const struct qsd_layer *layers; /* leaf first */
    uint32_t n_layers;
    bool job;          /* exports nothing, dies with the thread that started it */
    uint32_t writable; /* which of them is; the others are never written (SAFETY 15) */
    uint64_t
        size; /* virtual size; a leaf that says less is grown to it, one that says more refused */
};
struct qsd {
    pid_t pid;
    uint64_t start_time; /* /proc/PID/stat field 22: tells a reused pid */
    int pidfd;           /* readable when it exits; close() it */
};

/* Starts the daemon, builds the graph, exports; returns when the VDUSE device exists (not yet on
 * the vdpa bus). The size is checked before the export. LUNAR_E_IN_USE when one is running already,
 * LUNAR_E_UNSUPPORTED without VDUSE in the kernel. If the vdpa device is there (its former server
 * died), the daemon takes over what waits. */
int qsd_start(const struct qsd_config *config, struct qsd *ret, struct error *err);
/* Layers and nothing above them, for a job. */
int qsd_start_job(const struct qsd_config *config, struct qsd *ret, struct error *err);
/* The same as qsd_start, but every request is answered EIO: it drains a disk whose server died
 * (SAFETY 10). Layers are ignored. */
int qsd_start_failing(const struct qsd_config *config, struct qsd *ret, struct error *err);
/* Finds a running one by its pid file; LUNAR_E_NOT_FOUND if it is gone. Does not speak to it. */
int qsd_adopt(const struct qsd_config *config, struct qsd *ret, struct error *err);
/* Does the running daemon export the disk? LUNAR_E_NOT_FOUND: it says no (its starter died
 * half-way). Other errors: it does not say. */
int qsd_check_export(const struct qsd_config *config, struct error *err);
/* Under the running disk: `overlay`, which is empty, becomes the leaf over `below`, and when this
 * returns 0 nothing is written to `below` any more. *ret_pause_us is how long requests stood still,
 * 0 if the overlay was the leaf before. Layers are ignored. `fresh`: this daemon cannot have heard
 * of the overlay, and its leaf is `below`. LUNAR_E_STALE: another one is the leaf. */
int qsd_overlay(const struct qsd_config *config, const struct qsd_layer *overlay,
                const struct qsd_layer *below, bool fresh, int *ret_pause_us, struct error *err);
/* Under the running disk: its graph becomes that of config->layers, whose leaf is the disk's. A
 * layer of whose name pair no node stands is opened anew, the layer above it is put upon it, and
 * nodes of layers that are not named any more, or by their other pair, are closed. The same again
 * goes on, or finds nothing to do. *ret_pause_us is how long requests stood still. LUNAR_E_STALE:
 * another one is the leaf. */
int qsd_relink(const struct qsd_config *config, int *ret_pause_us, struct error *err);
/* The leaf and the disk get config->size. */
int qsd_resize(const struct qsd_config *config, struct error *err);
/* block-export-del, quit, wait; SIGKILL after the deadline. The vdpa device must be gone: checked,
 * LUNAR_E_IN_USE. */
int qsd_stop(const struct qsd_config *config, struct qsd *qsd, struct error *err);
/* SIGKILL and wait: for one that does not answer. LUNAR_E_INDETERMINATE if the kernel does not let
 * it die. */
int qsd_kill(struct qsd *qsd, struct error *err);
/* 1 alive, 0 exited. */
bool qsd_alive(const struct qsd *qsd);
/* <run_dir>/qmp.sock */
void qsd_socket_path(const struct qsd_config *config, char *ret, size_t size);
/* <run_dir>/events.sock, of a monitor for qsd_events.h alone */
void qsd_events_path(const struct qsd_config *config, char *ret, size_t size);

/* A job's order and its state, shared with whoever watches or cancels it. */
struct qsd_job {
    uint64_t speed; /* bytes per second; 0: as fast as it goes */
    _Atomic bool cancel;
    _Atomic uint64_t done, total; /* bytes */
};
/* Copies what layers[0] holds into layers[1] (`writable` is 1) with a daemon of its own, which
 * exports nothing and dies with the calling thread; takes as long as it takes. 0: layers[1] shows
 * what both showed together, and that is flushed. LUNAR_E_BUSY: cancelled; LUNAR_E_NO_SPACE:
 * layers[1] is full; LUNAR_E_UNSUPPORTED, _METADATA, _CORRUPT: never; LUNAR_E_INDETERMINATE: the
 * daemon may be writing still. Begun again after any failure, it copies all of it once more. */
int qsd_merge(const struct qsd_config *config, struct qsd_job *job, struct error *err);

/* vdpa bus, by netlink or the `vdpa` tool. `ret_disk` is "/dev/vdX" found by the serial.
 * Idempotent. */
int vdpa_add(const char *name, char ret_disk[64], struct error *err);
int vdpa_find(const char *name, char ret_disk[64], struct error *err); /* LUNAR_E_NOT_FOUND */
bool vdpa_present(const char *name); /* on the bus, with a disk or without */
/* Never call while the QSD is dead or the disk is open (it hangs in the kernel): checked,
 * LUNAR_E_IN_USE. */
int vdpa_del(const char *name, struct error *err);
/* Is a process serving the VDUSE device? false too when there is no such device. */
bool vduse_served(const char *name);
/* Removes a VDUSE device that a killed server left behind; it must not be on the vdpa bus. Absent
 * is fine. */
int vduse_destroy(const char *name, struct error *err);
/* LUNAR_E_UNSUPPORTED with a sentence when the kernel's modules are not loaded. */
int vduse_check(struct error *err);

#endif
