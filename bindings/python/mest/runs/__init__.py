# SPDX-License-Identifier: Apache-2.0
"""The record of a training, a JSON object a line: written while it trains, checked and read."""
