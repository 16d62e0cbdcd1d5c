/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of volumes and the tags that carry them. The input is taken twice: as a name that a client
 * sent, and as a tag that lies in the metadata.
 *
 * What must hold beyond "no crash": a name that volume_name_check accepts becomes a tag of LVM's
 * characters alone and comes back the same; a tag that tag_unescape accepts is the one spelling of
 * its name, so escaping the name gives that tag again. Results never outgrow their room, however
 * small it is.
 */
#include "coordinator/catalogue.h"
#include "fuzz/fuzz.h"

#define ESCAPED_SIZE (3u * VOLUME_NAME_MAX + 1)

static void as_name(const char *text)
{
    char escaped[ESCAPED_SIZE], back[VOLUME_NAME_MAX + 1];

    if (volume_name_check(text, NULL) < 0)
        return;
    tag_escape(text, escaped, sizeof escaped);
    MUST(strspn(escaped, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-/") ==
             strlen(escaped),
         "a tag has LVM's characters alone");
    MUST(tag_unescape(escaped, back, sizeof back) == 0 && strcmp(back, text) == 0,
         "the name comes back");
}

static void as_tag(const char *text, unsigned room)
{
    char *name = malloc(room), escaped[ESCAPED_SIZE];

    if (!name)
        abort();
    if (tag_unescape(text, name, room) == 0) {
        MUST(strlen(name) < room, "it fits");
        tag_escape(name, escaped, sizeof escaped);
        MUST(strcmp(escaped, text) == 0, "a name has one spelling");
    }
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = strndup((const char *)data, size);

    if (!text)
        abort();
    as_name(text);
    as_tag(text, VOLUME_NAME_MAX + 1);
    as_tag(text, 1 + (size ? data[0] % 16u : 0));
    free(text);
    return 0;
}
