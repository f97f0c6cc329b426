"""The record of many runs: what is derived from it, and that a file gives it back."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpbo import archive, plots
from gpbo.errors import InvalidData, InvalidOption
from gpbo.replications import Diagnostics, Replications
from tests.monte_carlo import unchecked_shapes

NAN = math.nan


def record(
    values: list[list[float]],
    *,
    trials: list[int] | None = None,
    excess: list[list[list[float]]] | None = None,
) -> Replications:
    """Runs with these values, whose truth is a tenth more, and an optimum of 1."""
    observed = np.array(values)
    shape = observed.shape
    numbers = np.arange(observed.size, dtype=float).reshape(shape)
    return Replications(
        problem="branin",
        strategy="ei",
        inference="nuts",
        device="cpu",
        optimum=1.0,
        seeds=tuple(range(7, 7 + shape[0])),
        trials=np.array([shape[1]] * shape[0] if trials is None else trials),
        design=np.array([2] * shape[0]),
        points=np.stack([numbers, -numbers, 2 * numbers], -1),
        values=observed,
        truth=observed + 0.1,
        excess=np.zeros((*shape, 0)) if excess is None else np.array(excess),
        diagnostics=Diagnostics(np.full(shape, "ok"), *([numbers] * 6)),
        seconds={"design": 0.5, "fit": 2.0, "acquisition": 1.0, "evaluation": 0.25},
        stopped="budget",
    )


def test_the_incumbent_is_the_first_trial_with_the_least_value_so_far() -> None:
    runs = record([[5.0, 3.0, 3.0, 4.0, 2.0], [NAN, NAN, 6.0, NAN, 7.0]])
    assert runs.incumbents.tolist() == [[0, 1, 1, 1, 4], [-1, -1, 2, 2, 2]]


def test_only_what_meets_all_constraints_is_an_incumbent() -> None:
    runs = record(
        [[5.0, 3.0, 4.0], [2.0, 1.0, NAN], [2.0, 3.0, 4.0]],
        excess=[
            [[-1.0, 0.0], [0.1, -1.0], [-1.0, -1.0]],
            [[0.5, 0.5], [-1.0, 1e-300], [NAN, NAN]],
            [[0.0, 0.5], [0.0, 0.0], [-1.0, 1.0]],
        ],
    )
    assert runs.incumbents.tolist() == [[0, 0, 2], [-1, -1, -1], [-1, 1, 1]]
    np.testing.assert_allclose(runs.final_regret, [3.1, NAN, 2.1])
    assert "runs without a trial that meets the constraints, not counted: 1" in str(runs)
    assert "constraints" not in str(record([[5.0, 3.0]]))


def test_a_file_of_before_there_were_constraints_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.npz"
    record([[5.0, 3.0]]).save(path)
    with np.load(path) as file:
        older = {name: file[name] for name in file if name != "excess"}
    np.savez_compressed(path, **older)
    again = Replications.load(path)
    assert again.excess.shape == (1, 2, 0)
    assert again.incumbents.tolist() == [[0, 1]]


def test_the_regret_is_of_the_true_value_of_what_looked_best() -> None:
    runs = record([[5.0, 3.0, 4.0], [NAN, 6.0, 7.0]])
    np.testing.assert_allclose(runs.regret, [[4.1, 2.1, 2.1], [NAN, 5.1, 5.1]])
    np.testing.assert_allclose(runs.final_regret, [2.1, 5.1])


def test_an_optimum_that_is_none_is_told_of() -> None:
    beaten = record([[5.0, 3.0], [4.0, 0.5]])
    assert "the problem's optimum=1 is too large: some runs found less" in str(beaten)
    rounded = record([[5.0, 3.0], [4.0, 0.9 - 1e-12]])
    assert "too large" not in str(rounded)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [2.0**-40, 1.0, 2.0**40])
def test_an_optimum_is_none_by_more_than_a_rounding_whatever_the_units(scale: float) -> None:
    for below, told in ((1e-12, False), (1e-7, True)):
        plain = record([[5.0, 3.0, 0.9 - below]])
        truth, optimum = scale * plain.truth, scale * plain.optimum
        runs = replace(plain, values=scale * plain.values, truth=truth, optimum=optimum)
        assert ("too large" in str(runs)) == told


def test_values_near_the_largest_double_are_printed() -> None:
    alike = str(record([[1.7e308, 1.5e308], [1.6e308, 1.5e308], [1.5e308, 1.5e308]]))
    assert "simple regret: median 1.5e+308 (quartiles 1.5e+308 to 1.5e+308)" in alike
    assert "simple regret: median -1e+308 (" in str(record([[1e308, -1e308], [-1e308, 1e308]]))


def test_runs_that_were_interrupted_have_no_regret_beyond_their_last_trial() -> None:
    runs = record([[5.0, 3.0, 4.0], [6.0, NAN, NAN]], trials=[3, 1])
    np.testing.assert_allclose(runs.regret, [[4.1, 2.1, 2.1], [5.1, NAN, NAN]])
    np.testing.assert_allclose(runs.final_regret, [2.1, 5.1])
    assert runs.curve().trial.tolist() == [1]


def test_runs_without_a_value_have_no_regret_and_no_curve() -> None:
    nothing = record([[NAN, NAN], [3.0, 2.0]])
    np.testing.assert_allclose(nothing.final_regret, [NAN, 1.1])
    assert len(nothing.curve().trial) == 0
    assert "median 1.1" in str(nothing)
    before = record([[], []])
    assert np.isnan(before.final_regret).all()
    assert "0 trials" in str(before)


def test_a_curve_has_the_median_the_quartiles_the_mean_and_its_error() -> None:
    regrets = [3.9, 0.9, 7.9, 1.9, 2.9]
    curve = record([[regret + 0.9] for regret in regrets]).curve()
    np.testing.assert_allclose(
        [curve.low[0], curve.median[0], curve.high[0]], np.quantile(regrets, [0.25, 0.5, 0.75])
    )
    assert curve.mean[0] == pytest.approx(np.mean(regrets))
    assert curve.error[0] == pytest.approx(np.std(regrets, ddof=1) / math.sqrt(5))
    assert np.isnan(record([[3.0]]).curve().error).all()


def test_a_run_without_a_regret_counts_as_infinite() -> None:
    """From where half of the runs have one; trials that some run did not make are left out."""
    values = [[NAN, 9.0, 3.0, 2.0, 1.0], [NAN, 8.0, 7.0, 6.0, NAN], [NAN, NAN, NAN, 4.0, 4.0]]
    curve = record([*values, [NAN] * 5], trials=[5, 4, 5, 5]).curve()
    assert curve.trial.tolist() == [4]  # at the third trial the worse of the middle ones has none
    np.testing.assert_allclose([curve.low[0], curve.median[0], curve.high[0]], [3.1, 5.1, np.inf])
    assert curve.mean.tolist() == [np.inf]
    assert np.isnan(curve.error).all()
    curve = record(values, trials=[5, 4, 5]).curve()
    assert curve.trial.tolist() == [2, 3, 4]
    np.testing.assert_allclose(curve.median, [8.1, 6.1, 3.1])
    np.testing.assert_allclose(curve.high, [np.inf, np.inf, 4.1])
    np.testing.assert_allclose(curve.mean, [np.inf, np.inf, 3.1])
    figure = record(values, trials=[5, 4, 5]).plot()
    median, mean = figure.axes
    assert np.array_equal(median.get_lines()[0].get_xdata(), [2, 3, 4])
    assert np.array_equal(mean.get_lines()[0].get_xdata(), [4])
    top = median.get_ylim()[1]
    assert 8.1 < top < median.collections[0].get_paths()[0].get_extents().ymax < np.inf


def test_the_summary_says_what_came_of_it() -> None:
    told = str(record([[5.0, 3.0], [2.0, 4.0], [9.0, 8.0]]))
    assert "3 runs of ei on branin, 6 trials on cpu, the budget was used up" in told
    assert "simple regret: median 2.1 (quartiles 1.6 to 4.6), mean 3.433" in told
    assert "0.5 s design, 2.0 s fit, 1.0 s acquisition, 0.2 s evaluation" in told
    assert "6 ok" in told


def test_a_file_gives_back_every_field(tmp_path: Path) -> None:
    runs = record([[5.0, NAN, 3.0], [2.0, 4.0, NAN]], trials=[3, 2])
    path = tmp_path / "runs.data"  # the name is kept as it is
    runs.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["runs.data"]
    again = Replications.load(path)
    for name, value in vars(runs).items():
        other = getattr(again, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(other, value)
            assert other.dtype == value.dtype
        elif isinstance(value, Diagnostics):
            for field, array in vars(value).items():
                np.testing.assert_array_equal(getattr(other, field), array)
        else:
            assert other == value
    np.testing.assert_array_equal(again.regret, runs.regret)


def test_numpy_reads_the_file_too(tmp_path: Path) -> None:
    record([[5.0, 3.0]]).save(tmp_path / "runs.npz")
    with np.load(tmp_path / "runs.npz") as file:
        np.testing.assert_array_equal(file["values"], [[5.0, 3.0]])
        assert file["diagnostics.rhat"].shape == (1, 2)
        assert json.loads(str(file["header"]))["format"] == 1


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for text in ("problem: branin", ""):
        path.write_text(text)
        with pytest.raises(InvalidData, match=r"expected a file that Replications\.save wrote"):
            Replications.load(path)
    with path.open("wb") as file:
        np.savez(file, values=np.zeros(3))
    with pytest.raises(InvalidData, match=r"expected a file that Replications\.save wrote"):
        Replications.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InvalidData, match=r"expected a file that Replications\.save wrote"):
        Replications.load(path)
    with path.open("wb") as file:
        np.savez(file, header=np.array(json.dumps({"format": "1"})))
    with pytest.raises(InvalidData, match=r"expected a file that Replications\.save wrote"):
        Replications.load(path)
    with path.open("wb") as file:
        np.savez(file, header=np.array(json.dumps({"format": 2})))
    with pytest.raises(
        InvalidData, match="written by a newer gpbo: expected format 1 or earlier; upgrade"
    ):
        Replications.load(path)
    record([[5.0, 3.0]]).save(path)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"values.npy") + 30] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(InvalidData, match=r"expected a file that Replications\.save wrote"):
        Replications.load(path)
    with pytest.raises(
        InvalidData,
        match=r"none: there is no such file: expected a file that Replications\.save wrote",
    ):
        Replications.load(tmp_path / "none")


def test_a_device_or_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    record([[5.0, 3.0]]).save(pipe)
    assert pipe.is_fifo()
    (tmp_path / "runs.npz").write_bytes(os.read(reader, 1 << 16))
    os.close(reader)
    np.testing.assert_equal(Replications.load(tmp_path / "runs.npz").values, [[5.0, 3.0]])


def test_files_are_written_into_folders_that_exist(tmp_path: Path) -> None:
    runs = record([[5.0, 3.0]])
    for write, path, message in (
        (runs.save, tmp_path / "no" / "x.npz", "in an existing folder"),
        (runs.save, tmp_path, "expected the path of a file"),
        (runs.plot, tmp_path / "no" / "x.png", "in an existing folder"),
        (runs.plot, tmp_path / "x.foo", "expected a file name that ends in one of "),
    ):
        with pytest.raises(InvalidOption, match=message):
            write(path)
    assert list(tmp_path.iterdir()) == []


def test_of_a_file_that_could_not_be_written_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "runs.npz"
    record([[5.0, 3.0]]).save(path)
    for module, name in ((np, "savez_compressed"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="No space left on device"):
                record([[1.0]]).save(path)
        assert [*tmp_path.iterdir()] == [path]
    assert Replications.load(path).values.tolist() == [[5.0, 3.0]]


def test_processes_that_write_to_one_target_do_not_meet_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "runs"
    with archive.appearing(target) as first:
        first.write(b"first")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with archive.appearing(target) as second:
            second.write(b"second")
        assert target.read_bytes() == b"second"
        monkeypatch.undo()
    assert target.read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [target]


def test_the_plot_has_a_line_and_a_band_for_every_set_of_runs(tmp_path: Path) -> None:
    runs = record([[5.0, 3.0, 1.4], [2.0, 4.0, NAN], [3.0, 1.2, 1.1]])
    figure = plots.regret({"ei": runs, "again": runs}, tmp_path / "regret.png")
    assert (tmp_path / "regret.png").read_bytes().startswith(b"\x89PNG")
    median, mean = figure.axes
    curve = runs.curve()
    for axes, expected in ((median, curve.median), (mean, curve.mean)):
        assert [line.get_label() for line in axes.get_lines()] == ["ei", "again"]
        np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), expected)
        assert len(axes.collections) == 2
        assert axes.get_yscale() == "log"
    quartiles, interval = (
        panel.collections[0].get_paths()[0].get_extents() for panel in (median, mean)
    )
    assert (quartiles.ymin, quartiles.ymax) == (curve.low.min(), curve.high.max())
    factor = np.exp(1.96 * curve.error / curve.mean)
    assert interval.ymax == pytest.approx((curve.mean * factor).max(), rel=1e-3)
    assert interval.ymin == pytest.approx((curve.mean / factor).min(), rel=1e-3)
    low, high = median.get_ylim()
    assert 0 < low < curve.low.min() < curve.high.max() < high


@pytest.mark.parametrize(
    ("reached", "labels"),
    [
        ([19.0, 2.5], ["2", "5", "10", "20"]),
        ([700.0, 2.5], ["10", "100", "1000"]),
        ([4.1, 4.0], ["2.1", "4.8"]),
    ],
)
def test_regrets_are_plain_numbers_where_they_are_short(
    reached: list[float], labels: list[str]
) -> None:
    figure = plots.regret(record([reached] * 3))
    figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    axis = figure.axes[0].yaxis
    shown = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
    assert [label.get_text() for tick, label in shown if low <= tick <= high] == labels
    assert not any(label.get_text() for label in axis.get_ticklabels(minor=True))


def test_an_optimum_that_is_met_exactly_can_be_drawn(tmp_path: Path) -> None:
    record([[3.0, 0.9]] * 3).plot(tmp_path / "zero.svg")
    record([[NAN, NAN]]).plot(tmp_path / "empty.svg")
    assert (tmp_path / "zero.svg").exists()


def test_runs_of_different_problems_make_no_plot() -> None:
    runs = record([[5.0]])
    with pytest.raises(InvalidOption, match=r"problems \['branin', 'levy'\]"):
        plots.regret({"a": runs, "b": replace(runs, problem="levy")})
    with pytest.raises(InvalidOption, match=r"runs=\{\}: expected at least one"):
        plots.regret({})
    with unchecked_shapes(), pytest.raises(InvalidOption, match=r"labels \(strings\)"):
        plots.regret({1: runs})  # type: ignore[dict-item]


def test_a_place_where_nothing_may_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, there = record([[3.0]]), tmp_path / "runs.npz"
    there.touch()
    for path, refused in ((tmp_path / "new.npz", tmp_path), (there, there)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda place, mode, refused=refused: place != refused)
            with pytest.raises(InvalidOption, match="expected a path that can be written to"):
                runs.save(path)
        runs.save(path)


def test_a_place_without_a_folder_is_told_once(tmp_path: Path) -> None:
    place = str(tmp_path / "nowhere" / "runs.npz")
    with pytest.raises(InvalidOption) as raised:
        record([[3.0]]).save(place)
    expected = "expected the path of a file in an existing folder"
    assert str(raised.value) == f"path={place!r}: {expected}"


def test_a_plot_without_a_path_is_a_figure_and_runs_show_what_they_print() -> None:
    runs = record([[3.0, 2.0], [4.0, 1.0]])
    assert len(runs.plot().axes) == 2
    assert repr(runs) == str(runs)
    assert runs != record([[3.0, 2.0], [4.0, 1.0]])


def test_where_no_optimum_is_known_what_was_reached_is_told() -> None:
    runs = replace(record([[5.0, 3.0, 4.0], [NAN, 6.0, 7.0]]), optimum=NAN)
    np.testing.assert_allclose(runs.reached, [[5.1, 3.1, 3.1], [NAN, 6.1, 6.1]])
    assert np.isnan(runs.final_regret).all()
    told = "true value at the best trial: median 4.6 (quartiles 3.85 to 5.35), mean 4.6"
    assert told in str(runs)
    with pytest.raises(InvalidOption, match="'branin', whose optimum is not known"):
        plots.regret(runs)


def test_runs_in_other_dimensions_are_of_another_problem() -> None:
    runs = record([[5.0, 3.0, 4.0]])
    other = replace(runs, points=runs.points[..., :2])
    message = r"runs of 'branin' are in \[2, 3\] dimensions: expected all in the same number"
    with pytest.raises(InvalidOption, match=message):
        plots.regret({"a": runs, "b": other})
