/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs one target over every file of its corpus, without libFuzzer: test_fuzz_NAME [FILE|FOLDER].
 *
 * Happy path: each file is handed to LLVMFuzzerTestOneInput in memory of its exact size, so that a
 * read beyond its end shows; the last line counts them. Failure modes: a check that fails ends the
 * process, and the last name printed is the input; a corpus that is missing or empty is a failure,
 * because a test that looks at nothing cannot fail.
 */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "fuzz/fuzz.h"

/* In a build with ASan, the bound that tools/fuzz sets (and argues for) holds here too. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=64";
}

/* No input that anybody checks in comes near it. */
#define INPUT_MAX (4u << 20)

static bool run_file(const char *path)
{
    struct stat st;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &st) < 0 || st.st_size > INPUT_MAX) {
        printf("not ok - cannot read %s: %s\n", path, strerror(errno));
        if (file)
            fclose(file);
        return false;
    }
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size ? size : 1);
    bool whole = data && fread(data, 1, size, file) == size;
    fclose(file);
    fprintf(stderr, "%s\n", path); /* unbuffered: after a crash it is the last line */
    if (whole)
        LLVMFuzzerTestOneInput(data, size);
    free(data);
    return whole;
}

static int run_folder(const char *folder)
{
    struct dirent **names;
    int failed = 0, inputs = 0, n = scandir(folder, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            failed += !run_file(path);
            inputs++;
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    bool good = inputs > 0 && failed == 0;
    printf("%s 1 - %d inputs of %s held what they must\n1..1\n", good ? "ok" : "not ok", inputs,
           folder);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct stat st;
    const char *path = argc > 1 ? argv[1] : FUZZ_CORPUS;

    LLVMFuzzerInitialize(&argc, &argv);
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
        return run_file(path) ? 0 : 1;
    return run_folder(path);
}
