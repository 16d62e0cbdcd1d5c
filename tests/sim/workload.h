/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the workload: clients.c sends them, workload.c makes them and judges the answers. */
#ifndef LUNAR_TESTS_SIM_WORKLOAD_H
#define LUNAR_TESTS_SIM_WORKLOAD_H

#include "sim/world.h"

#define WORKLOAD_NAMES 6u
#define FINALE_NAME    (WORKLOAD_NAMES - 1) /* not used before */
#define SNAPSHOT_NAMES 4u

struct request {
    struct request *next;
    uint32_t number, client;
    struct uuid id;
    enum client_op op;
    uint32_t name; /* index */
    struct uuid volume, attachment;
    uint32_t snapshot_name; /* index */
    struct uuid snapshot;
    struct uuid source;   /* a clone's, if that is a volume */
    struct machine *node; /* attach */
    bool named_node;
    uint32_t ping_len;
    bool over;
    int code;
    uint32_t tries;
    uint64_t sent_us;
    uint64_t over_us;     /* when it was answered; UINT64_MAX: nobody knows what becomes of it */
    uint32_t node_fences; /* of that node, then */
    uint32_t node_boot;   /* attach: of the node when it was first sent */
};

/* What everybody knows of a name, from answers alone. */
struct volume_name {
    char text[16];
    struct uuid volume, attachment; /* zero: not known */
};
extern struct volume_name workload_names[WORKLOAD_NAMES];

struct request *request_random(void);
/* The next one of the finale; NULL: over, or the last one is still out. */
struct request *request_finale(void);
bool request_finale_over(void);
void request_pack(const struct request *r, uint8_t **ret, uint32_t *ret_len);
void request_sent(struct request *r);
/* Judges the answer and learns from it. */
void request_check(struct request *r, const Lunar__Response *response);
const struct request *request_by_id(const struct uuid *id);

#endif
