"""The composition root and operations: the `bullring` command, configuration, processes, benches, drills.

Alone in reading files of configuration, the environment and the command line. May import every package;
no package imports it.
"""
