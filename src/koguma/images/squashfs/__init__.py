"""Squashfs 4.0 images straight from stored trees, without a tool: the same bytes from the same tree every time.

`layout` has the structures on the disk, `contents` packs what files hold, `donors` takes packed blocks from an image
made before, `inodes` and `attributes` write the tables, `image` puts all together. Source: the kernel's
Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h.
"""
