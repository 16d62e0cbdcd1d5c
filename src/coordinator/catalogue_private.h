/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the catalogue's own files: catalogue_read.c (one LV), catalogue_leaf.c (which layer is a
 * volume's leaf), catalogue_chain.c (who stands on whom, and who stands for nothing), catalogue.c
 * (volumes, snapshots, queries).
 */
#ifndef LUNAR_COORDINATOR_CATALOGUE_PRIVATE_H
#define LUNAR_COORDINATOR_CATALOGUE_PRIVATE_H

#include "coordinator/catalogue.h"

/* "v", the hex of the volume's short id and ".": what the names of one volume's layers begin with.
 */
#define CATALOGUE_PREFIX_LEN 18u

/* A layer as its LV tells it, before it has found its place. */
struct candidate {
    const struct lvm_lv *lv;
    struct uuid volume;
    uint32_t index;
    uint32_t map_generation;
    bool is_leaf; /* by its tag */
    bool is_new;
    const char *parent;   /* LV name or "-" */
    const char *replaces; /* LV name; NULL: nothing */
    struct uuid rollback_id;
    struct catalogue_below below; /* of a leaf */
    const char *why;              /* it is foreign, if set */
    enum catalogue_role role;
    struct candidate *leaf;   /* of its volume; an overlay's and a former one's */
    struct candidate *former; /* a leaf's */
    struct candidate *overlay;
    uint32_t next_index;        /* a leaf's */
    struct candidate *below_it; /* its parent, once found */
    uint32_t depth;             /* 0: not known yet */
    bool visiting;
    bool merged, sheds_name;
    uint32_t layer; /* in the catalogue */
};

struct builder {
    struct candidate *all; /* sorted by LV name */
    uint32_t n;
    struct catalogue *ret;
};

/* --- catalogue_read.c --- */
struct candidate candidate_read(const struct lvm_lv *lv);
/* The snapshot that the layer is. NULL, or what is wrong with its tags. */
const char *candidate_snapshot(const struct candidate *c, struct catalogue_snapshot *ret);
/* Copies the tags that only a leaf has, and its role's. */
void candidate_leaf_tags(const struct candidate *c, struct catalogue_former *ret);

/* --- catalogue_leaf.c --- */
/* Gives each layer its role. */
void leaf_find_all(struct builder *b);

/* --- catalogue_chain.c --- */
/* Makes foreign what has no sound chain; finds what is merged, and whose a snapshot's name is. */
void chain_check_all(struct builder *b);
void chain_fill_layers(struct builder *b); /* the catalogue's */
/* When all that is broken is known. */
void chain_find_garbage(struct catalogue *c);

#endif
