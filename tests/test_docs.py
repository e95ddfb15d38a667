"""The documentation at the binding: numpydoc's sections for what there is, and examples that run."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest

import normkit


def documented():
    """Every public object and every public member of the classes, by name."""
    for name in normkit.__all__:
        value = getattr(normkit, name)
        if name == "__version__":
            continue
        yield name, value
        if isinstance(value, type):
            for member, attribute in vars(value).items():
                if not member.startswith("_"):
                    yield f"{name}.{member}", attribute


OBJECTS = dict(documented())
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
