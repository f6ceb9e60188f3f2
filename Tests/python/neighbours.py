# SPDX-License-Identifier: Apache-2.0
"""A process that uses several libraries with threads, in the order given: `python neighbours.py mest torch intel`.

Each is loaded and used in turn, then all are used once more, then the process forks and the child uses libmest.
Prints a line of JSON; test_neighbours.py says what has to stand there.  Libraries are imported where they are used:
the order is what this is about.
"""

import ctypes
import json
import os
import resource
import sys
import time
from pathlib import Path

THREADS = 2
ADDED = []  # threads by each use of libmest


def use_mest():
    import numpy as np
    from support import fingerprint

    import mest
    from mest import Input, Linear, ReLU

    before = threads_here()
    layers = [Input(64), Linear(512, density=0.2), ReLU(), Linear(256, density=0.2), ReLU(), Linear(10, density=1.0)]
    model = mest.Model(layers, batch=32, threads=THREADS, method="set", learning_rate=0.1, momentum=0.9, seed=3)
    random = np.random.default_rng(0)
    for _ in range(10):
        model.step(random.normal(size=(32, 64)).astype(np.float32), random.integers(0, 10, 32).astype(np.int32))
    ADDED.append(threads_here() - before)
    return fingerprint(model)


def use_torch():
    import torch

    torch.set_num_threads(THREADS)
    a = torch.ones(300, 300)
    return float((a @ a + torch.exp(a).sum()).sum())


def use_sklearn():
    import numpy as np
    from sklearn.cluster import KMeans

    return float(KMeans(4, n_init=1, random_state=0).fit(np.random.default_rng(0).normal(size=(2000, 8))).inertia_)


def use_intel():
    """The runtime of MKL's users, in its own words and in GNU's, for a team of threads."""
    library = ctypes.CDLL(str(next(Path(sys.prefix).rglob("libiomp5.so"))))
    begin = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    seen = []
    library.GOMP_parallel(begin(lambda _: seen.append(library.omp_get_thread_num())), None, THREADS, 0)
    return len(seen)


USE = {"mest": use_mest, "torch": use_torch, "sklearn": use_sklearn, "intel": use_intel}


def threads_here():
    return len(os.listdir("/proc/self/task"))


def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def in_a_child():
    """What a fork's child gets; a child that hangs is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        import signal

        signal.alarm(60)
        os.write(writer, use_mest().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        said = lines.read()
    return said if os.waitpid(child, 0)[1] == 0 else "died"


def main(names):
    first = {name: USE[name]() for name in names}
    again = {name: USE[name]() for name in names}
    time.sleep(0.5)  # others' threads go on spinning for a while
    use_mest()
    time.sleep(0.02)
    begin = seconds()
    time.sleep(0.3)
    idle = seconds() - begin
    print(json.dumps({"first": first, "again": again, "added": ADDED, "idle": idle, "child": in_a_child()}))


if __name__ == "__main__":
    main(sys.argv[1:])
