"""The local decode loop: prefill and steps on a model's forward, a signal tap, structural stops.

`steps` yields every token of a batch, `stream` one request's tokens and then its Generation,
`generate` folds a batch into Generations. None of them knows about queues, threads or
confidence; engines do the first two.
"""
