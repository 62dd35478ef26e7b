"""Which launch does which blocks: every block once, evenly, within what a launch and the slots may hold."""

import itertools

import pytest

from fastgmm.kernels import schedule
from fastgmm.kernels.arguments import TILE

SHAPES = [(2, 32), (8, 600), (64, 64 * 40), (128, 128 * 180), (64, 64 * 600), (8, 8 * 40_000), (500, 500 * 130_000)]
shapes = pytest.mark.parametrize("shape", SHAPES)


def plan(shape, workers=2, slots=512, ahead=1):
    return schedule.make_schedule(*shape, workers=workers, slots=slots, ahead=ahead)


@shapes
@pytest.mark.parametrize("workers", [1, 2, 3, 16])
@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("n_blocks", [1, 2, 15, 16, 17, 1000])
def test_every_block_is_in_one_wave(shape, workers, ahead, n_blocks):
    slots = schedule.most_slots(workers, shape[1])
    made = plan(shape, workers, slots, ahead)
    for n_rows in (n_blocks * made.block, (n_blocks - 1) * made.block + 1):
        waves = list(made.waves(n_rows))
        done = [block for first, count in waves for block in range(first, first + count)]
        assert done == list(range(n_blocks))
        assert max(count for _, count in waves) * made.ahead <= slots
        if len(waves) > 1:
            assert len({count for _, count in waves[:-1]}) == 1
            assert waves[0][1] % workers == 0


@shapes
@pytest.mark.parametrize("workers", [1, 4])
def test_a_launch_is_short(shape, workers):
    """No longer than it may be, but for one tile a thread, or half of one."""
    made = plan(shape, workers)
    in_parts = made.part_rows < made.block
    longest = made.part_rows if in_parts else made.block * made.most / workers  # rows of a thread
    assert longest * made.row <= schedule.LAUNCH_SECONDS or longest in (TILE, TILE // 2)
    assert made.part_rows % (TILE // 2) == 0
    assert made.most == workers or not in_parts


@shapes
def test_the_grid_depends_on_the_model_alone(shape):
    plans = [plan(shape, *rest) for rest in itertools.product((1, 2, 8), (8, 512), (1, 2))]
    assert len({(made.block, made.part_rows) for made in plans}) == 1
    assert plans[0].block % TILE == 0
    assert 5 * TILE <= plans[0].block <= 20 * TILE


def test_waves_go_ahead_where_there_is_room():
    assert plan((8, 600), 2, 512, 2).ahead == 2
    assert plan((8, 600), 2, 3, 2).ahead == 1  # not a slot for every thread of both
    assert plan((500, 500 * 130_000), 2, 512, 2).ahead == 1  # blocks are done in parts


def test_few_rows_are_for_one_thread():
    made = plan((8, 600), 4)
    few = int(schedule.SERIAL_SECONDS / made.row)
    assert made.threads(few - 1) == 1
    assert made.threads(few + 1) == 4


def test_folds_are_shared_out_where_they_are_large():
    assert schedule.fold_segment(100, 4, 2) == schedule.SEGMENT
    assert schedule.fold_segment(1 << 16, 4, 1) == schedule.SEGMENT
    segment = schedule.fold_segment(1000, 512, 4)
    assert segment % 8 == 0
    assert -(-1000 // segment) == 4
    assert schedule.fold_segment(1 << 20, 512, 4) == schedule.SEGMENT
