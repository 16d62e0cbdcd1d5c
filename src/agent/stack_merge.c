/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The merge job (SAFETY 15, 18): maps a chain's layers under job names, the second one alone to be
 * written, lets a daemon of its own copy the first into it, and takes all away again.
 *
 * Failure modes: whatever fails, the maps are wiped and removed, and the daemon is dead or cannot
 * reach the LUN any more; a daemon or a map that stays is INDETERMINATE. The agent dies: its daemon
 * dies with it; the next agent wipes the maps, as of any job (stack_recover.c). Then the job is
 * asked for again and copies everything once more.
 */
#include <stdio.h>
#include <stdlib.h>

#include "agent/stack_internal.h"
#include "base/helper.h"
#include "base/log.h"

#define FLUSH_DEADLINE_MS 120000
#define WRITABLE          1u

static int remove_maps(const struct stack_spec *spec, struct error *err)
{
    char name[DM_NAME_SIZE];
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < spec->n_layers; i++) {
        stack_job_name(spec, i, name);
        rc = dm_wipe_and_remove(name, err);
    }
    return rc;
}

static int map_all(const struct stack_life *life, const struct stack_spec *spec,
                   struct qsd_layer *layers, struct error *err)
{
    char name[DM_NAME_SIZE];
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < spec->n_layers; i++) {
        stack_job_name(spec, i, name);
        rc = stack_map_layer(life, spec, i, 'J', name, i != WRITABLE, err);
        if (rc == 0)
            rc = dm_path(name, layers[i].path, err);
        layers[i].volume_short = spec->layers[i].volume_short;
        layers[i].index = spec->layers[i].index;
    }
    return rc;
}

static int run_merge(const char *root, const struct stack_spec *spec,
                     const struct qsd_layer *layers, struct qsd_job *job, struct error *err)
{
    struct stack_qsd_config config;

    stack_qsd_config(root, spec, &config);
    config.name[0] = 'm'; /* no volume's */
    config.config.layers = layers;
    config.config.n_layers = spec->n_layers;
    config.config.writable = WRITABLE;
    config.config.job = true;
    config.config.size = INT64_MAX; /* whatever they say */
    int rc = qsd_merge(&config.config, job, err);
    return rc < 0 ? rc
                  : helper_call(stack_flush_device, layers[WRITABLE].path, FLUSH_DEADLINE_MS, err);
}

int stack_merge(const char *root, const struct stack_life *life, const struct stack_spec *spec,
                struct qsd_job *job, struct error *err)
{
    struct error why = ERROR_INIT;
    int64_t begin = clock_ms();

    dm_setup();
    int rc = stack_spec_check(spec, err);
    if (rc == 0 && spec->n_layers < 2)
        rc = error_set(err, LUNAR_E_INVALID, "a merge of %u layers", spec->n_layers);
    if (rc < 0)
        return rc;
    struct qsd_layer *layers = calloc(spec->n_layers, sizeof *layers);
    if (!layers)
        abort();
    rc = remove_maps(spec, err); /* of an attempt before */
    if (rc == 0)
        rc = stack_run_dir_make(root, &spec->attachment_id, err);
    if (rc == 0)
        rc = map_all(life, spec, layers, err);
    if (rc == 0)
        rc = run_merge(root, spec, layers, job, err);
    free(layers);
    if (remove_maps(spec, &why) < 0)
        return error_set(err, LUNAR_E_INDETERMINATE, "a map of the merge stands: %s", why.text);
    stack_state_remove(root, &spec->attachment_id, NULL);
    if (rc == LUNAR_E_INDETERMINATE) /* no map: nothing can take effect any more */
        rc = err ? err->code = LUNAR_E_TIMEOUT : LUNAR_E_TIMEOUT;
    if (rc == 0)
        log_info("stack_merged job=%s bytes=%llu ms=%d", spec->name, (unsigned long long)job->done,
                 (int)(clock_ms() - begin));
    return rc;
}
