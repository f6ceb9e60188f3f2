# SPDX-License-Identifier: Apache-2.0
"""Networks that come from elsewhere and go elsewhere.  What is public of it is in `mest` itself."""
