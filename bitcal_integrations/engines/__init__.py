"""Engines: who answers a Request. Each has submit(request, listener) -> Ticket and close()."""
