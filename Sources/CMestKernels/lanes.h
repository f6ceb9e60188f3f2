/* SPDX-License-Identifier: Apache-2.0 */
/* Template: everything of one level that exists once per lane count and format of stored values. */
#include "vector.h"
#include "operand_vector.h"
#include "norm_vector.h"
#include "pool_vector.h"
#if LEVEL_VECTOR_LANES && LANES >= 4 && LANES <= LEVEL_WIDTH && !STORED_BF16
#include "conv_rows.h"
#include "depthwise_rows.h"
#endif
#if LEVEL_VECTOR_LANES && LANES == 16
#include "few_pack.h"
#include "few_store.h"
#include "conv_few.h"
#include "depthwise_few.h"
#endif
#if LANES <= LEVEL_VECTOR_LANES
#if LANES == 16
#define SAMPLES 8
#include "conv_lines.h"
#define SAMPLES 16
#include "conv_lines.h"
#endif
#if LANES >= 8
#include "depthwise_vector.h"
#endif
#if !STORED_BF16
#include "linear_vector.h"
#endif
#endif
#if LEVEL_VECTOR_LANES && LANES == 16 && !STORED_BF16
#include "linear_one.h"
#endif
#include "vector_end.h"
