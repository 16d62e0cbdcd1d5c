/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool's persistent reservations over all PVs and their paths; see reservation.h.
 *
 * Happy path: a command goes to one path of a PV that answers, a registration to every path. After
 * each change the keys and the reservation are read back, and only what is read counts.
 *
 * Failure modes: a path that does not work is passed over and stays unregistered (I/O that comes
 * through it later gets a conflict, which stops this node and harms nobody); a PV without a working
 * path fails the call. A command whose outcome is unknown is repeated where that can do nothing
 * twice (a registration that ignores what was there), else settled by reading the keys. A conflict
 * means that our key is gone, or that the victim's is: READ KEYS says which.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fencing/reservation_internal.h"

/* Rounds of "read, preempt what is there": one does; a second where another preempts at the same
 * time, a third for good measure. A key that is still there then is being registered again. */
#define ROUNDS_MAX 3
/* An iSCSI session that was disrupted is back within a second, or fails for longer than this. */
#define DOUBT_TRIES    4
#define DOUBT_PAUSE_MS 500

struct path {
    char name[RESERVATION_NAME_SIZE];
    void *handle;
    bool registered;
};

struct pv {
    char *device;
    struct path paths[RESERVATION_PATHS_MAX];
    uint32_t n_paths;
    bool persists;
};

struct reservation {
    const struct reservation_ops *ops;
    struct uuid pool_id;
    uint64_t key; /* 0: none registered */
    struct pv *pvs;
    uint32_t n_pvs;
    uint8_t *answer; /* PR_ANSWER_SIZE */
    struct reservation_keys keys;
    uint64_t victims[RESERVATION_KEYS_MAX];
};

/* --- one PV: commands through whichever path works --- */

static int pv_in(struct reservation *r, struct pv *pv, uint8_t action, struct error *err)
{
    int rc = error_set(err, -ENODEV, "it has no paths");

    for (uint32_t i = 0; i < pv->n_paths; i++) {
        rc = r->ops->in(pv->paths[i].handle, action, r->answer, PR_ANSWER_SIZE, err);
        if (rc >= 0 || rc == LUNAR_E_UNSUPPORTED)
            break;
    }
    if (rc < 0)
        error_prefix(err, "%s", pv->device);
    return rc;
}

/* Through a registered path; a conflict is an answer and not a reason to try the next one. */
static int pv_out(struct reservation *r, struct pv *pv, const struct pr_out *command,
                  struct error *err)
{
    int rc = error_set(err, -ENODEV, "no path is registered");

    for (uint32_t i = 0; i < pv->n_paths; i++) {
        if (!pv->paths[i].registered)
            continue;
        rc = r->ops->out(pv->paths[i].handle, command, err);
        if (rc == 0 || rc == -EBADE)
            return rc;
    }
    error_prefix(err, "%s", pv->device);
    return rc;
}

static int pv_keys(struct reservation *r, struct pv *pv, struct error *err)
{
    int rc = pv_in(r, pv, PR_IN_READ_KEYS, err);
    if (rc < 0)
        return rc;
    rc = reservation_keys_in(r->answer, (size_t)rc, &r->keys, err);
    return rc < 0 ? (error_prefix(err, "%s", pv->device), rc) : 0;
}

static int pv_holder(struct reservation *r, struct pv *pv, struct reservation_holder *ret,
                     struct error *err)
{
    int rc = pv_in(r, pv, PR_IN_READ_RESERVATION, err);
    if (rc < 0)
        return rc;
    rc = reservation_holder_in(r->answer, (size_t)rc, ret, err);
    return rc < 0 ? (error_prefix(err, "%s", pv->device), rc) : 0;
}

static int fenced(const struct pv *pv, struct error *err)
{
    return error_set(err, LUNAR_E_FENCED,
                     "%s: this node's reservation key is gone: it was preempted and must come back "
                     "as a new generation",
                     pv->device);
}

static int check_type(const struct pv *pv, const struct reservation_holder *holder,
                      struct error *err)
{
    if (!holder->held || holder->type == PR_TYPE_WRITE_EXCLUSIVE_ALL)
        return 0;
    return error_set(err, LUNAR_E_FOREIGN,
                     "%s is reserved by somebody else (SCSI type %u): take it away from them, or "
                     "clear it there (sg_persist --out --clear)",
                     pv->device, holder->type);
}

/* Reserves the PV if nobody has: any registrant may, and two at once do no harm. */
static int pv_reserve(struct reservation *r, struct pv *pv, struct error *err)
{
    const struct pr_out reserve = {
        .action = PR_OUT_RESERVE, .type = PR_TYPE_WRITE_EXCLUSIVE_ALL, .key = r->key};
    struct reservation_holder holder;

    int rc = pv_holder(r, pv, &holder, err);
    if (rc == 0)
        rc = check_type(pv, &holder, err);
    if (rc < 0 || holder.held)
        return rc;
    rc = pv_out(r, pv, &reserve, err);
    if (rc < 0 && rc != -EBADE && rc != LUNAR_E_INDETERMINATE)
        return rc;
    rc = pv_holder(r, pv, &holder, err);
    if (rc == 0)
        rc = check_type(pv, &holder, err);
    if (rc == 0 && !holder.held)
        rc = error_set(err, -EIO, "%s does not keep the reservation that was made", pv->device);
    return rc;
}

/* Our key and the reservation are there. */
static int pv_check(struct reservation *r, struct pv *pv, struct error *err)
{
    int rc = pv_keys(r, pv, err);
    if (rc == 0 && !reservation_keys_have(&r->keys, r->key))
        rc = fenced(pv, err);
    return rc < 0 ? rc : pv_reserve(r, pv, err);
}

/* --- registering --- */

static int path_register(struct reservation *r, const struct pv *pv, struct path *path,
                         uint8_t action, uint64_t from, uint64_t to, struct error *err)
{
    const struct pr_out command = {
        .action = action, .key = from, .action_key = to, .aptpl = pv->persists};
    int rc = r->ops->out(path->handle, &command, err);
    path->registered = rc == 0 && to != 0;
    return rc < 0 ? (error_prefix(err, "%s, path %s", pv->device, path->name), rc) : 0;
}

/* Whatever the path had. Carried out twice it does what it does once, and nobody preempts the key
 * of a life that has not begun. */
static int path_register_anew(struct reservation *r, const struct pv *pv, struct path *path,
                              uint64_t key, struct error *err)
{
    int rc = LUNAR_E_INDETERMINATE;

    for (int i = 0; rc == LUNAR_E_INDETERMINATE && i < DOUBT_TRIES; i++) {
        if (i > 0)
            r->ops->pause_ms(DOUBT_PAUSE_MS);
        rc = path_register(r, pv, path, PR_OUT_REGISTER_AND_IGNORE, 0, key, err);
    }
    return rc;
}

/* On every path, at least one of them with success. */
static int pv_register(struct reservation *r, struct pv *pv, uint64_t key, struct error *err)
{
    int rc = -ENODEV;

    for (uint32_t i = 0; i < pv->n_paths; i++) {
        struct error failed = ERROR_INIT;
        int one = path_register_anew(r, pv, &pv->paths[i], key, &failed);
        if (one < 0)
            log_warn("reservation_path device=%s path=%s text=\"not registered: %s\"", pv->device,
                     pv->paths[i].name, failed.text);
        if (one < 0 && rc < 0 && err)
            *err = failed;
        if (one == 0 || rc < 0)
            rc = one;
    }
    return rc;
}

/* Nobody but this pool may have keys here. */
static int pv_refuse_foreign(struct reservation *r, struct pv *pv, struct error *err)
{
    struct reservation_holder holder;
    uint32_t host_id;
    uint64_t generation;

    int rc = pv_holder(r, pv, &holder, err);
    if (rc == 0)
        rc = check_type(pv, &holder, err);
    if (rc == 0)
        rc = pv_keys(r, pv, err);
    for (uint32_t i = 0; rc == 0 && i < r->keys.n; i++)
        if (!reservation_key_in(&r->pool_id, r->keys.keys[i], &host_id, &generation))
            rc = error_set(err, LUNAR_E_FOREIGN,
                           "%s carries the reservation key 0x%016" PRIx64 ", which is not this "
                           "pool's: somebody else uses the LUN, or left it there (sg_persist "
                           "--out --clear)",
                           pv->device, r->keys.keys[i]);
    return rc;
}

int reservation_register(struct reservation *r, uint32_t host_id, uint64_t generation,
                         struct error *err)
{
    uint64_t key;
    int rc = reservation_key_out(&r->pool_id, host_id, generation, &key, err);

    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++)
        rc = pv_refuse_foreign(r, &r->pvs[i], err);
    if (rc < 0)
        return rc;
    r->key = key;
    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++)
        rc = pv_register(r, &r->pvs[i], key, err);
    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++)
        rc = pv_check(r, &r->pvs[i], err);
    if (rc < 0)
        reservation_unregister(r, NULL);
    return rc;
}

static int pv_change(struct reservation *r, struct pv *pv, uint64_t key, struct error *err)
{
    int rc = -ENODEV;

    for (uint32_t i = 0; i < pv->n_paths; i++) {
        struct path *path = &pv->paths[i];
        if (!path->registered)
            continue;
        /* REGISTER under the old key: refused if that was preempted meanwhile. */
        int one = path_register(r, pv, path, PR_OUT_REGISTER, r->key, key, err);
        if (one == -EBADE)
            return fenced(pv, err);
        if (one == 0 || rc < 0)
            rc = one;
    }
    return rc;
}

int reservation_change(struct reservation *r, uint32_t host_id, uint64_t generation,
                       struct error *err)
{
    uint64_t key;
    int rc = reservation_key_out(&r->pool_id, host_id, generation, &key, err);

    assert(r->key != 0);
    if (rc < 0 || key == r->key)
        return rc;
    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++)
        rc = pv_change(r, &r->pvs[i], key, err);
    if (rc == 0)
        r->key = key;
    return rc < 0 ? rc : reservation_check(r, err);
}

int reservation_adopt(struct reservation *r, uint32_t host_id, uint64_t generation,
                      struct error *err)
{
    int rc = reservation_key_out(&r->pool_id, host_id, generation, &r->key, err);

    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++)
        for (uint32_t k = 0; k < r->pvs[i].n_paths; k++)
            r->pvs[i].paths[k].registered = true;
    return rc;
}

int reservation_check(struct reservation *r, struct error *err)
{
    int rc = 0;

    assert(r->key != 0);
    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++)
        rc = pv_check(r, &r->pvs[i], err);
    return rc;
}

int reservation_unregister(struct reservation *r, struct error *err)
{
    int rc = 0;

    for (uint32_t i = 0; r->key != 0 && i < r->n_pvs; i++) {
        for (uint32_t k = 0; k < r->pvs[i].n_paths; k++) {
            struct path *path = &r->pvs[i].paths[k];
            if (!path->registered)
                continue;
            int one = path_register(r, &r->pvs[i], path, PR_OUT_REGISTER, r->key, 0, err);
            if (one < 0 && one != -EBADE)
                rc = one;
        }
    }
    r->key = 0;
    return rc;
}

/* --- paths that come and go --- */

static int path_open(struct reservation *r, struct pv *pv, const char *name, struct error *err)
{
    struct path *path = &pv->paths[pv->n_paths];

    if (pv->n_paths == RESERVATION_PATHS_MAX)
        return error_set(err, LUNAR_E_TOO_BIG, "%s has more than %u paths", pv->device,
                         RESERVATION_PATHS_MAX);
    memset(path, 0, sizeof *path);
    snprintf(path->name, sizeof path->name, "%s", name);
    int rc = r->ops->open_path(name, &path->handle, err);
    if (rc < 0)
        return error_prefix(err, "%s, path %s", pv->device, name), rc;
    pv->n_paths++;
    return 0;
}

static bool pv_has_path(const struct pv *pv, const char *name)
{
    for (uint32_t i = 0; i < pv->n_paths; i++)
        if (strcmp(pv->paths[i].name, name) == 0)
            return true;
    return false;
}

static bool is_among(const char *name, char names[][RESERVATION_NAME_SIZE], int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* A name is another device's only once nobody has the one before open, so none changes hands
 * unseen; and a path that comes back has to show that it is still registered. */
static void pv_drop_paths(struct reservation *r, struct pv *pv, char names[][RESERVATION_NAME_SIZE],
                          int n)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < pv->n_paths; i++) {
        if (is_among(pv->paths[i].name, names, n))
            pv->paths[kept++] = pv->paths[i];
        else
            r->ops->close_path(pv->paths[i].handle);
    }
    pv->n_paths = kept;
}

/* The paths that there are now, with those that we have; at least one of the PV must open. */
static int pv_find_paths(struct reservation *r, struct pv *pv, struct error *err)
{
    char names[RESERVATION_PATHS_MAX][RESERVATION_NAME_SIZE];
    int n = r->ops->find_paths(pv->device, names, err);
    int rc = n == 0 ? error_set(err, -ENODEV, "%s has no paths", pv->device) : n;

    if (n >= 0)
        pv_drop_paths(r, pv, names, n);
    for (int i = 0; i < n; i++) {
        int one = pv_has_path(pv, names[i]) ? 0 : path_open(r, pv, names[i], err);
        rc = one < 0 ? one : rc;
    }
    return pv->n_paths > 0 ? 0 : rc;
}

/* How many nexuses are registered with our key. */
static uint32_t own_keys(const struct reservation *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->keys.n; i++)
        n += r->keys.keys[i] == r->key;
    return n;
}

/*
 * A path that is not registered, while the node is joined. It may be only while the key stands by
 * the other paths; who preempts between our look and our REGISTER leaves this one key alone, which
 * the second look sees, and the key is given back.
 */
static int path_return(struct reservation *r, struct pv *pv, struct path *path, struct error *err)
{
    int rc = pv_keys(r, pv, err);
    if (rc == 0 && own_keys(r) == 0)
        rc = fenced(pv, err);
    if (rc < 0)
        return rc;
    /* It may be registered from before: then "none to ours" is refused and "ours to ours" is not.
     */
    uint32_t before = own_keys(r);
    rc = path_register(r, pv, path, PR_OUT_REGISTER, r->key, r->key, err);
    if (rc != -EBADE)
        return rc;
    rc = path_register(r, pv, path, PR_OUT_REGISTER, 0, r->key, err);
    if (rc == -EBADE)
        return rc;
    int looked = pv_keys(r, pv, err);
    if (looked == 0 && own_keys(r) > before)
        return rc; /* one more, beside those that were there: nobody has preempted us */
    /* It may have been carried out after a preempt, heard or not: taken back, before any look can
     * take it for a key that was there all along. */
    path_register(r, pv, path, PR_OUT_REGISTER, r->key, 0, NULL);
    if (looked == 0)
        looked = pv_keys(r, pv, err);
    if (looked < 0)
        return looked;
    return rc == 0 || own_keys(r) < before ? fenced(pv, err) : rc;
}

int reservation_tend_paths(struct reservation *r, struct error *err)
{
    assert(r->key != 0);
    for (uint32_t i = 0; i < r->n_pvs; i++) {
        struct pv *pv = &r->pvs[i];
        int rc = pv_find_paths(r, pv, err);
        for (uint32_t k = 0; rc == 0 && k < pv->n_paths; k++)
            /* A path that still does not work is no news. */
            if (!pv->paths[k].registered &&
                path_return(r, pv, &pv->paths[k], err) == LUNAR_E_FENCED)
                rc = LUNAR_E_FENCED;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- taking keys away --- */

/* Of all victims on one PV, in all rounds. */
enum preempt_outcome { PREEMPT_ABORTED = 1, PREEMPT_UNKNOWN = 2 };

/* One look, and a preempt of what it shows. 1: nothing of the victim's is there. */
static int preempt_round(struct reservation *r, struct pv *pv, uint32_t host_id,
                         uint64_t generation, unsigned *outcomes, struct error *err)
{
    struct pr_out command = {
        .action = PR_OUT_PREEMPT_AND_ABORT, .type = PR_TYPE_WRITE_EXCLUSIVE_ALL, .key = r->key};
    int rc = pv_check(r, pv, err);
    if (rc < 0)
        return rc;
    uint32_t n = reservation_victims(&r->keys, &r->pool_id, host_id, generation, r->victims);
    for (uint32_t i = 0; i < n; i++) {
        command.action_key = r->victims[i];
        rc = pv_out(r, pv, &command, err);
        if (rc < 0 && rc != -EBADE)
            return rc;
        /* A conflict: another was quicker, and whether it got to the aborting is not known. */
        *outcomes |= rc == 0 ? PREEMPT_ABORTED : PREEMPT_UNKNOWN;
        log_info("reservation_preempt device=%s host_id=%" PRIu32 " key=0x%016" PRIx64 " result=%d",
                 pv->device, host_id, r->victims[i], rc);
    }
    return n == 0;
}

static int pv_preempt(struct reservation *r, struct pv *pv, uint32_t host_id, uint64_t generation,
                      unsigned *outcomes, struct error *err)
{
    for (int round = 0; round <= ROUNDS_MAX; round++) { /* the last one only looks, or fails */
        int rc = preempt_round(r, pv, host_id, generation, outcomes, err);
        if (rc != 0)
            return rc < 0 ? rc : 0;
    }
    return error_set(err, LUNAR_E_ALIVE,
                     "%s: host id %" PRIu32 " registers its key again as fast as it is preempted",
                     pv->device, host_id);
}

int reservation_preempt(struct reservation *r, uint32_t host_id, uint64_t generation,
                        struct error *err)
{
    uint32_t own_id = 0;
    uint64_t own_generation = 0;
    bool all_aborted = true;
    int rc = 0;

    assert(r->key != 0);
    reservation_key_in(&r->pool_id, r->key, &own_id, &own_generation);
    if (host_id == own_id && generation >= own_generation)
        return error_set(err, LUNAR_E_INVALID, "a node does not preempt itself");
    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++) {
        unsigned outcomes = 0;
        rc = pv_preempt(r, &r->pvs[i], host_id, generation, &outcomes, err);
        all_aborted = all_aborted && outcomes == PREEMPT_ABORTED;
    }
    if (rc == 0 && !all_aborted)
        r->ops->pause_ms(RESERVATION_SETTLE_MS);
    return rc;
}

int reservation_find(struct reservation *r, uint32_t host_id, uint64_t generation, bool *ret,
                     struct error *err)
{
    int rc = 0;

    *ret = false;
    for (uint32_t i = 0; rc == 0 && !*ret && i < r->n_pvs; i++) {
        rc = pv_keys(r, &r->pvs[i], err);
        *ret = rc == 0 &&
               reservation_victims(&r->keys, &r->pool_id, host_id, generation, r->victims) > 0;
    }
    return rc;
}

/* --- format --- */

static int pv_clear(struct reservation *r, struct pv *pv, bool force, struct error *err)
{
    const struct pr_out clear = {.action = PR_OUT_CLEAR, .key = r->key};
    struct reservation_holder holder;

    int rc = pv_holder(r, pv, &holder, err);
    if (rc == 0)
        rc = pv_keys(r, pv, err);
    bool foreign = rc == 0 && holder.held && holder.type != PR_TYPE_WRITE_EXCLUSIVE_ALL;
    for (uint32_t i = 0; rc == 0 && i < r->keys.n; i++)
        foreign = foreign || !reservation_key_is_lunar(r->keys.keys[i]);
    if (foreign && !force)
        return error_set(err, LUNAR_E_FOREIGN,
                         "%s is reserved by somebody else, or carries their keys: take it away "
                         "from them, or use --force to clear them",
                         pv->device);
    if (rc < 0 || (!holder.held && r->keys.n == 0))
        return rc;
    rc = LUNAR_E_INDETERMINATE; /* unheard, it has taken our registration away, or not */
    for (int i = 0; rc == LUNAR_E_INDETERMINATE && i < DOUBT_TRIES; i++) {
        rc = pv_register(r, pv, r->key, err);
        if (rc == 0)
            rc = pv_out(r, pv, &clear, err);
    }
    if (rc == 0)
        rc = pv_keys(r, pv, err);
    if (rc == 0 && r->keys.n > 0)
        rc = error_set(err, LUNAR_E_ALIVE, "%s: keys are registered while they are cleared",
                       pv->device);
    return rc;
}

int reservation_clear(struct reservation *r, bool force, struct error *err)
{
    int rc = reservation_key_out(&r->pool_id, RESERVATION_HOST_ID_MAX, 0, &r->key, err);

    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++)
        rc = pv_clear(r, &r->pvs[i], force, err);
    for (uint32_t i = 0; i < r->n_pvs; i++)
        for (uint32_t k = 0; k < r->pvs[i].n_paths; k++)
            r->pvs[i].paths[k].registered = false;
    r->key = 0;
    return rc;
}

/* --- life --- */

static int pv_open(struct reservation *r, struct pv *pv, const char *device, struct error *err)
{
    struct reservation_capabilities can;

    pv->device = strdup(device);
    if (!pv->device)
        abort();
    int rc = pv_find_paths(r, pv, err);
    if (rc == 0)
        rc = pv_in(r, pv, PR_IN_REPORT_CAPABILITIES, err);
    if (rc < 0)
        return rc;
    rc = reservation_capabilities_in(r->answer, (size_t)rc, &can, err);
    if (rc < 0)
        return error_prefix(err, "%s has no persistent reservations that lunar can use", device),
               rc;
    pv->persists = can.persists;
    return 0;
}

int reservation_open_with(const struct reservation_ops *ops, const char *const *devices,
                          uint32_t n_devices, const struct uuid *pool_id, struct reservation **ret,
                          struct error *err)
{
    struct reservation *r = calloc(1, sizeof *r);
    int rc = 0;

    assert(n_devices > 0 && n_devices <= RESERVATION_PVS_MAX);
    if (!r || !(r->pvs = calloc(n_devices, sizeof *r->pvs)) ||
        !(r->answer = malloc(PR_ANSWER_SIZE)))
        abort();
    r->ops = ops;
    r->pool_id = *pool_id;
    for (; rc == 0 && r->n_pvs < n_devices; r->n_pvs++)
        rc = pv_open(r, &r->pvs[r->n_pvs], devices[r->n_pvs], err);
    if (rc < 0)
        reservation_close(r);
    else
        *ret = r;
    return rc;
}

int reservation_open(const char *const *devices, uint32_t n_devices, const struct uuid *pool_id,
                     struct reservation **ret, struct error *err)
{
    return reservation_open_with(&reservation_scsi_ops, devices, n_devices, pool_id, ret, err);
}

void reservation_close(struct reservation *r)
{
    for (uint32_t i = 0; i < r->n_pvs; i++) {
        for (uint32_t k = 0; k < r->pvs[i].n_paths; k++)
            r->ops->close_path(r->pvs[i].paths[k].handle);
        free(r->pvs[i].device);
    }
    free(r->answer);
    free(r->pvs);
    free(r);
}

bool reservation_is_conflict(int rc)
{
    return rc == -EBADE;
}
