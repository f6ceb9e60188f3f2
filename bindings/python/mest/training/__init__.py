# SPDX-License-Identifier: Apache-2.0
"""`Model.fit`: the loop, what it trains on, the callbacks that look on, and what it tells."""
