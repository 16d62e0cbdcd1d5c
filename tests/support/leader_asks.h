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

/* --- asked and settled --- */

static inline struct uuid snapshot_of(const struct uuid *volume, const char *name)
{
    struct waiter from = client();
    static const struct uuid none;
    ask_snapshot(&from, volume, name);
    settle();
    bool good = w.code == 0 && w.answer->response->op_case == LUNAR__RESPONSE__OP_SNAPSHOT &&
                strcmp(w.answer->response->snapshot->state, "ready") == 0;
    if (!good)
        printf("# %s: %s\n", name, w.text);
    return good ? uuid_from_pb(w.answer->response->snapshot->snapshot_id) : none;
}

static inline int asked(void (*ask_it)(const struct waiter *, const struct uuid *),
                        const struct uuid *id)
{
    struct waiter from = client();
    ask_it(&from, id);
    settle();
    return w.code;
}

static inline int attached(const struct uuid *volume, const char *node)
{
    struct waiter from = client();
    ask_attach(&from, volume, node);
    settle();
    return w.code;
}

/* As the catalogue has it now. */
static inline uint32_t layers_of(const struct uuid *volume)
{
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    const struct catalogue_volume *v = catalogue_by_id(c, volume);
    uint32_t n = v ? v->n_layers : 0;
    catalogue_free(c);
    free(c);
    return n;
}
