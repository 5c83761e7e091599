"""Print how many reported bugs diagnose names, by level and precision of the dump.

python golden/measure/reports.py [LEVEL ...] [--only PATTERN]
"""

import re
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from port.judging import LEVELS, judge
from port.reports import reports


def main(arguments: list[str]) -> None:
    pattern = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    dtypes = [a for a in arguments if "float" in a] or ["float32"]
    for level in [a for a in arguments if a in LEVELS] or LEVELS:
        for dtype in dtypes:
            count: Counter[str] = Counter()
            start = time.perf_counter()
            for i, report in enumerate(reports()):
                if report.only and level not in report.only:
                    continue
                label = f"{i} {report.kind} {report.named} {report.family} {report.inputs}"
                if not re.search(pattern, label):
                    continue
                verdict = judge(report, level, dtype)
                count[verdict.word] += 1
                if verdict.word not in ("named", "hidden") or "-v" in arguments:
                    print(f"  {label}: {verdict.word}\n      {verdict.said[:600]}", flush=True)
            seen = count.total() - count["hidden"]
            print(
                f"{level} {dtype}: {dict(count)}, named {count['named'] / max(seen, 1):.1%} of "
                f"{seen} in {time.perf_counter() - start:.0f} s",
                flush=True,
            )


main(sys.argv[1:])
