"""The engine on every device: what is deterministic agrees with the CPU, draws in distribution.

Written for ``unittest``, which is there on a bare machine with a GPU and nothing but torch,
gpytorch and botorch: ``python -m unittest tests.test_gpu``; `benchmarks/gpu_check.sh` does that.
Elsewhere pytest runs it with the other tests. The same tests run on the CPU too, in short, so
that they cannot rot.
"""

import math
import unittest
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from gpytorch.priors import GammaPrior
from torch import Tensor

from gpbo import fitting, graphs, memory, problems
from gpbo.acquisition import LogExpectedImprovement, LogProbabilityOfImprovement
from gpbo.ascent import maximize
from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Search, _RowByRow
from gpbo.data import Observations
from gpbo.design import sobol
from gpbo.evidence import LogPosterior, Model
from gpbo.feasibility import log_chance, weighted
from gpbo.fitting import Sampling
from gpbo.hyperparameters import HyperparameterPrior
from gpbo.inference import HyperparameterDraws, draw, schedule_for
from gpbo.lockstep import replicate
from gpbo.model_free import GridSearch
from gpbo.optimizer import Optimizer
from gpbo.simulation import simulate
from gpbo.situation import Strategy
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.strategies import CustomAcquisition, ExpectedImprovement, ThompsonSampling
from gpbo.surrogate import Surrogate

RUNS, RESULTS, DIM, DRAWS = 3, 11, 2, 5
PROBLEM = problems.get("branin")
LIMITED = problems.get("gramacy")
QUICK = Search(raw=32, perturbed=8, restarts=2, iterations=8)


def moved(value: Any, device: str) -> Any:
    """A tensor, or a dataclass of tensors, on another device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: moved(getattr(value, field.name), device) for field in fields(value)}
        return type(value)(**parts)
    return value


def data() -> Observations:
    """Runs with 11, 7 and 2 results, on the CPU."""
    x = sobol(RESULTS, DIM, Streams.named(0, "gpu", runs=RUNS))
    mask = torch.arange(RESULTS) < torch.tensor([[11], [7], [2]])
    return Observations.of(x, PROBLEM(x), mask)


def surrogate() -> Surrogate:
    """The posterior at a few hyperparameter draws, on the CPU."""
    known, streams = data(), Streams.named(1, "gpu", runs=RUNS)
    one = torch.ones(RUNS, DRAWS, dtype=DTYPE)
    lengthscale = 0.2 + streams.uniform(DRAWS, DIM)
    noise = 1e-3 + 0.1 * streams.uniform(DRAWS)
    mean = 0.3 * streams.normal(DRAWS)
    return Surrogate.condition(known.x, known.y, known.mask, lengthscale, one, noise, mean)


class OnAnyDevice:
    """The tests; a subclass names the device, and how much there is to do on it."""

    device: str
    strategies: tuple[Strategy, ...]
    chains: int
    draws: int
    budget: int

    def assert_close(self, result: Tensor, expected: Tensor, rtol: float = 1e-8) -> None:
        """On the device, and equal to what the CPU has."""
        assert result.device.type == self.device
        atol = rtol * float(expected.abs().max().clamp(min=1e-12))
        torch.testing.assert_close(result.cpu(), expected, rtol=rtol, atol=atol)

    def test_the_log_posterior_and_its_gradient_agree(self) -> None:
        here = data()
        there = moved(here, self.device)
        for prior in ("dimension-scaled", "saas"):
            expected = Model(prior=prior).log_posterior(here.x, here.y, here.mask)
            density = Model(prior=prior).log_posterior(there.x, there.y, there.mask)
            u = expected.parametrization.sample(Streams.named(2, "gpu", runs=RUNS), 7)
            for most in (RESULTS, 5):  # all of the results, and some
                value, gradient = density.thinned(most)(u.flatten(0, 1).to(self.device))
                value_here, gradient_here = expected.thinned(most)(u.flatten(0, 1))
                self.assert_close(value, value_here, rtol=1e-7)
                self.assert_close(gradient, gradient_here, rtol=1e-6)

    def test_a_surrogate_conditioned_there_is_the_surrogate(self) -> None:
        here = surrogate()
        there = Surrogate.condition(
            x=here.x.to(self.device),
            y=here.y[:, 0].to(self.device),
            mask=here.mask.to(self.device),
            lengthscale=here.lengthscale.to(self.device),
            outputscale=here.outputscale.to(self.device),
            noise_variance=here.noise_variance.to(self.device),
            mean=here.mean.to(self.device),
        )
        x = sobol(13, DIM, Streams.named(3, "gpu", runs=RUNS))
        expected = here.moments_and_gradients(x)
        for part, wanted in zip(
            there.moments_and_gradients(x.to(self.device)), expected, strict=True
        ):
            self.assert_close(part, wanted, rtol=1e-7)
        self.assert_close(there.incumbent, here.incumbent)

    def test_what_results_would_be_without_noise_agrees(self) -> None:
        """Some draws have samples, and some have too little noise for any."""
        known, x = surrogate(), sobol(13, DIM, Streams.named(3, "gpu", runs=RUNS))
        some = float(known.noise_variance.median().sqrt())
        here, there = (
            each.sampled(Streams.named(6, "gpu", runs=RUNS, device=each.x.device), noisy=some)
            for each in (known, moved(known, self.device))
        )
        self.assert_close(there.y, here.y, rtol=1e-7)
        self.assert_close(there.noise_variance, here.noise_variance)
        for part, wanted in zip(there.moments(x.to(self.device)), here.moments(x), strict=True):
            self.assert_close(part, wanted, rtol=1e-6)

    def test_acquisitions_and_their_gradients_agree(self) -> None:
        here = surrogate()
        there = moved(here, self.device)
        known = data()
        failed = sobol(2, DIM, Streams.named(4, "gpu", runs=RUNS))
        mask = torch.tensor([[True, True], [True, False], [False, False]])
        x = sobol(13, DIM, Streams.named(5, "gpu", runs=RUNS))
        for kind in (LogExpectedImprovement, LogProbabilityOfImprovement):
            some = known.mask.any(-1)
            chance = log_chance(known, failed, mask)
            on_cpu = weighted(kind(here, here.incumbent), chance, some)
            expected = on_cpu.value_and_gradient(x)
            lost = (failed.to(self.device), mask.to(self.device))
            chance = log_chance(moved(known, self.device), *lost)
            some = some.to(self.device)
            utility = weighted(kind(there, there.incumbent), chance, some)
            for part, wanted in zip(
                utility.value_and_gradient(x.to(self.device)), expected, strict=True
            ):
                self.assert_close(part, wanted, rtol=1e-6)

    def test_a_replay_is_what_it_was_once_larger_matrices_have_been(self) -> None:
        """Workspaces of libraries, which a graph has the addresses of, may move when they grow."""

        def evaluated(u: Tensor, density: LogPosterior) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            return u, density(u)

        found: list[Tensor] = []
        for results, chains in ((5, 4), (150, 32), (5, 4)):
            x = sobol(results, DIM, Streams.named(0, "gpu", runs=RUNS))
            known = moved(Observations.of(x, PROBLEM(x)), self.device)
            density = Model().log_posterior(known.x, known.y, known.mask)
            u = density.parametrization.sample(Streams.named(2, "gpu", runs=RUNS), chains)
            u = u.flatten(0, 1).to(self.device)
            with graphs.replayed(evaluated, u.device) as play:
                _, (value, gradient) = play(u, density)
                found.append(torch.cat([value[:, None], gradient], 1).clone())
            expected, slope = density(u)
            self.assert_close(found[-1], torch.cat([expected[:, None], slope], 1).cpu(), rtol=1e-6)
        assert torch.equal(found[0], found[2])

    def test_an_ascent_ends_where_it_does_on_the_cpu(self) -> None:
        centre = sobol(7, 5, Streams.named(6, "gpu"))[0] * 1.4 - 0.2

        def hills(x: Tensor) -> tuple[Tensor, Tensor]:
            away = x - centre[: len(x)].to(x.device)
            return -(away.square().sum(-1)), -2 * away

        start = sobol(7, 5, Streams.named(7, "gpu"))[0]
        expected = maximize(hills, start, 0.0, 1.0)
        climbed = maximize(hills, start.to(self.device), 0.0, 1.0)
        self.assert_close(climbed.x, expected.x, rtol=1e-6)
        self.assert_close(climbed.x, centre.clamp(0, 1), rtol=1e-6)

    def test_the_sampler_has_the_moments_that_it_has_on_the_cpu(self) -> None:
        """Means of every chain are independent: their spread is the Monte-Carlo error."""
        x = sobol(RESULTS, DIM, Streams.named(0, "gpu", runs=RUNS))
        here = Observations.of(x, PROBLEM(x))
        chains, draws = self.chains, self.draws
        found = {}
        for device in {"cpu", self.device}:
            there = moved(here, device)
            streams = Streams.named(8, f"gpu-{device}", runs=RUNS, device=device)
            how = Sampling(chains=chains, warmup=2 * draws, draws=draws, kept=chains)
            fit = fitting.fit(there, sampling=how, streams=streams)
            assert fit.draws is not None
            assert fit.draws.mean.device.type == device
            u = fit.draws.unconstrained.cpu().unflatten(1, (chains, -1)).mean(2)
            found[device] = (u.mean(1), u.std(1) / chains**0.5)
        (one, one_error), (other, other_error) = found["cpu"], found[self.device]
        z = (one - other) / (one_error.square() + other_error.square()).sqrt().clamp(min=1e-12)
        assert float(z.abs().max()) < 6

    def test_a_run_in_a_batch_is_the_run_alone(self) -> None:
        for strategy in self.strategies:
            options: dict[str, Any] = {
                "strategy": strategy,
                "budget": self.budget,
                "inference": "map",
                "device": self.device,
                "progress": False,
            }
            together = replicate(PROBLEM, runs=2, **options)
            assert torch.device(together.device).type == self.device
            # Roundings differ with the size of a batch. Where a drawn function has its minimum they
            # soon decide, so that only the first proposal of a path is the same.
            same = 6 if isinstance(strategy, ThompsonSampling) else self.budget
            for run in range(2):
                alone = replicate(PROBLEM, runs=1, seed=run, **options)
                difference = abs(together.points[run] - alone.points[0])[:same].max()
                # A tie of two maxima may fall either way on a device that rounds differently.
                assert difference < 1e-3, f"{strategy.name}, run {run}: {difference}"

    def test_an_optimizer_asks_for_legal_configurations_there(self) -> None:
        space = Space(
            Real("rate", 1e-4, 1, "log"), Integer("depth", 1, 9), Categorical("kind", ("a", "b"))
        )
        strategy = self.strategies[0]
        optimizer = Optimizer(space, strategy, initial=3, inference="map", device=self.device)
        for number in range(5):
            trial, waiting = optimizer.ask(2)
            assert space.validate(trial.params) == trial.params
            optimizer.tell(trial, trial.params["depth"] + trial.params["rate"])
            if number == 2:
                optimizer.fail(waiting, "broke")
        assert optimizer.fit().surrogate.x.device.type == self.device

    def test_a_used_up_space_is_searched_on_there_and_a_configuration_recommended(self) -> None:
        def mean(surrogate: Surrogate) -> Callable[[Tensor], Tensor]:
            return lambda x: -surrogate.moments(x)[0].mean(1)

        space = Space(Integer("n", 1, 4))
        for strategy in (
            CustomAcquisition("mean", mean, QUICK, repeats=True),
            ThompsonSampling(QUICK, features=64, repeats=True),
        ):
            optimizer = Optimizer(space, strategy, initial=4, inference="map", device=self.device)
            for trial in optimizer.ask(4):
                optimizer.tell(trial, math.nan if trial.params["n"] == 1 else trial.params["n"])
            for trial in optimizer.ask(3):
                assert trial.params["n"] > 1
                optimizer.tell(trial, trial.params["n"])
            best = optimizer.recommend()
            assert best.params == {"n": 2}
            assert best.low <= best.median <= best.high

    def test_results_of_a_slice_are_found_there(self) -> None:
        """Quotients of a GPU may differ from those that the results were encoded with."""
        space = Space(Integer("k", 1, 3), Integer("n", 1, 7))
        grid = GridSearch(7)
        optimizer = Optimizer(space, grid, initial=1, inference="map", device=self.device)
        for trial in optimizer.ask(21):
            optimizer.tell(trial, float((trial.params["n"] - 3) ** 2))
        for k in (1, 2, 3):
            assert optimizer.recommend(fixed={"k": k}).params == {"k": k, "n": 3}

    def test_constraints_are_heeded_there(self) -> None:
        space = Space(Real("x", 0.0, 1.0), Real("y", 0.0, 1.0))
        for strategy in (self.strategies[0], ThompsonSampling(QUICK, features=64)):
            optimizer = Optimizer(
                space,
                strategy,
                initial=3,
                constraints=["x <= 0.9", "x >= 0.5"],
                inference="map",
                device=self.device,
            )
            for _ in range(5):
                trial, _ = optimizer.ask(2)
                value = trial.params["x"] + trial.params["y"]
                optimizer.tell(trial, value, {"x": trial.params["x"]})
            posterior = optimizer.posterior()
            assert posterior.limits is not None
            assert posterior.limits.surrogate.x.device.type == self.device
            assert 0.5 <= posterior.recommend().params["x"] <= 0.9
            assert 0.0 <= posterior.chance([{"x": 0.7, "y": 0.1}])[0] <= 1.0

    def test_runs_with_constraints_are_what_they_are_alone_there(self) -> None:
        """Two limits for each run; in a third of the box trials fail, so that the runs part."""
        first, second = LIMITED.constraints

        def torn(x: Tensor) -> Tensor:
            return second(x).where(x[..., 0] > 0.3, math.nan)

        problem = replace(LIMITED, constraints=(first, torn))
        options: dict[str, Any] = {
            "strategy": self.strategies[0],
            "budget": self.budget,
            "initial": 3,
            "inference": "map",
            "device": self.device,
            "progress": False,
        }
        together = replicate(problem, runs=3, **options)
        clocked = simulate(problem, runs=3, workers=2, **options)
        assert clocked.excess.device.type == self.device
        assert together.excess.shape[-1] == clocked.excess.shape[-1] == 2
        for run in range(3):
            alone = replicate(problem, runs=1, seed=run, **options)
            assert abs(together.points[run] - alone.points[0]).max() < 1e-3
            seeded = simulate(problem, runs=1, seed=run, workers=2, **options)
            assert float((clocked.points[run] - seeded.points[0]).abs().max()) < 1e-3

    def test_a_prior_of_the_user_is_sampled_there(self) -> None:
        """Its copy there is made while the sampler is at work, whose tensors have no gradients."""
        model = Model(prior=HyperparameterPrior(lengthscale=GammaPrior(3.0, 6.0)))
        sampling = Sampling(chains=self.chains, warmup=8, draws=4, kept=4)
        streams = Streams.named(7, "gpu", runs=RUNS, device=self.device)
        found = fitting.fit(moved(data(), self.device), model, sampling=sampling, streams=streams)
        assert found.surrogate.lengthscale.device.type == self.device
        assert bool(found.surrogate.succeeded.all())
        assert "fallback-map" not in found.report.status

    def test_many_runs_integrate_their_hyperparameters_out_there(self) -> None:
        options: dict[str, Any] = {"budget": self.budget, "initial": 5, "device": self.device}
        runs = replicate(PROBLEM, runs=2, progress=False, **options)
        assert runs.trials.tolist() == [self.budget] * 2
        assert set(runs.diagnostics.status[:, 5:].flatten()) <= {"ok", "extended", "unconverged"}
        assert (runs.diagnostics.leapfrog_steps[:, 5:] > 0).all()

    def test_chains_of_many_results_begin_with_some_of_them_and_rest_there(self) -> None:
        known = moved(data(), self.device)
        sampling = Sampling(chains=self.chains, draws=self.draws, warm_draws=4, kept=4)
        many = mock.patch.multiple
        with many("gpbo.inference", MANY=5), many("gpbo.warm_start", MANY=5):
            streams = Streams.named(9, "gpu", runs=RUNS, device=self.device)
            first = fitting.fit(known, sampling=sampling, streams=streams)
            again = fitting.fit(known, sampling=sampling, warm=first.warm, streams=streams)
        # The last run has two results.
        assert (again.report.leapfrog_steps > 0).tolist() == [False, False, True]
        assert first.warm is not None
        assert again.warm is not None
        before, after = first.warm.warmth.position, again.warm.warmth.position
        self.assert_close(after[:2], before[:2].cpu())
        assert "fallback-map" not in first.report.status + again.report.status

    def test_workers_on_a_simulated_clock_are_served_there(self) -> None:
        for mode in ("sync", "async"):
            runs = simulate(
                PROBLEM,
                strategy=self.strategies[-1],
                runs=2,
                workers=2,
                mode=mode,
                budget=self.budget,
                inference="map",
                device=self.device,
                progress=False,
            )
            assert runs.points.device.type == self.device
            assert (runs.evaluations >= self.budget).all()
            assert (
                runs.regret_at(torch.tensor([0.0, torch.inf])).isinf().tolist()
                == [[True, False]] * 2
            )

    @unittest.skipUnless(find_spec("psutil") and find_spec("filelock"), "they drive a storage")
    def test_a_resumed_optimizer_proposes_there_what_it_would_have_proposed(self) -> None:
        options: dict[str, Any] = {"initial": 3, "device": self.device}
        space = Space(Real("x", -5, 10), Real("y", 0, 15))
        with TemporaryDirectory() as folder:
            stored: dict[str, Any] = {"storage": f"{folder}/runs.db", "name": "job"}
            whole = Optimizer(space, self.strategies[0], **options)
            parts = Optimizer(space, self.strategies[0], **options, **stored)
            for number in range(5):
                for optimizer in (whole, parts):
                    trial = optimizer.ask(refit=number % 2 == 0)
                    optimizer.tell(trial, trial.params["x"] ** 2 + trial.params["y"])
                parts.close()
                parts = Optimizer.resume(**stored, device=self.device)
                assert parts.device.type == self.device
            assert [t.params for t in parts.trials] == [t.params for t in whole.trials]
            parts.close()


class OnTheCpu(OnAnyDevice, unittest.TestCase):
    """The reference against itself."""

    device = "cpu"
    strategies = (ExpectedImprovement(QUICK),)
    chains = 3
    draws = 4
    budget = 6


@unittest.skipUnless(torch.cuda.is_available(), "no CUDA device")
class OnAGpu(OnAnyDevice, unittest.TestCase):
    """The same on a GPU, and what only a GPU has."""

    device = "cuda"
    strategies = (ExpectedImprovement(), ThompsonSampling())
    chains = 12
    draws = 16
    budget = 12

    def test_replayed_ticks_are_the_ticks_and_never_wait_for_the_device(self) -> None:
        """Every replay with what is copied for it, where torch makes any wait an error."""
        there = moved(data(), self.device)
        of = Model().log_posterior(there.x, there.y, there.mask)
        schedule = schedule_for(8, 4, cold=True)

        def drawn() -> HyperparameterDraws:
            streams = Streams.named(10, "gpu", runs=RUNS, device=self.device)
            return draw(of, streams, schedule, chains=self.chains, warmth=None)

        with mock.patch.dict(graphs.RECORDERS, clear=True):
            expected = drawn()
        with self._counted() as replays:
            for _ in range(2):
                found = drawn()
        assert len(replays) > 4
        assert not graphs._refused
        # A rounding grows along a trajectory, where kernels differ in and out of a graph.
        self.assert_close(found.unconstrained[:, :1], expected.unconstrained[:, :1].cpu(), 1e-3)
        self.assert_close(found.warmth.step_size, expected.warmth.step_size.cpu(), rtol=0.2)

    def test_a_replayed_ascent_is_the_ascent_and_never_waits_for_the_device(self) -> None:
        there = moved(surrogate(), self.device)
        utility = _RowByRow(LogExpectedImprovement(there, there.incumbent), RUNS)
        start = sobol(7, DIM, Streams.named(11, "gpu", runs=RUNS)).flatten(0, 1).to(self.device)
        with mock.patch.dict(graphs.RECORDERS, clear=True):
            expected = maximize(utility, start, 0.0, 1.0)
        with self._counted() as replays:
            found = maximize(utility, start, 0.0, 1.0)
        assert len(replays) == found.iterations
        assert not graphs._refused
        self.assert_close(found.value, expected.value.cpu(), rtol=1e-4)

    @contextmanager
    def _counted(self) -> Iterator[list[int]]:
        """The replays inside, none of which may wait for the device."""
        replay, counted = graphs._Recording.__call__, list[int]()

        def strict(recording: graphs._Recording, leaves: list[Tensor]) -> tuple[Any, Any]:
            counted.append(len(leaves))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # once in a process: torch calls this a prototype
                torch.cuda.set_sync_debug_mode("error")
            try:
                return replay(recording, leaves)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        with mock.patch.object(graphs._Recording, "__call__", strict):
            yield counted

    def test_a_run_captures_a_handful_of_graphs_and_their_memory_is_given_back(self) -> None:
        captures: list[int] = []

        def counting(work: graphs.Work, buffers: list[Tensor]) -> tuple[graphs.Graph, list[Tensor]]:
            captures.append(len(buffers))
            return graphs.record_on_cuda(work, buffers)

        with mock.patch.dict(graphs.RECORDERS, {"cuda": counting}):
            options: dict[str, Any] = {"budget": 48, "initial": 5, "device": self.device}
            replicate(PROBLEM, runs=2, progress=False, **options)
        # Three capacities; in each the ascent, and trajectories of three lengths, of the sampler
        # and of starts from the prior, for both runs and for one. Some come up again when they
        # have been let go of.
        assert 3 * 4 <= len(captures) <= 3 * 20
        torch.cuda.synchronize()
        before = torch.cuda.memory_reserved()
        graphs.release(torch.device(self.device))
        assert torch.cuda.memory_reserved() < before

    def test_a_step_that_cannot_be_captured_leaves_nothing_behind(self) -> None:
        def waiting(state: Tensor, by: Tensor) -> tuple[Tensor, None]:
            return state + float(by.sum()), None

        def added(state: Tensor, by: Tensor) -> tuple[Tensor, None]:
            return state + by.sum(), None

        device = torch.device(self.device, torch.cuda.current_device())
        by = torch.ones(2, device=device)
        with mock.patch.object(graphs, "_refused", set()), self._counted() as replays:
            for step, refused, replayed in ((waiting, 1, 0), (added, 1, 2)):
                with self.subTest(step.__name__), graphs.replayed(step, device) as play:
                    state = torch.zeros(3, device=device)
                    for _ in range(2):
                        state, _ = play(state, by)
                    assert state.tolist() == [4.0] * 3
                    assert (len(graphs._refused), len(replays)) == (refused, replayed)
                # Errors where torch believes in a capture under way.
                torch.cuda.empty_cache()
                torch.rand(1, device=device)

    def test_a_replay_is_what_it_was_once_other_graphs_are_gone(self) -> None:
        """Libraries have workspaces, which graphs that are captured on one stream might share."""

        def multiplied(state: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
            matrix = torch.eye(by.shape[-1], dtype=DTYPE, device=by.device) + by @ by.mT
            factor = torch.linalg.cholesky_ex(matrix)[0]
            return state, torch.linalg.solve_triangular(factor, state, upper=False)

        device = torch.device(self.device)
        streams = Streams.named(12, "gpu", runs=8, device=self.device)
        kept, gone, new = (streams.normal(size, size) for size in (257, 263, 269))
        with graphs.replayed(multiplied, device) as play:
            first = play(kept, kept)[1].clone()
            with graphs.replayed(multiplied, device) as other:
                other(gone, gone)
            graphs.release(device)
            with graphs.replayed(multiplied, device) as other:
                other(new, new)
                assert torch.equal(play(kept, kept)[1], first)
        self.assert_close(first, multiplied(kept, kept)[1].cpu())

    def test_memory_on_the_device_is_flat(self) -> None:
        peaks: list[int] = []

        def recorded(x: Tensor) -> Tensor:
            peaks.append(torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
            return PROBLEM.function(x)

        measured = replace(PROBLEM, function=recorded)
        options: dict[str, Any] = {"inference": "map", "device": "cuda", "progress": False}
        replicate(measured, runs=3, budget=64, **options)
        # From 49 results on the capacity is 64, and so are all shapes.
        later = peaks[50:]
        half = len(later) // 2
        assert max(later[half:]) <= 1.2 * max(later[:half])

    def test_a_posterior_backs_off_where_the_memory_runs_out(self) -> None:
        there = moved(surrogate(), "cuda")
        x = sobol(2**14, DIM, Streams.named(9, "gpu", runs=RUNS)).cuda()
        expected = there.moments(x)
        graphs.release(torch.device(self.device))  # else there is room enough once they are gone
        total = torch.cuda.get_device_properties(0).total_memory
        room = torch.cuda.memory_reserved() + 2**25
        torch.cuda.set_per_process_memory_fraction(room / total)
        try:
            backed_off = there.moments(x)
            assert memory._lowered
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            memory._lowered.clear()
        for part, wanted in zip(backed_off, expected, strict=True):
            torch.testing.assert_close(part, wanted, rtol=1e-9, atol=1e-11)


if __name__ == "__main__":
    unittest.main()
