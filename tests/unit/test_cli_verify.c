/* SPDX-License-Identifier: Apache-2.0 */
/* What `lunarctl verify` finds: a pool at rest gives nothing, each disagreement one finding. */
#include "support/test.h"

#include <stdlib.h>

#include "../../tools/lunarctl/options.c"
#include "../../tools/lunarctl/output.c"
#include "../../tools/lunarctl/verify_findings.c"
#include "../../tools/lunarctl/verify_layers.c"

/* One volume, open on the first of two nodes. */
static const struct uuid pool = {{9}};
static struct uuid volume_id = {{0xaa, 1}}, attachment_id = {{0xbb, 2}};
static struct verify_host hosts[2];
static Lunar__Node nodes[2];
static Lunar__Status status;
static Lunar__Volume volume, *volumes[1] = {&volume};
static Lunar__Attachment attachment, *attachments[2] = {&attachment, &attachment};
static Lunar__Inspection inspections[2];
static Lunar__InspectedMap maps[3], *map_list[3] = {&maps[0], &maps[1], &maps[2]};
static Lunar__InspectedQsd qsd, *qsd_list[2] = {&qsd, &qsd};
static Lunar__TreeLayer layers[3], *layer_list[3] = {&layers[0], &layers[1], &layers[2]};
static size_t n_layers;
static json_t *findings;

static void add_entry(struct table *t, enum table_state state)
{
    struct table_entry *e = table_add(t);
    e->volume_id = volume_id;
    e->attachment_id = attachment_id;
    e->generation = 3;
    e->term = 7;
    e->mode = TABLE_MODE_ATTACH;
    e->state = state;
}

static void host_init(int i, char *name)
{
    static char live[] = "LIVE";
    struct verify_host *h = &hosts[i];
    table_free(&h->grants[0]);
    table_free(&h->grants[1]);
    table_free(&h->report);
    *h = (struct verify_host){.host_id = (uint32_t)i + 1, .generation = 3, .node = &nodes[i]};
    table_init(&h->grants[0], TABLE_GRANTS, h->host_id, &pool);
    table_init(&h->grants[1], TABLE_GRANTS, h->host_id, &pool);
    table_init(&h->report, TABLE_REPORTS, h->host_id, &pool);
    h->report.writer.generation = 3;
    lunar__node__init(&nodes[i]);
    nodes[i].host_id = h->host_id;
    nodes[i].name = name;
    nodes[i].state = live;
    lunar__inspection__init(&inspections[i]);
    h->inspection = &inspections[i];
}

static void stack_init(void)
{
    static char kinds[3][2] = {"L", "P", "H"}, names[3][8] = {"l-map", "p-map", "h-map"};
    for (int i = 0; i < 3; i++) {
        lunar__inspected_map__init(&maps[i]);
        maps[i].kind = kinds[i];
        maps[i].name = names[i];
        maps[i].attachment_id = uuid_to_pb(&attachment_id);
        maps[i].linear = true;
    }
    lunar__inspected_qsd__init(&qsd);
    qsd.attachment_id = uuid_to_pb(&attachment_id);
    qsd.pid = 77;
    inspections[0].maps = map_list;
    inspections[0].n_maps = 3;
    inspections[0].qsds = qsd_list;
    inspections[0].n_qsds = 1;
}

static void reset(void)
{
    static char one[] = "node1", two[] = "node2", disk[] = "disk", ready[] = "ready",
                granted[] = "granted";
    n_layers = 0;
    host_init(0, one);
    host_init(1, two);
    lunar__status__init(&status);
    lunar__volume__init(&volume);
    lunar__attachment__init(&attachment);
    volume.volume_id = uuid_to_pb(&volume_id);
    volume.name = disk;
    volume.state = ready;
    attachment.attachment_id = uuid_to_pb(&attachment_id);
    attachment.host_id = 1;
    attachment.node = one;
    attachment.state = granted;
    volume.attachments = attachments;
    volume.n_attachments = 1;
    for (int copy = 0; copy < 2; copy++)
        add_entry(&hosts[0].grants[copy], TABLE_STATE_GRANTED);
    add_entry(&hosts[0].report, TABLE_STATE_OPEN);
    stack_init();
}

/* The kinds that are found, in order, with blanks between. */
static const char *found_kinds(void)
{
    static char text[512];
    const struct verify_facts facts = {&status, volumes, 1, hosts, 2, layer_list, n_layers};
    json_decref(findings);
    findings = verify_find(&facts);
    text[0] = '\0';
    for (size_t i = 0; i < json_array_size(findings); i++) {
        const json_t *f = json_array_get(findings, i);
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s%s", i ? " " : "", js_get_text(f, "kind"));
        if (!*js_get_text(f, "text") || !*js_get_text(f, "do"))
            return "a finding without words";
    }
    return text;
}

static void layer_init(size_t i, const char *name, const char *parent, const char *role)
{
    lunar__tree_layer__init(&layers[i]);
    layers[i].lv_name = (char *)(uintptr_t)name;
    layers[i].parent = (char *)(uintptr_t)parent;
    layers[i].role = (char *)(uintptr_t)role;
    layers[i].volume = (char *)(uintptr_t)(strcmp(role, "leaf") == 0 ? "disk" : "");
}

/* A snapshot and the leaf on it, and the attachment's grant of both. */
static void with_layers(void)
{
    reset();
    n_layers = 2;
    layer_init(0, "v00000000000000aa.0", "", "snapshot");
    layer_init(1, "v00000000000000aa.1", "v00000000000000aa.0", "leaf");
    for (int copy = 0; copy < 2; copy++) {
        struct table_entry *e = &hosts[0].grants[copy].entries[0];
        e->n_layers = 2;
        e->layers[0] = (struct table_layer){0xaa, 1, 1};
        e->layers[1] = (struct table_layer){0xaa, 0, 1};
    }
}

static void layers_and_grants_must_agree(void)
{
    with_layers();
    CHECK_STR(found_kinds(), "");
    hosts[0].grants[0].entries[0].n_layers = hosts[0].grants[1].entries[0].n_layers = 1;
    CHECK_STR(found_kinds(), "grant-of-another-chain");
    with_layers();
    for (int copy = 0; copy < 2; copy++)
        hosts[0].grants[copy].entries[0].layers[0].index = 7;
    CHECK_STR(found_kinds(), "grant-of-another-chain");
    with_layers();
    layers[1].parent = layers[1].lv_name + strlen(layers[1].lv_name);
    CHECK_STR(found_kinds(), "grant-of-another-chain");
}

/* The snapshot's layer, the leaf on it, and between them in the grant, once, one merged into the
 * former. */
static void with_a_merged_layer(void)
{
    with_layers();
    n_layers = 3;
    layer_init(2, "v00000000000000aa.2", "v00000000000000aa.0", "frozen");
    layers[2].state = (char *)(uintptr_t) "merged";
    for (int copy = 0; copy < 2; copy++) {
        struct table_entry *e = &hosts[0].grants[copy].entries[0];
        e->n_layers = 3;
        e->layers[2] = e->layers[1];
        e->layers[1] = (struct table_layer){0xaa, 2, 1};
    }
}

static void swap_layers(int one, int two)
{
    for (int copy = 0; copy < 2; copy++) {
        struct table_layer *named = hosts[0].grants[copy].entries[0].layers;
        struct table_layer before = named[one];
        named[one] = named[two];
        named[two] = before;
    }
}

static void what_was_attached_before_a_merge_keeps_the_merged_layer(void)
{
    with_a_merged_layer();
    CHECK_STR(found_kinds(), "");
    layers[2].state = (char *)(uintptr_t) ""; /* merged ones alone */
    CHECK_STR(found_kinds(), "grant-of-another-chain");
    with_a_merged_layer();
    swap_layers(0, 1); /* the leaf is never merged */
    CHECK_STR(found_kinds(), "grant-of-another-chain");
    with_a_merged_layer();
    swap_layers(1, 2); /* into what, then? */
    CHECK_STR(found_kinds(), "grant-of-another-chain");
    with_a_merged_layer();
    hosts[0].grants[0].entries[0].n_layers = hosts[0].grants[1].entries[0].n_layers = 2;
    CHECK_STR(found_kinds(), "grant-of-another-chain");
}

static void a_merged_layer_that_nobody_has_any_more_is_a_finding(void)
{
    with_layers();
    n_layers = 3;
    layer_init(2, "v00000000000000aa.2", "v00000000000000aa.0", "frozen");
    layers[2].state = (char *)(uintptr_t) "merged";
    CHECK_STR(found_kinds(), "layer-left");
    layers[1].parent = layers[2].lv_name; /* not put down yet: the coordinator is at it */
    CHECK_STR(found_kinds(), "grant-of-another-chain");
}

static void a_merge_that_runs_has_a_grant_of_no_volume(void)
{
    static const struct uuid job = {{0xcc, 1}};
    with_layers();
    n_layers = 3;
    layer_init(2, "v00000000000000aa.2", "v00000000000000aa.0", "frozen");
    layers[2].state = (char *)(uintptr_t) "merging";
    for (int copy = 0; copy < 2; copy++) {
        struct table_entry *e = table_add(&hosts[1].grants[copy]);
        e->volume_id = e->attachment_id = job;
        e->generation = 3;
        e->term = 7;
        e->mode = TABLE_MODE_JOB;
        e->n_layers = 2;
        e->layers[0] = (struct table_layer){0xaa, 2, 1};
        e->layers[1] = (struct table_layer){0xaa, 0, 1};
    }
    CHECK_STR(found_kinds(), "");
    layers[2].state = (char *)(uintptr_t) "";
    CHECK_STR(found_kinds(), "grant-without-volume");
    layers[2].state = (char *)(uintptr_t) "merging";
    hosts[1].grants[0].entries[0].mode = hosts[1].grants[1].entries[0].mode = TABLE_MODE_ATTACH;
    CHECK(strstr(found_kinds(), "grant-without-volume"));
}

static void a_measurement_that_runs_has_a_grant_of_no_volume(void)
{
    static const struct uuid job = {{0xcc, 2}};
    with_layers();
    n_layers = 3;
    layer_init(2, "v00000000000000aa.2", "v00000000000000aa.0", "frozen");
    layers[2].state = (char *)(uintptr_t) "measuring";
    for (int copy = 0; copy < 2; copy++) {
        struct table_entry *e = table_add(&hosts[1].grants[copy]);
        e->volume_id = e->attachment_id = job;
        e->generation = 3;
        e->term = 7;
        e->mode = TABLE_MODE_JOB;
        e->n_layers = 1;
        e->layers[0] = (struct table_layer){0xaa, 2, 1};
    }
    CHECK_STR(found_kinds(), "");
    layers[2].state = (char *)(uintptr_t) "";
    CHECK_STR(found_kinds(), "grant-without-volume");
}

static void what_is_half_made_or_written_below_is_found(void)
{
    static const char *const states[][2] = {
        {"new", "layer-half-made"}, {"freezing", "snapshot-half-made"}, {"deleting", "layer-left"}};
    for (int i = 0; i < 3; i++) {
        with_layers();
        n_layers = 3;
        layer_init(2, "v00000000000000bb.0", "", "frozen");
        layers[2].state = (char *)(uintptr_t)states[i][0];
        CHECK_STR(found_kinds(), states[i][1]);
    }
    with_layers();
    n_layers = 3;
    layer_init(2, "v00000000000000bb.0", "v00000000000000aa.1", "frozen");
    CHECK_STR(found_kinds(), "written-below");
    layers[2].parent = (char *)(uintptr_t) "v00000000000000bb.9";
    CHECK_STR(found_kinds(), "layer-without-parent");
}

static void a_pool_at_rest_is_clean(void)
{
    reset();
    CHECK_STR(found_kinds(), "");
}

static void grants_and_catalogue_must_agree(void)
{
    reset();
    const struct verify_facts none = {&status, volumes, 0, hosts, 2, NULL, 0};
    json_decref(findings);
    findings = verify_find(&none);
    CHECK_STR(js_get_text(json_array_get(findings, 0), "kind"), "grant-without-volume");
    reset();
    volume.n_attachments = 0;
    CHECK_STR(found_kinds(), "grant-not-in-memory");
    reset();
    attachment.host_id = 2;
    CHECK_STR(found_kinds(), "grant-not-on-the-lun grant-not-in-memory");
    reset();
    volume.n_attachments = 2;
    CHECK_STR(found_kinds(), "two-grants");
    reset();
    hosts[0].grants[0].entries[0].mode = hosts[0].grants[1].entries[0].mode = TABLE_MODE_JOB;
    CHECK_STR(found_kinds(), "leftover-job");
    reset();
    hosts[0].grants[0].entries[0].term = hosts[0].grants[1].entries[0].term = TABLE_TERM_LEFT_OVER;
    CHECK_STR(found_kinds(), "grant-left-over");
}

static void copies_of_the_grants_must_agree(void)
{
    reset();
    hosts[0].grants[0].seq = 2;
    table_remove(&hosts[0].grants[1], 0);
    CHECK_STR(found_kinds(), "grant-copies-differ");
    reset();
    hosts[0].grants_rc[1] = LUNAR_E_CORRUPT;
    CHECK_STR(found_kinds(), "grants-damaged");
    reset();
    hosts[1].grants_rc[0] = hosts[1].grants_rc[1] = LUNAR_E_NOT_FOUND; /* never written */
    hosts[1].report_rc = LUNAR_E_NOT_FOUND;
    CHECK_STR(found_kinds(), "");
    hosts[1].report_rc = LUNAR_E_CORRUPT;
    CHECK_STR(found_kinds(), "report-damaged");
}

static void reports_and_grants_must_agree(void)
{
    reset();
    hosts[0].generation = hosts[0].report.writer.generation = 4; /* it was reset and is back */
    table_remove(&hosts[0].report, 0);
    inspections[0].n_maps = inspections[0].n_qsds = 0;
    CHECK_STR(found_kinds(), "grant-of-a-former-life");
    reset();
    table_remove(&hosts[0].report, 0);
    inspections[0].n_maps = inspections[0].n_qsds = 0;
    CHECK_STR(found_kinds(), "granted-not-open");
    reset();
    add_entry(&hosts[1].report, TABLE_STATE_OPENING);
    CHECK_STR(found_kinds(), "two-nodes report-without-grant");
    reset();
    hosts[0].report.entries[0].state = TABLE_STATE_CLOSING;
    CHECK_STR(found_kinds(), "stuck");
}

static void what_stands_must_be_reported_and_what_is_reported_must_stand(void)
{
    reset();
    maps[0].linear = false;
    CHECK_STR(found_kinds(), "error-map");
    reset();
    maps[1].suspended = true;
    CHECK_STR(found_kinds(), "suspended-map");
    reset();
    inspections[0].n_maps = 2;
    CHECK_STR(found_kinds(), "open-without-map");
    reset();
    inspections[0].n_qsds = 0;
    CHECK_STR(found_kinds(), "daemons");
    volume.thick = true;
    CHECK_STR(found_kinds(), "");
    reset();
    inspections[0].n_qsds = 2;
    CHECK_STR(found_kinds(), "daemons");
    reset();
    inspections[1].maps = map_list;
    inspections[1].n_maps = 1;
    inspections[1].qsds = qsd_list;
    inspections[1].n_qsds = 1;
    CHECK_STR(found_kinds(), "map-without-report daemon-without-report");
    static char job[] = "J";
    maps[0].kind = job;
    inspections[1].n_qsds = 0;
    inspections[0].n_maps = 0;
    volume.n_attachments = 0;
    table_remove(&hosts[0].grants[0], 0);
    table_remove(&hosts[0].grants[1], 0);
    table_remove(&hosts[0].report, 0);
    inspections[0].n_qsds = 0;
    CHECK_STR(found_kinds(), "leftover-job-map");
}

static void a_node_that_was_not_seen_is_a_finding_unless_it_is_gone(void)
{
    static char silent[] = "SILENT", left[] = "LEFT", dead[] = "DEAD";
    reset();
    hosts[1].inspection = NULL;
    CHECK_STR(found_kinds(), "not-inspected");
    nodes[1].state = silent;
    CHECK_STR(found_kinds(), "not-inspected");
    nodes[1].state = left;
    CHECK_STR(found_kinds(), "");
    nodes[1].state = dead;
    CHECK_STR(found_kinds(), "");
    hosts[1].node = NULL; /* not heard of under this coordinator */
    CHECK_STR(found_kinds(), "");
    hosts[1].node = &nodes[1];
    hosts[1].inspection = &inspections[1];
    inspections[1].cut = true;
    CHECK_STR(found_kinds(), "not-inspected");
}

static void what_a_dead_node_had_open_may_be_open_elsewhere(void)
{
    static char dead[] = "DEAD";
    for (int by_mark = 0; by_mark < 2; by_mark++) {
        reset();
        add_entry(&hosts[1].report, TABLE_STATE_OPEN); /* as it stood when the node died */
        hosts[1].inspection = NULL;
        nodes[1].state = dead;
        CHECK_STR(found_kinds(), "two-nodes report-without-grant"); /* dead, but not proved over */
        if (by_mark) {
            hosts[1].grants[0].node_dead = hosts[1].grants[1].node_dead = true;
            hosts[1].grants[0].dead_generation = hosts[1].grants[1].dead_generation = 3;
        } else {
            nodes[1].over_generation = 3;
        }
        CHECK_STR(found_kinds(), "");
        hosts[1].generation = hosts[1].report.writer.generation = 4; /* back, and has it open */
        CHECK_STR(found_kinds(), "two-nodes report-without-grant");
    }
}

static void why_a_node_was_not_seen_may_change_between_two_looks(void)
{
    reset();
    hosts[1].inspection = NULL;
    snprintf(hosts[1].why_not, sizeof hosts[1].why_not, "it did not answer");
    found_kinds();
    json_t *before = json_incref(findings);
    snprintf(hosts[1].why_not, sizeof hosts[1].why_not, "it is silent");
    found_kinds();
    json_t *both = verify_persisting(before, findings);
    CHECK_EQ(json_array_size(both), 1);
    CHECK_STR(js_get_text(json_array_get(both, 0), "why"), "it is silent");
    json_decref(before);
    json_decref(both);
}

static void the_pools_condition_is_a_finding(void)
{
    static char condition[] = "the VG holds LVs that are not lunar's";
    reset();
    status.condition = condition;
    CHECK_STR(found_kinds(), "condition");
}

static void what_is_gone_at_the_second_look_was_under_way(void)
{
    reset();
    inspections[0].n_qsds = 0;
    maps[0].linear = false;
    found_kinds();
    json_t *before = json_incref(findings);
    inspections[0].n_qsds = 1;
    maps[1].linear = false;
    found_kinds();
    json_t *both = verify_persisting(before, findings);
    CHECK_EQ(json_array_size(before), 2);
    CHECK_EQ(json_array_size(both), 1);
    CHECK(strstr(js_get_text(json_array_get(both, 0), "text"), "its L map") != NULL);
    json_decref(before);
    json_decref(both);
    json_decref(findings);
    findings = NULL;
    for (int i = 0; i < 2; i++) {
        table_free(&hosts[i].grants[0]);
        table_free(&hosts[i].grants[1]);
        table_free(&hosts[i].report);
    }
}

TEST_MAIN(TEST(a_pool_at_rest_is_clean), TEST(layers_and_grants_must_agree),
          TEST(what_was_attached_before_a_merge_keeps_the_merged_layer),
          TEST(a_merged_layer_that_nobody_has_any_more_is_a_finding),
          TEST(a_merge_that_runs_has_a_grant_of_no_volume),
          TEST(a_measurement_that_runs_has_a_grant_of_no_volume),
          TEST(what_is_half_made_or_written_below_is_found), TEST(grants_and_catalogue_must_agree),
          TEST(copies_of_the_grants_must_agree), TEST(reports_and_grants_must_agree),
          TEST(what_stands_must_be_reported_and_what_is_reported_must_stand),
          TEST(a_node_that_was_not_seen_is_a_finding_unless_it_is_gone),
          TEST(what_a_dead_node_had_open_may_be_open_elsewhere),
          TEST(why_a_node_was_not_seen_may_change_between_two_looks),
          TEST(the_pools_condition_is_a_finding),
          TEST(what_is_gone_at_the_second_look_was_under_way))
