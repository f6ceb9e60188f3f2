/* SPDX-License-Identifier: Apache-2.0 */
/* Template: everything of one level that exists once per lane count and format of stored values. */
#include "vector.h"
#include "operand_vector.h"
#include "norm_vector.h"
#include "pool_vector.h"
#if LANES <= LEVEL_VECTOR_LANES
#include "conv_vector.h"
#include "depthwise_vector.h"
#if !STORED_BF16
#include "linear_vector.h"
#endif
#endif
#include "vector_end.h"
