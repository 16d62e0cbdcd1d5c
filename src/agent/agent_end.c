/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last steps of a leave that reach beyond the agent: the coordinator's process on this node is
 * asked to go, ours ends. The simulator, where processes are modelled, has its own.
 *
 * Failure modes: no coordinator, or one that does not go in time: the leave goes on and sanlock has
 * the last word, which refuses it while the lease is held.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/le.h"
#include "base/log.h"

/* The leader may be in the middle of a commit: it waits for that up to COORDINATOR_RESIGN_MS. */
#define LEAVE_RESIGN_MS 8000

static int send_resign(int fd)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__LocalRequest request = LUNAR__LOCAL_REQUEST__INIT;
    Lunar__Resign resign = LUNAR__RESIGN__INIT;
    uint8_t *bytes, frame[64];
    uint32_t len;

    request.op_case = LUNAR__LOCAL_REQUEST__OP_RESIGN;
    request.resign = &resign;
    e.body_case = LUNAR__ENVELOPE__BODY_LOCAL_REQUEST;
    e.local_request = &request;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return -1;
    le32_put(frame, len);
    memcpy(frame + 4, bytes, len);
    free(bytes);
    return write(fd, frame, 4 + len) == (ssize_t)(4 + len) ? 0 : -1;
}

void agent_resign_coordinator(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(addr.sun_path, path, sizeof addr.sun_path - 1);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0 &&
        send_resign(fd) == 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        log_info("leaving text=\"the coordinator on this node resigns\"");
        char answer[256];
        /* It answers, then it goes: gone is when it has hung up. */
        while (poll(&p, 1, LEAVE_RESIGN_MS) == 1 && read(fd, answer, sizeof answer) > 0)
            ;
    }
    if (fd >= 0)
        close(fd);
}

_Noreturn void agent_exit(void)
{
    exit(0);
}
