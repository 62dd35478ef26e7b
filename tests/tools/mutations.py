"""Damages files and looks how reading them ends: ``python -m tests.tools.mutations [--count 20000] [--seed 0]``.

Each mutation of a good file must give `ModelFileError`, or what the good file gives (a time stamp or an attribute of
the zip directory was hit); nothing else, and no more memory than a few times the file. Prints how many ended which
way, for each kind of mutation; the exit status is 1 if one ended in any other way.
"""

import argparse
import collections
import io
import random
import struct
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import fastgmm
from fastgmm.errors import FastgmmWarning, ModelFileError

GOLDEN = Path(__file__).parents[1] / "golden" / "models" / "1"
ALLOWED_BYTES = 400_000  # beside ten times the file: modules imported on the way, the model, messages
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def flip_bit(content, rng):
    """One bit anywhere."""
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def overwrite(content, rng):
    """Some random bytes anywhere."""
    for _ in range(rng.randint(1, 20)):
        start = rng.randrange(len(content))
        data = rng.randbytes(rng.randint(1, 8))
        content[start : start + len(data)] = data


def truncate(content, rng):
    """The file ends early."""
    del content[rng.randrange(len(content)) :]


def remove(content, rng):
    """A stretch is missing."""
    start = rng.randrange(len(content))
    del content[start : start + rng.randint(1, 200)]


def duplicate(content, rng):
    """A stretch is there twice."""
    start = rng.randrange(len(content))
    content[start:start] = content[start : start + rng.randint(1, 400)]


def zero(content, rng):
    """A stretch is zeros, as after a crash."""
    start = rng.randrange(len(content))
    stop = min(start + rng.choice((16, 512, 4096)), len(content))
    content[start:stop] = bytes(stop - start)


def directory(content, rng):
    """A number in the zip directory is absurd: sizes, offsets, counts, flags, methods."""
    start = content.rfind(b"PK\x01\x02", 0, rng.randint(1, len(content)))
    start = content.index(b"PK\x01\x02") if start < 0 else start
    position = start + rng.randrange(4, 60)
    value = struct.pack("<I", rng.choice(INTERESTING))[: rng.choice((1, 2, 4))]
    content[position : position + len(value)] = value


def array_header(content, rng):
    """An array's header says another type or shape, with the check sums of the zip file made right again."""
    _rewrite(content, rng, lambda name, data: data if name == "header.npy" else _edit(data, rng))


def json_header(content, rng):
    """The JSON header is edited, with the check sums made right again."""
    _rewrite(content, rng, lambda name, data: data if name != "header.npy" else _edit_json(data, rng))


def members(content, rng):
    """Members are missing, there twice, of another name, compressed or swapped."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as old, zipfile.ZipFile(target, "w") as new:
        names = old.namelist()
        parts = [(name, old.read(name)) for name in names]
        what = rng.randrange(5)
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        if what == 0:
            del parts[i]
        elif what == 1:
            parts.append(parts[i])
        elif what == 2:
            other = rng.choice(
                ("../up.npy", "/etc/passwd", "x/", "header", "a/b.npy", "weights.npy", "a\x00b", "é.npy")
            )
            parts[i] = (other, parts[i][1])
        elif what == 3:
            parts[i], parts[j] = (parts[i][0], parts[j][1]), (parts[j][0], parts[i][1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's, of names that are there twice
            for name, data in parts:
                new.writestr(name, data, zipfile.ZIP_DEFLATED if what == 4 else zipfile.ZIP_STORED)
    content[:] = target.getvalue()


def _rewrite(content, rng, change):
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as old, zipfile.ZipFile(target, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(name, data) if name in (chosen, "header.npy") else data)
    content[:] = target.getvalue()


def _edit(data, rng):
    old, new = rng.choice(
        [
            (b"'<f8'", rng.choice([b"'|O' ", b"'>f8'", b"'<f4'", b"'<c8'", b"'<U2'", b"'<V8'"])),
            (b"(", rng.choice([b"(9999999999, ", b"(-1, ", b"(0, ", b"(1, ", b"((", b"(1e9, "])),
            (b", )", b",)"),
            (b"False", b"True "),
            (b"NUMPY\x01", b"NUMPY\x02"),
            (b"shape", b"__import__('os')"),
        ]
    )
    return data.replace(old, new, 1)


def _edit_json(data, rng):
    start = data.index(b"\n") + 1 if b"\n" in data[:200] else 128
    text = bytearray(data[start:])
    what = rng.randrange(4)
    digits = [i for i, c in enumerate(text) if chr(c).isdigit()]
    if what == 0 and digits:
        text[rng.choice(digits)] = ord(rng.choice("0123456789"))
    elif what == 1 and digits:
        i = rng.choice(digits)
        text[i : i + 1] = rng.choice([b"1e999", b"null", b"NaN", b"-1", b'"x"', b"[]", b"{}", b"9" * 30, b"true"])
    elif what == 2:
        del text[rng.randrange(len(text)) :]
    else:
        text[rng.randrange(len(text))] = rng.randrange(32, 127)
    # A length of its own, so that the damage is in the JSON and not in the array around it.
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % len(text)
    head += b" " * (-(10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(text)


MUTATIONS = (
    flip_bit,
    overwrite,
    truncate,
    remove,
    duplicate,
    zero,
    directory,
    array_header,
    json_header,
    members,
)
CONSISTENT = (array_header, json_header, members)  # their check sums are right, so they may be files in their own right


def numbers(model):
    """The parameters, as bytes."""
    mixture = getattr(model, "mixture_", model)
    return b"".join(array.tobytes() for array in (mixture.weights, mixture.means, mixture.covariances))


def outcome(path, content, good, load=fastgmm.load, *, strict=True):
    """How loading `content` ends: "refused", "unharmed", "another file", or a text that begins with "DEFECT"."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FastgmmWarning)  # of settings that this release does not know
            loaded = numbers(load(path))
        ended = "unharmed" if loaded == good else "DEFECT: other numbers" if strict else "another file"
    except ModelFileError as error:
        ended = "refused" if str(path) in str(error) and "\n" not in str(error) else f"DEFECT: message {error}"
    except BaseException as error:
        ended = f"DEFECT: {type(error).__name__}: {error}"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if peak > ALLOWED_BYTES + 10 * len(content):
        ended = f"DEFECT: {peak} bytes of memory for a file of {len(content)}"
    return ended


def run(count, seed, folder):
    """Mutate the golden files `count` times; return {(mutation, how it ended): times}."""
    files = sorted(GOLDEN.glob("*.npz"))
    goods = {file: (file.read_bytes(), numbers(fastgmm.load(file))) for file in files}
    rng = random.Random(seed)
    ended = collections.Counter()
    for i in range(count):
        mutate = MUTATIONS[i % len(MUTATIONS)]
        content, good = goods[rng.choice(files)]
        changed = bytearray(content)
        mutate(changed, rng)
        strict = mutate not in CONSISTENT
        ended[mutate.__name__, outcome(folder / "mutated.npz", bytes(changed), good, strict=strict)] += 1
    return ended


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ended = run(options.count, options.seed, Path(folder))
    for (name, how), times in sorted(ended.items()):
        print(f"{name:14}{times:8}  {how}")
    defects = sum(times for (_, how), times in ended.items() if how.startswith("DEFECT"))
    print(f"{options.count} mutations, {defects} ended neither in ModelFileError nor with the right numbers")
    return int(defects > 0)


if __name__ == "__main__":
    sys.exit(main())
