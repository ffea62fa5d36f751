"""The command line: the only place that prints, reads the environment and exits."""

import os
import sys


def main() -> None:
    """Entry point of ``synquest``: errors become one line on standard error, never a traceback."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from analyzer.errors import InputError, SynquestError

    try:
        from analyzer.cli.app import app

        app(standalone_mode=True)
    except SynquestError as error:
        print(f"synquest: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, InputError) else 2)
    except KeyboardInterrupt:
        print("synquest: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("SYNQUEST_DEBUG"):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"synquest: internal error: {text} (SYNQUEST_DEBUG=1 shows where)", file=sys.stderr)
        sys.exit(1)
