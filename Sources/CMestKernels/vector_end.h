/* SPDX-License-Identifier: Apache-2.0 */
#undef LANES
#undef WIDTH
#undef PARTS
#undef V_JOIN2
#undef V_JOIN
#undef V
#undef VEC_INLINE
#undef vec
#undef vec_load
#undef vec_store
#undef vec_zero
#undef vec_fma
#undef vec_add_dots
