"""Write a model that tiny_model.py made as GGUF, for llama-server.

Run with gguf, numpy and safetensors: `python scripts/tiny_gguf.py DIRECTORY FILE`. Names of tensors and keys are those of
llama.cpp's architecture "llama".
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType
from safetensors.numpy import load_file

OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
IN_A_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return queries' or keys' weights in llama.cpp's order: it rotates neighbours, transformers rotates two halves."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def add_shape(writer: GGUFWriter, config: dict[str, Any]) -> None:
    """Write what the model is like."""
    heads = config["num_attention_heads"]
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokens(writer: GGUFWriter, tokenizer: dict[str, Any], template: str) -> None:
    """Write the byte-level BPE, its special tokens and the chat template."""
    ids = tokenizer["model"]["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(ids["<|end|>"])
    writer.add_pad_token_id(ids["<|pad|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)


def add_weights(writer: GGUFWriter, weights: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Write the tensors; the last layer shares its weights with the first."""
    turned = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    for name, weight in weights.items():
        if name == "lm_head.weight":
            continue
        stored, tensor = OUTSIDE.get(name), weight.astype(np.float32)
        if stored is None:
            _, _, layer, rest = name.split(".", 3)
            part = rest.removesuffix(".weight")
            stored = f"blk.{layer}.{IN_A_LAYER[part]}.weight"
            tensor = interleaved(tensor, turned[part]) if part in turned else tensor
        writer.add_tensor(stored, np.ascontiguousarray(tensor))


def main(directory: Path, file: Path) -> None:
    """Read Hugging Face's layout, write one file."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(file, "llama")
    add_shape(writer, config)
    add_tokens(writer, tokenizer, (directory / "chat_template.jinja").read_text(encoding="utf-8"))
    add_weights(writer, load_file(directory / "model.safetensors"), config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
