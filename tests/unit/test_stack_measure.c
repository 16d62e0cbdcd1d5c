/* SPDX-License-Identifier: Apache-2.0 */
/* What `qemu-img check` says of where an image ends, as it says it, and against qemu-img itself. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/stack.h"
#include "support/test.h"

static uint64_t end;

static int read_end(const char *report)
{
    struct error err = ERROR_INIT;
    end = 0;
    return measure_read(report, &end, &err);
}

static void the_end_of_a_sound_image_is_told(void)
{
    CHECK_EQ(read_end("{\n  \"image-end-offset\": 327680,\n  \"total-clusters\": 65536,\n"
                      "  \"check-errors\": 0,\n  \"filename\": \"/dev/dm-3\",\n"
                      "  \"format\": \"qcow2\"\n}\n"),
             0);
    CHECK_EQ(end, 327680);
}

/* They lie before the end. */
static void leaks_are_no_errors(void)
{
    CHECK_EQ(read_end("Leaked cluster 5 refcount=1 reference=0\n{ \"image-end-offset\": 393216, "
                      "\"check-errors\": 0, \"leaks\": 1 }"),
             0);
    CHECK_EQ(end, 393216);
}

static void an_image_with_errors_has_no_end(void)
{
    CHECK_EQ(read_end("{ \"image-end-offset\": 393216, \"check-errors\": 0, \"corruptions\": 2 }"),
             LUNAR_E_CORRUPT);
    CHECK_EQ(read_end("{ \"image-end-offset\": 393216, \"check-errors\": 1 }"), LUNAR_E_CORRUPT);
    CHECK_EQ(end, 0);
}

static void what_is_no_report_tells_no_end(void)
{
    static const char *const texts[] = {
        "",
        "qemu-img: Could not open '/dev/dm-3': Image is not in qcow2 format\n",
        "{ \"image-end-offset\": 393216,",
        "{ \"image-end-offset\": 393216 }",
        "{ \"check-errors\": 0 }",
        "{ \"image-end-offset\": -65536, \"check-errors\": 0 }",
        "{ \"image-end-offset\": \"393216\", \"check-errors\": 0 }",
        "{}",
        "[]",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        CHECK_EQ(read_end(texts[i]), LUNAR_E_EXEC);
}

/* All clusters of 1 MiB are behind the tables, and stand in what the image says when it is cut. */
static void an_image_that_is_cut_at_its_end_is_still_sound(void)
{
    char dir[] = "/tmp/lunar-measure-XXXXXX", command[512], report[4096] = "";
    if (system("command -v qemu-img qemu-io >/dev/null 2>&1") != 0)
        SKIP("there is no qemu-img or qemu-io here");
    CHECK(mkdtemp(dir) != NULL);
    snprintf(command, sizeof command,
             "cd %s && qemu-img create -q -f qcow2 a 1G && qemu-io -d unmap -f qcow2 "
             "-c 'write -P 7 0 1M' -c 'write -P 8 600M 1M' -c 'discard 600M 1M' a >/dev/null && "
             "truncate -s 64M a && qemu-img check -f qcow2 --output=json a",
             dir);
    FILE *from = popen(command, "r");
    CHECK(fread(report, 1, sizeof report - 1, from) > 0);
    CHECK_EQ(pclose(from), 0);
    CHECK_EQ(read_end(report), 0);
    CHECK(end > (1u << 20) && end < (3u << 20));
    snprintf(command, sizeof command,
             "cd %s && truncate -s %llu a && qemu-img check -q -f qcow2 a && "
             "qemu-io -r -f qcow2 -c 'read -P 7 0 1M' a >/dev/null; rc=$?; rm -r %s; exit $rc",
             dir, (unsigned long long)end, dir);
    CHECK_EQ(system(command), 0);
}

TEST_MAIN(TEST(the_end_of_a_sound_image_is_told), TEST(leaks_are_no_errors),
          TEST(an_image_with_errors_has_no_end), TEST(what_is_no_report_tells_no_end),
          TEST(an_image_that_is_cut_at_its_end_is_still_sound))
