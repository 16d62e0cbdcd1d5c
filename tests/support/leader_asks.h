/* SPDX-License-Identifier: Apache-2.0 */
/* More requests of clients, a part of leader_world.h, which includes it where ask() is known. */
static inline void ask_rollback(const struct waiter *from, const struct uuid *volume,
                                const struct uuid *snapshot)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeRollback m = LUNAR__VOLUME_ROLLBACK__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.snapshot_id = uuid_to_pb(snapshot);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_ROLLBACK;
    r.volume_rollback = &m;
    ask(from, &r);
}

static inline void ask_inspect(const struct waiter *from, uint32_t host_id)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__NodeInspect m = LUNAR__NODE_INSPECT__INIT;
    m.host_id = host_id;
    r.op_case = LUNAR__REQUEST__OP_NODE_INSPECT;
    r.node_inspect = &m;
    ask(from, &r);
}

static inline void ask_extend(const struct waiter *from, Lunar__PoolExtend *m)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    r.op_case = LUNAR__REQUEST__OP_POOL_EXTEND;
    r.pool_extend = m;
    ask(from, &r);
}
