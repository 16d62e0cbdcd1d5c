/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the targets share; see fuzz.h.
 *
 * uuid_random is replaced by the linker (--wrap): a target that draws random ids would behave
 * differently on each run, and neither libFuzzer's coverage nor a kept input would mean anything.
 */
#include "fuzz/fuzz.h"

#include "base/le.h"
#include "base/log.h"
#include "diskrpc/unit.h"

const struct uuid fuzz_pool = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static uint32_t drawn;

struct uuid fuzz_uuid(uint32_t n)
{
    struct uuid id = {{0}};
    /* Spread over the first 8 bytes, which are the short id. */
    le32_put(id.b, n * 0x9e3779b1u);
    le32_put(id.b + 4, n);
    id.b[15] = 0x77;
    return id;
}

struct uuid __wrap_uuid_random(void);
struct uuid __wrap_uuid_random(void)
{
    return fuzz_uuid(++drawn);
}

void fuzz_uuid_reset(void)
{
    drawn = 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_set_level((enum log_level)(LOG_LEVEL_ERROR + 1)); /* refusals are the rule here */
    return 0;
}

void fuzz_unit(const uint8_t *data, size_t size, int kind, uint32_t header_len, uint32_t slot,
               uint8_t *buffer, uint32_t len)
{
    uint8_t shape = size ? data[0] % 3 : 0;
    size_t n = size ? size - 1 : 0;

    memset(buffer, 0, len);
    if (n > 0)
        memcpy(buffer, data + 1, n < len ? n : len);
    if (shape == 2) {
        const struct unit unit = {.kind = (enum unit_kind)kind,
                                  .header_len = header_len,
                                  .len = len,
                                  .slot = slot,
                                  .flags = le32_get(buffer + 44),
                                  .pool_id = fuzz_pool};
        unit_out(&unit, buffer);
    }
    uint32_t claimed = unit_claimed_len(buffer);
    if (shape >= 1 && claimed >= UNIT_HEADER_SIZE && claimed <= len)
        unit_seal(buffer);
}
