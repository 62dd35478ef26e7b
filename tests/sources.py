"""One table in every format that is read, and readers that fail."""

import numpy as np

NAMES = ("a", "b", "c")


class FaultyReader:
    """Blocks of rows that fail at the n-th request, in every pass."""

    def __init__(self, blocks, fail_at):
        self.blocks, self.fail_at, self.handed_out = blocks, fail_at, 0

    def __call__(self):
        for number, block in enumerate(self.blocks):
            if number == self.fail_at:
                msg = f"disk on fire at block {number}"
                raise RuntimeError(msg)
            self.handed_out += 1
            yield block


def table(x, w=None):
    import pyarrow as pa

    columns = {name: x[:, j] for j, name in enumerate(NAMES[: x.shape[1]])}
    return pa.table(columns if w is None else {**columns, "w": w})


def _parquet(group):
    def write(path, x, w):
        import pyarrow.parquet as pq

        pq.write_table(table(x, w), path, row_group_size=group)

    return write


def _feather(path, x, w):
    from pyarrow import feather

    feather.write_feather(table(x, w), path, chunksize=700)


def _ipc(path, x, w):
    import pyarrow as pa

    data = table(x, w)
    with pa.ipc.new_file(path, data.schema) as file:
        file.write_table(data)


def _stream(path, x, w):
    import pyarrow as pa

    data = table(x, w)
    with pa.ipc.new_stream(path, data.schema) as file:
        file.write_table(data, max_chunksize=300)


def _with_weights(x, w):
    return x if w is None else np.column_stack([x, w.astype(x.dtype)])


def _npy(path, x, w):
    np.save(path, _with_weights(x, w))


def _fortran(path, x, w):
    np.save(path, np.asfortranarray(_with_weights(x, w)))


def _swapped(path, x, w):
    x = _with_weights(x, w)
    np.save(path, x.astype(x.dtype.newbyteorder()))


def _zarr(path, x, w):
    import zarr

    x = _with_weights(x, w)
    zarr.create_array(str(path), shape=x.shape, chunks=(450, x.shape[1]), dtype=x.dtype)[:] = x


def _zarr_shards(path, x, w):
    import zarr

    x = _with_weights(x, w)
    made = zarr.create_array(
        str(path), shape=x.shape, chunks=(100, x.shape[1]), shards=(500, x.shape[1]), dtype=x.dtype
    )
    made[:] = x


def _hdf5(path, x, w):
    import h5py

    x = _with_weights(x, w)
    with h5py.File(path, "w") as file:
        file.create_dataset("group/rows", data=x, chunks=(333, x.shape[1]), compression="gzip")


def _contiguous(path, x, w):
    import h5py

    with h5py.File(path, "w") as file:
        file["rows"] = _with_weights(x, w)


def _csv(path, x, w):
    x = _with_weights(x, w)
    names = [*NAMES[: x.shape[1] - (w is not None)], *(["w"] if w is not None else [])]
    lines = [",".join(names), *(",".join(map(repr, row)) for row in x.astype(float).tolist())]
    path.write_text("\n".join(lines) + "\n")


WRITERS = {
    "npy": ("x.npy", _npy),
    "fortran": ("f.npy", _fortran),
    "swapped": ("s.npy", _swapped),
    "parquet-100": ("p100.parquet", _parquet(100)),
    "parquet-777": ("p777.parquet", _parquet(777)),
    "parquet-one": ("p.pq", _parquet(10**6)),
    "feather": ("x.feather", _feather),
    "ipc": ("x.arrow", _ipc),
    "stream": ("x.arrows", _stream),
    "zarr": ("x.zarr", _zarr),
    "zarr-shards": ("sharded.zarr", _zarr_shards),
    "hdf5": ("x.h5", _hdf5),
    "hdf5-plain": ("plain.hdf5", _contiguous),
    "csv": ("x.csv", _csv),
}
NAMED = ("parquet-100", "parquet-777", "parquet-one", "feather", "ipc", "stream", "csv")


def write(folder, kind, x, w=None):
    """Write rows, and their weights as the last column, in a format; return the path."""
    name, function = WRITERS[kind]
    path = folder / name
    function(path, x, w)
    return path
