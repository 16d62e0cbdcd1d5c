/* SPDX-License-Identifier: Apache-2.0 */
/* What reservation_key.c, reservation.c and reservation_scsi.c share, and the fake of the tests:
 * the commands of one path, and the PVs that are made of paths. */
#ifndef LUNAR_FENCING_RESERVATION_INTERNAL_H
#define LUNAR_FENCING_RESERVATION_INTERNAL_H

#include "fencing/reservation.h"

#define RESERVATION_PATHS_MAX 32u /* of a PV */
#define RESERVATION_PVS_MAX   64u
#define RESERVATION_NAME_SIZE 32u

/* Service actions of PERSISTENT RESERVE IN and OUT, and the one type in use. */
enum {
    PR_IN_READ_KEYS = 0,
    PR_IN_READ_RESERVATION = 1,
    PR_IN_REPORT_CAPABILITIES = 2,
};
enum {
    PR_OUT_REGISTER = 0,
    PR_OUT_RESERVE = 1,
    PR_OUT_CLEAR = 3,
    PR_OUT_PREEMPT_AND_ABORT = 5,
    PR_OUT_REGISTER_AND_IGNORE = 6,
};
#define PR_TYPE_WRITE_EXCLUSIVE_ALL 7u

/* The answer of READ KEYS with RESERVATION_KEYS_MAX keys: below the 65535 bytes of the command. */
#define PR_ANSWER_SIZE (8u + 8u * RESERVATION_KEYS_MAX)

struct pr_out {
    uint8_t action, type;
    uint64_t key, action_key;
    bool aptpl;
};

/*
 * The commands of one device. `in` fills at most `size` bytes and returns how many, or an error.
 * `out`: 0; -EBADE: reservation conflict, nothing was done; LUNAR_E_INDETERMINATE: it may have been
 * done or may still be; LUNAR_E_UNSUPPORTED: the device knows no such command. `find_paths` finds
 * the kernel's names of a device's paths, itself if it is none of dm-multipath's; `open_path` gets
 * one.
 */
struct reservation_ops {
    int (*find_paths)(const char *device, char ret[RESERVATION_PATHS_MAX][RESERVATION_NAME_SIZE],
                      struct error *err);
    int (*open_path)(const char *name, void **ret_path, struct error *err);
    void (*close_path)(void *path);
    int (*in)(void *path, uint8_t action, uint8_t *answer, size_t size, struct error *err);
    int (*out)(void *path, const struct pr_out *command, struct error *err);
    void (*pause_ms)(int ms);
};
extern const struct reservation_ops reservation_scsi_ops;

int reservation_open_with(const struct reservation_ops *ops, const char *const *devices,
                          uint32_t n_devices, const struct uuid *pool_id, struct reservation **ret,
                          struct error *err);
bool reservation_key_is_lunar(uint64_t key);

#endif
