/* SPDX-License-Identifier: Apache-2.0 */
/* Everything of one level that exists once per lane count. */
#include "vector.h"
#include "norm_vector.h"
#if !LEVEL_REFERENCE
#include "conv_vector.h"
#include "linear_vector.h"
#endif
#include "vector_end.h"
