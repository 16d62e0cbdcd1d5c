/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The unit tests' frame: a test is a void function named by its sentence; TEST_MAIN runs all of
 * them, prints one TAP-like line each and exits 1 if any failed, 77 if all were skipped. CHECK
 * records a failure and returns.
 */
#ifndef LUNAR_TESTS_SUPPORT_TEST_H
#define LUNAR_TESTS_SUPPORT_TEST_H

#include <stdio.h>
#include <string.h>

static int test_failed_now, test_skipped_now;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                       \
            test_failed_now = 1;                                                                   \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define CHECK_EQ(got, want)                                                                        \
    do {                                                                                           \
        long long got_ = (long long)(got), want_ = (long long)(want);                              \
        if (got_ != want_) {                                                                       \
            printf("# %s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got, got_, want_);      \
            test_failed_now = 1;                                                                   \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define CHECK_STR(got, want)                                                                       \
    do {                                                                                           \
        const char *got_ = (got), *want_ = (want);                                                 \
        if (strcmp(got_, want_) != 0) {                                                            \
            printf("# %s:%d: %s is '%s', not '%s'\n", __FILE__, __LINE__, #got, got_, want_);      \
            test_failed_now = 1;                                                                   \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define SKIP(reason)                                                                               \
    do {                                                                                           \
        printf("# skipped: %s\n", reason);                                                         \
        test_skipped_now = 1;                                                                      \
        return;                                                                                    \
    } while (0)

struct test_case {
    const char *name;
    void (*run)(void);
};

#define TEST(function)                                                                             \
    {                                                                                              \
#function, function                                                                        \
    }

static inline int test_run_all(const struct test_case *cases, int n)
{
    int failed = 0, skipped = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < n; i++) {
        test_failed_now = test_skipped_now = 0;
        cases[i].run();
        printf("%s %d - %s%s\n", test_failed_now ? "not ok" : "ok", i + 1, cases[i].name,
               test_skipped_now ? " # SKIP" : "");
        failed += test_failed_now;
        skipped += test_skipped_now;
    }
    printf("1..%d\n", n);
    return failed ? 1 : skipped == n ? 77 : 0;
}

#define TEST_MAIN(...)                                                                             \
    int main(void)                                                                                 \
    {                                                                                              \
        static const struct test_case cases[] = {__VA_ARGS__};                                     \
        return test_run_all(cases, (int)(sizeof cases / sizeof *cases));                           \
    }

#endif
