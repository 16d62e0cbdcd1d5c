/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator's side: one endpoint per node that was ever seen, one scan that reads everybody's
 * up page.
 *
 * Happy path: every HUB_SCAN_MS the up pages are read in large chunks, one at a time; a page of a
 * node not met before gives it an endpoint; each page is fed to its endpoint, which does the rest
 * and polls for itself while hot. Every second one of our own down pages is read back, of the next
 * node in turn. In a crowd, when many nodes are hot at once, none polls for itself: the scan
 * follows closely upon the scan and reads for all. Failure modes: a chunk that cannot be read is
 * read page by page, so that one bad block makes nobody else silent; an unreadable page of an
 * unknown node is ignored until it is readable; a page of a higher term, ours read back or a node's
 * that has met it, means that we are deposed, which is told once.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/io.h"
#include "base/le.h"
#include "base/log.h"
#include "diskrpc/endpoint.h"
#include "diskrpc/mailbox.h"

#define HUB_MAGIC 0x4c485542u
/* One read of 1 MiB takes 0.6 ms (FACTS); more at once would hold up the hot nodes' reads behind
 * it. */
#define SCAN_CHUNK_PAGES 256u

/*
 * A crowd: an eighth of all nodes is hot (and no less than CROWD_MIN), until half of them are not
 * any more. Page by page, 2000 hot nodes cost 40,000 reads a second even when nothing happens
 * (CHANNEL_POLL_WAITING_MAX_US); table by table, 80 (CROWD_GAP_MAX_MS) of 1 MiB each. A scan that
 * brings messages is followed by the next one after as long as it took itself, so that it uses the
 * LUN for half of the time at most; each that brings few doubles the gap.
 */
#define CROWD_MIN        64u
#define CROWD_PART       8u
#define CROWD_GAP_MIN_MS 2u
#define CROWD_GAP_MAX_MS 100u
#define CROWD_NEWS       16u /* messages of one scan that make the next one urgent */

struct node {
    struct endpoint endpoint;
    struct hub *hub;
    uint32_t host_id;
    bool leaving; /* as last told */
};

struct hub {
    uint32_t magic;
    struct hub_config config;
    struct layout layout;
    struct alarms *alarms; /* of all endpoints */
    struct node **nodes;   /* [host_id], NULL: never seen */
    uint64_t *dead;        /* [host_id], generations up to this one are proved over */
    uint32_t n_nodes;
    uv_timer_t timer;
    uint8_t *scan_buffer;
    struct disk_op scan_op;
    uint32_t scan_first;  /* host id of the chunk's first page */
    uint32_t scan_single; /* below this host id pages are read one by one: the chunk failed */
    bool scan_failed;     /* a read of this scan did */
    bool scan_bad;        /* as last logged */
    uint64_t scan_started_ms;
    bool crowd; /* the endpoints are held: the scan reads for them */
    uint64_t crowd_gap_ms;
    uint32_t scan_messages; /* that came in since the scan began */
    uint8_t *check_buffer;
    struct disk_op check_op;
    bool checking;       /* check_op is out */
    uint64_t checked_ms; /* when it was last begun */
    uint32_t check_host; /* whose down page was read back last */
    bool deposed_told;
    bool closing;
    uint32_t open_things; /* endpoints, operations and the timer: `closed` waits for all */
    void (*closed)(void *data);
    void *closed_data;
};

static void scan_chunk(struct hub *hub);

static void on_alarms_closed(void *hub_data)
{
    struct hub *hub = hub_data;
    void (*closed)(void *data) = hub->closed;
    void *data = hub->closed_data;
    free(hub->nodes);
    free(hub->dead);
    free(hub->scan_buffer);
    free(hub->check_buffer);
    hub->magic = 0;
    free(hub);
    if (closed)
        closed(data);
}

static void let_go(struct hub *hub)
{
    assert(hub->open_things > 0);
    if (--hub->open_things == 0 && hub->closing)
        alarms_close(hub->alarms, on_alarms_closed, hub);
}

static void note_term(struct hub *hub, uint64_t term)
{
    if (term <= hub->config.self.run_or_term || hub->deposed_told || hub->closing)
        return;
    hub->deposed_told = true;
    hub->config.callbacks.deposed(hub->config.data, term);
}

/* --- one node's endpoint --- */

static void on_message(struct endpoint *ep, const uint8_t *bytes, uint32_t len)
{
    struct node *node = ep->data;
    node->hub->scan_messages++;
    node->hub->config.callbacks.message(node->hub->config.data, node->host_id, bytes, len);
}

static void on_stepped(struct endpoint *ep, const struct channel_update *update)
{
    struct node *node = ep->data;
    struct hub *hub = node->hub;
    const struct channel_stats *stats = channel_stats(ep->channel);
    bool leaving = (stats->peer_flags & PAGE_FLAG_LEAVING) != 0;
    bool changed = update->peer_changed || leaving != node->leaving;

    node->leaving = leaving;
    if (changed)
        hub->config.callbacks.node_changed(hub->config.data, node->host_id, stats);
    note_term(hub, stats->term);
}

static void on_wrote(struct endpoint *ep)
{
    struct node *node = ep->data;
    struct hub *hub = node->hub;

    if (hub->config.callbacks.wrote)
        hub->config.callbacks.wrote(hub->config.data, node->host_id);
}

static void on_endpoint_closed(struct endpoint *ep)
{
    struct node *node = ep->data;
    struct hub *hub = node->hub;

    hub->nodes[node->host_id] = NULL;
    free(node);
    let_go(hub);
}

static struct node *node_add(struct hub *hub, uint32_t host_id)
{
    static const struct endpoint_callbacks callbacks = {on_message, on_stepped, on_wrote,
                                                        on_endpoint_closed};
    const struct channel_config channel = {
        .kind = PAGE_DOWN,
        .slot = host_id,
        .pool_id = hub->config.pool_id,
        .self = hub->config.self,
        .trace = hub->config.trace,
        .external_poll = true,
        .hint = hub->config.hint,
    };
    const struct endpoint_places places = {
        .own_page = layout_down_page(&hub->layout, host_id),
        .own_spill = layout_down_spill(&hub->layout, host_id),
        .peer_page = layout_up_page(&hub->layout, host_id),
        .peer_spill = layout_up_spill(&hub->layout, host_id),
    };
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        abort();
    node->hub = hub;
    node->host_id = host_id;
    hub->nodes[host_id] = node;
    hub->n_nodes++;
    hub->open_things++;
    endpoint_open(&node->endpoint, hub->alarms, hub->config.disk, &channel, &places, &callbacks,
                  node);
    channel_set_dead(node->endpoint.channel, hub->dead[host_id]);
    endpoint_hold(&node->endpoint, hub->crowd);
    return node;
}

/* --- the scan --- */

/* Only a valid page of the slot's own host makes a node known: an endpoint writes to the LUN. */
static bool introduces(const struct hub *hub, const uint8_t *page, uint32_t host_id)
{
    struct page decoded;

    return le64_get(page) != 0 &&
           page_in(page, PAGE_UP, host_id, &hub->config.pool_id, &decoded, NULL) == 0 &&
           decoded.writer.host_id == host_id;
}

static void scan_page(struct hub *hub, const uint8_t *page, uint32_t host_id)
{
    struct node *node = hub->nodes[host_id];

    if (!node && introduces(hub, page, host_id))
        node = node_add(hub, host_id);
    if (node)
        endpoint_feed_page(&node->endpoint, page);
}

static void on_scan_timer(uv_timer_t *timer)
{
    struct hub *hub = timer->data;

    hub->scan_first = 1;
    hub->scan_single = 0;
    hub->scan_failed = false;
    hub->scan_started_ms = uv_now(hub->config.loop);
    hub->scan_messages = 0;
    scan_chunk(hub);
}

/* The next seen node behind the last checked one, 0 if none was ever seen. */
static uint32_t next_to_check(const struct hub *hub)
{
    uint32_t max = hub->layout.max_nodes;

    for (uint32_t i = 0; i < max; i++) {
        uint32_t host_id = (hub->check_host + i) % max + 1;
        if (hub->nodes[host_id])
            return host_id;
    }
    return 0;
}

static void on_checked(struct disk_op *op, int status)
{
    struct hub *hub = op->data;
    struct page page;

    hub->checking = false;
    if (!hub->closing && status == 0 &&
        page_in(hub->check_buffer, PAGE_DOWN, hub->check_host, &hub->config.pool_id, &page, NULL) ==
            0)
        note_term(hub, page.writer.run_or_term);
    let_go(hub);
}

static void check_own_page(struct hub *hub)
{
    uint64_t now_ms = uv_now(hub->config.loop);
    uint32_t host_id = next_to_check(hub);

    if (host_id == 0 || hub->checking || now_ms - hub->checked_ms < HUB_SCAN_MS)
        return;
    hub->checked_ms = now_ms;
    hub->check_host = host_id;
    hub->checking = true;
    hub->check_op.offset = layout_down_page(&hub->layout, host_id);
    hub->open_things++;
    disk_submit(hub->config.disk, &hub->check_op);
}

static void look_for_crowd(struct hub *hub)
{
    uint32_t many = hub->layout.max_nodes / CROWD_PART, hot = 0;
    uint64_t now_us = alarms_now_us(hub->alarms);

    if (many < CROWD_MIN)
        many = CROWD_MIN;
    for (uint32_t h = 1; h <= hub->layout.max_nodes; h++)
        hot += hub->nodes[h] && channel_hot(hub->nodes[h]->endpoint.channel, now_us);
    bool crowd = hot >= (hub->crowd ? many / 2 : many);
    if (crowd == hub->crowd)
        return;
    hub->crowd = crowd;
    hub->crowd_gap_ms = CROWD_GAP_MIN_MS;
    for (uint32_t h = 1; h <= hub->layout.max_nodes; h++)
        if (hub->nodes[h])
            endpoint_hold(&hub->nodes[h]->endpoint, crowd);
}

static uint64_t next_scan_ms(struct hub *hub, uint64_t spent_ms)
{
    if (!hub->crowd)
        return spent_ms < HUB_SCAN_MS ? HUB_SCAN_MS - spent_ms : 0;
    if (hub->scan_messages >= CROWD_NEWS)
        hub->crowd_gap_ms = CROWD_GAP_MIN_MS;
    else if (hub->crowd_gap_ms < CROWD_GAP_MAX_MS)
        hub->crowd_gap_ms *= 2;
    return spent_ms > hub->crowd_gap_ms ? spent_ms : hub->crowd_gap_ms;
}

static void scan_done(struct hub *hub)
{
    uint64_t spent_ms = uv_now(hub->config.loop) - hub->scan_started_ms;

    if (hub->scan_bad && !hub->scan_failed)
        log_info("scan_recovered term=%llu", (unsigned long long)hub->config.self.run_or_term);
    hub->scan_bad = hub->scan_failed;
    check_own_page(hub);
    look_for_crowd(hub);
    uv_timer_start(&hub->timer, on_scan_timer, next_scan_ms(hub, spent_ms), 0);
}

static uint32_t chunk_pages(const struct hub *hub)
{
    uint32_t left = hub->layout.max_nodes - hub->scan_first + 1;

    if (hub->scan_first < hub->scan_single)
        return 1;
    return left < SCAN_CHUNK_PAGES ? left : SCAN_CHUNK_PAGES;
}

/*
 * Fed nothing, all nodes of the chunk would count as silent after 5 s and get no reads of their own
 * either; in a crowd they have none at all. One more read per page and scan, one at a time, for
 * nodes not met yet, too: after a takeover that is everybody.
 */
static void chunk_failed(struct hub *hub, uint32_t n, int status)
{
    if (!hub->scan_bad && !hub->scan_failed)
        log_error("scan_failed first=%u n=%u code=%s", hub->scan_first, n, error_name(status));
    hub->scan_failed = true;
    if (n > 1)
        hub->scan_single = hub->scan_first + n;
}

static void on_chunk(struct disk_op *op, int status)
{
    struct hub *hub = op->data;
    uint32_t n = chunk_pages(hub);

    if (status != 0)
        chunk_failed(hub, n, status);
    for (uint32_t i = 0; status == 0 && i < n && !hub->closing; i++)
        scan_page(hub, hub->scan_buffer + i * LAYOUT_PAGE_SIZE, hub->scan_first + i);
    if (status == 0 || n == 1) /* else the same once more, page by page */
        hub->scan_first += n;
    if (!hub->closing && hub->scan_first <= hub->layout.max_nodes)
        scan_chunk(hub);
    else if (!hub->closing)
        scan_done(hub);
    let_go(hub);
}

static void scan_chunk(struct hub *hub)
{
    hub->scan_op.len = chunk_pages(hub) * LAYOUT_PAGE_SIZE;
    hub->scan_op.offset = layout_up_page(&hub->layout, hub->scan_first);
    hub->open_things++;
    disk_submit(hub->config.disk, &hub->scan_op);
}

/* --- the public face --- */

struct hub *hub_open(const struct hub_config *config)
{
    const struct hub_callbacks *callbacks = &config->callbacks;
    struct hub *hub = calloc(1, sizeof *hub);

    if (!hub)
        abort();
    assert(callbacks->message && callbacks->node_changed && callbacks->deposed);
    hub->magic = HUB_MAGIC;
    hub->config = *config;
    hub->layout = *config->layout;
    hub->config.layout = &hub->layout;
    hub->nodes = calloc(hub->layout.max_nodes + 1, sizeof *hub->nodes);
    hub->dead = calloc(hub->layout.max_nodes + 1, sizeof *hub->dead);
    if (!hub->nodes || !hub->dead)
        abort();
    hub->scan_buffer = io_alloc(SCAN_CHUNK_PAGES * LAYOUT_PAGE_SIZE);
    hub->scan_op = (struct disk_op){.buffer = hub->scan_buffer, .done = on_chunk, .data = hub};
    hub->check_buffer = io_alloc(LAYOUT_PAGE_SIZE);
    hub->check_op = (struct disk_op){
        .buffer = hub->check_buffer, .len = LAYOUT_PAGE_SIZE, .done = on_checked, .data = hub};
    hub->alarms = alarms_open(config->loop);
    uv_timer_init(config->loop, &hub->timer);
    hub->timer.data = hub;
    hub->open_things = 1; /* the timer */
    on_scan_timer(&hub->timer);
    return hub;
}

static struct node *node_find(const struct hub *hub, uint32_t host_id)
{
    assert(hub->magic == HUB_MAGIC);
    return host_id >= 1 && host_id <= hub->layout.max_nodes ? hub->nodes[host_id] : NULL;
}

int hub_send(struct hub *hub, uint32_t host_id, const uint8_t *bytes, uint32_t len)
{
    struct node *node = node_find(hub, host_id);
    return node ? endpoint_send(&node->endpoint, bytes, len) : LUNAR_E_NOT_JOINED;
}

void hub_set_dead(struct hub *hub, uint32_t host_id, uint64_t generation)
{
    struct node *node = node_find(hub, host_id);

    assert(host_id >= 1 && host_id <= hub->layout.max_nodes);
    if (generation <= hub->dead[host_id])
        return;
    hub->dead[host_id] = generation;
    if (!node)
        return; /* no page of it was seen in this term: its endpoint's first page will say so */
    channel_set_dead(node->endpoint.channel, generation);
    endpoint_kick(&node->endpoint);
}

void hub_set_waiting(struct hub *hub, uint32_t host_id, bool waiting)
{
    struct node *node = node_find(hub, host_id);

    if (!node)
        return;
    channel_set_waiting(node->endpoint.channel, waiting);
    endpoint_kick(&node->endpoint);
}

void hub_hint(struct hub *hub, uint32_t host_id)
{
    struct node *node = node_find(hub, host_id);

    if (node)
        endpoint_hint(&node->endpoint);
}

const struct channel_stats *hub_stats(const struct hub *hub, uint32_t host_id)
{
    const struct node *node = node_find(hub, host_id);
    return node ? channel_stats(node->endpoint.channel) : NULL;
}

static void on_timer_closed(uv_handle_t *handle)
{
    let_go(handle->data);
}

void hub_close(struct hub *hub, void (*closed)(void *data), void *data)
{
    assert(hub->magic == HUB_MAGIC && !hub->closing);
    hub->closing = true;
    hub->closed = closed;
    hub->closed_data = data;
    for (uint32_t host_id = 1; host_id <= hub->layout.max_nodes; host_id++)
        if (hub->nodes[host_id])
            endpoint_close(&hub->nodes[host_id]->endpoint);
    uv_close((uv_handle_t *)&hub->timer, on_timer_closed);
}
