"""Tune a multilayer perceptron in torch: parallel trials, early stopping, a report, resume.

The data are scikit-learn's 1797 handwritten digits. Trials train in processes of their workers and
report their validation loss after each epoch; the median rule ends those that fall behind. Kill it
at any moment and start it again: it goes on.

    python examples/tune_mlp.py --output mlp-output --budget 40 --workers 2
"""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

import gpbo
from gpbo.completion import MedianRule
from gpbo.report.page import write
from gpbo.storage import SqliteStorage
from gpbo.tuner import Execution

SPACE = gpbo.Space(
    gpbo.Real("rate", 1e-4, 1.0, scale="log"),
    gpbo.Real("momentum", 0.0, 0.99, scale="reverse_log"),
    gpbo.Real("decay", 1e-6, 1e-1, scale="log"),
    gpbo.Ordinal("width", [16, 32, 64, 128, 256]),
    gpbo.Integer("layers", 1, 3),
    gpbo.Categorical("activation", ["relu", "tanh"]),
)
EPOCHS, BATCH = 20, 64


def train(params: dict[str, Any], trial: Any) -> float:
    """The least validation loss of a network of this configuration."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x))
    training, validation = order[:1200], order[1200:]
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[params["activation"]]
    layers: list[nn.Module] = []
    inputs = x.shape[1]
    for _ in range(params["layers"]):
        layers += [nn.Linear(inputs, params["width"]), activation()]
        inputs = params["width"]
    network = nn.Sequential(*layers, nn.Linear(inputs, 10))
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=params["rate"],
        momentum=params["momentum"],
        weight_decay=params["decay"],
    )
    losses = []
    for epoch in range(EPOCHS):
        for batch in training[torch.randperm(len(training))].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = nn.functional.cross_entropy(network(x[validation]), y[validation]).item()
        losses.append(loss)
        trial.report(epoch, loss)
    return min(losses)


def main(
    output: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("mlp-output"),
    budget: Annotated[int, typer.Option(min=1, help="Trials.")] = 40,
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
) -> None:
    """Tune a multilayer perceptron in torch, or go on with it."""
    logging.basicConfig(level=logging.WARNING)
    output.mkdir(parents=True, exist_ok=True)
    storage = SqliteStorage(output / "jobs.db")
    optimizer = gpbo.Optimizer(SPACE, seed=seed, storage=storage, name="mlp", exist_ok=True)
    execution = Execution(workers=workers, time_limit_s=120, early_stopping=MedianRule())
    print(gpbo.Tuner(optimizer, train, budget=budget, execution=execution).run())
    write(storage.read("mlp"), output / "report.html")
    print(f"report: {output / 'report.html'}")


if __name__ == "__main__":
    typer.run(main)
