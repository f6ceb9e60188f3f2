# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's conventions over a sparse network: MestClassifier and MestRegressor."""
