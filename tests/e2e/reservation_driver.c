/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives fencing/reservation.h from the command line, for tests/e2e/test_reservations.py.
 *
 *   reservation_driver DEVICE POOL-UUID COMMAND...
 *     possible | clear
 *     register H G | change H G TO-H TO-G | check H G | unregister H G | paths H G
 *     preempt H G VICTIM-H VICTIM-G
 *
 * Happy path: exit 0; preempt prints its milliseconds. Failure modes: the error's name and sentence
 * on standard error, exit 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/helper.h"
#include "fencing/reservation.h"

static uint64_t number(char **argv, int i)
{
    return argv[i] ? strtoull(argv[i], NULL, 10) : 0;
}

static int preempt(struct reservation *r, uint32_t host_id, uint64_t generation, struct error *err)
{
    int64_t start = clock_ms();
    int rc = reservation_preempt(r, host_id, generation, err);
    printf("%lld\n", (long long)(clock_ms() - start));
    return rc;
}

static int run(struct reservation *r, const char *command, char **argv, struct error *err)
{
    uint32_t host_id = (uint32_t)number(argv, 0);
    uint64_t generation = host_id ? number(argv, 1) : 0;

    if (strcmp(command, "possible") == 0)
        return 0;
    if (strcmp(command, "clear") == 0)
        return reservation_clear(r, false, err);
    if (strcmp(command, "register") == 0)
        return reservation_register(r, host_id, generation, err);
    int rc = reservation_adopt(r, host_id, generation, err);
    if (rc < 0)
        return rc;
    if (strcmp(command, "check") == 0)
        return reservation_check(r, err);
    if (strcmp(command, "paths") == 0)
        return reservation_tend_paths(r, err);
    if (strcmp(command, "unregister") == 0)
        return reservation_unregister(r, err);
    if (strcmp(command, "change") == 0 && argv[1])
        return reservation_change(r, (uint32_t)number(argv, 2), number(argv, 3), err);
    if (strcmp(command, "preempt") == 0 && argv[1])
        return preempt(r, (uint32_t)number(argv, 2), number(argv, 3), err);
    return error_set(err, LUNAR_E_INVALID, "no command %s", command);
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    struct reservation *r = NULL;
    struct uuid pool;

    if (argc < 4 || uuid_parse(argv[2], &pool) < 0) {
        fprintf(stderr, "usage: reservation_driver DEVICE POOL-UUID COMMAND...\n");
        return 2;
    }
    const char *const devices[] = {argv[1]};
    int rc = reservation_open(devices, 1, &pool, &r, &err);
    if (rc == 0) {
        rc = run(r, argv[3], argv + 4, &err);
        reservation_close(r);
    }
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", error_name(rc), err.text);
    return rc < 0;
}
