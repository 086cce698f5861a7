"""What the kernel's types said before, so that they need not be read again.

A kernel's BTF has 4 to 6 MB; the hundred answers that decide what to hook have 3 kB. They are kept
for one kernel (its build-id) and one parser (its source).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import astuple
from importlib import resources
from typing import Any

from kleak.capture.engine.cache import keep, read_kept
from kleak.model.session import Kernel
from kleak.parsers.btf import Btf, Member


class RememberedBtf(Btf):
    """Types that are read only where a question was not answered before."""

    def __init__(self, kernel: Kernel, size_bytes: int, read: Callable[[], Btf]) -> None:
        """``size_bytes`` is that of the kernel's BTF, which ``read`` returns.

        Of a kernel without a build-id nothing is remembered.
        """
        self._read = read
        self._btf: Btf | None = None
        self._answers: dict[str, Any] = {}
        self._name: str | None = None
        if kernel.build_id is None:
            return
        parser = resources.files("kleak.parsers").joinpath("btf.py").read_bytes()
        means = hashlib.sha256(f"{kernel} {size_bytes} ".encode() + parser)
        self._name = f"{means.hexdigest()}.types"
        self._answers = json.loads(read_kept(self._name) or "{}")

    def remember(self) -> None:
        """Keep the answers for the next run, if there are new ones."""
        if self._btf is not None and self._name is not None:
            keep(self._name, json.dumps(self._answers).encode())

    def struct_size(self, name: str) -> int | None:
        """See Btf."""
        number: int | None = self._ask("struct_size", name)
        return number

    def member(self, name: str, path: str) -> Member | None:
        """See Btf."""
        fields = self._ask("member", name, path)
        return None if fields is None else Member(*fields)

    def path_at(self, name: str, offset: int) -> str | None:
        """See Btf."""
        path: str | None = self._ask("path_at", name, offset)
        return path

    def enumerator(self, name: str) -> int | None:
        """See Btf."""
        number: int | None = self._ask("enumerator", name)
        return number

    def has_function(self, name: str) -> bool:
        """See Btf."""
        return bool(self._ask("has_function", name))

    def function_id(self, name: str) -> int | None:
        """See Btf."""
        number: int | None = self._ask("function_id", name)
        return number

    def typedef_id(self, name: str) -> int | None:
        """See Btf."""
        number: int | None = self._ask("typedef_id", name)
        return number

    def function_parameters(self, name: str) -> tuple[str, ...] | None:
        """See Btf."""
        names = self._ask("function_parameters", name)
        return None if names is None else tuple(names)

    def function_result_bytes(self, name: str) -> int | None:
        """See Btf."""
        number: int | None = self._ask("function_result_bytes", name)
        return number

    def _ask(self, question: str, *names: str | int) -> Any:
        key = " ".join(map(str, (question, *names)))
        if key not in self._answers:
            if self._btf is None:
                self._btf = self._read()
            answer = getattr(self._btf, question)(*names)
            self._answers[key] = astuple(answer) if isinstance(answer, Member) else answer
        return self._answers[key]
