"""The steps of stage 1, one per file; `runner.STEPS` says in which order each mode runs them.

A step offers OUTCOME (what holds afterwards), PHASE (what it counts as in the boot record), TIMEOUT_S and run(context).
"""
