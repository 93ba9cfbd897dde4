"""Every way to install: sdist, wheel, archive, checkouts without links, no torch, no compiler.

The distributions are built from the files that git knows or would add, so that what is tested is
this working tree and not the last commit. The operator library is compiled once, for the wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from edgedec.kernels.cpu.build import LIBRARY, BuildError, find_compiler
from edgedec.kernels.library import REBUILD

TOP = ("export", "runtime", "quantize", "kernels", "devices")
IMPORT_ALL = (
    "import edgedec, "
    + ", ".join(f"edgedec.{top}" for top in TOP)
    + "; print(edgedec.__file__, edgedec.runtime.__file__)"
)

WITHOUT_LIBRARY = {"EDGEDEC_NATIVE": "skip"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiler() -> None:
    """Skip where nothing can be compiled."""
    try:
        find_compiler()
    except BuildError as error:
        pytest.skip(str(error))


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed; return its standard output."""
    return outputs(*command, cwd=cwd, **environment)[0]


def outputs(*command: str | Path, cwd: Path, **environment: str) -> tuple[str, str]:
    """Run a command that must succeed; return its standard output and standard error."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def install(python: Path, *what: str | Path, cwd: Path, **environment: str) -> str:
    """Install without downloading anything; return what pip and the build said."""
    options = ("--verbose", "--no-deps", "--no-build-isolation", "--ignore-installed")
    return "\n".join(
        outputs(python, "-m", "pip", "install", *options, *what, cwd=cwd, **environment)
    )


def environment(folder: Path, *, parent: bool) -> Path:
    """Make a virtual environment and return its Python.

    With `parent`, the packages of the environment that runs the tests can be imported (but not its
    editable edgedec: the `.pth` files in there are not read), so nothing is downloaded.
    """
    venv.create(folder, with_pip=not parent, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if parent:
        site = Path(
            run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
        )
        (site / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="module")
def repository(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with one commit: this working tree."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("needs git and a checkout")
    copy = tmp_path_factory.mktemp("source") / "edgedec"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=root)
    for name in filter(None, listed.split("\0")):
        source, target = root / name, copy / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    run("git", "init", "--quiet", "--initial-branch=main", cwd=copy)
    run("git", "add", "--all", cwd=copy)
    run("git", *who, "commit", "--quiet", "--message", "working tree", cwd=copy)
    return copy


@pytest.fixture(scope="module")
def distributions(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", out, repository)
    run(*command, cwd=out, CXXFLAGS="-O0")  # the library is looked at, not run
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def expected_files(repository: Path) -> set[str]:
    """The files of the package, under the names they have when installed."""
    files = set()
    for top in TOP:
        for path in (repository / top).rglob("*"):
            if path.suffix in {".py", ".json", ".cc", ".h", ".map", ".md", ".html", ".txt", ".ptx"}:
                files.add(f"edgedec/{path.relative_to(repository).as_posix()}")
    own = repository / "src" / "edgedec"
    for path in own.rglob("*"):
        name = path.relative_to(own)
        if name.parts[0] not in TOP and path.is_file():
            files.add(f"edgedec/{name.as_posix()}")
    return files


def test_the_wheel_is_complete_and_leaks_nothing(
    repository: Path, distributions: tuple[Path, Path]
) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
    package = {name for name in names if name.startswith("edgedec/")}
    assert package - {f"edgedec/kernels/{LIBRARY}"} == expected_files(repository)
    assert all(name.split("/")[0].endswith(".dist-info") for name in names - package)
    assert "edgedec/checkpoints/g2p/model.safetensors" in package


@pytest.mark.usefixtures("compiler")
def test_the_wheel_has_the_library_for_its_platform_and_every_python(
    distributions: tuple[Path, Path],
) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        assert f"edgedec/kernels/{LIBRARY}" in wheel.namelist()
    *_, python, abi, system = distributions[1].stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert system == sysconfig.get_platform().replace("-", "_").replace(".", "_")


@pytest.mark.usefixtures("compiler")
@pytest.mark.skipif(shutil.which("nm") is None or os.name == "nt", reason="needs nm")
def test_the_library_exports_one_function_and_needs_the_c_library_only(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        library = wheel.extract(f"edgedec/kernels/{LIBRARY}", tmp_path)
    dynamic = "-gU" if sys.platform == "darwin" else "-D"
    defined = run("nm", dynamic, "--defined-only", library, cwd=tmp_path)
    names = [line.split()[-1].lstrip("_") for line in defined.splitlines()]
    assert names == ["RegisterCustomOps"]
    if sys.platform.startswith("linux"):
        undefined = run("nm", "-D", "--undefined-only", library, cwd=tmp_path)
        foreign = [line for line in undefined.splitlines() if "GLIBCXX" in line or "Ort" in line]
        assert not foreign


def test_the_sdist_has_each_file_once(repository: Path, distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as sdist:
        names = [name.split("/", 1)[1] for name in sdist.getnames() if "/" in name]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(tuple(f"src/edgedec/{t}" for t in TOP))]
    expected = {"pyproject.toml", "setup.py", "LICENSE", "README.md", "Makefile", "docs/bundle.md"}
    assert expected <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    native = [*repository.glob("kernels/**/*.cc"), *repository.glob("kernels/**/*.h")]
    assert {path.relative_to(repository).as_posix() for path in native} <= set(names)
    assert "kernels/cpu/exports.map" in names
    assert not [name for name in names if name.endswith(LIBRARY)]


def test_a_zip_archive_installs_and_imports(repository: Path, tmp_path: Path) -> None:
    archive = tmp_path / "main.zip"
    run(
        "git",
        "archive",
        "--format=zip",
        "--prefix=edgedec-main/",
        "-o",
        archive,
        "HEAD",
        cwd=repository,
    )
    python = environment(tmp_path / "env", parent=True)
    install(python, archive, cwd=tmp_path, **WITHOUT_LIBRARY)
    where = run(python, "-c", IMPORT_ALL, cwd=tmp_path)
    assert all(str(tmp_path / "env") in path for path in where.split())


@pytest.mark.parametrize("links", [True, False])
def test_an_editable_install_works_with_and_without_links(
    repository: Path, tmp_path: Path, links: bool
) -> None:
    clone = tmp_path / "clone"
    setting = f"core.symlinks={str(links).lower()}"
    run("git", "clone", "--quiet", "-c", setting, repository, clone, cwd=tmp_path)
    assert (clone / "src/edgedec/export").is_symlink() == links
    python = environment(tmp_path / "env", parent=True)
    install(python, "--editable", clone, cwd=tmp_path, **WITHOUT_LIBRARY)
    where = run(python, "-c", IMPORT_ALL, cwd=tmp_path)
    assert all(str(clone) in path for path in where.split())
    (clone / "runtime" / "added_later.py").write_text("WORKS = True\n")
    run(python, "-c", "from edgedec.runtime.added_later import WORKS", cwd=tmp_path)


@pytest.mark.usefixtures("compiler")
def test_an_editable_install_has_the_library_beside_the_sources(
    repository: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", repository, clone, cwd=tmp_path)
    sources = clone / "kernels" / "cpu"
    for path in sources.glob("*.cc"):  # one that compiles fast
        path.unlink()
    (sources / "library.cc").write_text(
        'extern "C" __attribute__((visibility("default"))) int RegisterCustomOps() { return 0; }\n'
    )
    python = environment(tmp_path / "env", parent=True)
    install(python, "--editable", clone, cwd=tmp_path)
    assert (clone / "kernels" / LIBRARY).is_file()
    find = "from edgedec.kernels.library import library_path; print(library_path())"
    found = Path(run(python, "-c", find, cwd=tmp_path).strip())
    assert found.samefile(clone / "kernels" / LIBRARY)
    run("git", "check-ignore", f"kernels/{LIBRARY}", cwd=clone)

    # without a compiler no library stays that other sources gave
    said = install(python, "--editable", clone, cwd=tmp_path, CXX=str(tmp_path / "none"))
    assert "edgedec goes without its operator library, because there is no C++ compiler" in said
    assert not (clone / "kernels" / LIBRARY).exists()


def test_without_a_compiler_codebook_weights_run_by_function_bodies(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    python = environment(tmp_path / "env", parent=True)
    said = install(python, distributions[0], cwd=tmp_path, CXX=str(tmp_path / "none"))
    assert "edgedec goes without its operator library, because there is no C++ compiler" in said
    edgedec = python.with_name("edgedec")
    bundle = tmp_path / "bundle"
    run(edgedec, "export", "g2p", "--quant", "cb4", "-o", bundle, cwd=tmp_path)
    phonemes, warnings = outputs(edgedec, "run", bundle, "deployment", cwd=tmp_path)
    assert phonemes.split()[0] == "D"
    assert warnings.count("installed without its operator library") == 1
    assert REBUILD in warnings

    if shutil.which("c++") is None:
        return
    module = REBUILD.removeprefix("python ").split()
    run(python, *module, cwd=tmp_path, CXXFLAGS="-O0")
    again, warnings = outputs(edgedec, "run", bundle, "deployment", cwd=tmp_path)
    assert again.split()[0] == "D"
    assert "operator library" not in warnings


def test_a_compiler_that_fails_can_be_made_an_error(repository: Path, tmp_path: Path) -> None:
    failing = {"EDGEDEC_NATIVE": "require", "CXX": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path],
        cwd=repository,
        env={**os.environ, **failing},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "EDGEDEC_NATIVE=require, but there is no C++ compiler here" in done.stderr


@pytest.mark.network
def test_a_fresh_environment_without_torch_exports_and_runs(
    repository: Path, distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    python = environment(tmp_path / "env", parent=False)
    run(python, "-m", "pip", "install", "--quiet", distributions[1], cwd=tmp_path)
    edgedec = python.with_name("edgedec")
    offline = {"EDGEDEC_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}

    find = "import importlib.util as u; print([u.find_spec(n) for n in ('torch', 'transformers')])"
    assert run(python, "-c", find, cwd=tmp_path).strip() == "[None, None]"

    checkpoint = repository / "src" / "edgedec" / "checkpoints" / "g2p"
    bundle = tmp_path / "bundle"
    assert str(bundle) in run(edgedec, "export", checkpoint, "-o", bundle, cwd=tmp_path, **offline)
    phonemes = run(edgedec, "run", bundle, "deployment", cwd=tmp_path, **offline)
    assert phonemes.split()[0] == "D"
    assert any(part[-1] in "012" for part in phonemes.split()), "vowels carry a stress mark"
    # the built-in name goes the same way through the cache: first use, then the cached bundle
    for _ in range(2):
        assert run(edgedec, "run", "g2p", "deployment", cwd=tmp_path, **offline) == phonemes
    bundles = list((tmp_path / "cache" / "builtin").iterdir())
    assert len(bundles) == 1, bundles
