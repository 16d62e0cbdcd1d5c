/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who leads, from the LUN alone: for a `lunarctl status` that nobody answered.
 *
 * Happy path: the leader record and the beat, read twice, LOOK_S apart; one sentence on standard
 * error. Failure modes: no agent that names the device, or a LUN that cannot be read: nothing is
 * said, because the failure of the command itself was shown already.
 */
#include "who_leads.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/io.h"
#include "diskrpc/message.h"
#include "diskrpc/superblock.h"
#include "request.h"

#define AGENT_ANSWERS_MS 2000
/* A leader beats each second. */
#define LOOK_S 3

void who_leads_text(const struct leading *first, const struct leading *second, char *ret,
                    size_t size)
{
    bool own = second->beat_rc == 0 && second->beat.writer.run_or_term == second->lease.lver;
    const char *name = own && second->beat.node_name[0] ? second->beat.node_name : "unknown";
    int n;

    if (second->lease.timestamp == 0) {
        snprintf(ret, size,
                 "the LUN says: nobody leads; is lunar-coordinator running on a node of "
                 "this pool?");
        return;
    }
    n = snprintf(ret, size, "the LUN says: host %" PRIu64 " (node %s) has the lease, term %" PRIu64,
                 second->lease.owner_id, name, second->lease.lver);
    if (n < 0 || (size_t)n >= size)
        return;
    ret += n;
    size -= (size_t)n;
    if (first->lease.lver != second->lease.lver)
        snprintf(ret, size, ", since a moment ago; try again");
    else if (!own)
        snprintf(ret, size, ", and has not beaten yet");
    else if (first->beat_rc == 0 && first->beat.count == second->beat.count)
        snprintf(
            ret, size,
            ", but has not beaten for %d s: it is stopped or hangs, or has no path to the LUN; a "
            "standby takes over, where one runs",
            LOOK_S);
    else
        snprintf(ret, size,
                 ", and beats (%s): look at this node's path to it, with `lunarctl rpc top`",
                 beat_phase_name(second->beat.phase));
}

static int look(int fd, const struct superblock *sb, struct leading *ret)
{
    char space[48];
    pool_lockspace(&sb->pool_id, space);
    int rc = leader_read(fd, &sb->layout, LAYOUT_RESOURCE_COORDINATOR, space, &ret->lease, NULL);
    ret->beat_rc = beat_read(fd, &sb->layout, &sb->pool_id, &ret->beat, NULL);
    return rc;
}

void who_leads_explain(const struct cli *cli)
{
    struct leading first = {0}, second = {0};
    struct superblock sb;
    char text[PAGE_NAME_SIZE + 300];
    Lunar__Envelope *answer = request_agent_status(cli, AGENT_ANSWERS_MS);

    if (!answer)
        return;
    int fd = io_open(answer->response->agent_status->device, 0, NULL);
    envelope_free(answer);
    if (fd < 0)
        return;
    int rc = superblock_read(fd, &sb, NULL);
    if (rc == 0)
        rc = look(fd, &sb, &first);
    if (rc == 0) {
        sleep(LOOK_S);
        rc = look(fd, &sb, &second);
    }
    close(fd);
    if (rc < 0)
        return;
    who_leads_text(&first, &second, text, sizeof text);
    cli_progress("%s", text);
}
