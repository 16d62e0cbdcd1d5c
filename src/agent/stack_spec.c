/* SPDX-License-Identifier: Apache-2.0 */
/* Specs: copies, and the check that what the coordinator sent can be mapped at all. A bad spec is
 * LUNAR_E_INVALID with a sentence, never an assert: it comes from a peer. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/stack_internal.h"

void stack_spec_free(struct stack_spec *spec)
{
    for (uint32_t i = 0; i < spec->n_layers; i++)
        free(spec->layers[i].segments);
    free(spec->layers);
    spec->layers = NULL;
    spec->n_layers = 0;
}

bool stack_layer_same(const struct stack_layer *a, const struct stack_layer *b)
{
    return a->volume_short == b->volume_short && a->index == b->index;
}

void stack_layer_copy(struct stack_layer *to, const struct stack_layer *from)
{
    *to = *from;
    to->segments = calloc(from->n_segments ? from->n_segments : 1, sizeof *to->segments);
    if (!to->segments)
        abort();
    if (from->n_segments > 0)
        memcpy(to->segments, from->segments, from->n_segments * sizeof *to->segments);
}

void stack_layer_take_map(struct stack_layer *to, const struct stack_layer *from)
{
    struct stack_layer copy;

    stack_layer_copy(&copy, from);
    free(to->segments);
    to->segments = copy.segments;
    to->n_segments = copy.n_segments;
    to->map_generation = copy.map_generation;
}

int stack_spec_copy(struct stack_spec *to, const struct stack_spec *from)
{
    *to = *from;
    to->layers = calloc(from->n_layers ? from->n_layers : 1, sizeof *to->layers);
    if (!to->layers)
        abort();
    for (uint32_t i = 0; i < from->n_layers; i++)
        stack_layer_copy(&to->layers[i], &from->layers[i]);
    return 0;
}

uint64_t stack_layer_bytes(const struct stack_layer *layer)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < layer->n_segments; i++)
        bytes += layer->segments[i].length;
    return bytes;
}

int stack_layer_check(const struct stack_layer *layer, uint32_t i, uint64_t *ret_bytes,
                      struct error *err)
{
    *ret_bytes = 0;
    if (layer->n_segments == 0 || layer->n_segments > STACK_SEGMENTS_MAX)
        return error_set(err, LUNAR_E_INVALID, "layer %" PRIu32 " has %" PRIu32 " segments", i,
                         layer->n_segments);
    for (uint32_t k = 0; k < layer->n_segments; k++) {
        const struct stack_segment *s = &layer->segments[k];
        if (s->length == 0 || s->length % STACK_ALIGN || s->lun_offset % STACK_ALIGN)
            return error_set(
                err, LUNAR_E_INVALID,
                "layer %" PRIu32 ", segment %" PRIu32 " is empty or not in 4 KiB steps", i, k);
        if (s->lun_offset > INT64_MAX || s->length > INT64_MAX - s->lun_offset ||
            s->length > INT64_MAX - *ret_bytes)
            return error_set(err, LUNAR_E_INVALID,
                             "layer %" PRIu32 ", segment %" PRIu32 " ends beyond any device", i, k);
        *ret_bytes += s->length;
    }
    if (layer->max_size != 0 && (layer->max_size < *ret_bytes || layer->max_size % STACK_ALIGN ||
                                 layer->max_size > INT64_MAX))
        return error_set(err, LUNAR_E_INVALID,
                         "layer %" PRIu32 " of %" PRIu64 " bytes in a map of %" PRIu64, i,
                         *ret_bytes, layer->max_size);
    return 0;
}

int stack_spec_check(const struct stack_spec *spec, struct error *err)
{
    uint64_t bytes;

    if (spec->size == 0 || spec->size % DM_SECTOR || spec->size > INT64_MAX)
        return error_set(err, LUNAR_E_INVALID,
                         "a size of %" PRIu64 " bytes is not a whole number of sectors",
                         spec->size);
    if (spec->n_layers == 0 || spec->n_layers > STACK_LAYERS_MAX)
        return error_set(err, LUNAR_E_INVALID, "%" PRIu32 " layers", spec->n_layers);
    if (spec->thick && spec->n_layers != 1)
        return error_set(err, LUNAR_E_INVALID, "a thick volume with %" PRIu32 " layers",
                         spec->n_layers);
    if (spec->pool[0] == '\0' || spec->name[0] == '\0' || spec->device[0] == '\0')
        return error_set(err, LUNAR_E_INVALID, "pool, name or device is empty");
    for (uint32_t i = 0; i < spec->n_layers; i++) {
        int rc = stack_layer_check(&spec->layers[i], i, &bytes, err);
        if (rc < 0)
            return rc;
        if (spec->thick && spec->layers[i].max_size)
            return error_set(err, LUNAR_E_INVALID, "a thick volume that grows on demand");
        if (spec->thick && bytes < spec->size)
            return error_set(err, LUNAR_E_INVALID,
                             "a thick volume of %" PRIu64 " bytes on %" PRIu64, spec->size, bytes);
    }
    return 0;
}
