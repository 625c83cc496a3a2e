"""Public help for tests: ToyModel, a model whose answers and confidence come from a table."""
