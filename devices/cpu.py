"""The CPU, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedec.devices.options import default_threads, session_options
from edgedec.errors import BundleError, DeviceError, InputError
from edgedec.runtime.manifest import Component
from edgedec.runtime.onnx_file import operator_sets
from edgedec.runtime.operators import DOMAIN
from edgedec.runtime.session import OnnxSession, Session, first_line

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgedec.devices.matrices import PackedMatrix
    from edgedec.devices.report import DeviceReport
    from edgedec.kernels.codebook_matmul import Compute
    from edgedec.quantize.matrices import Quantize


@dataclass(frozen=True)
class Cpu:
    """ONNX Runtime's CPU provider."""

    name: str = "cpu"

    def file(self, component: Component) -> str:
        """Its graph, whatever device that was lowered for.

        Raises:
            DeviceError: there is none, but compiled forms of it only.
        """
        if component.contexts:
            raise DeviceError(
                f"{component.file} is compiled for {', '.join(component.contexts)} and cannot run "
                f"on the CPU: use --device {component.device}, or export without --soc."
            )
        return component.file

    def lower(
        self,
        models: Mapping[str, ir.Model],
        quantize: Quantize,
        *,
        compute: Compute,
        portable: bool,
    ) -> Mapping[str, Sequence[PackedMatrix]]:
        """Pack codes for the library; fuse projections of one value, attention, sums and norms."""
        from edgedec.devices.lowering import lower_graphs

        return lower_graphs(models, quantize, compute=compute, portable=portable)

    def fallback(self) -> str | None:
        """Why the library is not used, in a sentence; None if it is."""
        import onnxruntime

        from edgedec.kernels.library import register

        return register(onnxruntime.SessionOptions())

    def report(self) -> DeviceReport:
        """The library's instruction set for every operator, or why function bodies run."""
        import onnxruntime

        from edgedec.devices.kernel_info import instruction_sets
        from edgedec.devices.report import DeviceReport, OperatorReport
        from edgedec.kernels.library import library_path, register
        from edgedec.runtime.operators import ATTRIBUTES

        options = onnxruntime.SessionOptions()
        reason = register(options)
        chosen, every = instruction_sets(options) if reason is None else (None, ())
        slower = reason
        if chosen is not None and chosen != every[0]:
            slower = f"{every[0]} would be faster; EDGEDEC_ISA asks for {chosen}."
        elif every == ("scalar",):
            slower = "this processor has no instruction set that the library has fast code for."
        return DeviceReport(
            device=self.name,
            available=True,
            reason=None,
            runtime=f"ONNX Runtime {onnxruntime.__version__}",
            threads=default_threads(),
            library=None if reason is not None else str(library_path()),
            instruction_sets=every,
            operators=tuple(
                OperatorReport(
                    operator=name,
                    runs_as="function body" if chosen is None else "kernel",
                    instruction_set=chosen,
                    reason=slower,
                )
                for name in ATTRIBUTES
            ),
        )

    def open(
        self, graph: Path, *, threads: int | None, shared: bool, records: Path | None = None
    ) -> Session:
        """Open a graph on the CPU; weights outside of it stay mapped from their file.

        Operators of ours run by the library; where that is missing, by their function bodies.
        """
        import onnxruntime

        options = session_options(threads, shared, records)
        if DOMAIN in operator_sets(graph.read_bytes()):
            from edgedec.kernels.library import register

            register(options)
        try:
            session = onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # which means a second try, and print() to standard output
            )
            return OnnxSession(graph.name, session)
        except Exception as error:  # ONNX Runtime's exceptions share no other base
            raise BundleError(
                f"{graph.name} cannot be opened by ONNX Runtime {onnxruntime.__version__}: "
                f"{first_line(error)}"
            ) from error


def device(option: str | None, allow_fallback: bool) -> Cpu:  # noqa: ARG001 - there is none
    """The CPU; always available.

    Raises:
        InputError: it has no options.
    """
    if option is not None:
        raise InputError(f"the device 'cpu' has no option {option!r}: write --device cpu.")
    return Cpu()
