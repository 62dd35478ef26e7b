"""The parts of the benchmarks that could lie without anybody noticing: ratios, the check of results, schedule, gate."""

import itertools
import math
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import clock, compare, gate, growth, oracle, planted, record, report, schedule, tables, worker
from benchmarks.data import Case, build
from benchmarks.peers import OURS, PEERS, Peer, Worker

TYPES = ("full", "tied", "diag", "spherical")


# -- ratios ------------------------------------------------------------------------------------------------------------


def test_a_ratio_is_taken_within_a_round():
    ours = {"0": 1.0, "1": 10.0, "2": 100.0}  # a machine that slows down tenfold from round to round
    theirs = {"0": 3.0, "1": 20.0, "2": 100.0}
    assert record.median_ratio(theirs, ours) == 2.0


def test_a_peer_that_sat_out_is_compared_in_its_own_rounds_only():
    assert record.median_ratio({"1": 30.0}, {"0": 1.0, "1": 10.0}) == 3.0


def test_no_common_round_is_an_error():
    with pytest.raises(ValueError, match="no round in common"):
        record.median_ratio({"1": 1.0}, {"0": 1.0})


def test_a_failed_peer_gets_no_ratio():
    rows = {
        OURS.name: {"times": {"0": 1.0, "1": 3.0}},
        "a": {"times": {"0": 4.0, "1": 6.0}},
        "b": {"times": {"0": 4.0}, "error": "died in the second round"},
        "c": {"cannot": "no tied covariances"},
    }
    compare.summarise(rows)
    assert rows["a"]["seconds"] == 5.0
    assert rows["a"]["ratio"] == 3.0
    assert rows[OURS.name]["ratio"] == 1.0
    assert "ratio" not in rows["b"]
    assert "ratio" not in rows["c"]


def test_clock_alternates_and_pairs_repetitions():
    order = []
    times = clock.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0.0, least=4)
    assert order == ["a", "b"] * 5  # one round untimed
    assert [len(v) for v in times.values()] == [4, 4]
    assert clock.ratio({"a": [2.0, 9.0, 8.0], "b": [1.0, 3.0, 4.0]}, "a", "b") == 2.0


def test_clock_warms_up_before_it_times_a_short_call():
    order = []
    calls = {"short": lambda: order.append("s"), "long": lambda: (order.append("l"), time.sleep(0.02))}
    times = clock.alternate(calls, seconds=0.0, least=2, warm=0.01)
    assert [len(v) for v in times.values()] == [2, 2]
    assert order[:4] == ["s", "l", "s", "l"]  # untimed: for what is compiled, and to see how long they take
    assert order.count("l") == 4
    assert order.count("s") > 40


# -- the check against plain NumPy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_the_oracle_rises_and_is_not_scikit_learns_code(kind):
    sklearn = pytest.importorskip("sklearn.mixture", reason="compares with scikit-learn")
    problem = build(Case(600, 3, 2, kind))
    states, history = oracle.path(problem, 3)
    assert np.all(np.diff(history) > 0)
    model = sklearn.GaussianMixture(
        2,
        covariance_type=kind,
        weights_init=problem.weights,
        means_init=problem.means,
        precisions_init=problem.precisions,
        tol=0,
        reg_covar=0,
        max_iter=3,
    )
    with pytest.warns(Warning, match="did not converge"):
        model.fit(problem.X)
    theirs = oracle.State(model.weights_, model.means_, model.covariances_)
    assert oracle.difference(theirs, states[-1], kind) < 1e-12


@pytest.mark.parametrize("kind", TYPES)
def test_one_iteration_more_or_less_is_other_work(kind):
    problem = build(Case(600, 3, 2, kind))
    reference = oracle.reference(problem, 3)
    states, _ = oracle.path(problem, 4)
    assert reference.same(oracle.difference(states[3], reference.state, kind), 1e-8)
    for wrong in (states[2], states[4]):
        # not even where a peer is allowed much
        assert not reference.same(oracle.difference(wrong, reference.state, kind), 1.0)


def test_a_step_below_rounding_says_nothing_of_the_number_of_iterations():
    state = oracle.reference(build(Case(600, 3, 2)), 1).state
    assert oracle.Reference(state, 1e-5, []).same(1e-4, 1e-3, "float32")
    assert not oracle.Reference(state, 1e-5, []).same(1e-4, 1e-3, "float64")
    assert not oracle.Reference(state, 1e-3, []).same(2e-4, 1e-3, "float32")
    assert not oracle.Reference(state, 0.0, []).same(1e-4, 1e-8, "float64")


@pytest.mark.parametrize("field", [0, 1, 2])
def test_nan_in_any_parameter_is_not_the_same(field):
    problem = build(Case(600, 3, 2))
    reference = oracle.reference(problem, 2)
    broken = [a.copy() for a in reference.state]
    broken[field].flat[-1] = np.nan
    difference = oracle.difference(oracle.State(*broken), reference.state, "full")
    assert math.isnan(difference)
    assert not reference.same(difference, 1.0)


@pytest.mark.parametrize("field", [0, 1, 2])
def test_a_small_error_in_any_parameter_is_seen(field):
    problem = build(Case(600, 3, 2))
    reference = oracle.reference(problem, 2)
    wrong = [a.copy() for a in reference.state]
    wrong[field].flat[-1] *= 1.0 + 1e-4
    difference = oracle.difference(oracle.State(*wrong), reference.state, "full")
    assert 1e-6 < difference < 1e-3
    assert not reference.same(difference, 1e-8)


def test_a_kept_reference_is_of_these_data(tmp_path):
    first, second = build(Case(500, 2, 2)), build(Case(500, 2, 2), "float32")
    kept = oracle.reference(first, 2, tmp_path)
    assert np.array_equal(oracle.reference(first, 2, tmp_path).state.means, kept.state.means)
    other = oracle.reference(second, 2, tmp_path)
    assert not np.array_equal(other.state.means, kept.state.means)
    assert len(list(tmp_path.iterdir())) == 4  # of each dtype after one iteration and after two
    one = oracle.reference(first, 1)
    assert np.array_equal(oracle.reference(first, 1, tmp_path).state.covariances, one.state.covariances)


def test_a_peer_that_does_other_work_is_marked(tmp_path):
    problem = build(Case(600, 3, 2))
    states, history = oracle.path(problem, 2)
    peers = [Peer("right", "x"), Peer("lazy", "x"), Peer("own", "x", given_start=False)]
    rows = {p.name: {"log_likelihood": history[-1]} for p in peers}
    for peer, state in zip(peers, (states[2], states[1], states[1]), strict=True):
        np.savez(tmp_path / f"{peer.name}.npz", **state._asdict())
    options = SimpleNamespace(iterations=2, dtype="float64")
    compare.check(problem, peers, rows, options, tmp_path)
    assert [rows[p.name]["same"] for p in peers] == [True, False, None]
    assert rows["right"]["log_likelihood_of"] == "the result"
    rows["lazy"] |= {"seconds": 1.0, "ratio": 9.0, "times": {"0": 1.0}}
    assert "DIFFERENT" in tables.cell(rows["lazy"])


# -- workers -----------------------------------------------------------------------------------------------------------


def _arrays(problem, folder):
    out = {}
    for name in ("X", "weights", "means", "covariances", "precisions"):
        out[name] = str(folder / f"{name}.npy")
        np.save(out[name], getattr(problem, name))
    return out


def test_a_worker_fits_and_reports(tmp_path):
    problem = build(Case(2000, 2, 2))
    with Worker(OURS, 1, limit=120) as worker:
        loaded = worker.order("load", arrays=_arrays(problem, tmp_path), covariance_type="full")
        assert "version" in loaded
        assert worker.order("warm") == {}
        reply = worker.order("fit", iterations=2, out=str(tmp_path / "out.npz"))
        assert reply["seconds"] > 0
        assert reply["fits"] > 1  # it is short, so it was repeated
        bad = worker.order("load", arrays={"X": str(tmp_path / "none.npy")}, covariance_type="full")
        assert "error" in bad
    reference = oracle.reference(problem, 2)
    with np.load(tmp_path / "out.npz") as fitted:
        state = oracle.State(*(fitted[name] for name in oracle.State._fields))
    assert oracle.difference(state, reference.state, "full") < 1e-10


@pytest.mark.parametrize(
    ("lasts", "fits", "median"),
    [
        ([0.1, 0.01, 0.13, 0.02, 9.0], 4, 0.06),  # until all have lasted a quarter of a second
        ([0.05, 0.04, 0.3], 3, 0.05),
        ([0.24, 0.26, 9.0], 2, 0.25),
        ([0.25, 9.0], 1, 0.25),
        ([7.0, 9.0], 1, 7.0),
    ],
)
def test_a_short_fit_is_repeated_and_its_median_counts(monkeypatch, lasts, fits, median):
    now, made, left = [0.0], [], iter(lasts)

    def make(task):
        def fit():
            if task.iterations == 3:  # the one that counts; before it a worker warms up
                now[0] += next(left)
            return task

        made.append(task.iterations)
        return fit, lambda task: (*task.found, -1.0)

    adapters = SimpleNamespace(
        ADAPTERS={"peer": make}, Task=lambda **given: SimpleNamespace(found=(1.0, 2.0, 3.0), **given)
    )
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    state = {"arrays": {"X": np.zeros((5, 2))}, "covariance_type": "full"}
    reply = worker.answer("peer", adapters, {"do": "fit", "iterations": 3, "threads": 1}, state)
    assert reply["fits"] == fits
    assert reply["seconds"] == pytest.approx(median)
    assert reply["log_likelihood"] == -1.0
    assert made == [3, 1]


def test_a_worker_that_takes_too_long_is_ended(tmp_path):
    problem = build(Case(2000, 2, 2))
    arrays = _arrays(problem, tmp_path)
    with Worker(OURS, 1, limit=0.001) as worker:
        reply = worker.order("load", arrays=arrays, covariance_type="full")
    assert reply == {"error": "longer than 0 s"}


def test_what_a_peer_cannot_do_is_said():
    by_library = {p.library: p for p in PEERS}
    assert by_library["onedal"].cannot("tied", "float64") == "no tied covariances"
    assert by_library["gmmx"].cannot("full", "float64") == "no float64"
    assert OURS.cannot("spherical", "float32") is None


# -- schedule ----------------------------------------------------------------------------------------------------------


def simulate(costs, most, seconds):
    now = [0.0]
    names, ran = list(costs), []
    for round_, name in schedule.rounds(names, most, seconds, clock=lambda: now[0]):
        ran.append((round_, name))
        now[0] += costs[name]
    return ran


def test_without_a_budget_everybody_runs_every_round():
    ran = simulate({"ours": 1.0, "a": 5.0, "b": 50.0}, 3, math.inf)
    assert ran == list(itertools.product(range(3), ("ours", "a", "b")))


def test_who_would_overrun_sits_out_and_the_others_go_on():
    ran = simulate({"ours": 1.0, "quick": 2.0, "slow": 50.0}, 4, 62.0)
    assert [r for r, name in ran if name == "slow"] == [0]
    assert [r for r, name in ran if name == "quick"] == [0, 1, 2, 3]
    assert {r for r, name in ran if name == "ours"} == {r for r, name in ran if name != "ours"}


def test_everybody_runs_once_whatever_it_takes():
    assert simulate({"ours": 1.0, "slow": 50.0}, 3, 0.0) == [(0, "ours"), (0, "slow")]


def test_we_do_not_run_on_alone():
    assert simulate({"ours": 1.0, "slow": 50.0}, 9, 60.0) == [(0, "ours"), (0, "slow")]
    assert simulate({"ours": 1.0}, 3, 60.0) == [(0, "ours"), (1, "ours"), (2, "ours")]


def test_a_name_that_is_removed_runs_no_more():
    names = ["ours", "a", "dies"]
    ran = []
    for round_, name in schedule.rounds(names, 2, math.inf):
        ran.append((round_, name))
        if name == "dies":
            names.remove("dies")
    assert ran == [(0, "ours"), (0, "a"), (0, "dies"), (1, "ours"), (1, "a")]


# -- the gate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "slower", "asked"),
    [
        ([{"a": 1.0, "b": 1.29}], [], 1),
        ([{"a": 0.5, "b": 1.31}, {"a": 2.0, "b": 1.0}], [], 2),  # neither loss is confirmed
        ([{"a": 1.0, "b": 1.5}, {"a": 1.0, "b": 1.4}], ["b"], 2),
        ([{"a": 1.4, "b": 1.5}, {"a": 1.1, "b": 1.4}], ["b"], 2),
        ([{"a": math.nan, "b": 1.0}, {"a": math.nan, "b": 1.0}], ["a"], 2),  # no figure is no pass
    ],
)
def test_the_gate_fails_on_a_loss_that_a_second_run_confirms(runs, slower, asked):
    answers = iter(runs)
    found, seen = gate.confirmed(lambda: next(answers), 0.3)
    assert found == slower
    assert len(seen) == asked


def test_the_gate_passes_without_a_parent(capsys):
    assert gate.main(["--base", "no-such-commit"]) == 0
    assert "nothing to compare with" in capsys.readouterr().out


def test_what_is_planted_is_slower(monkeypatch):
    now = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(now))  # each look at the clock takes a second
    code = "class Accumulator:\n    def __call__(self, call):\n        call()\n        return 7\n"
    space = {}
    exec(compile(code + planted.SLOWED.format(loss=0.25), "planted", "exec"), space)
    assert space["Accumulator"]()(lambda: [next(now) for _ in range(99)]) == 7
    assert next(now) == 100 + 25 + 1  # start at 0, the call ends at 100, the waiting at 125


# -- growth and tables -------------------------------------------------------------------------------------------------


def test_a_straight_line_is_found_straight_and_a_curve_is_not():
    sizes = [2, 4, 8, 16, 32]
    line = {str(s): [(3.0 + 2.0 * s) / s] for s in sizes}
    assert all(abs(v) < 1e-12 for v in growth.off_line(line).values())
    curve = {str(s): [float(s)] for s in sizes}  # cost as the square
    assert max(abs(v) for v in growth.off_line(curve).values()) > 0.1
    assert growth.spread({"1": [1.0], "2": [1.0], "3": [1.5]})["3"] == 0.5


def test_a_loss_and_few_rounds_show():
    row = {"seconds": 1.0, "ratio": 0.8, "times": {"0": 1.0}, "same": True}
    assert tables.cell(row) == "**0.8x***"
    assert tables.cell({"error": "died", "times": {}}) == "failed"
    assert tables.cell({"error": "longer than 20 s", "times": {}}) == "longer than 20 s"
    assert tables.cell({"cannot": "no float64"}) == "-"
    assert tables.cell(None) == ""


def test_a_table_names_the_commits_of_what_was_measured_only(monkeypatch):
    case = next(iter(tables.SHAPES))
    where = {"cpu": "a CPU", "python": "3", "numpy": "2", "numba": "0", "threads": 2}
    row = {"seconds": 1.0, "ratio": 1.0, "times": {"0": 1.0}, "date": "today", "commit": "abc"}
    cannot = {"cannot": "no float64", "date": "long ago", "commit": "xyz"}
    figures = {case: {"rows": {OURS.name: row, "gmmx": cannot}, "where": where}}
    monkeypatch.setattr(tables, "load", lambda _: figures)
    text = tables.compare("float64")
    assert "commit abc, today." in text
    assert "xyz" not in text
    assert "long ago" not in text


def test_longer_fits_have_a_table_of_their_own(monkeypatch):
    assert compare.stem("float32", 2) == compare.stem("float32", compare.SHORT) == "compare-float32"
    assert compare.stem("float32", compare.LONGER) == "compare-longer-float32"
    case = next(iter(tables.SHAPES))
    where = {"cpu": "a CPU", "python": "3", "numpy": "2", "numba": "0", "threads": 2}
    about = {"times": {"0": 1.0}, "date": "today", "commit": "abc", "iterations": 12}
    found = {OURS.name: {"seconds": 0.25, **about}, "oneDAL": {"seconds": 1.0, "ratio": 4.0, **about}}
    failed = {OURS.name: {"seconds": 0.125, **about}, "oneDAL": {"error": "died", **about}}
    figures = {
        "compare-longer-float64": {case: {"rows": found, "where": where}},
        "compare-longer-float32": {case: {"rows": failed, "where": where}},
    }
    monkeypatch.setattr(tables, "load", figures.get)
    text = tables.longer()
    assert f"| {tables.SHAPES[case]} | 250 | 4x* | 125 | failed |" in text
    assert "fits of 12 iterations" in text
    assert f"- oneDAL, {tables.SHAPES[case]}, float32: died" in text
    monkeypatch.setattr(tables, "load", lambda _: None)
    assert tables.longer() == tables.MISSING


def test_paste_replaces_between_markers_only():
    page = "before\n<!-- a: how -->\nold\n<!-- end -->\nafter\n<!-- b: how -->\n<!-- end -->\n"
    once = record.paste(page, "a", "new")
    assert once == record.paste(once, "a", "new")
    assert "old" not in once
    assert once.startswith("before\n<!-- a: how -->\n\nnew\n")
    assert once.endswith("after\n<!-- b: how -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="one line"):
        record.paste(page, "c", "new")


def test_the_pages_have_a_place_for_every_table_and_say_what_the_figures_say():
    places = set()
    for kind, page in record.PAGES.items():
        text = page.read_text()
        places |= {name for name in tables.BLOCKS if f"<!-- {name}:" in text}
        assert report.filled(kind, text) == text, f"run python -m benchmarks.report: {page.name} is not up to date"
    assert places == set(tables.BLOCKS)


def test_figures_belong_to_a_kind_of_machine(monkeypatch):
    for name, kind in (
        ("A, AVX-512, 2 cores", record.FIGURES),
        ("B, AVX2, 2 cores", record.NARROW),
        ("C", record.NARROW),
    ):
        monkeypatch.setattr(record, "cpu", lambda name=name: name)
        assert record.folder() == kind
        for other in record.PAGES:
            with record.figures_of(other):
                assert record.folder() == other
        assert record.folder() == kind


def test_every_step_names_a_benchmark():
    for words in itertools.chain.from_iterable(report.STEPS.values()):
        assert (record.HERE / f"{words.split()[0]}.py").exists()


def test_asv_can_import_every_file_without_optional_packages():
    """It does so before it runs any, in environments that hold NumPy, SciPy, Numba and this library."""
    missing = ["dask", "distributed", "matplotlib", "sklearn", "pytest", "threadpoolctl", "pyarrow", "pandas", "jax"]
    names = sorted(path.stem for path in record.HERE.glob("*.py") if path.stem not in {"__init__"})
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({missing!r}))
for name in {names!r}:
    importlib.import_module("benchmarks." + name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=record.HERE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
