"""Ironic's v1 API over Koguma's own nodes, ports and states: what OpenStack's clients speak.

    app        ASGI: threads, headers, errors            routes     which function answers which path
    http       requests, answers, refusals               versions   microversions and the documents of the root
    fields     how a resource's columns look outside     resource   list, show, make, change, forget, for any resource
    patching   JSON Patch                                checks     values from outside
    nodes, states, node_parts, ports, …                  one module for each resource

There is no model behind it but Koguma's: rows are read as columns and shown under Ironic's names, and what is asked of
a node goes through `koguma.db.nodes`, as everywhere.
"""
