/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the catalogue so that it may be acted upon.
 *
 * Happy path: what the disk holds is known and copied (committer_settle), and the catalogue is made
 * of that very text. Failure modes: a late write lands meanwhile: the catalogue is what it was, and
 * the next look at the disk restores that. The LUN does not answer, or the copy cannot be stored:
 * tried for a few seconds, then an error, and the caller ends the process, because the next leader
 * begins with a look at everything.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "coordinator/coordinator_internal.h"

#define TRUTH_TRIES   4
#define TRUTH_PAUSE_S 1

static int report(struct lvm *lvm, const char *text, struct catalogue *ret, struct error *err)
{
    struct lvm_report report = {0};
    int rc = lvm_report(lvm, text, &report, err);
    if (rc < 0)
        return rc;
    rc = catalogue_build(&report, ret, err);
    lvm_report_free(&report);
    return rc;
}

static int try_once(struct lvm *lvm, struct committer *committer, struct catalogue *ret,
                    struct error *err)
{
    int rc = committer_settle(committer, err);
    return rc == 0 ? report(lvm, committer_text(committer), ret, err) : rc;
}

struct catalogue *truth_read(struct lvm *lvm, struct committer *committer, struct error *err)
{
    struct catalogue *c = calloc(1, sizeof *c);

    if (!c)
        abort();
    for (int i = 0; i < TRUTH_TRIES; i++) {
        if (i > 0)
            sleep(TRUTH_PAUSE_S);
        int rc = try_once(lvm, committer, c, err);
        if (rc == 0)
            return c;
        log_error("catalogue_unreadable code=%s text=\"%s\"", error_name(rc), err->text);
        if (rc == LUNAR_E_STALE)
            break;
    }
    free(c);
    return NULL;
}
