/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of a copy of LVM's metadata. The input is a shape byte (fuzz_unit) and the header.
 *
 * What must hold beyond "no crash": an accepted length fits the slot behind the header, so that the
 * reader allocates and reads no more than a slot; encoding it again gives the same header.
 */
#include "diskrpc/mdcopy.h"
#include "diskrpc/unit.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t buffer[MDCOPY_HEADER_SIZE];
    struct mdcopy copy, again;
    struct error err = ERROR_INIT;

    fuzz_unit(data, size, UNIT_METADATA, 80, 0, buffer, sizeof buffer);
    int rc = mdcopy_in(buffer, &fuzz_pool, &copy, &err);
    if (rc < 0) {
        MUST(err.code == rc && err.text[0], "a refusal says why");
        return 0;
    }
    MUST(copy.text_len > 0 && copy.text_len <= LAYOUT_METADATA_COPY_SIZE - MDCOPY_HEADER_SIZE,
         "the text fits its slot");
    mdcopy_out(&copy, buffer);
    MUST(mdcopy_in(buffer, &fuzz_pool, &again, &err) == 0, "what was decoded encodes");
    MUST(again.term == copy.term && again.seq == copy.seq && again.vg_seqno == copy.vg_seqno &&
             again.text_crc == copy.text_crc && again.text_len == copy.text_len,
         "every number survives");
    return 0;
}
