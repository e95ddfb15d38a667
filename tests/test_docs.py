"""The documentation at the binding: numpydoc's sections for what there is, and examples that run."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

import normkit
import normkit.preprocessing
import normkit.streams

try:
    import normkit.torch
except ModuleNotFoundError:
    TORCH = []
else:
    TORCH = [normkit.torch]


def documented():
    """Every public object and every public member of the classes, by name."""
    for module in (normkit, normkit.preprocessing, normkit.streams, *TORCH):
        prefix = module.__name__.partition(".")[2]
        for name in module.__all__:
            value = getattr(module, name)
            if name == "__version__":
                continue
            name = f"{prefix}.{name}" if prefix else name
            yield name, value
            if isinstance(value, type):
                yield from ((f"{name}.{member}", attribute) for member, attribute in members(value))


def members(value):
    """The public members of a class and of those of normkit's that it inherits from."""
    for base in value.__mro__:
        if base.__module__.partition(".")[0] == "normkit":
            for member, attribute in vars(base).items():
                # scikit-learn adds methods of its own to its subclasses.
                value_only = attribute is None or isinstance(attribute, str)  # the default of a dataclass's field
                if not member.startswith("_") and not value_only and not member.endswith("_request"):
                    yield member, attribute


OBJECTS = dict(documented())
REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
ENDINGS = ("_norm", "_scale", "_backward", "standardize", "moments")
FUNCTIONS = [name for name in normkit.__all__ if name.endswith(ENDINGS)]
EXAMPLES = {name for name, value in OBJECTS.items() if ">>>" in inspect.getdoc(value)}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples(name):
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(OBJECTS[name]), {}, name, None, None)
    runner = doctest.DocTestRunner(verbose=False)
    lines: list[str] = []
    runner.run(test, out=lines.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(lines)


@pytest.mark.parametrize("name", OBJECTS)
def test_everything_is_documented(name):
    signature = r"^\w+\(.*\)( -> .*)?$"  # which the binding puts first
    text = re.sub(signature, "", inspect.getdoc(OBJECTS[name]), count=1, flags=re.MULTILINE).strip()
    summary = text.split("\n\n")[0]
    assert summary.endswith("."), text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sections_of_functions(name):
    doc = inspect.getdoc(getattr(normkit, name))
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"\n{section}\n{'-' * len(section)}\n" in doc, section
    assert name in EXAMPLES
    # Each parameter of the signature is described, and none besides.
    signature = doc.splitlines()[0]
    parameters = re.findall(r"[(,] (?:\*, )?(\w+): ", signature.replace("(", "( ", 1))
    described = doc.partition("Parameters\n")[2].partition("\nReturns\n")[0]
    names = [n for line in re.findall(r"^(\w[\w, ]*) : ", described, re.MULTILINE) for n in line.split(", ")]
    assert names == parameters


def test_the_reference_is_complete():
    pages = "\n".join(page.read_text() for page in REFERENCE.glob("*.rst"))
    missing = [name for name in OBJECTS if not re.search(rf"auto\w+:: (normkit\.)?{name.split('.')[-1]}$", pages, re.M)]
    members = {name for name in missing if isinstance(OBJECTS.get(name.rpartition(".")[0]), type)}  # with their class
    assert not set(missing) - members
