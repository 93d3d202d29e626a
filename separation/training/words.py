"""What a training run says of itself when it begins and when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from separation.inference.masking import MaskingNetwork
from separation.inference.weights import load_weights
from separation.training.batches import Batches
from separation.training.config import Config
from separation.training.resume import BEST, go_on


def opening(
    config: Config,
    batches: Batches,
    validated: Sequence,
    network: MaskingNetwork,
    device: torch.device,
    dtype: torch.dtype,
    step: int,
) -> str:
    """What a run has found and will do, a line each, and what is amiss."""
    labelled, unlabelled = batches.pools.counts()
    steps, parameters = config.schedule.steps, sum(parameter.numel() for parameter in network.parameters())
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    lines = [
        f"songs: {labelled} labelled, {unlabelled} unlabelled, {len(validated)} to validate on",
        f"network: {', '.join(config.targets)}; {parameters:,} parameters; on {device} in {precision}",
        f"steps: {step} of {steps} are done" if step else f"steps: {steps}",
    ]
    if config.losses.supervised and not batches.supervised:
        lines.append(
            f"warning: no song has isolated {' and '.join(config.targets)} and a rest, so the supervised losses are "
            "left out: check data.stores and data.labelled, or set losses.supervised_target and supervised_rest to 0."
        )
    if not validated:
        lines.append(
            "warning: there are no songs to validate on, so the weights of the last step will be kept, good or not: "
            "data.valid=5 keeps 5 training songs out for it."
        )
    return "\n".join(lines)


def closing(output: Path, network: str, finished_before: bool) -> str:
    """What a run has made: read from the weights themselves."""
    facts = load_weights(output / BEST, network=network).provenance
    scores: Mapping[str, float] = facts.get("validation_sdr") or {}
    step, said = facts.get("step"), "".join(f", {source} {value:.2f} dB" for source, value in scores.items())
    chosen = "the best on the validation songs" if scores else "the last, for there were no songs to choose by"
    softened = f", masks softened by {facts['softened']:g}" if facts.get("softened", 1) != 1 else ""
    lines = [f"done: {output / BEST}{said} (step {step}, {chosen}{softened})"]
    if finished_before:
        lines.append(f"it had finished before; {go_on(output)}")
    return "\n".join(lines)
