"""The programs of this folder are no tests, and some need an environment of their own."""

collect_ignore_glob = ["*.py"]
