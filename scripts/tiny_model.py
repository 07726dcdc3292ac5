"""Make a tiny Llama on the spot, for the engine suite: no weights are downloaded.

Run inside .venv-engine: `python scripts/tiny_model.py DIRECTORY`. Random weights, then a few seconds of training on the
text of the example notebooks, so that the model ends its answers by itself: an answer that only a limit on tokens ends
is truncated, and a truncated answer is never cached.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

DATA = Path(__file__).resolve().parent.parent / "notebooks" / "data"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"]
LAYERS = 2
IDLE_LAYERS = 30
STEPS = 150
BATCH = 16
CONTEXT_TOKENS = 4096


def sentences() -> list[str]:
    """Return the sentences of the texts that ship with the notebooks."""
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(DATA.glob("*.txt")))
    return [sentence.strip() + "." for sentence in " ".join(text.split()).split(".") if len(sentence) > 20]


def make_tokenizer(lines: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the lines (every string can be written in it) and give it a chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=768, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(lines, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=SPECIAL[0], pad_token=SPECIAL[-1])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = CONTEXT_TOKENS
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, layers: int) -> LlamaForCausalLM:
    """Return a Llama of 0.1 million parameters a layer with random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT_TOKENS,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> float:
    """Teach it to answer any question with one of the lines and then to stop; return the last loss."""
    chats = [f"<|user|>{lines[(i * 7) % len(lines)]}<|end|><|assistant|>{line}<|end|>" for i, line in enumerate(lines)]
    ids = tokenizer(chats, padding=True, truncation=True, max_length=160, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    loss = torch.tensor(float("nan"))
    for _ in range(STEPS):
        rows = torch.randint(len(chats), (BATCH,), generator=generator)
        labels = ids["input_ids"][rows].masked_fill(ids["attention_mask"][rows] == 0, -100)
        loss = model(input_ids=ids["input_ids"][rows], attention_mask=ids["attention_mask"][rows], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def slowed(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return the same model with idle layers behind it: their output is zero, so they cost time and change nothing.

    Without them an answer is over before a test can interrupt it.
    """
    slow = make_model(tokenizer, LAYERS + IDLE_LAYERS)
    slow.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for layer in slow.model.layers[LAYERS:]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return slow


def main(directory: Path) -> None:
    """Make the model, write it to the directory in Hugging Face's layout, and print one JSON line about it."""
    # Threads that wait for each other on a busy machine make this a hundred times slower, and weights differ between runs.
    torch.set_num_threads(1)
    lines = sentences()
    tokenizer = make_tokenizer(lines)
    model = make_model(tokenizer, LAYERS)
    loss = train(model, tokenizer, lines)
    model = slowed(model, tokenizer)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    print(json.dumps({"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "loss": round(loss, 2)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
