/* SPDX-License-Identifier: Apache-2.0 */
/* Template: everything of one level that exists once per lane count. */
#include "vector.h"
#include "norm_vector.h"
#if LANES <= LEVEL_VECTOR_LANES
#include "conv_vector.h"
#include "linear_vector.h"
#endif
#include "vector_end.h"
