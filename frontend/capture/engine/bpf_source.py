"""The one C text that bcc compiles, made of the files in ``bpf/``.

bcc turns map methods into calls only in the text it is given, not in the files which that text
includes. So local includes are put in place here, once each, with ``#line`` directives that
let the compiler's messages name the real file and line.
"""

from __future__ import annotations

import re
from importlib import resources

_LOCAL_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"\s*$')


def read_source(name: str = "kleak.c") -> str:
    """Return the text of a file of ``bpf/`` with its local includes in place.

    Raises FileNotFoundError for an include that does not exist.
    """
    return "".join(_inline(name, set()))


def _inline(name: str, seen: set[str]) -> list[str]:
    if name in seen:
        return []
    seen.add(name)
    text = resources.files("kleak.bpf").joinpath(name).read_text()
    out = [f'#line 1 "bpf/{name}"\n']
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        include = _LOCAL_INCLUDE.match(line)
        if include is None:
            out.append(line)
            continue
        out.extend(_inline(include.group(1), seen))
        out.append(f'#line {number + 1} "bpf/{name}"\n')
    return out
