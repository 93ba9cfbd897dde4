"""Lower a bundle's graphs to fixed shapes, the form that NPUs run."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgedec.devices.npu.bias import Tables
from edgedec.devices.npu.decoder import DecoderGraph, Lengths, decoder_graph, static_decoder
from edgedec.devices.npu.encoder import static_encoder
from edgedec.devices.npu.model import (
    DECODER,
    ENCODER,
    PREFILL,
    TARGETS,
    Shapes,
    StaticModel,
    Target,
)
from edgedec.devices.npu.standard import standardise
from edgedec.devices.npu.supported import check_operators, check_shapes
from edgedec.devices.passes.refusal import RefusalError, describe
from edgedec.errors import InputError
from edgedec.runtime.manifest import BiasTable, Manifest, Static, StaticDecoder, StaticEncoder

__all__ = ["TARGETS", "Shapes", "StaticModel", "Target", "lower_static"]


def lower_static(
    models: Mapping[str, ir.Model],
    manifest: Manifest,
    shapes: Shapes,
    target: Target,
    parts: frozenset[str] = frozenset((ENCODER, DECODER)),
) -> StaticModel:
    """Write a model's graphs in float32 with fixed shapes, of operators that NPUs run.

    Args:
        models: component name -> graph, as a bundle has it; they stay as they are.
        manifest: of the bundle.
        shapes: the lengths to fix.
        target: the device to write for.
        parts: ``encoder``, ``decoder`` or both; what is left out stays the bundle's.

    Returns:
        The graphs of these parts, and of a decoder-only model that takes chunks ``prefill``.

    Raises:
        InputError: lengths that the model does not have, or a model that cannot be lowered; the
            message names the node, its operator, and what to do.
    """
    _refuse(manifest, shapes, parts)
    return _Lowering(models, manifest, shapes, target, parts).run()


class _Lowering:
    """One model on its way."""

    def __init__(
        self,
        models: Mapping[str, ir.Model],
        manifest: Manifest,
        shapes: Shapes,
        target: Target,
        parts: frozenset[str],
    ) -> None:
        self._models, self._manifest = models, manifest
        self._shapes, self._target, self._parts = shapes, target, parts
        self._result = StaticModel({}, Static(kv_heads=1), {})
        self._part = DECODER

    def run(self) -> StaticModel:
        """Lower the parts that were asked for."""
        try:
            return self._run()
        except RefusalError as refusal:
            raise InputError(self._sentence(refusal)) from refusal

    def _run(self) -> StaticModel:
        shapes, parts, result = self._shapes, self._parts, self._result
        most = max(shapes.chunk if self._prefills else 1, shapes.unroll)
        model = self._standard(self._manifest.stages[0].component, lowered=DECODER in parts)
        decoder = decoder_graph(model, shapes.past + most)
        encoder_part = decoder_part = None
        if ENCODER in parts and self._manifest.encoder is not None:
            encoder_part = self._encoder(self._manifest.encoder, decoder)
        if DECODER in parts:
            decoder_part = self._decoder(decoder)
        result.static = Static(
            kv_heads=decoder.heads.kv, encoder=encoder_part, decoder=decoder_part
        )
        return result

    @property
    def _prefills(self) -> bool:
        return self._manifest.encoder is None and self._shapes.chunk > 1

    def _encoder(self, component: str, decoder: DecoderGraph) -> StaticEncoder:
        self._part = ENCODER
        length = self._shapes.source
        assert length is not None
        model = self._standard(component, lowered=True)
        written, tables = static_encoder(model, length, decoder.heads, self._target)
        self._keep(ENCODER, written)
        return StaticEncoder(length, self._table(ENCODER, tables))

    def _decoder(self, decoder: DecoderGraph) -> StaticDecoder:
        self._part = DECODER
        shapes, source = self._shapes, None
        if self._manifest.encoder is not None:
            source = shapes.source
        graphs = {DECODER: Lengths(shapes.past, source, 1, shapes.unroll)}
        if self._prefills:
            graphs[PREFILL] = Lengths(shapes.past, source, shapes.chunk, 1)
        for name, lengths in graphs.items():
            self._keep(name, static_decoder(decoder, lengths, self._target, name))
        return StaticDecoder(
            source=source,
            past=shapes.past,
            unroll=shapes.unroll,
            prefill=PREFILL if self._prefills else None,
            chunk=shapes.chunk if self._prefills else None,
            bias=self._table(DECODER, decoder.tables),
        )

    def _standard(self, component: str, *, lowered: bool) -> ir.Model:
        codes = self._manifest.codebooks
        matrices = {} if codes is None else codes.matrices.get(component, {})
        model, coded = standardise(self._models[component], matrices)
        if lowered:
            self._result.coded.update(coded)
        return model

    def _keep(self, name: str, model: ir.Model) -> None:
        from onnx_ir.passes.common import ShapeInferencePass

        check_operators(model.graph)
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
        check_shapes(model.graph)
        self._result.models[name] = model

    def _table(self, part: str, tables: Tables) -> BiasTable:
        file = f"{part}.bias.bin"
        self._result.tables[file] = tables.rows
        return BiasTable(file, tables.heads, tables.rows.shape[1] // 2)

    def _sentence(self, refusal: RefusalError) -> str:
        """What cannot be lowered, and the way out."""
        part, name = self._part, self._target.name
        what = f"the {part}" if refusal.node is None else f"{describe(refusal.node)} of the {part}"
        others = self._parts - {part}
        if self._manifest.encoder is None or part not in self._parts or not others:
            out = "export the model for the CPU (--device cpu)"
        else:
            out = f"leave it on the CPU (--device {min(others)}={name},{part}=cpu)"
        return f"--device {name} cannot run {what}: {refusal.reason}; {out}."


def _refuse(manifest: Manifest, shapes: Shapes, parts: frozenset[str]) -> None:
    """Refuse bundles of another kind, and lengths that cannot be."""
    stage = manifest.stages[0]
    if manifest.static is not None:
        raise InputError(
            "the bundle's graphs have fixed shapes already: give the checkpoint or bundle that "
            "it was made from."
        )
    extra = (manifest.head, manifest.meta, manifest.router)
    cut = len(manifest.stages) > 1 or stage.variants or any(name is not None for name in extra)
    if cut and DECODER in parts:
        raise InputError(
            "the bundle's decoder is cut into parts for depth policies, which graphs of fixed "
            "shapes cannot be: export the checkpoint without --stages and --depth."
        )
    if (shapes.source is None) != (manifest.encoder is None):
        raise InputError(
            "--max-source is the length of what an encoder reads: "
            + ("give it." if shapes.source is None else "leave it out for this model.")
        )
    limits = {
        "--max-source": (shapes.source, manifest.interface.max_source),
        "--max-target": (shapes.target, manifest.interface.max_target),
    }
    for option, (wanted, limit) in limits.items():
        if wanted is not None and limit is not None and wanted > limit:
            raise InputError(f"{option} {wanted}: this model has {limit} positions at most.")
        least = 1 if option == "--max-source" else 2
        if wanted is not None and wanted < least:
            raise InputError(f"{option} {wanted}: give {least} or more.")
    counts = {"--unroll": shapes.unroll}
    if manifest.encoder is None:
        counts["--chunk"] = shapes.chunk
    for option, given in counts.items():
        if not 1 <= given <= shapes.past:
            raise InputError(
                f"{option} {given}: give 1 to {shapes.past}, one less than --max-target."
            )
