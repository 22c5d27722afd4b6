"""One kernel a file, each beside its torch reference; knows torch (and triton) only."""
