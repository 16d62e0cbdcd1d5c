/* SPDX-License-Identifier: Apache-2.0 */
/* Findings and small files of `lunarctl node check`; see check.h. */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *check_level_name(enum check_level level)
{
    static const char *const names[] = {"OK", "WARN", "FAIL"};
    return names[level];
}

struct check_finding *check_add(struct check *check, enum check_level level, const char *subject,
                                ...)
{
    unsigned at =
        check->n_findings < CHECK_FINDINGS_MAX ? check->n_findings++ : CHECK_FINDINGS_MAX - 1;
    struct check_finding *f = &check->findings[at];
    va_list args;

    memset(f, 0, sizeof *f);
    f->level = level;
    va_start(args, subject);
    vsnprintf(f->subject, sizeof f->subject, subject, args);
    va_end(args);
    return f;
}

enum check_level check_worst(const struct check *check)
{
    enum check_level worst = CHECK_LEVEL_OK;
    for (unsigned i = 0; i < check->n_findings; i++)
        if (check->findings[i].level > worst)
            worst = check->findings[i].level;
    return worst;
}

static bool read_line(const struct check *check, char *ret, size_t ret_size, const char *path,
                      va_list args)
{
    char relative[256], full[512];
    vsnprintf(relative, sizeof relative, path, args);
    snprintf(full, sizeof full, "%s%s", check->root, relative);
    FILE *f = fopen(full, "re");
    if (!f)
        return false;
    bool read = fgets(ret, (int)ret_size, f) != NULL;
    fclose(f);
    if (!read)
        ret[0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return true;
}

bool check_read(const struct check *check, char *ret, size_t ret_size, const char *path, ...)
{
    va_list args;
    va_start(args, path);
    bool there = read_line(check, ret, ret_size, path, args);
    va_end(args);
    return there;
}

int check_number(const struct check *check, long *ret, char word[16], const char *path, ...)
{
    char text[64], *end;
    va_list args;
    va_start(args, path);
    bool there = read_line(check, text, sizeof text, path, args);
    va_end(args);
    if (!there)
        return -1;
    *ret = strtol(text, &end, 10);
    if (end != text && *end == '\0')
        return 1;
    if (word)
        snprintf(word, 16, "%s", text);
    return 0;
}

/* Built into the kernel a module may have no folder; its device tells as well. */
void check_modules(struct check *check)
{
    static const struct {
        const char *name, *device;
    } modules[] = {
        {"dm_mod", "/dev/mapper/control"},
        {"vduse", "/dev/vduse/control"},
        {"virtio_vdpa", "/sys/bus/vdpa/drivers/virtio_vdpa"},
    };
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        char folder[512], device[512];
        snprintf(folder, sizeof folder, "%s/sys/module/%s", check->root, modules[i].name);
        snprintf(device, sizeof device, "%s%s", check->root, modules[i].device);
        bool there = access(folder, F_OK) == 0 || access(device, F_OK) == 0;
        struct check_finding *f = check_add(check, there ? CHECK_LEVEL_OK : CHECK_LEVEL_FAIL,
                                            "kernel module %s", modules[i].name);
        snprintf(f->value, sizeof f->value, "%s", there ? "loaded" : "not loaded");
        if (!there)
            snprintf(f->advice, sizeof f->advice,
                     "modprobe %s, and its name in a file of /etc/modules-load.d", modules[i].name);
    }
}

/* wdmd takes the first one. A max_timeout of 0 means that the device does not say; a kernel without
 * the watchdogs' sysfs says nothing but that there is one. */
void check_watchdog_device(struct check *check)
{
    char identity[64] = "does not say what it is", device[512];
    long most = 0;
    int w = check->timeouts.watchdog_fire_timeout_s;
    snprintf(device, sizeof device, "%s/dev/watchdog0", check->root);
    bool there =
        check_read(check, identity, sizeof identity, "/sys/class/watchdog/watchdog0/identity") ||
        access(device, F_OK) == 0;
    check_number(check, &most, NULL, "/sys/class/watchdog/watchdog0/max_timeout");
    bool well = there && (most == 0 || most >= w);
    struct check_finding *f =
        check_add(check, well ? CHECK_LEVEL_OK : CHECK_LEVEL_FAIL, "watchdog device");
    snprintf(f->bound, sizeof f->bound, "can wait for %d s", w);
    if (!there)
        snprintf(f->value, sizeof f->value, "none");
    else if (most == 0)
        snprintf(f->value, sizeof f->value, "%s", identity);
    else
        snprintf(f->value, sizeof f->value, "%s, up to %ld s", identity, most);
    if (!there)
        snprintf(f->advice, sizeof f->advice,
                 "modprobe softdog where there is no hardware watchdog, and its name in a file of "
                 "/etc/modules-load.d");
    else if (!well)
        snprintf(f->advice, sizeof f->advice,
                 "this device cannot wait for the pool's W: use another one, or softdog, or a pool "
                 "that is formatted with --watchdog-timeout %ld or less",
                 most);
}
