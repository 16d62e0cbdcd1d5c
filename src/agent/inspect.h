/* SPDX-License-Identifier: Apache-2.0 */
/* What stands on this node, told to the coordinator for `lunarctl verify`. */
#ifndef LUNAR_AGENT_INSPECT_H
#define LUNAR_AGENT_INSPECT_H

#include "base/uuid.h"

/* Loop thread; node_io.inspect, `data` is the agent. Looks in a thread of libuv's pool and sends
 * the command's result when that has ended. */
void inspect_command(void *data, const struct uuid *command_id);

#endif
