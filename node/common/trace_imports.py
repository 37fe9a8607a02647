"""Prints the files of Python packages and of every module that they lead to: trace_imports.py LIBRARY PACKAGE…

Run by the very Python that will later run them without the rest of the standard library, in an initramfs.
"""

import modulefinder
import os
import sys

EXCLUDED = (
    "argparse", "asyncio", "bz2", "concurrent", "csv", "dataclasses", "difflib", "doctest", "email",
    "getopt", "gzip", "http", "logging", "lzma", "multiprocessing", "optparse", "pdb", "pkgutil",
    "pydoc", "ssl", "tarfile", "tkinter", "unittest", "urllib.request", "xml", "xmlrpc", "zipfile",
)  # fmt: skip
"""Imported by the standard library only inside functions that nothing here calls. Whoever uses this proves afterwards
that the packages can be imported without them."""
ALWAYS = (
    "encodings.ascii", "encodings.latin_1", "encodings.utf_8", "encodings.idna", "stringprep", "unicodedata", "runpy",
    "encodings.unicode_escape", "pkgutil",
)  # fmt: skip
"""Loaded by name at run time, so that no import statement shows them."""


def main() -> None:
    library, *packages = sys.argv[1:]
    sys.path.insert(0, library)
    sys.path.append("/usr/lib/python3/dist-packages")
    finder = modulefinder.ModuleFinder(excludes=[name for name in EXCLUDED if name not in ALWAYS])
    found = set()
    for package in packages:
        for folder, _, names in os.walk(os.path.join(library, package)):  # noqa: PTH118 - os.walk speaks strings
            found |= {os.path.join(folder, name) for name in names if name.endswith(".py")}  # noqa: PTH118
    for path in sorted(found):
        finder.run_script(path)
    for name in ALWAYS:
        finder.import_hook(name)
    found |= {module.__file__ for name, module in finder.modules.items() if module.__file__ and name != "__main__"}
    print("\n".join(sorted(found)))


main()
