/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: convolution of SAMPLES lanes, 8 or 16, of one instruction set and format; see vector.h for the other
 * parameters.  LANES is 16 here, the values of a line: those of one pixel, or of two neighbours in a row
 * (PIXELS).  C(name) names what exists once per SAMPLES.
 *
 * An octet is half a line, so half a pixel or a whole one.  Lines whose octets lie apart in memory, or of which
 * only one exists, are gone through octet by octet.
 */
#ifndef MESTK_OCTET
#define MESTK_OCTET
typedef float octet __attribute__((ext_vector_type(8), aligned(4)));
#endif
#define PIXELS (LANES / SAMPLES)
#define ACROSS (4 / PIXELS) /* lines of a tile's row */
/* Forward, LEVEL_ROWS * 4 accumulators are so many rows of so many tiles that lie beside each other. */
#define TILE_ROWS (PIXELS == 1 ? LEVEL_ROWS : 4)
#define TILES (LEVEL_ROWS * 4 / (TILE_ROWS * ACROSS))
#define C(name) V_OF(name, SAMPLES)
#include "conv_pack.h"
#include "conv_forward.h"
#include "conv_backward.h"
#undef PIXELS
#undef ACROSS
#undef TILE_ROWS
#undef TILES
#undef C
#undef SAMPLES
