"""Write the generated parts of the reference: `python docs/_generate`; with `--check`, only compare.

A page says where: what stands between `<!-- begin generated: NAME -->` and its end is written here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import from_python
import from_schema

DOCS = Path(__file__).parent.parent
_PART = re.compile(
    r"(?P<begin><!-- begin generated: (?P<name>[^>]+) -->\n).*?(?P<end><!-- end generated: (?P=name) -->)", re.DOTALL
)
PARTS = {**from_python.PARTS, **from_schema.PARTS}


def fresh(page: str) -> str:
    """A page with its generated parts as they should be.

    Raises:
        KeyError: The page wants a part that nothing here writes.
    """
    return _PART.sub(lambda part: f"{part['begin']}\n{PARTS[part['name']]().strip()}\n\n{part['end']}", page)


def main(check: bool) -> int:
    """Bring all pages up to date; the number of those that were not."""
    stale = 0
    for path in sorted(DOCS.rglob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = fresh(before)
        if before != after:
            stale += 1
            print(f"{path.relative_to(DOCS.parent)} {'is stale; run: python docs/_generate' if check else 'written'}")
            if not check:
                path.write_text(after, encoding="utf-8")
    return stale


if __name__ == "__main__":
    stale_pages = main(check="--check" in sys.argv[1:])
    sys.exit(stale_pages if "--check" in sys.argv[1:] else 0)
