"""Helpers of blocks are compiled once: with the block that they become part of.

Numba optimises a function that others call, and makes machine code of it, before it links it into a caller, where both
happen again. Nobody calls the helpers of a block by themselves, so the first time is lost: a seventh of what the first
fit of a new machine waits for. Here a helper's code is kept as it is, to be linked.

All of this hangs on private names of Numba's, which any release may change: the class `codegen.JITCodeLibrary` with its
members in `_TOUCHED` and `_finalized`, `compiler.Compiler.define_pipelines`, and of a compiler's `state` the fields
`library`, `targetctx` and `func_id`. Should one be gone, helpers are compiled as Numba does it, to the same results:
only a first fit takes longer.
"""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from numba.core import codegen, compiler

_TOUCHED = (
    *("codegen", "get_pointer_to_function"),
    *("_ensure_finalized", "_finalize_final_module", "_optimize_final_module"),
)


_Library: Any = getattr(codegen, "JITCodeLibrary", object)
_Plain: Any = getattr(compiler, "Compiler", object)


class _Part(_Library):  # type: ignore[misc]  # Numba has no types
    """Code that is linked, never run from here."""

    @property
    def codegen(self) -> Any:
        """What a function's environment would be given to, which code that never raises does not look at."""
        return SimpleNamespace(set_env=lambda *_: None)

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:  # noqa: ARG002 -- Numba's signature
        """0: there is no machine code."""
        self._ensure_finalized()
        return 0


class _Compiler(_Plain):  # type: ignore[misc]  # Numba has no types
    """Numba's own, with a library that is a part."""

    def define_pipelines(self) -> Any:
        """As the class above, once the library is chosen."""
        with suppress(AttributeError, TypeError):  # then Numba chooses one
            state = self.state
            part = _Part(state.targetctx.codegen(), state.func_id.func_qualname)
            if hasattr(part, "_finalized"):
                state.library = part
        return super().define_pipelines()


def options() -> dict[str, Any]:
    """The options of Numba's with which a helper is compiled."""
    plain = {"no_cfunc_wrapper": True}
    there = all(hasattr(_Library, name) for name in _TOUCHED) and hasattr(_Plain, "define_pipelines")
    return {**plain, "pipeline_class": _Compiler} if there else plain
