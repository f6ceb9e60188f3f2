/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of one call of a convolution in the order in which its vector kernels meet them. */
#include "conv_job.h"

/* ---- forward ---- */

static uint32_t first_at_or_after(const uint16_t *column, uint32_t from, uint32_t end, int32_t limit)
{
    while (from < end) {
        uint32_t middle = from + (end - from) / 2;
        if (column[middle] < limit) from = middle + 1;
        else end = middle;
    }
    return from;
}

enum { INDEX_ROWS = 16 }; /* of a chunk */

/* Where the blocks of channels begin in each row of the index; a dense row is as the others: one does. */
static void index_rows(void *argument, uint32_t chunk, uint32_t worker)
{
    const mestk_conv_job *job = argument;
    const mestk_weights *w = job->w;
    int32_t by_channel = w->row_start && w->form == MESTK_FORM_PATTERN, taps = by_channel ? 1 : w->taps;
    int32_t width = mestk_unit_channels(w);
    int32_t rows = w->row_start ? mestk_index_rows(w) : 1, r = (int32_t)chunk * INDEX_ROWS;
    (void)worker;
    for (int32_t end = mestk_min(r + INDEX_ROWS, rows); r < end; r++) {
        mestk_word *segment = job->segment + (int64_t)r * (job->blocks + 1);
        for (int32_t i = 0; i <= job->blocks; i++) {
            int32_t limit = mestk_ceil_div(mestk_min(i * job->block_channels, w->channels), width) * taps;
            uint32_t from = !w->row_start ? 0 : i ? (uint32_t)segment[i - 1] : w->row_start[r];
            segment[i] = w->row_start ? (int32_t)first_at_or_after(w->column, from, w->row_start[r + 1], limit) : limit;
        }
    }
}

static void index_all_rows(const mestk_context *k, mestk_conv_job *job)
{
    int32_t rows = job->w->row_start ? mestk_index_rows(job->w) : 1;
    int64_t looks = (int64_t)rows * (job->blocks + 1) * 8; /* of a search */
    mestk_run_light(k, (uint32_t)mestk_ceil_div(rows, INDEX_ROWS), looks, index_rows, job);
}

/* Connections of row r: what a last run lacks is at the end of the row. */
static int32_t row_count(const mestk_weights *w, int32_t r)
{
    uint32_t first = w->row_start[r], end = w->row_start[r + 1];
    int32_t count = (int32_t)(end - first) * w->group, lacks;
    for (; end > first && (lacks = w->group - mestk_unit_columns(w, w->column[end - 1])) > 0; end--) count -= lacks;
    return count;
}

static void stream_singles(const mestk_conv_job *job, int32_t r)
{
    const mestk_weights *w = job->w;
    uint32_t j = w->row_start[r];
    for (int32_t b = 0; b < job->blocks; b++) {
        const mestk_word *segment = job->segment + (int64_t)b * (w->rows + 1) + r;
        for (int32_t i = segment[0]; i < segment[1]; i++, j++)
            job->stream[i] = (conv_entry){job->offset[w->column[j]], w->value[j]};
    }
}

/* A run may end in the next pass. */
static void stream_runs(const mestk_conv_job *job, int32_t r)
{
    const mestk_weights *w = job->w;
    const mestk_word *segment = job->segment + r;
    int32_t at = segment[0], end = segment[1], channel = (int32_t)job->slab.channel;
    const float *value = w->value + (int64_t)w->row_start[r] * w->group;
    for (uint32_t j = w->row_start[r]; j < w->row_start[r + 1]; j++, value += w->group) {
        int32_t n = mestk_unit_columns(w, w->column[j]), offset = job->offset[w->column[j]];
        for (int32_t i = 0; i < n; i++, offset += channel) {
            while (at == end) segment += w->rows + 1, at = segment[0], end = segment[1];
            job->stream[at++] = (conv_entry){offset, value[i]};
        }
    }
}

static void stream_rows(void *argument, uint32_t chunk, uint32_t worker)
{
    const mestk_conv_job *job = argument;
    int32_t r = (int32_t)chunk * INDEX_ROWS;
    (void)worker;
    for (int32_t end = mestk_min(r + INDEX_ROWS, job->w->rows); r < end; r++) {
        if (job->w->form == MESTK_FORM_RUN) stream_runs(job, r);
        else stream_singles(job, r);
    }
}

/* Passes of equal counts, not of equal channels: a filter's loop has as many turns in each of them, which the
 * processor learns to predict. */
static void index_stream(const mestk_context *k, const mestk_conv_job *job)
{
    const mestk_weights *w = job->w;
    int32_t at = 0;
    for (int32_t b = 0; b < job->blocks; b++) {
        mestk_word *segment = job->segment + (int64_t)b * (w->rows + 1);
        for (int32_t r = 0; r < w->rows; r++) {
            int32_t count = row_count(w, r), pass = mestk_ceil_div(count, job->blocks);
            segment[r] = at;
            at += mestk_max(0, mestk_min(pass, count - b * pass));
        }
        segment[w->rows] = at;
    }
    mestk_run(k, (uint32_t)mestk_ceil_div(w->rows, INDEX_ROWS), stream_rows, (void *)job);
}

void mestk_conv_index_forward(const mestk_context *k, mestk_conv_job *job)
{
    const mestk_conv *g = job->g;
    const mestk_weights *w = job->w;
    const conv_slab *s = &job->slab;
    for (int32_t ky = 0, i = 0; ky < g->kernel_h; ky++)
        for (int32_t kx = 0; kx < g->kernel_w; kx++, i++)
            job->offset[i] = ((ky * s->phases + kx % s->stride) * s->columns + kx / s->stride) * g->in.lanes;
    int32_t width = mestk_unit_channels(w), columns = mestk_ceil_div(w->channels, width) * w->taps;
    for (int32_t i = w->taps; i < columns; i++) job->offset[i] = job->offset[i - w->taps] + width * (int32_t)s->channel;
    if (job->streamed) index_stream(k, job);
    else index_all_rows(k, job);
}

/* ---- backward ---- */

static void index_taps(mestk_conv_job *job)
{
    const mestk_conv *g = job->g;
    int32_t kw = g->kernel_w, sh = g->stride_h, sw = g->stride_w;
    for (int32_t tap = 0; tap < g->kernel_h * kw; tap++) {
        int32_t ky = tap / kw, kx = tap % kw;
        job->tap_class[tap] = mestk_class_of(g, ky % sh, kx % sw);
        job->tap_line[tap] = ((g->kernel_h - 1) / sh - ky / sh) * job->slab.columns + (kw - 1) / sw - kx / sw;
    }
}

enum { VALUES_AHEAD = 24 }; /* each lies in another row, so in another cache line */

/* A channel's entries, sorted by (block of output channels, class), keys ascending within.  They come by
 * key, so by block: class after class of a block is picked out.  The channels of a run have the same units, their
 * entries lie channel by channel; those of channels that the last run lacks come last and in no segment. */
static void index_channel(void *argument, uint32_t channel, uint32_t worker)
{
    const mestk_conv_job *job = argument;
    const mestk_weights *w = job->w;
    int32_t taps = w->taps, L = job->g->in.lanes, blocks = job->blocks, classes = job->classes;
    int64_t columns = (int64_t)w->channels * taps, slab_channel = job->slab.channel;
    int32_t width = mestk_unit_channels(w), run = (int32_t)channel / width, in_run = (int32_t)channel % width;
    /* Not read again after every word written. */
    const mestk_word *tap_class = job->tap_class, *tap_line = job->tap_line;
    const float *value = w->value + in_run;
    mestk_word *offset = job->offset, *position = job->position;
    float *weight = job->weight;
    mestk_word *segment = job->segment + (int64_t)channel * (blocks * classes + 1);
    int32_t e = w->row_start ? (int32_t)w->channel_start[run] : (int32_t)channel * w->rows * taps;
    int32_t first = e, end = w->row_start ? (int32_t)w->channel_start[run + 1] : first + w->rows * taps;
    int32_t all = w->row_start ? (int32_t)w->channel_start[mestk_ceil_div(w->channels, width)] : 0;
    int32_t to = first * width + in_run * (end - first);
    (void)worker;
    *segment = to;
    uint64_t per_tap = (uint64_t)UINT32_MAX / (uint32_t)taps + 1; /* key * per_tap >> 32 == key / taps for 16 bits of key */
    for (int32_t b = 0, from = e; b < blocks; b++, from = e) {
        int32_t limit = mestk_min((b + 1) * job->block_channels, w->rows) * taps;
        for (int32_t class = 0; class < classes; class++) {
            for (e = from; e < end; e++) {
                int32_t key = w->row_start ? w->key[e] : e - first;
                if (key >= limit) break;
                if (e + VALUES_AHEAD < all) __builtin_prefetch(value + w->position[e + VALUES_AHEAD] * (uint32_t)width);
                int32_t row = (int32_t)((uint64_t)key * per_tap >> 32), tap = key - row * taps;
                if (tap_class[tap] != class) continue;
                int64_t j = w->row_start ? w->position[e] * (uint32_t)width : row * columns + (int64_t)channel * taps + tap;
                offset[to] = (int32_t)(row * slab_channel + (int64_t)tap_line[tap] * L);
                position[to] = (int32_t)j + in_run;
                weight[to++] = value[j];
            }
            *++segment = to;
        }
    }
    if ((int32_t)channel + 1 < w->channels) return;
    for (int32_t i = in_run + 1; i < width; i++)
        for (e = first; e < end; e++) position[to++] = (int32_t)w->position[e] * width + i;
}

/* The same for blocks and patterns: entry by entry of a unit.  Connections that do not exist, of rows that
 * the last block lacks, come last and in no segment. */
static void index_units(void *argument, uint32_t channel, uint32_t worker)
{
    const mestk_conv_job *job = argument;
    const mestk_weights *w = job->w;
    int32_t pattern = w->form == MESTK_FORM_PATTERN, size = pattern ? 4 : w->group, L = job->g->in.lanes;
    int32_t rows = pattern ? 1 : w->group, key_taps = pattern ? 1 : w->taps; /* of a unit; of a row's keys */
    mestk_word *segment = job->segment + (int64_t)channel * (job->blocks * job->classes + 1);
    int32_t e = (int32_t)w->channel_start[channel], first = e, end = (int32_t)w->channel_start[channel + 1], to = e * size;
    (void)worker;
    *segment = to;
    for (int32_t b = 0, from = e; b < job->blocks; b++, from = e) {
        for (int32_t class = 0; class < job->classes; class++) {
            for (e = from; e < end; e++) {
                int32_t row = w->key[e] / key_taps * rows, j = (int32_t)w->position[e];
                if (row >= (b + 1) * job->block_channels) break;
                for (int32_t i = 0; i < size; i++) {
                    int32_t tap = pattern ? w->pattern_taps[w->pattern[j]][i] : w->key[e] % key_taps;
                    int32_t r = row + (pattern ? 0 : i);
                    if (r >= w->rows || job->tap_class[tap] != class) continue;
                    job->offset[to] = (int32_t)(r * job->slab.channel + (int64_t)job->tap_line[tap] * L);
                    job->position[to] = j * size + i;
                    job->weight[to++] = w->value[j * size + i];
                }
            }
            *++segment = to;
        }
    }
    for (e = first; e < end && to < end * size; e++)
        for (int32_t i = 0; i < rows; i++)
            if (w->key[e] / key_taps * rows + i >= w->rows) job->position[to++] = (int32_t)w->position[e] * size + i;
}

void mestk_conv_index_backward(const mestk_context *k, mestk_conv_job *job)
{
    const mestk_weights *w = job->w;
    int32_t units = w->form == MESTK_FORM_BLOCK || w->form == MESTK_FORM_PATTERN;
    index_taps(job);
    mestk_run_light(k, (uint32_t)w->channels, job->connections * 4, units ? index_units : index_channel, job);
}
