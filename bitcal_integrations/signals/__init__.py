"""Signals: one number measured on an Observation, one file each.

A signal file has NEEDS (what must exist to measure it) and measure(observation) -> float:

- "generation": the tokens of the answer. It reads the answer span where one was found, else the
  whole text; an empty text has no value and gives NaN.
- "samples": further answers to the same prompt, in `observation.samples`.
- "extra_pass": what the model says to requests(request, generation) -> tuple of Requests, in
  `observation.passes` under the signal's own name, in their order. COST declares how many there
  are: forward passes over a prompt, each followed by the decoding of at most its max_new_tokens.
- "hidden": a pooled hidden state, in `observation.hidden`, and `observation.probe`, which reads it
  and is fitted with a profile.

What was not measured, or gave nothing that could be read, is NaN: never a number that says sure.
"""
