"""Which tokens of which sequences a step computes. No torch, so that it runs in a simulator as well."""
