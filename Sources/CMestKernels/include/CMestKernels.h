/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels under the Swift engine: C, threads and SIMD live here and nowhere else.  They see
 * pointers, sizes and offsets; they know nothing of models and allocate nothing. */
#ifndef MESTK_H
#define MESTK_H
#include "parallel.h"
#include "layout.h"
#include "operand.h"
#include "host.h"
#include "checksum.h"
#include "files.h"
#include "scalar.h"
#include "weights.h"
#include "conv.h"
#include "magnitudes.h"
#include "depthwise.h"
#include "linear.h"
#include "norm.h"
#include "pool.h"
#include "elementwise.h"
#include "loss.h"
#include "update.h"
#endif
