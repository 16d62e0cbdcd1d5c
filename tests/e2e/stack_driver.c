/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stack_driver: the agent's stack from a command line, for tests in a VM that need no agent,
 * coordinator or sanlock.
 *
 *     stack_driver [-r ROOT] format|attach|check SPEC...      SPEC: key=value, see below
 *     stack_driver [-r ROOT] grow SPEC...                     the attachment's, a longer layer
 *     stack_driver [-r ROOT] overlay SPEC...                  the attachment's, one layer more
 *     stack_driver [-r ROOT] relink SPEC...                   the attachment's, fewer layers
 *     stack_driver [-r ROOT] resize SPEC...                   the attachment's, a larger size
 *     stack_driver [-r ROOT] merge SPEC...                    the first layer into the second
 *     stack_driver [-r ROOT] detach|restart ATTACHMENT        (these adopt what stands first)
 *     stack_driver [-r ROOT] recover|teardown                 of the pool below
 *     stack_driver [-r ROOT] supervise SECONDS                restarts daemons as they die
 *
 * SPEC: device=/dev/vdb size=BYTES volume=UUID attachment=UUID name=NAME [thick=1] and at least one
 * segment=OFFSET:LENGTH (max=BYTES: what the layer's map shows); layer=[VOLUME:]INDEX before
 * segments begins the next layer (leaf first). The pool is always "test". Exit code 0; else 1 with
 * "CODE: sentence" on standard error; 2 for usage. Without `detach`, everything outlives it: each
 * run is an agent restart.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/stack.h"
#include "base/log.h"
#include "fencing/guard_wire.h"

#define STACKS_MAX 64

static const char *root = "/run/lunar/attach";
static const char *const pool_text = "7e57f001-0000-4000-8000-000000000001";
static struct stack *stacks[STACKS_MAX];
static int n_stacks;

/* There is no guard here: the permit is given by hand. */
static const struct stack_life life = {.run_dir = "/run", .host_id = 1, .generation = 1};

static int open_permit(struct error *err)
{
    char path[GUARD_PATH_SIZE];
    enum guard_permit_byte said;
    int fd = guard_permit_path(life.run_dir, "test", life.host_id, life.generation, path, err);

    if (fd == 0)
        fd = guard_permit_open(path, &said, err);
    if (fd < 0)
        return fd;
    int rc = guard_permit_say(fd, GUARD_PERMIT_OPEN);
    close(fd);
    return rc < 0 ? error_set(err, rc, "%s: %s", path, strerror(-rc)) : 0;
}

static int usage(const char *what)
{
    fprintf(stderr, "stack_driver: %s; see the head of its source\n", what);
    exit(2);
}

static struct uuid parse_uuid(const char *text)
{
    struct uuid id;

    if (uuid_parse(text, &id) < 0)
        usage("bad UUID");
    return id;
}

/* "INDEX", or "UUID:INDEX" of another volume's; NULL: the last one. */
static struct stack_layer *last_layer(struct stack_spec *spec, const char *fresh)
{
    const char *colon = fresh ? strchr(fresh, ':') : NULL;
    char volume[UUID_TEXT_SIZE] = "";

    if (colon)
        snprintf(volume, sizeof volume, "%.*s", (int)(colon - fresh), fresh);
    if (fresh || spec->n_layers == 0) {
        struct uuid id = colon ? parse_uuid(volume) : spec->volume_id;
        spec->layers = reallocarray(spec->layers, spec->n_layers + 1, sizeof *spec->layers);
        if (!spec->layers)
            abort();
        spec->layers[spec->n_layers++] =
            (struct stack_layer){.volume_short = uuid_short(&id),
                                 .index = (uint32_t)atoi(colon   ? colon + 1
                                                         : fresh ? fresh
                                                                 : "0")};
    }
    return &spec->layers[spec->n_layers - 1];
}

static void add_segment(struct stack_spec *spec, const char *value)
{
    struct stack_segment segment = {0};
    struct stack_layer *layer = last_layer(spec, NULL);

    if (sscanf(value, "%" SCNu64 ":%" SCNu64, &segment.lun_offset, &segment.length) != 2)
        usage("segment=OFFSET:LENGTH");
    layer->segments = reallocarray(layer->segments, layer->n_segments + 1, sizeof *layer->segments);
    if (!layer->segments)
        abort();
    layer->segments[layer->n_segments++] = segment;
}

static void set_key(struct stack_spec *spec, const char *key, const char *value)
{
    if (strcmp(key, "device") == 0)
        snprintf(spec->device, sizeof spec->device, "%s", value);
    else if (strcmp(key, "name") == 0)
        snprintf(spec->name, sizeof spec->name, "%s", value);
    else if (strcmp(key, "size") == 0)
        spec->size = strtoull(value, NULL, 10);
    else if (strcmp(key, "thick") == 0)
        spec->thick = atoi(value) != 0;
    else if (strcmp(key, "volume") == 0)
        spec->volume_id = parse_uuid(value);
    else if (strcmp(key, "attachment") == 0)
        spec->attachment_id = parse_uuid(value);
    else if (strcmp(key, "layer") == 0)
        last_layer(spec, value);
    else if (strcmp(key, "max") == 0)
        last_layer(spec, NULL)->max_size = strtoull(value, NULL, 10);
    else if (strcmp(key, "segment") == 0)
        add_segment(spec, value);
    else
        usage(key);
}

static void parse_spec(char **argv, struct stack_spec *spec)
{
    *spec = (struct stack_spec){.pool = "test", .pool_id = parse_uuid(pool_text)};
    for (; *argv; argv++) {
        char *equals = strchr(*argv, '=');
        if (!equals)
            usage("key=value");
        *equals = '\0';
        set_key(spec, *argv, equals + 1);
    }
}

static void adopted(void *data, struct stack *stack)
{
    (void)data;
    if (n_stacks == STACKS_MAX)
        usage("too many stacks");
    stacks[n_stacks++] = stack;
    printf("adopted %s %s qsd=%d restarts=%u\n", stack->spec.name, stack->link, (int)stack->qsd.pid,
           stack->qsd_restarts);
}

static int recover(bool teardown_all, struct error *err)
{
    struct uuid pool = parse_uuid(pool_text);

    return stack_recover(root, &pool, teardown_all, adopted, NULL, err);
}

static struct stack *take(const struct uuid *id)
{
    for (int i = 0; i < n_stacks; i++) {
        struct stack *stack = stacks[i];
        if (stack && uuid_equal(&stack->spec.attachment_id, id)) {
            stacks[i] = NULL;
            return stack;
        }
    }
    return NULL;
}

/* What changes a stack that stands. */
static int change(const char *command, const struct stack_spec *spec, struct error *err)
{
    int rc = recover(false, err);

    if (rc < 0)
        return rc;
    struct stack *stack = take(&spec->attachment_id);
    if (!stack)
        return error_set(err, LUNAR_E_NOT_FOUND, "not attached");
    if (strcmp(command, "grow") == 0)
        rc = stack_grow(root, &life, stack, &spec->layers[0], err);
    else if (strcmp(command, "overlay") == 0)
        rc = stack_overlay(root, &life, stack, spec->layers, spec->n_layers, err);
    else if (strcmp(command, "relink") == 0)
        rc = stack_relink(root, &life, stack, spec->layers, spec->n_layers, err);
    else
        rc = stack_resize(root, &life, stack, spec, err);
    stack_free(stack);
    return rc;
}

static int merge(const struct stack_spec *spec, struct error *err)
{
    struct qsd_job job = {0};
    int rc = stack_merge(root, &life, spec, &job, err);

    printf("%llu\n", (unsigned long long)job.done);
    return rc;
}

static int with_spec(const char *command, char **argv, struct error *err)
{
    struct stack_spec spec;
    struct stack *stack = NULL;
    int rc;

    parse_spec(argv, &spec);
    rc = open_permit(err);
    if (rc < 0)
        ;
    else if (strcmp(command, "format") == 0)
        rc = stack_format(root, &life, &spec, err);
    else if (strcmp(command, "grow") == 0 || strcmp(command, "overlay") == 0 ||
             strcmp(command, "resize") == 0 || strcmp(command, "relink") == 0)
        rc = change(command, &spec, err);
    else if (strcmp(command, "merge") == 0)
        rc = merge(&spec, err);
    else if (strcmp(command, "attach") == 0)
        rc = stack_attach(root, &life, &spec, &stack, err);
    else
        rc = stack_spec_check(&spec, err);
    if (stack)
        printf("%s\n", stack->link);
    stack_free(stack);
    stack_spec_free(&spec);
    return rc;
}

static int with_attachment(const char *command, const char *attachment, struct error *err)
{
    int rc = recover(false, err);

    if (rc < 0)
        return rc;
    struct uuid id = parse_uuid(attachment);
    struct stack *stack = take(&id);
    if (!stack)
        return error_set(err, LUNAR_E_NOT_FOUND, "%s is not attached", attachment);
    stack_freeze_lower(root, &life, stack);
    rc = strcmp(command, "detach") == 0 ? stack_detach(root, stack, err)
                                        : stack_restart_qsd(root, stack, err);
    if (rc < 0 || strcmp(command, "detach") != 0)
        stack_free(stack);
    return rc;
}

/* What the agent's loop will do with the pidfds. */
static int supervise(int seconds, struct error *err)
{
    int rc = recover(false, err);

    for (int left = seconds * 10; rc == 0 && left > 0; left--) {
        for (int i = 0; rc == 0 && i < n_stacks; i++)
            if (!stacks[i]->spec.thick && !qsd_alive(&stacks[i]->qsd)) {
                stack_freeze_lower(root, &life, stacks[i]);
                rc = stack_restart_qsd(root, stacks[i], err);
            }
        poll(NULL, 0, 100);
    }
    return rc;
}

static bool takes_spec(const char *command)
{
    static const char *const those[] = {"format",  "attach", "check",  "grow",
                                        "overlay", "resize", "relink", "merge"};

    for (size_t i = 0; i < sizeof those / sizeof *those; i++)
        if (strcmp(command, those[i]) == 0)
            return true;
    return false;
}

static int run(int argc, char **argv, struct error *err)
{
    const char *command = argv[0];

    if (argc >= 2 && takes_spec(command))
        return with_spec(command, argv + 1, err);
    if (argc == 2 && (strcmp(command, "detach") == 0 || strcmp(command, "restart") == 0))
        return with_attachment(command, argv[1], err);
    if (argc == 2 && strcmp(command, "supervise") == 0)
        return supervise(atoi(argv[1]), err);
    if (argc == 1 && (strcmp(command, "recover") == 0 || strcmp(command, "teardown") == 0))
        return recover(strcmp(command, "teardown") == 0, err);
    return usage("unknown command");
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    int at = 1;

    log_set_level(LOG_LEVEL_DEBUG);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 3 && strcmp(argv[1], "-r") == 0) {
        root = argv[2];
        at = 3;
    }
    if (argc <= at)
        usage("no command");
    int rc = run(argc - at, argv + at, &err);
    for (int i = 0; i < n_stacks; i++)
        stack_free(stacks[i]);
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", error_name(rc), err.text);
    return rc < 0;
}
