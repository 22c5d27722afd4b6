"""Experts against their formula."""

import pytest
import torch
from spark_llm.kernels.experts import experts, experts_reference
from spark_llm.kernels.silu_and_mul import silu_and_mul


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("tokens", "count", "chosen"), [(1, 4, 2), (37, 5, 5), (8, 64, 1)])
def test_equals_the_reference(tokens, count, chosen, normalized):
    x, scores = torch.randn(tokens, 12), torch.randn(tokens, count)
    weights = torch.randn(count, 14, 12), torch.randn(count, 12, 7)
    options = {"chosen": chosen, "normalized": normalized, "activation": silu_and_mul}
    expected = experts_reference(x, scores, *weights, **options)
    torch.testing.assert_close(experts(x, scores, *weights, **options), expected, atol=1e-4, rtol=1e-4)
