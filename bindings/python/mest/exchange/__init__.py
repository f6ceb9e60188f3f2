# SPDX-License-Identifier: Apache-2.0
"""Networks in and out: between `Model` and PyTorch, ONNX, files of weights, C."""
