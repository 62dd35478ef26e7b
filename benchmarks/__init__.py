"""Benchmarks: ``data`` builds every problem; asv runs some, the others are run by hand.

- ``asv run`` and ``asv continuous`` (``asv.conf.json``): ``kernels``, ``fit``, ``predict``, ``startup``.
- ``pytest benchmarks --benchmark-only``: the quick loop on single passes (``test_quick``).
- ``python -m benchmarks.compare``: this library against others: same data, same start, same iterations.
- ``python -m benchmarks.memory``: peak memory of a fit against its stated bound.
- ``python -m benchmarks.online``: what mini-batch passes before a fit save.
- ``python -m benchmarks.peak``: what the machine's multiply-add units can do, the limit of every kernel.

``FASTGMM_BENCH_SMALL=1`` shrinks every problem, for a smoke run.
"""
