/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue: volumes and layers as LVM's tags tell them. Pure: it is made from a report and
 * answers questions; nothing here runs a command. Names below are short (SAFETY 23): LV "v<16 hex
 * of the volume's short id>.<layer index>"; what people wrote is escaped into tags.
 *
 * Tags of a layer's LV (every tag starts with "lunar."); docs/ARCHITECTURE.md says when each is
 * set: v=<volume uuid>        whose layer it is      p=<LV or ->      the layer below
 *   r=leaf|frozen|snap     role                   g=<n>            map generation
 *   new                    not formatted yet (SAFETY 17)
 *   m                      merged into the layer below: p may be put in its place everywhere; of a
 *                          snapshot: after p has become it (op_merge_name.c)
 * of a leaf, besides:
 *   n=<escaped name>  s=<virtual size>  k=thin|thick  q=<uuid of the creating request>
 *   del                    the volume's deletion has begun
 *   im                     not all of its bytes are there: it is being imported
 *   x=<virtual size>       thick: it is being expanded to that size
 *   c=<uuid>  cv=<uuid>    it is a clone of that snapshot, of that volume
 *   fi=<uuid> fn=<name> ft=<seconds>  what the layer below becomes when this one is the leaf: that
 *                          snapshot; without fn: plain frozen
 *   fg=<uuid>              besides: that snapshot only if the group of this id is whole, else plain
 *                          frozen
 *   o=<LV> rb=<uuid>       what it takes the place of, after a rollback, and by which request
 * of a snapshot: si=<uuid> sn=<escaped name> st=<seconds since 1970> s=<virtual size>
 *   sg=<uuid>              of which group
 *   sv=<uuid>              of which volume, if it is not the layer's
 * of the VG: gw=<uuid>     that group is whole (op_group.c), until all of its snapshots are ready
 *
 * The leaf of a volume is its one layer of the role leaf that is not new and that no other such
 * layer of it names by p or o. So one commit, which drops "new" from the next leaf, makes that one
 * the leaf and the former one what nobody builds upon until a second commit has given it another
 * role: it may be written until then (SAFETY 16).
 */
#ifndef LUNAR_COORDINATOR_CATALOGUE_H
#define LUNAR_COORDINATOR_CATALOGUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "coordinator/lvm.h"

#define VOLUME_NAME_MAX      128 /* bytes of any UTF-8 without control characters (CSI's limit) */
#define VOLUME_SIZE_MIN      (1024ull * 1024)
#define VOLUME_SIZE_MAX      (64ull << 40)
#define VOLUME_SIZE_STEP     4096u /* the largest logical block of any LUN or consumer */
#define CATALOGUE_LAYERS_MAX 256   /* of one chain: what a grant's entry holds (TABLE_LAYERS_MAX) */
#define CATALOGUE_REMOVE_MAX 24    /* LVs in one command, which is one commit */
#define CATALOGUE_NO_LAYER   UINT32_MAX

enum catalogue_role {
    CATALOGUE_LEAF,     /* what its volume's writer writes; new: the volume is being made */
    CATALOGUE_OVERLAY,  /* new: will be its volume's leaf */
    CATALOGUE_FREEZING, /* below the leaf, was it before: may be written until its role is changed
                         */
    CATALOGUE_REPLACED, /* was the leaf before a rollback */
    CATALOGUE_SNAPSHOT,
    CATALOGUE_FROZEN,
};

struct catalogue_layer {
    char lv_name[32];
    uint64_t volume_short;
    uint32_t index;
    uint32_t map_generation;
    uint64_t size;
    bool is_new, deleting;
    struct lvm_segment *segments; /* the catalogue's, however many chains share the layer */
    uint32_t n_segments;

    enum catalogue_role role;
    uint32_t parent; /* in catalogue.layers; CATALOGUE_NO_LAYER: the bottom */
    uint32_t users;  /* layers that name it as their parent */
    uint32_t depth;  /* of its chain, itself counted */
    bool merged;     /* the layer below holds all of it, too: nothing is to stand on it any more */
    bool sheds_name; /* merged, and has the tags of the snapshot still that the layer below is */
    bool garbage;    /* nobody needs it: to be removed, when no grant names it */
    uint64_t left_size; /* frozen: its tag of a size, which no commit took away; 0: it has none */
};

/* What the layer below an overlay becomes. */
struct catalogue_below {
    struct uuid snapshot_id;        /* zero: there is nothing to become */
    char name[VOLUME_NAME_MAX + 1]; /* "": no snapshot, plain frozen (below a clone) */
    uint64_t created_s;
    struct uuid group; /* zero: of none; else it becomes the snapshot only if that is whole */
};

/* A leaf in the making. */
struct catalogue_overlay {
    struct catalogue_layer layer;
    bool replaces; /* the leaf, after a rollback; else it goes on top of it */
    struct catalogue_below below;
    struct uuid rollback_id; /* the request */
};

/* What was the leaf, until its role is changed. */
#define CATALOGUE_FORMER_TAGS_MAX 12
struct catalogue_former {
    struct catalogue_layer layer;          /* FREEZING or REPLACED */
    char *tags[CATALOGUE_FORMER_TAGS_MAX]; /* a leaf's own, to be dropped */
    uint32_t n_tags;
    bool becomes_snapshot; /* as the leaf's tags say; else plain frozen */
};

struct catalogue_volume {
    struct uuid id;
    char name[VOLUME_NAME_MAX + 1];
    uint64_t size;       /* virtual */
    uint64_t expands_to; /* thick: the size that it is being given; 0: it is not */
    bool thick;
    bool importing;
    struct uuid request_id;
    struct uuid source_id; /* of a clone: the snapshot or volume; may be gone. Zero: no clone */
    bool source_is_volume;
    struct uuid rollback_id;        /* the request of the last rollback since the last snapshot */
    struct catalogue_layer *layers; /* leaf first; those below may be another volume's */
    uint32_t n_layers;
    uint32_t next_index;               /* for the next layer: no LV of this volume has it */
    struct catalogue_below below;      /* of the leaf */
    struct catalogue_overlay *overlay; /* NULL: none is being made */
    struct catalogue_former *former;   /* NULL: none is left to be dealt with */
};

struct catalogue_snapshot {
    struct uuid id;
    char name[VOLUME_NAME_MAX + 1];
    struct uuid volume_id; /* whose state it is; the volume may be gone */
    uint64_t size;         /* virtual */
    uint64_t created_s;    /* since 1970 */
    uint32_t layer;        /* in catalogue.layers */
    bool ready;            /* nobody writes the layer any more */
    struct uuid group;     /* zero: of none */
};

/* The pool's, from tags of the VG: lunar.oc and lunar.warn (catalogue_pool.c). */
#define CATALOGUE_OVERCOMMIT_MAX 1000000u
#define CATALOGUE_WARN_DEFAULT   80u
struct catalogue_settings {
    uint32_t overcommit_percent; /* volumes may come to so much of vg_size; 0: no limit */
    uint32_t warn_percent;       /* of vg_size: used so far, it is a condition */
};

struct catalogue {
    struct catalogue_volume *volumes; /* sorted by name (bytewise) */
    uint32_t n_volumes;
    struct catalogue_index *by_id;  /* of all volumes, sorted by id: grants name volumes by it */
    struct catalogue_layer *layers; /* all that add up, sorted by LV name */
    uint32_t n_layers;
    struct catalogue_snapshot *snapshots; /* sorted by name, which is unique in the pool */
    uint32_t n_snapshots;
    struct catalogue_index *snapshots_by_id;
    uint64_t vg_size, vg_free, extent_size, seqno;
    struct catalogue_settings settings;
    struct uuid *groups; /* of snapshots that are whole and not all ready, as far as it was noted */
    uint32_t n_groups;
    struct lvm_pv *pvs; /* the pool's LUNs, the first one first */
    uint32_t n_pvs;
    /* LVs without lunar's tags or with broken ones: "NAME (why)", never touched. Also both of two
     * volumes of one name, a volume with two leaves or a broken chain, and (though their layers
     * stay where chains need them) snapshots that are broken or not alone with their name. */
    char **foreign;
    uint32_t n_foreign;
    bool broken; /* something of lunar's is among them: nothing is held for garbage then */
};

int catalogue_build(const struct lvm_report *report, struct catalogue *ret, struct error *err);
void catalogue_free(struct catalogue *catalogue);
struct catalogue_volume *catalogue_by_name(struct catalogue *c, const char *name);
struct catalogue_volume *catalogue_by_id(struct catalogue *c, const struct uuid *id);
struct catalogue_snapshot *catalogue_snapshot_by_name(struct catalogue *c, const char *name);
struct catalogue_snapshot *catalogue_snapshot_by_id(struct catalogue *c, const struct uuid *id);
struct catalogue_layer *catalogue_layer_by_name(struct catalogue *c, const char *lv_name);
const struct catalogue_layer *catalogue_layer_by_id(const struct catalogue *c,
                                                    uint64_t volume_short, uint32_t index);
/* The snapshot that the layer is; NULL: none. */
const struct catalogue_snapshot *catalogue_snapshot_of(const struct catalogue *c,
                                                       const struct catalogue_layer *layer);
/* The merged layer upon the snapshot's that has its tags still; NULL: none. */
const struct catalogue_layer *catalogue_sheds_name(const struct catalogue *c,
                                                   const struct catalogue_snapshot *s);
bool catalogue_volume_is_new(const struct catalogue_volume *v);
bool catalogue_volume_is_deleting(const struct catalogue_volume *v);
/* A snapshot or a rollback of it is under way: its next leaf is being made, or its former one has
 * its old role still. */
bool catalogue_volume_is_changing(const struct catalogue_volume *v);
/* Bytes of the LVs that this volume alone uses: what its deletion gives back. */
uint64_t catalogue_volume_allocated(const struct catalogue_volume *v);

struct catalogue_settings catalogue_read_settings(const struct lvm_report *report);
/* The groups that the VG's tags call whole, malloc'ed. */
uint32_t catalogue_read_groups(const struct lvm_report *report, struct uuid **ret);
bool catalogue_group_is_whole(const struct catalogue *c, const struct uuid *group);
/* A layer waits to become a snapshot of it, or not to. */
bool catalogue_group_is_needed(const struct catalogue *c, const struct uuid *group);

int volume_name_check(const char *name, struct error *err);
int volume_size_check(uint64_t size, struct error *err);
/* User text <-> tag text: bytes outside [A-Za-z0-9_+.-] become "/xx". */
void tag_escape(const char *text, char *ret, unsigned ret_size);
int tag_unescape(const char *tag, char *ret, unsigned ret_size);

/*
 * The argument vectors for lvm, so that naming and tags stand in this file alone. Each is one
 * command and one commit (one step of seqno): measured, and held by a test.
 *
 * Initial allocation, rounded up to extents: thick: the whole size; thin: CATALOGUE_THIN_START, or
 * what the volume could ever need if that is less.
 */
#define CATALOGUE_THIN_START (128ull << 20)
uint64_t catalogue_initial_size(uint64_t virtual_size, bool thick, uint64_t extent_size);
/* The size of a thin leaf's map, extents and tail: room for the QCOW2 of the largest volume (64 TiB
 * and 16 GiB), and one for all, so that expanding a volume does not change it. */
#define CATALOGUE_THIN_MAP_SIZE (66ull << 40)
/* What a thin layer may grow to. Its QCOW2 needs less than half of that; the rest is for clusters
 * that a killed QSD had allocated and not yet referenced, a few per kill, which nothing gives back.
 * Who asks for more is in error, and must not have the whole pool. */
uint64_t catalogue_growth_max(uint64_t virtual_size, uint64_t extent_size);
struct catalogue_args {
    const char *argv[48]; /* NULL-terminated, points into `text`: a copied struct needs its own */
    char text[4096];
    unsigned used, n;
};
/* A layer that is to become a volume's leaf: of a new volume, a clone, on top of the leaf or, after
 * a rollback, in its place. */
struct catalogue_leaf {
    const struct uuid *volume_id;
    uint32_t index;
    const char *name;
    uint64_t size;
    bool thick;
    bool importing;
    const struct uuid *request_id;
    const char *parent;           /* LV; NULL: none */
    const struct uuid *source_id; /* NULL or zero: no clone */
    bool source_is_volume;
    const struct catalogue_below *below; /* NULL: nothing becomes of the layer below */
    const char *replaces;                /* LV; NULL: none */
    const struct uuid *rollback_id;      /* with `replaces` */
};
void catalogue_create_args(const char *vg, const struct catalogue_leaf *leaf, uint64_t extent_size,
                           struct catalogue_args *ret);
/* What a layer's LV can need that holds all of a volume, with a sixteenth for clusters that killed
 * daemons have leaked. */
uint64_t catalogue_merged_max(uint64_t virtual_size, uint64_t extent_size);
void catalogue_merged_args(const char *vg, const struct catalogue_layer *layer,
                           struct catalogue_args *ret);
/* `layer` stood on `from` and stands on `to` instead. */
void catalogue_reparent_args(const char *vg, const struct catalogue_layer *layer,
                             const struct catalogue_layer *from, const struct catalogue_layer *to,
                             struct catalogue_args *ret);
/* To `size` bytes, absolute: the same again changes nothing (SAFETY 6). */
void catalogue_extend_args(const char *vg, const struct catalogue_layer *layer, uint64_t size,
                           struct catalogue_args *ret);
/* The next map generation (SAFETY 14): before extents are taken away from the layer. */
void catalogue_generation_args(const char *vg, const struct catalogue_layer *layer,
                               struct catalogue_args *ret);
/* To `size` bytes: what lies behind them is free for others at once. */
void catalogue_reduce_args(const char *vg, const struct catalogue_layer *layer, uint64_t size,
                           struct catalogue_args *ret);
/* Thick: it is to have `size` bytes; 0: no more. */
void catalogue_expanding_args(const char *vg, const struct catalogue_volume *v, uint64_t size,
                              struct catalogue_args *ret);
/* The volume has `size` bytes, and is not being expanded any more. */
void catalogue_size_args(const char *vg, const struct catalogue_volume *v, uint64_t size,
                         struct catalogue_args *ret);
void catalogue_made_args(const char *vg, const struct catalogue_layer *layer,
                         struct catalogue_args *ret); /* drops lunar.new */
/* Drops lunar.im. */
void catalogue_imported_args(const char *vg, const struct catalogue_volume *v,
                             struct catalogue_args *ret);
/* The volume's former leaf is written no more: it becomes what the leaf's tags say. */
void catalogue_frozen_args(const char *vg, const struct catalogue_volume *v,
                           struct catalogue_args *ret);
/* A layer with that snapshot's tags becomes a plain frozen one. */
void catalogue_unsnap_args(const char *vg, const struct catalogue_layer *layer,
                           const struct catalogue_snapshot *s, struct catalogue_args *ret);
/* A plain frozen layer becomes that snapshot. */
void catalogue_snap_args(const char *vg, const struct catalogue_layer *layer,
                         const struct catalogue_snapshot *s, struct catalogue_args *ret);
/* Adds lunar.del to the leaf: that alone makes the volume one that is being deleted. */
void catalogue_deleting_args(const char *vg, const struct catalogue_volume *v,
                             struct catalogue_args *ret);
/* `from` is what stands there. */
void catalogue_settings_args(const char *vg, const struct catalogue_settings *from,
                             const struct catalogue_settings *to, struct catalogue_args *ret);
/* The group is whole: one commit that makes all of its layers what they are to become. And when
 * they are that, the note of it goes. */
void catalogue_group_args(const char *vg, const struct uuid *group, bool whole,
                          struct catalogue_args *ret);
/* The LUN, whose label stands, is the VG's from now on. */
void catalogue_add_pv_args(const char *vg, const char *uuid, struct catalogue_args *ret);
/* The PV has the size of its device from now on. */
void catalogue_resize_pv_args(const struct lvm_pv *pv, struct catalogue_args *ret);
/* Removes up to CATALOGUE_REMOVE_MAX layers. */
void catalogue_remove_args(const char *vg, const struct catalogue_layer *const *layers, uint32_t n,
                           struct catalogue_args *ret);

#endif
