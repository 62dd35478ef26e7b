"""The command line at its edges: where a fit runs, little memory, wide tables, streams that are no files."""

import argparse
import builtins
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import fastgmm
from fastgmm.cli import inputs, main, outputs, parser, report, results, system, tables
from fastgmm.cli.distributed import fitting
from fastgmm.datasets import load_faithful
from fastgmm.errors import ClusterError, InvalidDataError
from fastgmm.mixture import Mixture


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savetxt("t.csv", load_faithful(), "%g", ",", header="eruptions,waiting", comments="")
    return "t.csv"


# -- where it runs -----------------------------------------------------------------------------------------------------


def test_a_scheduler_that_is_there_is_used_and_left_alone(table):
    """By its address: the same bits, and the cluster goes on."""
    distributed = pytest.importorskip("distributed", reason="the scheduler is Dask's")
    words = ["fit", table, "-k", "2", "--max-iter", "4", "--tol", "0"]
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp://"
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tcp://")
        assert main([*words, "--dask", address, "--out", "there.npz"]) == 0
        with distributed.Client(cluster) as client:
            assert client.submit(sum, (1, 2)).result() == 3
    assert main([*words, "--out", "here.npz"]) == 0
    assert fastgmm.load("there.npz").means_.tobytes() == fastgmm.load("here.npz").means_.tobytes()


def test_a_scheduler_that_does_not_answer_is_an_error_with_its_address(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the client is Dask's")

    def refuse(address, timeout):
        msg = f"Timed out trying to connect to {address} after {timeout} s"
        raise OSError(msg)

    monkeypatch.setattr(distributed, "Client", refuse)
    with (
        pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://nowhere:1 within 15 s"),
        fitting("tcp://nowhere:1"),
    ):
        pytest.fail("there is nothing to fit on")


def test_dask_that_is_missing_is_named(table, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["fit", table, "-k", "2", "--dask", "local:2"]) == 1
    assert "--dask needs dask, which is not installed; run: pip install 'fastgmm[dask]'." in capsys.readouterr().err


# -- memory ------------------------------------------------------------------------------------------------------------


def without(monkeypatch, missing, content=None):
    """Files whose names begin so cannot be read, or hold something else."""
    read = Path.read_text

    def read_text(self, *args, **kwargs):
        for name, text in {**dict.fromkeys(missing), **(content or {})}.items():
            if str(self).startswith(name):
                if text is None:
                    raise FileNotFoundError(2, "No such file or directory", str(self))
                return text
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)


def test_memory_is_what_may_be_used(monkeypatch):
    without(monkeypatch, ["/sys/fs/cgroup"], {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    2048 kB\n"})
    assert inputs.available_memory() == 2048 << 10
    without(monkeypatch, [], {"/proc/meminfo": "MemAvailable: 2048 kB\n", "/sys/fs/cgroup/memory.max": "1000000\n"})
    assert inputs.available_memory() == 1_000_000
    without(monkeypatch, [], {"/proc/meminfo": "MemAvailable: 2048 kB\n", "/sys/fs/cgroup": "max\n"})
    assert inputs.available_memory() == 2048 << 10


def test_memory_of_systems_without_proc(monkeypatch):
    without(monkeypatch, ["/proc/meminfo", "/sys/fs/cgroup"])
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert inputs.available_memory() == 4_096_000
    without(monkeypatch, ["/sys/fs/cgroup"], {"/proc/meminfo": "MemTotal: 9 kB\n"})
    assert inputs.available_memory() == 4_096_000
    monkeypatch.delattr(os, "sysconf")
    imported = builtins.__import__

    def without_resource(name, *args, **kwargs):
        if name == "resource":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_resource)
    assert inputs.available_memory() == 1 << 32


def test_a_limit_on_the_address_space_counts(monkeypatch):
    resource = pytest.importorskip("resource", reason="limits of processes are POSIX's")
    monkeypatch.setattr(resource, "getrlimit", lambda what: (12345, 99999) if what == resource.RLIMIT_AS else None)
    assert inputs.available_memory() == 12345


def test_a_table_larger_than_its_share_is_read_in_blocks_and_says_so(table, monkeypatch, capsys):
    assert main(["fit", table, "-k", "2", "--out", "memory.npz"]) == 0
    assert "reading it in blocks" not in capsys.readouterr().err
    monkeypatch.setattr(inputs, "available_memory", lambda: 1000)
    assert main(["fit", table, "-k", "2", "--out", "blocks.npz"]) == 0
    said = capsys.readouterr().err
    assert "t.csv takes 0.0 GB" in said
    assert "reading it in blocks (--no-stream reads it into memory)" in said
    assert fastgmm.load("blocks.npz").means_.tobytes() == fastgmm.load("memory.npz").means_.tobytes()


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1,2\n3,4\n", "expected one column of weights, got 2"),
        ("1\n2\n3\n", "has 3 weights, but t.csv has 272 rows"),
        ("w\n", "w.csv has no rows of data"),
        ("1\nnan\n", "row 2"),
    ],
)
@pytest.mark.parametrize("way", ["--stream", "--no-stream"])
def test_files_of_weights_that_do_not_fit(table, capsys, content, said, way):
    Path("w.csv").write_text(content)
    assert main(["fit", table, "-k", "2", "--weights", "w.csv", way]) == 1
    assert said in capsys.readouterr().err


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_large_mixtures_are_cut():
    k, d = report.MOST_COMPONENTS + 2, report.MOST_FEATURES + 1
    mixture = Mixture(np.full(k, 1.0 / k), np.zeros((k, d)), np.ones(k), "spherical")
    lines = report.describe_mixture(mixture, None).splitlines()
    assert lines[-2:] == ["... and 2 more components", "... and 1 more feature"]
    assert len(lines) == 1 + report.MOST_COMPONENTS + 2
    small = Mixture(np.ones(1), np.zeros((1, 2)), np.ones(1), "spherical")
    assert "more" not in report.describe_mixture(small, ("a", "b"))


class Column:
    def __init__(self, names, *, named):
        self.names, self.named = tuple(names), named


def test_columns_are_listed_up_to_a_point():
    assert tables.describe_columns(Column("ab", named=False)) == "its 2 columns have no names and are numbered from 1"
    assert tables.describe_columns(Column("ab", named=True)) == "its columns are a, b"
    assert tables.describe_columns(Column("abcd", named=True), most=2) == "its columns are a, b and 2 more"


def test_what_json_holds():
    value = {
        "path": Path("a"),
        3: np.float64(np.nan),
        "x": np.arange(2),
        "y": (np.bool_(True), None, 2, "t"),
        "z": {1.5},
    }
    assert results.plain(value) == {"path": "a", "3": None, "x": [0, 1], "y": [True, None, 2, "t"], "z": [1.5]}
    with pytest.raises(TypeError, match="cannot write a object as JSON"):
        results.plain(object())


def test_results_go_to_streams_that_are_text_only():
    """As when a notebook or a test has put its own in the place of the standard output."""
    pieces = [{"label": np.array([0, 1])}, {"label": np.array([2])}]
    stream = io.StringIO()
    outputs.print_columns(iter(pieces), as_json=False, stream=stream)
    assert stream.getvalue().split() == ["label", "0", "1", "2"]
    stream = io.StringIO()
    outputs.print_columns(iter(pieces), as_json=True, stream=stream)
    assert json.loads(stream.getvalue()) == {"label": [0, 1, 2]}
    binary = io.BytesIO()
    text = io.TextIOWrapper(binary)
    outputs.print_columns(iter(pieces), as_json=False, stream=text)
    assert binary.getvalue().split() == [b"label", b"0", b"1", b"2"]


def test_a_format_whose_package_is_missing_is_an_error_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidDataError, match=r"pip install 'fastgmm\[parquet\]'"):
        outputs.write_columns(iter([]), io.BytesIO(), "x.parquet", 0)


def test_versions_of_what_is_not_installed_are_none():
    assert system._version("numpy") == np.__version__
    assert system._version("no-such-package") is None


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (parser._seed, "-1", "a whole number from 0, got '-1'"),
        (parser._seed, "x", "a whole number from 0, got 'x'"),
        (parser._not_negative, "x", "a number from 0, got 'x'"),
        (parser._not_negative, "inf", "a number from 0, got 'inf'"),
        (parser._not_negative, "nan", "a number from 0, got 'nan'"),
        (parser._positive, "0", "got '0'"),
    ],
)
def test_numbers_that_are_none(read, text, said):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read(text)
    assert said in str(caught.value)
    assert parser._seed("7") == 7
    assert parser._not_negative("0.5") == 0.5
