/* SPDX-License-Identifier: Apache-2.0 */
/* The error table's look-ups and the text that travels with a code; see error.h. Nothing here
 * fails. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct entry {
    int code;
    const char *name;
    const char *text;
    int grpc;
    bool retryable;
};

static const struct entry entries[] = {
#define X(name, offset, text, grpc, retryable) {LUNAR_E_##name, #name, text, grpc, retryable},
    LUNAR_ERRORS(X)
#undef X
};

static const struct entry *find(int code)
{
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        if (entries[i].code == code)
            return &entries[i];
    return NULL;
}

int error_set(struct error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        err->code = code;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return code;
}

int error_prefix(struct error *err, const char *format, ...)
{
    if (!err)
        return 0;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    return err->code;
}

const char *error_name(int code)
{
    const struct entry *e = find(code);
    if (e)
        return e->name;
    const char *name = strerrorname_np(-code);
    return name ? name : "UNKNOWN";
}

const char *error_text(int code)
{
    const struct entry *e = find(code);
    if (e)
        return e->text;
    const char *text = strerrordesc_np(-code);
    return text ? text : "unknown error";
}

int error_grpc(int code)
{
    const struct entry *e = find(code);
    if (e)
        return e->grpc;
    return code == 0 ? 0 : error_retryable(code) ? 14 : 13;
}

bool error_retryable(int code)
{
    const struct entry *e = find(code);
    if (e)
        return e->retryable;
    return code == -EAGAIN || code == -EINTR || code == -ETIMEDOUT || code == -ECONNREFUSED;
}
