"""From a model's name to quantized weights that were checked and can be served.

`weights.py` loads, saves and reloads; `memory.py` reports bytes. Importing this package loads
neither torch nor transformers; importing a file in it does.
"""
