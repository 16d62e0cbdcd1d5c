/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags: LVM allows letters, digits and _+.-/=!:&# in them; lunar escapes what people wrote as "/xx"
 * and puts one fact in each tag. Failure modes: a tag that is there twice or malformed counts as
 * missing, and the catalogue then calls the LV foreign instead of guessing.
 */
#include "coordinator/tags.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue.h"

static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-";

const char *tags_value(const struct lvm_lv *lv, const char *key)
{
    char prefix[32];
    const char *found = NULL;
    size_t len = (size_t)snprintf(prefix, sizeof prefix, "lunar.%s=", key);
    for (uint32_t i = 0; i < lv->n_tags; i++) {
        if (strncmp(lv->tags[i], prefix, len) != 0)
            continue;
        if (found)
            return NULL;
        found = lv->tags[i] + len;
    }
    return found;
}

bool tags_has_key(const struct lvm_lv *lv, const char *key)
{
    char prefix[32];
    size_t len = (size_t)snprintf(prefix, sizeof prefix, "lunar.%s=", key);
    for (uint32_t i = 0; i < lv->n_tags; i++)
        if (strncmp(lv->tags[i], prefix, len) == 0)
            return true;
    return false;
}

bool tags_has(const struct lvm_lv *lv, const char *tag)
{
    for (uint32_t i = 0; i < lv->n_tags; i++)
        if (strcmp(lv->tags[i], tag) == 0)
            return true;
    return false;
}

bool tags_any(const struct lvm_lv *lv)
{
    for (uint32_t i = 0; i < lv->n_tags; i++)
        if (strncmp(lv->tags[i], "lunar.", 6) == 0)
            return true;
    return false;
}

bool tags_number(const struct lvm_lv *lv, const char *key, uint64_t *ret)
{
    const char *text = tags_value(lv, key);
    /* 19 digits always fit 64 bits. */
    if (!text || !*text || strlen(text) > 19 || text[strspn(text, "0123456789")])
        return false;
    *ret = strtoull(text, NULL, 10);
    return true;
}

bool tags_uuid(const struct lvm_lv *lv, const char *key, struct uuid *ret)
{
    const char *text = tags_value(lv, key);
    return text && uuid_parse(text, ret) == 0;
}

void tag_escape(const char *text, char *ret, unsigned ret_size)
{
    unsigned used = 0;
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        bool is_plain = strchr(plain, byte) != NULL;
        unsigned need = is_plain ? 1 : 3;
        assert(used + need < ret_size);
        used += (unsigned)sprintf(ret + used, is_plain ? "%c" : "/%02x", byte);
    }
    assert(used < ret_size);
    ret[used] = 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int tag_unescape(const char *tag, char *ret, unsigned ret_size)
{
    unsigned used = 0;
    while (*tag) {
        int byte = (unsigned char)*tag;
        if (used + 1 >= ret_size)
            return LUNAR_E_TOO_BIG;
        if (*tag == '/') {
            int high = hex_digit(tag[1]), low = high < 0 ? -1 : hex_digit(tag[2]);
            byte = high * 16 + low;
            /* NUL would end the name early; a plain byte that is escaped would give one name two
             * spellings. */
            if (low < 0 || byte == 0 || strchr(plain, byte))
                return LUNAR_E_INVALID;
            tag += 2;
        } else if (!strchr(plain, byte)) {
            return LUNAR_E_INVALID;
        }
        ret[used++] = (char)byte;
        tag++;
    }
    ret[used] = 0;
    return 0;
}

/* Bytes of the well-formed UTF-8 character at p (RFC 3629: no overlong forms, no surrogates), or 0.
 */
static unsigned utf8_len(const unsigned char *p)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned n = p[0] < 0x80       ? 1
                 : p[0] >> 5 == 6  ? 2
                 : p[0] >> 4 == 14 ? 3
                 : p[0] >> 3 == 30 ? 4
                                   : 0;
    unsigned code = n == 1 ? p[0] : n ? p[0] & (0x7fu >> n) : 0;
    for (unsigned i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    if (n == 0 || code < least[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    return n;
}

/* C0, DEL and C1. */
static bool is_control(const unsigned char *p)
{
    return p[0] < 0x20 || p[0] == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0);
}

int volume_name_check(const char *name, struct error *err)
{
    size_t len = strlen(name);
    if (len == 0)
        return error_set(err, LUNAR_E_INVALID, "a volume needs a name");
    if (len > VOLUME_NAME_MAX)
        return error_set(err, LUNAR_E_INVALID, "the volume's name has %zu bytes; %d are allowed",
                         len, VOLUME_NAME_MAX);
    for (const unsigned char *p = (const unsigned char *)name; *p;) {
        unsigned n = utf8_len(p);
        if (n == 0)
            return error_set(err, LUNAR_E_INVALID, "the volume's name is not UTF-8");
        if (is_control(p))
            return error_set(err, LUNAR_E_INVALID, "the volume's name holds a control character");
        p += n;
    }
    return 0;
}
