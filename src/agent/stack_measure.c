/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The measuring job (SAFETY 14, 18): where does what a layer holds end?
 *
 * Happy path: the layer is mapped read-only under a job name, `qemu-img check` goes through all
 * tables of the image in it and tells the end of its last cluster, of those that are referenced and
 * those that are counted, tables and all; the map is taken away again. Failure modes: an image with
 * errors, or a check that could not be completed, has no end; clusters that are counted and not
 * referenced (a killed daemon leaves them) are no error, and lie before the end. Whatever fails,
 * the map is wiped and removed; one that stays is INDETERMINATE. The agent dies: the next one wipes
 * the map, as of any job (stack_recover.c).
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/stack_internal.h"
#include "base/helper.h"
#include "base/log.h"

/* It reads tables alone, a ten-thousandth of the layer: 0.05 s for 64 GiB where nothing is slow. */
#define CHECK_DEADLINE_MS 60000
/* A line for each leaked cluster comes before what is wanted. */
#define OUTPUT_MAX (1u << 20)

static json_int_t number(const json_t *report, const char *key)
{
    return json_integer_value(json_object_get(report, key));
}

int measure_read(const char *report, uint64_t *ret_end, struct error *err)
{
    /* Words of warning may stand before it. */
    const char *begin = strchr(report, '{');
    json_t *json = begin ? json_loads(begin, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    json_int_t end = number(json, "image-end-offset");
    json_int_t bad = number(json, "corruptions") + number(json, "check-errors");
    bool whole = json_is_integer(json_object_get(json, "check-errors"));

    json_decref(json);
    if (!whole || end <= 0)
        return error_set(err, LUNAR_E_EXEC, "qemu-img check tells no end: %.200s", report);
    if (bad != 0)
        return error_set(err, LUNAR_E_CORRUPT, "the layer's image has %lld errors", (long long)bad);
    *ret_end = (uint64_t)end;
    return 0;
}

/* What is leaked makes it exit with 3, and errors with others: what it says counts. */
static int check(const char *path, uint64_t *ret_end, struct error *err)
{
    const char *const argv[] = {"qemu-img", "check", "-f", "qcow2", "--output=json", path, NULL};
    char *output = calloc(1, OUTPUT_MAX);
    struct error why = ERROR_INIT;

    if (!output)
        abort();
    int rc = helper_run(argv, CHECK_DEADLINE_MS, output, OUTPUT_MAX, &why);
    if (rc == 0 || rc == LUNAR_E_EXEC)
        rc = measure_read(output, ret_end, err);
    else
        rc = error_set(err, rc, "%s", why.text);
    free(output);
    return rc;
}

int stack_measure(const struct stack_life *life, const struct stack_spec *spec, uint64_t *ret_end,
                  struct error *err)
{
    char name[DM_NAME_SIZE], path[32];
    int64_t begin = clock_ms();

    dm_setup();
    int rc = stack_spec_check(spec, err);
    if (rc < 0)
        return rc;
    stack_job_name(spec, 0, name);
    rc = dm_wipe_and_remove(name, err); /* of an attempt before */
    if (rc == 0)
        rc = stack_map_layer(life, spec, 0, 'J', name, true, err);
    if (rc < 0)
        return rc;
    rc = dm_path(name, path, err);
    if (rc == 0)
        rc = check(path, ret_end, err);
    rc = stack_job_end(name, rc, err);
    if (rc == 0)
        log_info("stack_measured layer=%016" PRIx64 ".%u size=%" PRIu64 " end=%" PRIu64 " ms=%d",
                 spec->layers[0].volume_short, spec->layers[0].index,
                 stack_layer_bytes(&spec->layers[0]), *ret_end, (int)(clock_ms() - begin));
    return rc;
}
