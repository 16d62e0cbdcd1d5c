/* SPDX-License-Identifier: Apache-2.0 */
/* `lunarctl verify` in two halves: verify.c gathers the facts, verify_findings.c and
 * verify_layers.c compare them, pure. */
#ifndef LUNARCTL_VERIFY_H
#define LUNARCTL_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"
#include "diskrpc/table.h"
#include "proto/lunar.pb-c.h"

/* One host id: what the LUN says of it, what the coordinator says, what its agent has found. */
struct verify_host {
    uint32_t host_id;
    uint64_t generation;         /* of its lease on the LUN */
    const Lunar__Node *node;     /* NULL: the coordinator has not heard of it */
    int grants_rc[2], report_rc; /* of reading the tables below; 0 or LUNAR_E_NOT_FOUND is well */
    struct table grants[2], report;
    const Lunar__Inspection *inspection; /* NULL: it was not looked at */
    char why_not[256];                   /* then */
};

struct verify_facts {
    const Lunar__Status *status;
    Lunar__Volume **volumes;
    size_t n_volumes;
    struct verify_host *hosts;
    size_t n_hosts;
    Lunar__TreeLayer **layers; /* sorted by LV name */
    size_t n_layers;
};

struct verify_context {
    const struct verify_facts *facts;
    json_t *findings;
};

/* Adds a finding, with what to do about it. `h` and `volume` may be NULL: it is of a node, or of
 * the pool. */
void verify_found(const struct verify_context *c, const char *kind, const struct verify_host *h,
                  const struct uuid *volume, const char *todo, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
/* --- verify_layers.c --- */
void verify_layers(const struct verify_context *c);
/* That grant is of a job in the background that runs, a merge or a measurement: it is no volume's.
 */
bool verify_is_background(const struct verify_context *c, const struct table_entry *e);
/* A grant's layers are the volume's. */
void verify_chain(const struct verify_context *c, const struct verify_host *h,
                  const struct table_entry *e, const Lunar__Volume *v);

/* An array of {kind, node, volume, text, do, why}; a new reference. What is under way shows as
 * findings, too: what counts is what is there twice. */
json_t *verify_find(const struct verify_facts *facts);
/* Those of `now` that `before` had, too; a new reference. */
json_t *verify_persisting(const json_t *before, const json_t *now);

#endif
