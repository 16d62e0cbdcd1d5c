/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes as people type them. The input is the text (cut at its first NUL).
 *
 * What must hold beyond "no crash": an accepted size is positive, fits a signed 64-bit number, and
 * the same bytes written as a plain number are accepted as the same size; a refusal leaves the
 * result alone and says why. size_format stays within its room for any number.
 */
#include "base/size.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = strndup((const char *)data, size), plain[SIZE_TEXT_SIZE], shown[SIZE_TEXT_SIZE];
    struct error err = ERROR_INIT;
    uint64_t bytes = 77, again = 0;

    if (!text)
        abort();
    int rc = size_parse(text, &bytes, &err);
    free(text);
    if (rc < 0) {
        MUST(bytes == 77 && err.code == rc && err.text[0], "a refusal changes nothing, says why");
        struct feed f = {data, size};
        MUST(strlen(size_format(feed_u64(&f), shown)) < SIZE_TEXT_SIZE, "any number can be shown");
        return 0;
    }
    MUST(bytes > 0 && bytes <= INT64_MAX, "a size is positive and signed");
    snprintf(plain, sizeof plain, "%llu", (unsigned long long)bytes);
    MUST(size_parse(plain, &again, NULL) == 0 && again == bytes, "the plain number is the same");
    MUST(strlen(size_format(bytes, shown)) < SIZE_TEXT_SIZE, "it can be shown");
    return 0;
}
