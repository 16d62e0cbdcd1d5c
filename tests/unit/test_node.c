/* SPDX-License-Identifier: Apache-2.0 */
/* The pure node against a fake outside: the order of SAFETY 2, every failure of a step, QSD exits,
 * relayed requests. */
#include "agent/stack_pv.h"
#include "support/node_world.h"

/* --- tests --- */

static void safety_2_nothing_is_mapped_before_opening_is_on_the_lun(void)
{
    struct ids ids = new_ids();
    reset();
    attach(&ids);
    CHECK_EQ(w.n_reports, 1);
    CHECK_EQ(w.report_state, TABLE_STATE_OPENING);
    CHECK_EQ(w.n_tasks, 0);
    report_ok();
    CHECK_EQ(w.n_tasks, 1);
    CHECK_EQ(w.task->term, 5);
    task_ends(0);
    CHECK_EQ(w.n_results, 0);
    CHECK_EQ(w.report_state, TABLE_STATE_OPEN);
    report_ok();
    CHECK_EQ(w.n_results, 1);
    CHECK_EQ(w.code, 0);
    CHECK_STR(w.device, "/dev/lunar/test/disk");
}

static void a_report_that_cannot_be_written_stops_the_opening(void)
{
    struct ids ids = new_ids();
    struct error err = ERROR_INIT;
    reset();
    attach(&ids);
    error_set(&err, -5, "EIO");
    node_report_done(w.node, w.report_token, -5, &err);
    CHECK_EQ(w.n_tasks, 0);
    CHECK_EQ(w.code, -5);
}

static void a_refused_task_is_reported_as_gone_before_it_is_answered(void)
{
    struct ids ids = new_ids();
    reset();
    attach(&ids);
    report_ok();
    task_ends(LUNAR_E_STALE);
    CHECK_EQ(w.n_results, 0);
    CHECK_EQ(w.report_entries, 0);
    report_ok();
    CHECK_EQ(w.n_results, 1);
    CHECK_EQ(w.code, LUNAR_E_STALE);
}

static void a_half_built_stack_is_held_until_a_detach_took_it_down(void)
{
    struct ids ids = new_ids();
    reset();
    attach(&ids);
    report_ok();
    task_ends(LUNAR_E_INDETERMINATE);
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    attach(&ids);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    detach(&ids);
    CHECK_EQ(w.report_entries, 1);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_TEARDOWN);
    task_ends(0);
    CHECK_EQ(w.report_entries, 0);
    report_ok();
    CHECK_EQ(w.code, 0);
}

/* The coordinator, which wants it open, does not detach first. */
static void an_attach_takes_down_what_an_earlier_one_left(void)
{
    struct ids ids = new_ids();
    reset();
    attach(&ids);
    report_ok();
    task_ends(LUNAR_E_INDETERMINATE);
    attach(&ids);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_TEARDOWN);
    attach(&ids);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    task_ends(0);
    CHECK_EQ(w.report_entries, 0);
    report_ok();
    attach(&ids);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_ATTACH);
}

static void format_layer(const struct ids *ids, uint32_t index)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__FormatJob m = LUNAR__FORMAT_JOB__INIT;
    Lunar__Layer layer = LUNAR__LAYER__INIT;
    Lunar__Segment segment = LUNAR__SEGMENT__INIT, *segments = &segment;

    segment.start = 1 << 20;
    segment.length = 1 << 20;
    layer.index = index;
    layer.n_segments = 1;
    layer.segments = &segments;
    m.volume_id = uuid_to_pb(&ids->volume);
    m.attachment_id = uuid_to_pb(&ids->attachment);
    m.name = (char *)(uintptr_t) "disk";
    m.size = 1 << 20;
    m.layer = &layer;
    c.op_case = LUNAR__COMMAND__OP_FORMAT_JOB;
    c.format_job = &m;
    command(&c);
}

static void format(const struct ids *ids)
{
    format_layer(ids, 0);
}

static void merge(const struct ids *ids)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Merge m = LUNAR__MERGE__INIT;
    Lunar__Layer layers[2], *list[] = {&layers[0], &layers[1]};
    Lunar__Segment segment = LUNAR__SEGMENT__INIT, *segments = &segment;

    segment.start = 1 << 20;
    segment.length = 1 << 20;
    for (uint32_t i = 0; i < 2; i++) {
        lunar__layer__init(&layers[i]);
        layers[i].volume_short = 7;
        layers[i].index = 2 - i;
        layers[i].n_segments = 1;
        layers[i].segments = &segments;
    }
    m.volume_id = uuid_to_pb(&ids->volume);
    m.attachment_id = uuid_to_pb(&ids->attachment);
    m.n_layers = 2;
    m.layers = list;
    c.op_case = LUNAR__COMMAND__OP_MERGE;
    c.merge = &m;
    command(&c);
}

static void a_leaving_node_ends_its_merges_and_begins_none(void)
{
    struct ids ids = new_ids(), next = new_ids();
    struct error err = ERROR_INIT;
    reset();
    merge(&ids);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_MERGE);
    CHECK(!w.task->job->cancel);
    CHECK_EQ(node_set_leaving(w.node, &err), LUNAR_E_BUSY);
    CHECK(w.task->job->cancel);
    task_ends(LUNAR_E_BUSY);
    CHECK_EQ(node_set_leaving(w.node, &err), LUNAR_E_BUSY); /* the LUN's report has it */
    report_ok();
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    merge(&next);
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    CHECK_EQ(node_set_leaving(w.node, &err), 0);
}

static void a_node_that_stays_goes_on_merging(void)
{
    struct ids ids = new_ids(), job = new_ids();
    struct error err = ERROR_INIT;
    reset();
    attached(&ids);
    merge(&job);
    report_ok();
    CHECK_EQ(node_set_leaving(w.node, &err), LUNAR_E_IN_USE);
    CHECK(!w.task->job->cancel);
    task_ends(0);
    report_ok();
    CHECK_EQ(w.code, 0);
}

/* Now and then, and never of what has not begun to copy. */
static void a_merge_tells_how_far_it_is(void)
{
    struct ids job = new_ids();
    reset();
    merge(&job);
    node_tick(w.node, 10000);
    CHECK_EQ(w.n_progress, 0);
    report_ok();
    node_tick(w.node, 20000);
    CHECK_EQ(w.n_progress, 0);
    w.task->job->total = 100;
    w.task->job->done = 43;
    node_tick(w.node, 30000);
    node_tick(w.node, 30500);
    CHECK_EQ(w.n_progress, 1);
    CHECK_EQ(w.progress_done, 43);
    CHECK_EQ(w.progress_total, 100);
    w.task->job->done = 90;
    node_tick(w.node, 32500);
    CHECK_EQ(w.progress_done, 90);
    task_ends(0);
    report_ok();
    node_tick(w.node, 40000);
    CHECK_EQ(w.n_progress, 2);
    CHECK_EQ(w.code, 0);
}

static void measure(const struct ids *ids)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Measure m = LUNAR__MEASURE__INIT;
    Lunar__Layer layer = LUNAR__LAYER__INIT;
    Lunar__Segment segment = LUNAR__SEGMENT__INIT, *segments = &segment;

    segment.start = 1 << 20;
    segment.length = 1 << 20;
    layer.volume_short = 7;
    layer.n_segments = 1;
    layer.segments = &segments;
    m.volume_id = uuid_to_pb(&ids->volume);
    m.attachment_id = uuid_to_pb(&ids->attachment);
    m.layer = &layer;
    c.op_case = LUNAR__COMMAND__OP_MEASURE;
    c.measure = &m;
    command(&c);
}

static void a_measurement_is_answered_when_its_map_is_gone_from_the_report(void)
{
    struct ids ids = new_ids(), failing = new_ids();
    reset();
    measure(&ids);
    CHECK_EQ(w.n_tasks, 0); /* the report comes first */
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_MEASURE);
    w.task->end = 5 << 16;
    task_ends(0);
    CHECK_EQ(w.n_results, 0);
    CHECK_EQ(w.report_entries, 0);
    report_ok();
    CHECK_EQ(w.n_results, 1);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.end, 5 << 16);
    measure(&failing);
    report_ok();
    task_ends(LUNAR_E_CORRUPT);
    report_ok();
    CHECK_EQ(w.code, LUNAR_E_CORRUPT);
    CHECK_EQ(w.end, 0);
}

static void a_leaving_node_waits_for_its_measurement(void)
{
    struct ids ids = new_ids();
    struct error err = ERROR_INIT;
    reset();
    measure(&ids);
    report_ok();
    CHECK_EQ(node_set_leaving(w.node, &err), LUNAR_E_BUSY);
    task_ends(0);
    report_ok();
    CHECK_EQ(node_set_leaving(w.node, &err), 0);
}

/* What cancelled an attempt does not cancel the next one. */
static void a_merge_that_was_cancelled_and_stuck_is_begun_again(void)
{
    struct ids ids = new_ids();
    reset();
    merge(&ids);
    report_ok();
    detach(&ids);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK(w.task->job->cancel);
    task_ends(LUNAR_E_INDETERMINATE);
    merge(&ids);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_MERGE);
    CHECK(!w.task->job->cancel);
    task_ends(0);
    report_ok();
    CHECK_EQ(w.code, 0);
}

static void a_job_whose_map_stands_is_held_until_an_attempt_succeeds(void)
{
    struct ids ids = new_ids();
    struct error err = ERROR_INIT;
    reset();
    format(&ids);
    report_ok();
    task_ends(LUNAR_E_INDETERMINATE);
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    format(&ids);
    report_ok();
    task_ends(-5); /* it could not even read its grant: nothing was done about the map */
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    format(&ids);
    CHECK_EQ(w.report_entries, 1);
    error_set(&err, -5, "EIO");
    node_report_done(w.node, w.report_token, -5, &err);
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    format(&ids);
    CHECK_EQ(w.report_entries, 1);
    report_ok();
    task_ends(0);
    CHECK_EQ(w.report_entries, 0);
    report_ok();
    CHECK_EQ(w.code, 0);
}

static void a_job_whose_map_stands_can_be_detached(void)
{
    struct ids ids = new_ids();
    reset();
    format(&ids);
    report_ok();
    detach(&ids);
    CHECK_EQ(w.code, LUNAR_E_BUSY); /* it is at work */
    task_ends(LUNAR_E_INDETERMINATE);
    detach(&ids);
    CHECK_EQ(w.report_entries, 1);
    CHECK_EQ(w.report_state, TABLE_STATE_CLOSING);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_TEARDOWN);
    task_ends(-5); /* the map stands still */
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    CHECK_EQ(w.report_entries, 1);
    detach(&ids);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_TEARDOWN);
    task_ends(0);
    CHECK_EQ(w.report_entries, 0);
    report_ok();
    CHECK_EQ(w.code, 0);
}

static void a_report_that_failed_is_written_again_without_an_event(void)
{
    struct ids ids = new_ids();
    struct error err = ERROR_INIT;
    reset();
    node_tend(w.node, false);
    CHECK_EQ(w.n_reports, 0);
    attach(&ids);
    error_set(&err, -5, "EIO"); /* it may stand on the LUN all the same */
    node_report_done(w.node, w.report_token, -5, &err);
    CHECK_EQ(w.n_reports, 1);
    node_tend(w.node, false);
    CHECK_EQ(w.n_reports, 2);
    CHECK_EQ(w.report_entries, 0);
    report_ok();
    node_tend(w.node, false);
    CHECK_EQ(w.n_reports, 2);
    node_tend(w.node, true);
    CHECK_EQ(w.n_reports, 3);
}

static void a_queued_report_does_not_make_up_for_one_that_failed_before(void)
{
    struct ids ids = new_ids(), other = new_ids();
    struct error err = ERROR_INIT;
    reset();
    attach(&ids);
    uint64_t first = w.report_token;
    attach(&other);
    CHECK_EQ(w.report_entries, 2); /* it names what the first was written for */
    error_set(&err, -5, "EIO");
    node_report_done(w.node, first, -5, &err);
    CHECK_EQ(w.code, -5);
    node_tend(w.node, true);
    CHECK_EQ(w.n_reports, 2); /* one is out: not another */
    report_ok();
    task_ends(LUNAR_E_INDETERMINATE);
    node_tend(w.node, false);
    CHECK_EQ(w.n_reports, 3);
    CHECK_EQ(w.report_entries, 1);
    report_ok();
    node_tend(w.node, false);
    CHECK_EQ(w.n_reports, 3);
}

static void the_same_attach_again_joins_and_is_answered_when_open(void)
{
    struct ids ids = new_ids();
    reset();
    attach(&ids);
    attach(&ids);
    report_ok();
    attach(&ids);
    task_ends(0);
    report_ok();
    CHECK_EQ(w.n_tasks, 1);
    CHECK_EQ(w.n_results, 1);
    attach(&ids);
    CHECK_EQ(w.n_results, 2);
    CHECK_EQ(w.n_tasks, 1);
}

static void safety_2_nothing_is_opened_that_the_report_has_no_room_for(void)
{
    reset();
    for (uint32_t i = 0; i < TABLE_ENTRIES_MAX; i++) {
        struct ids ids = new_ids();
        attach(&ids);
        report_ok();
        task_ends(LUNAR_E_INDETERMINATE); /* half-built: held, and no more than that */
    }
    CHECK_EQ(w.report_entries, TABLE_ENTRIES_MAX);
    struct ids ids = new_ids();
    int tasks = w.n_tasks;
    attach(&ids);
    CHECK_EQ(w.code, LUNAR_E_FULL);
    CHECK_EQ(w.n_tasks, tasks);
}

static void the_next_layer_of_an_open_volume_is_formatted_and_its_own_are_not(void)
{
    struct ids ids = new_ids();
    reset();
    attached(&ids);
    ids.attachment = uuid_random();
    format_layer(&ids, 0);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    format_layer(&ids, 1);
    CHECK_EQ(w.report_entries, 2);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_FORMAT);
    task_ends(0);
    CHECK_EQ(w.report_entries, 1);
    report_ok();
    CHECK_EQ(w.code, 0);
}

/* All of a thick volume's bytes are what a job with its size begins behind. */
static void zeroing_behind_a_volume_begins_at_the_size_it_is_told(void)
{
    struct ids ids = new_ids();
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__ZeroJob m = LUNAR__ZERO_JOB__INIT;
    Lunar__Layer layer = LUNAR__LAYER__INIT;
    Lunar__Segment segment = LUNAR__SEGMENT__INIT, *segments = &segment;

    reset();
    segment.start = 1 << 20;
    segment.length = 3 << 20;
    layer.n_segments = 1;
    layer.segments = &segments;
    m.volume_id = uuid_to_pb(&ids.volume);
    m.attachment_id = uuid_to_pb(&ids.attachment);
    m.name = (char *)(uintptr_t) "disk";
    m.from = 2 << 20;
    m.layer = &layer;
    c.op_case = LUNAR__COMMAND__OP_ZERO_JOB;
    c.zero_job = &m;
    command(&c);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_ZERO);
    CHECK(w.task->spec->thick);
    CHECK_EQ(w.task->spec->size, 2 << 20);
    task_ends(0);
    report_ok();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.report_entries, 0);
    attached(&ids);
    ids.attachment = uuid_random();
    m.attachment_id = uuid_to_pb(&ids.attachment);
    command(&c); /* not while it is open here */
    CHECK_EQ(w.code, LUNAR_E_BUSY);
}

static void another_attachment_of_the_volume_is_refused(void)
{
    struct ids ids = new_ids(), other = ids;
    reset();
    attached(&ids);
    other.attachment = uuid_random();
    attach(&other);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
}

static void safety_14_an_older_segment_map_and_a_senseless_one_are_refused(void)
{
    struct ids ids = new_ids();
    reset();
    attach_with_map(&ids, 7, 1 << 20);
    attach_with_map(&ids, 6, 1 << 20);
    CHECK_EQ(w.code, LUNAR_E_STALE);
    ids = new_ids();
    attach_with_map(&ids, 1, 511);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    attach_with_map(&ids, 1, 0);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    CHECK_EQ(w.n_reports, 1);
}

static void a_detach_is_answered_after_the_report_without_it(void)
{
    struct ids ids = new_ids();
    reset();
    attached(&ids);
    w.n_results = 0;
    detach(&ids);
    CHECK_EQ(w.report_state, TABLE_STATE_CLOSING);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_DETACH);
    task_ends(0);
    CHECK_EQ(w.n_results, 0);
    CHECK_EQ(w.report_entries, 0);
    report_ok();
    CHECK_EQ(w.n_results, 1);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.watched, 0);
    detach(&ids);
    CHECK_EQ(w.n_results, 2);
    CHECK_EQ(w.code, 0);
}

static void a_detach_in_use_leaves_it_open_and_a_failed_one_can_only_be_detached(void)
{
    struct ids ids = new_ids();
    reset();
    attached(&ids);
    detach(&ids);
    report_ok();
    task_ends(LUNAR_E_IN_USE);
    report_ok();
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
    attach(&ids);
    CHECK_EQ(w.code, 0);
    detach(&ids);
    report_ok();
    task_ends(-5);
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    attach(&ids);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    detach(&ids);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_DETACH);
    task_ends(0);
    report_ok();
    CHECK_EQ(w.code, 0);
}

static void a_qsd_that_exits_is_started_again_until_it_comes(void)
{
    struct ids ids = new_ids();
    reset();
    attach(&ids);
    report_ok();
    struct node_task *task = w.task;
    task_ends(0);
    report_ok();
    node_qsd_exited(w.node, task->stack);
    CHECK_EQ(w.task->kind, NODE_TASK_RESTART);
    task_ends(-5);
    CHECK_EQ(w.task->kind, NODE_TASK_RESTART);
    task_ends(0);
    CHECK(w.task == NULL);
    CHECK_EQ(w.watched, 1);
}

static void a_leaving_node_opens_nothing_and_does_not_leave_with_something_open(void)
{
    struct ids ids = new_ids();
    struct error err = ERROR_INIT;
    reset();
    attached(&ids);
    CHECK_EQ(node_set_leaving(w.node, &err), LUNAR_E_IN_USE);
    CHECK(strstr(err.text, "disk") != NULL);
    detach(&ids);
    report_ok();
    task_ends(0);
    report_ok();
    CHECK_EQ(node_set_leaving(w.node, &err), 0);
    attach(&ids);
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
}

static Lunar__Envelope *ping_envelope(struct uuid *id)
{
    static Lunar__Envelope e;
    static Lunar__Request r;
    static Lunar__Ping ping;
    lunar__envelope__init(&e);
    lunar__request__init(&r);
    lunar__ping__init(&ping);
    r.id = uuid_to_pb(id);
    r.op_case = LUNAR__REQUEST__OP_PING;
    r.ping = &ping;
    e.body_case = LUNAR__ENVELOPE__BODY_REQUEST;
    e.request = &r;
    return &e;
}

static void answer_ping(struct uuid *id)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    r.id = uuid_to_pb(id);
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = &r;
    node_message(w.node, 5, &e);
}

static void a_request_is_sent_again_to_each_coordinator_until_answered_once(void)
{
    struct uuid id = uuid_random();
    reset();
    w.send_rc = LUNAR_E_NOT_JOINED;
    node_request(w.node, 1, ping_envelope(&id));
    CHECK_EQ(w.n_sent, 0);
    CHECK(w.waiting);
    w.send_rc = 0;
    node_coordinator_changed(w.node);
    node_coordinator_changed(w.node);
    CHECK_EQ(w.n_sent, 2);
    answer_ping(&id);
    answer_ping(&id);
    CHECK_EQ(w.n_responses, 1);
    CHECK(!w.waiting);
    node_coordinator_changed(w.node);
    CHECK_EQ(w.n_sent, 2);
}

static void a_client_that_goes_away_is_forgotten(void)
{
    struct uuid id = uuid_random(), other = uuid_random();
    reset();
    node_request(w.node, 1, ping_envelope(&id));
    node_request(w.node, 2, ping_envelope(&other));
    node_client_gone(w.node, 1);
    CHECK_EQ(node_pending(w.node), 1);
    answer_ping(&id);
    CHECK_EQ(w.n_responses, 0);
    answer_ping(&other);
    CHECK_EQ(w.n_responses, 1);
}

/* --- fenced off --- */

static void a_fenced_node_answers_who_waits_and_acts_on_nothing_any_more(void)
{
    struct ids ids = new_ids(), other = new_ids();
    struct uuid id = uuid_random(), late = uuid_random();
    reset();
    attached(&ids);
    node_request(w.node, 1, ping_envelope(&id));
    w.n_results = w.n_reports = 0;
    node_fence(w.node, "the LUN is gone");
    CHECK_EQ(w.n_responses, 1);
    CHECK_EQ(w.response_code, LUNAR_E_FENCED);
    CHECK(error_retryable(w.response_code));
    CHECK(!w.waiting);
    node_request(w.node, 1, ping_envelope(&late));
    CHECK_EQ(w.n_responses, 2);
    CHECK_EQ(w.response_code, LUNAR_E_FENCED);
    w.n_tasks = 0;
    attach(&other);
    detach(&ids);
    node_tend(w.node, true);
    CHECK_EQ(w.n_results, 0);
    CHECK_EQ(w.n_reports, 0);
    CHECK_EQ(w.n_tasks, 0);
}

static void a_qsd_that_exits_while_its_node_is_fenced_is_not_started_again(void)
{
    struct stack *stack;
    struct ids ids = new_ids();
    reset();
    attach(&ids);
    report_ok();
    struct node_task *task = w.task;
    task_ends(0);
    stack = task->stack;
    report_ok();
    node_fence(w.node, "");
    w.n_tasks = 0;
    node_qsd_exited(w.node, stack);
    CHECK_EQ(w.n_tasks, 0);
}

static void what_is_under_way_when_a_node_is_fenced_ends_without_a_next_step(void)
{
    struct ids opening = new_ids(), closing = new_ids();
    reset();
    attached(&closing);
    detach(&closing);
    report_ok();
    struct node_task *detach_task = w.task;
    attach(&opening);
    report_ok();
    struct node_task *attach_task = w.task;
    node_tend(w.node, true);
    w.n_reports = w.n_results = 0;
    node_fence(w.node, "");
    CHECK_EQ(node_tasks(w.node), 2);
    CHECK_EQ(node_reports(w.node), 1);
    report_ok();
    CHECK_EQ(node_reports(w.node), 0);
    w.task = attach_task;
    task_ends(0); /* it was too late to stop it; its memory is the node's */
    w.task = detach_task;
    task_ends(-5);
    CHECK_EQ(node_tasks(w.node), 0);
    CHECK_EQ(w.n_reports, 0);
    CHECK_EQ(w.n_results, 0);
}

static void a_segment_lies_on_the_lun_that_the_command_names(void)
{
    struct ids ids = new_ids();
    reset();
    segment_pv = named_pv = 3;
    attach(&ids);
    report_ok();
    segment_pv = named_pv = 0;
    CHECK(w.task);
    const struct stack_pv *pv = stack_pv_get(w.task->spec->layers[0].segments[0].pv);
    CHECK(pv);
    CHECK_STR(pv->uuid, "LUNAR1-bbbb-cccc-dddd-eeee-ffff-000009");
}

static void a_segment_on_a_lun_that_is_not_named_is_refused(void)
{
    struct ids ids = new_ids();
    reset();
    segment_pv = 3;
    named_pv = 2;
    attach(&ids);
    segment_pv = named_pv = 0;
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    CHECK(!w.task);
}

TEST_MAIN(TEST(a_segment_lies_on_the_lun_that_the_command_names),
          TEST(a_segment_on_a_lun_that_is_not_named_is_refused),
          TEST(safety_2_nothing_is_mapped_before_opening_is_on_the_lun),
          TEST(a_report_that_cannot_be_written_stops_the_opening),
          TEST(a_refused_task_is_reported_as_gone_before_it_is_answered),
          TEST(a_half_built_stack_is_held_until_a_detach_took_it_down),
          TEST(an_attach_takes_down_what_an_earlier_one_left),
          TEST(a_job_whose_map_stands_is_held_until_an_attempt_succeeds),
          TEST(a_job_whose_map_stands_can_be_detached),
          TEST(a_report_that_failed_is_written_again_without_an_event),
          TEST(a_queued_report_does_not_make_up_for_one_that_failed_before),
          TEST(the_same_attach_again_joins_and_is_answered_when_open),
          TEST(safety_2_nothing_is_opened_that_the_report_has_no_room_for),
          TEST(the_next_layer_of_an_open_volume_is_formatted_and_its_own_are_not),
          TEST(zeroing_behind_a_volume_begins_at_the_size_it_is_told),
          TEST(another_attachment_of_the_volume_is_refused),
          TEST(safety_14_an_older_segment_map_and_a_senseless_one_are_refused),
          TEST(a_detach_is_answered_after_the_report_without_it),
          TEST(a_detach_in_use_leaves_it_open_and_a_failed_one_can_only_be_detached),
          TEST(a_qsd_that_exits_is_started_again_until_it_comes),
          TEST(a_leaving_node_opens_nothing_and_does_not_leave_with_something_open),
          TEST(a_leaving_node_ends_its_merges_and_begins_none),
          TEST(a_node_that_stays_goes_on_merging), TEST(a_merge_tells_how_far_it_is),
          TEST(a_merge_that_was_cancelled_and_stuck_is_begun_again),
          TEST(a_measurement_is_answered_when_its_map_is_gone_from_the_report),
          TEST(a_leaving_node_waits_for_its_measurement),
          TEST(a_request_is_sent_again_to_each_coordinator_until_answered_once),
          TEST(a_client_that_goes_away_is_forgotten),
          TEST(a_fenced_node_answers_who_waits_and_acts_on_nothing_any_more),
          TEST(a_qsd_that_exits_while_its_node_is_fenced_is_not_started_again),
          TEST(what_is_under_way_when_a_node_is_fenced_ends_without_a_next_step))
