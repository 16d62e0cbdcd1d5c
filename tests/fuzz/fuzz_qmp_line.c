/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line of QMP. The input is the line, without a NUL behind it.
 *
 * What must hold beyond "no crash": only an object is accepted, and it is the caller's own; printed
 * and parsed again it is equal; a refusal gives no object and LUNAR_E_CORRUPT with a reason.
 */
#include "agent/qsd.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    json_t *value = NULL, *again = NULL;

    int rc = qmp_parse_line((const char *)data, size, &value, &err);
    if (rc < 0) {
        MUST(rc == LUNAR_E_CORRUPT && err.text[0] && !value, "a refusal says why, gives nothing");
        return 0;
    }
    MUST(json_is_object(value) && value->refcount == 1, "an object of the caller's own");
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    MUST(text != NULL, "it can be printed");
    MUST(qmp_parse_line(text, strlen(text), &again, &err) == 0, "what is printed is accepted");
    MUST(json_equal(value, again), "and is the same");
    free(text);
    json_decref(value);
    json_decref(again);
    return 0;
}
