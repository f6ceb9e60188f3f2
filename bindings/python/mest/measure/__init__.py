# SPDX-License-Identifier: Apache-2.0
"""Variants measured in turns: dense against sparse, layers alone.  For commands and benchmarks."""
