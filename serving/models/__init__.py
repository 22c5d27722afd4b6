"""Decoder models: one class driven by a data-only configuration, weight names and model directories apart."""
