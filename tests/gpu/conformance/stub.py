"""TensorRT's Python bindings without its libraries: ``python stub.py FOLDER PROGRAM``.

The wheel of the bindings is on the package index, the libraries that it loads are not. They need
nine functions of these (everything else is a virtual call of an object that those return), so
libraries of nine functions that return null are enough to import them, and then every class, enum
and constant is the real one. A builder cannot be made, and there is no registry of plugins.

Never loaded into the process of the tests: the fakes of other tests are called tensorrt too.
"""

from __future__ import annotations

import ctypes
import importlib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
"""What ``tensorrt.so`` of 10.16 to 11.4 leaves undefined (``nm -D --undefined-only``)."""
COMPILERS = ("cc", "gcc", "clang")


def compiler() -> str | None:
    """A C compiler."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def build(folder: Path, major: int) -> None:
    """Compile the libraries of a major version into a folder.

    Raises:
        CalledProcessError: the compiler fails.
    """
    found = compiler()
    assert found is not None
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS))
    for library in LIBRARIES:
        name = f"{library}.so.{major}"
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}"]
        subprocess.run([found, *flags, "-o", folder / name, source], check=True)


def load(folder: Path) -> ModuleType:
    """Import the bindings in a folder, and make ``import tensorrt`` mean what it does to users.

    Users install a package ``tensorrt`` that takes the public names of ``tensorrt_bindings`` over.
    """
    for library in sorted(folder.glob("lib*.so.*")):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)  # found by its soname afterwards
    sys.path.insert(0, str(folder))
    bindings = importlib.import_module("tensorrt_bindings")
    public = {name: value for name, value in vars(bindings).items() if not name.startswith("_")}
    module = ModuleType("tensorrt")
    module.__dict__.update(public, __version__=bindings.__version__)
    module.__path__ = list(bindings.__path__)  # of tensorrt.plugin
    sys.modules["tensorrt"] = module
    return module


if __name__ == "__main__":
    load(Path(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
