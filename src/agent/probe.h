/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNAR_AGENT_PROBE_H
#define LUNAR_AGENT_PROBE_H

#include "base/uuid.h"
#include "diskrpc/message.h"

/* For node_io.probe: `data` is the agent. */
void probe_command(void *data, const struct uuid *command_id, const Lunar__ProbePv *m);

#endif
