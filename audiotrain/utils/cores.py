"""Cores that this process may use."""

import os

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def available_cores() -> int:
    """Cores that this process may use, or fewer where OMP_NUM_THREADS, MKL_NUM_THREADS or
    OPENBLAS_NUM_THREADS say so."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    limits = [os.environ.get(name, "") for name in THREAD_VARIABLES]
    return min([cores, *(int(limit) for limit in limits if limit.isdecimal() and int(limit))])
