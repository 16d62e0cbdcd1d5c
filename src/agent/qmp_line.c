/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line of QMP to one JSON object; alone in this file so that it can be fuzzed alone. Happy
 * path: an object comes out. Failure modes: a line that is too long, is not JSON, has bytes behind
 * it, repeats a key or is not an object is LUNAR_E_CORRUPT: the daemon is ours, so a line like that
 * means that the stream is damaged, and it is never guessed at.
 */
#include "agent/qsd.h"

int qmp_parse_line(const char *line, size_t len, json_t **ret, struct error *err)
{
    json_error_t why;

    *ret = NULL;
    if (len > QMP_LINE_MAX)
        return error_set(err, LUNAR_E_CORRUPT, "QMP: a line of %zu bytes, more than %u", len,
                         QMP_LINE_MAX);
    json_t *value = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);
    if (!value)
        return error_set(err, LUNAR_E_CORRUPT, "QMP: not JSON: %s", why.text);
    if (!json_is_object(value)) {
        json_decref(value);
        return error_set(err, LUNAR_E_CORRUPT, "QMP: a line that is not an object");
    }
    *ret = value;
    return 0;
}
