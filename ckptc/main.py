"""The command line: arguments in, exit code out. What is heavy is imported by the command that needs it.

Exit codes: 0 done, 1 failed with a diagnostic, 2 usage; stopped by a signal 130 (SIGINT), 143 (SIGTERM), 129 (SIGHUP).
"""

from __future__ import annotations

import sys

from .cli.commands import invoke
from .runtime.stopping import Stop, stoppable
from .streams import make_usable

USAGE = 2


def main(arguments: list[str] | None = None) -> None:
    """Run one command line and leave the process with its exit code. Never shows a traceback by itself."""
    arguments = sys.argv[1:] if arguments is None else arguments
    make_usable()
    stop = Stop()
    try:
        with stoppable() as stop:
            code = invoke(arguments) or (0 if arguments else USAGE)
    except SystemExit:
        raise
    except BaseException as error:
        from .failure import report

        code = report(error, "--json" in arguments, stop.exit_code)
    sys.exit(code)
