/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LVM metadata as the device has it now, judged over all metadata areas.
 *
 * Happy path: both areas are sound and hold one text. Failure modes: an area that is damaged or
 * holds an older text is named in `why` and the view does not agree; the newest sound one, by term
 * and then by seqno, is still given. A read error is not damage: it is returned, because nothing
 * may be restored on the strength of a path that failed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "coordinator/commit_private.h"

#define TERM_TAG "\"lunar.t="

void metadata_drop(struct metadata *m)
{
    free(m->text);
    memset(m, 0, sizeof *m);
}

/* The VG's own tags stand before its PVs and LVs, so the first such tag in front of them is the
 * VG's. */
static uint64_t term_of(const char *text)
{
    const char *end = strstr(text, "\nphysical_volumes {"), *at = strstr(text, TERM_TAG);
    if (!at || !end || at > end)
        return 0;
    return strtoull(at + strlen(TERM_TAG), NULL, 10);
}

struct metadata metadata_make(char *text, size_t len, uint64_t seqno)
{
    return (struct metadata){
        .text = text, .len = len, .seqno = seqno, .crc = crc32c(text, len), .term = term_of(text)};
}

/* A text begins "NAME {\nid = "UUID"\nseqno = ". */
bool metadata_same_vg(const char *a, const char *b)
{
    const char *end = strstr(a, "\nseqno = ");
    return end && strncmp(a, b, (size_t)(end - a)) == 0;
}

/* Lines that a restore changes by right. The trailer begins with LVM's comment line and is cut off
 * before. */
static bool line_may_differ(const char *line)
{
    static const char *const starts[] = {
        "seqno = ", "device = ", "device_id = ", "device_id_type = "};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (strncmp(line, starts[i], strlen(starts[i])) == 0)
            return true;
    return *line == '\n';
}

/* The next line that counts, or NULL at the trailer or end. */
static const char *next_line(const char *p)
{
    while (*p && *p != '#') {
        if (!line_may_differ(p))
            return p;
        p += strcspn(p, "\n");
        p += *p == '\n';
    }
    return NULL;
}

bool metadata_equivalent(const char *a, const char *b)
{
    for (;;) {
        a = next_line(a);
        b = next_line(b);
        if (!a || !b)
            return a == b;
        size_t len = strcspn(a, "\n");
        if (len != strcspn(b, "\n") || memcmp(a, b, len) != 0)
            return false;
        a += len + (a[len] == '\n');
        b += len + (b[len] == '\n');
    }
}

static void disagree(struct metadata_view *view, int area, const char *what)
{
    if (view->agree)
        snprintf(view->why, sizeof view->why, "metadata area %d: %.200s", area, what);
    view->agree = false;
}

/* By term first: what a deposed coordinator's lvm writes late may carry any seqno, also the one
 * that its successor's text has, and it carries the term of the text that it had read. That is the
 * successor's only if it was thawed before it read (SAFETY 8): the successor undoes it. */
static bool is_newer(const struct metadata *a, const struct metadata *than)
{
    return a->term != than->term ? a->term > than->term : a->seqno > than->seqno;
}

static void consider(struct metadata_view *view, int area, struct metadata *found)
{
    char what[128];
    struct metadata *best = &view->best;
    if (best->text && !metadata_same(best, found)) {
        snprintf(what, sizeof what,
                 "seqno %" PRIu64 " of term %" PRIu64 " and another text than seqno %" PRIu64
                 " of term %" PRIu64,
                 found->seqno, found->term, best->seqno, best->term);
        disagree(view, area, what);
    }
    if (!best->text || is_newer(found, best)) {
        metadata_drop(best);
        *best = *found;
        return;
    }
    metadata_drop(found);
}

static bool is_damage(int code)
{
    return code == LUNAR_E_CORRUPT || code == LUNAR_E_NOT_FOUND;
}

int metadata_look(int fd, struct metadata_view *ret, struct error *err)
{
    struct mda_area areas[MDA_AREAS_MAX];
    struct error local = ERROR_INIT;

    *ret = (struct metadata_view){.agree = true};
    int n = mda_areas(fd, areas, &local);
    int rc = n < 0 && !is_damage(n) ? n : 0;
    if (n < 0)
        disagree(ret, 0, local.text);
    for (int i = 0; i < n && rc == 0; i++) {
        struct mda_state state;
        char *text;
        size_t len;
        int got = mda_read_area(fd, &areas[i], &state, &text, &len, &local);
        if (got == 0) {
            struct metadata found = metadata_make(text, len, state.seqno);
            consider(ret, i, &found);
        } else {
            disagree(ret, i, local.text);
            rc = is_damage(got) ? 0 : got;
        }
    }
    if (rc < 0) {
        metadata_drop(&ret->best);
        return error_set(err, rc, "cannot read LVM's metadata: %s", local.text);
    }
    return 0;
}
