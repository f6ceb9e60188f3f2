/* SPDX-License-Identifier: Apache-2.0 */
/* The index by channel and the fully connected layer. */
#ifndef KERNELS_LINEAR_CASES_H
#define KERNELS_LINEAR_CASES_H
#include "harness.h"

static void test_index(void)
{
    for (int i = 0; i < 40; i++) {
        int rows = 1 + below(20), channels = 1 + below(12), taps = 1 + below(9), ok = 1;
        matrix m = random_matrix(rows, channels, taps, i % 4 * 0.33);
        const mestk_weights *w = &m.w;
        uint8_t *seen = get(m.count);
        memset(seen, 0, (size_t)m.count);
        for (int c = 0; c < channels; c++) {
            for (uint32_t e = w->channel_start[c]; e < w->channel_start[c + 1]; e++) {
                int row, channel, tap;
                connection(w, w->position[e], &row, &channel, &tap);
                ok &= channel == c && w->key[e] == row * taps + tap && !seen[w->position[e]]++;
                ok &= e == w->channel_start[c] || w->key[e] > w->key[e - 1];
            }
        }
        ok &= w->channel_start[0] == 0 && w->channel_start[channels] == m.count;
        check(ok, "index by channel", "random");
        free(seen);
        free_matrix(&m);
    }
}

/* The same connections as single weights give the same bits, whatever the units; but for dx of blocks. */
static void test_linear_as_single(const char *name, const matrix *m, int lanes, int blocks, const float *bias,
                                  const float *x, const float *dy, float *const *got)
{
    const mestk_weights *w = &m->w;
    int64_t *where = get((int64_t)w->rows * w->channels * 8), ny = (int64_t)blocks * w->rows * lanes;
    int64_t nx = (int64_t)blocks * w->channels * lanes;
    matrix single = as_single(m, where);
    float *y = floats(ny), *dx = floats(nx), *dw = floats(single.count);
    mestk_linear_forward(&way[0], blocks, lanes, &single.w, bias, x, y);
    mestk_linear_backward(&way[0], blocks, lanes, &single.w, x, dy, dx, 0, dw, NULL, 0);
    int ok = 1, runs = w->form == MESTK_FORM_RUN;
    for (int64_t j = 0; j < single.count; j++) ok &= memcmp(dw + j, got[2] + where[j], 4) == 0;
    check(ok, "linear dw as of single weights", name);
    if (runs || lanes > 1) check(memcmp(y, got[0], (size_t)ny * 4) == 0, "linear y as of single weights", name);
    if (runs) check(memcmp(dx, got[1], (size_t)nx * 4) == 0, "linear dx as of single weights", name);
    free(y), free(dx), free(dw), free(where);
    free_matrix(&single);
}

static void test_linear_stored(const char *name, const matrix *m, const mestk_context *way, int lanes, int blocks,
                               const float *x, const float *dy, float *dx, float *stored)
{
    /* Stored is added to nothing; what a last block or run lacks stays. */
    int64_t rows = m->w.rows;
    float *added = floats(m->count), *db_stored = floats(rows), *db_added = floats(rows);
    for (int64_t j = 0; j < m->count; j++) {
        int r, c, tap;
        added[j] = 0;
        if (!connection(&m->w, j, &r, &c, &tap)) stored[j] = 0;
    }
    for (int r = 0; r < rows; r++) db_added[r] = 0;
    mestk_linear_backward(way, blocks, lanes, &m->w, x, dy, NULL, 0, added, db_added, 1);
    mestk_linear_backward(way, blocks, lanes, &m->w, x, dy, dx, 0, stored, db_stored, 0);
    check(same(stored, added, m->count), "linear dw stored", name);
    check(same(db_stored, db_added, rows), "linear db stored", name);
    mestk_linear_backward(way, blocks, lanes, &m->w, x, dy, NULL, 0, stored, db_stored, 0);
    check(same(stored, added, m->count), "linear dw stored, no dx", name);
    free(added), free(db_stored), free(db_added);
}

/* group: of blocks; runs: below 0. */
static void test_linear(int lanes, int blocks, int channels, int rows, double density, int group)
{
    char name[200];
    snprintf(name, sizeof name, "linear lanes %d blocks %d %d->%d density %g group %d", lanes, blocks, channels, rows,
             density, group);
    matrix m = group > 1   ? random_blocks(rows, channels, 1, group, density)
               : group < 0 ? random_runs(rows, channels, 1, -group, density)
                           : random_matrix(rows, channels, 1, density);
    int64_t nx = (int64_t)blocks * channels * lanes, ny = (int64_t)blocks * rows * lanes;
    float *x = random_floats(nx), *dy = random_floats(ny), *bias = random_floats(rows), *old_dx = random_floats(nx);
    float *old_dw = random_floats(m.count), *old_db = random_floats(rows);
    double *y = get(ny * 8), *y_size = get(ny * 8), *dx = get(nx * 8), *dx_size = get(nx * 8);
    double *dw = get(m.count * 8), *dw_size = get(m.count * 8), *db = get(rows * 8), *db_size = get(rows * 8);
    for (int r = 0; r < rows; r++) db[r] = old_db[r], db_size[r] = fabs(db[r]);
    for (int64_t i = 0; i < ny; i++) {
        int r = (int)(i / lanes % rows);
        y[i] = bias[r], y_size[i] = fabs(y[i]);
        db[r] += dy[i], db_size[r] += fabs(dy[i]);
    }
    for (int64_t i = 0; i < nx; i++) dx[i] = dx_size[i] = 0;
    for (int64_t j = 0; j < m.count; j++) {
        int r, c, tap;
        int exists = connection(&m.w, j, &r, &c, &tap);
        dw[j] = old_dw[j], dw_size[j] = fabs(dw[j]);
        if (!exists) continue; /* nobody writes it */
        double v = m.w.value[j];
        for (int b = 0; b < blocks; b++) {
            for (int l = 0; l < lanes; l++) {
                int64_t p = ((int64_t)b * rows + r) * lanes + l, q = ((int64_t)b * channels + c) * lanes + l;
                y[p] += v * x[q], y_size[p] += fabs(v * x[q]);
                dx[q] += v * dy[p], dx_size[q] += fabs(v * dy[p]);
                dw[j] += x[q] * dy[p], dw_size[j] += fabs(x[q] * dy[p]);
            }
        }
    }
    float *first[5];
    for (int i = 0; i < ways; i++) {
        float *got[5] = {floats(ny), floats(nx), copy_of(old_dx, nx), copy_of(old_dw, m.count), copy_of(old_db, rows)};
        int64_t sizes[5] = {ny, nx, nx, m.count, rows};
        float *unused = copy_of(old_dw, m.count);
        mestk_linear_forward(&way[i], blocks, lanes, &m.w, bias, x, got[0]);
        mestk_linear_backward(&way[i], blocks, lanes, &m.w, x, dy, got[1], 0, got[3], got[4], 1);
        mestk_linear_backward(&way[i], blocks, lanes, &m.w, x, dy, got[2], 1, unused, NULL, 1);
        check(same(got[3], unused, m.count), "linear dw twice", name);
        mestk_linear_backward(&way[i], blocks, lanes, &m.w, x, dy, NULL, 0, unused, NULL, 1);
        free(unused);
        float *stored = floats(m.count);
        test_linear_stored(name, &m, &way[i], lanes, blocks, x, dy, got[1], stored);
        if (i == 0 && group != 1)
            test_linear_as_single(name, &m, lanes, blocks, bias, x, dy, (float *[]){got[0], got[1], stored});
        free(stored);
        if (i == 0) {
            check(near(y, y_size, got[0], ny), "linear y", name);
            check(near(dx, dx_size, got[1], nx), "linear dx", name);
            int ok = 1;
            for (int64_t q = 0; q < nx; q++) ok &= got[2][q] == old_dx[q] + got[1][q];
            check(ok, "linear dx accumulated", name);
            check(near(dw, dw_size, got[3], m.count), "linear dw", name);
            check(near(db, db_size, got[4], rows), "linear db", name);
            for (int p = 0; p < 5; p++) mark(got[p], sizes[p]);
            memcpy(first, got, sizeof first);
            continue;
        }
        for (int p = 0; p < 5; p++) {
            char what[60];
            snprintf(what, sizeof what, "linear, bits of result %d, %s", p, way_name[i]);
            check(same(first[p], got[p], sizes[p]), what, name);
            free(got[p]);
        }
    }
    for (int p = 0; p < 5; p++) free(first[p]);
    free(x), free(dy), free(bias), free(old_dx), free(old_dw), free(old_db);
    free(y), free(y_size), free(dx), free(dx_size), free(dw), free(dw_size), free(db), free(db_size);
    free_matrix(&m);
}

static void test_linears(void)
{
    static const int lanes[4] = {1, 4, 8, 16};
    static const double densities[4] = {0.1, 0.5, 1.5, 2};
    for (int i = 0; i < 48; i++) {
        state = seed_now = 3000 + (uint64_t)i;
        int blocks = 1 + below(9), channels = 1 + below(80), rows = 1 + below(60);
        test_linear(lanes[i % 4], i % 4 ? blocks : 1, channels, rows, densities[i / 4 % 4], 1);
    }
    for (int i = 0; i < 96; i++) {
        state = seed_now = 3100 + (uint64_t)i;
        int blocks = 1 + below(9), channels = 1 + below(80), rows = 1 + below(100);
        test_linear(lanes[i % 4], i % 4 ? blocks : 1, channels, rows, densities[i / 4 % 3], 4 << i / 12 % 3);
    }
    for (int i = 0; i < 144; i++) {
        state = seed_now = 3200 + (uint64_t)i;
        int blocks = 1 + below(9), channels = 1 + below(100), rows = 1 + below(80);
        if (i >= 96) blocks = 1 << below(4), channels = (channels + 15) / 16 * 16;
        test_linear(lanes[i % 4], i % 4 ? blocks : 1, channels, rows, densities[i / 4 % 3], -(4 << i / 12 % 3));
    }
}
#endif
