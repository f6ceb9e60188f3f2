/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution, what all levels share: geometry, scratch, tasks and groups. */
#include "conv_job.h"

/* The channels of a slab are gone through in blocks that stay in L1 while all filters (forward) or all
 * input channels (backward) pass over them: L1_BYTES of slab.  But every pass loads and stores its
 * accumulators, so a pass gets at least so many connections on average, even if that takes L2.  UNIT_PASS:
 * of units as they lie, which load less per connection. */
enum { L1_BYTES = 24 << 10, FORWARD_PASS = 16, UNIT_PASS = 64, BACKWARD_PASS = 36 };

/* Few lanes: of a row, what one pass goes through. */
enum { FEW_FLOATS = 32 };

static int64_t words16(int64_t words) { return mestk_round16(words); }

/* Channels whose lines under one tile (or unit) fill L1_BYTES. */
static int32_t channels_in_l1(int64_t lines, mestk_shape s)
{
    int64_t n = L1_BYTES / (lines * s.lanes * 4);
    return (int32_t)(n < 1 ? 1 : n < s.channels ? n : s.channels);
}

/* The block for `pass` connections per filter and channel block, and class. */
static int32_t block_for(int32_t l1_block, int64_t pass, const mestk_weights *w, int32_t limit)
{
    int64_t count = mestk_weight_count(w), pairs = (int64_t)w->rows * w->channels;
    int64_t n = count > 0 ? (pass * pairs + count - 1) / count : limit;
    return (int32_t)(n < l1_block ? l1_block : n < limit ? n : limit);
}

static int32_t tile_values(mestk_shape s) { return mestk_tile_h(s) * mestk_tile_w(s) * s.lanes; }

/* Few lanes: a pointwise convolution has no neighbours, so its slab may be as the picture is: the tiles of so many
 * strips are one row, of all the values a pass takes.  0: it is not pointwise, or its tiles are no whole lines. */
static int32_t flat_strips(const mestk_conv *g)
{
    int32_t pointwise = g->kernel_h == 1 && g->kernel_w == 1 && g->stride_h == 1 && g->stride_w == 1;
    if (!pointwise || g->pad_h || g->pad_w || !mestk_in_lines(g->in)) return 0;
    int32_t most = FEW_FLOATS / (mestk_tiles_x(g->in) * tile_values(g->in));
    return mestk_max(1, mestk_min(most, mestk_strips(g->in)));
}

static int32_t forward_rows(const mestk_conv *g) { return flat_strips(g) ? 1 : mestk_computed_rows(mestk_tile_h(g->out)); }

static int32_t forward_row_floats(const mestk_conv *g)
{
    int32_t strips = flat_strips(g);
    return strips ? strips * mestk_tiles_x(g->out) * tile_values(g->out) : mestk_forward_row_floats(g);
}

static conv_slab forward_slab(const mestk_conv *g)
{
    int32_t floats = forward_row_floats(g);
    if (!flat_strips(g)) return mestk_forward_slab(g);
    return (conv_slab){.picture = g->in, .rows = 1, .columns = floats / g->in.lanes, .stride = 1, .phases = 1,
                       .row_stride = 1, .row_phases = 1, .channel = floats, .floats = (int64_t)floats * g->in.channels};
}

static int32_t forward_l1_block(const mestk_conv *g)
{
    conv_slab s = forward_slab(g);
    int32_t pass = mestk_min(forward_row_floats(g), FEW_FLOATS);
    int32_t columns = (mestk_few_lanes(g->out) ? pass : 64) / g->out.lanes;
    return channels_in_l1((int64_t)s.rows * s.phases * (columns + (g->kernel_w - 1) / g->stride_w), g->in);
}

static int32_t backward_l1_block(const mestk_conv *g)
{
    int32_t few = mestk_few_lanes(g->in);
    int32_t rows = g->in.lanes < 16 ? mestk_ceil_div(mestk_computed_rows(mestk_tile_h(g->in)), g->stride_h) : 2;
    int32_t columns = few ? mestk_min(mestk_backward_row_floats(g), FEW_FLOATS) / g->in.lanes : 4;
    int64_t lines = (int64_t)(rows + (g->kernel_h - 1) / g->stride_h) * (columns + (g->kernel_w - 1) / g->stride_w);
    return channels_in_l1(lines, g->out);
}

/* What a task has in the making: 16 lines of y, or dx of a unit, 8; of few lanes a strip of y, or of dx and x. */
static int64_t forward_chains(const mestk_conv *g)
{
    int64_t values = 16 * 16;
    if (mestk_few_lanes(g->out)) values = forward_rows(g) * forward_row_floats(g);
    return mestk_round16(g->out.channels * values);
}
static int64_t backward_chains(const mestk_conv *g)
{
    if (mestk_few_lanes(g->in)) return 2 * mestk_inner_slab(g).floats;
    return (int64_t)g->in.channels * 8 * 16;
}

/* Sums of a strip: two of y, or that of dx and those of dx times what two batch norms read. */
static int64_t forward_lines(const mestk_conv *g)
{
    return mestk_few_lanes(g->out) ? 0 : (int64_t)g->out.channels * 2 * 16;
}
static int64_t backward_lines(const mestk_conv *g)
{
    return mestk_few_lanes(g->in) ? 0 : (int64_t)g->in.channels * 3 * 16;
}

static int32_t backward_groups(const mestk_conv *g, int32_t gradient_chunks)
{
    int32_t strips = g->in.blocks * mestk_tiles_y(g->in);
    return mestk_max(1, mestk_min(gradient_chunks, strips));
}

static int64_t stream_floats(int64_t connections) { return mestk_round16(connections * 2); }

int64_t mestk_conv_forward_scratch(const mestk_conv *g, int32_t threads, int64_t capacity)
{
    int64_t columns = (int64_t)g->in.channels * g->kernel_h * g->kernel_w;
    int64_t blocks = mestk_ceil_div(g->in.channels, forward_l1_block(g));
    return words16(columns) + words16((g->out.channels + 1) * (blocks + 1))
           + (mestk_few_lanes(g->out) ? 0 : stream_floats(capacity)) + words16(threads)
           + threads * (forward_slab(g).floats + forward_chains(g) + forward_lines(g));
}

int64_t mestk_conv_backward_scratch(const mestk_conv *g, int32_t threads, int32_t gradient_chunks,
                                    int64_t capacity)
{
    int64_t blocks = mestk_ceil_div(g->out.channels, backward_l1_block(g));
    int64_t segments = g->in.channels * (blocks * mestk_classes(g) + 1);
    return 3 * words16(capacity) + words16(segments) + 2 * words16(g->kernel_h * g->kernel_w)
           + words16(threads) + threads * (mestk_backward_slab(g).floats + backward_chains(g) + backward_lines(g))
           + backward_groups(g, gradient_chunks) * mestk_round16(capacity);
}

/* ---- forward ---- */

static mestk_word *clean_words(float *at, int32_t count)
{
    memset(at, 0, (size_t)count * 4);
    return (mestk_word *)at;
}

static void carve_forward(const mestk_context *k, mestk_conv_job *job, float *scratch)
{
    const mestk_weights *w = job->w;
    job->offset = (mestk_word *)scratch, scratch += words16((int64_t)w->channels * w->taps);
    job->segment = (mestk_word *)scratch, scratch += words16((int64_t)(w->rows + 1) * (job->blocks + 1));
    if (job->streamed) job->stream = (conv_entry *)scratch, scratch += stream_floats(mestk_weight_count(w));
    job->packed = clean_words(scratch, k->threads), scratch += words16(k->threads);
    job->chains = scratch, scratch += k->threads * job->chain_floats;
    job->lines = scratch, scratch += k->threads * job->line_floats;
    job->slabs = scratch;
}

typedef struct conv_run {
    const mestk_conv_job *job;
    void (*forward)(const mestk_conv_job *, int32_t, int32_t);
    void (*backward)(const mestk_conv_job *, int32_t, int32_t, float *);
} conv_run;

static void forward_chunk(void *argument, uint32_t index, uint32_t worker)
{
    const conv_run *run = argument;
    run->forward(run->job, (int32_t)index, (int32_t)worker);
}

void mestk_conv_forward(const mestk_context *k, const mestk_conv *g, const mestk_weights *w, const float *start,
                        const mestk_operand *x, void *y, int32_t count, double *sums, float *scratch)
{
    mestk_conv_job job = {.g = g, .w = w, .start = start, .x = x, .y = y, .sums = sums, .count = count,
                          .slab = forward_slab(g), .chain_floats = forward_chains(g),
                          .line_floats = forward_lines(g)};
    conv_run run = {&job, mestk_kernels_of(k->level)->conv_forward[g->in.format][mestk_lane_index(g->in.lanes)], 0};
    int32_t width = mestk_unit_channels(w), streams = w->form == MESTK_FORM_SINGLE || w->form == MESTK_FORM_RUN;
    job.streamed = w->row_start && streams && !mestk_few_lanes(g->out);
    int32_t units = w->row_start && w->form > MESTK_FORM_SINGLE && !job.streamed;
    job.rows = forward_rows(g);
    job.row_floats = forward_row_floats(g);
    /* By the function, not the level, as in backward. */
    job.flat_strips = run.forward == mestk_conv_forward_reference ? 0 : flat_strips(g);
    job.tasks = mestk_ceil_div(mestk_strips(g->out), mestk_max(1, job.flat_strips));
    job.chain_channel = (int64_t)job.rows * job.row_floats;
    job.slab_down = (int64_t)g->stride_h * job.slab.phases * job.slab.columns * g->in.lanes;
    job.block_channels = block_for(forward_l1_block(g), units ? UNIT_PASS : FORWARD_PASS, w, w->channels);
    job.block_channels = mestk_ceil_div(job.block_channels, width) * width; /* whole runs */
    job.blocks = mestk_ceil_div(w->channels, job.block_channels);
    if (k->level != MESTK_REFERENCE) {
        carve_forward(k, &job, scratch);
        mestk_conv_index_forward(k, &job);
    }
    mestk_run(k, (uint32_t)job.tasks, forward_chunk, &run);
}

/* ---- backward ---- */

static void backward_chunk(void *argument, uint32_t group, uint32_t worker)
{
    const conv_run *run = argument;
    const mestk_conv_job *job = run->job;
    float *partial = job->partials + group * job->partial_stride;
    memset(partial, 0, (size_t)job->connections * sizeof(float));
    int32_t task = (int32_t)((int64_t)job->tasks * group / job->groups);
    int32_t end = (int32_t)((int64_t)job->tasks * (group + 1) / job->groups);
    for (; task < end; task++) run->backward(job, task, (int32_t)worker, partial);
}

enum { SUM_CHUNK = 4096, SUM_LINE = 64 };

/* dw += the partial sums, in the order of the groups. */
static void sum_chunk(void *argument, uint32_t index, uint32_t worker)
{
    const mestk_conv_job *job = argument;
    int64_t first = (int64_t)index * SUM_CHUNK, end = mestk_min64(first + SUM_CHUNK, job->connections);
    (void)worker;
    for (int64_t e = first; e < end; e += SUM_LINE) {
        int32_t n = (int32_t)mestk_min64(SUM_LINE, end - e);
        float sum[SUM_LINE];
        memcpy(sum, job->partials + e, (size_t)n * sizeof(float));
        for (int32_t i = 1; i < job->groups; i++) {
            const float *partial = job->partials + i * job->partial_stride + e;
            for (int32_t l = 0; l < n; l++) sum[l] += partial[l];
        }
        for (int32_t l = 0; l < n; l++) job->dw[job->by_entry ? job->position[e + l] : e + l] += sum[l];
    }
}

typedef struct bias {
    mestk_shape s;
    const void *dy;
    float *db;
} bias;

static void bias_chunk(void *argument, uint32_t channel, uint32_t worker)
{
    const bias *a = argument;
    mestk_shape s = a->s;
    int32_t pixels = mestk_tile_h(s) * mestk_tile_w(s), L = s.lanes;
    int64_t tiles = (int64_t)s.blocks * mestk_tiles_y(s) * mestk_tiles_x(s);
    double sum = 0.0;
    (void)worker;
    for (int64_t t = 0; t < tiles; t++) {
        int64_t at = (t * s.channels + channel) * pixels * L;
        float line[16] = {0};
        for (int32_t p = 0; p < pixels; p++)
            for (int32_t l = 0; l < L; l++) line[l] += mestk_get(a->dy, s.format, at + p * L + l);
        float tile = 0.0f;
        mestk_add_line(&tile, line, L);
        sum += (double)tile;
    }
    a->db[channel] += (float)sum;
}

void mestk_bias_gradient(const mestk_context *k, mestk_shape s, const void *dy, float *db)
{
    bias a = {s, dy, db};
    mestk_run(k, (uint32_t)s.channels, bias_chunk, &a);
}

/* The epilogue sums tile by tile as operand.h says; a unit of a strided convolution is no part of a tile. */
static int32_t finishes_in_epilogue(const mestk_conv *g) { return g->stride_h == 1 && g->stride_w == 1; }

void mestk_conv_backward(const mestk_context *k, const mestk_conv *g, const mestk_weights *w,
                         const mestk_operand *x, const mestk_operand *dy, int32_t count,
                         const mestk_gradient *dx, float *dw, float *db, int32_t gradient_chunks,
                         float *scratch)
{
    mestk_gradient plain = {.dx = dx->dx, .accumulate = dx->accumulate};
    mestk_conv_job job = {.g = g, .w = w, .x = x, .dy = dy, .count = count, .slab = mestk_backward_slab(g), .dw = dw};
    conv_run run = {&job, 0, mestk_kernels_of(k->level)->conv_backward[g->in.format][mestk_lane_index(g->in.lanes)]};
    job.gradient = finishes_in_epilogue(g) ? dx : &plain;
    job.inner = mestk_inner_slab(g);
    job.rows = mestk_computed_rows(mestk_tile_h(g->in));
    job.row_floats = mestk_backward_row_floats(g);
    job.classes = mestk_classes(g);
    job.block_channels = block_for(backward_l1_block(g), (int64_t)BACKWARD_PASS * g->stride_h * g->stride_w, w, w->rows);
    /* Whole blocks, so that keys ascend over the blocks of channels. */
    job.block_channels = mestk_ceil_div(job.block_channels, mestk_unit_rows(w)) * mestk_unit_rows(w);
    job.blocks = mestk_ceil_div(w->rows, job.block_channels);
    job.connections = mestk_weight_count(w);
    job.tasks = mestk_strips(g->in);
    job.groups = backward_groups(g, gradient_chunks);
    job.partial_stride = mestk_round16(job.connections);
    job.chain_floats = backward_chains(g);
    job.line_floats = backward_lines(g);

    float *at = scratch;
    job.partials = at, at += job.groups * job.partial_stride;
    /* By the function, not the level: a level may have vectors for some lanes only, and the reference writes
     * its partial sums by connection. */
    if (run.backward != mestk_conv_backward_reference) {
        job.by_entry = 1;
        job.offset = (mestk_word *)at, at += words16(job.connections);
        job.position = (mestk_word *)at, at += words16(job.connections);
        job.weight = at, at += words16(job.connections);
        job.segment = (mestk_word *)at, at += words16((int64_t)w->channels * (job.blocks * job.classes + 1));
        job.tap_class = (mestk_word *)at, at += words16(w->taps);
        job.tap_line = (mestk_word *)at, at += words16(w->taps);
        job.packed = clean_words(at, k->threads), at += words16(k->threads);
        job.chains = at, at += k->threads * job.chain_floats;
        job.lines = at, at += k->threads * job.line_floats;
        job.slabs = at;
        mestk_conv_index_backward(k, &job);
    }
    mestk_run(k, (uint32_t)job.groups, backward_chunk, &run);
    mestk_run(k, (uint32_t)((job.connections + SUM_CHUNK - 1) / SUM_CHUNK), sum_chunk, &job);
    if (db) mestk_bias_gradient(k, g->out, dy->x, db);
    if (dx->dx && job.gradient == &plain) mestk_finish_gradient(k, g->in, x, dx);
}
