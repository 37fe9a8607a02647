"""Inspection rules: what to do with a node when its inspection says something. Pure but for `api-call`.

The schema, the operators and the actions are Ironic's; `engine` runs rules, `conditions` and `actions` are what they
are made of, `templates` fills in values, `subject` is what they look at and change.
"""
