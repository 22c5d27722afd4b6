"""The KV cache as bookkeeping: pages with owners, and the radix tree of cached prefixes. No torch."""
