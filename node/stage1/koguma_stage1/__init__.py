"""Stage 1: the program of the small system that iPXE loads. It registers the machine or boots stage 2, and never stays.

Python's standard library only, and little of it: under emulation every imported module is time of every boot, which
is why this package has plain classes for its values (docs/decisions/node-stage1-start.md).
"""
