"""The command line as a user types it: results, files, one sentence for every mistake, and nothing half written."""

import io
import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import fastgmm
from fastgmm.cli import COMMANDS, main
from fastgmm.datasets import load_faithful

FAITHFUL = str(files("fastgmm.datasets").joinpath("faithful.csv"))
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    """Every test runs in its own empty directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    """Run a command as the shell would; returns status, standard output, standard error."""

    def run(*words):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def model(run):
    assert run("fit", FAITHFUL, "-k", 2, "--out", "model.npz")[0] == 0
    return "model.npz"


def shell(*words, stdin=None, **env):
    return subprocess.run(
        [sys.executable, "-m", "fastgmm", *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env},
    )


def listing():
    return sorted(path.name for path in Path().iterdir())


def assert_one_sentence(status, out, err, *, expected=1):
    """A failure: the right status, nothing on standard output, one line that ends the matter."""
    assert status == expected
    assert out == ""
    lines = err.strip().splitlines()
    assert lines[-1].startswith("fastgmm")
    assert "error: " in lines[-1]
    assert "Traceback" not in err
    if expected == 1:
        assert len([line for line in lines if "warning: " not in line]) == 1


# -- what works --------------------------------------------------------------------------------------------------------


def test_demo_chooses_prints_and_writes():
    pytest.importorskip("matplotlib", reason="the demo draws its plots with matplotlib")
    done = shell("demo")
    assert done.returncode == 0, done.stderr
    assert "2314.30*" in done.stdout  # mclust's choice and value: EEE, three components, 2314.30
    assert "3 components, covariance type tied; 272 rows" in done.stdout
    assert re.search(r"component\s+weight\s+eruptions \(std\)\s+waiting \(std\)", done.stdout)
    assert "Wrote faithful.npz and faithful.png." in done.stdout
    assert done.stderr == ""
    assert listing() == ["faithful.npz", "faithful.png"]
    assert Path("faithful.png").read_bytes().startswith(b"\x89PNG")
    assert fastgmm.load("faithful.npz").feature_names_in_.tolist() == ["eruptions", "waiting"]


def test_demo_without_matplotlib(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, _ = run("demo")
    assert status == 0
    assert "No picture: drawing needs matplotlib" in out
    assert listing() == ["faithful.npz"]
    assert_one_sentence(*run("demo", "--plot", "x.png", "--out", "y.npz"))
    assert listing() == ["faithful.npz"]


def test_fit_gives_the_numbers_of_the_library(run):
    status, out, err = run(
        "fit", FAITHFUL, "-k", "2", "--covariance", "diag", "--json", "--seed", "3", "--out", "m.npz"
    )
    assert (status, err) == (0, "")
    told = json.loads(out)
    model = fastgmm.GaussianMixture(2, covariance_type="diag", random_state=3).fit(load_faithful())
    assert told["means"] == model.means_.tolist()
    assert told["converged"] is True
    assert told["bic"] == pytest.approx(model.bic(load_faithful()), rel=1e-12)
    assert told["aic"] == pytest.approx(model.aic(load_faithful()), rel=1e-12)
    assert told["icl"] == pytest.approx(model.icl(load_faithful()), rel=1e-12)
    np.testing.assert_array_equal(fastgmm.load("m.npz").means_, model.means_)


def test_fit_table(run):
    status, out, err = run("fit", FAITHFUL, "-k", 2)
    assert (status, err) == (0, "")
    assert "2 components, covariance type full; 272 rows, 2 features." in out
    assert "The fit converged" in out
    assert "BIC 2322.19" in out
    assert listing() == []


def test_fit_options_reach_the_library(run):
    options = ["--init", "random_from_data", "--n-init", 3, "--tol", "1e-4", "--max-iter", 500, "--reg-covar", "1e-5"]
    assert run("fit", FAITHFUL, "-k", 3, *options, "--seed", 7, "--out", "m.npz")[0] == 0
    settings = fastgmm.load("m.npz").get_params()
    expected = {"init_params": "random_from_data", "n_init": 3, "tol": 1e-4, "max_iter": 500, "reg_covar": 1e-5}
    assert {name: settings[name] for name in expected} == expected
    assert settings["random_state"] == 7


def test_weights_are_repetitions(run):
    x = load_faithful()
    weights = np.arange(len(x)) % 3
    Path("w.csv").write_text(
        "a,b,w\n" + "".join(f"{a!r},{b!r},{w}\n" for (a, b), w in zip(x.tolist(), weights, strict=True))
    )
    np.save("repeated.npy", np.repeat(x, weights, axis=0))
    np.save("w.npy", weights)
    tight = ["--tol", "1e-9", "--max-iter", 1000, "--json"]
    first = json.loads(run("fit", "w.csv", "-k", 2, "--weights", "w", *tight)[1])
    second = json.loads(run("fit", "repeated.npy", "-k", 2, *tight)[1])
    third = json.loads(run("fit", "w.csv", "-k", 2, "--columns", "a,b", "--weights", "w.npy", *tight)[1])
    assert first["feature_names"] == ["a", "b"]
    assert first["bic"] == pytest.approx(second["bic"], rel=1e-6)
    assert first["means"] == third["means"]


def test_predict_finds_the_columns_by_name(run, model):
    x = load_faithful()
    Path("other.csv").write_text(
        "id,waiting,eruptions\n" + "".join(f"r{i},{b},{a}\n" for i, (a, b) in enumerate(x.tolist()))
    )
    status, out, err = run("predict", model, "other.csv")
    assert (status, err) == (0, "")
    expected = fastgmm.load(model).mixture_.predict(x)
    assert out.splitlines() == ["label", *map(str, expected)]


@pytest.mark.parametrize("extension", ["csv", "npy", "parquet", "json"])
def test_predict_writes_every_format(run, model, extension):
    if extension == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    name = f"labels.{extension}"
    status, out, _ = run("predict", model, FAITHFUL, "--proba", "--out", name)
    assert status == 0
    assert f"Wrote {name}." in out
    mixture = fastgmm.load(model).mixture_
    probabilities = mixture.responsibilities(load_faithful())
    expected = np.column_stack([probabilities.argmax(axis=1), probabilities])
    if extension == "json":
        read = np.column_stack(list(json.loads(Path(name).read_text()).values()))
    else:
        from fastgmm.cli.inputs import read_data

        read = read_data(name).x
    np.testing.assert_array_equal(read, expected)


def test_score(run, model):
    x = load_faithful()
    loaded = fastgmm.load(model)
    del loaded.feature_names_in_  # as for scikit-learn, an array without names would be worth a warning
    told = json.loads(run("score", model, FAITHFUL, "--json", "--out", "d.npy")[1])
    assert told["mean_log_likelihood"] == pytest.approx(loaded.score(x), rel=1e-12)
    assert told["bic"] == pytest.approx(loaded.bic(x), rel=1e-12)
    assert told["icl"] == pytest.approx(loaded.icl(x), rel=1e-12)
    np.testing.assert_array_equal(np.load("d.npy"), loaded.score_samples(x))
    assert "mean log-likelihood" in run("score", model, FAITHFUL)[1]


def test_sample(run, model):
    status, out, err = run("sample", model, 5, "--seed", 4, "--labels")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "eruptions,waiting,component"
    x, z = fastgmm.load(model).mixture_.sample(5, 4)
    read = np.loadtxt(io.StringIO(out), delimiter=",", skiprows=1)
    np.testing.assert_array_equal(read, np.column_stack([x, z]))
    assert run("sample", model, 1000, "--out", "s.npy")[0] == 0
    assert np.load("s.npy").shape == (1000, 2)
    assert json.loads(run("sample", model, 2, "--json")[1]).keys() == {"eruptions", "waiting"}


def test_a_mixture_file_works_too(run):
    mixture = fastgmm.Mixture([0.5, 0.5], [[0.0], [9.0]], [1.0, 1.0], "spherical")
    fastgmm.save(mixture, "m.npz")
    Path("x.csv").write_text("0.1\n8.7\n")
    assert run("predict", "m.npz", "x.csv")[1] == "label\n0\n1\n"
    assert run("sample", "m.npz", 2)[1].startswith("x1\n")
    assert "kind             Mixture" in run("info", "m.npz")[1]


def test_select_prints_tables_and_writes_the_best(run):
    status, out, err = run("select", FAITHFUL, "-k", "1-3", "--covariance", "full,VVI", "--out", "best.npz")
    assert (status, err) == (0, "")
    tables = re.findall(r"^(BIC|AIC|ICL)\s+full\s+diag$", out, flags=re.MULTILINE)
    assert tables == ["BIC", "AIC", "ICL"]
    assert re.search(r"^K = 2\s+2322\.19\*", out, flags=re.MULTILINE)
    assert "Best: 2 components, covariance type full." in out
    assert fastgmm.load("best.npz").n_components == 2


def test_select_json(run):
    told = json.loads(run("select", FAITHFUL, "-k", "2,1", "--covariance", "full", "--criterion", "aic", "--json")[1])
    assert told["criterion"] == "aic"
    assert [c["n_components"] for c in told["candidates"]] == [2, 1]
    assert told["best"]["n_components"] == 2


def test_select_marks_what_is_not_sound(run):
    np.save("x.npy", np.repeat([[0.0, 0.0], [1.0, 3.0], [5.0, 1.0]], 4, axis=0))
    status, out, _ = run("select", "x.npy", "-k", "1-14", "--covariance", "full", "--max-iter", 1)
    assert status == 0
    assert "! could not be fitted" in out
    assert "d has a component" in out


@pytest.mark.parametrize("command", ["fit", "select", "predict"])
def test_plots_are_drawn(run, model, command):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    words = {
        "fit": ["fit", FAITHFUL, "-k", 2],
        "select": ["select", FAITHFUL, "-k", 2],
        "predict": ["predict", model, FAITHFUL],
    }
    status, _, err = run(*words[command], "--plot", "out.png", "--plot-features", "waiting,1")
    assert (status, err) == (0, "")
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


def test_info(run, model):
    out = run("info", model)[1]
    for words in ("GaussianMixture", "features         2: eruptions, waiting", "The fit converged"):
        assert words in out
    told = json.loads(run("info", model, "--json")[1])
    assert told["settings"]["n_components"] == 2
    assert told["fit"]["result"]["status"] == "CONVERGED"
    status, out, _ = run("info")
    assert status == 0
    assert re.search(rf"^fastgmm\s+{fastgmm.__version__}$", out, flags=re.MULTILINE)
    assert json.loads(run("info", "--json")[1])["threads"] >= 1


def test_standard_input_and_pipes():
    x = "a,b\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(100))
    done = shell("fit", "-", "-k", 2, "--out", "m.npz", stdin=x)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        f"'{sys.executable}' -m fastgmm sample m.npz 200000 | head -n 2",
        shell=True,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout.startswith("a,b\n")
    assert done.stderr == ""


def test_a_terminal_without_unicode():
    Path("x.csv").write_text("größe\n" + "1\n2\n4\n" * 5, encoding="utf-8")
    done = shell("fit", "x.csv", "-k", 1, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert r"gr\xf6\xdfe (std)" in done.stdout


def test_help_and_version(run):
    status, out, _ = run("--help")
    assert status == 0
    for command in COMMANDS:
        assert command in out
        assert run(command, "--help")[0] == 0
    assert run("--version")[:2] == (0, f"fastgmm {fastgmm.__version__}\n")


def test_help_imports_nothing_heavy():
    code = "import sys; from fastgmm.cli.parser import build_parser; build_parser().format_help(); print(*sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=env)
    assert not {"numpy", "numba", "scipy", "pyarrow", "matplotlib"} & set(done.stdout.split())


# -- what does not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("a,b\n1,2\n3,x\n", [], r"data\.csv, row 2 \(line 3\), column 'b': 'x' is no number; correct it"),
        ("a,b\n1,2\n3,nan\n", [], r"data\.csv, row 2 \(line 3\), column 'b': nan is no number; remove the row"),
        ("a,b\n1,2\n3,\n", [], r"row 2 \(line 3\), column 'b': the value is missing"),
        ("", [], r"data\.csv is empty"),
        ("a,b\n", [], r"data\.csv has no rows of data"),
        ("a,b\n1,2\n3,4\n", ["--columns", "a,c"], r"data\.csv has no column 'c'; its columns are a, b"),
        ("a,b\n1,2\n3,4\n", ["--weights", "w"], r"data\.csv has no column 'w'"),
        ("a,b\n1,2\n3,-4\n", ["--weights", "b"], r"weight.*-4"),
        ("a,b\n1,0\n3,0\n", ["--weights", "b"], r"weight.*zero"),
        ("a,b\n1,2\n", [], r"1 sample"),
        ("a,b\n1,2\n3,4\n", ["--out", "missing/m.npz"], r"missing/m\.npz: No such file or directory"),
        ("a,b\n1,2\n3,4\n", ["--out", "dir.npz"], r"dir\.npz: Is a directory"),
    ],
)
def test_data_errors_are_one_sentence_and_leave_nothing(run, content, words, message):
    Path("data.csv").write_text(content)
    Path("dir.npz").mkdir()
    before = listing()
    plot = [] if "--out" in words else ["--out", "m.npz", "--plot", "p.png"]
    status, out, err = run("fit", "data.csv", "-k", 2, *words, *plot)
    assert_one_sentence(status, out, err)
    assert re.search(message, err), err
    assert listing() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "none.csv", "-k", "2"], r"none\.csv: No such file or directory"),
        (["fit", "empty", "-k", "2"], r"empty: a folder without files of a known format"),
        (["fit", "x.xlsx", "-k", "2"], r"x\.xlsx: cannot tell its format"),
        (["fit", FAITHFUL, "-k", "300"], r"-k = 300, rows = 272"),
        (["predict", "none.npz", FAITHFUL], r"none\.npz: No such file or directory"),
        (["predict", FAITHFUL, FAITHFUL], r"faithful\.csv is not a model file"),
        (["info", FAITHFUL], r"faithful\.csv is not a model file"),
        (["score", "model.npz", "wide.csv"], r"wide\.csv has no column 'eruptions', which the model was fitted on"),
        (["predict", "model.npz", FAITHFUL, "--columns", "1"], r"gives 1 column, but the model has 2 features"),
    ],
)
def test_wrong_files_are_one_sentence(run, model, words, message):
    assert model == "model.npz"
    Path("wide.csv").write_text("a,b,c\n1,2,3\n")
    Path("empty").mkdir()
    Path("x.xlsx").write_text("")
    status, out, err = run(*words)
    assert_one_sentence(status, out, err)
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: COMMAND"),
        (["fot"], "invalid choice: 'fot'"),
        (["fit", FAITHFUL], "required: -k/--components"),
        (["fit", FAITHFUL, "-k", "0"], "expected a whole number from 1, got '0'"),
        (["fit", FAITHFUL, "-k", "2", "--seed", "-1"], "--seed: expected a whole number from 0, got '-1'"),
        (["fit", FAITHFUL, "-k", "two"], "expected a whole number from 1, got 'two'"),
        (["fit", FAITHFUL, "-k", "2", "--tol", "-1"], "expected a number from 0, got '-1'"),
        (["fit", FAITHFUL, "-k", "2", "--tol", "nan"], "expected a number from 0, got 'nan'"),
        (["fit", FAITHFUL, "-k", "2", "--covariance", "oval"], "'full', 'tied', 'diag', 'spherical'"),
        (["fit", FAITHFUL, "-k", "2", "--init", "magic"], "expected one of kmeans"),
        (["fit", FAITHFUL, "-k", "2", "--columns", ","], "separated by commas"),
        (["fit", FAITHFUL, "-k", "2", "--out", "m.csv"], r"a model file ends in .npz, got 'm.csv'"),
        (["fit", FAITHFUL, "-k", "2", "--plot", "m.xyz"], r"--plot: cannot draw into 'm.xyz'; expected .*\.png"),
        (["fit", FAITHFUL, "-k", "2", "--plot", "m.png", "--plot-features", "z"], "no feature 'z'; expected eruptions"),
        (["select", FAITHFUL, "-k", "3-1"], "expected a range such as 1-6, got '3-1'"),
        (["select", FAITHFUL, "-k", "1-1000000000"], "expected a range"),
        (["sample", "m.npz", "-5"], "required|unrecognized|expected"),
        (["predict", "m.npz", FAITHFUL, "--out", "labels"], "cannot tell the format of 'labels'"),
        (["fit", "m.npy", "-k", "2", "--weights", "w.npz", "--out", "w.npz"], "'w.npz' is read or written already"),
    ],
)
def test_usage_errors_have_status_two(run, words, message):
    status, out, err = run(*words)
    assert_one_sentence(status, out, err, expected=2)
    assert re.search(message, err), err
    assert listing() == []


def test_a_failure_leaves_old_results_as_they_were(run):
    Path("m.npz").write_text("old model")
    Path("p.png").write_text("old picture")
    Path("data.csv").write_text("a\n1\nx\n")
    assert run("fit", "data.csv", "-k", 1, "--out", "m.npz", "--plot", "p.png")[0] == 1
    assert Path("m.npz").read_text() == "old model"
    assert Path("p.png").read_text() == "old picture"
    assert listing() == ["data.csv", "m.npz", "p.png"]


def test_an_interrupt_leaves_nothing(run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fastgmm.GaussianMixture, "fit", interrupt)
    status, out, err = run("fit", FAITHFUL, "-k", 2, "--out", "m.npz")
    assert (status, out) == (130, "")
    assert err == "fastgmm fit: interrupted; nothing was written.\n"
    assert listing() == []


def test_an_error_of_ours_is_one_sentence_unless_debugging(run, monkeypatch):
    def fail(*_, **__):
        msg = "unexpected"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr(fastgmm.GaussianMixture, "fit", fail)
    status, out, err = run("fit", FAITHFUL, "-k", 2)
    assert_one_sentence(status, out, err)
    assert "ZeroDivisionError: unexpected (set FASTGMM_DEBUG=1" in err
    monkeypatch.setenv("FASTGMM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["fit", FAITHFUL, "-k", "2"])


def test_warnings_are_one_line(run):
    Path("constant.csv").write_text("a,b\n" + "".join(f"{i},7\n" for i in range(20)))
    status, out, err = run("fit", "constant.csv", "-k", 1)
    assert status == 0
    assert "1 component," in out
    assert err.startswith("fastgmm fit: warning: ")
    assert ".py" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence(run, model):
    Path("full.csv").symlink_to("/dev/full")
    status, out, err = run("sample", model, 100_000, "--out", "full.csv")
    assert_one_sentence(status, out, err)
    assert "No space left on device" in err
