"""What the shell says, and in whose words."""

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastgmm
from fastgmm.cli import main
from fastgmm.cli.parser import build_parser
from fastgmm.cli.report import count, describe_selection
from fastgmm.cli.wording import ASSIGNED, FLAGS, WORDS, for_shell
from fastgmm.datasets import load_faithful
from fastgmm.selection import CRITERIA, select_model
from tests import sources


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savetxt("t.csv", load_faithful(), "%g", ",", header="eruptions,waiting", comments="")
    return "t.csv"


def test_every_flag_exists():
    parser = build_parser()
    words = ["fit", "x.csv", "-k", "2"]
    help_text = parser._subparsers._group_actions[0].choices["fit"].format_help()
    assert parser.parse_args(words).components == 2
    assert all(re.search(rf"(?<![\w-]){flag}\b", help_text) for flag in [*FLAGS.values(), *ASSIGNED.values()])
    parameters = {*fastgmm.GaussianMixture().get_params(), *inspect.signature(fastgmm.GaussianMixture.fit).parameters}
    assert {*FLAGS, *ASSIGNED} <= parameters
    assert not set(WORDS) & set(parameters)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("n_components = 300, n_samples = 272", "-k = 300, rows = 272"),
        ("Use covariance_type='diag' or 'spherical'", "Use --covariance diag or 'spherical'"),
        ("reg_covar=1e-06 exceeds", "--reg-covar 1e-06 exceeds"),
        ("(init_params, n_init), or tol.", "(--init, --n-init), or --tol."),
        ("sample_weight must be finite", "--weights must be finite"),
        ("use degenerate='floor' for degenerate data", "use --degenerate floor for degenerate data"),
        ("or use reg_scale='relative'", "or use --reg-scale relative"),
        ("tolerance atol total not_n_components", "tolerance atol total not_n_components"),
    ],
)
def test_messages_name_options(said, heard):
    assert for_shell(said) == heard


@pytest.mark.parametrize(
    "status", [s for s in fastgmm.FitStatus if s is not fastgmm.FitStatus.CALLBACK_STOPPED], ids=lambda s: s.name
)
def test_every_status_can_be_acted_on_in_the_shell(status):
    """The shell's own callback never stops a fit."""
    assert not re.search(r"\w=|\b(max_time|max_iter|n_init)\b", for_shell(status.value))


@pytest.mark.parametrize(
    ("number", "noun", "text"), [(1, "feature", "1 feature"), (0, "row", "0 rows"), (2, "batch", "2 batches")]
)
def test_count(number, noun, text):
    assert count(number, noun) == text


def test_an_error_names_what_was_typed(table, capsys):
    assert main(["fit", table, "-k", "300"]) == 1
    error = capsys.readouterr().err
    assert "-k = 300, rows = 272" in error
    assert "n_components" not in error
    assert main(["fit", table, "-k", "2", "--max-iter", "1"]) == 0
    shown = capsys.readouterr()
    assert "increase --max-iter, --tol" in shown.err
    assert "stopped at --max-iter before it converged" in shown.out
    assert "1 iteration." in shown.out


def test_one_feature_is_a_feature(table, capsys):
    assert main(["fit", table, "-k", "1", "--columns", "waiting"]) == 0
    assert "1 component, covariance type full; 272 rows, 1 feature." in capsys.readouterr().out


@pytest.mark.parametrize("criterion", CRITERIA)
def test_each_table_marks_its_own_best(criterion):
    result = select_model(load_faithful(), range(1, 5), criterion=criterion, random_state=0, n_init=2, tol=1e-6)
    text = describe_selection(result)
    assert text.split("\n\n")[0].startswith(criterion.upper())
    for block in text.split("\n\n")[:-1]:
        name = block.split()[0].lower()
        values = [float(cell) for line in block.splitlines()[1:] for cell in re.findall(r"-?\d+\.\d\d", line)]
        marked = re.findall(r"(-?\d+\.\d\d)\*", block)
        best = replace(result, criterion=name).ranked()[0]
        assert marked == [f"{getattr(best, name):.2f}"]
        assert float(marked[0]) == min(values)
    assert len(text.split("\n\n")) == 4
    assert f"* best by the criterion of its table; {criterion.upper()} decides" in text
    assert "best by BIC" in describe_selection(replace(result, criterion="bic"), ["bic"])


def test_info_tells_of_a_stream(tmp_path, capsys):
    model = fastgmm.GaussianMixture(2, random_state=0)
    for _ in range(2):
        model.partial_fit(load_faithful())
    model.save(tmp_path / "m.npz")
    assert main(["info", str(tmp_path / "m.npz")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"learnt from +544 rows in 2 batches", shown)
    assert f"{model.online_.score:.6g} a row" in shown


def test_options_for_long_and_for_difficult_fits_reach_the_library(table, capsys):
    options = ["--degenerate", "reseed", "--reg-scale", "relative", "--first-passes", "3"]
    assert main(["fit", table, "-k", "2", *options, "--out", "m.npz"]) == 0
    model = fastgmm.load("m.npz")
    assert (model.degenerate, model.reg_scale, model.first_passes) == ("reseed", "relative", fastgmm.MiniBatch(3))
    capsys.readouterr()
    assert main(["fit", table, "-k", "2", "--tol", "0", "--max-iter", "100000", "--max-time", "0.2"]) == 0
    shown = capsys.readouterr()
    assert "The fit stopped at --max-time before it converged" in shown.out
    assert "--max-time" in shown.err
    for words in (["--max-time", "0"], ["--degenerate", "hope"], ["--first-passes", "0"]):
        with pytest.raises(SystemExit) as stop:
            main(["fit", table, "-k", "2", *words])
        assert stop.value.code == 2


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
@pytest.mark.parametrize("kind", ["npy", "parquet-777", "zarr", "csv"])
def test_bad_rows_of_many_files_are_placed(tmp_path, monkeypatch, capsys, kind, how):
    """The same sentence whether the data are read into memory or in blocks: file, row in it, row of all, column."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(3):
        x, w = rng.normal(size=(500, 3)), np.ones(500)
        if number == 2:
            x[123, 1], w[77] = np.nan, -1.0
        Path("data", str(number)).mkdir(parents=True)
        path = sources.write(Path("data", str(number)), kind, x, w)
    named = kind in sources.NAMED
    place = " (line 125)" if kind == "csv" else ""
    column, weight = ("'b'", "w") if named else ("2", "4")
    assert main(["fit", "data", "-k", "2", "--columns", "1-3", how]) == 1
    expected = f"{path}, row 124{place}, row 1124 of all files, column {column}: nan is no number; remove the row or"
    assert expected in capsys.readouterr().err
    assert main(["fit", "data", "-k", "2", "--columns", "1,3", "--weights", weight, how]) == 1
    place = " (line 79)" if kind == "csv" else ""
    assert f"the weight of row 78{place} of {path} is negative (-1.0)" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_many_files_go_by_the_name_of_the_whole(tmp_path, monkeypatch, capsys, how):
    """Not by that of the first of them."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for part, rows in enumerate(np.array_split(load_faithful(), 3)):
        np.save(f"data/{part}.npy", rows)
    np.save("short.npy", np.ones(200))
    for name in ("data", "data/*.npy"):
        assert main(["fit", name, "-k", "2", "--json", how]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["data"], shown["n_rows"]) == (name, 272)
        assert main(["fit", name, "-k", "2", "--weights", "short.npy", how]) == 1
        assert f"short.npy has 200 weights, but {name} has 272 rows" in capsys.readouterr().err
