"""Put the cheap conjuncts of a condition before those that ask the model."""

from __future__ import annotations

from spark_llm.optimizer.calls import has_llm_call
from sqlglot import exp


def order_predicates(tree: exp.Expr) -> exp.Expr:
    """Reorder AND chains in WHERE, HAVING, QUALIFY and ON, in place; equal kinds stay as written.

    A model is asked only about the rows that the cheap conjuncts let through.

    Examples
    --------
    >>> import sqlglot
    >>> tree = sqlglot.parse_one("SELECT 1 FROM t WHERE llm_filter('Good?', review) AND year > 2000")
    >>> order_predicates(tree).sql(normalize_functions=False)
    "SELECT 1 FROM t WHERE year > 2000 AND llm_filter('Good?', review)"
    """
    for chain in reversed(list(tree.find_all(exp.And, bfs=True))):  # inner ones first: outer ones are copied
        if not isinstance(chain.parent, exp.And) and has_llm_call(chain):
            conjuncts = sorted(chain.flatten(unnest=False), key=has_llm_call)
            ordered = conjuncts[0]
            for conjunct in conjuncts[1:]:
                ordered = exp.And(this=ordered.copy(), expression=conjunct.copy())
            chain.replace(ordered)
    return tree
