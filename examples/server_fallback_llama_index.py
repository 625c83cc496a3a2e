"""int4 here answers first; what it is unsure of goes to a server of the same app.

    python server_fallback_llama_index.py http://localhost:8000/v1 [PROFILE]

PROFILE is what `bitcal calibrate http://localhost:8000/v1 ...` wrote. Without it the server's
answers are taken as they are.
"""

import sys

from bitcal_integrations import load
from bitcal_integrations.llama_index import BitCalLLM, ConfidenceFallbackLLM

COUNTRIES = ("Germany", "Japan", "Bhutan", "Eswatini", "Barbados")


def main(url: str, profile: str | None = None) -> None:
    with load(url, profile=profile) as served:
        local = BitCalLLM(model="bitcal-tiny", weights="qint4", max_tokens=24)
        server = BitCalLLM(model=served, max_tokens=24)
        llm = ConfidenceFallbackLLM(
            [local, server], min_confidence=0.8, names=["here", "server"], on_exhausted="last"
        )
        for country in COUNTRIES:
            response = llm.complete(f"What is the capital of {country}?")
            route = response.raw["bitcal"]["route"]
            last = route["attempts"][route["chosen"]]
            print(f"{country:9} {response.text.strip():12} from {last['name']}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*sys.argv[1:])
    else:
        print(__doc__)
