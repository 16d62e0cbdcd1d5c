/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stack whose consumer waits: the node's first step of a snapshot of several volumes at one
 * instant, or of one whose file system is to be frozen.
 *
 * Happy path: H, the device that consumers have open, is suspended with a flush: the kernel keeps
 * what is submitted from then on, and returns when all that was before has ended, in the daemon
 * and below; unless told not to, it freezes a file system that is mounted on H before (bdev_freeze)
 * and thaws it with the resume. So no tool and no mount point is needed, a container's included,
 * and whoever resumes H thaws: a later agent that adopts the stack does.
 *
 * Failure modes: I/O that does not end in time, as while a write waits for space: the deadline's
 * signal has the kernel undo all of it; a file system that has much to write out: that cannot be
 * interrupted, takes as long as it takes, and is then undone by the caller, whose deadline it is;
 * the device was left suspended by a failure all the same: it is resumed.
 */
#include "agent/stack_internal.h"

int stack_hold(const struct stack *stack, bool freeze, int deadline_ms, struct error *err)
{
    char name[DM_NAME_SIZE];

    dm_setup();
    stack_handle_name(&stack->spec, 'H', name);
    int rc = freeze ? dm_freeze_within(name, deadline_ms, err)
                    : dm_suspend_within(name, true, deadline_ms, err);
    if (rc < 0)
        stack_unhold(stack, NULL);
    return rc;
}

int stack_unhold(const struct stack *stack, struct error *err)
{
    struct dm_info_short info;
    char name[DM_NAME_SIZE];

    dm_setup();
    stack_handle_name(&stack->spec, 'H', name);
    int rc = dm_info(name, &info, err);
    return rc < 0 || !info.exists || !info.suspended ? rc : dm_resume(name, err);
}
