/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The beat page's bytes, and its reading and writing by blocking I/O; see beat.h.
 *
 * Happy path: encode and write; read and decode. Failure modes: never written, torn, damaged, of
 * another pool or of a newer lunar, each told apart, because a reader may take none of them for
 * silence but the first four.
 */
#include "diskrpc/beat.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/le.h"
#include "diskrpc/unit.h"

enum {
    AT_WRITER_HOST = 48,
    AT_PHASE = 52,
    AT_WRITER_GENERATION = 56,
    AT_TERM = 64,
    AT_COUNT = 72,
    AT_N_STILL = 80,
    HEADER_LEN = 88,
    AT_STILL = HEADER_LEN,
    STILL_SIZE = 24, /* host id, four bytes of zeroes, generation, timestamp */
    AT_NAME = BEAT_SIZE - PAGE_NAME_SIZE,
};

_Static_assert(AT_STILL + BEAT_STILL_MAX * STILL_SIZE <= AT_NAME, "the list ends before the name");

const char *beat_phase_name(enum beat_phase phase)
{
    switch (phase) {
    case BEAT_PHASE_TAKEOVER:
        return "takeover";
    case BEAT_PHASE_LEADING:
        return "leading";
    case BEAT_PHASE_RESIGNING:
        return "resigning";
    }
    return "?";
}

static void still_out(const struct beat *beat, uint8_t *at)
{
    for (uint32_t i = 0; i < beat->n_still; i++, at += STILL_SIZE) {
        le32_put(at, beat->still[i].host_id);
        le64_put(at + 8, beat->still[i].generation);
        le64_put(at + 16, beat->still[i].timestamp);
    }
}

static bool still_in(struct beat *beat, const uint8_t *at)
{
    for (uint32_t i = 0; i < beat->n_still; i++, at += STILL_SIZE) {
        beat->still[i] = (struct beat_still){.host_id = le32_get(at),
                                             .generation = le64_get(at + 8),
                                             .timestamp = le64_get(at + 16)};
        if (beat->still[i].host_id == 0 || beat->still[i].timestamp == 0)
            return false;
    }
    return true;
}

void beat_out(const struct beat *beat, uint8_t buffer[BEAT_SIZE])
{
    assert(beat->n_still <= BEAT_STILL_MAX);
    assert(beat->writer.host_id >= 1 && beat->writer.run_or_term >= 1 && beat->count >= 1);
    const struct unit unit = {
        .kind = UNIT_BEAT,
        .header_len = HEADER_LEN,
        .len = BEAT_SIZE,
        .pool_id = beat->pool_id,
    };
    memset(buffer, 0, BEAT_SIZE);
    unit_out(&unit, buffer);
    le32_put(buffer + AT_WRITER_HOST, beat->writer.host_id);
    le32_put(buffer + AT_PHASE, (uint32_t)beat->phase);
    le64_put(buffer + AT_WRITER_GENERATION, beat->writer.generation);
    le64_put(buffer + AT_TERM, beat->writer.run_or_term);
    le64_put(buffer + AT_COUNT, beat->count);
    le32_put(buffer + AT_N_STILL, beat->n_still);
    still_out(beat, buffer + AT_STILL);
    unit_text_put(buffer + AT_NAME, beat->node_name, PAGE_NAME_SIZE - 1);
    unit_seal(buffer);
}

int beat_in(const uint8_t buffer[BEAT_SIZE], const struct uuid *pool_id, struct beat *ret,
            struct error *err)
{
    struct unit unit;
    int rc = unit_in(buffer, BEAT_SIZE, UNIT_BEAT, 0, pool_id, &unit, err);
    if (rc < 0)
        return rc;
    if (unit.header_len != HEADER_LEN || unit.len != BEAT_SIZE)
        return error_set(err, LUNAR_E_CORRUPT, "header %u, length %u", unit.header_len, unit.len);
    uint32_t phase = le32_get(buffer + AT_PHASE);
    struct beat beat = {
        .pool_id = unit.pool_id,
        .writer = {.host_id = le32_get(buffer + AT_WRITER_HOST),
                   .generation = le64_get(buffer + AT_WRITER_GENERATION),
                   .run_or_term = le64_get(buffer + AT_TERM)},
        .count = le64_get(buffer + AT_COUNT),
        .n_still = le32_get(buffer + AT_N_STILL),
    };
    memcpy(beat.node_name, buffer + AT_NAME, PAGE_NAME_SIZE);
    if (phase < BEAT_PHASE_TAKEOVER || phase > BEAT_PHASE_RESIGNING)
        return error_set(err, LUNAR_E_CORRUPT, "phase %u", phase);
    if (beat.writer.host_id == 0 || beat.writer.run_or_term == 0 || beat.count == 0)
        return error_set(err, LUNAR_E_CORRUPT, "host id, term or count of zero");
    if (beat.node_name[PAGE_NAME_SIZE - 1] != '\0')
        return error_set(err, LUNAR_E_CORRUPT, "a node name without an end");
    if (beat.n_still > BEAT_STILL_MAX || !still_in(&beat, buffer + AT_STILL))
        return error_set(err, LUNAR_E_CORRUPT, "a list of %u leases", beat.n_still);
    beat.phase = (enum beat_phase)phase;
    *ret = beat;
    return 0;
}

uint64_t beat_offset(const struct layout *layout)
{
    return layout->area_start + LAYOUT_BEAT_OFFSET;
}

int beat_write(int fd, const struct layout *layout, const struct beat *beat, struct error *err)
{
    uint8_t *buffer = io_alloc(BEAT_SIZE);
    beat_out(beat, buffer);
    int rc = io_write(fd, buffer, BEAT_SIZE, beat_offset(layout), err);
    free(buffer);
    return rc;
}

int beat_read(int fd, const struct layout *layout, const struct uuid *pool_id, struct beat *ret,
              struct error *err)
{
    uint8_t *buffer = io_alloc(BEAT_SIZE);
    int rc = io_read(fd, buffer, BEAT_SIZE, beat_offset(layout), err);
    if (rc == 0)
        rc = beat_in(buffer, pool_id, ret, err);
    free(buffer);
    return rc;
}
