/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator's beat page. The input is a shape byte (fuzz_unit) and the page.
 *
 * What must hold beyond "no crash": an accepted beat has a host, a term, a count, a known phase, a
 * name that ends and a list that fits; encoding it again gives the same.
 */
#include "diskrpc/beat.h"
#include "diskrpc/unit.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t buffer[BEAT_SIZE];
    struct beat beat, again;
    struct error err = ERROR_INIT;

    fuzz_unit(data, size, UNIT_BEAT, 88, 0, buffer, sizeof buffer);
    int rc = beat_in(buffer, &fuzz_pool, &beat, &err);
    if (rc < 0) {
        MUST(err.code == rc && err.text[0], "a refusal says why");
        return 0;
    }
    MUST(beat.writer.host_id > 0 && beat.writer.run_or_term > 0 && beat.count > 0,
         "it is somebody's");
    MUST(beat_phase_name(beat.phase)[0] != '?', "its phase is known");
    MUST(beat.n_still <= BEAT_STILL_MAX, "its list fits");
    MUST(strnlen(beat.node_name, sizeof beat.node_name) < sizeof beat.node_name, "its name ends");
    beat_out(&beat, buffer);
    MUST(beat_in(buffer, &fuzz_pool, &again, &err) == 0, "what was decoded encodes");
    MUST(again.writer.host_id == beat.writer.host_id &&
             again.writer.generation == beat.writer.generation &&
             again.writer.run_or_term == beat.writer.run_or_term && again.count == beat.count &&
             again.phase == beat.phase && again.n_still == beat.n_still &&
             memcmp(again.still, beat.still, beat.n_still * sizeof *beat.still) == 0 &&
             strcmp(again.node_name, beat.node_name) == 0,
         "every field survives");
    return 0;
}
