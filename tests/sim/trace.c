/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trace: every line goes into a running hash (two runs of a seed must give one hash), the last
 * ones into a ring that a failure prints, all of them to standard output if asked for.
 *
 * Lines of numbers are kept as numbers and made text only when somebody looks: they are most of the
 * lines, and formatting them would be most of a run.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/internal.h"

#define RING      256u
#define LINE_SIZE 400u

struct line {
    uint64_t at_us;
    const struct process *process; /* or NULL */
    const char *what;              /* NULL: text */
    uint64_t numbers[3];
    char text[LINE_SIZE];
};

static struct line ring[RING];
static uint64_t lines, kept, hash;

static void mix(uint64_t v)
{
    hash = (hash ^ v) * 0x100000001b3ull;
    hash ^= hash >> 29;
}

static void mix_text(const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3ull;
}

static void print_line(FILE *to, const struct line *l)
{
    fprintf(to, "%" PRIu64 ".%06" PRIu64 " %-14s ", l->at_us / SIM_S, l->at_us % SIM_S,
            l->process ? l->process->name : "-");
    if (l->what)
        fprintf(to, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", l->what, l->numbers[0],
                l->numbers[1], l->numbers[2]);
    else
        fprintf(to, "%s\n", l->text);
}

static struct line *begin_line(void)
{
    struct line *l = &ring[kept % RING];
    l->at_us = sim_now_us();
    l->process = process_current();
    lines++;
    mix(l->at_us);
    mix(l->process ? l->process->number : 0);
    return l;
}

static void end_line(const struct line *l, bool keep)
{
    if (sim_options()->trace)
        print_line(stdout, l);
    kept += keep;
}

void sim_trace(const char *format, ...)
{
    struct line *l = begin_line();
    va_list args;
    va_start(args, format);
    vsnprintf(l->text, sizeof l->text, format, args);
    va_end(args);
    l->what = NULL;
    mix_text(l->text);
    end_line(l, true);
}

void trace_numbers(bool keep, const char *what, uint64_t a, uint64_t b, uint64_t c)
{
    struct line *l = begin_line();
    l->what = what;
    l->numbers[0] = a;
    l->numbers[1] = b;
    l->numbers[2] = c;
    mix((uint8_t)what[0]);
    for (int i = 0; i < 3; i++)
        mix(l->numbers[i]);
    end_line(l, keep);
}

uint64_t sim_trace_hash(void)
{
    return hash;
}

uint64_t sim_trace_lines(void)
{
    return lines;
}

static void print_last(FILE *to)
{
    uint64_t n = kept < RING - 1 ? kept : RING - 1;
    for (uint64_t i = kept - n; i < kept; i++)
        print_line(to, &ring[i % RING]);
}

/* The options that replay the run: as the seed filled them in, so that they say what was run. */
static void print_options(FILE *to)
{
    const struct sim_options *o = sim_options();
    fprintf(to,
            "--seed %" PRIu64 " --nodes %u --requests %u --chaos-ms %" PRIu64 " --mask 0x%" PRIx64,
            o->seed, o->nodes, o->requests, o->chaos_us / SIM_MS, o->fault_mask);
}

_Noreturn void sim_violation(const char *invariant, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    if (!sim_options()->trace)
        print_last(stdout);
    printf("VIOLATION %s: %s\n", invariant, text);
    printf("at %" PRIu64 " us in %s; replay: tools/sim ", sim_now_us(),
           process_current() ? process_current()->name : "the world");
    print_options(stdout);
    printf(" --trace\n");
    fflush(stdout);
    _exit(1);
}

void trace_reset(void)
{
    lines = kept = 0;
    hash = 0xcbf29ce484222325ull;
    memset(ring, 0, sizeof ring);
}
