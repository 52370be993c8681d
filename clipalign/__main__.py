"""The `clipalign` script, and `python -m clipalign`, so that `torchrun -m clipalign train …` works.

Nothing heavy is imported before Ctrl-C and SIGTERM are attended to.
"""

from __future__ import annotations

import sys

from clipalign import interrupts


def main() -> None:
    """Run the command line of this process."""
    interrupts.attend()
    try:
        from clipalign.cli.app import main as run

        run()
    except KeyboardInterrupt:  # before the command began, or again while the first was dealt with
        if not interrupts.said:
            print("Error: Interrupted. Run the same command again.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
