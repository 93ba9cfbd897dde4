"""Every way to install: sdist, wheel, archive, checkouts without links, no torch around.

The distributions are built from the files that git knows or would add, so that what is tested is
this working tree and not the last commit.
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

TOP = ("export", "runtime", "quantize", "kernels", "devices")
IMPORT_ALL = (
    "import edgedec, "
    + ", ".join(f"edgedec.{top}" for top in TOP)
    + "; print(edgedec.__file__, edgedec.runtime.__file__)"
)

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed; return its standard output."""
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
    return done.stdout


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
    run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", out, repository, cwd=out
    )  # fmt: skip
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def expected_files(repository: Path) -> set[str]:
    """The files of the package, under the names they have when installed."""
    files = set()
    for top in TOP:
        for path in (repository / top).rglob("*"):
            if path.suffix in {".py", ".json", ".cc", ".h", ".html"}:
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
    assert package == expected_files(repository)
    assert all(name.split("/")[0].endswith(".dist-info") for name in names - package)
    assert "edgedec/checkpoints/g2p/model.safetensors" in package


def test_the_sdist_has_each_file_once(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as sdist:
        names = [name.split("/", 1)[1] for name in sdist.getnames() if "/" in name]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(tuple(f"src/edgedec/{t}" for t in TOP))]
    expected = {"pyproject.toml", "setup.py", "LICENSE", "README.md", "Makefile", "docs/bundle.md"}
    assert expected <= set(names)
    assert not [name for name in names if "__pycache__" in name]


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
    run(
        python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--ignore-installed",
        archive, cwd=tmp_path,
    )  # fmt: skip
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
    run(
        python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--ignore-installed",
        "--editable", clone, cwd=tmp_path,
    )  # fmt: skip
    where = run(python, "-c", IMPORT_ALL, cwd=tmp_path)
    assert all(str(clone) in path for path in where.split())
    (clone / "runtime" / "added_later.py").write_text("WORKS = True\n")
    run(python, "-c", "from edgedec.runtime.added_later import WORKS", cwd=tmp_path)


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
