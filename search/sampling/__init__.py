"""The default sampler: what it believes of a setting, and which settings it proposes next."""
