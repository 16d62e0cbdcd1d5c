/* SPDX-License-Identifier: Apache-2.0 */
/* lunarctl volume import and export against a fake agent and a fake qemu-img, and what is read out
 * of qemu-img's words. */
#include "support/test.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../tools/lunarctl/client.c"
#include "../../tools/lunarctl/convert.c"
#include "../../tools/lunarctl/export.c"
#include "../../tools/lunarctl/import.c"
#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/request.c"
#include "../../tools/lunarctl/snapshot.c"
#include "../../tools/lunarctl/transfer.c"
#include "../../tools/lunarctl/volume.c"

#include "support/fake_agent.h"

/* --- what qemu-img says --- */

static int checked(const char *json, const char *format, uint64_t *ret_size)
{
    struct error err = ERROR_INIT;
    return convert_check(json, "/d/x", format, ret_size, &err);
}

static void an_image_that_needs_another_file_is_refused(void)
{
    uint64_t size = 0;
    CHECK_EQ(checked("warning: {\n", "raw", &size), LUNAR_E_INVALID);
    CHECK_EQ(checked("", "raw", &size), LUNAR_E_INVALID);
    CHECK_EQ(checked("words\n{\"virtual-size\": 4096, \"format\": \"raw\"}\nmore", "raw", &size),
             0);
    CHECK_EQ(size, 4096);
    CHECK_EQ(checked("{\"virtual-size\": 4096, \"format\": \"raw\"}", "qcow2", &size),
             LUNAR_E_INVALID);
    CHECK_EQ(checked("{\"format\": \"raw\"}", "raw", &size), LUNAR_E_INVALID);
    static const char *const bad[] = {
        "\"backing-filename\": \"b\"",
        "\"full-backing-filename\": \"/d/b\"",
        "\"encrypted\": true",
        "\"format-specific\": {\"data\": {\"data-file\": \"y\"}}",
        "\"format-specific\": {\"data\": {\"corrupt\": true}}",
        "\"format-specific\": {\"data\": {\"extents\": [{\"filename\": \"/d/x-flat\"}]}}",
        "\"format-specific\": {\"data\": {\"extents\": [{\"filename\": \"/d/x\"}, {}]}}",
        "\"children\": [{\"name\": \"file\"}, {\"name\": \"extents.0\"}]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[256];
        snprintf(json, sizeof json, "{\"virtual-size\": 1, \"format\": \"vmdk\", %s}", bad[i]);
        CHECK_EQ(checked(json, "vmdk", &size), LUNAR_E_INVALID);
    }
    CHECK_EQ(checked("{\"virtual-size\": 1, \"format\": \"vmdk\", \"children\": [{\"name\": "
                     "\"file\"}], \"format-specific\": {\"data\": {\"corrupt\": false, "
                     "\"extents\": [{\"filename\": \"/d/x\"}]}}}",
                     "vmdk", &size),
             0);
}

static void progress_is_read_from_pieces(void)
{
    static const char stream[] = "    (0.00/100%)\r    (1.05/100%)\r  (x/100%) (12345678901/) ( 7/ "
                                 "(99.99/100%)\n(100.00/100%)";
    for (size_t piece = 1; piece < sizeof stream; piece++) {
        struct convert_parser p = {0};
        unsigned now = 0, most = 0;
        for (size_t at = 0; at < sizeof stream - 1; at += piece) {
            size_t left = sizeof stream - 1 - at;
            now = convert_parse(&p, stream + at, left < piece ? left : piece, now);
            CHECK(now >= most);
            most = now;
        }
        CHECK_EQ(now, 10000);
    }
    struct convert_parser p = {0};
    CHECK_EQ(convert_parse(&p, "(12.34/", 7, 1), 1234);
    CHECK_EQ(convert_parse(&p, "(12.3", 5, 1), 1);
}

/* --- the commands --- */

static char folder[] = "/tmp/lunar-test-import-XXXXXX";
static char device[64], image[64], target[64];
static const struct uuid volume_id = {{0xaa, 1}}, attachment_id = {{0xbb, 2}};
static char seen[32]; /* the requests: a letter each */
static bool thick, refuses, old_coordinator;

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        abort();
}

/* qemu-img with a body of shell for convert; info says 5000 bytes of qcow2. */
static void qemu_img(const char *convert)
{
    char path[96], text[1024];
    snprintf(path, sizeof path, "%s/qemu-img", folder);
    snprintf(
        text, sizeof text,
        "#!/bin/sh\n[ $1 = info ] && { echo '{\"virtual-size\": 5000, \"format\": \"qcow2\"}'; "
        "exit; }\nfor last; do :; done\n%s\n",
        convert);
    write_text(path, text);
    chmod(path, 0700);
}

static void setup(void)
{
    char path[4096];
    if (!mkdtemp(folder))
        abort();
    snprintf(device, sizeof device, "%s/device", folder);
    snprintf(image, sizeof image, "%s/image", folder);
    snprintf(target, sizeof target, "%s/target", folder);
    snprintf(path, sizeof path, "%s:%s", folder, getenv("PATH"));
    setenv("PATH", path, 1);
    write_text(image, "image");
    write_text(device, "");
}

static void note(const Lunar__Request *r)
{
    static const struct {
        Lunar__Request__OpCase op;
        char letter;
    } letters[] = {
        {LUNAR__REQUEST__OP_VOLUME_CREATE, 'c'},   {LUNAR__REQUEST__OP_VOLUME_ATTACH, 'a'},
        {LUNAR__REQUEST__OP_VOLUME_DETACH, 'd'},   {LUNAR__REQUEST__OP_VOLUME_DELETE, 'x'},
        {LUNAR__REQUEST__OP_VOLUME_IMPORTED, 'i'}, {LUNAR__REQUEST__OP_VOLUME_GET, 'g'}};
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        if (r->op_case == letters[i].op)
            seen[strlen(seen)] = letters[i].letter;
}

static bool answer(struct agent *a, int fd, const Lunar__Envelope *e)
{
    Lunar__Volume v = LUNAR__VOLUME__INIT;
    Lunar__Attachment at = LUNAR__ATTACHMENT__INIT, *list[] = {&at};
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    const Lunar__Request *q = e->request;

    (void)a;
    note(q);
    v.volume_id = uuid_to_pb(&volume_id);
    v.name = (char *)(uintptr_t) "disk";
    bool whole = q->op_case != LUNAR__REQUEST__OP_VOLUME_CREATE || old_coordinator;
    v.state = (char *)(uintptr_t)(whole ? "ready" : "importing");
    v.thick = thick;
    if (q->op_case == LUNAR__REQUEST__OP_VOLUME_ATTACH) {
        at.attachment_id = uuid_to_pb(&attachment_id);
        v.attachments = list;
        v.n_attachments = 1;
        v.device = device;
        assert(q->volume_attach->importing == (strchr(seen, 'g') == NULL));
    }
    if (q->op_case == LUNAR__REQUEST__OP_VOLUME_CREATE && !strchr(seen, 'g')) {
        assert(q->volume_create->importing);
        assert(q->volume_create->size == 1 << 20); /* the least that a volume has */
    }
    if (q->op_case == LUNAR__REQUEST__OP_VOLUME_CREATE && refuses) {
        error.code = LUNAR_E_EXISTS;
        error.text = (char *)(uintptr_t) "it is there";
        r.error = &error;
    } else if (q->op_case != LUNAR__REQUEST__OP_VOLUME_DETACH &&
               q->op_case != LUNAR__REQUEST__OP_VOLUME_DELETE) {
        r.op_case = LUNAR__RESPONSE__OP_VOLUME;
        r.volume = &v;
    }
    respond(fd, q->id, &r);
    return true;
}

#define RAN(command, ...)                                                                          \
    (memset(seen, 0, sizeof seen), agent_start(&a, answer),                                        \
     rc = RUN(&a, "5", command, __VA_ARGS__), agent_stop(&a), agent_free(&a), rc)

static void an_import_is_over_when_all_is_written_and_detached(void)
{
    struct agent a;
    int rc;
    qemu_img("printf '(50.00/100%%)\\r(100.00/100%%)'; echo bytes >\"$last\"");
    CHECK_EQ(RAN(cmd_volume_import, image, "disk", "--format", "qcow2", "-o", "json"), CLI_OK);
    CHECK_STR(seen, "cadi");
    CHECK(strstr(out, "{\"percent\":100.0}\n") && strstr(out, "\"state\":\"ready\""));
    CHECK_EQ(RAN(cmd_volume_import, image, "disk"), CLI_USAGE); /* a format is not guessed */
    CHECK_EQ(RAN(cmd_volume_import, image, "disk", "--format", "nbd"), CLI_USAGE);
    CHECK_EQ(RAN(cmd_volume_import, image, "disk", "--format", "raw"), CLI_REFUSED);
    CHECK_STR(seen, ""); /* qemu-img does not call it raw */
    CHECK_EQ(RAN(cmd_volume_import, "/nothing", "disk", "--format", "qcow2"), CLI_REFUSED);
    CHECK_STR(seen, "");
}

static void an_import_that_fails_takes_its_volume_back(void)
{
    struct agent a;
    int rc;
    qemu_img("echo 'no such luck' >&2; exit 1");
    CHECK_EQ(RAN(cmd_volume_import, image, "disk", "--format", "qcow2", "-o", "json"), CLI_REFUSED);
    CHECK_STR(seen, "cadx");
    CHECK(strstr(out, "no such luck"));
    refuses = true;
    CHECK_EQ(RAN(cmd_volume_import, image, "disk", "--format", "qcow2"), CLI_REFUSED);
    CHECK_STR(seen, "c"); /* nothing of its own to take back */
    refuses = false;
    old_coordinator = true; /* what it answers with may have been there before */
    CHECK_EQ(RAN(cmd_volume_import, image, "disk", "--format", "qcow2"), CLI_REFUSED);
    CHECK_STR(seen, "c");
    old_coordinator = false;
}

static void what_looks_like_an_image_is_not_raw_but_by_force(void)
{
    struct error err = ERROR_INIT;
    static const char *const heads[] = {
        "QFI\xfb", "KDMV", "vhdxfile", "conectix", "# Disk DescriptorFile\n", "<<< Oracle"};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        write_text(image, heads[i]);
        err = (struct error)ERROR_INIT;
        CHECK_EQ(check_head(image, "raw", false, &err), LUNAR_E_INVALID);
        CHECK_EQ(check_head(image, "raw", true, &err), 0);
        CHECK_EQ(check_head(image, "vpc", false, &err), 0);
    }
    write_text(image, "image");
    err = (struct error)ERROR_INIT;
    CHECK_EQ(check_head(image, "raw", false, &err), 0);
}

/* Which qemu-img takes for one that stands alone. */
static void a_vhd_with_a_parent_is_refused(void)
{
    struct error err = ERROR_INIT;
    char head[512] = "conectix";
    for (char type = 2; type <= 4; type++) {
        FILE *f = fopen(image, "w");
        head[63] = type;
        CHECK(f && fwrite(head, sizeof head, 1, f) == 1 && fclose(f) == 0);
        CHECK_EQ(check_head(image, "vpc", false, &err), type == 4 ? LUNAR_E_INVALID : 0);
    }
    write_text(image, "image");
}

static bool holds(const char *path, const char *words)
{
    char text[32] = "";
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    return n == strlen(words) && strcmp(text, words) == 0;
}

static void an_export_reads_a_clone_and_names_the_file_when_it_is_whole(void)
{
    struct agent a;
    int rc;
    qemu_img("echo bytes >\"$last\"");
    CHECK_EQ(RAN(cmd_volume_export, "disk", target, "--format", "raw"), CLI_OK);
    CHECK_STR(seen, "gcadx");
    CHECK_EQ(access(target, F_OK), 0);
    CHECK_EQ(RAN(cmd_volume_export, "disk", target, "--format", "raw"), CLI_REFUSED);
    CHECK_STR(seen, ""); /* it is not overwritten */
    qemu_img("echo bytes >\"$last\"; exit 1");
    unlink(target);
    CHECK_EQ(RAN(cmd_volume_export, "disk", target, "--format", "raw"), CLI_REFUSED);
    CHECK_STR(seen, "gcadx");
    CHECK(access(target, F_OK) != 0);
    char meanwhile[160];
    snprintf(meanwhile, sizeof meanwhile, "echo bytes >\"$last\"; echo theirs >%s", target);
    qemu_img(meanwhile);
    CHECK_EQ(RAN(cmd_volume_export, "disk", target, "--format", "raw"), CLI_REFUSED);
    CHECK(holds(target, "theirs\n"));
    CHECK_EQ(RAN(cmd_volume_export, "disk", target, "--format", "raw", "--force"), CLI_OK);
    CHECK(holds(target, "bytes\n"));
    unlink(target);
    CHECK_EQ(RAN(cmd_volume_export, "disk", target, "--format", "vpc", "-c"), CLI_USAGE);
}

static void a_thick_volume_is_read_itself_and_stays(void)
{
    struct agent a;
    int rc;
    thick = true;
    qemu_img("echo bytes >\"$last\"");
    CHECK_EQ(RAN(cmd_volume_export, "disk", target, "--format", "raw"), CLI_OK);
    CHECK_STR(seen, "gad");
    unlink(target);
    thick = false;
}

static void a_signal_kills_it_and_takes_back(void)
{
    struct agent a;
    int rc;
    qemu_img("kill -INT $PPID; sleep 60");
    CHECK_EQ(RAN(cmd_volume_import, image, "disk", "--format", "qcow2", "-o", "json"), CLI_REFUSED);
    CHECK_STR(seen, "cadx");
    CHECK(strstr(out, "interrupted"));
}

static void teardown(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/qemu-img", folder);
    CHECK(unlink(path) == 0 && unlink(device) == 0 && unlink(image) == 0);
    CHECK_EQ(rmdir(folder), 0); /* nothing is left */
}

TEST_MAIN(TEST(setup), TEST(an_image_that_needs_another_file_is_refused),
          TEST(progress_is_read_from_pieces),
          TEST(an_import_is_over_when_all_is_written_and_detached),
          TEST(an_import_that_fails_takes_its_volume_back),
          TEST(what_looks_like_an_image_is_not_raw_but_by_force),
          TEST(a_vhd_with_a_parent_is_refused),
          TEST(an_export_reads_a_clone_and_names_the_file_when_it_is_whole),
          TEST(a_thick_volume_is_read_itself_and_stays),
          /* The signal stays pending: the last. */
          TEST(a_signal_kills_it_and_takes_back), TEST(teardown))
