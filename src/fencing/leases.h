/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sanlock's on-disk records, decoded read-only and without its daemon: delta leases of the
 * lockspace (who is a host) and leader records of resources (who owns a lease, and its version).
 * Offsets are those of FENCING.md, measured on 3.9.5. Pure; the reading of the bytes is the
 * caller's or the small blocking helpers' at the end.
 */
#ifndef LUNAR_FENCING_LEASES_H
#define LUNAR_FENCING_LEASES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "diskrpc/layout.h"

#define LEASES_NAME_SIZE 49 /* 48 bytes and a NUL */

struct delta_lease {
    uint32_t host_id;
    uint64_t owner_id, generation, lver;
    char space[LEASES_NAME_SIZE];
    char owner_name[LEASES_NAME_SIZE];
    uint64_t timestamp; /* seconds on the owner's clock; 0: free */
    uint16_t io_timeout_s;
};

struct leader_record {
    uint64_t owner_id, owner_generation, lver, timestamp;
    char space[LEASES_NAME_SIZE];
    char resource[LEASES_NAME_SIZE];
};

/* LUNAR_E_CORRUPT: not a record of that kind. Checks magic, and space (NULL: any). */
int delta_lease_in(const uint8_t *sector, uint32_t host_id, const char *space,
                   struct delta_lease *ret, struct error *err);
int leader_record_in(const uint8_t *sector, const char *space, struct leader_record *ret,
                     struct error *err);

/*
 * Chooses the host id to join with: the id whose lease carries our name (also when free), else the
 * first never or no longer used id, starting at hash(name) and wrapping. `avoid` (may be NULL) has
 * max_nodes flags of ids that were lost in a race. *ret_same_name says that the lease carries our
 * name with a running timestamp: the caller must watch it for 3N first, because a second machine of
 * that name may be alive (SAFETY 7). LUNAR_E_FULL: every id is taken.
 */
int leases_choose(const struct delta_lease *leases, uint32_t n, const char *name, const bool *avoid,
                  uint32_t *ret_host_id, bool *ret_same_name, struct error *err);

/* Blocking O_DIRECT reads. `leases` has room for layout->max_nodes. */
int leases_read(int fd, const struct layout *layout, const char *space, struct delta_lease *leases,
                struct error *err);
/* One host's lease; the caller has checked 1 <= host_id <= max_nodes. */
int lease_read(int fd, const struct layout *layout, const char *space, uint32_t host_id,
               struct delta_lease *ret, struct error *err);
int leader_read(int fd, const struct layout *layout, uint32_t resource, const char *space,
                struct leader_record *ret, struct error *err);

/* The node's sanlock host name: "lunar-" + 16 hex digits of a hash over node name and machine
 * identity (SAFETY 7). */
void leases_host_name(const char *node_name, const char *machine_id, char ret[LEASES_NAME_SIZE]);
/* Machine identity: DMI product UUID, else /etc/machine-id; LUNAR_E_NOT_FOUND with a sentence if
 * neither exists. */
int leases_machine_id(char *ret, unsigned ret_size, struct error *err);

#endif
