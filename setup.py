"""Map the top-level folders to `edgedec.*` and compile the operator library; the rest is pyproject.

The links `src/edgedec/<name>` exist for type checkers and IDEs only: nothing here follows them,
so wheels, zip archives and checkouts without symbolic links install the same package.
"""

import importlib.util
import os
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

TOP = ("export", "runtime", "quantize", "kernels", "devices")
NATIVE = os.environ.get("EDGEDEC_NATIVE", "")  # "require", "skip", else: if a compiler can

own = find_packages("src/edgedec", exclude=[*TOP, *(f"{top}.*" for top in TOP)])
packages = ["edgedec", *(f"edgedec.{name}" for name in own)]
package_dir = {"edgedec": "src/edgedec"}
for top in TOP:
    package_dir[f"edgedec.{top}"] = top
    packages += [f"edgedec.{top}", *(f"edgedec.{top}.{name}" for name in find_packages(top))]

spec = importlib.util.spec_from_file_location("build_library", "kernels/cpu/build.py")
library = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = library  # dataclasses look their module up
spec.loader.exec_module(library)


class BuildLibrary(build_ext):
    """Compile the library; an editable install gets it beside the sources, as any extension."""

    def get_ext_filename(self, fullname):  # noqa: ARG002
        return str(Path("edgedec", "kernels", library.LIBRARY))

    def build_extensions(self):
        output = Path(self.build_lib, self.get_ext_filename(""))
        try:
            library.build(output, Path("build", "native"))
        except library.BuildError as error:
            if NATIVE == "require":
                raise SystemExit(f"error: EDGEDEC_NATIVE=require, but {error}") from None
            self.extensions = []  # nothing to copy or to list
            # What an earlier build left may not fit what is installed now.
            output.unlink(missing_ok=True)
            if self.editable_mode:
                Path("kernels", library.LIBRARY).unlink(missing_ok=True)
            self.warn(
                f"edgedec goes without its operator library, because {error}\n"
                "Everything works without it, slower. To add it later: "
                "python -m edgedec.kernels.cpu.build"
            )


class PlatformWheel(bdist_wheel):
    """The library knows its platform but nothing of Python: one wheel for all versions."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


sources = sorted(str(path) for path in Path("kernels/cpu").glob("*.cc"))
setup(
    packages=packages,
    package_dir=package_dir,
    ext_modules=[] if NATIVE == "skip" else [Extension("edgedec.kernels.edgedec_ops", sources)],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
