/* SPDX-License-Identifier: Apache-2.0 */
/* The level every machine has: convolution and linear as defined, the rest for the build's own target. */
#include "conv_job.h"
#include "linear_job.h"
#include "norm_job.h"
#include "scalar_inline.h"

#define LEVEL(name) mestk_reference_##name
#define LEVEL_WIDTH 4
#define LEVEL_FMA MESTK_HARDWARE_FMA
#define LEVEL_REFERENCE 1
#include "level.h"
