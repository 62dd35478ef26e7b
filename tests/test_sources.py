"""Rows from files and iterables: the same bits as from an array, whatever they are stored in."""

import pickle

import numpy as np
import pytest

import fastgmm
from fastgmm import GaussianMixture, Mixture, open_rows, select_model
from fastgmm.data import as_rows
from fastgmm.data.formats import FORMATS
from fastgmm.passes import Accumulator
from tests import sources

N, D = 9000, 3
BLOCK = 20_000  # bytes: many blocks even of these few rows


def rows(n=N, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)) + 5.0 * rng.integers(0, 3, n)[:, None]
    return x.astype(dtype)


def some_weights(n=N):
    rng = np.random.default_rng(1)
    return rng.integers(0, 3, n) * rng.random(n).astype(np.float32).astype(float)


def fitted(X, **options):
    with pytest.warns(fastgmm.ConvergenceWarning):
        return GaussianMixture(3, tol=0.0, max_iter=2, random_state=0).fit(X, **options)


def same(a, b):
    pairs = zip((a.weights_, a.means_, a.covariances_), (b.weights_, b.means_, b.covariances_), strict=True)
    return all(p.tobytes() == q.tobytes() for p, q in pairs) and a.lower_bound_ == b.lower_bound_


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The rows in every format, once for all tests: (kind, dtype) -> path."""
    folder = tmp_path_factory.mktemp("stored")
    made = {}
    for dtype in ("float64", "float32"):
        place = folder / dtype
        place.mkdir()
        for kind in sources.WRITERS:
            made[kind, dtype] = sources.write(place, kind, rows(dtype=dtype))
    return made


@pytest.fixture(scope="module")
def reference():
    return {dtype: fitted(rows(dtype=dtype)) for dtype in ("float64", "float32")}


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", sources.WRITERS)
def test_same_bits_as_an_array(stored, reference, kind, dtype):
    source = open_rows(stored[kind, dtype], block_bytes=BLOCK, dtype=dtype if kind == "csv" else None)
    assert len(list(source.blocks(960))) > 1
    assert source.dtype == dtype
    assert same(fitted(source), reference[dtype])


def test_one_result_from_everything(stored, reference):
    """One data set, one fit: array, memory map, every format, record batches, a function of blocks."""
    import pyarrow as pa

    x = rows()
    batches = [pa.RecordBatch.from_arrays(list(part.T), names=list("abc")) for part in x_blocks(x, 1000)]
    given = {
        "array": x,
        "Fortran order": np.asfortranarray(x),
        "memory map": np.load(stored["npy", "float64"], mmap_mode="r"),
        "table": sources.table(x),
        "record batches": open_rows(batches, block_bytes=BLOCK),
        "blocks": open_rows(lambda: iter(x_blocks(x, 961)), block_bytes=BLOCK),
        **{kind: open_rows(stored[kind, "float64"], block_bytes=BLOCK) for kind in sources.WRITERS},
    }
    assert {name for name, source in given.items() if not same(fitted(source), reference["float64"])} == set()
    assert sum(name.startswith("parquet-") for name in given) == 3


@pytest.mark.parametrize("kind", sources.WRITERS)
def test_values_round_trip(stored, kind):
    """Read whole, in blocks, and from any row on, every value is the one that was written."""
    x = rows()
    source = open_rows(stored[kind, "float64"], block_bytes=BLOCK)
    assert source.to_array().tobytes() == x.tobytes()
    assert source.n_rows == N
    blocks = [(first, part.copy()) for first, part, _ in source.blocks(64)]
    assert np.concatenate([part for _, part in blocks]).tobytes() == x.tobytes()
    assert all(len(part) % 64 == 0 for _, part in blocks[:-1])
    assert [first for first, _ in blocks] == np.cumsum([0, *(len(part) for _, part in blocks[:-1])]).tolist()
    (part,) = source._parts
    for start in (1, 700, N - 1):
        rest = []
        for piece in part.pieces((2, 0), None, start):
            rest.append(np.empty((piece.n_rows, 2)))
            piece.copy(0, piece.n_rows, rest[-1], None)
        np.testing.assert_array_equal(np.concatenate(rest), x[start:][:, [2, 0]])


def test_every_format_is_tested():
    """A suffix without a writer in tests/sources.py is a format that nobody has read here."""
    formats = {id(FORMATS["." + name.rpartition(".")[2]]) for name, _ in sources.WRITERS.values()}
    assert formats == {id(found) for found in FORMATS.values()}


def x_blocks(x, size):
    return [x[i : i + size] for i in range(0, len(x), size)]


@pytest.mark.parametrize("size", [1, 7, 961, N])
def test_same_bits_from_iterables(reference, size):
    import pyarrow as pa

    x = rows()
    if size == 1:
        x = x[:50]
        blocks = open_rows(x_blocks(x, 1), block_bytes=400)
        assert blocks.to_array().tobytes() == x.tobytes()
        return
    assert same(fitted(open_rows(x_blocks(x, size), block_bytes=BLOCK)), reference["float64"])
    assert same(fitted(open_rows(lambda: iter(x_blocks(x, size)), block_bytes=BLOCK)), reference["float64"])
    batches = [pa.RecordBatch.from_arrays(list(part.T), names=list("abc")) for part in x_blocks(x, size)]
    source = open_rows(batches, block_bytes=BLOCK)
    assert source.names == ("a", "b", "c")
    assert same(fitted(source), reference["float64"])


def test_several_files_are_one_table(tmp_path, reference):
    x = rows()
    for i, part in enumerate(np.array_split(x, [10, 4000])):
        sources._parquet(500)(tmp_path / f"part-{i}.parquet", part, None)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-9.parquet.crc").touch()
    paths = sorted(tmp_path.glob("part-*"))
    for what in (tmp_path, str(tmp_path / "part-*.parquet"), paths, [str(p) for p in paths], tuple(paths)):
        source = open_rows(what, block_bytes=BLOCK)
        assert source.sources == tuple(map(str, paths))
        assert same(fitted(source), reference["float64"])
    np.testing.assert_array_equal(open_rows(paths[::-1]).to_array()[: N - 4000], x[4000:])


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("block", [1, 5000, 10**9])
def test_blocks_and_prefetch_do_not_matter(stored, reference, prefetch, block):
    source = open_rows(stored["parquet-777", "float64"], block_bytes=block, prefetch=prefetch)
    assert same(fitted(source), reference["float64"])


@pytest.mark.parametrize("covariance_type", ["tied", "diag", "spherical"])
@pytest.mark.parametrize("method", ["random", "random_from_data", "k-means++"])
def test_all_families_and_starts(stored, covariance_type, method):
    """More rows than a start looks at, so that the sample is drawn from the stream."""
    options = {"covariance_type": covariance_type, "init_params": method, "random_state": 0, "tol": 1.0}
    from fastgmm.initialize import sample

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "MAX_ROWS", 500)
        a = GaussianMixture(3, **options).fit(rows())
        b = GaussianMixture(3, **options).fit(open_rows(stored["feather", "float64"], block_bytes=BLOCK))
    assert same(a, b)


# -- every method ------------------------------------------------------------------------------------------------------


def test_every_method_takes_a_path_and_a_source(stored, reference):
    x, path, model = rows(), stored["npy", "float64"], reference["float64"]
    for given in (str(path), path, open_rows(path), open_rows(path, block_bytes=BLOCK)):
        assert same(fitted(given), model)
        np.testing.assert_array_equal(model.predict(given), model.predict(x))
        np.testing.assert_array_equal(model.predict_proba(given), model.predict_proba(x))
        np.testing.assert_array_equal(model.score_samples(given), model.score_samples(x))
        for name in ("score", "aic", "bic", "icl"):
            assert getattr(model, name)(given) == getattr(model, name)(x)
        mixture: Mixture = model.mixture_
        np.testing.assert_array_equal(mixture.logpdf(given), mixture.logpdf(x))
        np.testing.assert_array_equal(mixture.predict(given), mixture.predict(x))
    with pytest.warns(fastgmm.ConvergenceWarning):
        labels = GaussianMixture(3, tol=0.0, max_iter=2, random_state=0).fit_predict(path)
    np.testing.assert_array_equal(labels, model.predict(x))
    found = select_model(path, [1, 2], ["diag"], random_state=0)
    assert found.as_rows() == select_model(x, [1, 2], ["diag"], random_state=0).as_rows()
    batch = GaussianMixture(2, random_state=0).partial_fit(path)
    assert batch.means_.tobytes() == GaussianMixture(2, random_state=0).partial_fit(x).means_.tobytes()


def test_labels_and_functions_as_starts(stored):
    x, source = rows(), open_rows(stored["parquet-100", "float64"], block_bytes=BLOCK)
    labels = np.arange(N) % 3
    options = {"tol": 10.0, "random_state": 0}
    a = GaussianMixture(3, init_params=labels, **options).fit(x)
    assert same(a, GaussianMixture(3, init_params=labels, **options).fit(source))
    given = []

    def start(data, n_components, rng):  # noqa: ARG001 - the signature of a start
        given.append(data)
        return labels

    assert same(a, GaussianMixture(3, init_params=start, **options).fit(source))
    assert given == [source]


def test_names_are_remembered_and_compared(tmp_path):
    x = rows(200)
    path = sources.write(tmp_path, "parquet-one", x)
    model = GaussianMixture(2, random_state=0).fit(path)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert model.score(path) == model.score(sources.table(x))
    with pytest.raises(fastgmm.InvalidDataError, match="must be in the same order"):
        model.predict(open_rows(path, columns=["b", "a", "c"]))


def test_columns_by_name_and_position(tmp_path):
    x = rows(500)
    for kind in sources.WRITERS:
        path = sources.write(tmp_path, kind, x)
        np.testing.assert_array_equal(open_rows(path, columns=[2, 0]).to_array(), x[:, [2, 0]])
        if kind in sources.NAMED:
            source = open_rows(path, columns=["b", "a"])
            np.testing.assert_array_equal(source.to_array(), x[:, [1, 0]])
            assert source.names == ("b", "a")


@pytest.mark.parametrize("kind", ["parquet-100", "feather", "csv", "npy"])
def test_numbers_of_other_types(tmp_path, kind):
    """Integers, booleans and halves become float64, as in an array."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import feather

    n = 500
    values = np.arange(n)
    whole = pa.table({"i": values, "b": values % 2 == 0, "h": values.astype(np.float16), "u": values.astype(np.uint8)})
    expected = np.column_stack([values, values % 2 == 0, values.astype(np.float16), values.astype(np.uint8)])
    path = tmp_path / f"x.{kind.partition('-')[0]}"
    {
        "parquet-100": lambda: pq.write_table(whole, path),
        "feather": lambda: feather.write_feather(whole, path),
        "csv": lambda: np.savetxt(path, expected, delimiter=","),
        "npy": lambda: np.save(path, expected.astype(np.int16)),
    }[kind]()
    source = open_rows(path, block_bytes=4000)
    assert source.dtype == np.float64
    np.testing.assert_array_equal(source.to_array(), expected)


def test_precision_can_be_chosen(stored):
    x = rows(dtype="float32")
    wide = open_rows(stored["npy", "float32"], dtype="float64", block_bytes=BLOCK)
    assert same(fitted(wide), fitted(x.astype(np.float64)))
    assert open_rows(stored["npy", "float64"], dtype="float32").to_array().tobytes() == x.tobytes()


def test_float32_out_of_range_is_read_again_as_float64(tmp_path):
    x = rows(4000, "float32") * np.float32(1e15)
    path = sources.write(tmp_path, "npy", x)
    assert same(fitted(open_rows(path, block_bytes=BLOCK)), fitted(x))


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
@pytest.mark.parametrize("kind", ["parquet-777", "stream", "csv", "npy", "zarr"])
def test_a_weight_column_is_sample_weight(tmp_path, kind, scale):
    x, w = rows(), some_weights() * scale
    path = sources.write(tmp_path, kind, x, w)
    column = "w" if kind in sources.NAMED else D
    source = open_rows(path, weights=column, block_bytes=BLOCK)
    expected = as_rows(x, w)
    assert (source.n_rows, source.n_given) == (np.count_nonzero(w), N)
    assert (source.total_weight, source.weight_scale) == (expected.total_weight, expected.weight_scale)
    np.testing.assert_array_equal(source.kept(), w > 0)
    a, b = fitted(x, sample_weight=w), fitted(source)
    assert same(a, b)
    for name in ("score", "bic", "icl"):
        assert getattr(b, name)(source) == getattr(a, name)(x, sample_weight=w)
    np.testing.assert_array_equal(b.predict(source), a.predict(x))  # a row of weight 0 has a label, too
    assert same(fitted(open_rows(path, weights=column)), a)  # in one block


@pytest.mark.parametrize("most", [None, 500])
@pytest.mark.parametrize("kind", ["parquet-777", "stream", "csv", "npy", "zarr"])
def test_weights_of_one_are_no_weights(tmp_path, monkeypatch, kind, most):
    """Also where there are more rows than a start looks at, and where others weigh nothing; the same bits."""
    from fastgmm.initialize import sample

    if most is not None:
        monkeypatch.setattr(sample, "MAX_ROWS", most)
    x, kept = rows(), np.arange(N) % 7 > 0

    def weighted(weight):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        column = "w" if kind in sources.NAMED else D
        return open_rows(sources.write(place, kind, x, weight), weights=column, block_bytes=BLOCK)

    for weight in (np.ones(N), kept.astype(float)):
        source = weighted(weight)
        plain = x[weight > 0.0]
        assert source.even
        a, b = fitted(plain), fitted(source)
        assert same(a, b)
        assert b.score(source) == a.score(plain)
    assert not weighted(np.where(kept, 1.5, 0.5)).even


def test_weights_of_one_beside_a_stream():
    x, ones = rows(), np.ones(N)
    expected = fitted(x)
    source = open_rows(lambda: iter(x_blocks(x, 961)), block_bytes=BLOCK)
    assert same(fitted(source, sample_weight=ones), expected)
    assert same(fitted(open_rows(x_blocks(x, 961), weights=ones, block_bytes=BLOCK)), expected)


def test_weights_beside_a_file(stored):
    x, w = rows(), some_weights()
    expected = fitted(x, sample_weight=w)
    path = stored["parquet-100", "float64"]
    assert same(fitted(open_rows(path, weights=w, block_bytes=BLOCK)), expected)
    assert same(fitted(open_rows(path, block_bytes=BLOCK), sample_weight=w), expected)
    assert same(fitted(path, sample_weight=w), expected)
    with pytest.raises(fastgmm.InvalidParameterError, match="which of the two should count"):
        GaussianMixture(3).fit(open_rows(path, weights=w), sample_weight=w)


@pytest.mark.parametrize("tail", [0, 3, 5000])
def test_rows_of_weight_zero_behind_the_last_one(tmp_path, tail):
    x, w = rows(), np.ones(N)
    w[N - tail :] = 0.0
    w[:10] = 0.0
    path = sources.write(tmp_path, "parquet-777", x, w)
    for block in (BLOCK, 10**9):
        source = open_rows(path, weights="w", block_bytes=block)
        read = np.concatenate([part.copy() for _, part, _ in source.blocks(100)])
        np.testing.assert_array_equal(read, x[10 : N - tail])


# -- the object --------------------------------------------------------------------------------------------------------


def test_a_source_survives_pickling(stored, reference):
    source = open_rows(stored["zarr", "float64"], block_bytes=BLOCK)
    assert same(fitted(pickle.loads(pickle.dumps(source))), reference["float64"])
    assert "9000 x 3, float64" in repr(source)
    lazy = open_rows(stored["csv", "float64"])
    assert "? x 3" in repr(lazy)
    assert lazy.n_rows == N
    assert "9000 x 3" in repr(lazy)


def test_one_accumulator_after_another(stored):
    """Buffers are used again; what a pass returned before is not touched."""
    source = open_rows(stored["npy", "float64"], block_bytes=BLOCK)
    density = Mixture([0.5, 0.5], np.outer([0.0, 5.0], np.ones(D)), np.ones(2), "spherical").density
    run = Accumulator(source, "trace")
    first = run(density)
    kept = first.mean.copy()
    assert run(density).mean.tobytes() == kept.tobytes()
    assert first.mean.tobytes() == kept.tobytes()


def test_open_arrays_of_zarr_and_hdf5(stored, reference):
    import h5py
    import zarr

    with h5py.File(stored["hdf5", "float64"]) as file:
        assert same(fitted(open_rows(file["group/rows"], block_bytes=BLOCK)), reference["float64"])
    assert same(
        fitted(open_rows(zarr.open(stored["zarr", "float64"]), block_bytes=BLOCK)),
        reference["float64"],
    )
    named = f"{stored['hdf5', 'float64']}:/group/rows"
    assert same(fitted(named), reference["float64"])
