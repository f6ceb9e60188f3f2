# SPDX-License-Identifier: Apache-2.0
"""MestClassifier and MestRegressor with their defaults on the small sets that scikit-learn carries.

    python examples/python/scikit_learn.py            five folds, two seeds: the table of docs/scikit-learn.md
    python examples/python/scikit_learn.py --folds 2 --seeds 1

Prints accuracy or R2 (mean over folds and seeds), beside those of scikit-learn's MLPClassifier and
MLPRegressor with their defaults, and connections of the sparse network beside weights of the dense one.
"""

import argparse
import warnings

import numpy as np
from sklearn import datasets
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mest import MestClassifier, MestRegressor

CLASSES = {
    "digits": datasets.load_digits(return_X_y=True),
    "wine": datasets.load_wine(return_X_y=True),
    "breast_cancer": datasets.load_breast_cancer(return_X_y=True),
    "iris": datasets.load_iris(return_X_y=True),
    "make_moons(500, noise=0.2)": datasets.make_moons(500, noise=0.2, random_state=0),
}
NUMBERS = {
    "diabetes": datasets.load_diabetes(return_X_y=True),
    "make_friedman1(1000, noise=1)": datasets.make_friedman1(1000, noise=1, random_state=0),
}


def measured(kind, x, y, folds, seeds):
    """Mean score, and a fitted one."""
    scores = []
    for seed in range(seeds):
        found = cross_validate(
            make_pipeline(StandardScaler(), kind(random_state=seed)), x, y, cv=folds, return_estimator=True
        )
        scores += found["test_score"].tolist()
    return np.mean(scores), found["estimator"][0][-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # MLPClassifier's, that 200 iterations were too few
    print("| set | samples | score | scikit-learn's MLP | connections | its weights |")
    print("|---|---:|---:|---:|---:|---:|")
    for sets, sparse, dense, split in (
        (CLASSES, MestClassifier, MLPClassifier, StratifiedKFold),
        (NUMBERS, MestRegressor, MLPRegressor, KFold),
    ):
        folds = split(arguments.folds, shuffle=True, random_state=0)
        for name, (x, y) in sets.items():
            score, fitted = measured(sparse, x, y, folds, arguments.seeds)
            theirs, mlp = measured(dense, x, y, folds, arguments.seeds)
            active = sum(fitted.model_.connections())
            weights = sum(part.size for part in mlp.coefs_)
            row = f"| {name} | {len(x):,} | {score:.3f} | {theirs:.3f} | {active:,} | {weights:,} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
