/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Committing: the order of steps that makes LVM's metadata safe without a compare-and-swap (SAFETY
 * 4).
 *
 * Happy path of a commit: we still lead; every metadata area holds exactly the text that we know;
 * lvm runs; the new text is read, carries our term and becomes what we know; its copy goes to the
 * reserved area. At takeover the first commit stamps the VG with our term (the tag lunar.t=TERM),
 * so that every text says who committed it. Failure modes:
 *  - Another text on the disk than we know: a write of a deposed predecessor that came late, or
 * damage. What we know is restored and the commit refused with LUNAR_E_METADATA; it may be tried
 * again.
 *  - The same between our check and lvm's own read: seen afterwards, because the new text then is
 * no newer than the known one or carries another term. Restored as well.
 *  - At takeover a text newer than the copy is the predecessor's, who died before its copy, if its
 * term is not lower than the copy's, and is adopted; a lower term is a late write and the copy is
 * restored.
 *  - lvm killed or timed out: it may have committed, perhaps to one area alone. What is there is
 * adopted, as nobody else writes while we lead and the child is dead, and the areas are made equal
 * again.
 *  - The copy cannot be stored: the commit stands, the caller gets INDETERMINATE. Nothing may be
 * built on it, an answer to a client least of all, until committer_settle has stored it: a late
 * write could otherwise bring back the metadata before it.
 *  - lvm failed and nothing of it is there: it may yet land, as a text that is newer than what we
 * know and of our term, which the next leader would adopt although the client was told of a failure
 * and went on. So what we know is written once more, under that very seqno, before anybody is told.
 *  - The device cannot be read: an error and nothing else.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/commit_private.h"
#include "coordinator/mem.h"

/* One commit adds at most a few KiB; a text this near to what a copy holds takes no more of them.
 */
#define COMMIT_TEXT_MAX (LAYOUT_METADATA_COPY_SIZE - MIB)

struct committer {
    struct committer_config config;
    struct metadata known;
    struct mdcopy copy; /* the last one: its slot is the one that the next store leaves alone */
    bool has_copy;      /* `copy` is valid */
    bool copy_due;      /* `known` is newer than the copy, or the copy is damaged */
    bool unsure;  /* a command of ours ended we know not how: `known` is no basis until we have
                     looked */
    bool settled; /* the disk holds `known` in every area, and so does the copy */
    uint64_t failed_seqno; /* a command on top of this text failed and may yet land; 0: none */
    uint64_t basis;        /* rises with each text that became known and was not asked for */
};

static int check_leader(const struct committer *c, struct error *err)
{
    return c->config.leadership ? leadership_check(c->config.leadership, c->config.term, err) : 0;
}

static void point(const char *command, const char *step)
{
    char name[64];
    snprintf(name, sizeof name, "commit %.32s %s", command, step);
    effect_point(name);
}

/* Takes the view's text as what we know. */
static void adopt(struct committer *c, struct metadata_view *view)
{
    if (!metadata_same(&c->known, &view->best))
        c->copy_due = true;
    metadata_drop(&c->known);
    c->known = view->best;
    view->best = (struct metadata){0};
}

/* Stores `m` as the copy, in the slot that c->copy does not name. */
static int put_copy(struct committer *c, const struct metadata *m, struct error *err)
{
    const struct superblock *sb = c->config.superblock;
    struct mdcopy stored;
    int rc = mdcopy_store(c->config.fd, &sb->layout, &sb->pool_id, c->has_copy ? &c->copy : NULL,
                          c->config.term, m->seqno, m->text, m->len, &stored, err);
    if (rc < 0)
        return error_prefix(err, "cannot store the copy of LVM's metadata"), rc;
    c->copy = stored;
    c->has_copy = true;
    return 0;
}

static int store_copy(struct committer *c, struct error *err)
{
    int rc = c->copy_due ? put_copy(c, &c->known, err) : 0;
    if (rc == 0)
        c->copy_due = false;
    return rc;
}

/* A copy of a higher term is a successor's. A leader that stood still between its look at the lease
 * and this look would else put its older text over it, under a seq above the successor's, and the
 * next takeover would believe that one. */
static int check_copy_term(const struct committer *c, const struct mdcopy *found, struct error *err)
{
    if (found->term <= c->config.term)
        return 0;
    return error_set(err, LUNAR_E_STALE,
                     "the copy of LVM's metadata was stored under term %" PRIu64
                     ", ours is %" PRIu64 ": another coordinator leads",
                     found->term, c->config.term);
}

/* One attempt; 0 if every area then holds `want` under a new seqno, which becomes what we know. */
static int try_restore(struct committer *c, const struct metadata *want, enum metadata_depth depth,
                       struct error *err)
{
    struct metadata_view view;
    int rc = metadata_restore(c->config.lvm, c->config.fd, want->text, depth, err);
    if (rc < 0)
        return rc;
    rc = metadata_look(c->config.fd, &view, err);
    if (rc < 0)
        return rc;
    if (!view.best.text || !view.agree)
        rc = error_set(err, LUNAR_E_METADATA, "restored, but %s", view.why);
    else if (view.best.seqno != want->seqno + 1 || !metadata_equivalent(view.best.text, want->text))
        rc = error_set(err, LUNAR_E_METADATA, "restored, but seqno %" PRIu64 " has another content",
                       view.best.seqno);
    else
        adopt(c, &view);
    metadata_drop(&view.best);
    return rc;
}

/* Making more of the PV anew helps where lvm refused or the result is wrong, not where the device
 * or lvm itself fails. */
static bool may_try_again(int rc)
{
    return rc == LUNAR_E_METADATA || rc == LUNAR_E_EXEC;
}

/* Label and headers that are made anew hold no text for a while, and lvm may fail just then: `want`
 * must stand in both slots of the copy before: killed then, it may be long until somebody leads who
 * could mend the only one. */
static int secure(struct committer *c, const struct metadata *want, struct error *err)
{
    const struct superblock *sb = c->config.superblock;
    struct mdcopy found;
    char *text = NULL;
    int rc = mdcopy_read(c->config.fd, &sb->layout, &sb->pool_id, &found, &text, NULL);
    free(text);
    bool there = rc == 0 && found.text_crc == want->crc && found.text_len == want->len;
    rc = rc == 0 ? check_copy_term(c, &found, err) : 0;
    if (rc == 0 && !there)
        rc = put_copy(c, want, err);
    return rc == 0 ? put_copy(c, want, err) : rc; /* and into the other slot */
}

/* Puts `want` (not c->known itself) back everywhere and stores its copy; makes no more of the PV
 * anew than `deepest`. */
static int restore(struct committer *c, const struct metadata *want, enum metadata_depth deepest,
                   const char *why, struct error *err)
{
    log_error("metadata_restore term=%" PRIu64 " seqno=%" PRIu64 " why=\"%s\"", c->config.term,
              want->seqno, why);
    point("restore", "begin");
    int rc = check_leader(c, err);
    if (rc < 0)
        return rc;
    rc = LUNAR_E_METADATA;
    for (int depth = 0; may_try_again(rc) && depth <= (int)deepest; depth++) {
        int secured = depth > METADATA_TEXT ? secure(c, want, err) : 0;
        rc = secured < 0 ? secured : try_restore(c, want, (enum metadata_depth)depth, err);
    }
    point("restore", "committed");
    if (rc == 0)
        rc = store_copy(c, err);
    point("restore", "copied");
    if (rc == 0)
        log_warn("metadata_restored term=%" PRIu64 " seqno=%" PRIu64, c->config.term,
                 c->known.seqno);
    else
        log_error("metadata_restore_failed term=%" PRIu64 " error=%s", c->config.term,
                  error_name(rc));
    return rc;
}

/* Puts what we know back under the next seqno. */
static int restore_known(struct committer *c, enum metadata_depth deepest, const char *why,
                         struct error *err)
{
    struct metadata want = c->known;
    c->known = (struct metadata){0};
    int rc = restore(c, &want, deepest, why, err);
    if (rc < 0 && !c->known.text)
        c->known = want;
    else
        metadata_drop(&want);
    return rc;
}

/* Restores what we know; always an error, LUNAR_E_METADATA if that worked. */
static int refuse_and_restore(struct committer *c, const char *why, struct error *err)
{
    uint64_t seqno = c->known.seqno;
    int rc = restore_known(c, METADATA_LABEL, why, err);
    if (rc < 0) {
        error_prefix(err, "LVM's metadata is not what was committed last (%s) and was not restored",
                     why);
        return rc;
    }
    return error_set(err, LUNAR_E_METADATA,
                     "LVM's metadata was not what was committed last (%s); it was restored from "
                     "the copy of seqno %" PRIu64 ", try again",
                     why, seqno);
}

/* A sound VG that is none of ours means that somebody else uses the LUN now: nothing is put over
 * that. */
static int check_foreign(const struct metadata *found, const struct metadata *ours,
                         struct error *err)
{
    if (found->text && ours->text && !metadata_same_vg(found->text, ours->text))
        return error_set(
            err, LUNAR_E_FOREIGN,
            "the LUN holds another volume group than the pool's: somebody took it into use");
    return 0;
}

/* Nobody but we wrote since we looked last: takes what is there, and makes the areas equal. A text
 * that is not just the next one of a command that ended well (`expected`) holds what no catalogue
 * has shown yet: a commit that was taken for failed, for example. */
static int resync(struct committer *c, bool expected, struct error *err)
{
    struct metadata_view view;
    char why[256];
    int rc = metadata_look(c->config.fd, &view, err);
    if (rc < 0)
        return rc;
    bool ours = view.best.text && view.best.seqno >= c->known.seqno &&
                (view.best.term == c->known.term || view.best.term == c->config.term) &&
                (view.best.seqno > c->known.seqno || metadata_same(&view.best, &c->known));
    rc = check_foreign(&view.best, &c->known, err);
    if (rc < 0) {
        metadata_drop(&view.best);
        return rc;
    }
    bool agree = view.agree;
    snprintf(why, sizeof why, "%s", agree ? "seqno or term went back" : view.why);
    if (ours) {
        bool next = expected && view.best.seqno == c->known.seqno + 1;
        c->basis += !next && !metadata_same(&view.best, &c->known);
        adopt(c, &view);
    }
    metadata_drop(&view.best);
    c->unsure = false;
    return ours && agree ? 0 : refuse_and_restore(c, why, err);
}

/* On-disk (seqno, text) equals what we know, in every area. */
static int check_disk(struct committer *c, struct error *err)
{
    struct metadata_view view;
    char why[256] = "";
    int rc = metadata_look(c->config.fd, &view, err);
    if (rc < 0)
        return rc;
    if (!view.agree)
        snprintf(why, sizeof why, "%s", view.why);
    else if (!metadata_same(&view.best, &c->known))
        snprintf(why, sizeof why, "it has seqno %" PRIu64 " of term %" PRIu64, view.best.seqno,
                 view.best.term);
    rc = check_foreign(&view.best, &c->known, err);
    metadata_drop(&view.best);
    if (rc < 0)
        return rc;
    return why[0] ? refuse_and_restore(c, why, err) : 0;
}

static int check_before(struct committer *c, const char *command, uint64_t basis, struct error *err)
{
    if (c->known.len > COMMIT_TEXT_MAX && strcmp(command, "lvcreate") == 0)
        return error_set(err, LUNAR_E_NO_SPACE,
                         "the pool's metadata is full (%zu bytes): delete volumes first",
                         c->known.len);
    if (lvm_is_stuck(c->config.lvm))
        return error_set(err, LUNAR_E_INDETERMINATE,
                         "an earlier lvm was killed but hangs in its I/O: look at the LUN's paths");
    int rc = check_leader(c, err);
    if (rc == 0 && c->unsure)
        rc = resync(c, false, err);
    if (rc == 0)
        rc = check_disk(c, err);
    if (rc == 0)
        rc = store_copy(c, err);
    if (rc == 0)
        rc = lvm_see_pvs(c->config.lvm, c->known.text, err);
    if (rc == 0 && c->basis != basis)
        rc = error_set(err, LUNAR_E_METADATA,
                       "an earlier commit that was taken for failed has taken effect after all; "
                       "try again");
    return rc;
}

int committer_run(struct committer *c, const char *const *args, uint64_t basis, struct error *err)
{
    struct error after = ERROR_INIT;

    point(args[0], "begin");
    c->settled = false;
    int rc = check_before(c, args[0], basis, err);
    if (rc < 0)
        return rc;
    c->unsure = true;
    uint64_t before = c->known.seqno;
    rc = lvm_run(c->config.lvm, args, NULL, err);
    c->failed_seqno = rc < 0 && rc != LUNAR_E_NO_SPACE ? before : 0;
    point(args[0], "committed");
    if (lvm_is_stuck(c->config.lvm))
        return rc; /* it may yet write: what the disk holds now says nothing */
    int looked = resync(c, rc == 0, &after);
    if (looked == 0)
        looked = store_copy(c, &after);
    point(args[0], "copied");
    c->settled = looked == 0 && c->failed_seqno == 0;
    if (looked == 0 || rc == LUNAR_E_INDETERMINATE)
        return rc;
    if (looked == LUNAR_E_METADATA)
        return error_set(err, looked, "after lvm %s: %s", args[0], after.text);
    return error_set(err, LUNAR_E_INDETERMINATE, "lvm %s ended, but %s", args[0], after.text);
}

/* As check_disk, and what that restored is looked at, too. */
static int level_disk(struct committer *c, struct error *err)
{
    int rc = check_disk(c, err);
    return rc == LUNAR_E_METADATA ? check_disk(c, err) : rc;
}

int committer_settle(struct committer *c, struct error *err)
{
    if (c->settled)
        return 0;
    if (lvm_is_stuck(c->config.lvm))
        return error_set(err, LUNAR_E_INDETERMINATE, "a killed lvm hangs in its I/O");
    int rc = check_leader(c, err);
    if (rc == 0 && c->unsure)
        rc = resync(c, false, err);
    if (rc == 0 || rc == LUNAR_E_METADATA)
        rc = level_disk(c, err);
    if (rc == 0 && c->failed_seqno == c->known.seqno)
        rc = restore_known(c, METADATA_TEXT, "a command that failed may yet land", err);
    if (rc == 0)
        rc = store_copy(c, err);
    c->settled = rc == 0;
    c->failed_seqno = rc == 0 ? 0 : c->failed_seqno;
    return rc;
}

uint64_t committer_basis(const struct committer *c)
{
    return c->basis;
}

/* The copy on the LUN is the one that was stored last; else it is stored again, over the one that
 * is wrong: the older one stays whole until the new one is. */
static int check_copy(struct committer *c, struct error *err)
{
    struct error local = ERROR_INIT;
    struct mdcopy found;
    char *text = NULL;

    if (c->copy_due)
        return store_copy(c, err); /* found wrong before; the slot is chosen */
    int rc = mdcopy_read(c->config.fd, &c->config.superblock->layout,
                         &c->config.superblock->pool_id, &found, &text, &local);
    free(text);
    bool lost = rc == LUNAR_E_CORRUPT || rc == LUNAR_E_NOT_FOUND || rc == LUNAR_E_FOREIGN;
    if (rc < 0 && !lost)
        return error_set(err, rc, "cannot read the copy of LVM's metadata: %s", local.text);
    if (rc == 0 && found.seq == c->copy.seq && found.text_crc == c->known.crc)
        return 0;
    if (rc == 0 && check_copy_term(c, &found, err) < 0)
        return LUNAR_E_STALE;
    log_error("metadata_copy_lost text=\"%s; stored again\"",
              rc < 0 ? local.text : "another one is there");
    /* The next store goes to the slot that c->copy does not name, under a seq above all others. */
    bool overtaken = rc == 0 && found.seq > c->copy.seq;
    c->copy.slot = !(overtaken ? found.slot : c->copy.slot);
    c->copy.seq = overtaken ? found.seq : c->copy.seq;
    c->copy_due = true;
    return store_copy(c, err);
}

int committer_tend(struct committer *c, struct error *err)
{
    if (lvm_is_stuck(c->config.lvm))
        return 0; /* the next commit says so */
    int rc = check_leader(c, err);
    if (rc == 0 && c->settled)
        rc = check_disk(c, err);
    if (rc == LUNAR_E_METADATA)
        c->settled = false;
    if ((rc == 0 || rc == LUNAR_E_METADATA) && !c->settled)
        rc = committer_settle(c, err);
    return rc == 0 ? check_copy(c, err) : rc;
}

/* The tag that says under whose term the texts are written from now on. */
static int stamp(struct committer *c, struct error *err)
{
    char tag[40], old[40];
    const char *args[] = {"vgchange", "-qq", "-y", "--addtag", tag, lvm_vg_name(c->config.lvm),
                          NULL,       NULL,  NULL};
    if (c->known.term == c->config.term)
        return 0;
    if (c->known.term > c->config.term)
        return error_set(err, LUNAR_E_STALE,
                         "LVM's metadata was committed under term %" PRIu64 ", ours is %" PRIu64,
                         c->known.term, c->config.term);
    snprintf(tag, sizeof tag, "lunar.t=%" PRIu64, c->config.term);
    snprintf(old, sizeof old, "lunar.t=%" PRIu64, c->known.term);
    if (c->known.term) {
        args[6] = "--deltag";
        args[7] = old;
    }
    int rc = committer_run(c, args, c->basis, err);
    if (rc == 0 && c->known.term != c->config.term)
        rc = error_set(err, LUNAR_E_METADATA,
                       "a late write of a predecessor undid our first commit; try again");
    return rc;
}

/* Decides between the disk and the copy; `copy_text` has no text if none was ever stored. */
static int choose(struct committer *c, struct metadata *stored, struct metadata_view *view,
                  struct error *err)
{
    const struct metadata *best = &view->best;
    char why[320];
    bool newer = best->text && best->seqno > stored->seqno && best->term >= c->copy.term;

    if (!best->text && !stored->text)
        return error_set(
            err, LUNAR_E_METADATA,
            "there is no sound LVM metadata (%s) and no copy of it in the reserved area",
            view->why);
    int rc = check_foreign(best, stored, err);
    if (rc < 0)
        return rc;
    if (best->text && best->term > c->config.term)
        return error_set(err, LUNAR_E_STALE,
                         "LVM's metadata was committed under term %" PRIu64 ", ours is %" PRIu64,
                         best->term, c->config.term);
    if (best->text && view->agree && (!stored->text || newer || metadata_same(best, stored))) {
        if (newer && stored->text)
            log_warn("metadata_adopted term=%" PRIu64 " seqno=%" PRIu64 " copy=%" PRIu64,
                     best->term, best->seqno, stored->seqno);
        c->copy_due = !stored->text || newer;
        c->known = view->best;
        view->best = (struct metadata){0};
        return 0;
    }
    /* The newest legitimate text goes back to all areas: the disk's where the predecessor died
     * between two of them. */
    bool from_disk = best->text && (!stored->text || newer);
    snprintf(why, sizeof why, "takeover: %s",
             !view->agree ? view->why : "the text on the disk is not the stored one");
    return restore(c, from_disk ? best : stored, METADATA_LABEL, why, err);
}

static int read_copy(struct committer *c, struct metadata *ret, struct error *err)
{
    struct error local = ERROR_INIT;
    char *text = NULL;
    int rc = mdcopy_read(c->config.fd, &c->config.superblock->layout,
                         &c->config.superblock->pool_id, &c->copy, &text, &local);
    *ret = (struct metadata){0};
    if (rc == 0 && check_copy_term(c, &c->copy, err) < 0) {
        free(text);
        return LUNAR_E_STALE;
    }
    if (rc == 0) {
        c->has_copy = true;
        *ret = metadata_make(text, c->copy.text_len, c->copy.vg_seqno);
        return 0;
    }
    c->copy = (struct mdcopy){0};
    if (rc == LUNAR_E_NOT_FOUND || rc == LUNAR_E_FOREIGN)
        return 0; /* nothing stored, or what an earlier pool on this LUN stored */
    if (rc != LUNAR_E_CORRUPT)
        return error_set(err, rc, "cannot read the copy of LVM's metadata: %s", local.text);
    log_error("metadata_copy_lost text=\"%s; the metadata on the disk is taken if it is sound\"",
              local.text);
    return 0;
}

int committer_open(const struct committer_config *config, struct committer **ret, struct error *err)
{
    struct committer *c = mem_array(1, sizeof *c);
    struct metadata stored = {0};
    struct metadata_view view = {0};

    c->config = *config;
    int rc = check_leader(c, err);
    if (rc == 0)
        rc = read_copy(c, &stored, err);
    if (rc == 0)
        rc = metadata_look(config->fd, &view, err);
    if (rc == 0)
        rc = choose(c, &stored, &view, err);
    if (rc == 0)
        rc = store_copy(c, err);
    if (rc == 0)
        rc = lvm_see_pvs(config->lvm, c->known.text, err);
    if (rc == 0)
        rc = stamp(c, err);
    metadata_drop(&stored);
    metadata_drop(&view.best);
    if (rc < 0) {
        committer_close(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void committer_close(struct committer *c)
{
    if (!c)
        return;
    metadata_drop(&c->known);
    free(c);
}

const char *committer_text(const struct committer *c)
{
    return c->known.text;
}

uint64_t committer_seqno(const struct committer *c)
{
    return c->known.seqno;
}
