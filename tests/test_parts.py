"""Helpers of blocks become part of the blocks that call them, and of nothing else."""

import importlib.util

import numba.extending
import numpy as np
import pytest

from fastgmm.kernels import _jit, _parts
from fastgmm.kernels._cache import stamp


def block_with(options):
    """A block that calls a helper of its own, and a function that says what Numba keeps of that one."""

    @numba.extending.register_jitable(**options)
    def thrice(value):
        return 3 * value

    def block(table, item, _worker, _tag):
        table[item] = thrice(table[item])

    return stamp(block)


def result(block):
    table = np.array([5, 7], np.int64)
    _jit.launch(_jit.compile_block(block, "float64"), table, 2, 1)
    return table.tolist()


@pytest.fixture
def compiled(monkeypatch):
    """Names of the libraries that Numba made machine code of."""
    found = []
    real = _parts.codegen.JITCodeLibrary._finalize_specific

    def record(self):
        found.append(self.name)
        real(self)

    monkeypatch.setattr(_parts.codegen.JITCodeLibrary, "_finalize_specific", record)
    monkeypatch.setenv("FASTGMM_CACHE", "0")
    return found


def test_a_helper_is_no_code_of_its_own(compiled):
    assert result(block_with(_parts.options())) == [15, 21]
    assert [name for name in compiled if "thrice" in name] == []
    assert len([name for name in compiled if "block" in name]) == 1


@pytest.mark.parametrize(("module", "name"), [("codegen", "JITCodeLibrary"), ("compiler", "Compiler")])
def test_without_numbas_private_classes_the_package_is_imported_all_the_same(module, name, monkeypatch):
    monkeypatch.delattr(getattr(_parts, module), name)
    spec = importlib.util.spec_from_file_location("parts_without_numbas_classes", _parts.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again.options() == {"no_cfunc_wrapper": True}


@pytest.mark.parametrize("broken", [TypeError, AttributeError, None])
def test_a_library_that_numba_makes_otherwise_is_left_to_numba(broken, compiled, monkeypatch):
    """It takes other arguments, or lacks what is asked of it."""
    real = _parts._Part.__init__

    def another(self, *given):
        if broken is not None:
            raise broken
        real(self, *given)
        del self._finalized

    monkeypatch.setattr(_parts._Part, "__init__", another)
    assert result(block_with(_parts.options())) == [15, 21]
    assert len([found for found in compiled if "thrice" in found]) == 1


def test_without_numbas_private_names_helpers_are_what_they_are_elsewhere(compiled, monkeypatch):
    monkeypatch.setattr(_parts, "_TOUCHED", (*_parts._TOUCHED, "a name of another release"))
    assert "pipeline_class" not in _parts.options()
    assert result(block_with(_parts.options())) == [15, 21]
    assert len([name for name in compiled if "thrice" in name]) == 1
