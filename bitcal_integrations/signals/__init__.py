"""Signals: one number measured on an Observation, one file each.

A signal file has NEEDS (what must exist to measure it: "generation", "samples", "extra_pass" or
"hidden") and measure(observation) -> float. It reads the answer span where one was found, else
the whole text; an empty text has no value and gives NaN.
"""
