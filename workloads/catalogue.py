"""Every family of workloads that there is, and the model that describes it.

A family's module is imported when it is named: a run reads one description, and building the models of all
of them would take longer than most simulations.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Union

from tilewright.workloads.description import Workload

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FAMILIES = {
    "albert": "families.albert.Albert",
    "attention": "bare.Attention",
    "autoformer": "families.autoformer.AutoFormer",
    "bert": "families.bert.Bert",
    "distilbert": "families.distilbert.DistilBert",
    "encoder_block": "bare.EncoderBlock",
    "gemm": "bare.Gemm",
    "gemm_chain": "gemm_chain.GemmChain",
    "gemms": "bare.Gemms",
    "gpt2": "families.gpt2.Gpt2",
    "hat": "families.hat.Hat",
    "layer_stack": "layer_stack.LayerStack",
    "layernorm": "bare.LayerNorm",
    "llama": "families.llama.Llama",
    "moe": "families.moe.MixtureOfExperts",
    "mobilebert": "families.mobilebert.MobileBert",
    "onnx": "onnx_import.OnnxModel",
    "softmax": "bare.Softmax",
    "t5": "families.t5.T5",
    "vit": "families.vit.Vit",
    "whisper": "families.whisper.Whisper",
}
"""Where the model of each family stands."""


def family_model(family: str) -> type[Workload]:
    """The model that describes workloads of `family`, one of `FAMILIES`."""
    module, _, name = FAMILIES[family].rpartition(".")
    model: type[Workload] = getattr(import_module(f"tilewright.workloads.{module}"), name)
    return model


@cache
def any_workload() -> TypeAdapter[Workload]:
    """What validates the description of any workload, told apart by `family`."""
    from pydantic import Field, TypeAdapter

    models: Any = Union[tuple(map(family_model, FAMILIES))]  # noqa: UP007 - a tuple
    return TypeAdapter(Annotated[models, Field(discriminator="family")])
