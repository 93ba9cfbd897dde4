"""Knowledge flows in one direction: which part may import which (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FORBIDDEN = {
    "runtime": (
        "edgedec.export",
        "edgedec.quantize",
        "edgedec.study",
        "edgedec.cli",
        "huggingface_hub",
        "onnxscript",
        "onnx_ir",
    ),
    "devices": ("edgedec.export", "edgedec.cli", "huggingface_hub"),
    "quantize": ("edgedec.export", "edgedec.devices", "edgedec.cli", "huggingface_hub"),
    "kernels": ("edgedec.export", "edgedec.runtime", "huggingface_hub"),
    "export": ("edgedec.cli",),
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_import_against_the_direction(root: Path, folder: str) -> None:
    wrong = [
        f"{path.relative_to(root)} imports {name}"
        for path in (root / folder).rglob("*.py")
        for name in imports(path)
        if f"{name}.".startswith(tuple(f"{module}." for module in FORBIDDEN[folder]))
    ]
    assert not wrong


# The files that may know a package that is no requirement of the base install.
PEERS = {f"runtime/profiling/peers/{name}.py" for name in ("checkpoint", "transformers")}
PLUGIN = {f"kernels/tensorrt/{name}.py" for name in ("__init__", "plugin")}
TRITON = {f"kernels/triton/{name}.py" for name in ("compile", "gemm", "gemv", "lookup")}
OPTIONAL = {
    "torch": {"export/checkpoint.py", "export/optimum.py", *PEERS},
    "transformers": {"export/optimum.py", *PEERS},
    "optimum": {"export/optimum.py"},
    "matplotlib": {"quantize/reporting/plots.py"},
    "jiwer": {"export/evaluate.py"},
    "sacrebleu": {"export/evaluate.py"},
    "onnxruntime_qnn": {"devices/qnn_library.py"},
    "tensorrt": {"devices/gpu/bindings.py", *PLUGIN},
    "tensorrt_rtx": {"devices/gpu/bindings.py"},
    "cuda": {"devices/gpu/driver.py"},
    "triton": TRITON,
}


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_stay_where_they_belong(root: Path, package: str) -> None:
    users = {
        path.relative_to(root).as_posix()
        for folder in FORBIDDEN
        for path in (root / folder).rglob("*.py")
        if package in {name.split(".")[0] for name in imports(path)}
    }
    assert users <= OPTIONAL[package]


def test_families_contain_no_graph_code(root: Path) -> None:
    for path in (root / "export" / "families").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {
            "onnx",
            "onnx_ir",
            "onnxscript",
        }
