"""The command line: one module per noun, loaded only when its noun is said.

`program` is all of it; `image.quick` answers the commands of `koguma image` that are typed all day, sooner than the
library that parses command lines is loaded. So nothing here and in `image` may import that library.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from koguma.cli.errors import one_line
from koguma.errors import KogumaError

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main() -> None:
    """Run the program; an error a person can mend is one line on standard error."""
    words = sys.argv[1:]
    _open_streams()
    try:
        status = _answer(words)
        sys.stdout.flush()
    except KogumaError as error:
        status = _tell(str(error))
    except BrokenPipeError:
        status = 1  # whoever read the output has seen enough, as in `koguma image log | head`
    except KeyboardInterrupt:
        status = INTERRUPTED
    except (OSError, UnicodeError) as error:
        if words[:1] != ["image"]:
            raise  # in a service it is a defect of ours
        status = _tell(_refusal(error))
    _drop_output()
    sys.exit(status)


def _answer(words: list[str]) -> int:
    if words[:1] == ["image"]:
        from koguma.cli.image.quick import answer  # noqa: PLC0415 - for nobody else

        if answer(words[1:]):
            return 0
    from koguma.cli.program import run  # noqa: PLC0415 - see above

    return run()


def _open_streams() -> None:
    """Whoever closed a standard stream gets one to nowhere: else a file of ours would be opened in its place.

    Characters that the locale lacks are written as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - it lives as long as the program
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    with suppress(AttributeError):  # a test's own stream
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _tell(text: str) -> int:
    with suppress(OSError):
        print(f"koguma: {one_line(text)}", file=sys.stderr)
    return 1


def _refusal(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"text must be UTF-8, got {error.object[:80]!a}"
    if isinstance(error, UnicodeError):
        return f"text must be UTF-8: {error}"
    place = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
    return f"the system refused: {error.strerror or error}{place}"


def _drop_output() -> None:
    """What could not be written before is not tried again when Python ends, which would change the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
