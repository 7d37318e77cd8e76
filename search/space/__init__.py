"""The search space: what may be chosen, what it costs, and what keeps the budgets."""
