"""Whole fits where nothing can be written or nothing more fits: slower, never broken, one warning.

File systems of their own, mounted in a name space of the child's, so that root is refused like anybody else. What can
break in a single call of the system is in `test_cache_faults.py`.
"""

import functools
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
LIMIT = 400

FIT = """
import hashlib, os, sys, warnings
import numpy as np
warnings.simplefilter("always")
from fastgmm import GaussianMixture, load
rng = np.random.default_rng(0)
x = rng.normal(size=(500, 2)) + 2.0 * rng.integers(0, 2, (500, 1))

def fit(**options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianMixture(2, max_iter=8, tol=0.0, random_state=0).fit(x, **options)
        assert model.predict(x).shape == (500,)
    said = [str(w.message) for w in caught if "did not converge" not in str(w.message)]
    return hashlib.sha256(model.means_.tobytes() + model.covariances_.tobytes()).hexdigest(), said, model
"""


@functools.cache
def own_mounts():
    """Command that runs another one in a name space in which it may mount; None where that is forbidden."""
    if not (sys.platform == "linux" and shutil.which("unshare") and shutil.which("mount")):
        return None
    for command in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        if subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0:
            return command
    return None


def run(mounts, code, **environment):
    """Output of the code after `FIT`, under these mounts."""
    command = own_mounts()
    if command is None:
        pytest.skip("this system lets nobody mount in a name space of his own")
    env = {**os.environ, "PYTHONPATH": str(TOP), "PYTHONDONTWRITEBYTECODE": "1", "FASTGMM_CACHE": "1", **environment}
    env = {name: value for name, value in env.items() if value}
    script = f"set -e\n{mounts}\nexec {sys.executable} -c '{FIT}{textwrap.dedent(code)}'"
    assert "'" not in FIT + code
    done = subprocess.run([*command, "sh", "-c", script], env=env, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@functools.cache
def usual():
    code = FIT + "print(fit()[0])"
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout.strip()


# But for /dev: where Numba cannot make a semaphore, it has a warning of its own.
READ_ONLY = """
for m in $(cut -d' ' -f2 /proc/self/mounts | grep -v /dev); do mount -o remount,ro,bind $m 2>/dev/null || true; done
"""
NOWHERE = {"HOME": "", "XDG_CACHE_HOME": "", "FASTGMM_CACHE_DIR": "", "TMPDIR": ""}


def test_everything_is_read_only_and_there_is_no_home():
    """The installation, the home that the system knows of, the temporary directory: the whole tree."""
    code = """
    assert "HOME" not in os.environ
    for path in ("/tmp", os.path.expanduser("~"), os.path.dirname(sys.modules["fastgmm"].__file__)):
        try:
            open(os.path.join(path, "written"), "w")
        except OSError:
            continue
        raise AssertionError(path)
    found, said, model = fit()
    print(found)
    print(*said, sep="\\n")
    assert fit()[1] == []  # it has been said
    """
    pwd = pytest.importorskip("pwd", reason="this system has no homes of that kind")
    cache = Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache")  # may be full of kernels, and they would be used
    mounts = f"[ ! -d {cache} ] || mount -t tmpfs -o ro none {cache}\n{READ_ONLY}"
    found, *said = run(mounts, code, **NOWHERE)
    assert found == usual()
    assert len(said) == 1, said
    assert said[0].startswith("The cache of compiled kernels does not work (writing "), said


def test_the_disk_of_the_cache_is_full(tmp_path):
    (tmp_path / "cache").mkdir()
    code = """
    found, said, model = fit()
    print(found)
    print(*said, sep="\\n")
    left = [name for _, _, names in os.walk(os.environ["FASTGMM_CACHE_DIR"]) for name in names]
    assert all(name.endswith(".kernel") for name in left), left
    """
    mounts = f"mount -t tmpfs -o mode=700,size=4k none {tmp_path}/cache"
    found, *said = run(mounts, code, FASTGMM_CACHE_DIR=str(tmp_path / "cache"))
    assert found == usual()
    assert len(said) == 1, said
    assert "No space left" in said[0]


def test_the_disk_of_checkpoints_and_models_fills_up(tmp_path):
    """The first checkpoint fits, then another program takes what is left, and at last there is room again."""
    code = """
    from fastgmm import Checkpoint
    where = os.environ["DISK"]
    def take(info):
        if info.iteration == 2:
            with open(where + "/other", "wb", buffering=0) as file:
                try:
                    while True: file.write(bytes(4096))
                except OSError: pass
    found, said, model = fit(checkpoint=Checkpoint(where + "/fit", 0.0, 1), callback=take)
    print(found)
    print(*said, sep="\\n")
    assert not any(name.startswith(".") for name in os.listdir(where + "/fit"))
    try:
        model.save(where + "/model")
    except OSError as error:
        assert error.errno == 28 and not os.path.exists(where + "/model")
    else:
        raise AssertionError(os.statvfs(where), os.listdir(where))
    os.unlink(where + "/other")
    seen = []
    again, said, model = fit(checkpoint=where + "/fit", resume=True, callback=lambda info: seen.append(info.iteration))
    assert (again == found, said, seen[0]) == (True, [], 3), (said, seen)
    model.save(where + "/model")
    assert (load(where + "/model").means_ == model.means_).all()
    """
    mounts = f"mount -t tmpfs -o size=256k none {tmp_path}"
    found, *said = run(mounts, code, DISK=str(tmp_path))
    assert found == usual()
    assert len(said) == 1, said
    assert "no checkpoint could be written" in said[0]
    assert "No space left" in said[0]
