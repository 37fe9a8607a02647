"""What stage 1 and stage 2 share: speaking with the boot service. Python's standard library only, and little of it.

Every imported module is time of every boot under emulation; that is why there is an HTTP client here
(docs/decisions/node-stage1-start.md).
"""
