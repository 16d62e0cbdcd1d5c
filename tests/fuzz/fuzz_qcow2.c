/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Headers of QCOW2 images, which lie where a guest's data lie. The input is the header, zeroes
 * behind its end; where its first byte is odd, the rest is laid over a header that is right.
 *
 * What must hold beyond "no crash": what is accepted has a size that its table reaches, and a table
 * that QEMU would take; a refusal leaves the result alone and says why.
 */
#include "agent/qcow2.h"
#include "fuzz/fuzz.h"

static const uint8_t right[48] = {'Q', 'F', 'I',       0xfb,        0,        0,
                                  0,   3,   [23] = 16, [28] = 0xc0, [39] = 6, [45] = 3};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[QCOW2_HEADER_BYTES] = {0};
    struct qcow2_header h = {.size = 77};
    struct error err = ERROR_INIT;

    if (size == 0)
        return 0;
    bool over = data[0] & 1;
    size = size - 1 < sizeof bytes ? size - 1 : sizeof bytes;
    if (over)
        memcpy(bytes, right, sizeof right);
    for (size_t i = 0; i < size; i++)
        bytes[i] = over ? bytes[i] ^ data[1 + i] : data[1 + i];
    int rc = qcow2_header_decode(bytes, &h, &err);
    if (rc < 0) {
        MUST(h.size == 77 && err.code == rc && err.text[0], "a refusal changes nothing, says why");
        return 0;
    }
    MUST(h.size > 0 && h.l1_entries <= 4u << 20, "QEMU's bounds");
    MUST((h.size - 1) / QCOW2_L1_ENTRY_BYTES < h.l1_entries, "the table reaches the size");
    MUST(h.l1_offset > 0 && h.l1_offset % 65536 == 0 && h.l1_offset <= INT64_MAX,
         "the table's place");
    return 0;
}
