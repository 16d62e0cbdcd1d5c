/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Permit files and permits, as fencing/guard.h says them: guard_permit_take and its like for the
 * agent, the rest for the guard's model.
 *
 * Happy path: taken while the file says OPEN and nobody has it locked, and given back. Failure
 * modes: the holder dies, and its permit is back.
 */
#include "sim/guard_permits.h"

#include <assert.h>
#include <stdlib.h>

#include "fencing/guard.h"
#include "sim/ghost.h"

struct permit {
    struct process *holder; /* NULL: free */
    struct permit_file *file;
};

#define PERMITS_MAX 256

static struct permit_file *files[SIM_NODES_MAX + 1];
static struct permit permits[PERMITS_MAX];

struct permit_file *permit_file_of(const struct machine *m, uint32_t host, uint64_t generation)
{
    for (struct permit_file *f = files[m->index]; f; f = f->next)
        if (f->host == host && f->generation == generation)
            return f;
    return NULL;
}

struct permit_file *permit_file_make(const struct machine *m, uint32_t host, uint64_t generation)
{
    struct permit_file *f = permit_file_of(m, host, generation);
    if (f)
        return f;
    f = calloc(1, sizeof *f);
    if (!f)
        abort();
    *f = (struct permit_file){files[m->index], host, generation, GUARD_PERMIT_NONE, false, false};
    files[m->index] = f;
    return f;
}

bool permit_is_held(const struct permit_file *f)
{
    for (int i = 0; i < PERMITS_MAX; i++)
        if (permits[i].holder && permits[i].file == f)
            return true;
    return false;
}

int guard_permit_take(const char *run_dir, const char *pool_name, uint32_t host_id,
                      uint64_t generation, int *ret_permit, struct error *err)
{
    struct permit_file *f = permit_file_of(process_current()->machine, host_id, generation);
    (void)run_dir;
    if (!f || f->locked || f->byte != GUARD_PERMIT_OPEN)
        return error_set(err, LUNAR_E_FENCED, "the guard of pool %s lets nothing be mapped",
                         pool_name);
    int i = 0;
    while (permits[i].holder)
        assert(++i < PERMITS_MAX);
    permits[i] = (struct permit){process_current(), f};
    *ret_permit = i;
    return 0;
}

void guard_permit_give_back(int permit)
{
    assert(permits[permit].holder == process_current());
    permits[permit].holder = NULL;
}

void permits_process_gone(const struct process *p)
{
    for (int i = 0; i < PERMITS_MAX; i++)
        if (permits[i].holder == p)
            permits[i].holder = NULL;
}

void permits_machine_off(const struct machine *m)
{
    files[m->index] = NULL;
}
