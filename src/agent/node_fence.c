/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a node's life when its guard fences: see node_fence in node.h.
 *
 * Happy path: who waits is told at once, then nothing is left but to count what is under way down
 * to none. Failure modes: a task that hangs on the LUN is waited for, for as long as it takes; the
 * proof that nothing reaches the LUN is the guard's and does not wait for it.
 */
#include "agent/node_internal.h"

void node_fence(struct node *node, const char *words)
{
    if (node->fenced)
        return;
    node->fenced = true;
    struct held *h;
    TAILQ_FOREACH (h, &node->held, link)
        h->job.cancel = true; /* merges */
    relay_refuse_all(node, LUNAR_E_FENCED, words);
    relay_set_waiting(node);
}

uint32_t node_tasks(const struct node *node)
{
    return node->tasks_out;
}

uint32_t node_reports(const struct node *node)
{
    return node->reports_out;
}

void held_task_ended(struct held *h, const struct node_task *task, int rc)
{
    bool made = task->kind == NODE_TASK_ATTACH && rc == 0;
    bool kept = task->kind == NODE_TASK_DETACH && rc < 0;

    if (made || kept)
        h->stack = task->stack;
}
