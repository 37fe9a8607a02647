"""What runs in stage 2: the renderer, once and early, and the reporter, as long as the machine is up.

Python's standard library, `koguma_node`, and for templates the image's own python3-jinja2. Distribution-specific
places (file names of Debian and systemd) are in `places`.
"""
