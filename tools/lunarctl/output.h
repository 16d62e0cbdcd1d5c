/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results: each command makes one JSON document; `-o json` prints it, text is printed from it. So
 * the two say the same, and what text leaves out is still in the JSON. Sizes are bytes in JSON and
 * have units in text.
 */
#ifndef LUNARCTL_OUTPUT_H
#define LUNARCTL_OUTPUT_H

#include <stdint.h>

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "base/uuid.h"
#include "cli.h"

/* Prints `doc` as JSON or by `text`, and releases it. Returns CLI_OK, or CLI_REFUSED if standard
 * output is broken. */
int output_emit(const struct cli *cli, json_t *doc, void (*text)(const json_t *doc));

/* The same for commands that go on: JSON is one document per line, and comes out at once. */
int output_line(const struct cli *cli, json_t *doc, void (*text)(const json_t *doc));

/* Values. Text from a disk or a peer: control characters and broken UTF-8 become '?', so that it
 * cannot play with the terminal. Numbers beyond JSON's 63 bits become decimal strings. */
json_t *js_text(const char *text);
json_t *js_u64(uint64_t n);
json_t *js_uuid(const struct uuid *id);
/* Any protobuf message, field by field under its .proto name; 16-byte fields are UUIDs, a oneof
 * shows its set field. */
json_t *js_proto(const ProtobufCMessage *message);
/* Sets a key; takes the value over. Aborts without memory. */
void js_set(json_t *object, const char *key, json_t *value);
void js_append(json_t *array, json_t *value);

/* Getters that never fail: "" and 0 for what is missing. */
const char *js_get_text(const json_t *object, const char *key);
uint64_t js_get_u64(const json_t *object, const char *key);
bool js_get_bool(const json_t *object, const char *key);

/* A table of aligned columns. A header that starts with '>' is right-aligned (and shown without
 * it). */
#define TABLE_COLUMNS_MAX 12
struct text_table;
struct text_table *text_table_new(const char *const *headers, unsigned n_columns);
/* Cells are copied; "" is shown as "-". */
void text_table_row(struct text_table *table, const char *const *cells);
/* Prints, with `indent` blanks in front of each line, and frees. */
void text_table_print(struct text_table *table, unsigned indent);

/* "3.2 s", "5 min", "2 d": ages for people. Returns `buffer`. */
char *text_age(uint64_t ms, char buffer[32]);
/* "870 us", "1.25 ms", "3.2 s". Returns `buffer`. */
char *text_us(uint64_t us, char buffer[32]);
/* A time of day, microseconds since 1970: "14:03:07.004211" on this node's clock, and for JSON
 * "2026-11-22T14:03:07.004211Z". Return `buffer`. */
char *text_clock(uint64_t wall_us, char buffer[40]);
char *text_timestamp(uint64_t wall_us, char buffer[40]);
/* Of this moment. */
uint64_t wall_clock_us(void);

#endif
