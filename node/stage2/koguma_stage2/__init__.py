"""What runs on the way into stage 2 and in it: `bring_root` in the initramfs, which mounts and renders,
and `report`, as long as the machine is up.

Python's standard library, `koguma_node`, and for templates the image's own python3-jinja2. Distribution-specific
places (file names of Debian and systemd) are in `places`.
"""
