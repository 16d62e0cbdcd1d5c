/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON values, protobuf to JSON by protobuf-c's own descriptors (a field added to the .proto shows
 * up here without a line of code), and aligned tables. Failure modes: no memory aborts; a broken
 * standard output is exit code 1, so that a script never takes half a document for a whole one.
 */
#include "output.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/size.h"

#define BYTES_SHOWN_MAX 64u /* longer byte fields (a ping's payload) are shown by their length */

static json_t *must(json_t *value)
{
    if (!value)
        abort();
    return value;
}

static int emit(const struct cli *cli, json_t *doc, void (*text)(const json_t *doc), size_t flags)
{
    if (cli_json(cli)) {
        json_dumpf(doc, stdout, flags);
        printf("\n");
    } else {
        text(doc);
    }
    json_decref(doc);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "lunarctl: cannot write the result to standard output\n");
        return CLI_REFUSED;
    }
    return CLI_OK;
}

int output_emit(const struct cli *cli, json_t *doc, void (*text)(const json_t *doc))
{
    return emit(cli, doc, text, JSON_INDENT(2));
}

int output_line(const struct cli *cli, json_t *doc, void (*text)(const json_t *doc))
{
    return emit(cli, doc, text, JSON_COMPACT);
}

json_t *js_text(const char *text)
{
    size_t n = strlen(text);
    char *clean = malloc(n + 1);
    if (!clean)
        abort();
    for (size_t i = 0; i <= n; i++) {
        unsigned char c = (unsigned char)text[i], next = i < n ? (unsigned char)text[i + 1] : 0;
        bool c1 = c == 0xc2 && next >= 0x80 && next < 0xa0; /* U+0080..U+009F in UTF-8 */
        clean[i] = i < n && (c < ' ' || c == 0x7f || c1) ? '?' : text[i];
    }
    json_t *value = json_string(clean);
    for (size_t i = 0; !value && i < n; i++)
        if ((unsigned char)clean[i] >= 0x7f)
            clean[i] = '?';
    if (!value)
        value = json_string(clean);
    free(clean);
    return must(value);
}

json_t *js_u64(uint64_t n)
{
    char text[24];
    if (n <= INT64_MAX)
        return must(json_integer((json_int_t)n));
    snprintf(text, sizeof text, "%" PRIu64, n);
    return must(json_string(text));
}

json_t *js_uuid(const struct uuid *id)
{
    char text[UUID_TEXT_SIZE];
    return must(json_string(uuid_format(id, text)));
}

void js_set(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, must(value)) < 0)
        abort();
}

void js_append(json_t *array, json_t *value)
{
    if (json_array_append_new(array, must(value)) < 0)
        abort();
}

static json_t *bytes_value(const ProtobufCBinaryData *data)
{
    char text[2 * BYTES_SHOWN_MAX + 1] = "";
    struct uuid id;
    if (data->len == sizeof id.b) {
        memcpy(id.b, data->data, sizeof id.b);
        return js_uuid(&id);
    }
    if (data->len > BYTES_SHOWN_MAX) {
        snprintf(text, sizeof text, "%zu bytes", data->len);
        return js_text(text);
    }
    for (size_t i = 0; i < data->len; i++)
        snprintf(text + 2 * i, 3, "%02x", data->data[i]);
    return js_text(text);
}

/* One value of a field's type at `member`; NULL: an unset message. */
static json_t *field_value(const ProtobufCFieldDescriptor *field, const void *member)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_UINT32:
        return js_u64(*(const uint32_t *)member);
    case PROTOBUF_C_TYPE_SINT32:
        return must(json_integer(*(const int32_t *)member));
    case PROTOBUF_C_TYPE_UINT64:
        return js_u64(*(const uint64_t *)member);
    case PROTOBUF_C_TYPE_BOOL:
        return must(json_boolean(*(const protobuf_c_boolean *)member));
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(const char *const *)member;
        return js_text(text ? text : "");
    }
    case PROTOBUF_C_TYPE_BYTES:
        return bytes_value(member);
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *sub = *(const ProtobufCMessage *const *)member;
        return sub ? js_proto(sub) : NULL;
    }
    default:
        return js_text("(a type that lunarctl does not show)");
    }
}

static json_t *list_value(const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    const char *base = (const char *)message;
    json_t *array = must(json_array());
    size_t n;
    ProtobufCMessage **subs;

    memcpy(&n, base + field->quantifier_offset, sizeof n);
    memcpy(&subs, base + field->offset, sizeof subs);
    for (size_t i = 0; field->type == PROTOBUF_C_TYPE_MESSAGE && i < n; i++)
        js_append(array, js_proto(subs[i]));
    return array;
}

json_t *js_proto(const ProtobufCMessage *message)
{
    json_t *object = must(json_object());
    const char *base = (const char *)message;

    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            js_set(object, field->name, list_value(field, message));
            continue;
        }
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            uint32_t which;
            memcpy(&which, base + field->quantifier_offset, sizeof which);
            if (which != field->id)
                continue;
        }
        json_t *value = field_value(field, base + field->offset);
        if (value)
            js_set(object, field->name, value);
    }
    return object;
}

const char *js_get_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

uint64_t js_get_u64(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_string(value))
        return strtoull(json_string_value(value), NULL, 10);
    return (uint64_t)json_integer_value(value);
}

bool js_get_bool(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

struct text_table {
    unsigned n_columns, n_rows;
    bool right[TABLE_COLUMNS_MAX];
    size_t width[TABLE_COLUMNS_MAX];
    char ***rows; /* the header first */
};

/* Columns on the screen: UTF-8 continuation bytes take none (wide characters are not accounted
 * for). */
static size_t shown_width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

struct text_table *text_table_new(const char *const *headers, unsigned n_columns)
{
    struct text_table *t = calloc(1, sizeof *t);
    const char *cells[TABLE_COLUMNS_MAX] = {0};
    if (!t || n_columns > TABLE_COLUMNS_MAX)
        abort();
    t->n_columns = n_columns;
    for (unsigned i = 0; i < n_columns; i++) {
        t->right[i] = headers[i][0] == '>';
        cells[i] = headers[i] + t->right[i];
    }
    text_table_row(t, cells);
    return t;
}

void text_table_row(struct text_table *table, const char *const *cells)
{
    char **row = calloc(table->n_columns, sizeof *row);
    table->rows = reallocarray(table->rows, table->n_rows + 1, sizeof *table->rows);
    if (!row || !table->rows)
        abort();
    for (unsigned i = 0; i < table->n_columns; i++) {
        row[i] = strdup(*cells[i] ? cells[i] : "-");
        if (!row[i])
            abort();
        if (shown_width(row[i]) > table->width[i])
            table->width[i] = shown_width(row[i]);
    }
    table->rows[table->n_rows++] = row;
}

static void print_row(const struct text_table *t, char **row, unsigned indent)
{
    printf("%*s", (int)indent, "");
    for (unsigned i = 0; i < t->n_columns; i++) {
        bool last = i + 1 == t->n_columns;
        int pad = (int)(t->width[i] - shown_width(row[i]));
        if (t->right[i])
            printf("%*s%s", pad, "", row[i]);
        else
            printf("%s%*s", row[i], last ? 0 : pad, "");
        printf("%s", last ? "\n" : "  ");
    }
}

void text_table_print(struct text_table *table, unsigned indent)
{
    for (unsigned r = 0; r < table->n_rows; r++) {
        print_row(table, table->rows[r], indent);
        for (unsigned i = 0; i < table->n_columns; i++)
            free(table->rows[r][i]);
        free(table->rows[r]);
    }
    free(table->rows);
    free(table);
}

char *text_age(uint64_t ms, char buffer[32])
{
    if (ms < 60000)
        snprintf(buffer, 32, "%" PRIu64 ".%" PRIu64 " s", ms / 1000, ms % 1000 / 100);
    else if (ms < 7200000)
        snprintf(buffer, 32, "%" PRIu64 " min", ms / 60000);
    else if (ms < 48ull * 3600000)
        snprintf(buffer, 32, "%" PRIu64 " h", ms / 3600000);
    else
        snprintf(buffer, 32, "%" PRIu64 " d", ms / 86400000);
    return buffer;
}

char *text_us(uint64_t us, char buffer[32])
{
    if (us < 1000)
        snprintf(buffer, 32, "%" PRIu64 " us", us);
    else if (us < 1000000)
        snprintf(buffer, 32, "%" PRIu64 ".%02" PRIu64 " ms", us / 1000, us % 1000 / 10);
    else
        text_age(us / 1000, buffer);
    return buffer;
}

char *text_clock(uint64_t wall_us, char buffer[40])
{
    time_t s = (time_t)(wall_us / 1000000);
    struct tm tm = {0};

    localtime_r(&s, &tm);
    snprintf(buffer, 40, "%02d:%02d:%02d.%06u", tm.tm_hour, tm.tm_min, tm.tm_sec,
             (unsigned)(wall_us % 1000000));
    return buffer;
}

char *text_timestamp(uint64_t wall_us, char buffer[40])
{
    time_t s = (time_t)(wall_us / 1000000);
    struct tm tm = {0};
    char date[24];

    gmtime_r(&s, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buffer, 40, "%s.%06uZ", date, (unsigned)(wall_us % 1000000));
    return buffer;
}

uint64_t wall_clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}
