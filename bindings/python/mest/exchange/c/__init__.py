# SPDX-License-Identifier: Apache-2.0
"""A trained model as C source: floats, or 8-bit integers."""
