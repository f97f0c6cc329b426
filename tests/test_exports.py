"""The public names, and what importing them costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpbo

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = [
    "Categorical",
    "CustomAcquisition",
    "ExpectedImprovement",
    "FitReport",
    "GridSearch",
    "HyperparameterDraws",
    "HyperparameterPrior",
    "Integer",
    "Model",
    "NestedBoxes",
    "Optimizer",
    "Ordinal",
    "ProbabilityOfImprovement",
    "RandomSearch",
    "Real",
    "Replications",
    "Result",
    "SobolSearch",
    "Space",
    "ThompsonSampling",
    "Trial",
    "TrialStatus",
    "TrustRegion",
    "Tuner",
    "errors",
    "minimize",
    "plots",
    "problems",
    "replicate",
    "run",
    "sample_hyperparameters",
]


def in_a_new_process(script: str) -> str:
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ran.stdout


def test_the_public_names_are_these_and_all_are_there() -> None:
    assert sorted(gpbo.__all__) == PUBLIC
    for name in PUBLIC:
        value = getattr(gpbo, name)
        assert name in dir(gpbo)
        assert getattr(value, "__name__", "").split(".")[-1] == name


def test_ipython_completes_the_attributes_of_what_is_public() -> None:
    """Its Jedi gives up at the first property that is a `Literal`."""
    classes = [value for name in PUBLIC if isinstance(value := getattr(gpbo, name), type)]
    properties = [
        part.fget
        for one in classes
        for part in vars(one).values()
        if isinstance(part, property) and part.fget is not None
    ]
    assert len(properties) > 20
    assert not [one for one in properties if "Literal[" in str(one.__annotations__["return"])]


def test_modules_are_there_by_name() -> None:
    script = "import gpbo; print(gpbo.simulation.simulate.__name__, gpbo.storage.__name__)"
    assert in_a_new_process(script) == "simulate gpbo.storage\n"


def test_another_name_is_an_attribute_error() -> None:
    script = """
import gpbo
try:
    gpbo.bogus
except AttributeError as error:
    print(error)
"""
    assert in_a_new_process(script) == "module 'gpbo' has no attribute 'bogus'\n"


def test_minimize_is_the_function_whatever_was_imported_before() -> None:
    script = """
import gpbo.cli, gpbo.loop, gpbo.plots, gpbo
print(callable(gpbo.minimize))
"""
    assert in_a_new_process(script) == "True\n"


def test_import_is_light() -> None:
    script = """
import sys
import gpbo
heavy = ["matplotlib", "rich", "typer", "pyro", "gpytorch", "botorch", "torch", "sklearn"]
print([name for name in heavy if name in sys.modules])
"""
    assert in_a_new_process(script) == "[]\n"


def test_looking_at_a_stored_job_loads_no_tensor_stack() -> None:
    script = """
import sys
import gpbo.cli, gpbo.job_file, gpbo.progress, gpbo.storage, gpbo.view
print([name for name in ["torch", "scipy", "matplotlib", "sklearn"] if name in sys.modules])
"""
    assert in_a_new_process(script) == "[]\n"


def test_an_optimization_loads_the_tensor_stack_and_no_plots_tables_or_commands() -> None:
    script = """
import sys
import gpbo
space = gpbo.Space(gpbo.Real("x", 0, 1))
gpbo.minimize(lambda params: params["x"], space, budget=3, strategy="random", progress=False)
print([name for name in ["matplotlib", "rich", "typer", "sklearn"] if name in sys.modules])
"""
    assert in_a_new_process(script) == "[]\n"


def test_a_name_that_is_wrong_is_an_error_to_those_who_check_types_too() -> None:
    with pytest.raises(AttributeError, match="no attribute 'minimise'"):
        gpbo.minimise  # type: ignore[attr-defined]  # noqa: B018


def test_who_checks_types_knows_the_modules_that_the_docs_name() -> None:
    """A checker knows the modules that something imports, from `import gpbo` on."""
    named = {"gpbo"}
    for name in ("README.md", "GUIDE.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        named |= set(re.findall(r"gpbo(?:\.[a-z_]+)+(?=\.[A-Za-z])", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    documented = makefile.split("$(addprefix gpbo.,")[1].split(")")[0]
    named |= {f"gpbo.{name}" for name in re.findall(r"[a-z_.]+", documented)}
    assert {"gpbo.job", "gpbo.simulation", "gpbo.integrations.ray"} <= named
    known, left = set(), {"gpbo"}
    while left:
        module = left.pop()
        place = ROOT.joinpath(*module.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if module in known or not file.is_file():
            continue
        known.add(module)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                left |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                left |= {str(node.module), *(f"{node.module}.{each.name}" for each in node.names)}
    assert named <= known


def test_the_reference_leads_from_its_front_to_every_module() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    documented = makefile.split("$(addprefix gpbo.,")[1].split(")")[0]
    named = set(re.findall(r"`gpbo\.([a-z_.]+)`", gpbo.__doc__ or ""))
    assert named == set(re.findall(r"[a-z_.]+", documented))
