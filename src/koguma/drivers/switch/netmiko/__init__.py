"""Switches with a command line over SSH, by the `netmiko` library: one small folder for each vendor's dialect."""
