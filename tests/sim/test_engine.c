/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/internal.h"
#include "support/test.h"

static void a_seed_gives_one_trace(void)
{
    struct sim_options o = {.seed = 1, .fault_mask = ~0ull};
    sim_start(&o);
    CHECK(sim_random(STREAM_LUN, 10) < 10);
}

TEST_MAIN(TEST(a_seed_gives_one_trace))
