"""The command line: one module per noun, loaded only when its noun is said.

`program` is all of it; `image.quick` answers the commands of `koguma image` that are typed all day, sooner than the
library that parses command lines is loaded. So nothing here and in `image` may import that library.
"""

from __future__ import annotations

import os
import sys

from koguma.errors import KogumaError


def main() -> None:
    """Run the program; an error a person can mend is one line on standard error."""
    try:
        status = _answer(sys.argv[1:])
    except KogumaError as error:
        print(f"koguma: {error}", file=sys.stderr)
        status = 1
    except BrokenPipeError:
        # Whoever read the output has seen enough, as in `koguma image log | head`; nothing is left to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _answer(words: list[str]) -> int:
    if words[:1] == ["image"]:
        from koguma.cli.image.quick import answer  # noqa: PLC0415 - for nobody else

        if answer(words[1:]):
            return 0
    from koguma.cli.program import run  # noqa: PLC0415 - see above

    return run()
