/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching a socket for hang-up without touching it: libuv makes every descriptor it polls
 * non-blocking, which would break a library that reads it blocking (libsanlock). So an epoll
 * descriptor of our own watches it, and libuv watches that.
 */
#ifndef LUNAR_BASE_HANGUP_H
#define LUNAR_BASE_HANGUP_H

/* A new close-on-exec descriptor that turns readable once the other end of `socket_fd` hangs up,
 * and not when data comes. -errno on failure. The caller closes it. */
int hangup_fd(int socket_fd);

#endif
