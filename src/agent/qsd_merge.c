/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging: what a layer holds goes into the one below it, by a daemon of the job's own.
 *
 * Happy path: the headers are looked at; the chain is opened, the upper layer and all below the
 * lower one read-only; QEMU's commit job copies the upper layer's allocated clusters, zeroes
 * included, into the lower one; when it is ready everything is copied and flushed; it is completed
 * and the daemon quits.
 *
 * Why other nodes may have the lower layer open meanwhile (SAFETY 15): they read it through the
 * upper one. Every cluster that the job changes is one that the upper layer has, so no reader ever
 * asks the lower one for it; the table entries of all other clusters keep their values, and a
 * sector of a table is written whole. So it does not matter either how far a job came that was
 * killed.
 *
 * The first-level table stays where it is, because QEMU makes the lower layer as large as the upper
 * one before it copies, and moves the table only if it has too few entries for that
 * (qcow2_grow_l1_table): whoever opened the layer before would go on reading the table at its
 * former place, which is used for something else by then. So the lower layer's table must have
 * entries for all of the upper one's size, however large the lower one itself is. And nothing below
 * the lower layer may reach behind its end: QEMU would hide that by zeroes, but not in the same
 * instant.
 *
 * Failure modes: headers that do not fit each other: UNSUPPORTED or METADATA, nothing is started;
 * an I/O error ends the job with QEMU's words, NO_SPACE where the lower layer is full; the daemon
 * does not answer or does not die: INDETERMINATE, the caller takes its maps away; cancelled: BUSY.
 * All of them leave the chain reading as it did.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/qcow2.h"
#include "agent/qsd_graph.h"
#include "base/helper.h"
#include "base/log.h"

#define ANSWER_DEADLINE_MS 30000
#define POLL_MS            500 /* how soon a cancel is heard, and progress told */
#define QUIT_DEADLINE_MS   60000
#define JOB                "merge"

static int check_below(const struct qsd_config *config, const struct qcow2_header *lower,
                       const struct qcow2_header *upper, struct error *err)
{
    struct qcow2_header below;
    int rc = 0;

    if (config->n_layers > 2 && lower->size < upper->size)
        rc = qcow2_read_header(config->layers[2].path, &below, err);
    else
        return 0;
    if (rc == 0 && below.size > lower->size)
        rc = error_set(err, LUNAR_E_UNSUPPORTED,
                       "below the lower layer of %" PRIu64 " bytes is one of %" PRIu64, lower->size,
                       below.size);
    return rc;
}

/* See above. And behind the upper layer's end the lower one's bytes do not show now, and would
 * afterwards. */
static int check_headers(const struct qsd_config *config, struct error *err)
{
    struct qcow2_header upper, lower;
    int rc = qcow2_read_header(config->layers[0].path, &upper, err);

    if (rc == 0)
        rc = qcow2_read_header(config->layers[1].path, &lower, err);
    if (rc < 0)
        return rc;
    if (lower.size > upper.size)
        return error_set(err, LUNAR_E_METADATA,
                         "the lower layer shows %" PRIu64 " bytes, the upper one %" PRIu64,
                         lower.size, upper.size);
    if (lower.l1_entries * QCOW2_L1_ENTRY_BYTES < upper.size)
        return error_set(err, LUNAR_E_UNSUPPORTED,
                         "the lower layer has a table for %llu bytes, the upper one %" PRIu64,
                         lower.l1_entries * QCOW2_L1_ENTRY_BYTES, upper.size);
    return check_below(config, &lower, &upper, err);
}

static int begin(struct qmp *qmp, const struct qsd_config *config, const struct qsd_job *job,
                 struct error *err)
{
    char top[QSD_NODE_SIZE], base[QSD_NODE_SIZE];

    qsd_node_name('v', config->layers[0].volume_short, config->layers[0].index, top);
    qsd_node_name('v', config->layers[1].volume_short, config->layers[1].index, base);
    return qmp_execute(qmp, "block-commit",
                       json_pack("{s:s, s:s, s:s, s:I, s:s}", "job-id", JOB, "device", top,
                                 "base-node", base, "speed", (json_int_t)job->speed, "on-error",
                                 "report"),
                       NULL, ANSWER_DEADLINE_MS, err);
}

static void note_progress(struct qmp *qmp, struct qsd_job *job)
{
    json_t *jobs = NULL;

    if (qmp_execute(qmp, "query-jobs", NULL, &jobs, ANSWER_DEADLINE_MS, NULL) == 0) {
        const json_t *one = json_array_get(jobs, 0);
        job->done = (uint64_t)json_integer_value(json_object_get(one, "current-progress"));
        job->total = (uint64_t)json_integer_value(json_object_get(one, "total-progress"));
    }
    json_decref(jobs);
}

/* 1: the job has ended well; 0: it goes on. */
static int take_event(struct qmp *qmp, const json_t *event, struct qsd_job *job, struct error *err)
{
    const char *name = json_string_value(json_object_get(event, "event"));
    const json_t *data = json_object_get(event, "data");
    const char *why = json_string_value(json_object_get(data, "error"));

    if (!name)
        return 0;
    if (json_is_integer(json_object_get(data, "len"))) {
        job->done = (uint64_t)json_integer_value(json_object_get(data, "offset"));
        job->total = (uint64_t)json_integer_value(json_object_get(data, "len"));
    }
    if (strcmp(name, "BLOCK_JOB_READY") == 0)
        return qmp_execute(qmp, "job-complete", json_pack("{s:s}", "id", JOB), NULL,
                           ANSWER_DEADLINE_MS, err);
    if (strcmp(name, "BLOCK_JOB_CANCELLED") == 0)
        return error_set(err, LUNAR_E_BUSY, "the merge was cancelled");
    if (strcmp(name, "BLOCK_JOB_COMPLETED") != 0)
        return 0;
    if (why) /* QEMU's words are the system's */
        return error_set(err, strcmp(why, strerror(ENOSPC)) == 0 ? LUNAR_E_NO_SPACE : -EIO,
                         "the merge failed: %s", why);
    return 1;
}

static int run_job(struct qmp *qmp, struct qsd_job *job, struct error *err)
{
    bool cancelled = false;

    for (;;) {
        json_t *event = NULL;
        int rc = qmp_event(qmp, POLL_MS, &event, err);
        if (rc == 1)
            rc = take_event(qmp, event, job, err);
        else if (rc == 0)
            note_progress(qmp, job);
        json_decref(event);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        if (job->cancel && !cancelled) {
            cancelled = true;
            rc = qmp_execute(qmp, "job-cancel", json_pack("{s:s}", "id", JOB), NULL,
                             ANSWER_DEADLINE_MS, err);
            if (rc < 0 && rc != LUNAR_E_QMP) /* it may have ended in this moment */
                return rc;
        }
    }
}

static int with_daemon(const struct qsd_config *config, struct qsd_job *job, struct error *err)
{
    char path[512];
    struct qmp *qmp;

    qsd_socket_path(config, path, sizeof path);
    int rc = qmp_open(path, ANSWER_DEADLINE_MS, &qmp, err);
    if (rc < 0)
        return rc;
    rc = begin(qmp, config, job, err);
    if (rc == 0)
        rc = run_job(qmp, job, err);
    if (rc == 0)
        rc = qmp_execute(qmp, "quit", NULL, NULL, ANSWER_DEADLINE_MS, err);
    qmp_close(qmp);
    return rc == LUNAR_E_QMP ? -EIO : rc;
}

int qsd_merge(const struct qsd_config *config, struct qsd_job *job, struct error *err)
{
    struct qsd qsd;
    struct error why = ERROR_INIT;
    int rc = check_headers(config, err);

    if (rc == 0)
        rc = qsd_start_job(config, &qsd, err);
    if (rc < 0)
        return rc;
    rc = with_daemon(config, job, err);
    if (rc == 0 && helper_wait_pidfd(qsd.pidfd, QUIT_DEADLINE_MS) < 0)
        rc = error_set(err, LUNAR_E_TIMEOUT, "the daemon has not ended within %d s of its quit",
                       QUIT_DEADLINE_MS / 1000);
    if (rc < 0)
        log_warn("merge_ended name=%s code=%s text=\"%s\"", config->name, error_name(rc),
                 err ? err->text : "");
    if (qsd_kill(&qsd, &why) < 0)
        return error_set(err, LUNAR_E_INDETERMINATE, "%s", why.text);
    return rc;
}
