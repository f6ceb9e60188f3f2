/* SPDX-License-Identifier: Apache-2.0 */
/* 32 registers of 16 lanes.  SwiftPM has no flags per file, so the target is an attribute. */
#include "conv_job.h"
#include "depthwise_job.h"
#include "linear_job.h"
#include "strip_job.h"
#include "pool_job.h"

#if MESTK_X86
#pragma clang attribute push(MESTK_VECTOR_LEVEL("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"), apply_to = function)
#define MESTK_TARGET_FMA 1
#include "scalar_inline.h"

#define LEVEL(name) mestk_avx512_##name
#define LEVEL_WIDTH 16
#define LEVEL_FMA 1
#define LEVEL_ROWS 4
#define LEVEL_DOTS 4
#define LEVEL_VECTOR_LANES 16
#include "level.h"
#pragma clang attribute pop
#endif
