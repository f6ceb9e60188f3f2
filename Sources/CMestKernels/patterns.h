/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The taps of the patterns, ascending: X(number, 4 taps).  Each set has 8; they differ in one number.
 */
#ifndef MESTK_PATTERNS_H
#define MESTK_PATTERNS_H
#include <stdint.h>

/* In both sets: four corners, three T. */
#define MESTK_PATTERNS_SHARED(X) \
    X(0, 4, 5, 7, 8)             \
    X(1, 3, 4, 6, 7)             \
    X(2, 1, 2, 4, 5)             \
    X(3, 0, 1, 3, 4)             \
    X(5, 3, 4, 5, 7)             \
    X(6, 1, 4, 5, 7)             \
    X(7, 1, 3, 4, 7)

#define MESTK_PATTERNS_CENTRE8(X) X(4, 1, 3, 4, 5) /* a fourth T */
#define MESTK_PATTERNS_CODE8(X) X(4, 5, 6, 7, 8)   /* of the MEST authors' published code */

/* What mestk_patterns returns: the kernels compare with its address, which is no call in their loops. */
extern const uint8_t mestk_centre8[8][4], mestk_code8[8][4];
#endif
