/* SPDX-License-Identifier: Apache-2.0 */
/* The vector path for the build's own target where that has fused multiply-add: NEON, or the scalar FPU of
 * a Cortex-M4F.  The compiler turns a vector of 8 into what there is. */
#include "conv_job.h"
#include "linear_job.h"
#include "norm_job.h"
#include "scalar_inline.h"

#if MESTK_HAS_PORTABLE
#define LEVEL(name) mestk_portable_##name
#define LEVEL_WIDTH 8
#define LEVEL_FMA 1
#define LEVEL_ROWS 4
#define LEVEL_DOTS 4
#define LEVEL_REFERENCE 0
#include "level.h"
#endif
