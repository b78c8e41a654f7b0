"""Every kind of workload that there is, as one type discriminated by `family`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from tilewright.workloads.bare import Attention, EncoderBlock, Gemm, Gemms, LayerNorm, Softmax
from tilewright.workloads.families.albert import Albert
from tilewright.workloads.families.bert import Bert
from tilewright.workloads.families.distilbert import DistilBert
from tilewright.workloads.families.gpt2 import Gpt2
from tilewright.workloads.families.llama import Llama
from tilewright.workloads.families.mobilebert import MobileBert
from tilewright.workloads.families.moe import MixtureOfExperts
from tilewright.workloads.families.t5 import T5
from tilewright.workloads.families.vit import Vit
from tilewright.workloads.families.whisper import Whisper
from tilewright.workloads.onnx_import import OnnxModel

AnyWorkload = Annotated[
    Albert
    | Attention
    | Bert
    | DistilBert
    | EncoderBlock
    | Gemm
    | Gemms
    | Gpt2
    | LayerNorm
    | Llama
    | MixtureOfExperts
    | MobileBert
    | OnnxModel
    | Softmax
    | T5
    | Vit
    | Whisper,
    Field(discriminator="family"),
]

WORKLOAD: TypeAdapter[AnyWorkload] = TypeAdapter(AnyWorkload)
"""Validates the description of any workload."""
