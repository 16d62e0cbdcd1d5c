/* SPDX-License-Identifier: Apache-2.0 */
/* An epoll descriptor that means "hung up"; see hangup.h. */
#include "base/hangup.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

int hangup_fd(int socket_fd)
{
    /* EPOLLHUP and EPOLLERR are always reported; EPOLLIN is what we must not ask for. */
    struct epoll_event event = {.events = EPOLLRDHUP};
    int ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep < 0)
        return -errno;
    if (epoll_ctl(ep, EPOLL_CTL_ADD, socket_fd, &event) < 0) {
        int rc = -errno;
        close(ep);
        return rc;
    }
    return ep;
}
