"""The test suite; start with ``reference.py``, the slow and obvious version of everything."""
