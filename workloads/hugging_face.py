"""Hugging Face `config.json` to a workload's description.

Reads the JSON alone, in the dialect of transformers 5.x and in the older ones: `rope_parameters`, or
`rope_theta` and `rope_scaling`, set the angles of rotary positions, which cost the same whatever they are.
Field names and defaults are those of the configuration classes of transformers 5.23.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tilewright.description.errors import InputError, Problem
from tilewright.description.reading import closest, read_text

Description = dict[str, Any]

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


class Config:
    """A config.json whose fields are asked for by name; what is missing or wrong is an InputError."""

    def __init__(self, data: Mapping[str, Any], source: str) -> None:
        self.data = data
        self.source = source
        self.model_type = str(data.get("model_type") or "")

    def fail(self, message: str) -> NoReturn:
        """Raise the error, with the file in front."""
        raise InputError(Problem(message, self.source))

    def number(self, name: str, *aliases: str, least: int = 1) -> int:
        """A whole number that must be there, under its name or one of the aliases."""
        present = [key for key in (name, *aliases) if self.data.get(key) is not None]
        if present:
            value = self._whole(present[0])
            if value < least:
                self.fail(f"field {present[0]!r} must be at least {least}, not {value}")
            return value
        return self.fail(f"field {name!r} is missing; a config of model_type {self.model_type!r} needs it")

    def number_or(self, default: int, name: str) -> int:
        """A whole number, or `default` where it is missing or null."""
        return default if self.data.get(name) is None else self._whole(name)

    def number_or_none(self, name: str) -> int | None:
        """A whole number, or None where it is missing or null."""
        return None if self.data.get(name) is None else self._whole(name)

    def flag(self, name: str, default: bool) -> bool:
        """A truth value, or `default` where it is missing or null."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, bool):
            self.fail(f"field {name!r} must be true or false, not {value!r}")
        return default if value is None else value

    def activation(self, name: str, default: str) -> str:
        """Our name of the activation function."""
        value = str(self.data.get(name) or default)
        if value not in _ACTIVATIONS:
            hint = closest(value, _ACTIVATIONS)
            self.fail(f"field {name!r}: unknown activation {value!r}{', ' if hint else ''}{hint}")
        return _ACTIVATIONS[value]

    def refuse(self, name: str, why: str, accepted: object = False) -> None:
        """Fail if a field asks for what is not modelled."""
        value = self.data.get(name)
        if value is not None and value != accepted:
            self.fail(f"field {name!r} is {json.dumps(value)}: {why}")

    def _whole(self, key: str) -> int:
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"field {key!r} must be a whole number, not {json.dumps(value)}")
        return value


def read_config(path: str | Path) -> Description:
    """The description (before validation) of the model in the config.json at `path`."""
    config = _parse(read_text(Path(path)), str(path))
    if not config.model_type:
        config.fail("field 'model_type' is missing: this is no Hugging Face config.json")
    if config.model_type not in _FAMILIES:
        hint = closest(config.model_type, _FAMILIES)
        known = ", ".join(sorted(_FAMILIES))
        config.fail(
            f"unknown model_type {config.model_type!r}{', ' if hint else ''}{hint} (supported: {known})"
        )
    description = _FAMILIES[config.model_type](config)
    name = Path(str(config.data.get("_name_or_path") or "")).name or config.model_type
    return {"name": name, **description}


def _parse(text: str, source: str) -> Config:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        lines = text.splitlines()
        excerpt = lines[error.lineno - 1] if error.lineno <= len(lines) else ""
        message = f"not valid JSON (cut short?): {error.msg}"
        raise InputError(Problem(message, source, error.lineno, error.colno, excerpt=excerpt)) from None
    except RecursionError:
        raise InputError(Problem("nested too deeply to be a config.json", source)) from None
    if not isinstance(data, dict):
        raise InputError(Problem("must hold a JSON object", source))
    return Config(data, source)


def _encoder(config: Config) -> Description:
    """Fields that BERT's relatives share."""
    config.refuse("is_decoder", "only the encoder is modelled")
    config.refuse("add_cross_attention", "only the encoder is modelled")
    return {
        "layers": config.number("num_hidden_layers"),
        "d": config.number("hidden_size"),
        "heads": config.number("num_attention_heads"),
        "ffn": config.number("intermediate_size"),
        "act": config.activation("hidden_act", "gelu"),
        "vocab": config.number("vocab_size"),
        "positions": config.number("max_position_embeddings"),
    }


def _bert(config: Config) -> Description:
    return {"family": "bert", **_encoder(config), "segments": config.number("type_vocab_size", least=0)}


def _roberta(config: Config) -> Description:
    # Positions count from the padding token's index + 1.
    return {**_bert(config), "position_offset": config.number_or(1, "pad_token_id") + 1}


def _electra(config: Config) -> Description:
    width = config.number("embedding_size")
    narrow = width if width != config.number("hidden_size") else None
    return {**_bert(config), "embedding": narrow, "pooler": False}


def _distilbert(config: Config) -> Description:
    return {
        "family": "distilbert",
        "layers": config.number("n_layers", "num_hidden_layers"),
        "d": config.number("dim", "hidden_size"),
        "heads": config.number("n_heads", "num_attention_heads"),
        "ffn": config.number("hidden_dim"),
        "act": config.activation("activation", "gelu"),
        "vocab": config.number("vocab_size"),
        "positions": config.number("max_position_embeddings"),
    }


def _albert(config: Config) -> Description:
    return {
        "family": "albert",
        **_encoder(config),
        "segments": config.number("type_vocab_size"),
        "embedding": config.number("embedding_size"),
        "groups": config.number_or(1, "num_hidden_groups"),
        "inner_layers": config.number_or(1, "inner_group_num"),
    }


def _mobilebert(config: Config) -> Description:
    config.refuse("use_bottleneck", "only layers with bottlenecks are modelled", accepted=True)
    config.refuse("trigram_input", "only embeddings of three neighbours are modelled", accepted=True)
    config.refuse("normalization_type", "layer norms are not read from configs", accepted="no_norm")
    narrow = config.flag("use_bottleneck_attention", False)
    if not narrow:
        why = "queries and keys of full width are not modelled"
        config.refuse("key_query_shared_bottleneck", why, accepted=True)
    return {
        "family": "mobilebert",
        **_encoder(config),
        "act": config.activation("hidden_act", "relu"),
        "bottleneck": config.number("intra_bottleneck_size"),
        "networks": config.number("num_feedforward_networks"),
        "norm": "nonorm",
        "narrow_values": narrow,
        "segments": config.number("type_vocab_size", least=0),
        "embedding": config.number("embedding_size"),
        "pooler": config.flag("classifier_activation", True),
    }


def _gpt2(config: Config) -> Description:
    config.refuse("add_cross_attention", "cross-attention is not modelled in GPT-2")
    width = config.number("n_embd", "hidden_size")
    return {
        "family": "gpt2",
        "layers": config.number("n_layer", "num_hidden_layers"),
        "d": width,
        "heads": config.number("n_head", "num_attention_heads"),
        "ffn": config.number_or(4 * width, "n_inner"),
        "act": config.activation("activation_function", "gelu_new"),
        "vocab": config.number("vocab_size"),
        "positions": config.number("n_positions", "max_position_embeddings"),
        "tied": config.flag("tie_word_embeddings", True),
    }


def _causal(config: Config) -> Description:
    """Fields that LLaMA's relatives share."""
    _refuse_partial_rotary(config)
    heads = config.number("num_attention_heads")
    return {
        "layers": config.number("num_hidden_layers"),
        "d": config.number("hidden_size"),
        "heads": heads,
        "kv_heads": config.number_or(heads, "num_key_value_heads"),
        "head_dim": config.number_or(config.number("hidden_size") // max(heads, 1), "head_dim"),
        "act": config.activation("hidden_act", "silu"),
        "vocab": config.number("vocab_size"),
        "tied": config.flag("tie_word_embeddings", False),
    }


def _refuse_partial_rotary(config: Config) -> None:
    rope = config.data.get("rope_parameters")
    inner = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
    factor = config.data.get("partial_rotary_factor") or inner
    if factor not in (None, 1):
        config.fail(f"field 'partial_rotary_factor' is {json.dumps(factor)}: only 1 is modelled")


def _llama(config: Config) -> Description:
    bias = config.flag("attention_bias", False)
    return {
        "family": "llama",
        **_causal(config),
        "ffn": config.number("intermediate_size"),
        "qkv_bias": bias,
        "output_bias": bias,
        "ffn_bias": config.flag("mlp_bias", False),
    }


def _mistral(config: Config) -> Description:
    window = config.number_or_none("sliding_window")
    return {
        "family": "llama",
        **_causal(config),
        "ffn": config.number("intermediate_size"),
        "window": window,
    }


def _qwen2(config: Config) -> Description:
    config.refuse("use_sliding_window", "sliding windows on some of the layers are not modelled")
    ffn = config.number("intermediate_size")
    return {"family": "llama", **_causal(config), "ffn": ffn, "qkv_bias": True}


def _qwen3(config: Config) -> Description:
    config.refuse("use_sliding_window", "sliding windows on some of the layers are not modelled")
    return {**_llama(config), "qk_norm": True}


def _mixtral(config: Config) -> Description:
    return {
        "family": "moe",
        **_causal(config),
        "experts": config.number("num_local_experts", "num_experts"),
        "active_experts": config.number("num_experts_per_tok"),
        "expert_ffn": config.number("intermediate_size"),
        "window": config.number_or_none("sliding_window"),
    }


def _qwen_moe(config: Config) -> Description:
    config.refuse("use_sliding_window", "sliding windows on some of the layers are not modelled")
    config.refuse("decoder_sparse_step", "experts on some of the layers only are not modelled", accepted=1)
    config.refuse("mlp_only_layers", "experts on some of the layers only are not modelled", accepted=[])
    return {
        "family": "moe",
        **_causal(config),
        "experts": config.number("num_experts", "num_local_experts"),
        "active_experts": config.number("num_experts_per_tok"),
        "expert_ffn": config.number("moe_intermediate_size"),
        "renormalize": config.flag("norm_topk_prob", False),
    }


def _qwen2_moe(config: Config) -> Description:
    return {
        **_qwen_moe(config),
        "shared_ffn": config.number("shared_expert_intermediate_size"),
        "qkv_bias": config.flag("qkv_bias", True),
    }


def _qwen3_moe(config: Config) -> Description:
    bias = config.flag("attention_bias", False)
    return {**_qwen_moe(config), "qkv_bias": bias, "output_bias": bias, "qk_norm": True}


def _vit(config: Config) -> Description:
    labels = config.data.get("id2label")
    return {
        "family": "vit",
        "layers": config.number("num_hidden_layers"),
        "d": config.number("hidden_size"),
        "heads": config.number("num_attention_heads"),
        "ffn": config.number("intermediate_size"),
        "act": config.activation("hidden_act", "gelu"),
        "image": config.number("image_size"),
        "patch": config.number("patch_size"),
        "channels": config.number("num_channels"),
        "qkv_bias": config.flag("qkv_bias", True),
        # Without labels transformers builds a head for two.
        "classes": len(labels) if isinstance(labels, dict) else config.number_or(2, "num_labels"),
    }


def _deit(config: Config) -> Description:
    architectures = config.data.get("architectures") or ()
    with_teacher = "DeiTForImageClassificationWithTeacher" in architectures
    return {**_vit(config), "distillation": "token_and_head" if with_teacher else "token"}


def _t5(config: Config) -> Description:
    gated, _, act = str(config.data.get("feed_forward_proj") or "relu").rpartition("-")
    if gated not in ("", "gated") or act not in _ACTIVATIONS:
        config.fail(f"field 'feed_forward_proj': unknown kind {config.data['feed_forward_proj']!r}")
    layers = config.number("num_layers", "num_hidden_layers")
    return {
        "family": "t5",
        "layers": layers,
        "decoder_layers": config.number_or(layers, "num_decoder_layers"),
        "d": config.number("d_model", "hidden_size"),
        "heads": config.number("num_heads", "num_attention_heads"),
        "head_dim": config.number("d_kv", "head_dim"),
        "ffn": config.number("d_ff"),
        # transformers takes `gated-gelu` to mean the tanh form.
        "act": "gelu_new" if (gated, act) == ("gated", "gelu") else _ACTIVATIONS[act],
        "gated": bool(gated),
        "vocab": config.number("vocab_size"),
        "tied": config.flag("tie_word_embeddings", True),
        "buckets": config.number_or(32, "relative_attention_num_buckets"),
    }


def _whisper(config: Config) -> Description:
    positions = config.number("max_source_positions")
    return {
        "family": "whisper",
        "layers": config.number("encoder_layers"),
        "decoder_layers": config.number("decoder_layers"),
        "d": config.number("d_model", "hidden_size"),
        "heads": config.number("encoder_attention_heads"),
        "decoder_heads": config.number("decoder_attention_heads"),
        "ffn": config.number("encoder_ffn_dim"),
        "decoder_ffn": config.number("decoder_ffn_dim"),
        "act": config.activation("activation_function", "gelu"),
        "mels": config.number("num_mel_bins"),
        "vocab": config.number("vocab_size"),
        "tied": config.flag("tie_word_embeddings", True),
        "positions": positions,
        "target_positions": config.number("max_target_positions"),
        "seq": positions,
    }


_FAMILIES: Mapping[str, Callable[[Config], Description]] = {
    "albert": _albert,
    "bert": _bert,
    "deit": _deit,
    "distilbert": _distilbert,
    "electra": _electra,
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "mobilebert": _mobilebert,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "roberta": _roberta,
    "t5": _t5,
    "vit": _vit,
    "whisper": _whisper,
    "xlm-roberta": _roberta,
}
