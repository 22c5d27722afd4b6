"""The recipe of the embedded default model: synthetic data, tokenizer, training loop and evaluation."""
