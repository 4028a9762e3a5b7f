"""The explorer: one interactive page on what an accumulator keeps, made of tables that the theory fills."""
