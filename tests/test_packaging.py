"""What is installed: the files, the command line, the symbols, and strangers' CMake projects on top of it."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import normkit
from checks import symbols
from normkit import __main__ as command_line
from normkit import _core

REPOSITORY = Path(__file__).resolve().parents[1]
HEADERS = sorted((REPOSITORY / "cpp" / "include" / "normkit").glob("*.h"))


def run(*command: object, **environment: str) -> str:
    """Run a command to its end and return what it printed; its output is the message when it fails."""
    result = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}"
    return result.stdout


# ---- Files and names -------------------------------------------------------------------------------------------------


def test_package_is_typed_and_complete():
    package = importlib.resources.files(normkit)
    for name in ("__init__.py", "__main__.py", "_core.pyi", "py.typed"):
        assert package.joinpath(name).is_file(), name
    assert Path(_core.__file__).name.startswith("_core.")


def test_headers_and_archive_are_installed_beside_the_extension():
    prefix = Path(_core.__file__).parent
    assert [path.name for path in sorted((prefix / "include" / "normkit").glob("*.h"))] == [p.name for p in HEADERS]
    assert (prefix / "lib" / "libnormkit.a").is_file()
    assert not (prefix / "bin").exists()


def test_one_version_everywhere():
    header = (REPOSITORY / "cpp" / "include" / "normkit" / "normkit.h").read_text()
    version = re.search(r'#define NORMKIT_VERSION "(.+)"', header)[1]
    assert importlib.metadata.version("normkit") == version
    assert normkit.__version__ == version
    assert normkit.build_info()["version"] == version
    assert f'PACKAGE_VERSION "{version}"' in (command_line.cmake_dir() / "normkitConfigVersion.cmake").read_text()


def test_entry_point_names_the_cmake_prefix():
    (entry,) = importlib.metadata.entry_points(group="cmake.prefix", name="normkit")
    assert entry.value == "normkit"


# ---- python -m normkit -----------------------------------------------------------------------------------------------


def test_self_check_runs_every_instruction_set():
    printed = run(sys.executable, "-m", "normkit")
    assert printed.endswith("passed\n")
    for isa in normkit.build_info()["isas"]:
        assert re.search(rf"^  {isa} +[0-9a-f]{{16}}$", printed, re.MULTILINE), printed


@pytest.mark.parametrize("wrong", ["0123456789abcdee", "", "0123456789abcdef != 0123456789abcdee"])
def test_self_check_fails_on_other_bits(monkeypatch, capsys, wrong):
    digests = iter([wrong, *["0123456789abcdef"] * 9])

    def fake_run(command, **_):
        return subprocess.CompletedProcess(command, 0, stdout=next(digests), stderr="")

    monkeypatch.setattr(command_line.subprocess, "run", fake_run)
    monkeypatch.setattr(normkit, "build_info", lambda: {"isas": ["avx2", "baseline"]})
    assert not command_line.self_check()
    assert wrong in capsys.readouterr().out


def test_cmakedir_holds_the_package():
    folder = Path(run(sys.executable, "-m", "normkit", "--cmakedir").strip())
    assert (folder / "normkitConfig.cmake").is_file()


# ---- Symbols ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm of binutils")
class TestSymbols:
    def test_kernels_of_the_installed_archive_do_not_leak(self):
        archive = command_line.cmake_dir().parents[1] / "libnormkit.a"
        assert symbols.leaks(archive) == []
        # Each exports its table, and no more: of all instruction sets it was compiled for, which may be more than this
        # machine's.
        tables = {symbol.rpartition("::")[2] for exported in symbols.kernel_symbols(archive) for symbol in exported}
        tasks = {path.stem.removeprefix("kernels_") for path in (REPOSITORY / "cpp/src/cpu").glob("kernels_*.cpp")}
        isas = {table.rpartition("_")[2] for table in tables}
        assert tables == {f"{task}_{isa}" for task in tasks for isa in isas}
        assert isas >= set(normkit.build_info()["isas"])

    def test_extension_exports_nothing_of_the_core(self):
        exported = run("nm", "-D", "-C", "--defined-only", _core.__file__)
        assert " PyInit__core" in exported
        assert "normkit::" not in exported

    def test_a_leak_is_seen(self, tmp_path):
        source = tmp_path / "kernels_test.cpp"
        source.write_text("inline int shared() { return 1; }\nint table() { return shared(); }\nint second = 2;\n")
        run("c++", "-O0", "-c", source, "-o", tmp_path / "kernels_test.cpp.o")
        run("ar", "rcs", tmp_path / "lib.a", tmp_path / "kernels_test.cpp.o")
        problems = symbols.leaks(tmp_path / "lib.a")
        assert len(problems) == 2
        assert "second" in problems[0]
        assert "weak symbol W shared()" in problems[1]


# ---- Consumers -------------------------------------------------------------------------------------------------------


# Kernels of one instruction set will do, and take a third of the time.
ONE_ISA = f"NORMKIT_ISAS={normkit.build_info()['isas'][0]}"
# Nothing is inlined, so this is where a kernel would leak if it could. Debug information would name the folder of the
# build: without it, a compiler cache has the kernels from one build for the next.
UNOPTIMIZED = ("CMAKE_BUILD_TYPE=Debug", "CMAKE_CXX_FLAGS_DEBUG=-O0", ONE_ISA)


def cmake(source: Path, build: Path, *definitions: object) -> None:
    """Configure and build `source`."""
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    run("cmake", "-S", source, "-B", build, *generator, *(f"-D{definition}" for definition in definitions))
    run("cmake", "--build", build, "--parallel", "2")


def build_and_run_consumer(build: Path, *definitions: object) -> None:
    cmake(REPOSITORY / "tests" / "consumer", build, *definitions)
    assert f"consumer: {normkit.__version__} on " in run(build / "consumer")


@pytest.fixture(scope="module", params=["g++", "clang++"])
def compiler(request, tmp_path_factory):
    """A C++ compiler that is here and has OpenMP."""
    probe = tmp_path_factory.mktemp("probe") / "probe.cpp"
    probe.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
    command = [request.param, "-fopenmp", str(probe), "-o", str(probe.with_suffix(""))]
    if not shutil.which(request.param) or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip(f"needs {request.param} with OpenMP")
    return request.param


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A system-like installation made by the default compiler."""
    folder = tmp_path_factory.mktemp("staged")
    cmake(
        REPOSITORY, folder / "build", "NORMKIT_TESTS=OFF", "NORMKIT_EXAMPLES=OFF", "CMAKE_BUILD_TYPE=Release", ONE_ISA
    )
    run("cmake", "--install", folder / "build", "--prefix", folder / "prefix")
    return folder / "prefix"


def test_a_gpu_is_emulated_or_there(tmp_path):
    both = ("-DNORMKIT_CUDA=AUTO", "-DNORMKIT_EMULATED_CUDA=ON")
    refused = subprocess.run(["cmake", "-S", REPOSITORY, "-B", tmp_path, *both], capture_output=True, text=True)
    assert refused.returncode != 0
    message = "normkit: NORMKIT_EMULATED_CUDA stands in for NORMKIT_CUDA, which must be OFF; got 'AUTO'"
    assert message in " ".join(refused.stderr.split())


@pytest.mark.slow
class TestConsumer:
    def test_of_a_staged_install(self, tmp_path, compiler, staged):
        build_and_run_consumer(tmp_path, f"CMAKE_CXX_COMPILER={compiler}", f"CMAKE_PREFIX_PATH={staged}")

    def test_of_the_wheel(self, tmp_path, compiler):
        folder = run(sys.executable, "-m", "normkit", "--cmakedir").strip()
        build_and_run_consumer(tmp_path, f"CMAKE_CXX_COMPILER={compiler}", f"normkit_DIR={folder}")

    def test_by_add_subdirectory(self, tmp_path, compiler):
        compiled = (f"CMAKE_CXX_COMPILER={compiler}", f"NORMKIT_SOURCE_DIR={REPOSITORY}")
        build_and_run_consumer(tmp_path, *compiled, *UNOPTIMIZED)
        assert symbols.leaks(tmp_path / "normkit" / "libnormkit.a") == []

    def test_of_a_shared_library(self, tmp_path):
        build_and_run_consumer(tmp_path, f"NORMKIT_SOURCE_DIR={REPOSITORY}", "BUILD_SHARED_LIBS=ON", *UNOPTIMIZED)
        assert (tmp_path / "normkit" / "libnormkit.so").exists()

    def test_example_on_a_staged_install(self, tmp_path, staged):
        cmake(REPOSITORY / "examples" / "cpp", tmp_path, f"CMAKE_PREFIX_PATH={staged}")
        assert "layer_norm: mean of the first row 0.500" in run(tmp_path / "layer_norm")
