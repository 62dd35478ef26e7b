"""Long versions of tests, as commands: ``python -m tests.tools.NAME``. The suite runs a short version of each."""
