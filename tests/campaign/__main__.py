"""`python -m tests.campaign`: run the campaign, or report on it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.campaign import __doc__ as about
from tests.campaign.cases import all_cases
from tests.campaign.commands import Zygote
from tests.campaign.ledger import Ledger, table


def main() -> int:
    """Run what was asked for; 1 when anything did not hold."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", help="cases whose name begins so; all for none")
    parser.add_argument("--list", action="store_true", help="cases, and how often each runs")
    parser.add_argument("--long", action="store_true", help="as often as the long form says")
    parser.add_argument("--trials", type=int, help="exactly so often")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="only the table of what was recorded")
    parser.add_argument("-o", "--output", type=Path, default=Path("campaign"))
    args = parser.parse_args()
    cases = [
        c
        for name, c in all_cases().items()
        if not args.only or any(name.startswith(o) for o in args.only)
    ]
    if not cases:
        parser.error(f"no case begins with {' or '.join(args.only)}; --list shows them")
    if args.list:
        for case in cases:
            first = (case.try_it.__doc__ or "").strip().splitlines()[:1]
            print(f"{case.name:<32} {case.short:>4} {case.long:>6}  {''.join(first)}")
        return 0
    ledger = Ledger(args.output, args.seed)
    if not args.report:
        done = ledger.done()
        with Zygote() as zygote:
            for case in cases:
                wanted = args.trials or (case.long if args.long else case.short)
                for number in range(wanted):
                    if (case.name, args.seed, number) in done:
                        continue
                    row = ledger.try_once(case, number, zygote)
                    if row["outcome"] != "held":
                        print(f"{case.name} {number}: {row['outcome']}: {row['note']}", flush=True)
                print(f"{case.name}: {wanted} done", file=sys.stderr, flush=True)
    print(table(ledger.rows))
    return int(any(r["outcome"] != "held" for r in ledger.rows))


if __name__ == "__main__":
    sys.exit(main())
