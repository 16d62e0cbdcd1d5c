/* SPDX-License-Identifier: Apache-2.0 */
/* lvm as a child: format, outcomes, and rule 1 of SAFETY.md: no orphaned writer. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "coordinator/lvm.h"
#include "support/lvm_lun.h"
#include "support/test.h"

#define GIB (1024 * MIB)
#define NEED_LUN(lun, size)                                                                        \
    const char *why = lvm_lun_open(&lun, size, 512);                                               \
    if (why) {                                                                                     \
        lvm_lun_close(&lun);                                                                       \
        SKIP(why);                                                                                 \
    }

static int run(struct lvm_lun *lun, struct error *err, const char *const *args)
{
    return lvm_run(lun->lvm, args, NULL, err);
}
#define RUN(lun, err, ...) run(lun, err, (const char *const[]){__VA_ARGS__, NULL})

static void a_formatted_pool_has_its_area_and_an_empty_report(void)
{
    struct lvm_lun lun;
    struct lvm_report report;
    NEED_LUN(lun, GIB);
    CHECK_EQ(lvm_lun_report(&lun, &report, NULL), 0);
    CHECK_EQ(report.n_lvs, 0);
    CHECK_EQ(report.seqno, 1);
    CHECK_EQ(report.extent_size, 4 * MIB);
    CHECK(report.vg_size > 512 * MIB && report.vg_free == report.vg_size);
    lvm_report_free(&report);
    lvm_lun_close(&lun);
}

static void format_works_on_sectors_of_4096_bytes(void)
{
    struct lvm_lun lun;
    const char *why = lvm_lun_open(&lun, GIB, 4096);
    if (why)
        lvm_lun_close(&lun);
    if (why)
        SKIP(why);
    CHECK_EQ(RUN(&lun, NULL, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "4m", "-n", "a",
                 "lunar-test"),
             0);
    lvm_lun_close(&lun);
}

static void format_again_keeps_what_a_killed_format_made(void)
{
    struct lvm_lun lun;
    struct lvm_report report;
    struct error err = ERROR_INIT;
    NEED_LUN(lun, GIB);
    CHECK_EQ(lvm_format(lun.device, lun.dir, &lun.sb, &err), 0);
    CHECK_EQ(lvm_lun_report(&lun, &report, NULL), 0);
    CHECK_EQ(report.seqno, 1); /* the VG was not made anew */
    lvm_report_free(&report);
    /* A PV without its VG: killed in the middle. */
    CHECK_EQ(RUN(&lun, &err, "vgremove", "-qq", "-y", "lunar-test"), 0);
    CHECK_EQ(lvm_format(lun.device, lun.dir, &lun.sb, &err), 0);
    CHECK_EQ(lvm_lun_report(&lun, &report, NULL), 0);
    lvm_report_free(&report);
    lvm_lun_close(&lun);
}

static void format_refuses_another_pools_device_and_one_with_volumes(void)
{
    struct lvm_lun lun;
    struct error err = ERROR_INIT;
    NEED_LUN(lun, GIB);
    struct superblock other = lun.sb;
    other.pool_id = uuid_random();
    CHECK_EQ(lvm_format(lun.device, lun.dir, &other, &err), LUNAR_E_FOREIGN);
    /* The refused format wrote its own configuration; ours comes back with the next open. */
    CHECK_EQ(lvm_format(lun.device, lun.dir, &lun.sb, &err), 0);
    CHECK_EQ(RUN(&lun, &err, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "4m", "-n", "a",
                 "lunar-test"),
             0);
    CHECK_EQ(lvm_format(lun.device, lun.dir, &lun.sb, &err), LUNAR_E_IN_USE);
    lvm_lun_close(&lun);
}

static void a_full_pool_is_no_space_with_needed_and_free(void)
{
    struct lvm_lun lun;
    struct error err = ERROR_INIT;
    NEED_LUN(lun, GIB);
    CHECK_EQ(RUN(&lun, &err, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "40g", "-n", "a",
                 "lunar-test"),
             LUNAR_E_NO_SPACE);
    CHECK(strstr(err.text, "40 GiB needed") && strstr(err.text, " free"));
    CHECK_EQ(RUN(&lun, &err, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "4m", "-n", "a",
                 "lunar-test"),
             0);
    CHECK_EQ(RUN(&lun, &err, "lvextend", "-qq", "-y", "-L", "40g", "lunar-test/a"),
             LUNAR_E_NO_SPACE);
    CHECK(strstr(err.text, "free"));
    lvm_lun_close(&lun);
}

static void a_failure_carries_lvms_own_words_without_the_noise(void)
{
    struct lvm_lun lun;
    struct error err = ERROR_INIT;
    NEED_LUN(lun, GIB);
    CHECK_EQ(RUN(&lun, &err, "lvremove", "-qq", "-y", "lunar-test/nothing"), LUNAR_E_EXEC);
    CHECK(strstr(err.text, "Failed to find logical volume"));
    CHECK(!strstr(err.text, "WARNING"));
    lvm_lun_close(&lun);
}

static void segments_of_the_report_are_byte_ranges_of_the_lun(void)
{
    struct lvm_lun lun;
    struct lvm_report r;
    struct error err = ERROR_INIT;
    NEED_LUN(lun, GIB);
    CHECK_EQ(RUN(&lun, &err, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "8m", "-n", "a",
                 "--addtag", "lunar.x=1", "--addtag", "y", "lunar-test"),
             0);
    CHECK_EQ(RUN(&lun, &err, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "4m", "-n", "b",
                 "lunar-test"),
             0);
    CHECK_EQ(RUN(&lun, &err, "lvextend", "-qq", "-y", "-L", "16m", "lunar-test/a"), 0);
    CHECK_EQ(lvm_lun_report(&lun, &r, &err), 0);
    CHECK_EQ(r.seqno, 4);
    CHECK_EQ(r.n_lvs, 2);
    CHECK_STR(r.lvs[0].name, "a");
    CHECK_EQ(r.lvs[0].n_tags, 2);
    CHECK_EQ(r.lvs[0].n_segments, 2);
    uint64_t pe_start = r.lvs[0].segments[0].lun_offset;
    /* Extents begin at the first MiB behind the reserved area. */
    CHECK_EQ(pe_start, lun.sb.layout.area_start + lun.sb.layout.area_size);
    CHECK_EQ(r.lvs[0].segments[0].length, 8 * MIB);
    CHECK_EQ(r.lvs[1].segments[0].lun_offset, pe_start + 8 * MIB);
    CHECK_EQ(r.lvs[0].segments[1].lun_offset, pe_start + 12 * MIB);
    CHECK_EQ(r.lvs[0].segments[1].length, 8 * MIB);
    lvm_report_free(&r);
    lvm_lun_close(&lun);
}

/* --- a program in lvm's place --- */

static void write_stub(const struct lvm_lun *lun, const char *script)
{
    char path[128];
    snprintf(path, sizeof path, "%s/stub", lun->dir);
    FILE *f = fopen(path, "w");
    fprintf(f, "#!/bin/sh\n%s\n", script);
    fclose(f);
    chmod(path, 0700);
    setenv("LUNAR_LVM_PATH", path, 1);
}

/* lvm on a device that is none of LVM's business: the stub never looks at it. */
static int open_stub(struct lvm_lun *lun, const char *script, int inherit_fd)
{
    struct lvm_config config = {.device = "/dev/null",
                                .state_dir = lun->dir,
                                .superblock = &lun->sb,
                                .inherit_fd = inherit_fd};
    *lun = (struct lvm_lun){.loop = -1, .fd = -1};
    strcpy(lun->sb.pool_name, "test");
    strcpy(lun->dir, "/tmp/lunar-test-lvm-XXXXXX");
    if (!mkdtemp(lun->dir))
        return -errno;
    write_stub(lun, script);
    int rc = lvm_open(&config, &lun->lvm, NULL);
    unsetenv("LUNAR_LVM_PATH");
    return rc;
}

static void a_command_beyond_its_time_is_killed_and_indeterminate(void)
{
    struct lvm_lun lun;
    struct error err = ERROR_INIT;
    CHECK_EQ(open_stub(&lun, "exec sleep 1000", -1), 0);
    lvm_set_timeout(lun.lvm, 100);
    CHECK_EQ(RUN(&lun, &err, "lvcreate"), LUNAR_E_INDETERMINATE);
    CHECK(!lvm_is_stuck(lun.lvm));
    lvm_lun_close(&lun);
}

static void a_command_that_was_killed_is_indeterminate(void)
{
    struct lvm_lun lun;
    struct error err = ERROR_INIT;
    CHECK_EQ(open_stub(&lun, "kill -9 $$", -1), 0);
    CHECK_EQ(RUN(&lun, &err, "lvcreate"), LUNAR_E_INDETERMINATE);
    lvm_lun_close(&lun);
}

static void output_comes_whole_and_the_environment_is_clean(void)
{
    struct lvm_lun lun;
    struct error err = ERROR_INIT;
    char *out;
    const char *args[] = {"x", "y z", NULL};
    setenv("LVM_SYSTEM_DIR", "/nowhere", 1);
    CHECK_EQ(
        open_stub(&lun, "head -c 300000 /dev/zero | tr '\\0' a; echo; echo \"$2\"; env | sort", -1),
        0);
    unsetenv("LVM_SYSTEM_DIR");
    CHECK_EQ(lvm_run(lun.lvm, args, &out, &err), 0);
    CHECK_EQ(strspn(out, "a"), 300000);
    CHECK(strncmp(out + 300000, "\ny z\n", 5) == 0);
    CHECK(strstr(out, "\nLC_ALL=C\n") && strstr(out, "\nLVM_SYSTEM_DIR="));
    CHECK(!strstr(out, "/nowhere") && !strstr(out, "HOME="));
    free(out);
    lvm_lun_close(&lun);
}

static void a_program_that_is_not_there_says_so(void)
{
    struct lvm_lun lun;
    struct error err = ERROR_INIT;
    CHECK_EQ(open_stub(&lun, "exit 0", -1), 0);
    char path[128];
    snprintf(path, sizeof path, "%s/stub", lun.dir);
    unlink(path);
    CHECK_EQ(RUN(&lun, &err, "lvcreate"), LUNAR_E_EXEC);
    CHECK(strstr(err.text, "cannot run"));
    lvm_lun_close(&lun);
}

static void names_that_would_break_the_configuration_are_refused(void)
{
    struct lvm *lvm;
    struct superblock sb = {.pool_name = "test"};
    struct lvm_config config = {
        .device = "/dev/a|b", .state_dir = "/tmp", .superblock = &sb, .inherit_fd = -1};
    CHECK_EQ(lvm_open(&config, &lvm, NULL), LUNAR_E_INVALID);
    config.device = "/dev/null";
    config.state_dir = "/tmp/a\"b";
    CHECK_EQ(lvm_open(&config, &lvm, NULL), LUNAR_E_INVALID);
    config.state_dir = "relative";
    CHECK_EQ(lvm_open(&config, &lvm, NULL), LUNAR_E_INVALID);
}

/* --- rule 1: no orphaned writer --- */

static int wait_readable(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms);
}

/* A helper process that runs one command, which inherits pair[1]; the caller keeps pair[0]. */
static pid_t start_helper(struct lvm_lun *lun, const char *script, int pair[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        open_stub(lun, script, pair[1]) < 0)
        return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        RUN(lun, NULL, "lvcreate");
        _exit(1);
    }
    close(pair[1]);
    return pid;
}

static void rule_1_a_command_dies_with_us_and_only_then_its_socket_closes(void)
{
    struct lvm_lun lun;
    int pair[2];
    char byte[16] = "", path[128];
    long child = 0;
    /* The command tells its pid over the very socket, its standard input, and then cannot end by
     * itself. */
    pid_t helper = start_helper(&lun, "echo $$ >&0; exec sleep 1000", pair);
    CHECK(helper > 0);
    CHECK_EQ(wait_readable(pair[0], 10000), 1);
    CHECK(read(pair[0], byte, sizeof byte - 1) > 0);
    child = strtol(byte, NULL, 10);
    CHECK(child > 1);
    kill(helper, SIGKILL);
    waitpid(helper, NULL, 0);
    CHECK_EQ(wait_readable(pair[0], 10000), 1);
    CHECK_EQ(read(pair[0], byte, sizeof byte), 0); /* end of file: nobody holds the other end */
    snprintf(path, sizeof path, "/proc/%ld/cmdline", child);
    FILE *f = fopen(path, "r");
    CHECK(!f || fgetc(f) == EOF); /* gone, or a zombie that its reaper has yet to see */
    if (f)
        fclose(f);
    close(pair[0]);
    lvm_lun_close(&lun);
}

static void rule_1_the_socket_stays_open_while_any_writer_lives(void)
{
    struct lvm_lun lun;
    int pair[2];
    char text[16] = "";
    /* A fork of the command has no death signal: it stands for a command that cannot die because
     * its I/O hangs. */
    pid_t helper = start_helper(
        &lun, "exec 3<&0; sh -c 'echo $$ >&0; exec sleep 1000' <&3 & exec sleep 1000", pair);
    CHECK(helper > 0);
    CHECK_EQ(wait_readable(pair[0], 10000), 1);
    CHECK(read(pair[0], text, sizeof text - 1) > 0);
    pid_t writer = (pid_t)strtol(text, NULL, 10);
    CHECK(writer > 1);
    kill(helper, SIGKILL);
    waitpid(helper, NULL, 0);
    CHECK_EQ(wait_readable(pair[0], 200), 0);
    kill(writer, SIGKILL);
    CHECK_EQ(wait_readable(pair[0], 10000), 1);
    CHECK_EQ(read(pair[0], text, sizeof text), 0);
    close(pair[0]);
    lvm_lun_close(&lun);
}

/* Where descriptor `fd` of a process leads; "" if there is none. */
static void descriptor(pid_t pid, const char *fd, char ret[256])
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)pid, fd);
    ssize_t n = readlink(path, ret, 255);
    ret[n > 0 ? n : 0] = 0;
}

static bool holds_file(pid_t pid, const char *file)
{
    char path[64], to[256];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        descriptor(pid, e->d_name, to);
        found |= strcmp(to, file) == 0;
    }
    if (dir)
        closedir(dir);
    return found;
}

/* The child of `parent` that has `file` open, waited for up to 10 s. */
static pid_t wait_for_child(pid_t parent, const char *file)
{
    char path[64];
    for (int tries = 0; tries < 1000; tries++) {
        int child = 0;
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%d", &child) == 1 && holds_file(child, file)) {
            fclose(f);
            return child;
        }
        if (f)
            fclose(f);
        poll(NULL, 0, 10);
    }
    return -1;
}

static void rule_1_real_lvm_stopped_in_a_commit_dies_with_us(void)
{
    struct lvm_lun lun;
    int pair[2];
    char lock[128], to[256], byte;
    NEED_LUN(lun, GIB);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    /* lvm waits for its VG's lock, so it stands still in the middle of the command. */
    snprintf(lock, sizeof lock, "%s/lvm/lock/V_lunar-test", lun.dir);
    int lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_EQ(flock(lock_fd, LOCK_EX), 0);
    fflush(stdout);
    pid_t helper = fork();
    if (helper == 0) {
        struct lvm_config config = {.device = lun.device,
                                    .state_dir = lun.dir,
                                    .superblock = &lun.sb,
                                    .inherit_fd = pair[1]};
        close(pair[0]);
        close(lock_fd); /* else a child that is not lvm yet has it open, too */
        if (lvm_open(&config, &lun.lvm, NULL) == 0)
            RUN(&lun, NULL, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "4m", "-n", "a",
                "lunar-test");
        _exit(1);
    }
    close(pair[1]);
    pid_t lvm = wait_for_child(helper, lock);
    CHECK(lvm > 1);
    descriptor(lvm, "0", to);
    CHECK(strncmp(to, "socket:", 7) == 0);
    kill(lvm, SIGSTOP);
    CHECK_EQ(wait_readable(pair[0], 0), 0);
    kill(helper, SIGKILL);
    waitpid(helper, NULL, 0);
    CHECK_EQ(wait_readable(pair[0], 10000), 1);
    CHECK_EQ(read(pair[0], &byte, 1), 0);
    CHECK(!holds_file(lvm, lock));
    close(pair[0]);
    close(lock_fd);
    lvm_lun_close(&lun);
}

static void real_lvm_keeps_its_standard_input_and_never_reads_it(void)
{
    struct lvm_lun lun;
    int pair[2];
    char byte = 'x';
    NEED_LUN(lun, GIB);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_EQ(write(pair[0], &byte, 1), 1);
    struct lvm_config config = {
        .device = lun.device, .state_dir = lun.dir, .superblock = &lun.sb, .inherit_fd = pair[1]};
    lvm_close(lun.lvm);
    CHECK_EQ(lvm_open(&config, &lun.lvm, NULL), 0);
    CHECK_EQ(RUN(&lun, NULL, "lvcreate", "-qq", "-y", "-an", "-Zn", "-Wn", "-L", "4m", "-n", "a",
                 "lunar-test"),
             0);
    CHECK_EQ(RUN(&lun, NULL, "lvremove", "-qq", "-y", "lunar-test/a"), 0);
    byte = 0;
    CHECK_EQ(recv(pair[1], &byte, 1, MSG_DONTWAIT), 1);
    CHECK_EQ(byte, 'x');
    close(pair[0]);
    close(pair[1]);
    lvm_lun_close(&lun);
}

TEST_MAIN(TEST(a_formatted_pool_has_its_area_and_an_empty_report),
          TEST(format_works_on_sectors_of_4096_bytes),
          TEST(format_again_keeps_what_a_killed_format_made),
          TEST(format_refuses_another_pools_device_and_one_with_volumes),
          TEST(a_full_pool_is_no_space_with_needed_and_free),
          TEST(a_failure_carries_lvms_own_words_without_the_noise),
          TEST(segments_of_the_report_are_byte_ranges_of_the_lun),
          TEST(a_command_beyond_its_time_is_killed_and_indeterminate),
          TEST(a_command_that_was_killed_is_indeterminate),
          TEST(output_comes_whole_and_the_environment_is_clean),
          TEST(a_program_that_is_not_there_says_so),
          TEST(names_that_would_break_the_configuration_are_refused),
          TEST(rule_1_a_command_dies_with_us_and_only_then_its_socket_closes),
          TEST(rule_1_the_socket_stays_open_while_any_writer_lives),
          TEST(rule_1_real_lvm_stopped_in_a_commit_dies_with_us),
          TEST(real_lvm_keeps_its_standard_input_and_never_reads_it))
