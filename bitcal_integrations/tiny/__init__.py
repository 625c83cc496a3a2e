"""The built-in model `bitcal-tiny`: its questions, its training, its weights and its model card.

It is a real language model with real mistakes, small enough to ship in the wheel. Results on it
show that the machinery works; they say nothing about a model of seven billion weights.
"""
