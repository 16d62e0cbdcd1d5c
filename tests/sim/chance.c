/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Randomness, the weights of the faults, and the options that the seed fills in.
 *
 * Each stream and each kind of fault has a generator of its own (xoshiro256**, seeded by splitmix64
 * from the seed and the name), so a draw more or less in one changes nothing in the others: this is
 * what lets a failing run be shrunk by leaving faults out. In each seed a third of the kinds do not
 * occur at all and the others have weights of their own ("swarm"): a mixture of everything all the
 * time would hide what only shows when one fault is frequent and the rest is quiet.
 */
#include <assert.h>
#include <string.h>

#include "sim/internal.h"

#define PPM 1000000u

struct generator {
    uint64_t s[4];
};

static const char *const stream_names[SIM_STREAMS] = {
    "config", "lun", "schedule", "clients", "uuid", "world", "hints", "data", "reservations"};
static const char *const fault_names[SIM_FAULT_KINDS] = {
#define X(name, text) #name,
    SIM_FAULTS(X)
#undef X
};

static struct sim_options options;
static struct generator streams[SIM_STREAMS], faults[SIM_FAULT_KINDS];
static uint32_t weights[SIM_FAULT_KINDS]; /* millionths */
static uint64_t counts[SIM_FAULT_KINDS];
static bool ended;

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static void seed_generator(struct generator *g, uint64_t seed, const char *name)
{
    uint64_t state = splitmix(&seed);
    for (; *name; name++) {
        state ^= (uint8_t)*name;
        state = splitmix(&state);
    }
    for (int i = 0; i < 4; i++)
        g->s[i] = splitmix(&state);
}

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static uint64_t draw(struct generator *g)
{
    uint64_t *s = g->s, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

/* The high half of a product: its bias, below / 2^64, is nothing that a test could see. */
static uint64_t draw_below(struct generator *g, uint64_t below)
{
    assert(below > 0);
    return (uint64_t)((unsigned __int128)draw(g) * below >> 64);
}

uint64_t sim_random(enum sim_stream stream, uint64_t below)
{
    return draw_below(&streams[stream], below);
}

uint64_t sim_fault_random(enum sim_fault kind, uint64_t below)
{
    return draw_below(&faults[kind], below);
}

bool sim_fault(enum sim_fault kind, uint32_t per_mille_at_full_weight)
{
    if (ended || weights[kind] == 0)
        return false;
    uint64_t threshold = (uint64_t)weights[kind] * per_mille_at_full_weight; /* of PPM * 1000 */
    if (draw_below(&faults[kind], (uint64_t)PPM * 1000) >= threshold)
        return false;
    counts[kind]++;
    return true;
}

double sim_weight(enum sim_fault kind)
{
    return ended ? 0 : (double)weights[kind] / PPM;
}

void sim_count_fault(enum sim_fault kind)
{
    counts[kind]++;
}

uint64_t sim_fault_count(enum sim_fault kind)
{
    return counts[kind];
}

bool sim_faults_ended(void)
{
    return ended;
}

void sim_end_faults(void)
{
    if (ended)
        return;
    ended = true;
    sim_trace("faults end");
    process_end_faults();
}

const struct sim_options *sim_options(void)
{
    return &options;
}

static void draw_weight(enum sim_fault kind)
{
    struct generator g;
    char name[64] = "weight:";
    strncat(name, fault_names[kind], sizeof name - strlen(name) - 1);
    seed_generator(&g, options.seed, name);
    bool off = draw_below(&g, 3) == 0;
    uint32_t weight = (uint32_t)draw_below(&g, PPM) + 1;
    weights[kind] = off || !(options.fault_mask >> kind & 1) ? 0 : weight;
}

/* All are drawn always, so that giving one leaves the others as they are. */
static void fill_in(void)
{
    uint64_t chaos_us = (30000 + sim_random(STREAM_CONFIG, 60000)) * SIM_MS;
    uint32_t nodes = 2 + (uint32_t)sim_random(STREAM_CONFIG, 4);
    uint32_t requests = 40 + (uint32_t)sim_random(STREAM_CONFIG, 260);
    uint32_t reservations = sim_random(STREAM_RESERVATIONS, 3) == 0 ? 1 : 2;
    if (options.reservations == 0)
        options.reservations = reservations;
    if (options.chaos_us == 0)
        options.chaos_us = chaos_us;
    if (options.nodes == 0)
        options.nodes = nodes;
    if (options.requests == 0)
        options.requests = requests;
}

void chance_reset(const struct sim_options *given)
{
    options = *given;
    ended = false;
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < SIM_STREAMS; i++)
        seed_generator(&streams[i], options.seed, stream_names[i]);
    for (int i = 0; i < SIM_FAULT_KINDS; i++) {
        seed_generator(&faults[i], options.seed, fault_names[i]);
        draw_weight((enum sim_fault)i);
    }
    fill_in();
}
