/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `lunarctl node check` finds in machines that these tests make up: a folder with the files of
 * sysfs that it reads, and the answers of dmsetup and multipathd.
 */
#include "support/test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../tools/lunarctl/check_find.c"
#include "../../tools/lunarctl/check_transport.c"

static char root[] = "/tmp/lunar-test-check-XXXXXX";
static struct check check;
static const char *table_text, *maps_text, *config_text; /* NULL: the program is not there */

static bool run_canned(const char *const *argv, char *output, size_t output_size)
{
    const char *text = strcmp(argv[0], "dmsetup") == 0 ? table_text
                       : strcmp(argv[2], "maps") == 0  ? maps_text
                                                       : config_text;
    snprintf(output, output_size, "%s", text ? text : "");
    return text != NULL;
}

static void shell(const char *format, ...)
{
    char command[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    if (system(command) != 0)
        printf("# failed: %s\n", command);
}

static void remove_machine(void)
{
    shell("rm -rf %s", root);
}

static void put(const char *path, const char *text)
{
    char full[512];
    shell("mkdir -p \"$(dirname %s/%s)\"", root, path);
    snprintf(full, sizeof full, "%s/%s", root, path);
    FILE *f = fopen(full, "we");
    fprintf(f, "%s\n", text);
    fclose(f);
}

/* A new, empty machine, with N and W. */
static void machine(int n, int w)
{
    static bool made;
    if (!made) {
        if (!mkdtemp(root))
            abort();
        atexit(remove_machine);
    }
    made = true;
    shell("rm -rf %s/* && mkdir -p %s/sys/class/block", root, root);
    memset(&check, 0, sizeof check);
    check.root = root;
    check.run = run_canned;
    table_text = maps_text = config_text = NULL;
    if (timeouts_compute(n, w, &check.timeouts, NULL) < 0)
        abort();
}

/* A SCSI disk below `parent` (in /sys/devices), with the kernel's own command time-out. */
static void scsi_disk(const char *name, const char *parent)
{
    char path[256];
    snprintf(path, sizeof path, "sys/devices/%s/2:0:0:0/timeout", parent);
    put(path, "30");
    snprintf(path, sizeof path, "sys/devices/%s/2:0:0:0/block/%s/dev", parent, name);
    put(path, "8:0");
    shell("ln -s ../.. %s/sys/devices/%s/2:0:0:0/block/%s/device", root, parent, name);
    shell("ln -s ../../devices/%s/2:0:0:0/block/%s %s/sys/class/block/%s", parent, name, root,
          name);
}

static void iscsi_disk(const char *name, int session, const char *interval, const char *timeout,
                       const char *replacement)
{
    char path[128];
    snprintf(path, sizeof path, "platform/host%d/session%d/target2:0:0", session, session);
    scsi_disk(name, path);
    snprintf(path, sizeof path, "sys/class/iscsi_session/session%d/recovery_tmo", session);
    put(path, replacement);
    snprintf(path, sizeof path, "sys/class/iscsi_connection/connection%d:0/recv_tmo", session);
    put(path, interval);
    snprintf(path, sizeof path, "sys/class/iscsi_connection/connection%d:0/ping_tmo", session);
    put(path, timeout);
}

static void multipath_map(const char *name, const char *map, const char *const *paths, int n)
{
    char path[128];
    snprintf(path, sizeof path, "sys/devices/virtual/block/%s/dm/uuid", name);
    put(path, "mpath-36001405abcdef");
    snprintf(path, sizeof path, "sys/devices/virtual/block/%s/dm/name", name);
    put(path, map);
    shell("ln -s ../../devices/virtual/block/%s %s/sys/class/block/%s", name, root, name);
    shell("mkdir -p %s/sys/devices/virtual/block/%s/slaves", root, name);
    for (int i = 0; i < n; i++)
        shell("ln -s ../../../../../class/block/%s %s/sys/devices/virtual/block/%s/slaves/%s",
              paths[i], root, name, paths[i]);
}

/* The finding whose subject begins with `subject`. */
static const struct check_finding *found(const char *subject)
{
    static const struct check_finding none = {.level = (enum check_level)99};
    for (unsigned i = 0; i < check.n_findings; i++)
        if (strncmp(check.findings[i].subject, subject, strlen(subject)) == 0)
            return &check.findings[i];
    printf("# no finding about %s\n", subject);
    return &none;
}

/* --- iSCSI --- */

static void quick_iscsi_settings_are_well(void)
{
    machine(2, 10);
    iscsi_disk("sda", 3, "1", "2", "2");
    check_transport(&check, "sda");
    const struct check_finding *f = found("iSCSI session3");
    CHECK_EQ(f->level, CHECK_LEVEL_OK);
    CHECK_STR(f->subject, "iSCSI session3 (sda)");
    CHECK_STR(f->value, "noop 1 + 2 s, replacement 2 s: 5 s");
    CHECK_STR(f->bound, "at most 12 s (6N), never over 16 s (8N)");
    CHECK_STR(f->advice, "");
}

static void the_defaults_of_open_iscsi_fail_and_the_settings_are_named(void)
{
    machine(2, 10);
    iscsi_disk("sda", 1, "5", "5", "120");
    check_transport(&check, "sda");
    const struct check_finding *f = found("iSCSI session1");
    CHECK_EQ(f->level, CHECK_LEVEL_FAIL);
    CHECK(strstr(f->value, "130 s") != NULL);
    CHECK(strstr(f->advice, "node.session.timeo.replacement_timeout = 4") != NULL);
    CHECK(strstr(f->advice, "node.conn[0].timeo.noop_out_interval = 2") != NULL);
    CHECK_EQ(check_worst(&check), CHECK_LEVEL_FAIL);

    machine(10, 60); /* 130 s are too long for N = 10, too */
    iscsi_disk("sda", 1, "5", "5", "120");
    check_transport(&check, "sda");
    CHECK_EQ(found("iSCSI session1")->level, CHECK_LEVEL_FAIL);
}

static void between_6n_and_8n_is_a_warning(void)
{
    machine(2, 10);
    iscsi_disk("sda", 1, "5", "5", "6");
    check_transport(&check, "sda");
    CHECK_EQ(found("iSCSI session1")->level, CHECK_LEVEL_WARN);
    machine(2, 10);
    iscsi_disk("sda", 1, "5", "5", "7");
    check_transport(&check, "sda");
    CHECK_EQ(found("iSCSI session1")->level, CHECK_LEVEL_FAIL);
}

static void a_session_that_never_gives_up_or_never_looks_fails(void)
{
    machine(10, 60);
    iscsi_disk("sda", 1, "5", "5", "-1");
    check_transport(&check, "sda");
    CHECK_EQ(found("iSCSI session1")->level, CHECK_LEVEL_FAIL);
    CHECK(strstr(found("iSCSI session1")->value, "never") != NULL);
    machine(10, 60);
    iscsi_disk("sda", 1, "0", "0", "5");
    check_transport(&check, "sda");
    CHECK_EQ(found("iSCSI session1")->level, CHECK_LEVEL_FAIL);
}

static void a_partition_is_looked_at_as_its_disk(void)
{
    machine(2, 10);
    iscsi_disk("sda", 1, "1", "2", "2");
    shell("cd %s/sys/class/block/sda/ && mkdir sda1 && echo 1 > sda1/partition", root);
    shell("ln -s sda/sda1 %s/sys/class/block/sda1", root);
    check_transport(&check, "sda1");
    CHECK_STR(found("iSCSI")->subject, "iSCSI session1 (sda)");
}

/* --- the other wires --- */

static void fc_disk(const char *fast, const char *loss)
{
    scsi_disk("sdb", "pci0000:00/0000:00:03.0/host5/rport-5:0-1/target5:0:0");
    if (fast)
        put("sys/class/fc_remote_ports/rport-5:0-1/fast_io_fail_tmo", fast);
    put("sys/class/fc_remote_ports/rport-5:0-1/dev_loss_tmo", loss);
    put("sys/class/scsi_host/host5/eh_deadline", "off");
    check_transport(&check, "sdb");
}

static void fibre_channel_counts_fast_io_fail_or_else_dev_loss(void)
{
    machine(2, 10);
    fc_disk("5", "60");
    CHECK_EQ(found("FC rport-5:0-1")->level, CHECK_LEVEL_OK);
    CHECK_STR(found("FC rport-5:0-1")->value, "fast_io_fail_tmo 5 s, dev_loss_tmo 60 s");
    machine(2, 10);
    fc_disk("off", "60");
    CHECK_EQ(found("FC rport-5:0-1")->level, CHECK_LEVEL_FAIL);
    CHECK(strstr(found("FC rport-5:0-1")->advice, "fast_io_fail_tmo 4") != NULL);
    machine(10, 60); /* 60 s = 6N are in time */
    fc_disk("off", "60");
    CHECK_EQ(found("FC rport-5:0-1")->level, CHECK_LEVEL_OK);
}

static void nvme_over_fabrics_counts_its_keep_alive_too(void)
{
    machine(2, 10);
    put("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/dev", "259:0");
    shell("ln -s ../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1 "
          "%s/sys/class/block/nvme0n1",
          root);
    shell("mkdir -p %s/sys/class/nvme-subsystem/nvme-subsys0/nvme3", root);
    put("sys/class/nvme/nvme3/transport", "tcp");
    put("sys/class/nvme/nvme3/ctrl_loss_tmo", "600");
    put("sys/class/nvme/nvme3/fast_io_fail_tmo", "off");
    check_transport(&check, "nvme0n1");
    CHECK_EQ(found("NVMe tcp nvme3")->level, CHECK_LEVEL_FAIL);
    CHECK_STR(found("NVMe tcp nvme3")->value, "keep-alive 5 s, ctrl_loss_tmo 600 s: 605 s");
    CHECK(strstr(found("NVMe tcp nvme3")->advice, "--fast_io_fail_tmo=4") != NULL);

    put("sys/class/nvme/nvme3/fast_io_fail_tmo", "4");
    put("sys/class/nvme/nvme3/kato", "2");
    check.n_findings = 0;
    check_transport(&check, "nvme0n1");
    CHECK_EQ(found("NVMe tcp nvme3")->level, CHECK_LEVEL_OK);
    CHECK_STR(found("NVMe tcp nvme3")->value, "keep-alive 2 s, fast_io_fail_tmo 4 s: 6 s");

    put("sys/class/nvme/nvme3/fast_io_fail_tmo", "off");
    put("sys/class/nvme/nvme3/ctrl_loss_tmo", "off");
    check.n_findings = 0;
    check_transport(&check, "nvme0n1");
    CHECK_EQ(found("NVMe tcp nvme3")->level, CHECK_LEVEL_FAIL);
    CHECK(strstr(found("NVMe tcp nvme3")->value, "never") != NULL);
}

static void scsi_time_outs_without_a_deadline_are_a_warning(void)
{
    machine(10, 60);
    fc_disk("5", "60");
    CHECK_EQ(found("SCSI commands (sdb)")->level, CHECK_LEVEL_WARN);
    CHECK_STR(found("SCSI commands (sdb)")->value, "timeout 30 s, eh_deadline off");
    put("sys/class/scsi_host/host5/eh_deadline", "20");
    check.n_findings = 0;
    check_transport(&check, "sdb");
    CHECK_EQ(found("SCSI commands (sdb)")->level, CHECK_LEVEL_OK);
}

static void a_virtio_disk_is_the_hypervisors_business(void)
{
    machine(2, 10);
    put("sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vdb/dev", "253:16");
    shell("ln -s ../../devices/pci0000:00/0000:00:05.0/virtio2/block/vdb %s/sys/class/block/vdb",
          root);
    check_transport(&check, "vdb");
    CHECK_EQ(found("virtio disk (vdb)")->level, CHECK_LEVEL_WARN);
    CHECK(strstr(found("virtio disk")->advice, "hypervisor") != NULL);
}

static void a_device_that_is_not_there_fails(void)
{
    machine(2, 10);
    check_transport(&check, "sdz");
    CHECK_EQ(found("device sdz")->level, CHECK_LEVEL_FAIL);
}

/* --- multipath --- */

static const char queues[] =
    "0 2097152 multipath 1 queue_if_no_path 1 alua 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1\n";

static void two_iscsi_paths(const char *replacement)
{
    static const char *const paths[] = {"sda", "sdb"};
    machine(2, 10);
    iscsi_disk("sda", 1, "1", "2", "2");
    iscsi_disk("sdb", 2, "1", "2", replacement);
    multipath_map("dm-3", "mpatha", paths, 2);
}

static void a_multipath_map_that_does_not_queue_is_as_slow_as_its_slowest_path(void)
{
    two_iscsi_paths("5");
    table_text = "0 2097152 multipath 0 1 alua 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1\n";
    check_transport(&check, "dm-3");
    CHECK_EQ(found("multipath (mpatha)")->level, CHECK_LEVEL_OK);
    CHECK_STR(found("multipath")->value, "slowest path 8 s, then 0 s of queueing: 8 s");
    CHECK_EQ(found("iSCSI session1")->level, CHECK_LEVEL_OK);
    CHECK_EQ(found("iSCSI session2")->level, CHECK_LEVEL_OK);
}

static void queueing_adds_its_retries_times_the_polling_interval(void)
{
    two_iscsi_paths("2");
    table_text = queues;
    maps_text = "dm-1 off\ndm-3 12 chk\n";
    config_text = "defaults {\n\tmax_polling_interval 40\n\tpolling_interval \"2\"\n}\n";
    check_transport(&check, "dm-3");
    CHECK_EQ(found("multipath (mpatha)")->level, CHECK_LEVEL_FAIL);
    CHECK_STR(found("multipath")->value, "slowest path 5 s, then 24 s of queueing: 29 s");
    CHECK(strstr(found("multipath")->advice, "no_path_retry fail") != NULL);

    check.n_findings = 0;
    maps_text = "dm-3 3 chk\n";
    check_transport(&check, "dm-3");
    CHECK_EQ(found("multipath (mpatha)")->level, CHECK_LEVEL_OK);
}

static void queueing_without_an_end_or_without_an_answer_fails(void)
{
    two_iscsi_paths("2");
    table_text = queues;
    maps_text = "dm-3 on\n";
    check_transport(&check, "dm-3");
    CHECK_EQ(found("multipath (mpatha)")->level, CHECK_LEVEL_FAIL);
    CHECK_STR(found("multipath")->value, "queues for ever once its last path is gone");
    check.n_findings = 0;
    maps_text = NULL; /* multipathd does not run: nobody ends the queueing */
    check_transport(&check, "dm-3");
    CHECK_EQ(found("multipath (mpatha)")->level, CHECK_LEVEL_FAIL);
    check.n_findings = 0;
    table_text = NULL;
    check_transport(&check, "dm-3");
    CHECK_EQ(found("multipath (mpatha)")->level, CHECK_LEVEL_FAIL);
}

/* --- modules --- */

static void modules_are_loaded_built_in_or_missing(void)
{
    machine(2, 10);
    put("sys/module/dm_mod/version", "1");
    put("dev/vduse/control", "");
    check_modules(&check);
    CHECK_EQ(found("kernel module dm_mod")->level, CHECK_LEVEL_OK);
    CHECK_EQ(found("kernel module vduse")->level, CHECK_LEVEL_OK);
    CHECK_EQ(found("kernel module virtio_vdpa")->level, CHECK_LEVEL_FAIL);
    CHECK(strstr(found("kernel module virtio_vdpa")->advice, "modprobe virtio_vdpa") != NULL);
}

static void a_watchdog_device_must_be_able_to_wait_for_w(void)
{
    machine(10, 60);
    check_watchdog_device(&check);
    CHECK_EQ(found("watchdog device")->level, CHECK_LEVEL_FAIL);
    CHECK(strstr(found("watchdog device")->advice, "modprobe softdog") != NULL);
    put("dev/watchdog0", ""); /* of a kernel that tells no more */
    check.n_findings = 0;
    check_watchdog_device(&check);
    CHECK_EQ(found("watchdog device")->level, CHECK_LEVEL_OK);
    put("sys/class/watchdog/watchdog0/identity", "Tiny Timer");
    put("sys/class/watchdog/watchdog0/max_timeout", "31");
    check.n_findings = 0;
    check_watchdog_device(&check);
    CHECK_EQ(found("watchdog device")->level, CHECK_LEVEL_FAIL);
    CHECK_STR(found("watchdog device")->value, "Tiny Timer, up to 31 s");
    put("sys/class/watchdog/watchdog0/max_timeout", "0");
    check.n_findings = 0;
    check_watchdog_device(&check);
    CHECK_EQ(found("watchdog device")->level, CHECK_LEVEL_OK);
}

TEST_MAIN(TEST(quick_iscsi_settings_are_well),
          TEST(the_defaults_of_open_iscsi_fail_and_the_settings_are_named),
          TEST(between_6n_and_8n_is_a_warning),
          TEST(a_session_that_never_gives_up_or_never_looks_fails),
          TEST(a_partition_is_looked_at_as_its_disk),
          TEST(fibre_channel_counts_fast_io_fail_or_else_dev_loss),
          TEST(nvme_over_fabrics_counts_its_keep_alive_too),
          TEST(scsi_time_outs_without_a_deadline_are_a_warning),
          TEST(a_virtio_disk_is_the_hypervisors_business), TEST(a_device_that_is_not_there_fails),
          TEST(a_multipath_map_that_does_not_queue_is_as_slow_as_its_slowest_path),
          TEST(queueing_adds_its_retries_times_the_polling_interval),
          TEST(queueing_without_an_end_or_without_an_answer_fails),
          TEST(a_watchdog_device_must_be_able_to_wait_for_w),
          TEST(modules_are_loaded_built_in_or_missing))
