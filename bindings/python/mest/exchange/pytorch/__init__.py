# SPDX-License-Identifier: Apache-2.0
"""From and to PyTorch's modules."""
