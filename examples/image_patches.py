"""A mixture of all 8 x 8 patches of two photographs: the prior of patch-based image restoration.

    python examples/image_patches.py --rows 500000 --components 100 --plot patches.png

The photographs come with scikit-learn (`sklearn.datasets.load_sample_images`); reading them needs pillow. Patches are
grey, overlap, and have their mean removed, so they lie in 63 of 64 dimensions; a little noise of the size of the
rounding of the 8-bit values fills the last one, as an image from a camera would.

D. Zoran, Y. Weiss, "From learning models of natural image patches to whole image restoration", ICCV 2011.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings

import numpy as np

import fastgmm

SIDE = 8


def patches(rows: int, seed: int = 0) -> np.ndarray:
    """Return `rows` patches (rows, 64) float64, their means removed, drawn without replacement from all of them."""
    try:
        from sklearn.datasets import load_sample_images

        images = load_sample_images().images
    except ImportError as error:
        sys.exit(f"this example needs scikit-learn and pillow: pip install scikit-learn pillow ({error})")
    rng = np.random.default_rng(seed)
    found = []
    for image in images:
        grey = image.astype(np.float64).mean(axis=2)
        windows = np.lib.stride_tricks.sliding_window_view(grey, (SIDE, SIDE)).reshape(-1, SIDE, SIDE)
        share = -(-rows // len(images))
        chosen = rng.choice(len(windows), min(share, len(windows)), replace=False)
        found.append(windows[np.sort(chosen)].reshape(-1, SIDE * SIDE))
    X = np.concatenate(found)[:rows]
    X -= X.mean(axis=1, keepdims=True)
    X += rng.uniform(-0.5, 0.5, X.shape)
    return np.ascontiguousarray(X)


def draw(mixture: fastgmm.Mixture, path: str, components: int = 12, vectors: int = 8) -> None:
    """Draw the leading eigenvectors of the heaviest components, a component a row, as patches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        sys.exit(f"--plot needs matplotlib: pip install matplotlib ({error})")
    heaviest = np.argsort(-mixture.weights)[:components]
    figure = Figure(figsize=(vectors + 1.5, len(heaviest)), layout="constrained")
    grid = figure.subplots(len(heaviest), vectors, squeeze=False)
    for row, k in zip(grid, heaviest, strict=True):
        _, directions = np.linalg.eigh(mixture.covariances[k])
        for axes, direction in zip(row, directions.T[::-1], strict=False):
            limit = np.abs(direction).max()
            axes.imshow(direction.reshape(SIDE, SIDE), cmap="gray", vmin=-limit, vmax=limit)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{mixture.weights[k]:.1%}", rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Fit, and print sizes and times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--float32", action="store_true", help="half the memory, about twice the speed")
    parser.add_argument("--out", help="write the model to this file (.npz)")
    parser.add_argument("--plot", help="draw leading eigenvectors of the heaviest components into this file (.png)")
    options = parser.parse_args()

    X = patches(options.rows)
    if options.float32:
        X = X.astype(np.float32)
    warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)  # a fixed number of iterations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fastgmm.GaussianMixture(2, max_iter=1, tol=0.0, random_state=0).fit(X[:2000])  # kernels compile or load
    start = time.perf_counter()
    model = fastgmm.GaussianMixture(options.components, max_iter=options.iterations, tol=0.0, random_state=0).fit(X)
    total = time.perf_counter() - start
    iterations = [record.seconds for record in model.result_.history]
    print(f"{X.shape[0]} patches of {X.shape[1]} pixels, {options.components} components, {X.dtype}")
    # the history begins after the first pass, which belongs to the start: it says what the start is worth
    print(f"start {total - sum(iterations):.1f} s, {len(iterations)} EM iterations of {np.median(iterations):.2f} s")
    print(f"whole fit {total:.1f} s, log-likelihood {model.lower_bound_:.4f} nats a patch")
    if options.out:
        fastgmm.save(model, options.out)
    if options.plot:
        draw(model.mixture_, options.plot)


if __name__ == "__main__":
    main()
