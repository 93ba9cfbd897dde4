"""The machine, the bundles and the effort."""

from __future__ import annotations

from collections.abc import Iterator

from edgedec.runtime.profiling.record import BundleFacts, Environment, Profile
from edgedec.runtime.report.figures import megabytes, number
from edgedec.runtime.report.markup import element
from edgedec.runtime.report.page import facts
from edgedec.runtime.report.sections.section import Section, folded

UNKNOWN = "not known"
Fact = tuple[str, str]


def machine(profile: Profile) -> Section:
    """All that is needed to measure the same again."""
    parts = [facts(_machine(profile.environment)), element("h3", "Effort"), facts(_effort(profile))]
    return Section("machine", "Machine and effort", parts)


def bundles(profile: Profile) -> Section:
    """The bundles, as they were measured."""
    several = len(profile.bundles) > 3
    parts = [
        folded(label, [facts(_bundle(found))], unfolded=not several)
        for label, found in profile.bundles.items()
    ]
    return Section("bundles", "Bundles", parts, "none could be opened.")


def _machine(found: Environment) -> Iterator[Fact]:
    memory = found.memory_bytes
    yield "Date", found.date
    yield "Processor", f"{found.cpu} ({found.machine})"
    yield "Cores", f"{found.cores:,}"
    yield "Kernels", found.instruction_set or "function bodies: no operator library"
    yield "Largest cache", UNKNOWN if found.cache_bytes is None else megabytes(found.cache_bytes)
    yield "Memory", UNKNOWN if memory is None else f"{number(memory / 1e9)} GB"
    yield "Frequency governor", found.governor or UNKNOWN
    yield "Boost", _answer(found.boost)
    yield "Virtual machine", _answer(found.hypervisor)
    yield "Load at the beginning", UNKNOWN if found.load is None else f"{found.load:.2f}"
    for threads, value in found.bandwidth_gb_s.items():
        word = "thread" if threads == "1" else "threads"
        yield f"Bandwidth, {threads} {word}", f"{number(value)} GB/s"
    yield "System", found.system
    yield "Python", found.python
    yield "Packages", ", ".join(f"{name} {version}" for name, version in found.versions.items())


def _answer(known: bool | None) -> str:
    return UNKNOWN if known is None else "yes" if known else "no"


def _effort(profile: Profile) -> Iterator[Fact]:
    effort = profile.effort
    yield "Rounds", f"{effort.rounds:,}"
    yield "Requests per row", f"{effort.repetitions:,}"
    yield "Warm-up per process", f"{effort.warmup:,}"
    yield "Processes", "a fresh one for every turn" if effort.fresh else "one for all"
    yield "Seed", str(effort.seed)
    yield "Finished", "yes" if profile.complete else "no: interrupted"


def _bundle(found: BundleFacts) -> Iterator[Fact]:
    yield "Checkpoint", found.source
    yield "Architecture", found.architecture
    yield "Weights", f"{found.parameters:,}, stored as {found.precision}"
    if found.compute is not None:
        yield "Products with codes", found.compute
    each = 8 * found.weight_bytes / max(1, found.parameters)
    yield "Graphs with weights", f"{megabytes(found.weight_bytes)}, {each:.2f} bits per weight"
    yield "All files", megabytes(found.file_bytes)
    encoder = "" if found.encoder_layers is None else f"{found.encoder_layers} in the encoder, "
    yield "Layers", f"{encoder}{found.decoder_layers} in the decoder, in {found.stages} graph(s)"
    yield "Width, vocabulary", f"{found.d_model:,}, {found.vocab_size:,}"
    if found.step_bytes is not None:
        yield "Weights read per token", megabytes(found.step_bytes)
    yield "Producer", found.producer
    yield "Manifest's SHA-256", found.sha256
