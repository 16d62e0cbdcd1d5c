/* SPDX-License-Identifier: Apache-2.0 */
/* A test pool and its daemons; see test_pool.h. */
#include "support/test_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

bool test_pool_has_sanlock(void)
{
    return access("/usr/sbin/sanlock", X_OK) == 0 || access("/usr/bin/sanlock", X_OK) == 0;
}

int test_pool_set_state(const char *path, struct superblock *sb, enum superblock_state state)
{
    int fd = io_open(path, 1, NULL);
    if (fd < 0)
        return fd;
    sb->state = state;
    int rv = superblock_write(fd, sb, NULL);
    close(fd);
    return rv;
}

int test_pool_make(const char *path, uint32_t max_nodes, uint32_t io_timeout_s,
                   uint32_t watchdog_fire_timeout_s, struct superblock *ret)
{
    *ret = (struct superblock){.flags = SUPERBLOCK_FLAG_TEST,
                               .pool_id = uuid_random(),
                               .pool_name = "test",
                               .io_timeout_s = io_timeout_s,
                               .watchdog_fire_timeout_s = watchdog_fire_timeout_s,
                               .extent_size = 4 << 20};
    int rv = layout_compute(max_nodes, 512, &ret->layout, NULL);
    if (rv < 0)
        return rv;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    rv = ftruncate(fd, (off_t)(ret->layout.area_start + ret->layout.area_size + MIB));
    close(fd);
    return rv < 0 ? -errno : test_pool_set_state(path, ret, SUPERBLOCK_FORMATTING);
}

int test_pool_start_sanlock(const char *run_dir, const char *host_name)
{
    char log[512];
    snprintf(log, sizeof log, "%s/log", run_dir);
    mkdir(run_dir, 0700);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("SANLOCK_RUN_DIR", run_dir, 1);
    setenv("SANLOCK_PRIVILEGED", "0", 1);
    setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    const char *user = getpwuid(getuid())->pw_name, *group = getgrgid(getgid())->gr_name;
    execlp("sanlock", "sanlock", "daemon", "-D", "-w", "0", "-h", "0", "-l", "0", "-U", user, "-G",
           group, "-e", host_name, (char *)NULL);
    _exit(127);
}
