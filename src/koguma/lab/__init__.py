"""The virtual datacentre: a switch, a controller, chassis with BMCs and machines, all real, all in namespaces.

Owns everything below `<state_dir>/lab` and every namespace whose name starts with the lab's name. It starts Koguma in
the controller's namespace as any site would, and speaks with it over its API only: nothing here knows the database.
"""
