"""int4 here answers first; what it is unsure of goes to a server of the same app.

    python server_fallback_langchain.py http://localhost:8000/v1 [PROFILE]

PROFILE is what `bitcal calibrate http://localhost:8000/v1 ...` wrote. Without it the server's
answers are taken as they are.
"""

import sys

from bitcal_integrations import load
from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.tiny.tasks import questions


def main(url: str, profile: str | None = None) -> None:
    with load(url, profile=profile) as served:
        local = ChatBitCal(model="bitcal-tiny", weights="qint4", task="math", max_tokens=160)
        server = ChatBitCal(model=served, max_tokens=160)
        chain = local.with_confidence_fallback(
            [server], min_confidence=0.97, names=["here", "server"], on_exhausted="last"
        )
        asked = questions("math", "test", 8, seed=5)
        answers = chain.batch([[(m["role"], m["content"]) for m in q.messages] for q in asked])
        for question, message in zip(asked, answers, strict=True):
            route = message.response_metadata["bitcal"]["route"]
            way = " -> ".join(
                f"{a['name']} {'?' if a['confidence'] is None else format(a['confidence'], '.2f')}"
                for a in route["attempts"]
            )
            given = message.text.rpartition("####")[2].strip()
            print(f"{way:24} {given} (right: {question.gold})")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*sys.argv[1:])
    else:
        print(__doc__)
