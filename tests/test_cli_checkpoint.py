"""A fit in the shell that is killed, interrupted or out of time, and goes on."""

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest

import fastgmm
from fastgmm.cli import main, models
from fastgmm.cli.watch import watched
from fastgmm.progress import ProgressBar
from tests.tools import kills_shell


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kills_shell.write_data(tmp_path / "data.npy", 4000)
    return tmp_path / "data.npy"


def fit(data, *words):
    return main(["fit", str(data), "-k", "3", "--tol", "0", "--max-iter", "30", *map(str, words)])


@pytest.mark.skipif(not hasattr(__import__("signal"), "SIGKILL"), reason="this system has no SIGKILL")
def test_a_streamed_fit_that_is_killed_goes_on_to_the_same_model(data, tmp_path):
    """tests/tools/kills_shell.py does this a hundred times."""
    whole, out, checkpoint = tmp_path / "whole.npz", tmp_path / "model.npz", tmp_path / "checkpoints"
    with kills_shell.start(kills_shell.command(data, whole, 3000, None)) as process:
        assert process.communicate()[1].count(b"warning") == 1
    words = kills_shell.command(data, out, 3000, checkpoint)
    with kills_shell.start(words) as process:
        while kills_shell.newest(checkpoint) < 2 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.communicate()
    assert process.returncode != 0, "the fit was over too soon to be killed"
    assert not out.exists()
    assert kills_shell.kill_until_done(words, checkpoint, out, (0.0, 1.0), 0, random.Random(0)) == (0, 0)
    assert kills_shell.same_model(whole, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "data.npy", "model.npz", "whole.npz"]


def test_same_model_sees_a_difference(data, tmp_path):
    fit(data, "--out", "a.npz")
    fit(data, "--out", "b.npz", "--seed", "1")
    assert kills_shell.same_model(tmp_path / "a.npz", tmp_path / "a.npz")
    assert not kills_shell.same_model(tmp_path / "a.npz", tmp_path / "b.npz")


@pytest.mark.parametrize("ways", [("--stream", "--stream"), ("--no-stream", "--stream"), ("--stream", "--no-stream")])
def test_more_iterations_go_on_where_the_fit_ended(data, tmp_path, capsys, ways):
    assert fit(data, ways[0], "--checkpoint", "ck", "--max-iter", "10") == 0
    assert fit(data, ways[1], "--checkpoint", "ck", "--resume", "--out", "two.npz", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["n_iter"] == 30
    assert fit(data, "--out", "one.npz") == 0
    assert kills_shell.same_model(tmp_path / "one.npz", tmp_path / "two.npz")


def test_mistakes_are_one_sentence(data, capsys):
    assert fit(data, "--resume") == 2
    assert "--resume needs --checkpoint DIR" in capsys.readouterr().err
    assert fit(data, "--checkpoint", "ck", "--resume") == 0  # none there yet: begun
    capsys.readouterr()
    assert fit(data, "--checkpoint", "ck") == 1
    assert "holds the checkpoints of a fit already. Use --resume to go on with it" in capsys.readouterr().err
    assert fit(data, "--checkpoint", "ck", "--resume", "-k", "4") == 1
    error = capsys.readouterr().err
    assert "-k was 3 and is 4" in error
    assert "Traceback" not in error
    Path("file").write_text("")
    assert fit(data, "--checkpoint", "file") == 2
    assert "--checkpoint must be the path of a directory; file is a file" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(data, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(models.GaussianMixture, "fit", interrupt)
    assert fit(data, "--checkpoint", "ck") == 130
    assert capsys.readouterr().err == "fastgmm fit: interrupted; the same command with --resume goes on with the fit.\n"
    assert fit(data) == 130
    assert capsys.readouterr().err == "fastgmm fit: interrupted; nothing was written.\n"


def test_a_streamed_pass_tells_how_far_it_is(data, monkeypatch, capsys):
    told = []

    class Recorder(ProgressBar):
        def within(self, rows):
            told.append(rows)

    monkeypatch.setattr(models, "progress_bar", lambda *_, **__: Recorder())
    assert fit(data, "--no-stream") == 0
    assert told == []
    assert fit(data, "--stream") == 0
    assert len(told) >= 31
    assert max(told) == 4000
    assert capsys.readouterr().err.count("Traceback") == 0


def test_watched_rows_are_the_same_rows(tmp_path):
    x = np.random.default_rng(0).normal(size=(3000, 3))
    np.save(tmp_path / "x.npy", x)
    told = []
    rows = fastgmm.open_rows(tmp_path / "x.npy", block_bytes=1 << 12)
    seen = watched(rows, told.append)
    blocks = [block.x.copy() for block in seen.blocks(10)]
    np.testing.assert_array_equal(np.concatenate(blocks), x)
    assert told == np.cumsum([len(block) for block in blocks]).tolist()
    assert len(told) > 3
    assert watched(x, told.append) is x
    one = fastgmm.GaussianMixture(2, random_state=0).fit(seen)
    assert one.means_.tobytes() == fastgmm.GaussianMixture(2, random_state=0).fit(x).means_.tobytes()
