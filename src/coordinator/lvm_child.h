/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One blocking child process with a deadline, captured output, and the death signal that SAFETY 1
 * asks for. For the LVM worker thread, which lives as long as the process.
 */
#ifndef LUNAR_COORDINATOR_LVM_CHILD_H
#define LUNAR_COORDINATOR_LVM_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

struct lvm_child_config {
    const char *path;
    char *const *argv;
    char *const *envp;
    int stdin_fd; /* becomes the child's standard input; -1: /dev/null */
    int timeout_ms;
    size_t out_max, err_max; /* bytes beyond are read and dropped */
};

struct lvm_child_output {
    char *out, *err; /* NUL-terminated, freed by lvm_child_output_free */
    size_t out_len, err_len;
    bool out_cut;    /* more than out_max came */
    int wait_status; /* as waitpid gives it */
};

/* 0: the child has ended, *ret tells how. LUNAR_E_EXEC: it never ran. LUNAR_E_INDETERMINATE: it was
 * killed after its time; then *ret_stuck is its pid if even that did not end it (stuck in the
 * kernel), else 0. *ret is always set. */
int lvm_child_run(const struct lvm_child_config *config, struct lvm_child_output *ret,
                  pid_t *ret_stuck, struct error *err);
void lvm_child_output_free(struct lvm_child_output *output);

#endif
