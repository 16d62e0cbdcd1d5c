/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue: volumes and layers as LVM's tags tell them. Pure: it is made from a report and
 * answers questions; nothing here runs a command. Names below are short (SAFETY 23): LV "v<16 hex
 * of the volume's short id>.<layer index>"; what people wrote is escaped into tags.
 *
 * Tags of a layer's LV (every tag starts with "lunar."): see catalogue.c and docs/ARCHITECTURE.md.
 *   lunar.v=<volume uuid>     whose layer it is          lunar.n=<escaped user name>   on the leaf
 *   lunar.s=<virtual size>    on the leaf                lunar.k=thin|thick            kind
 *   lunar.r=leaf|frozen|snap  role                       lunar.p=<parent LV or ->      backing
 * layer lunar.q=<request uuid>    the creating request       lunar.new                     not
 * formatted yet (SAFETY 17) lunar.g=<n>               map generation             lunar.del deletion
 * has begun
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
#define CATALOGUE_LAYERS_MAX 24    /* of one volume; all of them fit one command line */

struct catalogue_layer {
    char lv_name[32];
    uint64_t volume_short;
    uint32_t index;
    uint32_t map_generation;
    uint64_t size;
    bool is_new, deleting;
    struct lvm_segment *segments;
    uint32_t n_segments;
};

struct catalogue_volume {
    struct uuid id;
    char name[VOLUME_NAME_MAX + 1];
    uint64_t size; /* virtual */
    bool thick;
    struct uuid request_id;
    struct catalogue_layer *layers; /* leaf first; those below may be another volume's */
    uint32_t n_layers;
};

struct catalogue {
    struct catalogue_volume *volumes; /* sorted by name (bytewise) */
    uint32_t n_volumes;
    struct catalogue_index *by_id; /* of all volumes, sorted by id: grants name volumes by it */
    uint64_t vg_size, vg_free, extent_size, seqno;
    /* LVs without lunar's tags or with broken ones: "NAME (why)", never touched. Also both of two
     * volumes of one name, a volume with two leaves or a broken chain, and layers that no volume
     * uses. */
    char **foreign;
    uint32_t n_foreign;
};

int catalogue_build(const struct lvm_report *report, struct catalogue *ret, struct error *err);
void catalogue_free(struct catalogue *catalogue);
struct catalogue_volume *catalogue_by_name(struct catalogue *c, const char *name);
struct catalogue_volume *catalogue_by_id(struct catalogue *c, const struct uuid *id);
bool catalogue_volume_is_new(const struct catalogue_volume *v);
bool catalogue_volume_is_deleting(const struct catalogue_volume *v);

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
    const char *argv[40]; /* NULL-terminated, points into `text`: a copied struct needs its own */
    char text[4096];
    unsigned used, n;
};
void catalogue_create_args(const char *vg, const struct uuid *id, const char *name, uint64_t size,
                           bool thick, const struct uuid *request_id, uint64_t extent_size,
                           struct catalogue_args *ret);
/* To `size` bytes, absolute: the same again changes nothing (SAFETY 6). */
void catalogue_extend_args(const char *vg, const struct catalogue_layer *layer, uint64_t size,
                           struct catalogue_args *ret);
void catalogue_made_args(const char *vg, const struct catalogue_layer *layer,
                         struct catalogue_args *ret); /* drops lunar.new */
/* Adds lunar.del to the leaf: that alone makes the volume one that is being deleted, and lvchange
 * on several LVs would be several commits. */
void catalogue_deleting_args(const char *vg, const struct catalogue_volume *v,
                             struct catalogue_args *ret);
/* Removes all layers of the volume itself (not those of another volume below them). */
void catalogue_remove_args(const char *vg, const struct catalogue_volume *v,
                           struct catalogue_args *ret);

#endif
